//! Where the futures of HTTP/2 streams run: in place if they can be done at once, else as tasks of their own.
//!
//! A request in memory is done as soon as its frames are read, so a task for it would only be allocated, scheduled
//! and woken to find that out. Each stream's future is polled once where it was accepted; one that has to wait
//! (for the rest of a body, for a window to open) is spawned and polled again there, as any future may be. There
//! it is dropped, which resets the stream, when its peer has taken nothing for too long or past its deadline.
//!
//! Tasks that become ready together, as calls do that waited for one sync of the disk, would each have their
//! connection send what they answer before the next one runs, as tokio runs next what a task has woken. So they leave
//! word ([`Progressed`]), and the connection lets what is ready run first.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::rt::Executor;
use tracing::debug;

use super::stall::{StallTimer, listen};

/// Word from the tasks of a connection's streams to it that one of them has run. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progressed(Arc<AtomicBool>);

impl Progressed {
    /// Whether one has run since this was last asked.
    pub(crate) fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// Polls a stream's future once, and spawns it if that was not enough.
#[derive(Debug, Clone)]
pub(crate) struct StreamExecutor {
    stall_timeout: Duration,
    progressed: Progressed,
}

impl StreamExecutor {
    /// Resets streams whose peer takes nothing for `stall_timeout`.
    pub(crate) fn new(stall_timeout: Duration, progressed: Progressed) -> Self {
        Self { stall_timeout, progressed }
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut stream = Box::pin(stream);
        let (polled, hint) = listen(|| stream.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        if polled.is_pending() {
            let mut stall_timer = StallTimer::new(self.stall_timeout);
            stall_timer.note(hint);
            tokio::spawn(run(stream, stall_timer, self.progressed.clone()));
        }
    }
}

/// Runs a stream to its end, or as long as its peer reads.
async fn run<F: Future>(mut stream: Pin<Box<F>>, mut stall_timer: StallTimer, progressed: Progressed) {
    poll_fn(|context| {
        progressed.0.store(true, Ordering::Relaxed);
        let (polled, hint) = listen(|| stream.as_mut().poll(context));
        if polled.is_ready() {
            return Poll::Ready(());
        }
        stall_timer.note(hint);
        stall_timer.poll_lost(context).map(|()| debug!("stream reset: its peer does not read"))
    })
    .await;
}
