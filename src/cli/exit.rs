//! How a command ends: six exit statuses, and the errors behind three of them.

use std::io;
use std::process::ExitCode;

use crate::client::ClientError;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it was done.
    Done,
    /// 1: a miss, or a condition that was not met.
    NotMet,
    /// 2: wrong usage or configuration.
    Usage,
    /// 3: the server, the network or stdout refused.
    Refused,
    /// 4: the node stopped, and the last writes may not be on its disk.
    NotSaved,
    /// 130: Ctrl-C ended a measurement early, as a shell calls what SIGINT has ended.
    Interrupted,
}

impl Exit {
    /// The status.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotMet => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotSaved => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The caller's arguments are at fault.
    #[error("{0}")]
    Usage(String),
    /// Something on this machine is: a file, the terminal, the runtime.
    #[error("{what}: {source}")]
    Local {
        /// What was tried.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// stdout takes nothing: it is on a disk that is full, say.
    #[error("cannot write to stdout: {0}")]
    Stdout(#[source] io::Error),
    /// The node or the network is, or the client found the arguments at fault.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The node refused a part of what was asked, which has been reported.
    #[error("{0}")]
    Refused(String),
    /// The node that this was could not put everything on its disk.
    #[error("{0}")]
    NotSaved(String),
}

impl CliError {
    /// The exit status that it stands for.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Local { .. } => Exit::Usage,
            Self::Client(error) if error.is_usage() => Exit::Usage,
            Self::Client(_) | Self::Refused(_) | Self::Stdout(_) => Exit::Refused,
            Self::NotSaved(_) => Exit::NotSaved,
        }
    }
}

/// Names what was tried, for an error of the operating system.
pub(super) fn local(what: impl Into<String>) -> impl FnOnce(io::Error) -> CliError {
    let what = what.into();
    move |source| CliError::Local { what, source }
}
