//! The files of a journal, and what each says of itself in its first frame.

/// A file of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its number, which is the sequence of its first frame.
    pub number: u64,
    /// The position of the first record in it, or after it if it has none.
    pub first_position: u64,
    /// Its length on disk.
    pub bytes: u64,
}

/// What a segment says of itself: the lineage that it belongs to, 8 bytes, and whether that begins in it, 1 byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentBody {
    /// Drawn when a data directory is made, and when what is in it is given up.
    pub lineage: u64,
    /// No segment before this one counts any more, should one still be there.
    pub begins: bool,
}

impl SegmentBody {
    pub(super) const BYTES: usize = 9;

    pub(super) fn write(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.lineage.to_le_bytes());
        bytes[8] = u8::from(self.begins);
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (lineage, rest) = bytes.split_first_chunk()?;
        Some(Self { lineage: u64::from_le_bytes(*lineage), begins: *rest == [1] })
    }
}
