//! A runtime for what must go on whatever the rest of the program is busy with.
//!
//! A node has two, each with a thread of its own: the one answers probes and scrapers, on the other the node's own course
//! of events runs, signals and drain. So neither a probe nor a drain waits for a worker of the data plane, and a drain for
//! no scraper either. In a simulation, where nothing has a thread of its own, both stand for the runtime that the node is
//! started in.

use std::future::Future;
use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::platform::Platform;

/// The runtime, and its thread if it has one. When it is dropped the thread ends, and with it all that runs on it; without
/// a thread, what was given to [`Self::spawn`].
#[derive(Debug)]
pub(crate) struct OwnRuntime {
    handle: Handle,
    /// Dropped to end them.
    tasks: JoinSet<()>,
    /// Dropped to end the thread.
    _thread: Option<oneshot::Sender<()>>,
}

impl OwnRuntime {
    /// One with nothing on it, and where the platform has threads, with one of this name.
    ///
    /// # Errors
    ///
    /// What the operating system says when it has no thread or no descriptors to give.
    pub(crate) fn start(name: &str, platform: &Platform) -> io::Result<Self> {
        let (handle, thread) = if platform.has_threads() {
            let (handle, thread) = start_thread(name)?;
            (handle, Some(thread))
        } else {
            (Handle::current(), None)
        };
        Ok(Self { handle, tasks: JoinSet::new(), _thread: thread })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a task until it ends, or this is dropped.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.handle);
    }
}

/// A thread with a runtime, and what ends it when it is dropped.
fn start_thread(name: &str) -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (running, dropped) = oneshot::channel::<()>();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nothing is ever sent: an error is the handle being dropped.
        let _ = runtime.block_on(dropped);
    })?;
    Ok((handle, running))
}
