//! Owners beside hashring's own and beside the vectors, how evenly keys lie, and what a change moves.

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn member(id: impl Into<String>, weight: u32) -> RingMember {
    RingMember { id: id.into(), weight }
}

/// So many members of weight 1.
fn equal(count: usize) -> Vec<RingMember> {
    (0..count).map(|number| member(format!("node-{number}"), 1)).collect()
}

/// Members of any ids and weights, and points for a weight.
fn rings() -> impl Strategy<Value = (Vec<RingMember>, u32)> {
    let members = prop::collection::btree_map("[a-z0-9:.-]{1,20}", 1..5_u32, 1..12);
    (members, 1..60_u32).prop_map(|(members, points)| {
        (members.into_iter().map(|(id, weight)| member(id, weight)).collect(), points)
    })
}

proptest! {
    #[test]
    fn owners_are_those_of_hashring((members, points) in rings(), positions in prop::collection::vec(any::<u64>(), 50)) {
        let ring = Ring::new(members, points).unwrap();
        let mut theirs = HashRing::with_hasher(AsItIs::default());
        theirs.batch_add(virtual_nodes(ring.config()));
        // At, before and behind points as well.
        let nodes = virtual_nodes(ring.config());
        let beside = nodes.iter().flat_map(|node| [node.point.wrapping_sub(1), node.point, node.point.wrapping_add(1)]);
        for position in positions.into_iter().chain(beside).chain([0, u64::MAX]) {
            let expected = first_at_or_after(&theirs, position).member;
            prop_assert_eq!(ring.owner_index(Position(position)), usize::from(expected));
        }
    }

    #[test]
    fn the_order_in_which_members_come_decides_nothing((members, points) in rings(), seed in any::<u64>()) {
        let ring = Ring::new(members.clone(), points).unwrap();
        let mut others = members;
        let mut random = SmallRng::seed_from_u64(seed);
        (1..others.len()).for_each(|place| others.swap(place, random.random_range(0..=place)));
        let other = Ring::new(others, points).unwrap();
        prop_assert_eq!(ring.digest(), other.digest());
        prop_assert_eq!(ring.members(), other.members());
        prop_assert_eq!(virtual_nodes(ring.config()), virtual_nodes(other.config()));
    }

    #[test]
    fn shares_are_what_lies_between_points((members, points) in rings()) {
        let ring = Ring::new(members, points).unwrap();
        let shares = ring.shares();
        prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        prop_assert!(shares.iter().all(|share| *share >= 0.0));
    }
}

/// Rings whose points all lie in one stretch of the index among them.
#[test]
fn owners_are_those_of_hashring_in_the_smallest_rings() {
    for (one, other) in (0..12).flat_map(|one| (0..one).map(move |other| (one, other))) {
        let members = [member(format!("node-{one}"), 1), member(format!("node-{other}"), 1)];
        for points in 1..4 {
            let ring = Ring::new(members.clone(), points).unwrap();
            for node in virtual_nodes(ring.config()) {
                for position in [node.point.wrapping_sub(1), node.point, node.point.wrapping_add(1)] {
                    let expected = first_at_or_after(&ring.points, position).member;
                    assert_eq!(ring.owner_index(Position(position)), usize::from(expected), "{ring:?}");
                }
            }
        }
    }
}

#[test]
fn a_member_that_comes_takes_its_share_and_moves_nothing_else() {
    let before = Ring::new(equal(10), POINTS_PER_WEIGHT).unwrap();
    let mut members = equal(10);
    members.push(member("one-more", 1));
    let after = Ring::new(members, POINTS_PER_WEIGHT).unwrap();
    let keys = 100_000;
    let mut moved = 0;
    for key in 0..keys {
        let position = Position::of("", format!("key:{key}").as_bytes());
        let (old, new) = (before.owner(position), after.owner(position));
        if old != new {
            assert_eq!(new.id, "one-more", "no key moves between those that stay");
            moved += 1;
        }
    }
    let share = f64::from(moved) / f64::from(keys);
    assert!(share > 0.0 && share <= 1.1 / 11.0, "{share}");
}

#[test]
fn ten_equal_members_own_nearly_equal_shares_at_the_default_setting() {
    let mut random = SmallRng::seed_from_u64(60);
    let mut even = 0;
    for _ in 0..60 {
        let members = (0..10).map(|_| member(format!("{:016x}", random.random::<u64>()), 1));
        let shares = Ring::new(members, POINTS_PER_WEIGHT).unwrap().shares();
        let most = shares.into_iter().fold(0.0, f64::max);
        even += u32::from(most * 10.0 <= 1.05);
    }
    assert!(even >= 57, "{even} of 60");
}

#[test]
fn a_weight_is_a_share() {
    let ring = Ring::new([member("a", 1), member("b", 3)], POINTS_PER_WEIGHT).unwrap();
    let shares = ring.shares();
    assert!((shares[1] - 0.75).abs() < 0.02, "{shares:?}");
    let alone = Ring::new([member("a", 1)], 1).unwrap();
    assert_eq!((alone.shares(), alone.owner(Position(u64::MAX)).id.as_str()), (vec![1.0], "a"));
}

#[test]
fn a_digest_tells_what_decides_owners() {
    let digest = |members: &[(&str, u32)], points| {
        let members = members.iter().map(|(id, weight)| member(*id, *weight));
        Ring::new(members, points).unwrap().digest().to_string()
    };
    let digests = [
        digest(&[("a", 1), ("b", 1)], 10),
        digest(&[("a", 1), ("b", 1)], 11),
        digest(&[("a", 1), ("b", 2)], 10),
        digest(&[("a", 1), ("c", 1)], 10),
        digest(&[("a", 1)], 10),
        digest(&[("ab", 1)], 10),
    ];
    for (nth, one) in digests.iter().enumerate() {
        assert!(one.len() == 32 && !digests[nth + 1..].contains(one), "{digests:?}");
    }
}

#[test]
fn members_that_make_no_ring_are_refused_with_what_is_wrong() {
    let refused = |members: Vec<RingMember>, points| Ring::new(members, points).unwrap_err().to_string();
    assert_eq!(Ring::new([], 1).unwrap_err(), RingError::NoMember);
    let twice = refused(vec![member("a", 1), member("b", 1), member("a", 2)], 1);
    assert!(twice.contains("\"a\"") && twice.contains("--node-id"), "{twice}");
    for id in [String::new(), "x".repeat(256)] {
        assert!(refused(vec![member(id, 1)], 1).contains("255"));
    }
    for weight in [0, 1_001] {
        assert!(refused(vec![member("a", weight)], 1).contains(&format!("weight {weight}")));
    }
    assert!(refused(equal(2), 0).contains("0 points"));
    let many = refused(equal(2), u32::MAX);
    assert!(
        many.contains(&(2 * u64::from(u32::MAX)).to_string()) && many.contains("--ring-points"),
        "{many}"
    );
    let crowd = (0..=MEMBERS_MAX).map(|number| member(number.to_string(), 1)).collect();
    assert!(refused(crowd, 1).contains("65536"));
}

#[test]
fn stock_clients_can_have_the_same_ring_where_members_are_alike_and_their_ids_addresses() {
    let of = |ids: &[&str], weight, points| {
        Ring::new(ids.iter().map(|id| member(*id, weight)), points).unwrap().config().stock_sizes()
    };
    let addresses = ["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"];
    assert_eq!(of(&addresses, 1, 400), Some((1_200, 4_096)));
    assert_eq!(of(&addresses, 2, 200), Some((1_200, 4_096)));
    assert_eq!(of(&addresses, 1, 401), None);
    assert_eq!(of(&["larder-0", "larder-1"], 1, 100), None, "they are no addresses");
    let unequal = [member("10.0.0.1:7400", 1), member("10.0.0.2:7400", 2)];
    assert_eq!(Ring::new(unequal, 100).unwrap().config().stock_sizes(), None);
    let many: Vec<String> = (0..11).map(|number| format!("10.0.0.{number}:7400")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(of(&many, 1, 400), None, "4,400 points");
}

#[test]
fn owners_are_those_of_the_vectors() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/ring.json");
    // The vectors are in the repository alone, not in the package.
    let Ok(text) = std::fs::read_to_string(file) else { return };
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in vectors["positions"].as_array().unwrap() {
        let (namespace, name) = (key["namespace"].as_str().unwrap(), key["key"].as_str().unwrap());
        let digits = Position::digits(namespace, name.as_bytes());
        assert_eq!(std::str::from_utf8(&digits).unwrap(), key["digits"]);
        assert_eq!(Position::of(namespace, name.as_bytes()).0.to_string(), key["position"]);
    }
    let mut keys = 0;
    for ring in vectors["rings"].as_array().unwrap() {
        let members = ring["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|known| member(known["id"].as_str().unwrap(), known["weight"].as_u64().unwrap() as u32));
        let points = ring["points_per_weight"].as_u64().unwrap() as u32;
        let made = Ring::new(members, points).unwrap();
        assert_eq!(made.digest().to_string(), ring["digest"]);
        let namespace = ring["namespace"].as_str().unwrap();
        for (number, owner) in ring["owners"].as_array().unwrap().iter().enumerate() {
            let position = Position::of(namespace, format!("key:{number}").as_bytes());
            assert_eq!(made.owner_index(position) as u64, owner.as_u64().unwrap(), "key:{number} of {ring}");
            keys += 1;
        }
    }
    assert!(keys >= 10_000, "{keys}");
}
