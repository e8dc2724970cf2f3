//! Which process this is, told without asking the kernel: a call on a connection that is shared takes less than a microsecond, and
//! `getpid` a tenth of that.
//!
//! A fork has the memory of the process that it is of, and no thread of it but one. The C library calls a function in it
//! (`pthread_atfork`, POSIX), which counts here. A process that is made past the C library, by a bare `clone`, is not told.
//!
//! This file has `unsafe` in it: the standard library has no way to that function. It stands alone, so that it can be tested under
//! AddressSanitizer by itself; .ci/run does.

#![cfg_attr(unix, expect(unsafe_code, reason = "the C library's own way to hear of a fork; see the block"))]

use std::sync::atomic::{AtomicU32, Ordering};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    id: u32,
    /// How often the process and those before it were forked, each from the one before; `None`: nobody counts.
    forks: Option<u32>,
}

static FORKS: AtomicU32 = AtomicU32::new(0);

impl Process {
    /// The one that this is called in.
    pub(crate) fn current() -> Self {
        Self { id: std::process::id(), forks: is_counted().then(|| FORKS.load(Ordering::Relaxed)) }
    }

    /// Its number: its pid.
    pub(crate) fn id(self) -> u32 {
        self.id
    }

    /// One that it is not called in, of number 1.
    #[cfg(test)]
    pub(crate) fn another() -> Self {
        Self { id: 1, forks: None }
    }

    /// Whether this is called in it, and not in a fork of it.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        match self.forks {
            Some(forks) => FORKS.load(Ordering::Relaxed) == forks,
            None => std::process::id() == self.id,
        }
    }
}

/// Has forks counted from now on. False: they are not.
#[cfg(unix)]
fn is_counted() -> bool {
    use std::ffi::c_int;
    use std::sync::OnceLock;

    type Handler = extern "C" fn();

    // SAFETY: the types are those of POSIX.
    unsafe extern "C" {
        fn pthread_atfork(prepare: Option<Handler>, parent: Option<Handler>, child: Option<Handler>)
        -> c_int;
    }

    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }

    static IS_COUNTED: OnceLock<bool> = OnceLock::new();
    // SAFETY: `None` is the null pointer, by which it says that nothing is to be called.
    // What is called in a fork of a process with threads may do no more than a signal handler: it adds to an atomic, takes
    // no lock, allocates nothing and cannot panic.
    *IS_COUNTED.get_or_init(|| unsafe { pthread_atfork(None, None, Some(count)) == 0 })
}

/// There is no fork.
#[cfg(not(unix))]
fn is_counted() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_the_one_that_asks_until_a_fork_is_counted() {
        let process = Process::current();
        assert!(process.is_current() && process == Process::current());
        assert_eq!(process.id(), std::process::id());
        assert!(!cfg!(unix) || process.forks.is_some(), "the C library took the handler");
        // That a fork is counted is shown by tests that fork, of which the child has one thread alone.
        assert!(!Process { forks: process.forks.map(|forks| forks + 1), ..process }.is_current());
        assert!(Process { forks: None, ..process }.is_current(), "the kernel is asked where nobody counts");
        assert!(!Process::another().is_current());
    }
}
