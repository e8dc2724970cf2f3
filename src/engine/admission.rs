//! Whether an operation may be done, and at what time: asked when its shard's lock is held, so that nothing changes
//! between the answer and what is done.
//!
//! A node alone admits everything at the time that it is given: [`Now`] is an [`Admission`], and costs nothing. The rules
//! of a cluster, which a node must keep under the lock (that it owns the key still, that its time to serve has not run out),
//! are to be another.

use super::op::Refusal;
use crate::clock::Now;

/// Admits operations, one after the other.
pub trait Admission {
    /// The time at which the operation is done that is about to be. Must be quick and must not call the engine.
    ///
    /// # Errors
    /// It is not to be done.
    fn admit(&self) -> Result<Now, Refusal>;
}

impl<A: Admission> Admission for &A {
    #[inline]
    fn admit(&self) -> Result<Now, Refusal> {
        (**self).admit()
    }
}

impl Admission for Now {
    #[inline]
    fn admit(&self) -> Result<Now, Refusal> {
        Ok(*self)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::engine::tests::at;
    use crate::engine::{Engine, EngineConfig, NotRead, Op, Outcome, Set};

    /// Admits a number of operations.
    struct Some(Cell<u32>);

    impl Admission for Some {
        fn admit(&self) -> Result<Now, Refusal> {
            let left = self.0.get().checked_sub(1).ok_or(Refusal::Shortage)?;
            self.0.set(left);
            Ok(at(left.into()))
        }
    }

    #[test]
    fn what_is_not_admitted_is_not_done() {
        let engine = Engine::new(&EngineConfig::default(), at(0));
        let namespace = engine.default_namespace();
        let set = Op::Set(Set::new(b"k", b"v"));
        let two = Some(Cell::new(2));
        assert!(matches!(engine.apply(namespace, &set, &two), Outcome::Stored(_)));
        let read = || engine.read_or_fetch(namespace, b"k", None, &two, |entry| entry.value.to_bytes());
        assert_eq!(read().unwrap(), "v");
        assert!(matches!(read(), Err(NotRead::Refused(Refusal::Shortage))));
        assert_eq!(engine.apply(namespace, &set, &two), Outcome::Refused(Refusal::Shortage));
        let mut seen = 0;
        engine
            .read_batch(namespace, &[b"k", b"k"], &two, |_, read| {
                assert!(matches!(read, Err(NotRead::Refused(Refusal::Shortage))));
                seen += 1;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        let stats = engine.stats();
        assert_eq!((seen, stats.hits, stats.misses(), stats.sets), (2, 1, 0, 1));
    }
}
