//! The signals that end a node: SIGTERM, SIGINT and SIGHUP.
//!
//! SIGHUP comes when the terminal goes that the program was started from. `nohup` has it ignored before it starts a
//! program, which is then to go on, so one that is ignored when the node starts stays so. Only Linux tells whether it is;
//! elsewhere SIGHUP keeps the operating system's default, which ends the process at once, or not at all under `nohup`.

use std::io;
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::lifecycle::Lifecycle;
use crate::clock::{monotonic, since};

/// Within what time a signal is the one before, sent in another way. Nobody decides anew so fast.
pub(crate) const SAME_SIGNAL_WITHIN: Duration = Duration::from_millis(250);

/// The signals of this process that end a node.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None`: it is ignored, or the operating system does not tell.
    hang_up: Option<Signal>,
}

impl Signals {
    /// Takes the signals over from the operating system's default, for good. They arrive on `runtime`.
    ///
    /// With them SIGXFSZ, of which nothing is made: a write beyond `ulimit -f`, be it of the log, is an error then and not
    /// the end of the process.
    pub(crate) fn catch(runtime: &Handle) -> io::Result<Self> {
        let _context = runtime.enter();
        drop(signal(SignalKind::from_raw(Number::XFSZ.as_raw()))?);
        let hang_up = takes_hang_up().then(|| signal(SignalKind::hangup())).transpose()?;
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hang_up })
    }

    /// The name of the next one.
    pub(crate) async fn next(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hang_up => "SIGHUP",
        }
    }
}

/// Drains at the first signal, is ready at the second. Without signals it waits for ever.
///
/// What follows the first at once is the first again: GNU timeout sends its signal to the process and then to the
/// process's group, and a terminal's Ctrl-C may come by way of a parent as well.
pub(super) async fn obey(signals: Option<Signals>, lifecycle: Lifecycle) {
    let Some(mut signals) = signals else { return std::future::pending().await };
    let name = signals.next().await;
    let first = monotonic();
    info!("{name}: draining; a second signal exits at once");
    lifecycle.drain(None);
    let name = loop {
        let name = signals.next().await;
        if since(first) >= SAME_SIGNAL_WITHIN {
            break name;
        }
    };
    warn!("{name} again: exiting at once");
}

fn takes_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status");
    status.is_ok_and(|status| ignores(&status, Number::HUP) == Some(false))
}

/// Whether a process ignores a signal, by its /proc/PID/status; `None`: that does not tell.
fn ignores(status: &str, signal: Number) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (signal.as_raw() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = |mask: &str| format!("Name:\tlarder\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        let ignores_hup = |mask| ignores(&status(mask), Number::HUP);
        // Rust has SIGPIPE ignored, which is number 13.
        assert_eq!(ignores_hup("0000000000001000"), Some(false));
        assert_eq!(ignores_hup("0000000000001001"), Some(true));
        assert_eq!(ignores(&status("0000000000001001"), Number::PIPE), Some(true));
        assert_eq!((ignores_hup("nothing"), ignores("Name:\tlarder\n", Number::HUP)), (None, None));
    }
}
