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
use std::mem::ManuallyDrop;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;

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

/// What belongs to the process that made it. In a fork of that it cannot be reached, and is not dropped: the locks in it
/// may be held by threads that the fork has not got.
#[derive(Debug)]
pub(super) struct OfProcess<T> {
    built_in: u32,
    /// Always there until it is dropped.
    inner: Option<T>,
}

impl<T> OfProcess<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { built_in: std::process::id(), inner: Some(inner) }
    }

    pub(super) fn get(&self) -> Result<&T, ClientError> {
        self.check()?;
        Ok(self.inner.as_ref().expect("it is taken by its end alone"))
    }

    pub(super) fn get_mut(&mut self) -> Result<&mut T, ClientError> {
        self.check()?;
        Ok(self.inner.as_mut().expect("it is taken by its end alone"))
    }

    pub(super) fn into_inner(mut self) -> Result<T, ClientError> {
        self.check()?;
        Ok(self.inner.take().expect("it is taken by its end alone"))
    }

    fn check(&self) -> Result<(), ClientError> {
        let (built_in, process) = (self.built_in, std::process::id());
        if built_in == process { Ok(()) } else { Err(ClientError::Forked { built_in, process }) }
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.check().is_err() {
            let _kept_for_ever = ManuallyDrop::new(self.inner.take());
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
    fn what_belongs_to_another_process_is_out_of_reach_and_never_dropped() {
        struct Dropped<'d>(&'d std::cell::Cell<u32>);

        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }

        let drops = std::cell::Cell::new(0);
        drop(OfProcess::new(Dropped(&drops)));
        assert_eq!(drops.get(), 1);
        let mut others = OfProcess { built_in: 1, inner: Some(Dropped(&drops)) };
        let error = others.get_mut().map(drop).unwrap_err();
        assert!(others.get().is_err() && error.is_usage());
        let said = format!("process {} is a fork of process 1", std::process::id());
        assert!(error.to_string().starts_with(&said), "{error}");
        drop(others);
        assert_eq!(drops.get(), 1, "its locks may be held by a thread that is not there");
    }

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
