//! An executable model of the rules by which a Larder cluster keeps reads true while its membership changes.
//!
//! The property: a Get never returns a value that was replaced, deleted or invalidated before the Get began. It is judged
//! by real time and not by versions: a value is stale if its Set was over before something began (a Set, a Delete, an
//! invalidation) that was acknowledged before the Get began. A miss is always allowed.
//!
//! ```text
//!  explorer   seeded random walks ──▶ a failing schedule ──▶ shrink ──▶ schedules/*.txt, recorded
//!     │                                                                     │ replay
//!     ▼                                                                     ▼
//!  step       one action on the state: enabled or skipped
//!     ├── membership   R1 adopt, R2 confirmed, R3 barrier, R3a settled, R3b kept and gained
//!     ├── writing      R3a to R5: joins, leaves, weights, removals, a restored store, starts and copies
//!     └── calls        Get, Set, Delete, Invalidate; hand-over (§5); the property
//!  state, document     small numbers in fixed arrays, changed in place
//!  rules               a switch for each rule, all on
//! ```
//!
//! # The walker is our own
//! stateright 0.31 was measured on this state (2.1 kB; `spawn_simulation`, one thread, 270 candidate actions a state, which
//! is fewer than there are): 0.18 M states/s, as it lists all actions of a state and clones and hashes it at each step. The
//! walker here does 4 to 5 M steps/s on the same machine, as it draws one action and changes the state in place.
//!
//! # What it found in the contract
//! The rules marked ° are needed, each for itself. Around them, as CLUSTER.md had them when this was written, there are
//! schedules that break the promise; the repairs are switches of their own (the last ones of [`Rule`]):
//! - R4, mass removal: a majority of the new document's own voters and the store is not enough. All of its members must have
//!   acknowledged it ([`Rule::MassEverybody`]), and so must the voters of its unsettled predecessors that have not been
//!   absent for `--mass-absence-after` ([`Rule::MassPredecessors`]), and then 1.1 × aa pass. The lease must have been gone
//!   for that long as well ([`Rule::MassLease`]). The exception must speak of the last settled document too
//!   ([`Rule::MassException`]).
//! - §2, a store restored from a backup: a voter that forgets is no voter. It must not be used before all running processes
//!   were reached, the newest document put back ([`Rule::RestoreFenced`]) and all nodes emptied ([`Rule::RestoreEmpties`]).
//! - R5 and R3, copies of a data directory: a warm start must rename itself in the document ([`Rule::WarmRenamed`]), and a
//!   lock proves nothing about the directory that it was copied from ([`Rule::LockOfCopy`]).
//! - R3: 1.1 covers clocks that are at most 10 % apart from each other, not from true time ([`recorded_clocks`]), and clocks
//!   that count what was slept ([`recorded_suspended`]).
//!
//! R3b and "any further change of the key's owner drops them" of §5 are one rule here, and a simpler one: adopting a document
//! applies each document between in turn, and where one is missing, clears.
//!
//! # What is simplified
//! - Time is in ticks. aa is 10 ticks of the fastest clock and 11 of the slowest (rates 20, 21 or 22 21sts of true time),
//!   `--mass-absence-after` 3 × aa, the "one minute" of R4 60 ticks; a document names 4 earlier ones and not 16.
//! - There is one shard, so that adopting a document is one step; 3 keys; owners by a table look-up.
//! - A question for confirmation, a forwarded call and an invalidation's hop may be one step; confirmations and hand-over
//!   also travel as messages that are delayed, reordered and lost. A call may come late instead of being delayed.
//! - The caller's epoch is checked only for callers with a ring; a forward is judged by the owner alone.
//! - Values have no versions, TTL or tags; there are no conditional operations, counters, leases of values, blobs or
//!   origins, no RESTARTING, and Invalidate means everything. So the hybrid clock of R3 is not modelled.
//! - A pause is a process that does nothing while its clock goes on. A machine whose clock stands still while it is suspended
//!   breaks R2 (`schedules/beyond/suspended.txt`), and walks leave it out.
//! - A walk has at most 60 documents and 31 incarnations. Only safety is looked at: nothing says that a barrier ever passes.

mod action;
mod calls;
mod document;
mod explorer;
mod membership;
mod recorded;
mod rules;
mod schedule;
mod shrink;
mod state;
mod step;
mod writing;

pub use action::{Action, Argument, Kind};
pub use explorer::{Config, Exploration, Outcome, explore, replay};
pub use recorded::{recorded, recorded_clocks, recorded_suspended};
pub use rules::{Rule, Rules};
pub use schedule::{Schedule, Setup};
pub use shrink::shrink;
pub use state::{Counts, KEYS, NODES_MAX, PROCESSES_MAX};
