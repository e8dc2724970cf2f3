//! Every rule is needed, all rules together hold, and the walks go where it matters.

use larder_cluster_model::{
    Config, Kind, Rule, Rules, Schedule, explore, recorded, recorded_clocks, recorded_suspended, replay,
    shrink,
};

#[test]
fn recorded_schedule_of_each_rule_is_stale_without_it_and_true_with_all() {
    for rule in Rule::ALL {
        let schedule = recorded(rule);
        assert!(!schedule.comment.is_empty(), "{rule}: the schedule does not say what happens");
        assert!(replay(&schedule, Rules::without(rule)).stale.is_some(), "{rule}: no stale read without it");
        assert_eq!(replay(&schedule, Rules::all()).stale, None, "{rule}: a stale read with all rules");
    }
}

#[test]
fn recorded_schedule_is_minimal() {
    for rule in Rule::ALL {
        let schedule = recorded(rule);
        assert_eq!(shrink(&schedule, Rules::without(rule)).actions.len(), schedule.actions.len(), "{rule}");
    }
}

#[test]
fn clocks_more_than_a_tenth_apart_from_each_other_break_the_wait() {
    assert!(replay(&recorded_clocks(), Rules::all()).stale.is_some());
}

#[test]
fn clock_that_stands_still_in_a_pause_breaks_confirmation() {
    assert!(replay(&recorded_suspended(), Rules::all()).stale.is_some());
}

#[test]
fn walks_with_all_rules_find_no_stale_read_and_go_everywhere() {
    let config = Config { twins: 2, ..Config::default() };
    let found = explore(&config, 1, 6_000_000);
    assert!(found.stale.is_none(), "a stale read:\n{}", found.stale.expect("it was just seen"));
    let counts = &found.counts;
    for (what, count, least) in [
        ("hits", counts.hits, 100_000),
        ("hits after a barrier", counts.hits_after_barrier, 20_000),
        ("hits after the wait", counts.hits_after_wait, 500),
        ("hits by old rings", counts.hits_by_old_rings, 2_000),
        ("hits on what was handed over", counts.hits_handed_over, 500),
        ("hits after a mass removal", counts.hits_after_mass_removal, 200),
        ("hits with two processes of one id", counts.hits_with_twins, 10_000),
        ("hits after a warm start", counts.hits_after_warm_start, 1_000),
        ("hand-overs installed", counts.hand_overs, 500),
        ("pushes installed", counts.pushes, 100),
        ("invalidations answered", counts.invalidations, 500),
        ("invalidations repeated", counts.invalidations_repeated, 50),
        ("removals", counts.removals, 500),
        ("mass removals", counts.mass_removals, 200),
        ("mass removals over an unsettled document", counts.mass_removals_unsettled, 100),
        ("ids taken by a twin", counts.taken_by_twin, 300),
        ("restored stores put right", counts.written_back, 300),
    ] {
        assert!(count >= least, "{what}: {count} of at least {least}");
    }
    for kind in Kind::ALL {
        // The first is enabled only without rule (g), the second only while a restored store is not fenced.
        if !matches!(kind, Kind::AskOlder | Kind::WriteBack | Kind::Suspend) {
            assert!(found.performed(*kind) > 0, "{} was never performed", kind.text());
        }
    }
}

/// About half a minute; `LARDER_RULES_STEPS` says how many steps at length.
#[test]
fn long_walks_that_are_aimed_at_each_rule_find_no_stale_read_with_all_of_them() {
    let steps =
        std::env::var("LARDER_RULES_STEPS").map_or(150_000_000, |steps| steps.parse().expect("a number"));
    for (seed, rule) in (1..).zip(Rule::ALL) {
        let aimed = Config::aimed_at(rule);
        let config = Config { rules: Rules::all(), nodes_min: 2, nodes_max: 5, twins: 2, ..aimed };
        let found = explore(&config, seed, steps / Rule::ALL.len() as u64);
        assert!(
            found.stale.is_none(),
            "aimed at {rule}, seed {seed}:\n{}",
            found.stale.expect("it was just seen")
        );
    }
}

#[test]
fn rule_left_out_is_found_by_walking_and_shrunk() {
    let config = Config::aimed_at(Rule::Wait);
    let found = explore(&config, 3, 20_000_000).stale.expect("without the wait a stale read is found soon");
    let small = shrink(&found, config.rules);
    assert!(small.actions.len() < 30, "{} actions are left", small.actions.len());
    assert!(replay(&small, config.rules).stale.is_some());
    assert_eq!(replay(&small, Rules::all()).stale, None);
}

#[test]
fn same_seed_walks_the_same_way() {
    let config = Config::default();
    let (one, other) = (explore(&config, 9, 100_000), explore(&config, 9, 100_000));
    assert_eq!(one.counts, other.counts);
    assert_eq!(one.performed, other.performed);
}

#[test]
fn schedule_is_read_as_it_was_written() {
    for rule in Rule::ALL {
        let schedule = recorded(rule);
        assert_eq!(schedule.to_string().parse::<Schedule>(), Ok(schedule));
    }
}

#[test]
fn schedule_that_names_what_is_not_there_is_refused() {
    for text in ["nodes 9", "nodes 4\nround n7", "get k9 d0", "fly n1", "round", "tick many"] {
        assert!(text.parse::<Schedule>().is_err(), "{text}");
    }
}
