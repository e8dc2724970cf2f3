//! Makes a failing schedule minimal: delta debugging (Zeller, Hildebrandt, TSE 2002), then line by line, and simpler clocks.

use crate::action::{Action, Argument, Kind};
use crate::explorer::replay;
use crate::rules::Rules;
use crate::schedule::Schedule;

/// Leaves out what a stale read does not need. No line of the result can be left out.
/// A schedule without a stale read comes back as it is.
pub fn shrink(schedule: &Schedule, rules: Rules) -> Schedule {
    let mut best = schedule.clone();
    let Some(last) = replay(&best, rules).stale else { return best };
    best.actions.truncate(last + 1);
    loop {
        let before = best.actions.len();
        let mut part = before / 2;
        while part > 0 {
            drop_parts(&mut best, part, rules);
            part /= 2;
        }
        drop_pairs(&mut best, rules);
        drop_documents(&mut best, rules);
        simplify(&mut best, rules);
        if best.actions.len() == before {
            return best;
        }
    }
}

fn drop_parts(best: &mut Schedule, part: usize, rules: Rules) {
    let mut end = best.actions.len();
    while end > 0 {
        let begin = end.saturating_sub(part);
        let mut shorter = best.clone();
        shorter.actions.drain(begin..end);
        keep(best, shorter, rules);
        end = begin.min(best.actions.len());
    }
}

/// Two lines that only make sense together, such as a cut and its healing.
fn drop_pairs(best: &mut Schedule, rules: Rules) {
    if best.actions.len() > 80 {
        return;
    }
    let mut first = 0;
    while first < best.actions.len() {
        let mut second = first + 1;
        while second < best.actions.len() {
            let mut shorter = best.clone();
            shorter.actions.remove(second);
            shorter.actions.remove(first);
            if !keep(best, shorter, rules) {
                second += 1;
            }
        }
        first += 1;
    }
}

/// A line that writes a document, where the later lines then name documents by one epoch less; also with the lines before
/// it turned to other weights, as the document that went may have been a step of the way.
fn drop_documents(best: &mut Schedule, rules: Rules) {
    let mut index = best.actions.len();
    while index > 0 {
        index -= 1;
        let mut shorter = best.clone();
        shorter.actions.remove(index);
        for action in &mut shorter.actions[index..] {
            for (argument, number) in
                action.kind.arguments().into_iter().zip([&mut action.first, &mut action.second])
            {
                if argument == Argument::Document {
                    *number = number.saturating_sub(1);
                }
            }
        }
        if !keep(best, shorter.clone(), rules) {
            let weighs = (0..shorter.actions.len()).filter(|line| shorter.actions[*line].kind == Kind::Weigh);
            for (line, rotation) in weighs.flat_map(|line| (0..4).map(move |rotation| (line, rotation))) {
                let mut turned = shorter.clone();
                turned.actions[line].second = rotation;
                if keep(best, turned, rules) {
                    break;
                }
            }
        }
        index = index.min(best.actions.len());
    }
}

/// Clocks that run true, and one question in the place of a round.
fn simplify(best: &mut Schedule, rules: Rules) {
    for process in 0..best.setup.rates.len() {
        let mut simpler = best.clone();
        simpler.setup.rates[process] = 21;
        keep(best, simpler, rules);
    }
    if best.setup.twins > 0 {
        let mut simpler = best.clone();
        simpler.setup.twins -= 1;
        let bound = simpler.setup.nodes + simpler.setup.twins;
        if simpler.actions.iter().all(|action| names_below(action, bound)) {
            keep(best, simpler, rules);
        }
    }
}

fn names_below(action: &Action, bound: u8) -> bool {
    action
        .kind
        .arguments()
        .into_iter()
        .zip([action.first, action.second])
        .all(|(argument, number)| argument != Argument::Node || number < bound)
}

fn keep(best: &mut Schedule, mut candidate: Schedule, rules: Rules) -> bool {
    let Some(last) = replay(&candidate, rules).stale else { return false };
    candidate.actions.truncate(last + 1);
    *best = candidate;
    true
}
