//! A lane's task: it makes the connection, again and again, and moves batches and replies while there is one.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::Sleep;
use tonic_types::StatusExt;

use super::fault::{Fault, FaultKind};
use super::stream::PipelineStream;
use super::{LaneConfig, LaneEvents, Shared, Standing};
use crate::client::backoff::Backoff;
use crate::client::codec;
use crate::client::of_process::OfProcess;
use crate::clock::monotonic;

/// How long calls wait for a connection in place of one that was closed, before the node counts as out.
const RECONNECT_PATIENCE: Duration = Duration::from_millis(100);
/// How many replies are handed out at a time: a quarter of those that are due, within these bounds.
const REPLIES_MIN: usize = 16;
const REPLIES_MAX: usize = 64;
/// A lane with this number of calls under way lets another gather.
const LANE_CALLS: usize = 1_024;
/// A stream that was open this long was well, and so was one that has answered something.
const WELL_AFTER: Duration = Duration::from_secs(1);

pub(super) fn spawn(shared: Arc<Shared>, config: LaneConfig, events: Arc<dyn LaneEvents>) {
    let ending = EndOnDrop(shared.clone());
    tokio::spawn(async move {
        let driver = Driver { shared, config, events, backoff: Backoff::default() };
        driver.run().await;
        drop(ending);
    });
}

/// Fails what is left when the task ends, also where its runtime is dropped under it.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let fault = Fault::new(FaultKind::Ended, "the client's runtime has ended, or the client was dropped");
        // In a fork nothing waits, and the lock may be held for ever.
        if self.0.built_in.is_current() {
            self.0.out(&Arc::new(fault), true);
        }
    }
}

impl Shared {
    /// There is no connection: calls fail, those that were sent as well where `broke`.
    fn out(&self, fault: &Arc<Fault>, broke: bool) {
        self.change(|state, woken| {
            if broke {
                state.broke(fault, woken);
            }
            state.fail_unsent(fault, woken);
            state.standing = Standing::Out(fault.clone());
            state.choice.set_open(self.number, false);
        });
    }

    fn broke(&self, fault: &Arc<Fault>) {
        self.change(|state, woken| {
            state.broke(fault, woken);
            state.condemned = None;
            state.standing = Standing::Connecting;
            state.choice.set_open(self.number, false);
        });
    }

    fn expire(&self) -> Option<Instant> {
        self.change(|state, woken| {
            if state.next_deadline.is_some() {
                state.expire(monotonic(), woken);
            }
            state.next_deadline
        })
    }

    /// Keeps a limit that the node has stated when it ended the stream. What was sent goes out again, in messages that it
    /// takes: for the calls the connection was closed, no more.
    fn learn(&self, fault: Fault) -> Fault {
        let Some(status) = &fault.status else { return fault };
        let details = status.get_error_details();
        let Some(info) = details.error_info() else { return fault };
        let mut state = self.lock();
        let limit = match info.reason.as_str() {
            "BATCH_TOO_LONG" => &mut state.commands_max,
            "MESSAGE_TOO_LARGE" => &mut state.message_bytes_max,
            _ => return fault,
        };
        let stated = info.metadata.get("limit").and_then(|limit| limit.parse().ok());
        *limit = stated.filter(|stated| *stated < *limit).unwrap_or(*limit / 2).max(1);
        Fault::new(FaultKind::Closed, fault.problem)
    }
}

struct Driver {
    shared: Arc<Shared>,
    config: LaneConfig,
    events: Arc<dyn LaneEvents>,
    backoff: Backoff,
}

impl Driver {
    async fn run(mut self) {
        if !self.used().await {
            return;
        }
        // Until when calls wait for the connection that is being made; none: they fail meanwhile.
        let mut wait_until = Some(monotonic() + self.config.connect_timeout);
        loop {
            let (fault, rest) = match self.connect(wait_until).await {
                None => return,
                Some(Err(fault)) => (fault, self.backoff.next()),
                Some(Ok(stream)) => {
                    let Some(fault) = self.drive_to_its_end(stream).await else { return };
                    wait_until = Some(monotonic() + RECONNECT_PATIENCE);
                    // The first attempt is made at once.
                    let rest = if self.backoff.is_fresh() { Duration::ZERO } else { self.backoff.next() };
                    (fault, rest)
                }
            };
            // For a connection in place of one that was closed calls wait a little; a node that hangs, refuses or is not
            // there is out.
            let may_wait = |until: Instant| fault.kind == FaultKind::Closed && monotonic() + rest < until;
            if !wait_until.is_some_and(may_wait) {
                self.out(Arc::new(fault));
                wait_until = None;
            }
            if rest.is_zero() {
                self.backoff.next();
            } else if self.unless_closing(tokio::time::sleep(rest)).await.is_none() {
                return;
            }
        }
    }

    /// Moves what there is to move until the stream ends, and says why. None: the client is gone, or this is a fork of its
    /// process.
    async fn drive_to_its_end(&mut self, stream: PipelineStream) -> Option<Fault> {
        let (opened, answered_before) = (monotonic(), self.shared.lock().counts.replies);
        let mut stream = OfProcess::new(stream);
        self.open();
        let fault = self.shared.learn(self.drive(stream.get_mut().ok()?).await?);
        drop(stream);
        self.shared.broke(&Arc::new(fault.clone()));
        let answered = self.shared.lock().counts.replies - answered_before;
        if answered > 0 || monotonic().saturating_duration_since(opened) >= WELL_AFTER {
            self.backoff = Backoff::default();
        }
        Some(fault)
    }

    /// Waits for the first call. False: there will be none.
    async fn used(&self) -> bool {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            if state.is_closing {
                return Poll::Ready(false);
            }
            if !matches!(state.standing, Standing::Unused) {
                return Poll::Ready(true);
            }
            state.driver = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn out(&self, fault: Arc<Fault>) {
        self.shared.out(&fault, false);
        self.events.out(&fault);
    }

    fn open(&self) {
        {
            let mut state = self.shared.lock();
            state.standing = Standing::Open;
            state.counts.opened += 1;
            state.choice.set_open(self.shared.number, true);
        }
        self.events.opened();
    }

    /// Makes a connection; calls that wait for it do so until then at most. None: the client is gone.
    async fn connect(&self, wait_until: Option<Instant>) -> Option<Result<PipelineStream, Fault>> {
        let within = self.config.connect_timeout;
        let opening = tokio::time::timeout(within, PipelineStream::open(&self.config));
        let connecting = async {
            tokio::pin!(opening);
            if let Some(until) = wait_until.map(tokio::time::Instant::from_std) {
                match tokio::time::timeout_at(until, &mut opening).await {
                    Ok(done) => return done,
                    Err(_elapsed) => self.out(Arc::new(not_in_time())),
                }
            }
            opening.await
        };
        let done = self.unless_closing(connecting).await?;
        Some(done.unwrap_or_else(|_elapsed| Err(not_in_time())))
    }

    /// Awaits something, while calls that wait keep their deadlines. None: the client is gone, or this is a fork of its process.
    async fn unless_closing<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        // A socket in it is the parent's too, and would be taken from it where it is dropped.
        let mut what = OfProcess::new(Box::pin(what));
        let mut timer = Timer::default();
        poll_fn(|cx| {
            let Ok(what) = what.get_mut() else { return Poll::Ready(None) };
            if let Poll::Ready(done) = what.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            loop {
                let next = self.shared.expire();
                {
                    let mut state = self.shared.lock();
                    if state.is_closing {
                        return Poll::Ready(None);
                    }
                    state.driver = Some(cx.waker().clone());
                }
                if timer.poll(next, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Moves batches and replies until the stream ends, and says why. None: the client is gone, or this is a fork of its
    /// process, which leaves the connection alone.
    async fn drive(&self, stream: &mut PipelineStream) -> Option<Fault> {
        let mut turn = Turn {
            shared: &self.shared,
            config: &self.config,
            stream,
            timer: Timer::default(),
            quiet_since: monotonic(),
            pinged_at: None,
            woken: Vec::new(),
            messages: VecDeque::new(),
        };
        poll_fn(|cx| turn.poll(cx)).await
    }
}

fn not_in_time() -> Fault {
    Fault::new(FaultKind::Unreachable, "no connection in time")
}

/// A stream that is open, and what is known of it.
struct Turn<'a> {
    shared: &'a Shared,
    config: &'a LaneConfig,
    stream: &'a mut PipelineStream,
    timer: Timer,
    /// Since when the node has been silent, or nothing was due from it.
    quiet_since: Instant,
    /// When it was asked for a sign of life that it has not given.
    pinged_at: Option<Instant>,
    woken: Vec<Waker>,
    /// Messages whose replies are not all handed out.
    messages: VecDeque<Bytes>,
}

/// What a turn found in the lane's state.
struct Found {
    next_deadline: Option<Instant>,
    is_due: bool,
    has_batch: bool,
}

impl Turn<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Fault>> {
        if !self.shared.built_in.is_current() {
            return Poll::Ready(None);
        }
        loop {
            let mut has_sent = false;
            match self.stream.poll_idle(cx) {
                Poll::Ready(Ok(())) => has_sent = self.send_batch(),
                Poll::Ready(Err(fault)) => return self.over(fault),
                Poll::Pending => {}
            }
            if has_sent && let Poll::Ready(Err(fault)) = self.stream.poll_idle(cx) {
                return self.over(fault);
            }
            let connection = self.stream.poll_connection(cx);
            if let Err(fault) = self.read(cx) {
                return self.over(fault);
            }
            if let Poll::Ready(fault) = connection {
                return self.over(fault);
            }
            if !self.messages.is_empty() {
                if let Err(fault) = self.answer() {
                    return self.over(fault);
                }
                // Those who have their answers go on first, so that what they ask next is on its way while the rest of the
                // answers is handed out: the client and the node then work at the same time.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.rest(cx) {
                Ok(true) => return Poll::Pending,
                Ok(false) => {}
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    /// The stream ends; what has come of it before is still handed out.
    fn over(&mut self, fault: Fault) -> Poll<Option<Fault>> {
        while !self.messages.is_empty() && self.answer().is_ok() {}
        Poll::Ready(Some(fault))
    }

    /// Reads messages that are here.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        while let Poll::Ready(read) = self.stream.poll_messages(cx, &mut self.messages) {
            (self.quiet_since, self.pinged_at) = (monotonic(), None);
            read?;
        }
        Ok(())
    }

    /// Hands out some of the replies that are here.
    fn answer(&mut self) -> Result<(), Fault> {
        let read = {
            let mut state = self.shared.lock();
            // Where answers come all the time nothing else looks at the deadlines of those that do not.
            state.expire(self.quiet_since, &mut self.woken);
            let mut left = (state.outstanding / 4).clamp(REPLIES_MIN, REPLIES_MAX);
            loop {
                let Some(message) = self.messages.front_mut().filter(|_| left > 0) else { break Ok(()) };
                match state.answer(message, &mut left, &mut self.woken) {
                    Ok(()) if message.is_empty() => drop(self.messages.pop_front()),
                    Ok(()) => {}
                    Err(codec::Unreadable) => {
                        break Err(Fault::new(FaultKind::Protocol, "replies that cannot be read"));
                    }
                }
            }
        };
        self.woken.drain(..).for_each(Waker::wake);
        read
    }

    /// Sends what has gathered; whether there was something.
    fn send_batch(&mut self) -> bool {
        let (batch, _part) = {
            let mut state = self.shared.lock();
            if state.batch.is_empty() {
                return false;
            }
            let was_due = state.outstanding > 0;
            let batch = state.take_batch();
            let part = state.end_span(batch.len());
            state.grant(&mut self.woken);
            if !was_due {
                self.quiet_since = monotonic();
            }
            if state.outstanding >= LANE_CALLS {
                state.choice.pass_on(self.shared.number);
            }
            (batch, part)
        };
        self.woken.drain(..).for_each(Waker::wake);
        let has_some = !batch.is_empty();
        self.stream.send(batch);
        has_some
    }

    /// Goes to sleep until something happens: Ok(true). Ok(false): something has. Err: the stream is to end.
    fn rest(&mut self, cx: &mut Context<'_>) -> Result<bool, Option<Fault>> {
        let found = self.look(cx)?;
        let now = monotonic();
        if self.pinged_at.is_some() && self.stream.poll_pong(cx) == Poll::Ready(true) {
            (self.quiet_since, self.pinged_at) = (now, None);
        }
        let mut next = found.next_deadline;
        if found.is_due || self.config.keeps_alive_idle {
            let ask_at = self.quiet_since + self.config.keepalive_interval;
            if self.pinged_at.is_none() && ask_at <= now {
                self.stream.ping();
                self.pinged_at = Some(now);
                return Ok(false);
            }
            let alive_until = self.pinged_at.map(|at| at + self.config.keepalive_timeout);
            if alive_until.is_some_and(|until| until <= now) {
                return Err(Some(self.silent()));
            }
            let then = alive_until.unwrap_or(ask_at);
            next = Some(next.map_or(then, |next| next.min(then)));
        }
        if self.timer.poll(next, cx).is_ready() {
            self.shared.expire();
            return Ok(false);
        }
        // A batch that gathered meanwhile waits for the one before it.
        Ok(!found.has_batch || self.stream.poll_idle(cx).is_pending())
    }

    /// Looks at the state under its lock, and leaves the task's waker there.
    fn look(&self, cx: &mut Context<'_>) -> Result<Found, Option<Fault>> {
        let mut state = self.shared.lock();
        if state.is_closing {
            return Err(None);
        }
        if let Some(fault) = state.condemned.take() {
            return Err(Some(fault));
        }
        state.driver = Some(cx.waker().clone());
        Ok(Found {
            next_deadline: state.next_deadline,
            is_due: state.outstanding > 0,
            has_batch: !state.batch.is_empty(),
        })
    }

    fn silent(&self) -> Fault {
        let waited = self.config.keepalive_interval + self.config.keepalive_timeout;
        let problem = format!("no sign of life from it within {}", crate::entry::duration_text(waited));
        Fault::new(FaultKind::Silent, problem)
    }
}

/// One timer that is set anew only where it has to ring earlier than it would.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready: that time has come. Pending: the task is woken then.
    fn poll(&mut self, next: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(next) = next.map(tokio::time::Instant::from_std) else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
        if next < sleep.deadline() {
            sleep.as_mut().reset(next);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if next <= sleep.deadline() {
                self.sleep = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(next);
        }
        Poll::Pending
    }
}
