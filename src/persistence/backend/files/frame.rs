//! Commits as bytes of the catalogue's log.
//!
//! ```text
//! log:     magic "LARDCAT1" 8 │ number of the log 8 │ commit │ commit │ …      integers are little-endian
//! commit:  magic "LCMT" 4 │ bytes of changes 4 │ number 8 │ CRC32 of the commit before 4 │ CRC32 4 │ changes
//! change:  1 put, 2 remove 1 │ bytes of key 4 │ bytes of value 4 │ key │ value
//! ```
//!
//! A commit's CRC32 is of all its bytes but those of the CRC32 itself; the first has that of the log's own head as
//! the one before. Nothing read here is believed: every length is held against what is there.

use super::super::CatalogueChange;

/// Bytes of a log before its first commit.
pub(super) const LOG_HEAD_BYTES: usize = 16;
/// Bytes of a commit before its changes.
pub(super) const COMMIT_HEAD_BYTES: usize = 24;
/// Bytes of a change before its key.
pub(super) const CHANGE_HEAD_BYTES: usize = 9;

const LOG_MAGIC: &[u8; 8] = b"LARDCAT1";
const COMMIT_MAGIC: &[u8; 4] = b"LCMT";
const PUT: u8 = 1;
const REMOVE: u8 = 2;

/// Where the next commit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tip {
    /// Offset in the log.
    pub offset: u64,
    /// Its number.
    pub number: u64,
    /// The CRC32 of the one before.
    pub chain: u32,
}

/// The head of a commit that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitHead {
    changes_bytes: u32,
    number: u64,
    chain: u32,
    crc: u32,
}

/// A change as it lies in a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// The value, and how far into the changes it begins.
    Put {
        key: &'a [u8],
        value: &'a [u8],
        at: usize,
    },
    Remove {
        key: &'a [u8],
    },
}

/// A commit that is being put together.
#[derive(Debug)]
pub(super) struct CommitBuilder {
    bytes: Vec<u8>,
}

/// The head of a log, and where its first commit goes.
pub(super) fn log_head(log: u64, first_commit: u64) -> ([u8; LOG_HEAD_BYTES], Tip) {
    let mut head = [0; LOG_HEAD_BYTES];
    head[..8].copy_from_slice(LOG_MAGIC);
    head[8..].copy_from_slice(&log.to_le_bytes());
    (head, Tip { offset: LOG_HEAD_BYTES as u64, number: first_commit, chain: crc32fast::hash(&head) })
}

impl CommitBuilder {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; COMMIT_HEAD_BYTES] }
    }

    /// Adds a change. Says where its value begins, counted from the commit's begin; `None`: it is too large.
    pub(super) fn add(&mut self, change: CatalogueChange<'_>) -> Option<usize> {
        let (kind, key, value) = match change {
            CatalogueChange::Put(key, value) => (PUT, key, value),
            CatalogueChange::Remove(key) => (REMOVE, key, &[][..]),
        };
        u32::try_from(self.bytes.len() + CHANGE_HEAD_BYTES + key.len() + value.len()).ok()?;
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&u32::try_from(key.len()).ok()?.to_le_bytes());
        self.bytes.extend_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
        self.bytes.extend_from_slice(key);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(value);
        Some(at)
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Its bytes, for that tip, and the tip behind it.
    pub(super) fn finish(mut self, tip: Tip) -> (Vec<u8>, Tip) {
        let changes_bytes = u32::try_from(self.bytes.len() - COMMIT_HEAD_BYTES).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(COMMIT_MAGIC);
        self.bytes[4..8].copy_from_slice(&changes_bytes.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&tip.number.to_le_bytes());
        self.bytes[16..20].copy_from_slice(&tip.chain.to_le_bytes());
        let crc = commit_crc(&self.bytes[..20], &self.bytes[COMMIT_HEAD_BYTES..]);
        self.bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        let behind = Tip { offset: tip.offset + self.bytes.len() as u64, number: tip.number + 1, chain: crc };
        (self.bytes, behind)
    }
}

impl CommitHead {
    /// Reads one; `None`: there is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (changes_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (chain, rest) = rest.split_first_chunk::<4>()?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        (magic == COMMIT_MAGIC).then_some(Self {
            changes_bytes: u32::from_le_bytes(*changes_bytes),
            number: u64::from_le_bytes(*number),
            chain: u32::from_le_bytes(*chain),
            crc: u32::from_le_bytes(*crc),
        })
    }

    /// Bytes of the changes behind it, if it is right.
    pub(super) fn changes_bytes(&self) -> u64 {
        u64::from(self.changes_bytes)
    }

    /// Whether it is the one that belongs at a tip. The first of a log may have any number.
    pub(super) fn belongs_at(&self, tip: Tip) -> bool {
        self.chain == tip.chain && (self.number == tip.number || tip.offset == LOG_HEAD_BYTES as u64)
    }

    /// Whether these are its changes.
    pub(super) fn matches(&self, head: &[u8], changes: &[u8]) -> bool {
        head.len() >= COMMIT_HEAD_BYTES
            && changes.len() as u64 == self.changes_bytes()
            && commit_crc(&head[..20], changes) == self.crc
    }

    /// The tip behind it, if it begins at an offset.
    pub(super) fn behind(&self, offset: u64) -> Tip {
        let offset = offset + COMMIT_HEAD_BYTES as u64 + self.changes_bytes();
        Tip { offset, number: self.number.wrapping_add(1), chain: self.crc }
    }
}

/// The changes of a commit; `None`: they are none, whatever the CRC said.
pub(super) fn changes(bytes: &[u8]) -> Option<Vec<Change<'_>>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((kind, more)) = rest.split_first() {
        let (key_bytes, more) = more.split_first_chunk::<4>()?;
        let (value_bytes, more) = more.split_first_chunk::<4>()?;
        let (key, more) = more.split_at_checked(usize::try_from(u32::from_le_bytes(*key_bytes)).ok()?)?;
        let at = bytes.len() - more.len();
        let (value, more) = more.split_at_checked(usize::try_from(u32::from_le_bytes(*value_bytes)).ok()?)?;
        found.push(match *kind {
            PUT => Change::Put { key, value, at },
            REMOVE if value.is_empty() => Change::Remove { key },
            _ => return None,
        });
        rest = more;
    }
    Some(found)
}

/// Whether a whole commit begins anywhere in these bytes: then what lies before it is not a torn end.
pub(super) fn has_commit(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| {
        let bytes = &bytes[at..];
        let Some(head) = CommitHead::parse(bytes) else {
            return false;
        };
        let changes = usize::try_from(head.changes_bytes()).unwrap_or(usize::MAX);
        bytes[COMMIT_HEAD_BYTES..].get(..changes).is_some_and(|changes| head.matches(bytes, changes))
    })
}

fn commit_crc(head: &[u8], changes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(changes);
    hasher.finalize()
}
