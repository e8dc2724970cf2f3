//! Why a lane has no connection.

use std::error::Error;
use std::fmt;

use tonic::Status;

use crate::client::process::Process;

/// What happened to a connection, or to the attempt to make one.
#[derive(Debug, Clone)]
pub(in crate::client) struct Fault {
    pub(in crate::client) kind: FaultKind,
    /// In words.
    pub(in crate::client) problem: String,
    /// What the node answered, where it has refused the stream.
    pub(in crate::client) status: Option<Status>,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum FaultKind {
    /// No connection came to be.
    Unreachable,
    /// The other end has closed it.
    Closed,
    /// The node has not answered in time: it hangs, or the network loses what is sent.
    Silent,
    /// The node has ended or refused the stream.
    Refused,
    /// What answers there speaks something else.
    Protocol,
    /// The client's runtime has ended, or the client is gone.
    Ended,
    /// The process is a fork of this one.
    Forked { built_in: Process },
}

impl Fault {
    pub(in crate::client) fn new(kind: FaultKind, problem: impl Into<String>) -> Self {
        Self { kind, problem: problem.into(), status: None }
    }

    pub(super) fn unreachable(error: &dyn Error) -> Self {
        Self::new(FaultKind::Unreachable, innermost(error))
    }

    pub(super) fn refused(status: Status) -> Self {
        Self { kind: FaultKind::Refused, problem: status.message().to_owned(), status: Some(status) }
    }

    /// What HTTP/2 says of a connection that was there.
    pub(super) fn of_http2(error: &h2::Error) -> Self {
        if error.is_io() || error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) {
            return Self::new(FaultKind::Closed, innermost(error));
        }
        if error.is_reset() && error.reason() == Some(h2::Reason::CANCEL) {
            return Self::new(FaultKind::Closed, "the node has reset the stream");
        }
        Self::new(FaultKind::Protocol, innermost(error))
    }

    /// In a fork of the process that the connection belongs to, which has to leave it alone; None: this is that process.
    pub(in crate::client) fn of_fork(built_in: Process) -> Option<Self> {
        let forked = || Self::new(FaultKind::Forked { built_in }, "the process was forked");
        (!built_in.is_current()).then(forked)
    }

    pub(in crate::client) fn closed() -> Self {
        Self::new(FaultKind::Closed, "the connection was closed")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

fn innermost(mut error: &dyn Error) -> String {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
