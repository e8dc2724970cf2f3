//! Where the futures of HTTP/2 streams run. One type, so that how they are scheduled is decided in one place.

use std::future::Future;

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;

/// Runs each stream's future as a task of the runtime that its connection runs on.
#[derive(Debug, Clone, Default)]
pub struct StreamExecutor(TokioExecutor);

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.execute(stream);
    }
}
