//! What is done to a namespace as a whole, and what operators ask of one: scanning, invalidating, changing,
//! explaining. Each goes through the shards one after the other and holds one lock at a time.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::hot::{HotKey, HotKeys};
use super::log::Record;
use super::namespace::{
    DEFAULT, Namespace, NamespaceChange, NamespaceConfig, NamespaceError, NamespaceReport,
};
use super::op::{EntryView, Hit, MissReason, Refusal};
use super::shard::Scope;
use super::{Engine, Memory};
use crate::clock::Now;
use crate::entry::Version;

/// Hot keys that are listed.
const HOT_KEYS_MAX: usize = 100;

/// Where a scan goes on: in this shard, after this place in its walk; `None`: from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanCursor {
    /// The shard.
    pub shard: u32,
    /// The place in its walk.
    pub after: Option<u64>,
}

/// What a scan looks for, and how much it may do at a time.
#[derive(Debug, Clone, Copy)]
pub struct ScanRange<'a> {
    /// What the keys begin with.
    pub prefix: &'a [u8],
    /// Where the page before ended; `None` for the first.
    pub after: Option<ScanCursor>,
    /// Entries, also of other prefixes and namespaces, that it looks at before it ends the page.
    pub entries_max: usize,
}

/// What the engine knows of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The shard that it is in, from 0.
    pub shard: u32,
    /// The entry without its value, or why there is none as far as is remembered.
    pub entry: Result<Hit, MissReason>,
    /// The value's length.
    pub value_bytes: u64,
    /// What the entry is charged.
    pub charged_bytes: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// What the policy thinks of it, for people.
    pub policy_view: String,
    /// The generation that it was set in.
    pub generation: u64,
}

impl Engine {
    /// The default namespace.
    #[must_use]
    #[inline]
    pub fn default_namespace(&self) -> &Namespace {
        self.namespaces.default()
    }

    /// The namespace of a name other than "".
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<Namespace> {
        self.namespaces.find(name)
    }

    /// All namespaces, the default one first, the others by name.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.namespaces.all()
    }

    /// A namespace with its figures.
    #[must_use]
    pub fn report(&self, namespace: &Namespace) -> NamespaceReport {
        self.reports_of(std::slice::from_ref(namespace)).swap_remove(0)
    }

    /// All namespaces with their figures, the default one first, the others by name.
    #[must_use]
    pub fn reports(&self) -> Vec<NamespaceReport> {
        self.reports_of(&self.namespaces.all())
    }

    fn reports_of(&self, namespaces: &[Namespace]) -> Vec<NamespaceReport> {
        let mut reports: Vec<NamespaceReport> =
            namespaces.iter().map(NamespaceReport::without_stats).collect();
        for shard in &self.shards {
            let shard = shard.lock();
            for (report, namespace) in reports.iter_mut().zip(namespaces) {
                report.stats.add(&shard.stats_of(namespace));
                report.believe(&shard.estimates_of(namespace));
            }
        }
        reports.iter_mut().for_each(NamespaceReport::settle);
        reports
    }

    /// Creates a namespace.
    ///
    /// # Errors
    /// The name is taken or empty, or there are [`super::EngineConfig::namespaces_max`] of them.
    pub fn create_namespace(&self, config: &NamespaceConfig) -> Result<Namespace, NamespaceError> {
        let mut barriers = self.barriers.lock();
        self.namespaces.create(config, |namespace| self.namespace_barrier(&mut barriers, namespace))
    }

    /// Changes a namespace. A lowered cap is come down to before this returns, where the entries of its shards allow
    /// it. The default one's limit is not changed here but by [`Self::resize`].
    pub fn update_namespace(&self, namespace: &Namespace, change: &NamespaceChange) {
        let mut change = *change;
        if namespace.number() == DEFAULT {
            change.bytes_limit = None;
        }
        if let Some(policy) = change.policy.take() {
            self.set_policy(namespace, policy);
        }
        namespace.change(&change);
        if namespace.number() != DEFAULT {
            self.namespace_barrier(&mut self.barriers.lock(), namespace);
        }
        if change.bytes_limit.is_some() {
            self.shrink_namespace(namespace);
        }
    }

    /// Deletes a namespace with its entries; how many there were.
    ///
    /// # Errors
    /// There is none of the name, or it is the default one.
    pub fn delete_namespace(&self, name: &str, now: Now) -> Result<u64, NamespaceError> {
        let mut barriers = self.barriers.lock();
        let namespace = self.namespaces.delete(name)?;
        let mut entries = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            entries += shard.stats_of(&namespace).entries;
            shard.invalidate(&namespace, Scope::All, Version(u64::MAX), MissReason::Deleted);
            shard.changes.barrier(Some((&namespace, Scope::All)), || self.versions.next_bound(now));
        }
        barriers.add(&Record::NamespaceDeleted { number: namespace.number() });
        Ok(entries)
    }

    /// Lets everything of a namespace die that the scope covers, without looking at it: from when this returns it is
    /// never found again. [`Self::sweep`] takes it out. Returns the namespace's count of invalidations.
    ///
    /// # Errors
    /// [`Refusal::Unswept`]: a shard has as many prefixes and tags to sweep as it can note; [`Scope::All`] is never refused
    /// for that. [`Refusal::Backlogged`]: too much is logged and not written. Nothing was done.
    pub fn invalidate(&self, namespace: &Namespace, scope: Scope<'_>, now: Now) -> Result<u64, Refusal> {
        let mut barriers = self.barriers.lock();
        if let Some(refusal) = barriers.refusal() {
            return Err(refusal);
        }
        // Noting an invalidation takes the barriers' lock, which is held here: what there is room for now stays so.
        for shard in &self.shards {
            shard.lock().takes_invalidation(namespace, scope)?;
        }
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        Ok(namespace.invalidated(|| {
            let until = self.versions.next_bound(now);
            for shard in &self.shards {
                let mut shard = shard.lock();
                shard.invalidate(namespace, scope, until, MissReason::Invalidated);
                shard.changes.barrier(Some((namespace, scope)), || until);
            }
            barriers.add(&Record::Invalidated { namespace: namespace.number(), scope, until });
            until
        }))
    }

    /// How many invalidations there were, also in namespaces that are gone.
    #[must_use]
    pub fn invalidations(&self) -> u64 {
        self.invalidations.load(Ordering::Relaxed)
    }

    /// Takes dead entries out, until it has looked at `entries_max` entries or none is left. Whether any may be left.
    pub fn sweep(&self, entries_max: usize) -> bool {
        let mut seen = 0;
        for shard in &self.shards {
            loop {
                if seen >= entries_max {
                    return true;
                }
                let mut held = shard.lock();
                let looked_at = held.sweep_segment();
                MutexGuard::unlock_fair(held);
                match looked_at {
                    Some(entries) => seen += entries + 1,
                    None => break,
                }
            }
        }
        false
    }

    /// Visits entries of a namespace in an order that stays as long as the engine does, so that what is there
    /// throughout is visited exactly once. `visit` is called under a shard's lock: it must be quick and must not call
    /// the engine; where it breaks off, the entry that it was given counts as not visited. Returns where to go on;
    /// `None`: that was all.
    pub fn scan(
        &self,
        namespace: &Namespace,
        range: ScanRange<'_>,
        now: Now,
        mut visit: impl FnMut(&[u8], EntryView<'_>) -> ControlFlow<()>,
    ) -> Option<ScanCursor> {
        let begin = range.after.unwrap_or(ScanCursor { shard: 0, after: None });
        let mut looked_at = 0;
        for number in begin.shard as usize..self.shards.len() {
            let shard = number as u32;
            let mut after = begin.after.filter(|_| shard == begin.shard);
            loop {
                let held = self.shards[number].lock();
                match held.scan_segment(namespace, range.prefix, after, now, &mut visit) {
                    ControlFlow::Break(after) => return Some(ScanCursor { shard, after }),
                    ControlFlow::Continue((end, entries)) => {
                        looked_at += entries + 1;
                        after = Some(end);
                    }
                }
                drop(held);
                if after == Some(u64::MAX) {
                    break;
                }
                if looked_at >= range.entries_max {
                    return Some(ScanCursor { shard, after });
                }
            }
        }
        None
    }

    /// What is known of a key. Counts as no use of the entry.
    #[must_use]
    pub fn explain(&self, namespace: &Namespace, key: &[u8], now: Now) -> Explanation {
        let (number, key) = self.locate(namespace, key);
        let known = self.shards[number].lock().explain(key, now);
        let shard = number as u32;
        match known {
            Ok(known) => Explanation {
                shard,
                value_bytes: known.value_bytes,
                charged_bytes: known.charged_bytes,
                tags: known.tags,
                policy_view: known.policy_view,
                generation: namespace.generation_of(known.hit.version),
                entry: Ok(known.hit),
            },
            Err(reason) => Explanation {
                shard,
                entry: Err(reason),
                value_bytes: 0,
                charged_bytes: 0,
                tags: Vec::new(),
                policy_view: String::new(),
                generation: 0,
            },
        }
    }

    /// The keys that are asked for most, up to 100.
    #[must_use]
    pub fn hot_keys(&self, now: Now) -> HotKeys {
        let mut all = HotKeys::default();
        for shard in &self.shards {
            shard.lock().add_hot_keys(&mut all, now);
        }
        let at_least = |key: &HotKey| key.count.saturating_sub(key.count_error);
        all.keys.sort_by_key(|key| std::cmp::Reverse((at_least(key), key.count)));
        all.keys.truncate(HOT_KEYS_MAX);
        all
    }

    /// Where the bytes are.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for shard in &self.shards {
            shard.lock().add_memory(&mut memory);
        }
        memory
    }

    /// Lets entries of a namespace go, round the shards, until it is within its cap.
    fn shrink_namespace(&self, namespace: &Namespace) {
        let mut some = true;
        while some && namespace.is_over(0) {
            some = false;
            for shard in &self.shards {
                some |= shard.lock().shrink_namespace(namespace);
            }
        }
    }
}
