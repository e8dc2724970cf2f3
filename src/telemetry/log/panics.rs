//! Panics as lines of the log.
//!
//! The standard library's own hook writes them to stderr, in its own format, and waits for that where nobody reads it.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

/// Has every panic logged, with a backtrace where RUST_BACKTRACE asks for one.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(log));
}

fn log(panicked: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        target: "larder::panic",
        thread = thread.name(),
        place = panicked.location().map(tracing::field::display),
        backtrace = backtrace.as_ref().map(tracing::field::display),
        "panicked: {}",
        message(panicked.payload()),
    );
    // It ends the program, and no other thread does.
    if thread.name() == Some("main") {
        super::flush();
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_what_it_was_called_with() {
        assert_eq!(message(&"plain"), "plain");
        assert_eq!(message(&format!("with {}", 1)), "with 1");
        assert_eq!(message(&7), "without a message");
    }
}
