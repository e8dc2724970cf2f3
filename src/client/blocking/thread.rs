//! The thread that a blocking client runs on, and how a thread of the application waits for an answer.
//!
//! ```text
//!  the application's threads      poll their own calls, and sleep between (park)
//!            │ commands                 ▲ wake
//!            ▼                          │
//!  larder-client                  one runtime: connections, health, timers
//! ```
//!
//! Invariants: the thread ends with the last client that needs it, and is joined; a task of a tokio runtime is never held
//! up; a fork of the process, in which the thread does not exist, waits for nothing and takes no lock that the thread may
//! have held.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;

use crate::client::of_process::OfProcess;
use crate::client::{Client, ClientError};

/// As long as the name of a thread may be where Linux shows it, 15 bytes, or shorter.
const NAME: &str = "larder-client";

/// A tokio runtime on a thread of its own. The last one that lets go of it ends it.
#[derive(Debug)]
pub(super) struct RuntimeThread(OfProcess<Running>);

#[derive(Debug)]
struct Running {
    runtime: Handle,
    /// Ends the thread when it is dropped.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RuntimeThread {
    pub(super) fn start() -> Result<Self, ClientError> {
        let (started, is_started) = mpsc::sync_channel::<io::Result<Handle>>(1);
        let (end, ended) = oneshot::channel::<()>();
        let run = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                // It is waited for below.
                let _ = started.send(Ok(runtime.handle().clone()));
                // Nobody sends: the sender is dropped.
                let _ = runtime.block_on(ended);
                // A name that is being resolved is not waited for.
                runtime.shutdown_background();
            }
            Err(error) => drop(started.send(Err(error))),
        };
        let start = || {
            let thread = thread::Builder::new().name(NAME.to_owned()).spawn(run)?;
            let runtime = is_started.recv().unwrap_or_else(|gone| Err(io::Error::other(gone)))?;
            Ok(Running { runtime, end: Some(end), thread: Some(thread) })
        };
        let running = start().map_err(|source| ClientError::NoThread { source })?;
        Ok(Self(OfProcess::new(running)))
    }

    /// The runtime, for what is built in it.
    pub(super) fn runtime(&self) -> Result<&Handle, ClientError> {
        Ok(&self.0.get()?.runtime)
    }

    /// Waits for a call, on the calling thread.
    pub(super) fn wait<T, E: From<ClientError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let runtime = self.runtime()?;
        if polls_a_task() {
            return Err(ClientError::InTask.into());
        }
        // For timers and for what the call spawns.
        let _context = runtime.enter();
        block_on(call)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end = None;
        let Some(thread) = self.thread.take() else { return };
        // A task that runs on it cannot wait for it.
        if thread.thread().id() != thread::current().id() {
            // A panic of a task is the task's; the runtime's own was told by the panic hook.
            let _ = thread.join();
        }
    }
}

/// What the clients of one thread share: while one of them is there, neither ends.
#[derive(Debug)]
pub(super) struct Shared {
    /// Keeps the connections, so that a view's end ends none of them; dropped before the thread is.
    _client: OfProcess<Client>,
    pub(super) thread: RuntimeThread,
}

impl Shared {
    pub(super) fn new(client: Client, thread: RuntimeThread) -> Self {
        Self { _client: OfProcess::new(client), thread }
    }
}

/// Whether the calling thread polls a task of a tokio runtime. One of `spawn_blocking` is in the context of a runtime too, and
/// may wait: tokio bounds how much a task does at once and then has it yield, and such a thread has no such bound.
fn polls_a_task() -> bool {
    // More than any task may do at once, which is 128 today.
    const STEPS: usize = 1_024;
    if Handle::try_current().is_err() {
        return false;
    }
    let mut context = Context::from_waker(Waker::noop());
    (0..STEPS).any(|_| pin!(consume_budget()).poll(&mut context).is_pending())
}

/// Polls a future on this thread, which sleeps while there is nothing to poll. tokio's own would panic in a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_told_from_a_thread_that_may_wait() {
        let thread = RuntimeThread::start().unwrap();
        assert!(!polls_a_task());
        let runtime = thread.runtime().unwrap().clone();
        let in_context = runtime.enter();
        assert!(!polls_a_task(), "a context alone is no task");
        drop(in_context);
        let asked = async {
            let of_a_task = tokio::spawn(async { polls_a_task() }).await;
            let of_a_thread = tokio::task::spawn_blocking(polls_a_task).await;
            Ok::<_, ClientError>((of_a_task.unwrap(), of_a_thread.unwrap()))
        };
        assert_eq!(thread.wait(asked).unwrap(), (true, false));
        for runtime in [Builder::new_current_thread().build(), Builder::new_multi_thread().build()] {
            assert!(runtime.unwrap().block_on(async { polls_a_task() }));
        }
    }
}
