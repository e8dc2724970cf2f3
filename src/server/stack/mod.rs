//! The layers around the services, outermost first, each with its reason.

mod deadline;
mod in_flight;
mod repair;

pub use deadline::{Deadline, DeadlineFuture, DeadlineLayer};
pub use in_flight::{InFlight, InFlightFuture, InFlightService};
pub use repair::{Repair, RepairFuture, RepairLayer};
