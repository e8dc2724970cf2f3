//! How long what a connection reads had come before it was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What a connection's bytes and the streams on it tell each other while bytes may lie unread for long enough to matter.
/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct UnreadTime(Arc<Words>);

#[derive(Debug)]
struct Words {
    /// 0: it does not matter.
    waited_us: AtomicU64,
    /// Commands of streams that were done since this was asked for, and the shortest of their time-outs in milliseconds.
    commands: AtomicU64,
    timeout_ms: AtomicU32,
}

impl Default for Words {
    fn default() -> Self {
        Self { waited_us: 0.into(), commands: 0.into(), timeout_ms: u32::MAX.into() }
    }
}

impl UnreadTime {
    /// How long what was read last had lain unread; zero where that does not matter.
    #[inline]
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.0.waited_us.load(Relaxed))
    }

    /// Whether it matters how long bytes had lain unread.
    #[inline]
    #[must_use]
    pub fn matters(&self) -> bool {
        self.0.waited_us.load(Relaxed) > 0
    }

    /// A stream's command came with this time-out.
    pub fn note_timeout(&self, ms: u32) {
        self.0.timeout_ms.fetch_min(ms, Relaxed);
    }

    /// A stream's commands were done.
    pub fn note_commands(&self, commands: u64) {
        self.0.commands.fetch_add(commands, Relaxed);
    }

    /// What was read now had lain unread for that long.
    pub(crate) fn set_waited(&self, waited: Duration) {
        self.0.waited_us.store(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX).max(1), Relaxed);
    }

    /// It does not matter any more.
    pub(crate) fn forget(&self) {
        self.0.waited_us.store(0, Relaxed);
    }

    /// The commands that were noted since this was asked for.
    pub(crate) fn take_commands(&self) -> u64 {
        self.0.commands.swap(0, Relaxed)
    }

    /// The shortest time-out since this was asked for, in milliseconds.
    pub(crate) fn take_timeout(&self) -> u32 {
        self.0.timeout_ms.swap(u32::MAX, Relaxed)
    }
}
