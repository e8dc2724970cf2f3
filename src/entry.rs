//! Types and limits that all rooms share: keys, versions, times to live, sizes.
//!
//! A type whose value can be out of bounds is built by a constructor that checks it. The limits that a node may tune are
//! passed to that constructor, the limits of the format are constants here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest key that a node can be set to accept, in bytes.
pub const KEY_BYTES_MAX: usize = 4_096;
/// The largest value that a node can be set to accept, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 30;
/// The longest message that a node can be set to accept or to send, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 2 << 30;
/// The longest time to live, in milliseconds: 100 years of 365.25 days.
pub const TTL_MS_MAX: u64 = 3_155_760_000_000;
/// The longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// The token for compare-and-set: unique in the cluster, growing on each node.
///
/// ```text
///  63                                   13 12           0
/// ┌───────────────────────────────────────┬──────────────┐
/// │ µs of a hybrid logical clock since    │ node id's    │
/// │ 2020-01-01 UTC (51 bits: until 2091)  │ hash         │
/// └───────────────────────────────────────┴──────────────┘
/// ```
///
/// 0 is no version: on the wire it says that there is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Version {
    /// No version: there is no entry.
    pub const NONE: Self = Self(0);
    /// Bits of the node id's hash at the low end.
    pub const NODE_BITS: u32 = 13;
    /// Where the clock part starts counting: 2020-01-01 UTC, in µs since 1970. Counted from 1970 the 51 bits
    /// would run out in 2041.
    pub const EPOCH_UNIX_US: u64 = 1_577_836_800_000_000;
    /// The last that the clock part can hold.
    pub const CLOCK_MAX: u64 = (1 << (64 - Self::NODE_BITS)) - 1;
    /// Versions follow a wall clock up to here, March 2090, so that there are some to be counted on with, for a year at a
    /// million a second.
    const WALL_CLOCK_MAX: u64 = Self::CLOCK_MAX - (1 << 45);

    /// A version of this clock part and of no node.
    #[must_use]
    pub fn of_clock(clock: u64) -> Self {
        Self(clock << Self::NODE_BITS)
    }

    /// Its clock part.
    #[must_use]
    pub fn clock(self) -> u64 {
        self.0 >> Self::NODE_BITS
    }

    /// The clock part at a wall time in µs since 1970.
    ///
    /// # Errors
    /// No version can follow a wall clock there, or it shows a time before 1970, which is 0 here.
    pub fn clock_at(unix_us: u64) -> Result<u64, WallClockError> {
        let clock = unix_us.saturating_sub(Self::EPOCH_UNIX_US);
        match unix_us {
            0 => Err(WallClockError::Before1970),
            _ if clock > Self::WALL_CLOCK_MAX => Err(WallClockError::Ahead { unix_us }),
            _ => Ok(clock),
        }
    }
}

/// A wall clock that shows a time that nobody can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WallClockError {
    /// No version can follow it there.
    #[error(
        "the wall clock shows {}, and versions can follow it no further than to {}: set the clock right and start again",
        date(*unix_us), date(Version::EPOCH_UNIX_US + Version::WALL_CLOCK_MAX)
    )]
    Ahead {
        /// What it shows, in µs since 1970.
        unix_us: u64,
    },
    /// It was never set, or set wrong: times are counted from 1970 on.
    #[error(
        "the wall clock shows {} or a time before that, and times on disk are counted from then on: set the clock right \
         and start again",
        date(0)
    )]
    Before1970,
}

fn date(unix_us: u64) -> String {
    // The last second that a date of four digits can say.
    const LAST_UNIX_S: u64 = 253_402_300_799;
    let time = std::time::UNIX_EPOCH + Duration::from_secs((unix_us / 1_000_000).min(LAST_UNIX_S));
    let or_later = if unix_us / 1_000_000 > LAST_UNIX_S { " or later" } else { "" };
    format!("{}{or_later}", humantime::format_rfc3339_seconds(time))
}

/// How long an entry lives from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// It never expires.
    Never,
    /// It expires after this many milliseconds, 1 to [`TTL_MS_MAX`].
    Ms(u64),
}

impl Ttl {
    /// The wire's form: 0 is no expiry.
    #[must_use]
    pub fn from_wire_ms(ttl_ms: u64) -> Self {
        if ttl_ms == 0 { Self::Never } else { Self::Ms(ttl_ms) }
    }

    /// As [`Self::from_wire_ms`] takes it.
    #[must_use]
    pub fn to_wire_ms(self) -> u64 {
        match self {
            Self::Never => 0,
            Self::Ms(ms) => ms,
        }
    }
}

/// When an entry expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// It does not.
    Never,
    /// When the node's steady time reaches this many milliseconds.
    AtMs(u64),
}

impl Expiry {
    /// The end of a time to live that begins now, at `steady_ms`.
    #[must_use]
    #[inline]
    pub fn after(ttl: Ttl, steady_ms: u64) -> Self {
        match ttl {
            Ttl::Never => Self::Never,
            Ttl::Ms(ms) => Self::AtMs(steady_ms + ms),
        }
    }

    /// Whether it has come by `steady_ms`.
    #[must_use]
    #[inline]
    pub fn is_past(self, steady_ms: u64) -> bool {
        match self {
            Self::Never => false,
            Self::AtMs(at) => at <= steady_ms,
        }
    }

    /// Whether it comes before another.
    #[must_use]
    #[inline]
    pub fn is_before(self, other: Self) -> bool {
        match (self, other) {
            (Self::Never, _) => false,
            (Self::AtMs(_), Self::Never) => true,
            (Self::AtMs(at), Self::AtMs(other)) => at < other,
        }
    }
}

/// A number of bytes, written `64MiB` in flags and files.
///
/// Read besides: a plain number, which is bytes, and Kubernetes' quantities, in which `Mi` is MiB and `M` a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// Text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}: write a whole number and a unit, such as 512KiB, 64MiB, 2Gi or 1000000B")]
#[non_exhaustive]
pub struct BadByteSize {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Written in either case.
const UNITS: [(&str, u64); 13] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
];

/// Kubernetes' decimal units. Their case matters: `m` is a thousandth there, and K and g are used for either power.
const DECIMAL_UNITS: [(&str, u64); 5] =
    [("", 1), ("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];

impl ByteSize {
    /// `mib` MiB.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The bytes as a usize, saturating.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = BadByteSize;

    fn from_str(text: &str) -> Result<Self, BadByteSize> {
        let bad = |problem| BadByteSize { text: text.to_owned(), problem };
        let trimmed = text.trim();
        let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = trimmed.split_at(digits);
        let unit = unit.trim();
        if number.is_empty() {
            return Err(bad("is no size"));
        }
        let decimal = || DECIMAL_UNITS.iter().find(|(name, _)| *name == unit);
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).or_else(decimal);
        let Some((_, factor)) = known else { return Err(bad(unit_problem(unit))) };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        bytes.map(Self).ok_or_else(|| bad("is more than a size can be"))
    }
}

/// What is wrong with a unit that is none.
fn unit_problem(unit: &str) -> &'static str {
    match unit {
        "m" => "has the unit m, which in Kubernetes is a thousandth and elsewhere a million",
        "K" => "has the unit K, which may be 1000 or 1024",
        "g" | "t" => "has a unit that may be a power of 1000 or of 1024",
        _ if unit.starts_with('.') => "is no whole number",
        _ => "has no unit of a size",
    }
}

#[cfg(feature = "server")]
impl serde::Serialize for ByteSize {
    /// As the text that [`FromStr`] reads.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "server")]
impl<'de> serde::Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit that divides it exactly, so that what is printed parses back to the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS[..4]
            .iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// What a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// For memory alone.
    Buffered,
    /// For the disk: everything before it is synced.
    Flushed,
}

impl Durability {
    /// The word for it in flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Flushed => "flushed",
        }
    }
}

/// What a node accepts and answers, in bytes and items. Each is a flag of `larder serve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest key, at most [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// The largest value.
    pub value_bytes_max: usize,
    /// The longest content type, at most [`CONTENT_TYPE_BYTES_MAX`].
    pub content_type_bytes_max: usize,
    /// The most tags of an entry, at most [`TAGS_MAX`].
    pub tags_max: usize,
    /// The longest tag, at most [`TAG_BYTES_MAX`].
    pub tag_bytes_max: usize,
    /// The most items of a batch.
    pub batch_items_max: usize,
    /// The largest message that is read.
    pub message_in_bytes_max: usize,
    /// The largest message that is sent.
    pub message_out_bytes_max: usize,
    /// The longest time to live, at most [`TTL_MS_MAX`].
    pub ttl_ms_max: u64,
}

impl Default for Limits {
    /// Keys of 4 KiB, values of 1 MiB, content types of 255 B, 16 tags of 255 B, 10,000 items, messages of 4 MiB, 100 years.
    fn default() -> Self {
        Self {
            key_bytes_max: KEY_BYTES_MAX,
            value_bytes_max: 1 << 20,
            content_type_bytes_max: CONTENT_TYPE_BYTES_MAX,
            tags_max: TAGS_MAX,
            tag_bytes_max: TAG_BYTES_MAX,
            batch_items_max: 10_000,
            message_in_bytes_max: 4 << 20,
            message_out_bytes_max: 4 << 20,
            ttl_ms_max: TTL_MS_MAX,
        }
    }
}

/// The most tags that an entry can have.
pub const TAGS_MAX: usize = 16;
/// The longest tag that is possible, in bytes.
pub const TAG_BYTES_MAX: usize = 255;
/// The most namespaces that a node can have, the default one counted.
pub const NAMESPACES_MAX: usize = 1_024;
/// The longest name of a namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 255;
/// The longest request id of an Increment, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// A duration as flags write it: `250ms`, `5s`, `1h`.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// Why a key was not there, as far as the node's bounded memory of departed keys can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum MissReason {
    /// Never seen, or forgotten, or a reason that this build does not know.
    Unknown = 1,
    /// Its time to live ended, or it is staler than the caller accepts.
    Expired = 2,
    /// The eviction policy let it go.
    Evicted = 3,
    /// A delete, or the end of its namespace, removed it.
    Deleted = 4,
    /// An invalidation covered it.
    Invalidated = 5,
    /// It might have been out of date after the node's absence or a move of the key.
    Fenced = 6,
    /// The key's owner is out of service.
    OwnerDown = 7,
    /// Its bytes were damaged.
    Corrupt = 8,
}

impl MissReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Expired,
        Self::Evicted,
        Self::Deleted,
        Self::Invalidated,
        Self::Fenced,
        Self::OwnerDown,
        Self::Corrupt,
    ];

    /// The word for it in labels, logs and the client: `owner_down`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Deleted => "deleted",
            Self::Invalidated => "invalidated",
            Self::Fenced => "fenced",
            Self::OwnerDown => "owner_down",
            Self::Corrupt => "corrupt",
        }
    }
}

impl fmt::Display for MissReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_print_back_the_same() {
        for text in ["0B", "1B", "512KiB", "64MiB", "3GiB", "1TiB", "1000001B"] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("64mib".parse::<ByteSize>().unwrap(), ByteSize::mib(64));
        assert_eq!("2 MB".parse::<ByteSize>().unwrap(), ByteSize(2_000_000));
    }

    #[test]
    fn plain_numbers_are_bytes_and_quantities_are_those_of_kubernetes() {
        for (text, bytes) in [
            ("1073741824", 1 << 30),
            ("0", 0),
            ("1Ki", 1 << 10),
            ("512Mi", 512 << 20),
            ("1Gi", 1 << 30),
            ("1gi", 1 << 30),
            ("2Ti", 2 << 40),
            ("1k", 1_000),
            ("1M", 1_000_000),
            ("3G", 3_000_000_000),
            ("1T", 1_000_000_000_000),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text}");
        }
        for (text, problem) in [
            ("100m", "a thousandth"),
            ("1K", "1000 or 1024"),
            ("1g", "1000 or of 1024"),
            ("1.5Gi", "no whole number"),
            ("1e9", "no unit"),
            ("-1Gi", "is no size"),
            ("99999999999Ti", "more than"),
        ] {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn sizes_in_files_are_text() {
        let sizes: Vec<ByteSize> = serde_json::from_str(r#"["64MiB", "1B"]"#).unwrap();
        assert_eq!(serde_json::to_string(&sizes).unwrap(), r#"["64MiB","1B"]"#);
        let refused = serde_json::from_str::<ByteSize>(r#""much""#).unwrap_err();
        assert!(refused.to_string().contains("much"));
    }

    #[test]
    fn a_wall_clock_that_nobody_can_mean_is_told_with_its_date() {
        assert_eq!(Version::clock_at(1), Ok(0), "before 2020 it is counted on");
        let refused = Version::clock_at(0).unwrap_err().to_string();
        assert!(refused.contains("shows 1970-01-01T00:00:00Z or a time before that"), "{refused}");
        assert_eq!(Version::clock_at(Version::EPOCH_UNIX_US + 7), Ok(7));
        let year_2126 = 4_922_899_200_000_000;
        let refused = Version::clock_at(year_2126).unwrap_err().to_string();
        assert!(refused.contains("2126-01-01T00:00:00Z") && refused.contains("2090-03-"), "{refused}");
        assert!(Version::clock_at(u64::MAX).unwrap_err().to_string().contains("or later"));
    }

    #[test]
    fn text_that_is_no_size_is_named_in_the_error() {
        for text in ["", "MiB", "-1MiB", "1.5GiB", "99999999999TiB", "7 parsecs"] {
            assert!(text.parse::<ByteSize>().unwrap_err().to_string().contains(text));
        }
    }
}
