//! Many entries read at once: the memory that they lie in is asked for before any of it is needed, as waiting for it is
//! most of what a read costs.
//!
//! Three passes over a window of keys: ask for the lines of the index; look there and ask for the entries; read. A lock
//! is taken for each key in each pass and held for nothing else, so that batches do not wait for each other: holding
//! the shards of 16 keys together took as long alone and let no two batches run at a time.

use std::ops::ControlFlow;

use super::admission::Admission;
use super::fetch::Fetch;
use super::op::{EntryView, NotRead};
use super::shard::KeyRef;
use super::{Engine, Namespace};

/// Keys that are prefetched before the first is read: few enough that their entries are still in the processor's cache
/// then.
const WINDOW_KEYS: usize = 64;

impl Engine {
    /// Reads many entries, in the order of their keys. `found` is called once for each key with its index, under its
    /// shard's lock: as for [`Self::read`] it must be quick and must not call the engine. Where it breaks off, the
    /// keys after are not read.
    ///
    /// # Errors
    /// The index of the first key that has to be fetched: no key from there on was read.
    pub fn read_batch(
        &self,
        namespace: &Namespace,
        keys: &[&[u8]],
        admission: impl Admission,
        mut found: impl FnMut(usize, Result<EntryView<'_>, NotRead>) -> ControlFlow<()>,
    ) -> Result<(), (usize, Fetch)> {
        for (part, keys) in keys.chunks(WINDOW_KEYS).enumerate() {
            let mut placed = [(0, KeyRef { namespace, key: &[], hash: 0 }); WINDOW_KEYS];
            for (place, key) in placed.iter_mut().zip(keys) {
                *place = self.locate(namespace, key);
            }
            let placed = &placed[..keys.len()];
            for (shard, key) in placed {
                self.shards[*shard].lock().prefetch_index(key.hash);
            }
            let mut hint = [None; WINDOW_KEYS];
            for (hint, (shard, key)) in hint.iter_mut().zip(placed) {
                *hint = self.shards[*shard].lock().prefetch_entry(key.hash);
            }
            for (index, (hint, (shard, key))) in hint.iter().zip(placed).enumerate() {
                let index = part * WINDOW_KEYS + index;
                let mut next = ControlFlow::Continue(());
                let found_it = |entry: EntryView<'_>| next = found(index, Ok(entry));
                let read = match self.lock_for(*shard, *key, &admission) {
                    Ok((mut held, now)) => match Fetch::begin(&mut held, *shard, *key, now) {
                        Some(fetch) => return Err((index, fetch)),
                        None => held.get(*key, *hint, now, found_it).map_err(NotRead::Miss),
                    },
                    Err(refusal) => Err(NotRead::Refused(refusal)),
                };
                if let Err(not_read) = read {
                    next = found(index, Err(not_read));
                }
                if next.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::super::{EngineConfig, Op, Set};
    use super::*;

    #[test]
    fn where_an_entry_was_is_not_believed_once_another_may_be_there() {
        let engine = Engine::new(&EngineConfig { shards: Some(1), ..EngineConfig::default() }, at(0));
        let namespace = engine.default_namespace();
        let set =
            |key: &[u8], value: &[u8]| drop(engine.apply(namespace, &Op::Set(Set::new(key, value)), at(0)));
        let changes: [&dyn Fn(); 3] = [
            // Its cell becomes another's, of the same size, whose value looks like its key.
            &|| {
                engine.apply(namespace, &Op::Delete { key: b"one", if_version: None }, at(0));
                set(b"two", b"one");
            },
            &|| assert!(engine.clear(namespace, at(0)) > 0),
            &|| {
                engine.clear(namespace, at(0));
                set(b"much longer", &[b'x'; 2_000]);
            },
        ];
        for change in changes {
            set(b"one", b"old");
            set(b"other", b"stays");
            let (_, key) = engine.locate(namespace, b"one");
            let hint = engine.shards[0].lock().prefetch_entry(key.hash);
            assert!(hint.is_some());
            let read = |hint| engine.shards[0].lock().get(key, hint, at(0), |entry| entry.value.to_bytes());
            assert_eq!(read(hint).unwrap(), "old");
            change();
            assert!(read(hint).is_err());
            set(b"one", b"new");
            assert_eq!(read(hint).unwrap(), "new");
        }
    }
}
