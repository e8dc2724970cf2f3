//! Progress bars, on stderr and on a terminal only.
//!
//! A node's go the way of its log, among the lines of which they stand: a terminal that is held (Ctrl-S) takes neither, and
//! the node goes on.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use parking_lot::Mutex;

use crate::node::{RecoveryStatus, ShowRecovery};
use crate::telemetry::log;

const REDRAWS_PER_S: u8 = 8;
const COUNTED: &str = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
/// Without a rate: the bar begins when some of it is done.
const RECOVERY: &str = "{msg} {wide_bar} {human_pos}/{human_len} {elapsed}";
const RECOVERY_OPEN: &str = "{msg} {spinner} {human_pos} {elapsed}";
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const BYTES_OPEN: &str = "{msg} {spinner} {bytes} {bytes_per_sec} {elapsed}";
const OPEN: &str = "{msg} {spinner} {human_pos} {per_sec} {elapsed}";

/// A bar towards a known end.
pub(super) fn bar(what: &'static str, total: u64) -> ProgressBar {
    styled(ProgressBar::with_draw_target(Some(total), target()), what, COUNTED)
}

/// Bytes towards an end that may be known.
pub(super) fn bytes(what: &'static str, total: Option<u64>) -> ProgressBar {
    let template = if total.is_some() { BYTES } else { BYTES_OPEN };
    styled(ProgressBar::with_draw_target(total, target()), what, template)
}

/// A count towards an unknown one.
pub(super) fn spinner(what: &'static str) -> ProgressBar {
    let bar = styled(ProgressBar::with_draw_target(None, target()), what, OPEN);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Shows how far a recovery is; `None`: nobody would see it.
pub(super) fn recovery() -> Option<ShowRecovery> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = Mutex::new(None);
    Some(Arc::new(move |at| follow(&mut bar.lock(), at, log_target)))
}

/// Draws a bar from the first news on, and clears it away at the end: the log says what it came to.
fn follow(bar: &mut Option<ProgressBar>, at: Option<RecoveryStatus>, target: fn() -> ProgressDrawTarget) {
    let Some(RecoveryStatus { applied, expected }) = at else {
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
        return;
    };
    let bar = bar.get_or_insert_with(|| {
        let bar = ProgressBar::with_draw_target(None, target());
        styled(bar, "recovering", RECOVERY_OPEN)
    });
    if let Some(expected) = expected {
        if bar.length().is_none() {
            bar.set_style(style(RECOVERY));
        }
        // The journal's records are not among those that are expected.
        bar.set_length(expected.max(applied));
    }
    bar.set_position(applied);
}

/// indicatif hides a bar by itself where stderr is no terminal.
fn target() -> ProgressDrawTarget {
    ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_S)
}

/// The terminal by way of the log.
fn log_target() -> ProgressDrawTarget {
    ProgressDrawTarget::term_like_with_hz(Box::new(LogTerminal), REDRAWS_PER_S)
}

/// A terminal whose writer never waits for it.
#[derive(Debug)]
struct LogTerminal;

impl LogTerminal {
    fn put(text: &str) -> io::Result<()> {
        log::draw(text);
        Ok(())
    }

    /// Moves the cursor by `cells` the way that the control sequence's last letter says.
    fn go(cells: usize, way: char) -> io::Result<()> {
        if cells == 0 { Ok(()) } else { Self::put(&format!("\x1b[{cells}{way}")) }
    }
}

impl TermLike for LogTerminal {
    fn width(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        size.ok().map(|size| size.ws_col).filter(|columns| *columns > 0).unwrap_or(COLUMNS_DEFAULT)
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        Self::go(lines, 'A')
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        Self::go(lines, 'B')
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        Self::go(columns, 'C')
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        Self::go(columns, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        Self::put(&format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        Self::put(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        Self::put("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Of a terminal that does not say.
const COLUMNS_DEFAULT: u16 = 80;

fn styled(bar: ProgressBar, what: &'static str, template: &str) -> ProgressBar {
    bar.with_style(style(template)).with_message(what)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recoverys_bar_has_an_end_as_soon_as_one_is_known() {
        let mut bar = None;
        let mut show = |at| {
            follow(&mut bar, at, ProgressDrawTarget::hidden);
            bar.as_ref().map(|bar| (bar.position(), bar.length()))
        };
        let at = |applied, expected| Some(RecoveryStatus { applied, expected });
        assert_eq!(show(None), None, "it was over before anybody looked");
        assert_eq!(show(at(0, None)), Some((0, None)));
        assert_eq!(show(at(5, Some(10))), Some((5, Some(10))));
        assert_eq!(show(at(12, Some(10))), Some((12, Some(12))), "the journal comes on top");
        assert_eq!(show(None), None);
    }
}
