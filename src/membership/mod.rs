//! Membership: who belongs to a cluster, written down in one place.
//!
//! ```text
//!   a node ── read, changed ──▶ Document { epoch, members, past } ──▶ ring
//!          ── compare_and_swap ─▶ the next document, if nobody was quicker
//!          ── keep_alive ───────▶ a life: "this incarnation of this id is there", until its time is over
//!                        │
//!                      Store: etcd, file (Kubernetes to come), memory with faults for tests
//! ```
//!
//! The document is the only thing that says who is a member. It is changed as a whole, by compare-and-swap, and each one
//! has a higher epoch than the one before. Health is no part of it: who is well is for each party to see for itself, and
//! moves no key. A store keeps a document and lives, and knows nothing of what they mean; what a node makes of them is
//! not here.

#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "nodes do not use all of it yet"))]
pub mod document;
#[cfg(feature = "testing")]
pub mod etcd;
#[cfg(feature = "testing")]
pub mod file;
#[cfg(feature = "testing")]
pub mod memory;
#[cfg(feature = "testing")]
pub mod spec;
#[cfg(feature = "testing")]
pub mod store;

pub use document::{ADDRESSES_MAX, BadDocument, Change, Document, Member, MemberState};
#[cfg(feature = "testing")]
pub use document::{PastMember, PastRing};
#[cfg(feature = "testing")]
pub use etcd::{BadEtcdAddress, EtcdAddress, EtcdStore};
#[cfg(feature = "testing")]
pub use file::FileStore;
#[cfg(feature = "testing")]
pub use memory::{MemoryFault, MemoryStore};
#[cfg(feature = "testing")]
pub use spec::{BadMembers, MembersSpec, StaticMember};
#[cfg(feature = "testing")]
pub use store::{Life, Revision, Store, StoreError, Stored, Swapped};
