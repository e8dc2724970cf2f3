//! What the clones of a cache share: the engine, its clock, and the thread that reclaims what has expired.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::loads::Loads;
use crate::client::random;
use crate::clock::{Clock, CoarseClock, Now, Pace};
use crate::engine::{Engine, EngineConfig};
use crate::entry::Limits;

/// How often what has become due is looked for.
const UPKEEP_EVERY: Duration = Duration::from_millis(100);
/// Entries that are looked at for invalidations before the pace of that is thought of.
const ENTRIES_PER_SWEEP: usize = 64;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Arc<Engine>,
    pub(super) limits: Limits,
    pub(super) loads: Loads,
    /// A number that no other cache has.
    pub(super) id: u64,
    /// Whether a thread reclaims what calls do not.
    pub(super) has_upkeep: bool,
    time: Arc<TimeSource>,
    /// Ends the thread when it is dropped.
    _ends_upkeep: Sender<()>,
}

/// Where a cache has the time from.
#[derive(Debug)]
pub(super) enum TimeSource {
    /// The default, which is called directly: reading the time is a good part of what a lookup takes.
    Coarse(CoarseClock),
    Given(Arc<dyn Clock>),
}

impl TimeSource {
    #[inline]
    fn now(&self) -> Now {
        match self {
            Self::Coarse(clock) => clock.now(),
            Self::Given(clock) => clock.now(),
        }
    }
}

impl Shared {
    pub(super) fn new(config: &EngineConfig, limits: Limits, time: TimeSource) -> Self {
        let (engine, time) = (Arc::new(Engine::new(config, time.now())), Arc::new(time));
        let (ends_upkeep, ended) = channel();
        let (weak, clock) = (Arc::downgrade(&engine), Arc::clone(&time));
        let upkeep = std::thread::Builder::new()
            .name("larder-local".to_owned())
            .spawn(move || upkeep(&weak, &clock, &ended));
        Self {
            engine,
            limits,
            loads: Loads::default(),
            id: random(),
            has_upkeep: upkeep.is_ok(),
            time,
            _ends_upkeep: ends_upkeep,
        }
    }

    #[inline]
    pub(super) fn now(&self) -> Now {
        self.time.now()
    }
}

/// Reclaims what has expired, and what invalidations cover, until the cache is dropped.
fn upkeep(engine: &Weak<Engine>, time: &TimeSource, ended: &Receiver<()>) {
    while ended.recv_timeout(UPKEEP_EVERY) == Err(RecvTimeoutError::Timeout) {
        let Some(engine) = engine.upgrade() else { return };
        engine.advance(time.now());
        let mut pace = Pace::new();
        while engine.sweep(ENTRIES_PER_SWEEP) {
            pace.rest();
        }
    }
}
