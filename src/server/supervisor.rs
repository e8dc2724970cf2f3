//! The course of a node's life: what its [`Lifecycle`] is asked for is done here, one thing after the other, on
//! a thread of its own.
//!
//! A drain, from its beginning (health has said NOT_SERVING before this hears of it):
//!
//! 1. lame duck: a pause in which everything is still answered, while clients learn to go elsewhere;
//! 2. data listeners close; their connections get GOAWAY and end with their last call, Watch streams at once;
//! 3. at the deadline, what is left of them is cut;
//! 4. the state is stopped; health streams end; admin, health and HTTP get a moment to tell so, and end.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};
use tracing::{info, warn};

use super::accept::Listening;
use super::connection::{ConnectionService, LiveConnectionConfig};
use super::connections::Connections;
use super::health::Mount;
use super::lifecycle::{Lifecycle, LifecycleRequests, NodeState, SpawnError};
use super::listen::{Bound, bind};
use super::listener::{Role, Serving, serve_grpc_on};
use super::platform::Platform;
use super::serve::Stop;
use super::signals::{Signals, obey};
use crate::endpoint::Endpoint;

/// A node's listeners and the commands that it was given for them.
pub(crate) struct Supervisor<D> {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) requests: LifecycleRequests,
    pub(crate) data: DataPlane<D>,
    /// Admin, health and HTTP, which outlive the data listeners.
    pub(crate) control: Vec<Listening>,
    pub(crate) signals: Option<Signals>,
    pub(crate) stopped: watch::Sender<Option<Stop>>,
}

/// What opens the data listeners.
pub(crate) struct DataPlane<D> {
    pub(crate) runtime: Handle,
    pub(crate) platform: Platform,
    pub(crate) addresses: Vec<Endpoint>,
    pub(crate) service: D,
    pub(crate) connections: Connections,
    pub(crate) config: LiveConnectionConfig,
    /// The addresses that were bound, once they are.
    pub(crate) bound: Arc<OnceLock<Vec<Endpoint>>>,
}

impl<D: ConnectionService> Supervisor<D> {
    /// Runs until the node has stopped.
    pub(crate) async fn run(mut self) {
        let signals = self.signals.take();
        let (lifecycle, stopped) = (self.lifecycle.clone(), self.stopped.clone());
        let stop = tokio::select! {
            () = self.live() => if lifecycle.has_failed() { Stop::Failed } else { Stop::Drained },
            () = obey(signals, lifecycle.clone()) => Stop::Forced,
        };
        stopped.send_replace(Some(stop));
    }

    async fn live(mut self) {
        let mut data = Vec::new();
        self.serve(&mut data).await;
        // Those that still wait for spawn learn that there will be none.
        self.requests.spawns.close();
        while self.requests.spawns.try_recv().is_ok() {}
        self.drain(data).await;
    }

    /// Answers calls of spawn until the node is to drain.
    async fn serve(&mut self, data: &mut Vec<Listening>) {
        let mut state = self.lifecycle.subscribe();
        loop {
            let answer = tokio::select! {
                biased;
                _ = state.wait_for(|state| *state >= NodeState::Draining) => return,
                Some(answer) = self.requests.spawns.recv() => answer,
            };
            let spawned = tokio::select! {
                biased;
                _ = state.wait_for(|state| *state >= NodeState::Draining) => return,
                spawned = self.spawn(data) => spawned,
            };
            // The caller may have gone: the command is done all the same.
            let _ = answer.send(spawned);
        }
    }

    async fn spawn(&self, data: &mut Vec<Listening>) -> Result<Vec<Endpoint>, SpawnError> {
        if let Some(addresses) = self.data.bound.get() {
            return Ok(addresses.clone());
        }
        let leaving = |state| SpawnError::Leaving { state };
        self.lifecycle.advance(NodeState::Recovering).map_err(leaving)?;
        let recovered = self.lifecycle.recover().await;
        let bound = match recovered {
            Ok(()) => self.data.bind().await.map_err(SpawnError::from),
            Err(error) => Err(error),
        };
        let bound = match bound {
            Ok(bound) => bound,
            Err(error) => {
                // Refused when a drain came meanwhile, and then that goes on.
                let _ = self.lifecycle.advance(NodeState::Standby);
                return Err(error);
            }
        };
        let addresses: Vec<Endpoint> = bound.iter().map(|bound| bound.address.clone()).collect();
        // Calls wait in the kernel's queue until the node says that it serves.
        self.lifecycle.advance(NodeState::Serving).map_err(leaving)?;
        data.extend(bound.into_iter().map(|bound| self.data.serve(bound, &self.lifecycle)));
        Ok(self.data.bound.get_or_init(|| addresses).clone())
    }

    async fn drain(self, data: Vec<Listening>) {
        let mut deadline = Deadline::new(self.requests.drain);
        if !data.is_empty() {
            tokio::select! {
                () = sleep(self.lifecycle.drain_times().lame_duck) => {}
                () = deadline.passed() => {}
            }
            self.lifecycle.health().end_watches(Mount::Data);
            data.iter().for_each(Listening::finish);
            tokio::select! {
                () = ended(&data) => info!("every data connection has ended"),
                () = deadline.passed() => {
                    let connections = self.data.connections.open();
                    warn!(connections, "drain deadline passed: cutting what is left");
                    data.iter().for_each(Listening::cut);
                    // Workers that are stuck notice nothing; the process must end all the same.
                    let _ = timeout(CUT_MAX, ended(&data)).await;
                }
            }
        }
        if let Err(state) = self.lifecycle.advance(NodeState::Stopped) {
            warn!(%state, "a drained node is not stopped");
        }
        self.lifecycle.health().end_watches(Mount::Control);
        self.control.iter().for_each(Listening::finish);
        let _ = timeout(FAREWELL_MAX, ended(&self.control)).await;
    }
}

impl<D: ConnectionService> DataPlane<D> {
    /// Opens all listeners, or none.
    async fn bind(&self) -> Result<Vec<Bound>, super::ListenError> {
        let mut bound = Vec::with_capacity(self.addresses.len());
        for address in &self.addresses {
            bound.push(bind(&self.platform, address, &self.runtime).await?);
        }
        Ok(bound)
    }

    fn serve(&self, bound: Bound, lifecycle: &Lifecycle) -> Listening {
        let (runtime, connections, config) = (&self.runtime, self.connections.clone(), &self.config);
        let serving = Serving { runtime, connections, config, lifecycle };
        serve_grpc_on(Role::Data, bound, self.service.clone(), serving)
    }
}

/// The time that a drain has left. It can become shorter while it runs.
struct Deadline {
    asked: watch::Receiver<Duration>,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(mut asked: watch::Receiver<Duration>) -> Self {
        let within = *asked.borrow_and_update();
        Self { asked, timer: Box::pin(sleep(within)) }
    }

    async fn passed(&mut self) {
        loop {
            tokio::select! {
                () = &mut self.timer => return,
                Ok(()) = self.asked.changed() => {
                    let sooner = sleep(*self.asked.borrow_and_update());
                    if sooner.deadline() < self.timer.deadline() {
                        self.timer.set(sooner);
                    }
                }
            }
        }
    }
}

async fn ended(listening: &[Listening]) {
    join_all(listening.iter().map(Listening::ended)).await;
}

/// How long connections that were cut may take to notice.
const CUT_MAX: Duration = Duration::from_millis(200);

/// How long admin, health and HTTP connections may take to end when the node has stopped: the answer to Drain
/// and the last NOT_SERVING are on their way.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_shortened_passes_sooner_and_never_later() {
        let (asked, told) = watch::channel(Duration::from_secs(8));
        let mut deadline = Deadline::new(told);
        let began = sleep(Duration::ZERO).deadline();
        let shorten = async {
            sleep(Duration::from_secs(2)).await;
            asked.send_replace(Duration::from_secs(1));
            sleep(Duration::from_millis(500)).await;
            // From now on that would be later than what was granted.
            asked.send_replace(Duration::from_millis(900));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = deadline.passed() => {}
            () = shorten => {}
        }
        assert_eq!((sleep(Duration::ZERO).deadline() - began).as_millis(), 3_000);
    }
}
