//! The life of a node: its states, and the two things that can be asked of it, spawn and drain.
//!
//! ```text
//!   standby ──▶ recovering ──▶ serving ──▶ draining ──▶ stopped
//!      ▲            │ │                     ▲  ▲
//!      └── failed ──┘ └─────────────────────┘  │
//!      └───────────────────────────────────────┘
//! ```
//!
//! [`Lifecycle`] is made before anything else. It is given to all that ask for a change of state (the Admin service,
//! signals) or must know it (readiness, streams that end when the node drains). [`Server`](super::Server) does the
//! work. A state is never left along any other arrow, and health changes before the state that it follows can be seen.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(feature = "testing")]
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info};

use super::health::Health;
use super::listen::ListenError;
use crate::endpoint::Endpoint;

/// Where a node stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Admin and health answer; no data listener is open.
    Standby,
    /// Reads its content back.
    Recovering,
    /// Serves.
    Serving,
    /// Takes no new work and finishes what runs.
    Draining,
    /// Done; the process is about to exit.
    Stopped,
}

impl NodeState {
    /// Whether a node may go from this state to that one.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use NodeState::{Draining, Recovering, Serving, Standby, Stopped};
        matches!(
            (self, next),
            (Standby, Recovering)
                | (Recovering, Serving | Standby)
                | (Standby | Recovering | Serving, Draining)
                | (Draining, Stopped)
        )
    }

    /// The word for it in ready lines, logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Recovering => "recovering",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a node did not spawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// It is on its way out.
    #[error("the node is {state}: it cannot serve again; start a new one")]
    Leaving {
        /// Draining or stopped.
        state: NodeState,
    },
    /// What is on disk cannot be used; the node stands by.
    #[error("cannot recover: {0}")]
    Recover(String),
    /// A data listener cannot be opened; the node stands by.
    #[error("cannot open a data listener (--listen): {0}")]
    Listen(#[from] ListenError),
}

/// The handle of a node's life. Clones are the same.
#[derive(Debug, Clone)]
pub struct Lifecycle(Arc<Inner>);

impl Lifecycle {
    /// A life that begins in standby. One is for one [`Server`](super::Server).
    #[must_use]
    pub fn new() -> Self {
        let (spawns, spawns_asked) = mpsc::channel(SPAWNS_WAITING_MAX);
        Self(Arc::new(Inner {
            state: watch::Sender::new(NodeState::Standby),
            health: Health::new(),
            spawns,
            spawns_asked: Mutex::new(Some(spawns_asked)),
            drain: watch::Sender::new(Duration::MAX),
            drain_times: Mutex::default(),
            recover: Mutex::default(),
            has_failed: AtomicBool::new(false),
        }))
    }

    /// Sets what a node does when it spawns, before its data listeners are opened: in the state recovering. It is
    /// called for each spawn until one has succeeded.
    pub fn recover_by(&self, recover: impl Fn() -> Recovering + Send + Sync + 'static) {
        *self.0.recover.lock() = Some(Recover(Arc::new(recover)));
    }

    /// Recovers.
    pub(crate) async fn recover(&self) -> Result<(), SpawnError> {
        let recover = self.0.recover.lock().clone();
        match recover {
            Some(Recover(recover)) => recover().await.map_err(SpawnError::Recover),
            None => Ok(()),
        }
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> NodeState {
        *self.0.state.borrow()
    }

    /// The state and its changes. A stream that lives as long as its client likes ends when this says
    /// [`NodeState::Draining`], or it holds the drain up to its deadline.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<NodeState> {
        self.0.state.subscribe()
    }

    /// The statuses that the health services answer.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.health.clone()
    }

    /// Makes a node in standby recover, open its data listeners and serve; answers with their addresses when
    /// that is done. On a node that serves already, answers the same at once. What was begun goes on when the
    /// caller stops waiting.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Listen`]: the node stands by as before. [`SpawnError::Leaving`]: it drains or has stopped.
    pub async fn spawn(&self) -> Result<Vec<Endpoint>, SpawnError> {
        let (answer, answered) = oneshot::channel();
        let leaving = || SpawnError::Leaving { state: self.state().max(NodeState::Draining) };
        self.0.spawns.send(answer).await.map_err(|_| leaving())?;
        answered.await.map_err(|_| leaving())?
    }

    /// Makes the node drain, within `deadline` (`None`: as configured), and answers with the state at once. From
    /// here on health says NOT_SERVING. A second call can shorten the deadline, not lengthen it.
    pub fn drain(&self, deadline: Option<Duration>) -> NodeState {
        let deadline = deadline.unwrap_or(self.drain_times().deadline);
        self.0.drain.send_modify(|asked| *asked = deadline.min(*asked));
        // Refused where it drains already or has stopped: then this asked for nothing new.
        let _ = self.advance(NodeState::Draining);
        self.state()
    }

    /// Says that a part has ended which the node cannot do without: a listener, a thread. The node drains, as half a node
    /// serves nobody, and [`Server::stopped`](super::Server::stopped) says [`Stop::Failed`](super::Stop::Failed), so
    /// that it is started anew. From here on health says NOT_SERVING.
    pub fn fail(&self, part: &str) {
        error!(part, "a part of the node has ended that it cannot do without: draining, then exit status 3");
        self.0.has_failed.store(true, Ordering::SeqCst);
        self.drain(None);
    }

    /// Runs such a part to its end on this thread, and says so if it panics.
    pub fn run_part(&self, part: &str, run: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            self.fail(part);
        }
    }

    /// The same of a part that is a task.
    #[cfg(feature = "testing")]
    pub(crate) async fn run_task(&self, part: &str, run: impl Future<Output = ()>) {
        if AssertUnwindSafe(run).catch_unwind().await.is_err() {
            self.fail(part);
        }
    }

    /// Whether a part has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.has_failed.load(Ordering::SeqCst)
    }

    /// How long the parts of a drain take where nobody says otherwise.
    #[must_use]
    pub fn drain_times(&self) -> DrainTimes {
        *self.0.drain_times.lock()
    }

    /// Sets that for a drain that has yet to begin.
    pub fn set_drain_times(&self, times: DrainTimes) {
        *self.0.drain_times.lock() = times;
    }

    /// Waits until the node has stopped. Its admin and health listeners close after that: the process may exit
    /// when [`Server::stopped`](super::Server::stopped) says so.
    pub async fn stopped(&self) {
        // Refused only when every handle is gone, and this is one.
        let _ = self.subscribe().wait_for(|state| *state == NodeState::Stopped).await;
    }

    /// Goes to `next`, or says in which state it is that does not allow that.
    pub(crate) fn advance(&self, next: NodeState) -> Result<(), NodeState> {
        let mut refused = Ok(());
        self.0.state.send_if_modified(|state| {
            if !state.may_become(next) {
                refused = Err(*state);
                return false;
            }
            // Under the state's lock, so that two changes at once leave the statuses of the later one.
            self.0.health.follow(next);
            info!(from = %*state, to = %next, "node state");
            *state = next;
            true
        });
        refused
    }

    /// What the node is asked for; `None` when another node has it already.
    pub(crate) fn take_requests(&self, drain: DrainTimes) -> Option<LifecycleRequests> {
        let spawns = self.0.spawns_asked.lock().take()?;
        self.set_drain_times(drain);
        Some(LifecycleRequests { spawns, drain: self.0.drain.subscribe() })
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Inner {
    state: watch::Sender<NodeState>,
    health: Health,
    spawns: mpsc::Sender<SpawnAnswer>,
    spawns_asked: Mutex<Option<mpsc::Receiver<SpawnAnswer>>>,
    /// The shortest deadline that was asked for; the longest of all while nobody asked.
    drain: watch::Sender<Duration>,
    drain_times: Mutex<DrainTimes>,
    recover: Mutex<Option<Recover>>,
    has_failed: AtomicBool,
}

/// A recovery under way; why it failed, for people.
pub type Recovering = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

#[derive(Clone)]
struct Recover(Arc<dyn Fn() -> Recovering + Send + Sync>);

impl fmt::Debug for Recover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recover")
    }
}

/// How long the parts of a drain take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainTimes {
    /// How long the node goes on as before.
    pub lame_duck: Duration,
    /// After how long it cuts what still runs, the lame duck included.
    pub deadline: Duration,
}

impl Default for DrainTimes {
    fn default() -> Self {
        Self { lame_duck: Duration::ZERO, deadline: DRAIN_DEADLINE_DEFAULT }
    }
}

/// Where the answer to one call of spawn goes.
pub(crate) type SpawnAnswer = oneshot::Sender<Result<Vec<Endpoint>, SpawnError>>;

/// A node's end of its [`Lifecycle`].
pub(crate) struct LifecycleRequests {
    pub(crate) spawns: mpsc::Receiver<SpawnAnswer>,
    pub(crate) drain: watch::Receiver<Duration>,
}

/// How long a drain may take where nobody says.
pub(crate) const DRAIN_DEADLINE_DEFAULT: Duration = Duration::from_secs(8);

/// Callers of spawn beyond these wait for their place in the queue.
const SPAWNS_WAITING_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use NodeState::{Draining, Recovering, Serving, Standby, Stopped};

    use super::*;

    const STATES: [NodeState; 5] = [Standby, Recovering, Serving, Draining, Stopped];

    #[test]
    fn only_the_arrows_of_the_picture_are_legal() {
        let legal: Vec<_> = STATES
            .iter()
            .flat_map(|from| STATES.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from.may_become(*to))
            .collect();
        let expected = [
            (Standby, Recovering),
            (Standby, Draining),
            (Recovering, Standby),
            (Recovering, Serving),
            (Recovering, Draining),
            (Serving, Draining),
            (Draining, Stopped),
        ];
        assert_eq!(legal, expected);
    }

    #[test]
    fn an_illegal_step_changes_nothing_and_names_the_state() {
        let life = Lifecycle::new();
        let mut watched = life.subscribe();
        assert_eq!(life.advance(Serving), Err(Standby));
        assert_eq!(life.advance(Stopped), Err(Standby));
        assert_eq!(life.state(), Standby);
        assert!(!watched.has_changed().unwrap());
        life.advance(Recovering).unwrap();
        assert_eq!(*watched.borrow_and_update(), Recovering);
    }

    #[test]
    fn a_drain_can_be_shortened_and_not_lengthened() {
        let life = Lifecycle::new();
        let times = |deadline| DrainTimes { deadline, ..DrainTimes::default() };
        let requests = life.take_requests(times(Duration::from_secs(9))).unwrap();
        life.set_drain_times(times(Duration::from_secs(3)));
        assert_eq!(life.drain(None), Draining);
        assert_eq!(*requests.drain.borrow(), Duration::from_secs(3));
        life.drain(Some(Duration::from_secs(1)));
        life.drain(Some(Duration::from_secs(9)));
        assert_eq!(*requests.drain.borrow(), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_life_without_its_node_cannot_be_spawned() {
        let life = Lifecycle::new();
        drop(life.take_requests(DrainTimes::default()).unwrap());
        assert!(life.take_requests(DrainTimes::default()).is_none());
        assert!(matches!(life.spawn().await, Err(SpawnError::Leaving { .. })));
    }
}
