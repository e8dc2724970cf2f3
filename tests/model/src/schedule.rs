//! A schedule: the set-up of a cluster and the actions that follow. Its text form is a file of `schedules/`.

use crate::action::Action;
use crate::state::{KEYS, NODES_MAX, PROCESSES_MAX};
use std::fmt;
use std::str::FromStr;

/// The cluster that a walk begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Ids, 2 to 5. Process `n` < nodes has id `n`.
    pub nodes: u8,
    /// Second processes: process nodes + i has id i. None of them runs at the start.
    pub twins: u8,
    /// What each process's clock advances in one tick, in 21sts of true time.
    pub rates: [u8; PROCESSES_MAX],
}

impl Default for Setup {
    fn default() -> Self {
        Self { nodes: 4, twins: 1, rates: [21; PROCESSES_MAX] }
    }
}

/// A set-up and its actions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// What happens, in plain words; lines that begin with `#` in the text form.
    pub comment: Vec<String>,
    /// The cluster at the start.
    pub setup: Setup,
    /// What happens, one after the other.
    pub actions: Vec<Action>,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.comment {
            writeln!(f, "# {line}")?;
        }
        writeln!(f, "nodes {}", self.setup.nodes)?;
        writeln!(f, "twins {}", self.setup.twins)?;
        write!(f, "rates")?;
        for rate in &self.setup.rates[..usize::from(self.setup.nodes + self.setup.twins)] {
            write!(f, " {rate}")?;
        }
        writeln!(f)?;
        for action in &self.actions {
            writeln!(f, "{action}")?;
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut schedule = Schedule::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let number = |word: &str| word.trim().parse::<u8>().map_err(|_| format!("{line}: no number"));
            if let Some(comment) = line.strip_prefix('#') {
                schedule.comment.push(comment.trim().to_owned());
            } else if let Some(word) = line.strip_prefix("nodes ") {
                schedule.setup.nodes = number(word)?;
            } else if let Some(word) = line.strip_prefix("twins ") {
                schedule.setup.twins = number(word)?;
            } else if let Some(words) = line.strip_prefix("rates ") {
                for (rate, word) in schedule.setup.rates.iter_mut().zip(words.split_whitespace()) {
                    *rate = number(word)?;
                }
            } else {
                schedule.actions.push(line.parse()?);
            }
        }
        schedule.check()?;
        Ok(schedule)
    }
}

impl Schedule {
    /// Refuses numbers that name nothing, so that the model need not look again.
    fn check(&self) -> Result<(), String> {
        use crate::action::Argument;
        let Setup { nodes, twins, rates } = self.setup;
        if !(2..=NODES_MAX as u8).contains(&nodes) || twins > 2 {
            return Err(format!("{nodes} nodes and {twins} twins are out of bounds"));
        }
        if rates.iter().any(|rate| !(1..=42).contains(rate)) {
            return Err("a rate is out of bounds".to_owned());
        }
        for action in &self.actions {
            for (argument, number) in action.kind.arguments().into_iter().zip([action.first, action.second]) {
                let bound = match argument {
                    Argument::Node => nodes + twins,
                    Argument::Key => KEYS as u8,
                    _ => u8::MAX,
                };
                if number >= bound {
                    return Err(format!("{action}: {number} is out of bounds"));
                }
            }
        }
        Ok(())
    }
}
