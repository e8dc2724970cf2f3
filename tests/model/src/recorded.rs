//! The recorded schedules: for each switch the shortest schedule that the explorer found with this rule left out.

use crate::rules::Rule;
use crate::schedule::Schedule;

/// The schedule that shows what happens without a rule. All rules in force, it does no harm.
pub fn recorded(rule: Rule) -> Schedule {
    text(rule).parse().expect("the tests replay every recorded schedule")
}

/// All rules are in force, and yet a read is stale: the clocks of this schedule run at 19 and 23 21sts of true time. Each
/// is less than 10 % off, but they are more than 10 % apart, and that is what the 1.1 of R3 covers.
pub fn recorded_clocks() -> Schedule {
    include_str!("../schedules/beyond/clock-rates.txt")
        .parse()
        .expect("the tests replay every recorded schedule")
}

/// The same for a machine whose clock stands still while it is suspended.
pub fn recorded_suspended() -> Schedule {
    include_str!("../schedules/beyond/suspended.txt")
        .parse()
        .expect("the tests replay every recorded schedule")
}

const fn text(rule: Rule) -> &'static str {
    match rule {
        Rule::VoterIncarnation => include_str!("../schedules/voter-incarnation.txt"),
        Rule::Wait => include_str!("../schedules/wait.txt"),
        Rule::Settled => include_str!("../schedules/settled.txt"),
        Rule::KeptBetween => include_str!("../schedules/kept-between.txt"),
        Rule::GainedDrops => include_str!("../schedules/gained-drops.txt"),
        Rule::Atomic => include_str!("../schedules/atomic.txt"),
        Rule::DirectlyAfter => include_str!("../schedules/directly-after.txt"),
        Rule::PendingAsk => include_str!("../schedules/pending-ask.txt"),
        Rule::InvalidationBarrier => include_str!("../schedules/invalidation-barrier.txt"),
        Rule::InvalidationRepeated => include_str!("../schedules/invalidation-repeated.txt"),
        Rule::MassEverybody => include_str!("../schedules/mass-everybody.txt"),
        Rule::MassPredecessors => include_str!("../schedules/mass-predecessors.txt"),
        Rule::MassLease => include_str!("../schedules/mass-lease.txt"),
        Rule::RestoreFenced => include_str!("../schedules/restore-fenced.txt"),
        Rule::RestoreEmpties => include_str!("../schedules/restore-empties.txt"),
        Rule::MassException => include_str!("../schedules/mass-exception.txt"),
        Rule::WarmRenamed => include_str!("../schedules/warm-renamed.txt"),
        Rule::LockOfCopy => include_str!("../schedules/lock-of-copy.txt"),
    }
}
