//! What it takes to find a key's owner, beside hashring's own search, and how evenly keys lie.
//!
//! `cargo bench --bench ring [-- --quick]`. A ring of ten members at the default setting; keys of 16 B in the default namespace.

mod support;

use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;

use hashring::HashRing;
use larder::clock::monotonic;
use larder::ring::{POINTS_PER_WEIGHT, Position, Ring, RingMember};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use support::{headline, median, quick};
use xxhash_rust::xxh64::xxh64;

const KEYS: usize = 65_536;

/// The hash of a number is the number.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("hashes are written whole");
    }
}

fn members(random: &mut SmallRng) -> Vec<RingMember> {
    (0..10).map(|_| RingMember { id: format!("{:016x}", random.random::<u64>()), weight: 1 }).collect()
}

fn main() {
    headline("ten members, 4,000 points each: the owner of a key of 16 B");
    let mut random = SmallRng::seed_from_u64(1);
    let members_of_one = members(&mut random);
    let begun = monotonic();
    let ring = Ring::new(members_of_one.clone(), POINTS_PER_WEIGHT).expect("they make a ring");
    println!("made in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    let mut theirs = HashRing::with_hasher(BuildHasherDefault::<AsItIs>::default());
    let points = members_of_one.iter().flat_map(|member| {
        (0..POINTS_PER_WEIGHT).map(|number| xxh64(format!("{}_{number}", member.id).as_bytes(), 0))
    });
    theirs.batch_add(points.collect());
    let keys: Vec<[u8; 16]> = (0..KEYS).map(|_| random.random()).collect();
    let positions: Vec<Position> = keys.iter().map(|key| Position::of("", key)).collect();
    let rounds = if quick() { 3 } else { 9 };
    let ways: [(&str, &dyn Fn(usize) -> u64); 4] = [
        ("key to position", &|at| Position::of("", &keys[at]).0),
        ("position to owner", &|at| ring.owner_index(positions[at]) as u64),
        ("the same by hashring", &|at| theirs.get(&positions[at].0).map_or(0, |point| *point)),
        ("key to owner, all of it", &|at| ring.owner_index(Position::of("", &keys[at])) as u64),
    ];
    for (name, way) in ways {
        let times = (0..rounds).map(|_| {
            let begun = monotonic();
            (0..KEYS).for_each(|at| {
                black_box(way(black_box(at)));
            });
            begun.elapsed().as_secs_f64() * 1e9 / KEYS as f64
        });
        println!("{name:<26} {:>6.1} ns", median(times.collect()));
    }
    let rings = if quick() { 10 } else { 60 };
    let most: Vec<f64> = (0..rings)
        .map(|_| {
            let ring = Ring::new(members(&mut random), POINTS_PER_WEIGHT).expect("they make a ring");
            ring.shares().into_iter().fold(0.0, f64::max) * 10.0
        })
        .collect();
    let even = most.iter().filter(|most| **most <= 1.05).count();
    let worst = most.iter().copied().fold(0.0, f64::max);
    println!(
        "max/mean over {rings} random rings: {:.3} (median), {worst:.3} (worst), {even} at most 1.05",
        median(most)
    );
}
