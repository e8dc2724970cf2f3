//! The layers around a listener's services, outermost first, each with its reason.
//!
//! | layer | why |
//! |---|---|
//! | [`TraceLayer`](crate::telemetry::trace::TraceLayer) | a sampled call gets its span before anything can fail it; an unsampled one pays nothing |
//! | [`MetricsLayer`] | counts what callers see: also what the layers below refuse; keeps what was slow |
//! | [`RepairLayer`] | puts statuses right that generated services give otherwise than the contract |
//! | [`DeadlineLayer`] | outside of the queue: time spent waiting counts |
//! | [`InFlight`] | bounds what waits, and sheds the rest at once |
//!
//! They are generic and none boxes its future: a call through all of them allocates nothing.

mod arriving;
mod deadline;
mod error;
mod in_flight;
mod metrics;
mod repair;
mod unread;

pub(super) use unread::{AnswersUnread, LayUnread, timeout_of, unread_refusal};

pub use deadline::{CallTimeout, DeadlineLayer};
pub use in_flight::InFlight;
pub use metrics::MetricsLayer;
pub use repair::RepairLayer;
