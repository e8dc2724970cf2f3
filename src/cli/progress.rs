//! Progress bars, on stderr and on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const REDRAWS_PER_S: u8 = 8;
const COUNTED: &str = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
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

/// indicatif hides a bar by itself where stderr is no terminal.
fn target() -> ProgressDrawTarget {
    ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_S)
}

fn styled(bar: ProgressBar, what: &'static str, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what)
}
