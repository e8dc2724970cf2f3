//! Whether an operation may be done, and at what time: asked when its shard's lock is held, so that nothing changes
//! between the answer and what is done.
//!
//! A node alone admits everything at the time that it is given: [`Now`] is an [`Admission`], and costs nothing. The rules
//! of a cluster, which a node must keep under the lock (that it owns the key still, that its time to serve has not run out),
//! are to be another. What is of no key (a scan, an invalidation) and what persistence does are not asked of it.

use super::namespace::Namespace;
use super::op::Refusal;
use crate::clock::Now;

/// Admits operations, one after the other.
pub trait Admission {
    /// The time at which the next operation on this key of this namespace is done. Must be quick and must not call the
    /// engine.
    ///
    /// # Errors
    /// It is not to be done.
    fn admit(&self, namespace: &Namespace, key: &[u8]) -> Result<Now, Refusal>;
}

impl<A: Admission> Admission for &A {
    #[inline]
    fn admit(&self, namespace: &Namespace, key: &[u8]) -> Result<Now, Refusal> {
        (**self).admit(namespace, key)
    }
}

impl Admission for Now {
    #[inline]
    fn admit(&self, _: &Namespace, _: &[u8]) -> Result<Now, Refusal> {
        Ok(*self)
    }
}

/// Admits at a time, and counts how often it is asked.
#[cfg(test)]
pub(crate) struct CountingAdmission {
    pub(crate) now: Now,
    pub(crate) asked: std::cell::Cell<u32>,
}

#[cfg(test)]
impl CountingAdmission {
    pub(crate) fn at(now: Now) -> Self {
        Self { now, asked: 0.into() }
    }
}

#[cfg(test)]
impl Admission for CountingAdmission {
    fn admit(&self, _: &Namespace, _: &[u8]) -> Result<Now, Refusal> {
        self.asked.set(self.asked.get() + 1);
        Ok(self.now)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::engine::tests::at;
    use crate::engine::{Engine, EngineConfig, NotRead, Op, Outcome, Set};

    /// Admits the first operations, as many as it says.
    struct AdmitFirst(Cell<u32>);

    impl Admission for AdmitFirst {
        fn admit(&self, _: &Namespace, _: &[u8]) -> Result<Now, Refusal> {
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
        let two = AdmitFirst(Cell::new(2));
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

    /// Admits operations on one key alone.
    struct Owns(&'static [u8]);

    impl Admission for Owns {
        fn admit(&self, _: &Namespace, key: &[u8]) -> Result<Now, Refusal> {
            if key == self.0 { Ok(at(1)) } else { Err(Refusal::Shortage) }
        }
    }

    #[test]
    fn each_key_is_admitted_for_itself() {
        let engine = Engine::new(&EngineConfig::default(), at(0));
        let namespace = engine.default_namespace();
        for key in [b"mine", b"else"] {
            engine.apply(namespace, &Op::Set(Set::new(key, b"v")), at(0));
        }
        let mut read = Vec::new();
        engine
            .read_batch(namespace, &[b"else", b"mine", b"else"], Owns(b"mine"), |_, found| {
                read.push(found.is_ok());
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(read, [false, true, false]);
        let mine = engine.read_or_fetch(namespace, b"mine", None, Owns(b"mine"), |_| ());
        let other = engine.read_or_fetch(namespace, b"else", None, Owns(b"mine"), |_| ());
        assert!(mine.is_ok() && matches!(other, Err(NotRead::Refused(_))));
        let delete = Op::Delete { key: b"else", if_version: None };
        assert!(matches!(engine.apply(namespace, &delete, Owns(b"mine")), Outcome::Refused(_)));
        assert_eq!(engine.stats().entries, 2);
    }
}
