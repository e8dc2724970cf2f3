//! What flags are written as: durations, sizes, ranges, ratios, distributions. Each error names the text, what
//! is allowed and what to write.

use std::ffi::OsStr;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};

use crate::entry::{ByteSize, TTL_MS_MAX, VALUE_BYTES_MAX};

/// `250ms`, `5s`, `1h30m`, or `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a duration such as 250ms, 5s or 1h"))
}

/// A duration that is not 0.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// A time to live: a duration up to 100 years; 0 is never.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    ttl_or(text, "write 0 for one that never ends")
}

/// How long clients may answer from their copies: a duration up to 100 years.
pub(super) fn near_cache_ttl(text: &str) -> Result<Duration, String> {
    ttl_or(text, "write 0 for copies that are served only while Watch keeps them true")
}

/// A duration up to 100 years; `instead` says what can be written for a longer one.
fn ttl_or(text: &str, instead: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl > Duration::from_millis(TTL_MS_MAX) {
        return Err(format!("the longest time to live is 100 years; {instead}"));
    }
    Ok(ttl)
}

/// A time to live where the wire's 0 is the namespace's default, so that "never" cannot be said.
pub(super) fn ttl_or_default(text: &str) -> Result<Duration, String> {
    match ttl(text)? {
        Duration::ZERO => Err("0 would be the namespace's default here, and not never: leave --ttl out for \
                               the default, or write a long time, up to 100years"
            .to_owned()),
        ttl => Ok(ttl),
    }
}

/// A time of day: `2030-01-31T12:00:00Z`, or milliseconds since 1970.
pub(super) fn unix_ms(text: &str) -> Result<u64, String> {
    if let Ok(unix_ms) = text.parse() {
        return Ok(unix_ms);
    }
    let time = humantime::parse_rfc3339(text).map_err(|error| {
        format!(
            "{error}; write a time of UTC such as 2030-01-31T12:00:00Z, or a whole number of ms since 1970, of which \
             that is 1896091200000"
        )
    })?;
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// A size with a unit (`64KiB`) or a plain number of bytes.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse::<ByteSize>().map_err(|error| error.to_string())?.0;
    usize::try_from(bytes).map_err(|_| format!("{text:?} is more than this machine can address"))
}

/// Value sizes, drawn evenly from `min` to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SizeRange {
    pub(super) min: usize,
    pub(super) max: usize,
}

impl FromStr for SizeRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = match text.split_once('-') {
            None => bytes(text).map(|size| Self { min: size, max: size })?,
            Some((min, max)) => Self { min: bytes(min)?, max: bytes(max)? },
        };
        if range.min > range.max {
            return Err(format!("{text:?} runs backwards; write the smaller size first, such as 10-1KiB"));
        }
        if range.max > VALUE_BYTES_MAX {
            let max = ByteSize(VALUE_BYTES_MAX as u64);
            return Err(format!("{text:?} is over the longest value that any node takes, {max}"));
        }
        Ok(range)
    }
}

/// Any text, of which a shell's completion offers some: the node knows which are right.
#[derive(Debug, Clone)]
pub(super) struct Offered(pub(super) Vec<&'static str>);

impl TypedValueParser for Offered {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}

/// Gets to sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ratio {
    pub(super) gets: u32,
    pub(super) sets: u32,
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no ratio; write GETS:SETS as whole numbers, such as 9:1 or 1:0");
        let (gets, sets) = text.split_once(':').ok_or_else(wrong)?;
        let ratio =
            Self { gets: gets.parse().map_err(|_| wrong())?, sets: sets.parse().map_err(|_| wrong())? };
        match ratio.gets.checked_add(ratio.sets) {
            None | Some(0) => Err(wrong()),
            Some(_) => Ok(ratio),
        }
    }
}

/// How keys are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Distribution {
    /// Each as likely as any other.
    Uniform,
    /// The n-th in proportion to 1 / n^exponent.
    Zipf(f64),
    /// One after the other, around and around.
    Sequential,
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is none of uniform, sequential and zipf:EXPONENT (a number from 0 to 10, such as zipf:0.99)"
            )
        };
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "sequential" => Ok(Self::Sequential),
            Some(("zipf", exponent)) => match exponent.parse::<f64>() {
                Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(Self::Zipf(exponent)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_humantimes_and_a_bare_zero() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert!(duration("5").unwrap_err().contains("250ms"));
        assert!(positive_duration("0s").is_err());
        assert!(ttl("101years").unwrap_err().contains("100 years; write 0 for one that never ends"));
        assert!(near_cache_ttl("101years").unwrap_err().contains("while Watch keeps them true"));
        assert_eq!(ttl("0"), Ok(Duration::ZERO));
        assert_eq!(ttl_or_default("1ms"), Ok(Duration::from_millis(1)));
        assert!(ttl_or_default("0s").unwrap_err().contains("namespace's default"));
    }

    #[test]
    fn a_time_is_one_of_utc_or_milliseconds() {
        assert_eq!(unix_ms("2030-01-31T12:00:00Z"), Ok(1_896_091_200_000));
        assert_eq!(unix_ms("2030-01-31T12:00:00.25Z"), Ok(1_896_091_200_250));
        assert_eq!(unix_ms("1896091200000"), Ok(1_896_091_200_000));
        for wrong in ["", "tomorrow", "-1", "2030-01-31", "2030-13-31T12:00:00Z"] {
            assert!(unix_ms(wrong).unwrap_err().contains("1896091200000"), "{wrong}");
        }
    }

    #[test]
    fn ranges_are_one_size_or_two() {
        assert_eq!("100".parse(), Ok(SizeRange { min: 100, max: 100 }));
        assert_eq!("10-1KiB".parse(), Ok(SizeRange { min: 10, max: 1_024 }));
        for wrong in ["", "9-3", "x", "1-2-3", "2GiB"] {
            assert!(wrong.parse::<SizeRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ratios_need_two_numbers_of_which_one_is_not_zero() {
        assert_eq!("9:1".parse(), Ok(Ratio { gets: 9, sets: 1 }));
        assert_eq!("0:1".parse(), Ok(Ratio { gets: 0, sets: 1 }));
        for wrong in ["", "9", "0:0", "9:-1", "a:b", "1:2:3", "4294967295:1"] {
            assert!(wrong.parse::<Ratio>().unwrap_err().contains("GETS:SETS"), "{wrong}");
        }
    }

    #[test]
    fn distributions_are_named_with_a_bounded_exponent() {
        assert_eq!("zipf:0.99".parse(), Ok(Distribution::Zipf(0.99)));
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        for wrong in ["zipf", "zipf:", "zipf:-1", "zipf:NaN", "zipf:11", "normal", "uniform:1"] {
            assert!(wrong.parse::<Distribution>().unwrap_err().contains("zipf:0.99"), "{wrong}");
        }
    }
}
