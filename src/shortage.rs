//! What the operating system runs out of for a while: descriptors, memory, threads; and calls that a signal broke off.
//!
//! This is the only place that says which errors are of that kind. Such an error says nothing about a disk or a peer:
//! the same call works once others have given back what they hold. So it refuses the one call that met it, or that is
//! tried again, and leaves nothing broken behind. What a sync says is never of that kind, whatever its number: after one
//! that failed nobody knows what the disk has.

use std::io;

use rustix::io::Errno;

/// Whether the call that failed so may work in a moment, as nothing is wrong but that something ran out.
#[must_use]
pub(crate) fn is_passing(error: &io::Error) -> bool {
    match Errno::from_io_error(error) {
        Some(number) => matches!(
            number,
            Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::INTR | Errno::NOMEM | Errno::NOBUFS
        ),
        None => matches!(
            error.kind(),
            io::ErrorKind::OutOfMemory | io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
        ),
    }
}

/// Whether this process or the whole system has as many files open as it may.
#[must_use]
pub(crate) fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_out_is_told_from_what_is_broken() {
        let of = |number: Errno| io::Error::from(number);
        for passing in [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::INTR, Errno::NOMEM, Errno::NOBUFS] {
            assert!(is_passing(&of(passing)), "{passing}");
        }
        for lasting in
            [Errno::IO, Errno::NOSPC, Errno::ROFS, Errno::DQUOT, Errno::FBIG, Errno::NOENT, Errno::ACCESS]
        {
            assert!(!is_passing(&of(lasting)), "{lasting}");
        }
        assert!(lacks_descriptors(&of(Errno::NFILE)) && !lacks_descriptors(&of(Errno::NOMEM)));
        assert!(is_passing(&io::ErrorKind::OutOfMemory.into()) && !is_passing(&io::Error::other("broken")));
    }
}
