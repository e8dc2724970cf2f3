//! What of a larger work was refused, while the rest went on: all counted, the first ones kept to be named at its end.

use bytes::Bytes;
use serde_json::{Value, json};

use super::escape::{bytes_json, escaped};
use super::output::note;
use crate::quote::Quote;

/// How many are named on stderr.
const NAMED: usize = 20;
/// The longest name that is shown whole.
const NAME_BYTES: usize = 256;
/// How many are listed in the JSON document.
const LISTED: usize = 1_000;

/// What was refused, and why.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: u64,
    listed: Vec<(Bytes, String)>,
}

impl Refusals {
    /// Counts one; `name` is its key, or where it lies.
    pub(super) fn add(&mut self, name: &[u8], why: &str) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push((Bytes::copy_from_slice(name), why.to_owned()));
        }
    }

    /// Takes over another's.
    pub(super) fn extend(&mut self, other: Self) {
        self.count += other.count;
        let room = LISTED - self.listed.len();
        self.listed.extend(other.listed.into_iter().take(room));
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The first ones.
    pub(super) fn json(&self) -> Value {
        self.listed.iter().map(|(name, why)| json!({ "key": bytes_json(name), "error": why })).collect()
    }

    /// Names the first ones on stderr, each after `what` was not done with it: "not stored".
    pub(super) fn tell(&self, what: &str) {
        for (name, why) in self.listed.iter().take(NAMED) {
            note(&format!("{what}: {}: {why}", shown(name)));
        }
        match self.count.saturating_sub(NAMED as u64) {
            0 => {}
            more => note(&format!("{what}: {more} more")),
        }
    }
}

/// A name as it is shown: whole where it is short, else quoted and cut.
fn shown(name: &[u8]) -> String {
    match name.len() {
        1..=NAME_BYTES => escaped(name).to_string(),
        _ => Quote::of(name).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_are_kept() {
        let mut refusals = Refusals::default();
        for part in 0..3 {
            let mut more = Refusals::default();
            for n in 0..600 {
                more.add(format!("{part}/{n}").as_bytes(), "no room");
            }
            refusals.extend(more);
        }
        assert_eq!((refusals.count(), refusals.json().as_array().map(Vec::len)), (1_800, Some(LISTED)));
        assert_eq!(refusals.json()[601], json!({ "key": "1/1", "error": "no room" }));
    }
}
