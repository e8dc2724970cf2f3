//! The thread that answers probes, whatever the rest of the program is busy with.
//!
//! It has a runtime of its own, on which the health listener and the HTTP listener are served, and on which the
//! node's own course of events runs: so neither a probe nor a drain waits for a worker of the data plane.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread and its runtime. When it is dropped the thread ends, and with it all that runs on it.
#[derive(Debug)]
pub(crate) struct HealthThread {
    runtime: Handle,
    /// Dropped to end the thread.
    _running: oneshot::Sender<()>,
}

impl HealthThread {
    /// Starts the thread, with nothing on it.
    ///
    /// # Errors
    ///
    /// What the operating system says when it has no thread or no descriptors to give.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, dropped) = oneshot::channel::<()>();
        thread::Builder::new().name("larder-health".to_owned()).spawn(move || {
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
