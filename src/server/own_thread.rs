//! A thread with a runtime of its own, for what must go on whatever the rest of the program is busy with.
//!
//! A node has two: the one answers probes and scrapers, on the other the node's own course of events runs, signals and
//! drain. So neither a probe nor a drain waits for a worker of the data plane, and a drain for no scraper either.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread and its runtime. When it is dropped the thread ends, and with it all that runs on it.
#[derive(Debug)]
pub(crate) struct OwnThread {
    runtime: Handle,
    /// Dropped to end the thread.
    _running: oneshot::Sender<()>,
}

impl OwnThread {
    /// Starts a thread of this name, with nothing on it.
    ///
    /// # Errors
    ///
    /// What the operating system says when it has no thread or no descriptors to give.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, dropped) = oneshot::channel::<()>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Nothing is ever sent: an error is the handle being dropped.
            let _ = runtime.block_on(dropped);
        })?;
        Ok(Self { runtime: handle, _running: running })
    }

    /// The runtime of the thread.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
