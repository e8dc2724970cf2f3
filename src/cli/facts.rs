//! A listing of facts in groups: built once, shown as text for people, as lines for scripts or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use super::output::token_json;
use crate::entry::duration_text;

/// A duration's whole milliseconds.
pub(super) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One fact's value, with its unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fact {
    Count(u64),
    Bytes(u64),
    Ms(u64),
    Real(f64),
    Ratio(Option<f64>),
    Token(u64),
    Text(String),
    Flag(bool),
    Texts(Vec<String>),
}

/// Facts under a heading.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) facts: Vec<(String, Fact)>,
}

impl Fact {
    /// What a script reads: plain numbers in the unit that the name ends in.
    pub(super) fn plain(&self) -> String {
        match self {
            Self::Count(n) | Self::Bytes(n) | Self::Ms(n) | Self::Token(n) => n.to_string(),
            Self::Real(real) => format!("{real:.3}"),
            Self::Ratio(None) => "-".to_owned(),
            Self::Ratio(Some(ratio)) => format!("{ratio:.6}"),
            Self::Text(text) if text.is_empty() => "-".to_owned(),
            Self::Text(text) => text.clone(),
            Self::Flag(flag) => flag.to_string(),
            Self::Texts(texts) if texts.is_empty() => "-".to_owned(),
            Self::Texts(texts) => texts.join(","),
        }
    }

    /// What a person reads: the same with a unit that fits.
    fn readable(&self) -> String {
        match self {
            Self::Bytes(n) if *n >= 1_024 => {
                format!("{n} ({})", indicatif::BinaryBytes(*n))
            }
            Self::Ms(n) if *n >= 1_000 => format!("{n} ({})", duration_text(Duration::from_millis(*n))),
            Self::Ratio(Some(ratio)) => format!("{:.2} %", ratio * 100.0),
            other => other.plain(),
        }
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Count(n) | Self::Bytes(n) | Self::Ms(n) => Value::from(*n),
            Self::Real(real) => Value::from(*real),
            Self::Ratio(ratio) => ratio.map_or(Value::Null, Value::from),
            Self::Token(n) => token_json(*n),
            Self::Text(text) => Value::from(text.as_str()),
            Self::Flag(flag) => Value::from(*flag),
            Self::Texts(texts) => Value::from(texts.clone()),
        }
    }
}

/// One fact a line of each of several things of a kind, for scripts. A name stands in quotes and escaped: nobody's name can
/// forge a line.
pub(super) fn named_lines<'n>(
    kind: &str,
    named: impl IntoIterator<Item = (&'n str, Vec<(&'static str, String)>)>,
) -> String {
    let mut text = String::new();
    for (thing, facts) in named {
        for (name, fact) in facts {
            text.push_str(&format!("{kind}.{thing:?}.{name} {fact}\n"));
        }
    }
    text
}

/// The facts of all groups as one JSON object; a dot in a name opens an object within it.
pub(super) fn json(groups: &[Group]) -> Map<String, Value> {
    let mut document = Map::new();
    for (name, fact) in groups.iter().flat_map(|group| &group.facts) {
        match name.split_once('.') {
            None => {
                document.insert(name.clone(), fact.json());
            }
            Some((outer, inner)) => {
                let object = document.entry(outer).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(object) = object {
                    object.insert(inner.to_owned(), fact.json());
                }
            }
        }
    }
    document
}

/// One line each, `name value`.
pub(super) fn lines(groups: &[Group]) -> String {
    let mut text = String::new();
    for (name, fact) in groups.iter().flat_map(|group| &group.facts) {
        let _ = writeln!(text, "{name} {}", fact.plain());
    }
    text
}

/// Headings, columns and readable units, for a terminal.
pub(super) fn listing(groups: &[Group], colours: bool) -> String {
    let facts = || groups.iter().flat_map(|group| &group.facts);
    let width = facts().map(|(name, _)| name.len()).max().unwrap_or(0);
    let (start, end) = if colours { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let mut text = String::new();
    for group in groups.iter().filter(|group| !group.facts.is_empty()) {
        let _ = writeln!(text, "{start}{}{end}", group.title);
        for (name, fact) in &group.facts {
            let _ = writeln!(text, "  {name:<width$}  {}", fact.readable());
        }
    }
    text
}

/// Hits among hits and misses. None where there are neither.
pub(super) fn hit_ratio(hits: u64, misses: u64) -> Option<f64> {
    let lookups = hits.saturating_add(misses);
    (lookups > 0).then(|| hits as f64 / lookups as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_have_a_line_for_scripts_and_a_place_in_the_document() {
        let facts = vec![
            ("bytes_used".to_owned(), Fact::Bytes(2_048)),
            ("misses.expired".to_owned(), Fact::Count(3)),
            ("incarnation".to_owned(), Fact::Token(u64::MAX)),
            ("hit_ratio".to_owned(), Fact::Ratio(hit_ratio(0, 0))),
        ];
        let groups = [Group { title: "Memory", facts }];
        assert_eq!(
            lines(&groups),
            "bytes_used 2048\nmisses.expired 3\nincarnation 18446744073709551615\nhit_ratio -\n"
        );
        assert!(listing(&groups, false).contains("2048 (2.00 KiB)"));
        let document = Value::Object(json(&groups));
        assert_eq!(document["misses"]["expired"], 3);
        assert_eq!(document["incarnation"], "18446744073709551615");
        assert!(document["hit_ratio"].is_null());
    }
}
