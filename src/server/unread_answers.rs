//! Answers that their peers do not read: HTTP/2 has taken the call, but may send no byte of its answer, and each holds the
//! memory of a stream.
//!
//! An answer is sent in the turn in which it is made, so a connection has more than a few of them only where its peer keeps
//! windows shut. Each connection may have [`ALWAYS`] of them, all together [`UNREAD_MAX`] more; beyond, calls are refused,
//! with answers that need no window.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Those that a connection may have in any case.
const ALWAYS: usize = 4;
/// Those that a node's connections may have beyond: some 4 KiB each.
const UNREAD_MAX: usize = 4_096;

/// Those of a node beyond what each connection may have. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnreadAnswers(Arc<AtomicUsize>);

/// Those of a connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectionAnswers {
    of_node: UnreadAnswers,
    answers: AtomicUsize,
}

/// One, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnreadAnswer(Arc<ConnectionAnswers>);

impl UnreadAnswers {
    /// Those of a connection.
    pub(crate) fn connection(&self) -> Arc<ConnectionAnswers> {
        Arc::new(ConnectionAnswers { of_node: self.clone(), answers: AtomicUsize::new(0) })
    }
}

impl ConnectionAnswers {
    /// The number of its answers, where no more calls are taken for it.
    #[inline]
    pub(crate) fn too_many(&self) -> Option<usize> {
        let answers = self.answers.load(Relaxed);
        (answers >= ALWAYS && self.of_node.0.load(Relaxed) >= UNREAD_MAX).then_some(answers)
    }

    /// One more.
    #[inline]
    pub(crate) fn enter(self: Arc<Self>) -> UnreadAnswer {
        if self.answers.fetch_add(1, Relaxed) >= ALWAYS {
            self.of_node.0.fetch_add(1, Relaxed);
        }
        UnreadAnswer(self)
    }
}

impl Drop for UnreadAnswer {
    fn drop(&mut self) {
        if self.0.answers.fetch_sub(1, Relaxed) > ALWAYS {
            self.0.of_node.0.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_a_few_and_all_together_have_their_sum() {
        let node = UnreadAnswers::default();
        let [greedy, other] = [(); 2].map(|()| node.connection());
        let mut held: Vec<_> = (0..ALWAYS).map(|_| Arc::clone(&other).enter()).collect();
        assert_eq!(other.too_many(), None);
        while greedy.too_many().is_none() {
            held.push(Arc::clone(&greedy).enter());
        }
        assert_eq!((greedy.too_many(), other.too_many()), (Some(UNREAD_MAX + ALWAYS), Some(ALWAYS)));
        assert_eq!(node.connection().too_many(), None, "it has none yet");
        held.pop();
        assert_eq!((greedy.too_many(), other.too_many()), (None, None));
        drop(held);
        assert_eq!(node.0.load(Relaxed), 0);
    }
}
