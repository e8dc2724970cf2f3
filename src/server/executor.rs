//! Where the futures of HTTP/2 streams run: in place if they can be done at once, else as tasks of their own.
//!
//! A request in memory is done as soon as its frames are read, so a task for it would only be allocated, scheduled
//! and woken to find that out. Each stream's future is polled once where it was accepted; one that has to wait
//! (for the rest of a body, for a window to open) is spawned and polled again there, as any future may be.

use std::future::Future;
use std::task::{Context, Waker};

use hyper::rt::Executor;

/// Polls a stream's future once, and spawns it if that was not enough.
#[derive(Debug, Clone, Default)]
pub struct StreamExecutor;

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut stream = Box::pin(stream);
        if stream.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(stream);
        }
    }
}
