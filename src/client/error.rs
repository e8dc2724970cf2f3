//! What can go wrong with a call, and whose fault it was: the caller's, the network's, the node's.

use std::error::Error as StdError;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::lane::{Failure, FaultKind, Phase};
use super::process::Process;
use super::url::{BadNodeUrl, NodeUrl};
use super::value::ValueError;
use crate::entry::duration_text;
use crate::proto::code_name;
use crate::proto::google::rpc;

/// A call that brought no outcome. A miss or a condition that was not met is none of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The caller gave a URL that cannot be used.
    #[error(transparent)]
    BadUrl(#[from] BadNodeUrl),

    /// The caller gave no node at all.
    #[error("no node is named; give one as tcp://HOST:PORT")]
    NoNode,

    /// The caller gave more nodes than this build can route between.
    #[error(
        "{count} nodes are named ({urls}), but this build cannot route between nodes yet; name exactly one"
    )]
    SeveralNodes {
        /// How many nodes.
        count: usize,
        /// The URLs of the nodes.
        urls: String,
    },

    /// The caller gave a setting that cannot be asked for.
    #[error(
        "setting {name:?}: {problem}; settings are named as the flags of larder serve, without dashes before them"
    )]
    BadSetting {
        /// Its name, as the caller gave it.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },

    /// No connection to the node: it is not there, or the network does not lead to it.
    #[error("cannot reach {url}: {problem}; is a node listening there?")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What the connection attempt ended with.
        problem: String,
        /// The transport's own error.
        #[source]
        source: Box<Status>,
    },

    /// The node, or what is between, ended the call or its connection without an answer. Whether the call was
    /// done is not known.
    #[error("{url} closed {method} before it was answered ({problem})")]
    BrokenOff {
        /// The node.
        url: String,
        /// The method that was called.
        method: &'static str,
        /// What the transport saw.
        problem: String,
        /// The transport's own error.
        #[source]
        source: Box<Status>,
    },

    /// The node closed the connection that the call was made on, without a word. Whether the call was done is not known.
    #[error(
        "{url} closed the connection before {method} was answered ({problem}): the node is stopping, or has as many \
         connections as its --max-connections allows and closes new ones at once; try again, let other clients end, or raise \
         that limit"
    )]
    Closed {
        /// The node.
        url: String,
        /// The method that was called.
        method: &'static str,
        /// What the transport saw.
        problem: String,
        /// The transport's own error.
        #[source]
        source: Box<Status>,
    },

    /// The deadline passed at the caller's end.
    #[error(
        "{method} at {url} gave no answer within {}{}; --timeout sets how long to wait",
        duration_text(*.after), phase_text(*.phase)
    )]
    Timeout {
        /// The node.
        url: String,
        /// The method that was called.
        method: &'static str,
        /// How long was waited.
        after: Duration,
        /// Where the call was then; `None`: it is not known.
        phase: Option<Phase>,
    },

    /// The node is out of service, as far as the client knows, so the call was not sent.
    #[error(
        "{url} is out of service, and {method} was not sent to it ({problem}; {} spent): the client tries to reach it meanwhile, and \
         its health() tells when it has", duration_text(*.after)
    )]
    Unavailable {
        /// The node.
        url: String,
        /// The method that was called.
        method: &'static str,
        /// What is known of the node.
        problem: String,
        /// How long the call had waited.
        after: Duration,
    },

    /// What is stored is no value of the type that was asked for, or a value cannot be stored in the format that was chosen.
    #[error(transparent)]
    Value(#[from] ValueError),

    /// The client's timeout is zero, within which nothing can be done.
    #[error("the timeout of the call is 0; give it the time that the answer may take, such as 1s")]
    ZeroTimeout,

    /// The runtime that the client was built in has ended, and its connections with it.
    #[error(
        "{method} was not sent to {url}: the tokio runtime that the client was built in has ended, or the process is a fork of that \
         one; build a client in this runtime"
    )]
    Ended {
        /// The node.
        url: String,
        /// The method that was called.
        method: &'static str,
    },

    /// The thread that a blocking client runs on could not be started.
    #[error(
        "cannot start the client's own thread: {source}; is a limit on threads or on open files reached?"
    )]
    NoThread {
        /// What the operating system said.
        source: std::io::Error,
    },

    /// A blocking call was made by a task of a tokio runtime, which it would hold up together with the runtime's other tasks.
    #[error(
        "a blocking call was made in a task of a tokio runtime, which it would hold up with the others: await \
         larder::client::Client there, or make the call within tokio::task::spawn_blocking"
    )]
    InTask,

    /// The process is a fork of the one that the client was built in, and has neither its threads nor its place on its
    /// connections.
    #[error(
        "process {process} is a fork of process {built_in}, in which the client was built: its connections and its threads are \
         there alone; build a client after the fork"
    )]
    Forked {
        /// The process in which the client was built.
        built_in: u32,
        /// The process that made the call.
        process: u32,
    },

    /// What was to be stored could not be read: the caller's stream failed.
    #[error("cannot read what is to be stored: {source}")]
    Source {
        /// What it said.
        source: std::io::Error,
    },

    /// What was read could not be written: the caller's writer failed.
    #[error("cannot write what was read: {source}")]
    Sink {
        /// What it said.
        source: std::io::Error,
    },

    /// The node answered with an error.
    #[error("{0}")]
    Status(Box<Refusal>),

    /// The node answered something that the protocol does not allow.
    #[error("{url} answered {method} with {problem}: is it a larder node of this version?")]
    BadAnswer {
        /// The node.
        url: String,
        /// The method that was called.
        method: &'static str,
        /// What is wrong with the answer.
        problem: String,
    },
}

/// A status other than OK that a node answered.
#[derive(Debug, thiserror::Error)]
#[error("{}", status_text(.code, .message, .reason))]
#[non_exhaustive]
pub struct Refusal {
    /// The node.
    pub url: String,
    /// The gRPC code.
    pub code: Code,
    /// The node's words.
    pub message: String,
    /// The stable reason of google.rpc.ErrorInfo. Empty where the node gave none.
    pub reason: String,
    /// The fields that google.rpc.BadRequest names.
    pub fields: Vec<String>,
    /// The limit that google.rpc.ErrorInfo states, where one was passed.
    pub limit: Option<u64>,
    /// After how long google.rpc.RetryInfo says that a retry helps.
    pub retry_after: Option<Duration>,
    /// The status as it came.
    #[source]
    pub source: Status,
}

impl Refusal {
    pub(crate) fn new(url: String, status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        Self {
            url,
            code: status.code(),
            message: status.message().to_owned(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            fields: details
                .bad_request()
                .map(|bad| bad.field_violations.iter().map(|violation| violation.field.clone()).collect())
                .unwrap_or_default(),
            limit: info.and_then(|info| info.metadata.get("limit")?.parse().ok()),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            source: status,
        }
    }

    /// What a node answered for one item of several.
    pub(crate) fn of_item(url: String, item: rpc::Status) -> Self {
        let (code, message) = (Code::from_i32(item.code), item.message.clone());
        Self::new(url, Status::with_details(code, message, item.encode_to_vec().into()))
    }
}

impl ClientError {
    /// A status as tonic hands it out, told apart by who made it: the network, the local timer or the node.
    #[must_use]
    pub(crate) fn from_status(url: &NodeUrl, method: &'static str, after: Duration, status: Status) -> Self {
        let url = url.to_string();
        if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
            return Self::Timeout { url, method, after, phase: None };
        }
        // A status that came from a node has no cause here.
        if let Some(cause) = status.source() {
            let (what, problem) = looked_into(cause);
            let source = Box::new(status);
            return match what {
                Failed::Connecting => Self::Unreachable { url, problem, source },
                Failed::Connection => Self::Closed { url, method, problem, source },
                Failed::Call => Self::BrokenOff { url, method, problem, source },
            };
        }
        Self::Status(Box::new(Refusal::new(url, status)))
    }

    /// Why a lane had no reply.
    #[must_use]
    pub(super) fn of_failure(url: &NodeUrl, method: &'static str, failure: Failure, after: Duration) -> Self {
        let url = url.to_string();
        let (fault, was_sent) = match failure {
            Failure::Deadline(phase) => return Self::Timeout { url, method, after, phase: Some(phase) },
            Failure::Broken(fault) => (fault, true),
            Failure::Out(fault) => (fault, false),
        };
        let problem = fault.problem.clone();
        // A node that refuses streams for another reason than that it stops has a reason that the caller should know.
        if let Some(status) = fault.status.clone().filter(|status| status.code() != Code::Unavailable) {
            return Self::Status(Box::new(Refusal::new(url, status)));
        }
        let source = || Box::new(fault.status.clone().unwrap_or_else(|| Status::unavailable(&problem)));
        match fault.kind {
            FaultKind::Forked { built_in } => Self::forked(built_in),
            FaultKind::Ended => Self::Ended { url, method },
            FaultKind::Protocol => Self::BadAnswer { url, method, problem },
            FaultKind::Closed if was_sent => Self::Closed { url, method, source: source(), problem },
            _ if was_sent => Self::BrokenOff { url, method, source: source(), problem },
            _ => Self::Unavailable { url, method, problem, after },
        }
    }

    /// That a call may begin of what was built in this process: it is no fork of it.
    #[inline]
    pub(super) fn check_process(built_in: Process) -> Result<(), Self> {
        if built_in.is_current() { Ok(()) } else { Err(Self::forked(built_in)) }
    }

    #[cold]
    fn forked(built_in: Process) -> Self {
        Self::Forked { built_in: built_in.id(), process: std::process::id() }
    }

    /// True where the node is out of service, so that a cache may stand for one that has nothing.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Unreachable { .. }
            | Self::Closed { .. }
            | Self::BrokenOff { .. } => true,
            Self::Status(refusal) => refusal.code == Code::Unavailable,
            _ => false,
        }
    }

    /// The gRPC code that this error counts under, as its name is written: `UNAVAILABLE`.
    #[must_use]
    pub fn code_name(&self) -> &'static str {
        code_name(self.code())
    }

    /// The gRPC code that this error counts under.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::BadUrl(_)
            | Self::NoNode
            | Self::SeveralNodes { .. }
            | Self::BadSetting { .. }
            | Self::ZeroTimeout => Code::InvalidArgument,
            Self::NoThread { .. } => Code::ResourceExhausted,
            Self::InTask | Self::Forked { .. } => Code::FailedPrecondition,
            Self::Source { .. } | Self::Sink { .. } | Self::Ended { .. } => Code::Cancelled,
            Self::Unreachable { .. }
            | Self::Unavailable { .. }
            | Self::Closed { .. }
            | Self::BrokenOff { .. } => Code::Unavailable,
            Self::Timeout { .. } => Code::DeadlineExceeded,
            Self::Status(refusal) => refusal.code,
            Self::BadAnswer { .. } => Code::Internal,
            Self::Value(_) => Code::FailedPrecondition,
        }
    }

    /// True where the caller's own arguments, or what it reads from and writes to, are at fault.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::BadUrl(_)
                | Self::NoNode
                | Self::SeveralNodes { .. }
                | Self::BadSetting { .. }
                | Self::ZeroTimeout
                | Self::InTask
                | Self::Forked { .. }
                | Self::Source { .. }
                | Self::Sink { .. }
        )
    }
}

/// What a reader or writer of a blob fails with. The [`ClientError`] is what [`std::io::Error::get_ref`] gives.
impl From<ClientError> for std::io::Error {
    fn from(error: ClientError) -> Self {
        use std::io::ErrorKind;
        let kind = match (&error, error.code()) {
            // What the caller's own reader or writer said of itself.
            (ClientError::Source { source } | ClientError::Sink { source }, _) => source.kind(),
            (_, Code::InvalidArgument | Code::OutOfRange) => ErrorKind::InvalidInput,
            (_, Code::Unavailable) => ErrorKind::ConnectionAborted,
            (_, Code::DeadlineExceeded) => ErrorKind::TimedOut,
            (_, Code::NotFound) => ErrorKind::NotFound,
            (_, Code::PermissionDenied | Code::Unauthenticated) => ErrorKind::PermissionDenied,
            (_, Code::DataLoss | Code::Internal) => ErrorKind::InvalidData,
            _ => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

fn phase_text(phase: Option<Phase>) -> &'static str {
    match phase {
        None => "",
        Some(Phase::Queue) => " (it waited to be sent: the connection takes no more)",
        Some(Phase::Connect) => " (there was no connection yet)",
        Some(Phase::Server) => " (it was sent)",
    }
}

fn status_text(code: &Code, message: &str, reason: &str) -> String {
    let name = code_name(*code);
    match (message.is_empty(), reason.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{name} ({reason})"),
        (false, true) => format!("{name}: {message}"),
        (false, false) => format!("{name} ({reason}): {message}"),
    }
}

/// What a transport's error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// A connection that never came to be.
    Connecting,
    /// One that was there, and that the other end has closed.
    Connection,
    /// A call on one that is there.
    Call,
}

/// What a transport's error is about, and its innermost cause.
fn looked_into(mut cause: &(dyn StdError + 'static)) -> (Failed, String) {
    let (mut is_connecting, mut is_closed) = (false, false);
    loop {
        is_connecting |= cause.is::<tonic::ConnectError>();
        is_closed |= says_closed(cause);
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => break,
        }
    }
    let what = match (is_closed, is_connecting) {
        (true, _) => Failed::Connection,
        (false, true) => Failed::Connecting,
        (false, false) => Failed::Call,
    };
    (what, cause.to_string())
}

/// Whether an error is one of those by which a socket, HTTP/2 or hyper says that the other end has closed the connection:
/// which of them it is depends on how far the call had come.
fn says_closed(error: &(dyn StdError + 'static)) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let is_end = |kind| {
        matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
    };
    let socket = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let http2 = error.downcast_ref::<h2::Error>().and_then(h2::Error::get_io).map(std::io::Error::kind);
    let is_over = |error: &hyper::Error| error.is_closed() || error.is_canceled();
    socket.or(http2).is_some_and(is_end) || error.downcast_ref::<hyper::Error>().is_some_and(is_over)
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_status_shows_code_reason_and_message() {
        assert_eq!(
            status_text(&Code::NotFound, "no such namespace", "NO_NAMESPACE"),
            "NOT_FOUND (NO_NAMESPACE): no such namespace"
        );
        assert_eq!(status_text(&Code::Internal, "", ""), "INTERNAL");
    }

    #[test]
    fn a_refused_item_says_as_much_as_a_refused_call() {
        let metadata = [("limit".to_owned(), "500".to_owned()), ("unit".to_owned(), "items".to_owned())];
        let details = ErrorDetails::with_error_info("BATCH_TOO_LONG", "larder.dev", metadata);
        let status = Status::with_error_details(Code::ResourceExhausted, "the limit is 500", details);
        let item = rpc::Status::decode(status.details()).unwrap();
        for refusal in [Refusal::new(String::new(), status), Refusal::of_item(String::new(), item)] {
            assert_eq!((refusal.reason.as_str(), refusal.limit), ("BATCH_TOO_LONG", Some(500)));
            assert_eq!(refusal.to_string(), "RESOURCE_EXHAUSTED (BATCH_TOO_LONG): the limit is 500");
        }
    }

    #[test]
    fn tonics_own_timer_is_told_from_a_cancellation() {
        let url: NodeUrl = "tcp://a:1".parse().unwrap();
        let after = Duration::from_secs(5);
        let error = ClientError::from_status(&url, "Get", after, Status::cancelled("Timeout expired"));
        assert!(matches!(error, ClientError::Timeout { .. }) && error.to_string().contains("5s"), "{error}");
        let error = ClientError::from_status(&url, "Get", after, Status::cancelled("by the node"));
        assert_eq!(error.code_name(), "CANCELLED");
    }
}
