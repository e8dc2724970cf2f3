//! Namespaces: named keyspaces with their own cap, policy and default time to live.
//!
//! A namespace is known by a number of 16 bits in entries and shards; 0 is the default one, which is always there
//! and whose limit is the engine's own. What all shards must agree on about one (its cap, what it uses in all,
//! its invalidations) is in a [`Namespace`] that they share; a number is given to another namespace only when no
//! shard and no caller holds the one before, so an operation that is under way cannot reach a stranger's entries.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::eviction::{Estimate, PolicyName};
use super::stats::Stats;
use crate::entry::{NAMESPACES_MAX, Ttl, Version};
use crate::quote::Quote;

/// The number of the default namespace.
pub(crate) const DEFAULT: u16 = 0;
/// How many invalidations are remembered, to tell in which generation an entry was set.
const INVALIDATIONS_REMEMBERED: usize = 64;

/// What is in force for a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceConfig {
    /// Its name; empty for the default one.
    pub name: String,
    /// The most bytes that its entries may take; 0: no cap of its own. The default one's is the engine's limit.
    pub bytes_limit: u64,
    /// Its eviction policy.
    pub policy: PolicyName,
    /// The time to live of entries that are stored without one.
    pub default_ttl: Ttl,
    /// How long clients may answer from copies of its entries without asking, in ms; 0: only while Watch keeps them true.
    pub near_cache_ttl_ms: u64,
}

impl NamespaceConfig {
    /// Without a cap of its own; what is stored without a time to live stays, and copies are served only while Watch keeps them true.
    #[must_use]
    pub fn new(name: &str, policy: PolicyName) -> Self {
        Self { name: name.to_owned(), bytes_limit: 0, policy, default_ttl: Ttl::Never, near_cache_ttl_ms: 0 }
    }
}

/// What to change of a namespace; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamespaceChange {
    /// The new cap; 0 takes it away.
    pub bytes_limit: Option<u64>,
    /// The new policy.
    pub policy: Option<PolicyName>,
    /// The new default time to live; entries that are there keep theirs.
    pub default_ttl: Option<Ttl>,
    /// How long clients may answer from the copies that they make from now on, in ms; 0: only while Watch keeps them
    /// true.
    pub near_cache_ttl_ms: Option<u64>,
}

impl From<&NamespaceConfig> for NamespaceChange {
    /// All that can be changed.
    fn from(config: &NamespaceConfig) -> Self {
        Self {
            bytes_limit: Some(config.bytes_limit),
            policy: Some(config.policy),
            default_ttl: Some(config.default_ttl),
            near_cache_ttl_ms: Some(config.near_cache_ttl_ms),
        }
    }
}

/// What a policy believes of one of the ways that it tries in the small.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyEstimate {
    /// Its name.
    pub candidate: &'static str,
    /// The hit ratio that it would have had of late, 0 to 1.
    pub hit_ratio: f64,
    /// On how many lookups that rests.
    pub lookups: u64,
    /// Shards that follow it.
    pub followers: u32,
    /// It is the one that most shards follow.
    pub leader: bool,
}

/// A namespace with its figures.
#[derive(Debug, Clone, PartialEq)]
pub struct NamespaceReport {
    /// No other namespace of the engine has or had it, also none of the same name.
    pub id: u64,
    /// What is in force for it.
    pub config: NamespaceConfig,
    /// Its counters and sizes.
    pub stats: Stats,
    /// How many invalidations it has seen.
    pub generation: u64,
    /// What its policy believes of each of the ways that it tries; empty where it tries none.
    pub estimates: Vec<PolicyEstimate>,
}

impl NamespaceReport {
    pub(crate) fn without_stats(namespace: &Namespace) -> Self {
        Self {
            id: namespace.id(),
            config: namespace.config(),
            stats: Stats::default(),
            generation: namespace.generation(),
            estimates: Vec::new(),
        }
    }

    /// Adds what one shard believes; [`Self::settle`] makes ratios of the sums.
    pub(crate) fn believe(&mut self, estimates: &[Estimate]) {
        for estimate in estimates {
            let known = self.estimates.iter().position(|known| known.candidate == estimate.candidate);
            let known = known.unwrap_or_else(|| {
                let candidate = estimate.candidate;
                self.estimates.push(PolicyEstimate {
                    candidate,
                    hit_ratio: 0.0,
                    lookups: 0,
                    followers: 0,
                    leader: false,
                });
                self.estimates.len() - 1
            });
            let known = &mut self.estimates[known];
            known.hit_ratio += estimate.hits;
            known.lookups += estimate.lookups as u64;
            known.followers += u32::from(estimate.is_followed);
        }
    }

    pub(crate) fn settle(&mut self) {
        let most = self.estimates.iter().map(|estimate| estimate.followers).max().unwrap_or(0);
        let mut leaderless = true;
        for estimate in &mut self.estimates {
            estimate.hit_ratio = (estimate.hit_ratio / estimate.lookups.max(1) as f64).clamp(0.0, 1.0);
            estimate.leader = leaderless && most > 0 && estimate.followers == most;
            leaderless &= !estimate.leader;
        }
    }
}

/// Why namespaces cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// There is none of that name.
    #[error("there is no namespace {name}")]
    NotFound {
        /// The name.
        name: Quote,
    },
    /// There is one of that name.
    #[error("a namespace {name} exists already")]
    Exists {
        /// The name.
        name: Quote,
    },
    /// There are as many as there can be.
    #[error("there may be {max} namespaces, the default one counted, and no more; delete one first")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// The default namespace can be neither created nor deleted.
    #[error("the default namespace is always there")]
    Default,
}

/// A namespace of an engine. Cheap to clone; it stays valid when the namespace is deleted, but then nothing is
/// found in it and nothing stored.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    number: u16,
    /// Unlike the number, never given away again.
    id: u64,
    name: Box<str>,
    bytes_limit: AtomicU64,
    default_ttl_ms: AtomicU64,
    near_cache_ttl_ms: AtomicU64,
    policy: Mutex<PolicyName>,
    /// What its entries weigh in all shards; not kept for the default one.
    bytes_used: AtomicU64,
    deleted: AtomicBool,
    invalidations: Mutex<Invalidations>,
}

#[derive(Debug, Default)]
struct Invalidations {
    count: u64,
    /// The latest, oldest first.
    recent: VecDeque<Version>,
}

impl Namespace {
    fn new(number: u16, id: u64, config: &NamespaceConfig) -> Self {
        Self(Arc::new(Shared {
            number,
            id,
            name: config.name.as_str().into(),
            bytes_limit: AtomicU64::new(config.bytes_limit),
            default_ttl_ms: AtomicU64::new(config.default_ttl.to_wire_ms()),
            near_cache_ttl_ms: AtomicU64::new(config.near_cache_ttl_ms),
            policy: Mutex::new(config.policy),
            bytes_used: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            invalidations: Mutex::default(),
        }))
    }

    /// Its name; empty for the default one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What is in force for it.
    #[must_use]
    pub fn config(&self) -> NamespaceConfig {
        NamespaceConfig {
            name: self.name().to_owned(),
            bytes_limit: self.bytes_limit(),
            policy: *self.0.policy.lock(),
            default_ttl: self.default_ttl(),
            near_cache_ttl_ms: self.0.near_cache_ttl_ms.load(Ordering::Relaxed),
        }
    }

    /// How many invalidations it has seen.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.invalidations.lock().count
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    #[inline]
    pub(crate) fn number(&self) -> u16 {
        self.0.number
    }

    /// The most bytes that its entries may take; see [`NamespaceConfig::bytes_limit`].
    #[inline]
    #[must_use]
    pub fn bytes_limit(&self) -> u64 {
        self.0.bytes_limit.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn default_ttl(&self) -> Ttl {
        Ttl::from_wire_ms(self.0.default_ttl_ms.load(Ordering::Relaxed))
    }

    /// How long a client may answer from its copy of an entry that has this much left to live, in ms; 0 there: it does not
    /// expire, 0 here: only while Watch keeps it true.
    #[inline]
    #[must_use]
    pub fn near_cache_ttl_ms(&self, remaining_ttl_ms: u64) -> u64 {
        let ttl_ms = self.0.near_cache_ttl_ms.load(Ordering::Relaxed);
        if remaining_ttl_ms == 0 { ttl_ms } else { ttl_ms.min(remaining_ttl_ms) }
    }

    pub(crate) fn policy(&self) -> PolicyName {
        *self.0.policy.lock()
    }

    #[inline]
    pub(crate) fn is_deleted(&self) -> bool {
        self.0.deleted.load(Ordering::Acquire)
    }

    /// Takes on a change; the shards are the engine's to tell.
    pub(crate) fn change(&self, change: &NamespaceChange) {
        if let Some(bytes_limit) = change.bytes_limit {
            self.0.bytes_limit.store(bytes_limit, Ordering::Relaxed);
        }
        if let Some(policy) = change.policy {
            *self.0.policy.lock() = policy;
        }
        if let Some(default_ttl) = change.default_ttl {
            self.0.default_ttl_ms.store(default_ttl.to_wire_ms(), Ordering::Relaxed);
        }
        if let Some(ttl_ms) = change.near_cache_ttl_ms {
            self.0.near_cache_ttl_ms.store(ttl_ms, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn charge(&self, bytes: u64) {
        if self.0.number != DEFAULT {
            self.0.bytes_used.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn refund(&self, bytes: u64) {
        if self.0.number != DEFAULT {
            self.0.bytes_used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether `more` bytes more would pass its own cap.
    #[inline]
    pub(crate) fn is_over(&self, more: u64) -> bool {
        if self.0.number == DEFAULT {
            return false;
        }
        let limit = self.bytes_limit();
        limit != 0 && self.0.bytes_used.load(Ordering::Relaxed) + more > limit
    }

    /// Lets an invalidation happen, one at a time: `happen` answers with its version. Returns how many there were by
    /// then, which is the namespace's generation.
    pub(crate) fn invalidated(&self, happen: impl FnOnce() -> Version) -> u64 {
        let mut invalidations = self.0.invalidations.lock();
        let version = happen();
        invalidations.count = invalidations.count.saturating_add(1);
        if invalidations.recent.len() == INVALIDATIONS_REMEMBERED {
            invalidations.recent.pop_front();
        }
        invalidations.recent.push_back(version);
        invalidations.count
    }

    /// Goes on counting from there.
    pub(crate) fn set_generation(&self, generation: u64) {
        self.0.invalidations.lock().count = generation;
    }

    /// The generation in which an entry of this version was set; at least that, where too much came after it.
    pub(crate) fn generation_of(&self, version: Version) -> u64 {
        let invalidations = self.0.invalidations.lock();
        let after = invalidations.recent.iter().filter(|other| **other > version).count();
        invalidations.count.saturating_sub(after as u64)
    }
}

/// The namespaces of an engine, by name.
#[derive(Debug)]
pub(crate) struct Namespaces {
    default: Namespace,
    by_name: ArcSwap<HashMap<Box<str>, Namespace>>,
    /// How many there ever were, the default one counted.
    created: AtomicU64,
    /// How many there may be, the default one counted.
    max: AtomicUsize,
    /// Also makes changes one at a time.
    deleted: Mutex<Vec<Namespace>>,
}

impl Namespaces {
    pub(crate) fn new(config: &NamespaceConfig, max: usize) -> Self {
        Self {
            max: AtomicUsize::new(max.clamp(1, NAMESPACES_MAX)),
            default: Namespace::new(DEFAULT, 0, config),
            by_name: ArcSwap::default(),
            created: AtomicU64::new(1),
            deleted: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn default(&self) -> &Namespace {
        &self.default
    }

    /// Sets how many there may be; those that are there stay.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max.clamp(1, NAMESPACES_MAX), Ordering::Relaxed);
    }

    /// Finds a namespace other than the default one.
    pub(crate) fn find(&self, name: &str) -> Option<Namespace> {
        self.by_name.load().get(name).cloned()
    }

    /// All, the default one first, the others by name.
    pub(crate) fn all(&self) -> Vec<Namespace> {
        let mut named: Vec<Namespace> = self.by_name.load().values().cloned().collect();
        named.sort_by(|one, other| one.name().cmp(other.name()));
        named.insert(0, self.default.clone());
        named
    }

    /// Creates one; `before` is called with it before anybody can find it.
    pub(crate) fn create(
        &self,
        config: &NamespaceConfig,
        before: impl FnOnce(&Namespace),
    ) -> Result<Namespace, NamespaceError> {
        if config.name.is_empty() {
            return Err(NamespaceError::Default);
        }
        let mut deleted = self.deleted.lock();
        let mut by_name = HashMap::clone(&self.by_name.load());
        if by_name.contains_key(config.name.as_str()) {
            return Err(NamespaceError::Exists { name: Quote::of(&config.name) });
        }
        let max = self.max.load(Ordering::Relaxed);
        if by_name.len() + 1 >= max {
            return Err(NamespaceError::TooMany { max });
        }
        // A number is free again when nobody else holds the namespace that had it.
        deleted.retain(|namespace| Arc::strong_count(&namespace.0) > 1);
        let taken: Vec<u16> = by_name.values().chain(deleted.iter()).map(Namespace::number).collect();
        let number =
            (1..=u16::MAX).find(|number| !taken.contains(number)).ok_or(NamespaceError::TooMany { max })?;
        let namespace = Namespace::new(number, self.created.fetch_add(1, Ordering::Relaxed), config);
        before(&namespace);
        by_name.insert(config.name.as_str().into(), namespace.clone());
        self.by_name.store(Arc::new(by_name));
        Ok(namespace)
    }

    /// Puts back one that a recovery found, under its number.
    pub(crate) fn restore(&self, number: u16, config: &NamespaceConfig) -> Namespace {
        let _one_at_a_time = self.deleted.lock();
        let mut by_name = HashMap::clone(&self.by_name.load());
        let namespace = Namespace::new(number, self.created.fetch_add(1, Ordering::Relaxed), config);
        by_name.insert(config.name.as_str().into(), namespace.clone());
        self.by_name.store(Arc::new(by_name));
        namespace
    }

    /// Takes a namespace's name away; its entries are the engine's to drop.
    pub(crate) fn delete(&self, name: &str) -> Result<Namespace, NamespaceError> {
        if name.is_empty() {
            return Err(NamespaceError::Default);
        }
        let mut deleted = self.deleted.lock();
        let mut by_name = HashMap::clone(&self.by_name.load());
        let Some(namespace) = by_name.remove(name) else {
            return Err(NamespaceError::NotFound { name: Quote::of(name) });
        };
        namespace.0.deleted.store(true, Ordering::Release);
        deleted.push(namespace.clone());
        self.by_name.store(Arc::new(by_name));
        Ok(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str) -> NamespaceConfig {
        NamespaceConfig::new(name, PolicyName::Lru)
    }

    #[test]
    fn a_number_is_not_given_away_while_somebody_holds_its_namespace() {
        let namespaces = Namespaces::new(&config(""), NAMESPACES_MAX);
        let held = namespaces.create(&config("a"), |_| {}).unwrap();
        namespaces.delete("a").unwrap();
        assert!(held.is_deleted());
        let again = namespaces.create(&config("a"), |_| {}).unwrap();
        assert_ne!(again.number(), held.number());
        let (number, id) = (held.number(), held.id());
        drop(held);
        let heir = namespaces.create(&config("b"), |_| {}).unwrap();
        assert_eq!(heir.number(), number);
        assert!(heir.id() > again.id() && again.id() > id, "an id is never given away");
    }

    #[test]
    fn there_are_at_most_1024_namespaces_with_the_default_one() {
        let namespaces = Namespaces::new(&config(""), NAMESPACES_MAX);
        for n in 1..NAMESPACES_MAX {
            namespaces.create(&config(&n.to_string()), |_| {}).unwrap();
        }
        assert_eq!(
            namespaces.create(&config("more"), |_| {}).unwrap_err(),
            NamespaceError::TooMany { max: NAMESPACES_MAX }
        );
        assert_eq!(
            namespaces.create(&config("7"), |_| {}).unwrap_err().to_string(),
            "a namespace \"7\" exists already"
        );
        assert_eq!(namespaces.create(&config(""), |_| {}).unwrap_err(), NamespaceError::Default);
        assert_eq!(namespaces.delete("").unwrap_err(), NamespaceError::Default);
        assert_eq!(namespaces.all().len(), NAMESPACES_MAX);
        namespaces.delete("7").unwrap();
        namespaces.create(&config("more"), |_| {}).unwrap();
        namespaces.set_max(2);
        namespaces.delete("8").unwrap();
        assert_eq!(
            namespaces.create(&config("9999"), |_| {}).unwrap_err(),
            NamespaceError::TooMany { max: 2 }
        );
        assert_eq!(namespaces.all().len(), NAMESPACES_MAX - 1, "those that are there stay");
    }

    #[test]
    fn an_entrys_generation_is_how_many_invalidations_came_before_it() {
        let namespaces = Namespaces::new(&config(""), NAMESPACES_MAX);
        let namespace = namespaces.default();
        assert_eq!(namespace.generation_of(Version(5)), 0);
        assert_eq!(namespace.invalidated(|| Version(10)), 1);
        assert_eq!(namespace.invalidated(|| Version(20)), 2);
        let generations = [5, 15, 25].map(|version| namespace.generation_of(Version(version)));
        assert_eq!((generations, namespace.generation()), ([0, 1, 2], 2));
    }
}
