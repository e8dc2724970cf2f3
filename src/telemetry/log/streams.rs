//! The process's stderr and stdout, as a node writes to them.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use super::writer::LogWriter;
use crate::clock::monotonic;

/// stderr, once the program is a node's.
static STDERR: OnceLock<LogWriter> = OnceLock::new();
/// stdout, once something was printed there.
static STDOUT: OnceLock<LogWriter> = OnceLock::new();

/// How long the end of the program waits for its last lines.
const FLUSHED_WITHIN: Duration = Duration::from_millis(250);

/// From now on what goes to stderr goes through a thread of its own.
///
/// # Errors
/// The operating system has no thread to give.
pub(crate) fn start_streams() -> io::Result<()> {
    stderr().map(drop)
}

pub(super) fn stderr() -> io::Result<&'static LogWriter> {
    match STDERR.get() {
        Some(writer) => Ok(writer),
        None => {
            let tell_lost = |lines| {
                tracing::warn!(
                    lines,
                    "log lines are lost, as stderr did not take them (larder_log_lines_lost_total)"
                );
            };
            let writer = LogWriter::start("larder-log", Stderr, tell_lost)?;
            Ok(STDERR.get_or_init(|| writer))
        }
    }
}

/// Puts a line on stdout, or loses it where stdout takes none; nobody waits for that.
///
/// # Errors
/// The operating system has no thread to give.
pub(crate) fn print(line: &str) -> io::Result<()> {
    let writer = match STDOUT.get() {
        Some(writer) => writer,
        None => {
            let writer = LogWriter::start("larder-stdout", Stdout, |_| {})?;
            STDOUT.get_or_init(|| writer)
        }
    };
    writer.put(format!("{line}\n").as_bytes());
    Ok(())
}

/// Puts a line on stderr that is no log line: through its thread if that has been started, else at once.
pub(crate) fn write_error(line: &str) {
    let line = format!("{line}\n");
    match STDERR.get() {
        Some(writer) => writer.put(line.as_bytes()),
        // Nobody is left to be told where stderr is gone.
        None => drop(Stderr.write_all(line.as_bytes())),
    }
}

/// Puts text on a node's stderr that is no whole line, such as a part of a progress bar.
pub(crate) fn draw(text: &str) {
    if let Some(writer) = STDERR.get() {
        writer.put(text.as_bytes());
    }
}

/// Waits until the last lines are written, and not for long: the end of the program.
pub(crate) fn flush() {
    let begun = monotonic();
    for writer in [&STDERR, &STDOUT].into_iter().filter_map(OnceLock::get) {
        writer.flush(FLUSHED_WITHIN.saturating_sub(begun.elapsed()));
    }
}

/// Log lines that were lost since the start.
#[must_use]
pub(crate) fn lines_lost() -> u64 {
    STDERR.get().map_or(0, LogWriter::lost_lines)
}

/// stderr without the lock of the standard library, which a write that hangs would hold for ever.
struct Stderr;

/// stdout without that, and without its buffer.
struct Stdout;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
