//! A shard's stream of changes, and all that follow it: the journal's log ([`super::log`]), and the events of those that
//! keep copies of entries ([`super::events`]).
//!
//! A change is formulated once, as a [`Record`], under the shard's lock, and each follower writes down what it needs of it.
//! So both have the changes of a shard in the same order. While nothing follows, a change costs the look at two pointers.

use super::events::{EventScope, ShardEvents};
use super::log::{Record, ShardLog};
use super::namespace::Namespace;
use super::op::Refusal;
use super::shard::Scope;
use crate::entry::Version;

/// What follows a shard's changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The journal's log, if there is one.
    pub(super) journal: Option<Box<ShardLog>>,
    /// The events, while somebody watches or has of late.
    pub(super) events: Option<Box<ShardEvents>>,
}

impl Changes {
    /// Whether a change has to be formulated.
    #[inline]
    pub(super) fn are_followed(&self) -> bool {
        self.journal.is_some() || self.events.is_some()
    }

    /// Whether copies of entries are told of changes.
    #[inline]
    pub(super) fn are_watched(&self) -> bool {
        self.events.is_some()
    }

    /// Why no write is accepted now, if none is.
    #[inline]
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.journal.as_ref().and_then(|journal| journal.refusal())
    }

    /// A change of one key. Copies of its entry that are older than `until` are untrue; `None`: no copy became untrue.
    #[inline]
    pub(super) fn add(&mut self, namespace: &Namespace, record: &Record<'_>, until: Option<Version>) {
        if let Some(journal) = &mut self.journal {
            journal.add(record);
        }
        if let (Some(events), Some(until)) = (&mut self.events, until)
            && let Some(key) = record.key()
        {
            events.add(namespace.name(), EventScope::Key(key), until);
        }
    }

    /// Something happens in all shards at once, whose record stands once. `untrue` is what copies became untrue of, and
    /// `until` up to which version, asked only if anybody wants to know.
    pub(super) fn barrier(
        &mut self,
        untrue: Option<(&Namespace, Scope<'_>)>,
        until: impl FnOnce() -> Version,
    ) {
        if let Some(journal) = &mut self.journal {
            journal.barrier();
        }
        if let (Some(events), Some((namespace, scope))) = (&mut self.events, untrue) {
            events.add(namespace.name(), scope.into(), until());
        }
    }
}
