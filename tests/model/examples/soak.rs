//! Searches for stale reads: `soak SECONDS [SEED] [RULE …]`.
//!
//! A word such as `rates=19,23` sets the clocks' rates, in 21sts of true time, and `no=copy` leaves a kind of action out.
//!
//! With all rules it stops at the first one. With rules left out it goes on and prints the shortest schedule that it found.

use larder_cluster_model::{Config, Kind, Rule, Schedule, explore, shrink};
use std::time::{Duration, Instant};

const STEPS: u64 = 4_000_000;

#[expect(clippy::disallowed_methods, reason = "the search ends by the clock on the wall, which no test sets")]
fn main() -> Result<(), String> {
    let mut words = std::env::args().skip(1);
    let seconds: u64 =
        words.next().ok_or("soak SECONDS [SEED] [RULE …]")?.parse().map_err(|_| "SECONDS is a number")?;
    let seed: u64 = words.next().map_or(Ok(1), |word| word.parse().map_err(|_| "SEED is a number"))?;
    let (rates, words): (Vec<String>, Vec<String>) = words.partition(|word| word.starts_with("rates="));
    let rates =
        rates.iter().flat_map(|word| word[6..].split(',')).map(str::parse).collect::<Result<Vec<u8>, _>>();
    let rates = rates.map_err(|_| "a rate is a number")?;
    let (kinds, words): (Vec<String>, Vec<String>) =
        words.into_iter().partition(|word| word.starts_with("no="));
    let left_out = words.iter().map(|word| word.parse()).collect::<Result<Vec<Rule>, String>>()?;
    let begun = Instant::now();
    let (mut steps, mut hits, mut found) = (0, 0, 0);
    let mut shortest: Option<Schedule> = None;
    for round in 0_u64.. {
        if begun.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        let mut config = round_config(round, &left_out);
        if !rates.is_empty() {
            config.rates.clone_from(&rates);
        }
        for kind in Kind::ALL.iter().filter(|kind| kinds.iter().any(|word| &word[3..] == kind.text())) {
            config.weights[*kind as usize] = 0;
        }
        let result = explore(&config, seed.wrapping_mul(1_000_003).wrapping_add(round), STEPS);
        steps += result.steps;
        hits += result.hits;
        if round == 0 {
            println!("the first round: {:#?}", result.counts);
        }
        let Some(schedule) = result.stale else { continue };
        found += 1;
        let schedule = shrink(&schedule, config.rules);
        if shortest.as_ref().is_none_or(|shortest| schedule.actions.len() < shortest.actions.len()) {
            println!("# {} actions after {steps} steps, {:.1?}", schedule.actions.len(), begun.elapsed());
            shortest = Some(schedule);
        }
        if left_out.is_empty() && rates.is_empty() {
            break;
        }
    }
    let rate = steps as f64 / begun.elapsed().as_secs_f64() / 1e6;
    println!(
        "# {steps} steps, {hits} hits, {:.1?}, {rate:.2} M steps/s, {found} stale reads",
        begun.elapsed()
    );
    if let Some(schedule) = shortest {
        print!("{schedule}");
    }
    Ok(())
}

/// With all rules each round looks somewhere else: all sizes, all bents. Else the bent of the first rule left out.
fn round_config(round: u64, left_out: &[Rule]) -> Config {
    if let Some(first) = left_out.first() {
        let config = Config::aimed_at(*first);
        let rules = left_out.iter().fold(config.rules, |rules, rule| rules.and_without(*rule));
        return Config { rules, nodes_min: 2 + (round % u64::from(config.nodes_max - 1)) as u8, ..config };
    }
    let usual = Config::default();
    let mut config = Config::aimed_at(Rule::ALL[round as usize % Rule::ALL.len()]);
    for kind in [Kind::Restore, Kind::Copy] {
        let weight = &mut config.weights[kind as usize];
        *weight = usual.weights[kind as usize].max(*weight);
    }
    Config {
        rules: usual.rules,
        nodes_min: 2,
        nodes_max: 5,
        twins: 2,
        walk: [150, 300, 600][round as usize / 16 % 3],
        ..config
    }
}
