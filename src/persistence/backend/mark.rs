//! The mark on disk: a file of two slots, one of which is always whole.
//!
//! ```text
//! byte 0                       4,096
//! ┌────────┬──────────┬───────┬ ─ ┬────────┬──────────┬───────┐
//! │ gener- │ the mark │ CRC32 │   │ gener- │ the mark │ CRC32 │    little-endian; the CRC is of all before it
//! │ ation 8│ 64       │ 4     │   │ ation 8│ 64       │ 4     │
//! └────────┴──────────┴───────┴ ─ ┴────────┴──────────┴───────┘
//! ```
//!
//! The whole slot with the higher generation is the mark. A write goes to the slot that does not hold the mark that
//! was synced last, so that it can be torn, or lost by a sync that fails, and that one is there still. The slots lie
//! in different blocks, as a disk may tear all of a block.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::payload::read_at;
use super::presence::InodeId;
use super::{BackendError, MARK_BYTES};
use crate::persistence::private;

/// A mark in a file of its own.
#[derive(Debug)]
pub(super) struct MarkFile {
    path: PathBuf,
    file: File,
    identity: InodeId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of the last that was written.
    generation: u64,
    /// The slot of the last that was synced.
    safe: usize,
}

impl MarkFile {
    /// Opens or makes it. The caller syncs its directory.
    pub(super) fn open(path: &Path) -> Result<Self, BackendError> {
        let opened = private::file().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|error| BackendError::io("open", path, error))?;
        private::keep(&file, path);
        let identity = InodeId::of(&file).map_err(|error| BackendError::io("look at", path, error))?;
        let state = Mutex::new(State { generation: 0, safe: 0 });
        let mark = Self { path: path.to_owned(), file, identity, state };
        if let Some((slot, generation, _)) = mark.newest()? {
            // Nobody knows whether it was synced, or only read back from memory after a sync that failed. So it is
            // written once more, as it is, before the other slot may be written over.
            let bytes = mark.read_slot(slot)?;
            mark.write_slot(slot, &bytes)?;
            mark.sync()?;
            *mark.state.lock() = State { generation, safe: slot };
        }
        Ok(mark)
    }

    pub(super) fn read(&self) -> Result<Option<[u8; MARK_BYTES]>, BackendError> {
        let _unchanged = self.state.lock();
        Ok(self.newest()?.map(|(_, _, mark)| mark))
    }

    pub(super) fn write(&self, mark: &[u8; MARK_BYTES], synced: bool) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        let slot = SLOTS - 1 - state.safe;
        state.generation += 1;
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&state.generation.to_le_bytes());
        bytes[8..8 + MARK_BYTES].copy_from_slice(mark);
        let crc = crc32fast::hash(&bytes[..8 + MARK_BYTES]);
        bytes[8 + MARK_BYTES..].copy_from_slice(&crc.to_le_bytes());
        self.write_slot(slot, &bytes)?;
        if synced {
            self.sync()?;
            state.safe = slot;
        }
        Ok(())
    }

    /// Slot, generation and content of the mark.
    fn newest(&self) -> Result<Option<(usize, u64, [u8; MARK_BYTES])>, BackendError> {
        let mut newest = None;
        for slot in 0..SLOTS {
            let bytes = self.read_slot(slot)?;
            let (body, crc) = bytes.split_at(8 + MARK_BYTES);
            if crc32fast::hash(body).to_le_bytes() != crc {
                continue;
            }
            let (Some((generation, _)), Some(mark)) = (body.split_first_chunk::<8>(), body.last_chunk())
            else {
                continue;
            };
            let generation = u64::from_le_bytes(*generation);
            if newest.is_none_or(|(_, newer, _)| newer < generation) {
                newest = Some((slot, generation, *mark));
            }
        }
        Ok(newest)
    }

    /// A slot's bytes; zeroes where the file ends, which no CRC allows.
    fn read_slot(&self, slot: usize) -> Result<[u8; SLOT_BYTES], BackendError> {
        let mut bytes = [0; SLOT_BYTES];
        let read = read_at(&self.file, slot as u64 * SLOT_DISTANCE, &mut bytes);
        read.map_err(|error| BackendError::io("read", &self.path, error))?;
        Ok(bytes)
    }

    fn write_slot(&self, slot: usize, bytes: &[u8; SLOT_BYTES]) -> Result<(), BackendError> {
        let written = self.file.write_all_at(bytes, slot as u64 * SLOT_DISTANCE);
        written.map_err(|error| BackendError::io("write", &self.path, error))
    }

    fn sync(&self) -> Result<(), BackendError> {
        self.file.sync_data().map_err(|error| BackendError::lasting("sync", &self.path, error))?;
        self.identity.check(&self.path)
    }
}

/// A mark that is one number.
pub(super) fn mark_of(number: u64) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..8].copy_from_slice(&number.to_le_bytes());
    mark
}

/// The number of such a mark.
pub(super) fn number_in(mark: &[u8; MARK_BYTES]) -> u64 {
    mark.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
}

/// What such a file takes on disk.
pub(super) const MARK_FILE_BYTES: u64 = SLOTS as u64 * SLOT_DISTANCE;

const SLOTS: usize = 2;
const SLOT_BYTES: usize = 8 + MARK_BYTES + 4;
const SLOT_DISTANCE: u64 = 4_096;
