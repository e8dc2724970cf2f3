//! Ctrl-C during a measurement: it ends early, and what was measured so far is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use super::exit::{CliError, Exit, local};
use super::output::note;

/// Whether SIGINT has come; a second one ends the process at once. From then on the process is not ended by the first.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Waits for it on a thread of its own.
    pub(super) fn catch() -> Result<Self, CliError> {
        const WHAT: &str = "cannot wait for Ctrl-C";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(local(WHAT))?;
        let mut signals = {
            let _runtime = runtime.enter();
            signal(SignalKind::interrupt()).map_err(local(WHAT))?
        };
        let this = Self(Arc::default());
        let has_come = Arc::clone(&this.0);
        let wait = move || {
            runtime.block_on(async {
                signals.recv().await;
                has_come.store(true, Ordering::Relaxed);
                note("interrupted: the figures are of what came before; Ctrl-C again exits at once");
                signals.recv().await;
                std::process::exit(i32::from(Exit::Interrupted.status()));
            });
        };
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(wait).map_err(local(WHAT))?;
        Ok(this)
    }

    /// Whether it has come.
    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
