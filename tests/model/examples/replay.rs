//! Replays a schedule: `replay FILE [RULE …]`, with all rules, then with RULE left out, and then shrunk.

use larder_cluster_model::{Rule, Rules, Schedule, replay, shrink};

fn main() -> Result<(), String> {
    let mut words = std::env::args().skip(1);
    let path = words.next().ok_or("replay FILE [RULE …]")?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let schedule: Schedule = text.parse()?;
    let mut rules = Rules::all();
    for word in words {
        rules = rules.and_without(word.parse::<Rule>()?);
    }
    println!("# all rules: stale at {:?}", replay(&schedule, Rules::all()).stale);
    let outcome = replay(&schedule, rules);
    println!(
        "# without: stale at {:?}, {} of {} enabled",
        outcome.stale,
        outcome.performed,
        schedule.actions.len()
    );
    print!("{}", shrink(&schedule, rules));
    Ok(())
}
