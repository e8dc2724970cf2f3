//! The accept loop: accepts connections until it is stopped, and never spins.
//!
//! It owns a listening socket and a spare file descriptor. When the process runs out of descriptors, accepting fails
//! for as long as the kernel holds a connection to accept; the loop then closes the spare one, accepts what waits with
//! it and hangs up, so that those clients learn at once instead of waiting, and pauses. Each connection runs as a task
//! of its own, in which what serves it is made as well, so that a panic there ends that connection alone; the caller
//! says what is done with it. If the loop itself panics, its owner gets the panic.

use std::fs::File;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::connections::Connections;
use super::listen::Accept;
use super::phase::{Phase, PhaseSignal};
use crate::clock::Throttle;
use crate::endpoint::{Endpoint, PeerInfo};
use crate::shortage;

/// The handle of a listener that accepts. Dropping it cuts the listener and its connections.
#[derive(Debug)]
pub(crate) struct Listening {
    address: Endpoint,
    phase: watch::Sender<Phase>,
}

impl Listening {
    /// Accepts from `incoming` on `runtime` and hands each connection to `serve`. `lost` is called if that ends before it
    /// is to.
    pub(crate) fn start<A, F, S>(
        runtime: &Handle,
        address: Endpoint,
        incoming: A,
        connections: Connections,
        serve: S,
        lost: impl FnOnce() + Send + 'static,
    ) -> Self
    where
        A: Accept,
        F: Future<Output = ()> + Send + 'static,
        S: Fn(A::Socket, PeerInfo, PhaseSignal) -> F + Send + Sync + 'static,
    {
        let (phase, told) = watch::channel(Phase::Open);
        let accepting = AcceptLoop {
            address: address.clone(),
            incoming,
            connections,
            serve: Arc::new(serve),
            phase: told,
            spare: spare_descriptor(),
            pause: None,
            full: Throttle::new(),
            failing: Throttle::new(),
            recovered: Throttle::new(),
        };
        runtime.spawn(async move {
            if AssertUnwindSafe(accepting.run()).catch_unwind().await.is_err() {
                lost();
            }
        });
        Self { address, phase }
    }

    pub(crate) fn address(&self) -> &Endpoint {
        &self.address
    }

    /// Stops accepting, closes the listening socket, and asks each connection to end when its calls have.
    pub(crate) fn finish(&self) {
        self.advance(Phase::Finishing);
    }

    /// Ends everything now.
    pub(crate) fn cut(&self) {
        self.advance(Phase::Cut);
    }

    /// Waits until the listening socket is closed and every connection has ended.
    pub(crate) async fn ended(&self) {
        self.phase.closed().await;
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase < to;
            *phase = to.max(*phase);
            later
        });
    }
}

struct AcceptLoop<A, S> {
    address: Endpoint,
    incoming: A,
    connections: Connections,
    serve: Arc<S>,
    phase: watch::Receiver<Phase>,
    spare: Option<File>,
    /// How long the last failure made it wait; `None` while accepting works.
    pause: Option<Duration>,
    /// Hold what is logged of the limit, of failures and of their end.
    full: Throttle,
    failing: Throttle,
    recovered: Throttle,
}

impl<A, F, S> AcceptLoop<A, S>
where
    A: Accept,
    F: Future<Output = ()> + Send + 'static,
    S: Fn(A::Socket, PeerInfo, PhaseSignal) -> F + Send + Sync + 'static,
{
    async fn run(mut self) {
        let mut stop = PhaseSignal::new(self.phase.clone());
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.left_open() => break,
                accepted = self.incoming.accept() => accepted,
            };
            let pause = match accepted {
                Ok((socket, peer)) => {
                    self.recovered();
                    self.take_in(socket, peer);
                    continue;
                }
                Err(error) if concerns_one_connection(&error) => {
                    debug!(address = %self.address, %error, "a connection was gone before it was accepted");
                    continue;
                }
                Err(error) => self.back_off(&error),
            };
            tokio::select! {
                _ = stop.left_open() => break,
                () = sleep(pause) => {}
            }
        }
    }

    fn take_in(&mut self, socket: A::Socket, peer: PeerInfo) {
        let Some(permit) = self.connections.enter() else {
            self.connections.count_refused(1);
            let (address, limit) = (&self.address, self.connections.limit());
            self.full.say(|left_out| {
                warn!(%address, limit, left_out, "connection limit reached: closing new connections at once");
            });
            return;
        };
        let (serve, phase) = (Arc::clone(&self.serve), PhaseSignal::new(self.phase.clone()));
        tokio::spawn(async move {
            serve(socket, peer, phase).await;
            drop(permit);
        });
    }

    fn back_off(&mut self, error: &io::Error) -> Duration {
        let refused = if shortage::lacks_descriptors(error) { self.refuse_waiting() } else { 0 };
        self.connections.count_refused(refused);
        if self.pause.is_none() {
            let address = &self.address;
            self.failing.say(|left_out| {
                warn!(%address, %error, refused, left_out, "cannot accept connections: trying again until it works");
            });
        }
        let pause = self.pause.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX));
        self.pause = Some(pause);
        pause
    }

    /// Hangs up on connections that wait to be accepted, with the spare descriptor; says on how many.
    fn refuse_waiting(&mut self) -> u64 {
        let mut refused = 0;
        if self.spare.take().is_some() {
            while refused < REFUSED_AT_ONCE_MAX
                && let Some(Ok(connection)) = self.incoming.accept().now_or_never()
            {
                drop(connection);
                refused += 1;
            }
        }
        self.spare = spare_descriptor();
        refused
    }

    fn recovered(&mut self) {
        if self.pause.take().is_some() {
            let address = &self.address;
            self.recovered.say(|left_out| info!(%address, left_out, "accepting connections again"));
        }
        if self.spare.is_none() {
            self.spare = spare_descriptor();
        }
    }
}

fn spare_descriptor() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether an error of accept speaks of the connection that was to be accepted and not of this process.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps the loop from hanging up for ever when clients come as fast as they are refused.
const REFUSED_AT_ONCE_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use parking_lot::Mutex;
    use tokio::io::DuplexStream;
    use tokio::sync::{mpsc, oneshot};
    use tokio::time::Instant;

    use super::*;
    use crate::clock::monotonic;
    use crate::endpoint::PeerAddress;

    /// Accepts what the script gives, then waits for ever; panics at [`PANIC`].
    struct Scripted(Arc<Mutex<VecDeque<io::Result<()>>>>);

    impl Accept for Scripted {
        type Socket = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, PeerInfo)> {
            let next = self.0.lock().pop_front();
            match next {
                Some(Ok(())) => {
                    Ok((tokio::io::duplex(64).0, PeerInfo { address: PeerAddress::Unix, identity: None }))
                }
                Some(Err(error)) if error.kind() == PANIC => panic!("as the script says"),
                Some(Err(error)) => Err(error),
                None => std::future::pending().await,
            }
        }
    }

    /// The error at which a script panics.
    const PANIC: ErrorKind = ErrorKind::Deadlock;

    struct Run {
        listening: Listening,
        connections: Connections,
        taken: mpsc::UnboundedReceiver<Instant>,
        began: Instant,
        /// Answered when the loop is lost.
        lost: oneshot::Receiver<()>,
    }

    fn run(limit: usize, script: impl IntoIterator<Item = io::Result<()>>) -> Run {
        let incoming = Scripted(Arc::new(Mutex::new(script.into_iter().collect())));
        let connections = Connections::new(limit);
        let (sender, taken) = mpsc::unbounded_channel();
        let began = now();
        let serve = move |socket: DuplexStream, _, mut phase: PhaseSignal| {
            let sender = sender.clone();
            async move {
                sender.send(now()).unwrap();
                phase.left_open().await;
                drop(socket);
            }
        };
        let (lose, lost) = oneshot::channel();
        let listening = Listening::start(
            &Handle::current(),
            Endpoint::tcp("test", 0),
            incoming,
            connections.clone(),
            serve,
            || lose.send(()).unwrap(),
        );
        Run { listening, connections, taken, began, lost }
    }

    fn now() -> Instant {
        monotonic().into()
    }

    fn out_of_descriptors() -> io::Result<()> {
        Err(rustix::io::Errno::MFILE.into())
    }

    #[tokio::test(start_paused = true)]
    async fn lack_of_descriptors_pauses_and_hangs_up_on_those_that_wait() {
        // Two wait when the first error comes; the third comes when there are descriptors again.
        let script = [
            out_of_descriptors(),
            Ok(()),
            Ok(()),
            out_of_descriptors(),
            out_of_descriptors(),
            out_of_descriptors(),
            Ok(()),
        ];
        let mut run = run(10, script);
        let accepted = run.taken.recv().await.unwrap();
        assert_eq!(run.connections.refused(), 2);
        // Each failure after a pause ends one turn: 50 ms, then 100 ms, each with a try of the spare descriptor.
        assert_eq!((accepted - run.began).as_millis(), 150);
        assert_eq!(run.connections.open(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_lasts_is_tried_once_a_second() {
        let broken = || Err(io::Error::other("broken"));
        let mut run = run(10, (0..10).map(|_| broken()).chain([Ok(())]));
        let accepted = run.taken.recv().await.unwrap();
        assert_eq!((accepted - run.began).as_millis(), 50 + 100 + 200 + 400 + 800 + 5 * 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_died_in_the_queue_costs_no_pause() {
        let mut run = run(10, [Err(ErrorKind::ConnectionAborted.into()), Ok(())]);
        assert_eq!(run.taken.recv().await.unwrap(), run.began);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_over_the_limit_are_closed_and_counted() {
        let mut run = run(2, [Ok(()), Ok(()), Ok(()), Ok(()), Ok(())]);
        run.taken.recv().await.unwrap();
        run.taken.recv().await.unwrap();
        while run.connections.refused() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!((run.connections.open(), run.connections.accepted()), (2, 2));
        run.listening.finish();
        run.listening.ended().await;
        assert_eq!(run.connections.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_told_and_one_that_is_ended_is_not() {
        let mut run_lost = run(10, [Ok(()), Err(PANIC.into())]);
        run_lost.taken.recv().await.unwrap();
        run_lost.lost.await.unwrap();
        // What it had accepted goes on.
        assert_eq!(run_lost.connections.open(), 1);

        let ended = run(10, [Ok(())]);
        ended.listening.finish();
        ended.listening.ended().await;
        assert!(ended.lost.await.is_err(), "dropped, not called");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_what_serves_a_connection_ends_that_one_alone() {
        let incoming = Scripted(Arc::new(Mutex::new([Ok(()), Ok(()), Ok(())].into())));
        let connections = Connections::new(10);
        let (sender, mut taken) = mpsc::unbounded_channel();
        let serve = move |_: DuplexStream, _: PeerInfo, _: PhaseSignal| -> std::future::Ready<()> {
            sender.send(()).unwrap();
            panic!("before there is a future");
        };
        let (address, lost) = (Endpoint::tcp("test", 0), || unreachable!("the loop goes on"));
        let listening =
            Listening::start(&Handle::current(), address, incoming, connections.clone(), serve, lost);
        for _ in 0..3 {
            taken.recv().await.unwrap();
        }
        listening.finish();
        listening.ended().await;
        assert_eq!((connections.open(), connections.accepted()), (0, 3));
    }
}
