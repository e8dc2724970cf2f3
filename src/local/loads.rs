//! One load per key: a caller that finds nothing while another loads the same key waits for what that one loads.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

/// The loads that are under way, by namespace and key.
#[derive(Debug, Default)]
pub(super) struct Loads {
    under_way: Mutex<HashMap<LoadKey, Arc<Load>>>,
    /// How many have ended.
    ended: AtomicU64,
}

/// A namespace's name and a key.
type LoadKey = (Box<str>, Box<[u8]>);

#[derive(Debug)]
struct Load {
    thread: ThreadId,
    state: Mutex<State>,
    has_ended: Condvar,
}

#[derive(Debug)]
enum State {
    UnderWay,
    Loaded(Bytes),
    /// It failed, or panicked.
    Abandoned,
}

/// What a caller is to do that found nothing.
pub(super) enum Turn<'l> {
    /// Load, and say what came of it.
    Load(LoadGuard<'l>),
    /// Another has loaded this.
    Loaded(Bytes),
    /// Another has tried in vain: try again.
    TryAgain,
    /// The caller is itself the load that it would wait for.
    WithinItself,
}

/// A load that is this caller's; dropped without a value, those who wait try for themselves.
pub(super) struct LoadGuard<'l> {
    loads: &'l Loads,
    key: LoadKey,
    load: Arc<Load>,
}

impl Loads {
    /// How many loads have ended: what was not there before is perhaps there now if it is another number.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Begins the load of a key, or waits for the one that is under way.
    pub(super) fn turn(&self, namespace: &str, key: &[u8]) -> Turn<'_> {
        let this_thread = std::thread::current().id();
        let load = match self.under_way.lock().entry((namespace.into(), key.into())) {
            Entry::Vacant(entry) => {
                let load = Arc::new(Load {
                    thread: this_thread,
                    state: Mutex::new(State::UnderWay),
                    has_ended: Condvar::new(),
                });
                let key = entry.key().clone();
                entry.insert(Arc::clone(&load));
                return Turn::Load(LoadGuard { loads: self, key, load });
            }
            Entry::Occupied(entry) => Arc::clone(entry.get()),
        };
        if load.thread == this_thread {
            return Turn::WithinItself;
        }
        let mut state = load.state.lock();
        while matches!(*state, State::UnderWay) {
            load.has_ended.wait(&mut state);
        }
        match &*state {
            State::Loaded(value) => Turn::Loaded(value.clone()),
            _ => Turn::TryAgain,
        }
    }
}

impl LoadGuard<'_> {
    /// Gives a value to those who wait for it. It is to be stored by now.
    pub(super) fn loaded(self, value: Bytes) {
        *self.load.state.lock() = State::Loaded(value);
    }
}

impl Drop for LoadGuard<'_> {
    fn drop(&mut self) {
        self.loads.ended.fetch_add(1, Ordering::Release);
        self.loads.under_way.lock().remove(&self.key);
        let mut state = self.load.state.lock();
        if matches!(*state, State::UnderWay) {
            *state = State::Abandoned;
        }
        drop(state);
        self.load.has_ended.notify_all();
    }
}
