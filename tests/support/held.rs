//! A backend in memory whose files can be held: reads wait until they are released, and appends likewise, each by
//! itself.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::sync::Arc;

use larder::persistence::backend::Visit;
use larder::persistence::backend::memory::{Call, Fault};
use larder::persistence::{
    Appender, Backend, BackendError, CatalogueChange, DiskSpace, FileId, MARK_BYTES, MemoryBackend, ReadAt,
};
use parking_lot::{Condvar, Mutex};

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    memory: MemoryBackend,
    gate: Arc<Gate>,
    appends: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    readers: usize,
    readers_max: usize,
}

/// A file that is appended to only while the gate is open.
#[derive(Debug)]
struct Growing {
    file: Box<dyn Appender>,
    gate: Arc<Gate>,
}

/// A file that is read only while the gate is open.
#[derive(Debug)]
struct Behind {
    file: Box<dyn ReadAt>,
    gate: Arc<Gate>,
}

impl Held {
    /// From now on reads wait.
    pub(crate) fn hold(&self) {
        self.gate.state.lock().is_shut = true;
    }

    /// Lets all readers go.
    pub(crate) fn let_go(&self) {
        self.gate.state.lock().is_shut = false;
        self.gate.opened.notify_all();
    }

    /// From now on appends wait.
    pub(crate) fn hold_appends(&self) {
        self.appends.state.lock().is_shut = true;
    }

    /// Lets all that append go.
    pub(crate) fn let_appends_go(&self) {
        self.appends.state.lock().is_shut = false;
        self.appends.opened.notify_all();
    }

    /// Has a call fail.
    pub(crate) fn plan(&self, fault: Fault) {
        self.memory.plan(fault);
    }

    /// How many wait now.
    pub(crate) fn readers(&self) -> usize {
        self.gate.state.lock().readers
    }

    /// How often a file was synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.memory.calls_of(Call::Sync)
    }

    /// The most that ever waited at once.
    pub(crate) fn readers_max(&self) -> usize {
        self.gate.state.lock().readers_max
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        if !state.is_shut {
            return;
        }
        state.readers += 1;
        state.readers_max = state.readers_max.max(state.readers);
        self.opened.wait_while(&mut state, |state| state.is_shut);
        state.readers -= 1;
    }
}

impl ReadAt for Behind {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, BackendError> {
        self.gate.pass();
        self.file.read_at(offset, buffer)
    }

    fn len(&self) -> Result<u64, BackendError> {
        self.file.len()
    }
}

impl Appender for Growing {
    fn append(&mut self, parts: &[&[u8]]) -> Result<(), BackendError> {
        self.gate.pass();
        self.file.append(parts)
    }

    fn sync(&mut self) -> Result<(), BackendError> {
        self.file.sync()
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), BackendError> {
        self.file.reserve(bytes)
    }

    fn reserved(&self) -> u64 {
        self.file.reserved()
    }

    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl Backend for Held {
    fn name(&self) -> &'static str {
        self.memory.name()
    }

    fn files(&self) -> Result<Vec<(FileId, u64)>, BackendError> {
        self.memory.files()
    }

    fn create(&self, file: FileId) -> Result<Box<dyn Appender>, BackendError> {
        Ok(Box::new(Growing { file: self.memory.create(file)?, gate: Arc::clone(&self.appends) }))
    }

    fn open(&self, file: FileId) -> Result<Box<dyn ReadAt>, BackendError> {
        Ok(Box::new(Behind { file: self.memory.open(file)?, gate: Arc::clone(&self.gate) }))
    }

    fn has(&self, file: FileId) -> Result<bool, BackendError> {
        self.memory.has(file)
    }

    fn delete(&self, file: FileId) -> Result<(), BackendError> {
        self.memory.delete(file)
    }

    fn quarantine(&self, file: FileId) -> Result<String, BackendError> {
        self.memory.quarantine(file)
    }

    fn read_mark(&self) -> Result<Option<[u8; MARK_BYTES]>, BackendError> {
        self.memory.read_mark()
    }

    fn write_mark(&self, mark: &[u8; MARK_BYTES], synced: bool) -> Result<(), BackendError> {
        self.memory.write_mark(mark, synced)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.memory.get(key)
    }

    fn commit(&self, changes: &[CatalogueChange<'_>]) -> Result<(), BackendError> {
        self.memory.commit(changes)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        self.memory.scan(prefix, after, visit)
    }

    fn disk_bytes(&self) -> Result<u64, BackendError> {
        self.memory.disk_bytes()
    }

    fn space(&self) -> Result<DiskSpace, BackendError> {
        self.memory.space()
    }
}
