//! Which call of a [`MemoryBackend`](super::MemoryBackend) fails, and with what.

use std::io;

use rustix::io::Errno;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Backend::files`](crate::persistence::Backend::files).
    Files,
    /// [`Backend::create`](crate::persistence::Backend::create).
    Create,
    /// [`Backend::open`](crate::persistence::Backend::open).
    Open,
    /// [`Backend::delete`](crate::persistence::Backend::delete).
    Delete,
    /// [`Backend::quarantine`](crate::persistence::Backend::quarantine).
    Quarantine,
    /// [`Backend::read_mark`](crate::persistence::Backend::read_mark).
    ReadMark,
    /// [`Backend::write_mark`](crate::persistence::Backend::write_mark).
    WriteMark,
    /// [`Backend::get`](crate::persistence::Backend::get).
    Get,
    /// [`Backend::commit`](crate::persistence::Backend::commit), before anything is changed.
    Commit,
    /// The same, when the changes are there and are to be synced.
    CommitSync,
    /// [`Backend::scan`](crate::persistence::Backend::scan).
    Scan,
    /// [`Backend::disk_bytes`](crate::persistence::Backend::disk_bytes).
    DiskBytes,
    /// [`Appender::append`](crate::persistence::Appender::append).
    Append,
    /// [`Appender::reserve`](crate::persistence::Appender::reserve).
    Reserve,
    /// [`Appender::sync`](crate::persistence::Appender::sync).
    Sync,
    /// [`ReadAt::read_at`](crate::persistence::ReadAt::read_at) and [`ReadAt::len`](crate::persistence::ReadAt::len).
    Read,
}

/// What the disk says when it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoFault {
    /// EIO. Any call can meet it.
    Io,
    /// ENOSPC. Only calls that write meet it; others go on.
    Full,
    /// EROFS. Only calls that write meet it; others go on.
    ReadOnly,
    /// EMFILE. Only calls that open something meet it; others go on.
    NoDescriptor,
    /// ENOMEM. Any call can meet it but a sync.
    NoMemory,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strikes {
    /// One call.
    Once,
    /// Every call from then on.
    FromThenOn,
}

/// A call that is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of call; `None`: any that its refusal can meet.
    pub call: Option<Call>,
    /// How many of those calls pass before, counted from now.
    pub passing: u64,
    /// What the disk says.
    pub refusal: IoFault,
    /// How often.
    pub strikes: Strikes,
}

impl Fault {
    pub(super) fn meets(&self, call: Call) -> bool {
        let writes = matches!(
            call,
            Call::Create
                | Call::Delete
                | Call::Quarantine
                | Call::WriteMark
                | Call::Commit
                | Call::CommitSync
                | Call::Append
                | Call::Reserve
                | Call::Sync
        );
        let opens = matches!(
            call,
            Call::Files
                | Call::Create
                | Call::Open
                | Call::Quarantine
                | Call::Commit
                | Call::CommitSync
                | Call::DiskBytes
        );
        let can_meet = match self.refusal {
            IoFault::Io => true,
            IoFault::Full | IoFault::ReadOnly => writes,
            IoFault::NoDescriptor => opens,
            IoFault::NoMemory => call != Call::Sync,
        };
        self.call.is_none_or(|only| only == call) && can_meet
    }
}

impl IoFault {
    pub(super) fn error(self) -> io::Error {
        io::Error::from(match self {
            Self::Io => Errno::IO,
            Self::Full => Errno::NOSPC,
            Self::ReadOnly => Errno::ROFS,
            Self::NoDescriptor => Errno::MFILE,
            Self::NoMemory => Errno::NOMEM,
        })
    }
}
