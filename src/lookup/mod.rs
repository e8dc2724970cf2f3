//! What memory has not got: one future for an entry that lies elsewhere, and one load of it however many ask.
//!
//! ```text
//!   operation ──▶ engine: memory answers ──▶ done, without a future
//!                   │ it has not got the key: Fetch
//!                   ▼
//!              PendingLoad ────▶ Loading ══▶ Loaded ──▶ the operation again, with what was found
//!                                   │ joins
//!                                   ▼
//!                                Flight: the key's one load, of a Source (the disk tier), on threads that may block
//! ```
//!
//! An operation is tried in memory first, at once. Where it cannot be done so, it has changed nothing, and
//! [`PendingLoad`] stands for what is missing. [`Loading`] has it loaded; what comes of that ([`Loaded`]) is
//! handed to the same operation, which is done with it under one hold of the shard's lock, unless the key was changed
//! meanwhile: then it has to be loaded again. So a late load never takes the place of a newer write (see [`Fetch`]),
//! and giving an operation up is to drop its future.
//!
//! A [`Source`] is asked on a thread that may block. The disk tier is one. Where it has not got the key either, an origin and
//! a peer that owned the key are to be asked in the same flight.

mod disk;
mod flight;
mod pool;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::engine::{Engine, Fetch, Namespace, Put, Refusal};
use crate::persistence::tier::Found;
pub(crate) use flight::AbandonedLoad;
use flight::{Flights, Waiter};

/// Where entries lie that are not in memory.
pub(crate) trait Source: std::fmt::Debug + Send + Sync {
    /// Looks for a key's entry. Blocks.
    fn load(&self, target: &LoadTarget) -> Answer;
}

/// A key that is looked for, and where.
#[derive(Debug)]
pub(crate) struct LoadTarget {
    /// The number of its namespace.
    pub namespace: u16,
    /// The key.
    pub key: Box<[u8]>,
    /// Its shard.
    pub shard: usize,
    /// Its hash in the order of the shard's walk.
    pub walk_hash: u64,
    /// Records and barriers that the shard had logged: those must have arrived where it is looked.
    pub logged: u64,
}

/// What there is of a key.
#[derive(Debug)]
pub enum Answer {
    /// Its entry's record.
    Found(Found),
    /// Nothing.
    Absent,
    /// A record that is not as it was written.
    Damaged,
    /// It cannot be told.
    Failed(Refusal),
}

impl LoadTarget {
    fn new(fetch: &Fetch, namespace: u16, key: &[u8]) -> Self {
        let (shard, walk_hash, logged) = (fetch.shard(), fetch.walk_hash(), fetch.logged());
        Self { namespace, key: key.into(), shard, walk_hash, logged }
    }
}

/// Looks for entries that are not in memory. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Lookup(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    engine: Arc<Engine>,
    source: Arc<dyn Source>,
    flights: Flights,
}

impl Lookup {
    /// Looks in `source` for what an engine has not got.
    #[must_use]
    pub(crate) fn new(engine: Arc<Engine>, source: Arc<dyn Source>) -> Self {
        Self(Arc::new(Shared { engine, source, flights: Flights::default() }))
    }

    /// An operation that cannot be done before its key's entry is loaded.
    pub(crate) fn pending_load(&self, fetch: Fetch, namespace: &Namespace) -> PendingLoad {
        let namespace = namespace.number();
        PendingLoad { namespace, fetch: Watched { lookup: self.clone(), fetch: Some(fetch) } }
    }

    /// How many loads are under way or have been loaded for an operation that goes on.
    #[cfg(test)]
    pub(crate) fn flights(&self) -> usize {
        self.0.flights.len()
    }
}

/// A key that the engine watches until this is dropped or handed back.
#[derive(Debug)]
struct Watched {
    lookup: Lookup,
    fetch: Option<Fetch>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(fetch) = self.fetch.take() {
            self.lookup.0.engine.end_fetch(fetch);
        }
    }
}

impl Watched {
    fn get(&self) -> &Fetch {
        self.fetch.as_ref().expect("it is there until it is handed back")
    }
}

/// An operation whose key is not in memory. Nothing was done of it, and nothing is loaded yet.
#[derive(Debug)]
#[must_use = "the operation was not done"]
pub struct PendingLoad {
    namespace: u16,
    fetch: Watched,
}

impl PendingLoad {
    /// A future that has the entry loaded, of the operation's key; it joins the load of it that is under way.
    pub fn into_loading(self, key: &[u8]) -> Loading {
        let Self { namespace, fetch } = self;
        let target = LoadTarget::new(fetch.get(), namespace, key);
        let shared = &fetch.lookup.0;
        let waiter = shared.flights.join(target, fetch.get().changes(), &shared.source);
        Loading { waiter, fetch: Some(fetch) }
    }

    /// Loads it here and now. Blocks.
    #[cfg(any(test, feature = "testing"))]
    pub fn load(self, key: &[u8]) -> Loaded {
        let Self { namespace, fetch } = self;
        let target = LoadTarget::new(fetch.get(), namespace, key);
        let answer = Arc::new(fetch.lookup.0.source.load(&target));
        Loaded { fetch, answer }
    }
}

/// An entry that is loaded for an operation, from when it is first polled or started together with others. Dropped, it
/// leaves the load to others that wait for it.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Loading {
    waiter: Waiter,
    fetch: Option<Watched>,
}

impl Loading {
    /// Starts those that are not loaded yet: by one thread, unless the disk lets it wait. When they have loaded
    /// `bytes_max`, of keys and values, those left are loaded when they are polled. Must be called in a runtime.
    pub fn start_together<'a>(loadings: impl IntoIterator<Item = &'a Self>, bytes_max: usize) {
        Flights::start(loadings.into_iter().map(|loading| &loading.waiter), bytes_max);
    }

    /// Whether nothing has started it, or there was no room for it among those that it was started with.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiter.is_idle()
    }

    /// Gives the operation up. `None`: the load had not begun, or others wait for it; else what it takes counts until
    /// this is ready.
    #[must_use]
    pub fn give_up(self) -> Option<AbandonedLoad> {
        self.waiter.leave()
    }
}

impl Future for Loading {
    type Output = Loaded;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Loaded> {
        let answer = ready!(self.waiter.poll(cx));
        let fetch = self.fetch.take().expect("a future is not polled after it is ready");
        Poll::Ready(Loaded { fetch, answer })
    }
}

/// What was loaded for an operation, which is to be done with it.
#[derive(Debug)]
#[must_use = "the operation was not done"]
pub struct Loaded {
    fetch: Watched,
    answer: Arc<Answer>,
}

impl Loaded {
    /// What was found; the engine watches the key until this is dropped or handed over.
    #[must_use]
    pub fn answer(&self) -> &Arc<Answer> {
        &self.answer
    }

    /// Hands over the engine's watch on the key.
    pub fn into_fetch(mut self) -> Fetch {
        self.fetch.fetch.take().expect("it is there until it is handed back")
    }
}

impl Answer {
    /// What it holds.
    fn bytes(&self) -> usize {
        if let Self::Found(found) = self { found.bytes() } else { 0 }
    }

    /// Visits what was found as the engine takes it; `None`: nothing was, or it cannot be used.
    pub fn visit<R>(&self, visit: impl FnOnce(Option<&Put<'_>>) -> R) -> R {
        let Self::Found(found) = self else { return visit(None) };
        let mut visit = Some(visit);
        let visited = found.visit(|put| visit.take().map(|visit| visit(Some(put))));
        match (visited.flatten(), visit) {
            (Some(visited), _) => visited,
            (None, Some(visit)) => visit(None),
            (None, None) => unreachable!("a visit that was made has come to something"),
        }
    }
}

#[cfg(test)]
mod tests;
