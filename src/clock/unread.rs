//! How long what a connection reads had come before it was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Time-outs count as no longer than this.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// What a connection's bytes and the streams on it tell each other while bytes may lie unread for long enough to matter.
/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct UnreadTime(Arc<Words>);

#[derive(Debug, Default)]
struct Words {
    /// 0: it does not matter.
    waited_us: AtomicU64,
    /// Commands of streams that were done since this was asked for.
    commands: AtomicU64,
    /// A moving average of time-outs; 0: there was none yet.
    timeout_us: AtomicU64,
    /// Streams with commands that were read and have to wait for their turn.
    undone: AtomicUsize,
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

    /// A call or a stream's command came with this time-out: the average moves towards it by a sixteenth.
    pub fn note_timeout(&self, timeout: Duration) {
        let micros = u64::try_from(timeout.min(TIMEOUT_MAX).as_micros()).unwrap_or(u64::MAX);
        let average = match self.0.timeout_us.load(Relaxed) {
            0 => micros,
            before => before - before / 16 + micros / 16,
        };
        self.0.timeout_us.store(average.max(1), Relaxed);
    }

    /// A stream's commands were done.
    pub fn note_commands(&self, commands: u64) {
        self.0.commands.fetch_add(commands, Relaxed);
    }

    /// Whether a stream has commands that were read and have to wait for their turn.
    #[inline]
    pub(crate) fn has_undone(&self) -> bool {
        self.0.undone.load(Relaxed) > 0
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

    /// How long callers wait on average; `None`: none has said.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let micros = self.0.timeout_us.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }
}

/// A stream's word whether it has commands that were read and have to wait for their turn; dropped, it has none.
#[derive(Debug)]
pub struct UndoneCommands {
    of_connection: UnreadTime,
    has_some: bool,
}

impl UndoneCommands {
    /// A stream of that connection that has none.
    #[must_use]
    pub fn none(of_connection: &UnreadTime) -> Self {
        Self { of_connection: of_connection.clone(), has_some: false }
    }

    /// Whether it has some from now on.
    #[inline]
    pub fn set(&mut self, has_some: bool) {
        match (std::mem::replace(&mut self.has_some, has_some), has_some) {
            (false, true) => self.of_connection.0.undone.fetch_add(1, Relaxed),
            (true, false) => self.of_connection.0.undone.fetch_sub(1, Relaxed),
            _ => return,
        };
    }
}

impl Drop for UndoneCommands {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_of_many_changes_little() {
        let unread = UnreadTime::default();
        assert_eq!(unread.timeout(), None);
        let [short, long] = [10, 100].map(Duration::from_millis);
        unread.note_timeout(long);
        assert_eq!(unread.timeout(), Some(long));
        unread.note_timeout(short);
        assert_eq!(unread.timeout(), Some(Duration::from_micros(94_375)));
        (0..200).for_each(|_| unread.note_timeout(short));
        assert!(unread.timeout().is_some_and(|timeout| timeout < short * 11 / 10));
        (0..200).for_each(|_| unread.note_timeout(Duration::MAX));
        assert!(unread.timeout().is_some_and(|timeout| timeout <= TIMEOUT_MAX));
    }

    #[test]
    fn streams_with_undone_commands_are_counted_until_they_are_gone() {
        let unread = UnreadTime::default();
        let [mut first, mut second] = [(); 2].map(|()| UndoneCommands::none(&unread));
        first.set(true);
        first.set(true);
        second.set(true);
        first.set(false);
        assert!(unread.has_undone());
        drop(second);
        assert!(!unread.has_undone());
    }
}
