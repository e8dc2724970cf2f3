//! The mark: a few facts that are written over in place, beside the journal and outside of any store.
//!
//! ```text
//! offset 0        4        8          16                24                32                40          48          56
//! ┌─────────┬────────┬──────────┬─────────────────┬─────────────────┬─────────────────┬───────────┬───────────┬───────
//! │ "LRDM"  │ format │ lineage  │ synced sequence │ synced position │ version ceiling │ unix µs   │ steady ms │ zeros
//! │ 4       │ 4      │ 8        │ 8               │ 8               │ 8               │ 8         │ 8         │ 8
//! └─────────┴────────┴──────────┴─────────────────┴─────────────────┴─────────────────┴───────────┴───────────┴───────
//! ```
//!
//! All little-endian; the backend adds a checksum. Where there is no steady time, as before format 2 of the frames,
//! wall time stands for it too; that is no format of its own, as a build that does not know it reads the rest
//! correctly. What it says of the journal is a lower bound: at least that was synced once, so a journal that ends
//! before it has lost something.

use super::backend::MARK_BYTES;
use crate::clock::Now;
use crate::entry::Version;

/// What the mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalMark {
    /// Which data directory this is; drawn when it is made.
    pub lineage: u64,
    /// The last frame of the journal that is known to have been synced.
    pub synced_sequence: u64,
    /// The position of its last record.
    pub synced_position: u64,
    /// No version above this was ever given away.
    pub version_ceiling: Version,
    /// When it was written.
    pub time: Now,
}

const MAGIC: [u8; 4] = *b"LRDM";
const FORMAT: u32 = 1;

impl JournalMark {
    /// As bytes.
    #[must_use]
    pub fn write(&self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&FORMAT.to_le_bytes());
        let numbers = [
            self.lineage,
            self.synced_sequence,
            self.synced_position,
            self.version_ceiling.0,
            self.time.unix_us,
            self.time.steady_ms,
        ];
        for (index, number) in numbers.iter().enumerate() {
            bytes[8 + 8 * index..16 + 8 * index].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// From bytes; `None`: they are no mark of this format.
    #[must_use]
    pub fn read(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
        if bytes[..4] != MAGIC || bytes[4..8] != FORMAT.to_le_bytes() {
            return None;
        }
        let number = |index: usize| {
            bytes[8 + 8 * index..16 + 8 * index]
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let (unix_us, steady_ms) = (number(4), number(5));
        let steady_ms = if steady_ms == 0 { unix_us / 1_000 } else { steady_ms };
        Some(Self {
            lineage: number(0),
            synced_sequence: number(1),
            synced_position: number(2),
            version_ceiling: Version(number(3)),
            time: Now { steady_ms, unix_us },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = JournalMark {
            lineage: u64::MAX - 1,
            synced_sequence: 2,
            synced_position: 3 << 40,
            version_ceiling: Version(4),
            time: Now { steady_ms: 6, unix_us: 5_000 },
        };
        assert_eq!(JournalMark::read(&mark.write()), Some(mark));
        let older = JournalMark { time: Now { steady_ms: 0, ..mark.time }, ..mark };
        let read = JournalMark { time: Now { steady_ms: 5, ..mark.time }, ..mark };
        assert_eq!(JournalMark::read(&older.write()), Some(read));
        assert_eq!(JournalMark::read(&[0; MARK_BYTES]), None);
    }
}
