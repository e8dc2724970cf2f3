//! Why a call to the caches or to Admin fails, and the only place that says which gRPC status that is. What is wrong with a
//! call as a gRPC call is a [`GrpcError`], what a layer refuses is the layer's.
//!
//! A miss or an unmet condition is no error and never gets here.
//!
//! What a variant holds of a caller's text is a [`Quote`]; `grpc` bounds the whole.

use tonic::{Code, Status};

use crate::engine::{NamespaceError, Refusal, UnknownPolicy};
use crate::grpc::{Failure, FailureFacts, GrpcError};
use crate::proto::wire::Malformed;
use crate::quote::Quote;

/// Why a call, or an item of one, fails. Whatever fails has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[cfg_attr(feature = "testing", expect(missing_docs, reason = "the messages say what each field is"))]
pub enum CallError {
    #[error("the request is malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error("{field} is empty: a key has 1 to {max} bytes")]
    KeyEmpty { field: String, max: usize },
    #[error("{field} has {bytes} bytes: a key has 1 to {max}")]
    KeyTooLong { field: String, bytes: usize, max: usize },
    #[error("value has {bytes} bytes, the limit is {max} (--max-value); larger objects are blobs")]
    ValueTooLarge { bytes: usize, max: usize },
    #[error("content_type has {bytes} bytes, the limit is {max}")]
    ContentTypeTooLong { bytes: usize, max: usize },
    #[error("the entry has {tags} tags, the limit is {max}")]
    TooManyTags { tags: usize, max: usize },
    #[error("{field} has {bytes} bytes: a tag has 1 to {max}")]
    BadTag { field: String, bytes: usize, max: usize },
    #[error("request_id has {bytes} bytes, the limit is {max}")]
    RequestIdTooLong { bytes: usize, max: usize },
    #[error(
        "expire_at_unix_ms is {at_unix_ms}, {ttl_ms} ms from now, the longest time to live is {max} ms (100 years by default)"
    )]
    ExpiryTooFar { at_unix_ms: u64, ttl_ms: u64, max: u64 },
    #[error("{field} is {ttl_ms} ms, the longest time to live is {max} ms (100 years by default)")]
    TtlTooLong { field: &'static str, ttl_ms: u64, max: u64 },
    #[error("{field} is false: only true is a value here; leave the field out instead")]
    FalseInOneof { field: &'static str },
    #[error("if_version is 0, which no entry has: use if_absent for \"there is none\"")]
    VersionZero,
    #[error("{field} is {value}, which the contract does not name")]
    UnknownEnum { field: &'static str, value: i32 },
    #[error("the command has no op, or more than one")]
    NoOp,
    #[error("the item's {field} is {value}, the batch's is {batch}: leave it empty or make them equal")]
    ItemDiffers { field: &'static str, value: Quote, batch: Quote },
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: String },
    #[error("update_mask: {why}")]
    Mask { why: String },
    #[error("{why}")]
    Setting { field: String, why: String },
    #[error("{why}")]
    NeedsRestart { why: String },
    #[error("{field} has {items} items, the limit is {max}")]
    TooManyItems { field: &'static str, items: usize, max: usize },
    #[error(
        "the node has {max} watchers already, as many as it will hold (--max-watchers): one stream for a process is enough"
    )]
    TooManyWatchers { max: usize },
    #[error(
        "the node has {max} streams of its ring already, as many as it will hold: one for a process is enough"
    )]
    TooManyRingWatchers { max: usize },
    #[error("the batch has {items} items or more, the limit is {max}: send several")]
    BatchTooLong { items: usize, max: usize },
    #[error("only {answered} of {keys} answers fit {max} bytes (--max-message-out): ask for fewer keys")]
    AnswerTooLarge { answered: usize, keys: usize, max: usize },
    #[error(
        "the answer has {bytes} bytes, the limit is {max} (--max-message-out): raise it with larder admin config set"
    )]
    ReportTooLarge { bytes: usize, max: usize },
    #[error(
        "the entry takes {needs} bytes, a shard of the namespace holds at most {limit}: raise --memory or the cap, or lower --shards"
    )]
    EntryTooLarge { needs: u64, limit: u64 },
    #[error(
        "prefixes and tags that were invalidated take {bytes} bytes until all that they cover is taken out, and may take {limit}: try again; to drop everything, invalidate all"
    )]
    Unswept { bytes: u64, limit: u64 },
    #[error(
        "prefixes of {limit} different lengths were invalidated and wait until all that they cover is taken out: try again, or invalidate prefixes of fewer lengths, or a tag"
    )]
    UnsweptLengths { limit: usize },
    #[error(
        "the node's memory is too small for so many namespaces: a shard keeps {bytes} bytes for them beside their entries, and may keep {limit}. Delete some, give them another policy than lfu, or raise --memory"
    )]
    NamespacesTakeTooMuch { bytes: u64, limit: u64 },
    #[error(
        "to know where entries lie on disk takes {bytes} bytes of memory and may take {limit}, half of --memory, so no new key is stored: delete some, let some expire until the next snapshot, or raise --memory"
    )]
    PlacesOnDiskFull { bytes: u64, limit: u64 },
    #[error("{why}")]
    BlobKeysFull { why: String },
    #[error("clients leave too much of what they asked for unread (--max-response-backlog, {max} bytes)")]
    ResponseBacklogFull { max: usize },
    #[error(
        "long requests under way take the {max} bytes that they may (by --memory), and no more of them may wait: try again"
    )]
    RequestsFull { max: usize },
    #[error(
        "the request did not come whole within {seconds} s, while others wait for the memory that it takes: try again"
    )]
    RequestSlow { seconds: u64 },
    #[error(
        "{max} commands of the stream wait for the disk already, or as many as have 256 KiB, and more come in frames that are too short to be left unread: try again"
    )]
    CommandsFull { max: usize },
    #[error(
        "replies of the stream were left unread for {seconds} s, while others wait for the memory that its long message takes; what was not answered was not done: try again, and read faster or send shorter messages"
    )]
    RepliesUnread { seconds: u64 },
    #[error("namespace {name} does not exist; \"\" is the default one")]
    NamespaceNotFound { name: Quote },
    #[error(
        "the journal takes no writes, as the disk failed or the node is stopping: memory and disk must not part; reads go on. See the node's log, mend the disk, restart the node"
    )]
    JournalPoisoned,
    #[error(
        "the disk limit is reached (--disk-limit), or the disk is nearly full, so no write is taken, and no Delete either; reads go on. Delete blobs, clear what is not needed (larder admin clear), make room on the disk, or raise the limit"
    )]
    DiskLimit,
    #[error("a recovery would lose something: {damages} places are damaged, the first: {first}")]
    RecoveryDamaged { damages: u64, first: String },
    #[error("{bytes} bytes of changes wait for the disk, which is slower than they come: try again")]
    JournalBacklog { bytes: u64 },
    #[error(
        "{done} of {keys} keys are done, and {bytes} bytes of changes wait for the disk, which is slower than they come: try again; a key that is deleted already is answered with false then"
    )]
    DeletesBrokenOff { done: usize, keys: usize, bytes: u64 },
    #[error(
        "{what} needs what the node does not keep: with --persistence none nothing is on disk, with --persistence snapshot no change between two snapshots"
    )]
    NoPersistence { what: String },
    #[error("there is no blob {key}")]
    BlobNotFound { key: Quote },
    #[error("offset is {offset}, beyond the blob's end at {size_bytes}")]
    OffsetBeyondEnd { offset: u64, size_bytes: u64 },
    #[error("{field}: {why}")]
    BlobDiffers { field: &'static str, why: String },
    #[error("the blob is damaged on disk: {why}; what was sent of it before is right. Store it again")]
    BlobDamaged { why: String },
    #[error("nothing came of the blob for {waited_s} s, so what came before was dropped")]
    BlobStalled { waited_s: u64 },
    #[error(
        "the blob came at less than {bytes_per_s} bytes/s, while others wait for a place among the streams of blobs, so what came before was dropped: try again, faster"
    )]
    BlobSlow { bytes_per_s: u64 },
    #[error("the node streams {limit} blobs already, as many as it will at once")]
    BlobsOverloaded { limit: usize },
    #[error("there is no room on the node's disk: {why}")]
    DiskFull { why: String },
    #[error("the node's disk failed: {why}")]
    DiskFailed { why: String },
    #[error("the node's operating system has run out of descriptors, memory or threads for a moment: {why}")]
    Shortage { why: String },
    #[error("the namespace was deleted while the call was under way")]
    NamespaceGone,
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(
        "there is no version above those that the node has drawn: its wall clock was once set beyond what versions can hold, or it has an old data directory of such a node; reads go on. Start it with an empty --data-dir"
    )]
    VersionsUsedUp,
    #[error("the value is not a decimal integer of 64 bits")]
    NotAnInteger,
    #[error("{current} {delta:+} does not fit 64 bits; nothing was changed")]
    CounterOverflow { current: i64, delta: i128 },
    #[error(transparent)]
    Policy(#[from] UnknownPolicy),
    #[error("{what} is not served by this build yet")]
    NotServed { what: String },
    #[error("there is no method {path}")]
    NoSuchMethod { path: Quote },
    #[error("the caller gave it up before it was done")]
    Cancelled,
    #[error("the node stays in standby: {why}")]
    CannotListen { why: String },
    #[error("the node stays in standby: {why}")]
    CannotRecover { why: String },
    #[error("the node is {state}: it never serves again; start a new one")]
    Leaving { state: &'static str },
    #[error("the node is {state}: {what}")]
    NotReady { state: &'static str, what: String },
}

impl Failure for CallError {
    fn facts(&self) -> FailureFacts {
        let facts = self.kind();
        FailureFacts { limit: facts.limit.or(self.limit()), ..facts }
    }

    fn refuses_encoding(&self) -> bool {
        matches!(self, Self::Grpc(error) if error.refuses_encoding())
    }
}

impl CallError {
    /// All but the limit.
    fn kind(&self) -> FailureFacts {
        let kind = FailureFacts::new;
        let bad_field = FailureFacts::bad_field;
        use Code::{
            AlreadyExists, Cancelled, DataLoss, DeadlineExceeded, FailedPrecondition, InvalidArgument,
            NotFound, OutOfRange, ResourceExhausted, Unavailable, Unimplemented,
        };
        match self {
            Self::Malformed(_) => kind(InvalidArgument, "MALFORMED_MESSAGE"),
            Self::Grpc(error) => error.facts(),
            Self::KeyEmpty { field, .. } => bad_field("KEY_EMPTY", field),
            Self::KeyTooLong { field, .. } => bad_field("KEY_TOO_LONG", field),
            Self::ContentTypeTooLong { .. } => bad_field("CONTENT_TYPE_TOO_LONG", "content_type"),
            Self::TooManyTags { .. } => bad_field("TOO_MANY_TAGS", "tags"),
            Self::BadTag { field, .. } => bad_field("BAD_TAG", field),
            Self::RequestIdTooLong { .. } => bad_field("REQUEST_ID_TOO_LONG", "request_id"),
            Self::TtlTooLong { field, .. } => bad_field("TTL_TOO_LONG", field),
            Self::ExpiryTooFar { .. } => bad_field("TTL_TOO_LONG", "expire_at_unix_ms"),
            Self::FalseInOneof { field } => bad_field("FALSE_IN_ONEOF", field),
            Self::VersionZero => bad_field("VERSION_ZERO", "if_version"),
            Self::UnknownEnum { field, .. } => bad_field("UNKNOWN_ENUM_VALUE", field),
            Self::NoOp => bad_field("NO_OP", "op"),
            Self::ItemDiffers { field, .. } => bad_field("ITEM_DIFFERS_FROM_BATCH", field),
            Self::Invalid { field, .. } => bad_field("INVALID_VALUE", field),
            Self::Mask { .. } => bad_field("BAD_MASK", "update_mask"),
            Self::Setting { field, .. } => bad_field("INVALID_VALUE", field),
            Self::NeedsRestart { .. } => kind(FailedPrecondition, "NEEDS_RESTART"),
            Self::TooManyItems { field, .. } => bad_field("TOO_MANY_ITEMS", field),
            Self::TooManyWatchers { .. } | Self::TooManyRingWatchers { .. } => {
                kind(ResourceExhausted, "TOO_MANY_WATCHERS").retryable()
            }
            Self::ValueTooLarge { .. } => kind(ResourceExhausted, "VALUE_TOO_LARGE"),
            Self::BatchTooLong { .. } => kind(ResourceExhausted, "BATCH_TOO_LONG"),
            Self::AnswerTooLarge { .. } | Self::ReportTooLarge { .. } => {
                kind(ResourceExhausted, "ANSWER_TOO_LARGE")
            }
            Self::EntryTooLarge { .. } => kind(ResourceExhausted, "ENTRY_TOO_LARGE"),
            Self::Unswept { .. } | Self::UnsweptLengths { .. } => {
                kind(ResourceExhausted, "INVALIDATIONS_UNSWEPT").retryable()
            }
            Self::NamespacesTakeTooMuch { .. } => kind(ResourceExhausted, "NAMESPACES_TAKE_TOO_MUCH"),
            Self::PlacesOnDiskFull { .. } | Self::BlobKeysFull { .. } => {
                kind(ResourceExhausted, "PLACES_ON_DISK_FULL")
            }
            Self::ResponseBacklogFull { .. } => kind(ResourceExhausted, "BACKLOG_FULL").retryable(),
            Self::CommandsFull { .. }
            | Self::RepliesUnread { .. }
            | Self::RequestsFull { .. }
            | Self::RequestSlow { .. } => kind(ResourceExhausted, "OVERLOADED").retryable(),
            Self::NamespaceNotFound { .. } => kind(NotFound, "NAMESPACE_NOT_FOUND"),
            Self::NamespaceGone => kind(NotFound, "NAMESPACE_NOT_FOUND"),
            Self::Namespace(NamespaceError::NotFound { .. }) => kind(NotFound, "NAMESPACE_NOT_FOUND"),
            Self::Namespace(NamespaceError::Exists { .. }) => kind(AlreadyExists, "NAMESPACE_EXISTS"),
            Self::Namespace(NamespaceError::TooMany { .. }) => kind(ResourceExhausted, "TOO_MANY_NAMESPACES"),
            Self::Namespace(_) => bad_field("DEFAULT_NAMESPACE", "name"),
            Self::JournalPoisoned => kind(FailedPrecondition, "JOURNAL_POISONED"),
            Self::RecoveryDamaged { .. } => kind(Code::DataLoss, "RECOVERY_DAMAGED"),
            Self::DiskLimit => kind(ResourceExhausted, "DISK_LIMIT"),
            Self::JournalBacklog { .. } | Self::DeletesBrokenOff { .. } => {
                kind(ResourceExhausted, "JOURNAL_BACKLOG").retryable()
            }
            Self::NoPersistence { .. } => kind(FailedPrecondition, "NO_PERSISTENCE"),
            Self::BlobNotFound { .. } => kind(NotFound, "BLOB_NOT_FOUND"),
            Self::OffsetBeyondEnd { .. } => kind(OutOfRange, "OFFSET_BEYOND_END"),
            Self::BlobDiffers { field, .. } => bad_field("BLOB_DIFFERS", field),
            Self::BlobDamaged { .. } => kind(DataLoss, "BLOB_DAMAGED"),
            Self::BlobStalled { .. } => kind(DeadlineExceeded, "BLOB_STALLED"),
            Self::BlobsOverloaded { .. } | Self::BlobSlow { .. } => {
                kind(ResourceExhausted, "OVERLOADED").retryable()
            }
            Self::DiskFull { .. } => kind(ResourceExhausted, "DISK_FULL"),
            Self::DiskFailed { .. } => kind(FailedPrecondition, "DISK_FAILED"),
            Self::Shortage { .. } => kind(ResourceExhausted, "SHORTAGE").retryable(),
            Self::VersionsUsedUp => kind(FailedPrecondition, "VERSIONS_USED_UP"),
            Self::NotAnInteger => kind(FailedPrecondition, "NOT_AN_INTEGER"),
            Self::CounterOverflow { .. } => kind(OutOfRange, "COUNTER_OVERFLOW"),
            Self::Policy(_) => bad_field("UNKNOWN_POLICY", "policy"),
            Self::NotServed { .. } => kind(Unimplemented, "NOT_SERVED"),
            Self::NoSuchMethod { .. } => kind(Unimplemented, "NO_SUCH_METHOD"),
            Self::Cancelled => kind(Cancelled, "CANCELLED"),
            Self::CannotListen { .. } => kind(FailedPrecondition, "CANNOT_LISTEN"),
            Self::CannotRecover { .. } => kind(FailedPrecondition, "CANNOT_RECOVER"),
            // Nothing that is waited for changes that.
            Self::Leaving { .. } => kind(FailedPrecondition, "LEAVING"),
            Self::NotReady { .. } => kind(Unavailable, "NOT_READY").retryable(),
        }
    }

    /// The limit that was passed and what it counts, for those who would adapt.
    fn limit(&self) -> Option<(u64, &'static str)> {
        let (limit, unit) = match self {
            Self::KeyEmpty { max, .. }
            | Self::KeyTooLong { max, .. }
            | Self::ValueTooLarge { max, .. }
            | Self::ContentTypeTooLong { max, .. }
            | Self::BadTag { max, .. }
            | Self::RequestIdTooLong { max, .. }
            | Self::AnswerTooLarge { max, .. }
            | Self::ReportTooLarge { max, .. }
            | Self::ResponseBacklogFull { max } => (*max as u64, "bytes"),
            Self::EntryTooLarge { limit, .. } => (*limit, "bytes"),
            Self::TtlTooLong { max, .. } | Self::ExpiryTooFar { max, .. } => (*max, "ms"),
            Self::TooManyTags { max, .. } => (*max as u64, "tags"),
            Self::BatchTooLong { max, .. } | Self::TooManyItems { max, .. } => (*max as u64, "items"),
            Self::TooManyWatchers { max } | Self::TooManyRingWatchers { max } => (*max as u64, "watchers"),
            Self::CommandsFull { max } => (*max as u64, "commands"),
            Self::BlobsOverloaded { limit } => (*limit as u64, "blobs"),
            Self::Namespace(NamespaceError::TooMany { max }) => (*max as u64, "namespaces"),
            Self::Malformed(Malformed::Fields { max }) => (*max as u64, "fields"),
            _ => return None,
        };
        Some((limit, unit))
    }

    /// The end of a stream whose listener closes.
    pub(crate) fn stream_ends() -> Self {
        let what = "the stream ends; open one on another node".to_owned();
        Self::NotReady { state: "draining", what }
    }

    /// The error for an operation that the engine refused.
    #[must_use]
    pub fn refused(refusal: Refusal, delta: i128) -> Self {
        match refusal {
            Refusal::NotAnInteger => Self::NotAnInteger,
            Refusal::CounterOverflow { current } => Self::CounterOverflow { current, delta },
            Refusal::TooLarge { needs, limit } => Self::EntryTooLarge { needs, limit },
            Refusal::Unswept { bytes, limit } => Self::Unswept { bytes, limit },
            Refusal::UnsweptLengths { limit } => Self::UnsweptLengths { limit },
            Refusal::NamespacesTakeTooMuch { bytes, limit } => Self::NamespacesTakeTooMuch { bytes, limit },
            Refusal::PlacesOnDiskFull { bytes, limit } => Self::PlacesOnDiskFull { bytes, limit },
            Refusal::NoNamespace => Self::NamespaceGone,
            Refusal::NoVersion => Self::VersionsUsedUp,
            Refusal::Poisoned => Self::JournalPoisoned,
            Refusal::Unreadable => {
                Self::DiskFailed { why: "the entry lies there and cannot be read".to_owned() }
            }
            Refusal::Shortage => Self::Shortage { why: "the entry cannot be read; try again".to_owned() },
            Refusal::DiskLimit => Self::DiskLimit,
            Refusal::Backlogged { bytes } => Self::JournalBacklog { bytes },
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        error.to_status()
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;
    use crate::grpc::bound_status;

    #[test]
    fn a_status_carries_reason_field_and_retry() {
        let status = Status::from(CallError::KeyEmpty { field: "keys[3]".to_owned(), max: 4096 });
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "KEY_EMPTY");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "keys[3]");
        assert!(details.retry_info().is_none());
        let overload = Status::from(CallError::BlobsOverloaded { limit: 1 }).get_error_details();
        assert!(overload.retry_info().is_some());
    }

    #[test]
    fn a_limit_error_tells_the_limit_and_what_it_counts() {
        let told = |error: CallError| {
            let info = Status::from(error).get_error_details().error_info().unwrap().clone();
            (info.metadata.get("limit").cloned(), info.metadata.get("unit").cloned())
        };
        let said = |limit: &str, unit: &str| (Some(limit.to_owned()), Some(unit.to_owned()));
        assert_eq!(told(CallError::BatchTooLong { items: 501, max: 500 }), said("500", "items"));
        assert_eq!(told(CallError::ValueTooLarge { bytes: 9, max: 8 }), said("8", "bytes"));
        assert_eq!(told(CallError::NotAnInteger), (None, None));
    }

    #[test]
    fn no_callers_text_makes_a_status_long() {
        let text = "\u{1f980}\n\"".repeat(100_000);
        let why = || Quote::of(&text).to_string();
        let errors = [
            CallError::NamespaceNotFound { name: Quote::of(&text) },
            CallError::ItemDiffers { field: "namespace", value: Quote::of(&text), batch: Quote::of(&text) },
            CallError::BlobNotFound { key: Quote::of(&[0xff; 4_096][..]) },
            CallError::NoSuchMethod { path: Quote::of(&text) },
            GrpcError::Compressed { encoding: Quote::of(&text) }.into(),
            text.parse::<crate::engine::PolicyName>().unwrap_err().into(),
            NamespaceError::Exists { name: Quote::of(&text) }.into(),
            GrpcError::Header { name: "grpc-timeout", why: why() }.into(),
            // What is not the caller's text, and long all the same.
            CallError::DiskFailed { why: text.clone() },
            CallError::Setting { field: "memory_bytes".to_owned(), why: text },
        ];
        for error in errors {
            let mut headers = http::HeaderMap::new();
            Status::from(error.clone()).add_header(&mut headers).unwrap();
            let before = headers.clone();
            bound_status(&mut headers);
            assert_eq!(headers, before, "{error:?} is within the bounds as it is made");
            let message = Status::from(error.clone()).message().len();
            assert!(
                message < 700 || matches!(error, CallError::DiskFailed { .. } | CallError::Setting { .. })
            );
        }
    }
}
