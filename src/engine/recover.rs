//! The engine as a journal, a snapshot and a recovery see it: changes are drained, entries are walked through, and
//! records are applied as they were written.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::log::{Barriers, Drained, LogConfig, Put, Record};
use super::namespace::{DEFAULT, Namespace, NamespaceChange};
use super::op::{MissReason, Refusal, ValueView};
use super::shard::{KeyRef, Scope, Shard};
use crate::clock::Now;
use crate::entry::{KEY_BYTES_MAX, TAG_BYTES_MAX, Version};

/// Where a walk through all entries goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalkCursor {
    shard: usize,
    after: Option<u64>,
}

impl Engine {
    /// Logs every change from now on. What is there already is not logged. Names of requests are kept from then on, also
    /// while there is no log: a snapshot may ask for them.
    pub fn start_log(&self, config: &LogConfig) {
        let mut barriers = self.barriers.lock();
        barriers.start(config, self.shards.len());
        for shard in &self.shards {
            shard.lock().start_log(config.clone(), Arc::clone(&self.drains));
        }
    }

    /// Logs no more, and forgets what was not drained.
    pub fn stop_log(&self) {
        let mut barriers = self.barriers.lock();
        barriers.stop();
        for shard in &self.shards {
            shard.lock().stop_log();
        }
    }

    /// Accepts no write any more that would be logged: each is refused as [`Refusal::Poisoned`].
    pub fn close_log(&self) {
        for shard in &self.shards {
            shard.lock().close_log();
        }
    }

    /// While it is full, no write is accepted that would be logged: each is refused as [`Refusal::DiskLimit`].
    pub fn set_log_full(&self, is_full: bool) {
        for shard in &self.shards {
            shard.lock().set_log_full(is_full);
        }
    }

    /// Takes out all that was logged; whatever was applied before this was called is in it, and nothing of what anybody
    /// did who had seen something that is not.
    pub fn drain_log(&self, into: &mut Drained) {
        into.shards.resize_with(self.shards.len(), Default::default);
        let mut barriers = self.barriers.lock();
        self.drains.fetch_add(1, Ordering::Relaxed);
        for (shard, into) in self.shards.iter().zip(&mut into.shards) {
            shard.lock().drain_log(into);
        }
        into.barriers = barriers.drain();
    }

    /// Steady time has gone on to here before anything was put in, so that nothing counts as long ago.
    pub(crate) fn begin_at(&self, now: Now) {
        for shard in &self.shards {
            shard.lock().begin_at(now);
        }
    }

    /// Visits what the next few hundred entries are now, of all namespaces, and goes on from `place`; false: that was
    /// all. What is there throughout the walk is visited once. `visit` is called under a shard's lock: it must be quick
    /// and must not call the engine.
    pub fn walk(&self, place: &mut WalkCursor, now: Now, mut visit: impl FnMut(&Record<'_>)) -> bool {
        let Some(shard) = self.shards.get(place.shard) else { return false };
        let end = shard.lock().record_segment(place.after, now, &mut visit);
        if end == u64::MAX {
            *place = WalkCursor { shard: place.shard + 1, after: None };
        } else {
            place.after = Some(end);
        }
        true
    }

    /// Visits what is in force for each namespace, and the requests that are remembered.
    pub fn walk_rest(&self, mut visit: impl FnMut(&Record<'_>)) {
        for namespace in self.namespaces() {
            visit(&namespace_record(&namespace, &namespace.config()));
        }
        for shard in &self.shards {
            shard.lock().request_records().for_each(|record| visit(&record));
        }
    }

    /// No version that was drawn or put in is above this one.
    #[must_use]
    pub fn newest_version(&self) -> Version {
        self.versions.newest()
    }

    /// A version above all that have been drawn, `by_us` µs ahead of the wall clock; see [`Self::set_version_ceiling`].
    #[must_use]
    pub fn version_ahead(&self, now: Now, by_us: u64) -> Version {
        self.versions.ahead(now, by_us)
    }

    /// Versions follow the wall clock no further than to this one, until it is set anew: so a journal can see to it
    /// that a restart draws none twice.
    pub fn set_version_ceiling(&self, ceiling: Version) {
        self.versions.set_ceiling(ceiling);
    }

    /// Draws only versions above this one from now on.
    pub fn raise_versions(&self, above: Version) {
        self.versions.raise(above);
    }

    /// Draws a version; `None`: there is none any more.
    pub fn draw_version(&self, now: Now) -> Option<Version> {
        self.versions.next(now)
    }

    /// Writes down what is in force for a namespace.
    pub(super) fn namespace_barrier(&self, barriers: &mut Barriers, namespace: &Namespace) {
        for shard in &self.shards {
            shard.lock().changes.barrier(None, || Version::NONE);
        }
        barriers.add(&namespace_record(namespace, &namespace.config()));
    }
}

fn namespace_record<'a>(namespace: &Namespace, config: &'a super::namespace::NamespaceConfig) -> Record<'a> {
    Record::Namespace { number: namespace.number(), generation: namespace.generation(), config }
}

/// What applying a record came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It is in force.
    Applied,
    /// The entry's time has ended meanwhile.
    Expired,
    /// There is no namespace of its number: something before it is missing.
    NoNamespace(u16),
    /// The entry does not fit; memory may be smaller than it was.
    Refused(Refusal),
}

/// Where a record of one key belongs, and where it is found.
#[derive(Debug, Clone)]
pub struct Placed {
    shard: usize,
    hash: u64,
    at: Range<usize>,
}

/// Records that are applied while a shard is held: an engine may serve already.
const RECORDS_PER_HOLD: usize = 64;

/// Applies records to an engine that does not serve yet and logs nothing.
#[derive(Debug)]
pub struct Restorer<'a> {
    engine: &'a Engine,
    by_number: HashMap<u16, Namespace>,
    /// Invalidations whose dead were not taken out yet.
    unswept: usize,
    /// Of values, their lengths are kept.
    lengths_only: bool,
}

/// Invalidations that are applied before their dead are taken out.
const UNSWEPT_MAX: usize = 1_024;

impl<'a> Restorer<'a> {
    /// Into an engine with its default namespace.
    #[must_use]
    pub fn new(engine: &'a Engine) -> Self {
        Self { engine, by_number: HashMap::new(), unswept: 0, lengths_only: false }
    }

    /// To count what there is: in place of each value its length is kept, as 8 little-endian bytes.
    #[must_use]
    pub fn of_lengths(engine: &'a Engine) -> Self {
        Self { lengths_only: true, ..Self::new(engine) }
    }

    /// The engine's shards.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.engine.shards.len()
    }

    /// Makes the indices ready for `entries` entries that take `bytes` bytes together as records, so that none grows on
    /// the way.
    pub fn expect(&self, entries: u64, bytes: u64) {
        let shards = self.engine.shards.len() as u64;
        for shard in &self.engine.shards {
            shard.lock().expect(entries / shards, bytes / entries.max(1));
        }
    }

    /// Applies a record of one key. May be called from several threads for different keys. The caller sees to it that
    /// versions are raised ([`Engine::raise_versions`]).
    #[inline]
    pub fn entry(&self, record: &Record<'_>, now: Now) -> Restored {
        match self.place(record, 0..0) {
            Ok(placed) => {
                self.restore(&mut self.engine.shards[placed.shard].lock(), record, placed.hash, now)
            }
            Err(restored) => restored,
        }
    }

    /// Where a record of one key belongs, for [`Self::entries`]; `at` is for who finds it there again. As an error,
    /// what applying it comes to where it belongs nowhere.
    ///
    /// # Errors
    /// Its namespace is missing, or it is longer than any.
    #[inline]
    pub fn place(&self, record: &Record<'_>, at: Range<usize>) -> Result<Placed, Restored> {
        let Some((number, key)) = key_of(record) else { return Err(Restored::Applied) };
        if let Some(refusal) = too_long(record) {
            return Err(Restored::Refused(refusal));
        }
        let Some(namespace) = self.namespace(number) else { return Err(Restored::NoNamespace(number)) };
        let (shard, key) = self.engine.locate(namespace, key);
        Ok(Placed { shard, hash: key.hash, at })
    }

    /// Applies records of different keys, as [`Self::entry`] does each, but shard by shard: so a lock is taken once for
    /// many, and the lines of the index are asked for all at once before any is needed, as waiting for them would be
    /// most of the work. `read` reads the record that is at a place, and `came` hears what it came to. It begins with
    /// shard `first`: threads that begin with different ones seldom want the same.
    pub fn entries(
        &self,
        placed: &mut [Placed],
        first: usize,
        now: Now,
        mut read: impl FnMut(Range<usize>, &mut dyn FnMut(&Record<'_>)),
        mut came: impl FnMut(Restored),
    ) {
        let count = self.engine.shards.len();
        placed.sort_unstable_by_key(|placed| (placed.shard + count - first % count) % count);
        for group in placed.chunk_by(|one, other| one.shard == other.shard) {
            for part in group.chunks(RECORDS_PER_HOLD) {
                let mut shard = self.engine.shards[part[0].shard].lock();
                part.iter().for_each(|placed| shard.prefetch_index(placed.hash));
                for placed in part {
                    read(placed.at.clone(), &mut |record| {
                        came(self.restore(&mut shard, record, placed.hash, now));
                    });
                }
            }
        }
    }

    /// Applies a record of one key to its shard.
    #[inline]
    fn restore(&self, shard: &mut Shard, record: &Record<'_>, hash: u64, now: Now) -> Restored {
        let Some((number, key)) = key_of(record) else { return Restored::Applied };
        let Some(namespace) = self.namespace(number) else { return Restored::NoNamespace(number) };
        let key = KeyRef { namespace, key, hash };
        if let (true, Record::Put(put)) = (self.lengths_only, record) {
            let length = (put.value.as_slice().len() as u64).to_le_bytes();
            let put = Record::Put(Put { value: ValueView::Inline(&length), request_id: "", ..*put });
            return shard.restore(&put, key, now);
        }
        shard.restore(record, key, now)
    }

    /// Applies any record.
    pub fn apply(&mut self, record: &Record<'_>, now: Now) -> Restored {
        match *record {
            Record::Namespace { number, generation, config } => {
                match self.namespace(number) {
                    Some(known) if number == DEFAULT => known.set_generation(generation),
                    Some(known) => {
                        let known = known.clone();
                        self.engine.update_namespace(&known, &NamespaceChange::from(config));
                        known.set_generation(generation);
                    }
                    None => {
                        let namespace = self.engine.namespaces.restore(number, config);
                        namespace.set_generation(generation);
                        self.by_number.insert(number, namespace);
                    }
                }
                Restored::Applied
            }
            Record::NamespaceDeleted { number } => {
                let Some(namespace) = self.by_number.remove(&number) else {
                    return Restored::NoNamespace(number);
                };
                // Nobody else can delete it yet.
                let _ = self.engine.delete_namespace(namespace.name(), now);
                self.engine.sweep(usize::MAX);
                Restored::Applied
            }
            Record::Cleared { namespace: number } => {
                let Some(namespace) = self.namespace(number) else { return Restored::NoNamespace(number) };
                self.engine.clear(namespace, now);
                Restored::Applied
            }
            Record::Invalidated { namespace: number, scope, until } => {
                let Some(namespace) = self.namespace(number) else { return Restored::NoNamespace(number) };
                self.invalidate(namespace, scope, until);
                self.unswept += 1;
                if self.unswept >= UNSWEPT_MAX {
                    self.sweep();
                }
                Restored::Applied
            }
            _ => {
                self.engine.versions.raise(record.version());
                self.entry(record, now)
            }
        }
    }

    /// Takes out everything that was applied.
    pub fn empty(&mut self, now: Now) {
        for (_, namespace) in self.by_number.drain() {
            // Nobody else can delete it yet.
            let _ = self.engine.delete_namespace(namespace.name(), now);
        }
        let default = self.engine.default_namespace();
        self.engine.clear(default, now);
        default.set_generation(0);
        self.unswept = 0;
    }

    /// Takes out what invalidations have left dead.
    pub fn sweep(&mut self) {
        self.engine.sweep(usize::MAX);
        self.unswept = 0;
    }

    fn namespace(&self, number: u16) -> Option<&Namespace> {
        if number == DEFAULT {
            return Some(self.engine.default_namespace());
        }
        self.by_number.get(&number)
    }

    fn invalidate(&self, namespace: &Namespace, scope: Scope<'_>, until: Version) {
        self.engine.versions.raise(until);
        namespace.invalidated(|| {
            for shard in &self.engine.shards {
                shard.lock().invalidate(namespace, scope, until, MissReason::Invalidated);
            }
            until
        });
    }
}

/// The namespace's number and the key of a record that is of one key.
#[inline]
fn key_of<'a>(record: &Record<'a>) -> Option<(u16, &'a [u8])> {
    match record {
        Record::Put(put) => Some((put.namespace, put.key)),
        Record::Remove { namespace, key }
        | Record::Expiry { namespace, key, .. }
        | Record::Counted { namespace, key, .. } => Some((*namespace, key)),
        _ => None,
    }
}

/// Records are checksummed, so what is in them was accepted once; still nothing in them is let past what a cell can say.
fn too_long(record: &Record<'_>) -> Option<Refusal> {
    let (key, texts) = match record {
        Record::Put(put) => {
            let longest = put.tags.iter().map(|tag| tag.len()).max().unwrap_or(0);
            (put.key, longest.max(put.content_type.len()))
        }
        Record::Remove { key, .. } | Record::Expiry { key, .. } | Record::Counted { key, .. } => (*key, 0),
        _ => return None,
    };
    let is_ok = (1..=KEY_BYTES_MAX).contains(&key.len()) && texts <= TAG_BYTES_MAX;
    (!is_ok).then(|| Refusal::TooLarge { needs: key.len().max(texts) as u64, limit: KEY_BYTES_MAX as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineConfig;
    use crate::entry::Expiry;

    const NOW: Now = Now { steady_ms: 0, unix_us: 0 };

    fn put<'a>(key: &'a [u8], value: &'a [u8], version: u64) -> Record<'a> {
        Record::Put(Put {
            namespace: DEFAULT,
            key,
            value: ValueView::Inline(value),
            version: Version(version),
            expiry: Expiry::Never,
            flags: 0,
            content_type: "",
            tags: &[],
            request_id: "",
        })
    }

    #[test]
    fn records_in_groups_come_to_the_same_as_one_by_one_and_no_key_is_there_twice() {
        let keys: Vec<String> = (0..3_000).map(|n| format!("key:{}", n % 2_500)).collect();
        // Half as many expected as there are, and far more.
        for expected in [1_250, 1_000_000] {
            for shards in [1, 8] {
                let config = EngineConfig { shards: Some(shards), ..EngineConfig::default() };
                let engine = Engine::new(&config, NOW);
                let restorer = Restorer::new(&engine);
                restorer.expect(expected, expected * 60);
                let mut placed = Vec::new();
                for (at, key) in keys.iter().enumerate() {
                    let record = put(key.as_bytes(), key.as_bytes(), 1 + at as u64);
                    placed.push(restorer.place(&record, at..at + 1).unwrap());
                }
                let read = |at: Range<usize>, visit: &mut dyn FnMut(&Record<'_>)| {
                    let key = keys[at.start].as_bytes();
                    visit(&put(key, key, 1 + at.start as u64));
                };
                let mut applied = 0;
                restorer.entries(&mut placed, 3, NOW, read, |came| {
                    assert_eq!(came, Restored::Applied);
                    applied += 1;
                });
                engine.validate();
                assert_eq!((applied, engine.stats().entries), (3_000, 2_500));
                for key in &keys {
                    let hit = engine.read(engine.default_namespace(), key.as_bytes(), None, NOW, |entry| {
                        entry.value.as_slice() == key.as_bytes()
                    });
                    assert_eq!(hit, Ok(true));
                }
            }
        }
    }

    #[test]
    fn a_record_that_belongs_nowhere_is_told_apart_when_it_is_placed() {
        let engine = Engine::new(&EngineConfig::default(), NOW);
        let restorer = Restorer::new(&engine);
        let unknown = Record::Remove { namespace: 7, key: b"k" };
        assert_eq!(restorer.place(&unknown, 0..1).unwrap_err(), Restored::NoNamespace(7));
        assert!(matches!(restorer.place(&put(b"", b"", 1), 0..1), Err(Restored::Refused(_))));
    }

    #[test]
    fn room_is_made_for_no_more_entries_than_fit() {
        let config = EngineConfig { bytes_limit: 8 << 20, ..EngineConfig::default() };
        let engine = Engine::new(&config, NOW);
        let before = engine.stats().bytes_used;
        Restorer::new(&engine).expect(1 << 40, 100 << 40);
        let took = engine.stats().bytes_used - before;
        assert!(took < (8 << 20) / 8, "{took}");
        Restorer::new(&engine).expect(0, 0);
    }
}
