//! The ring that a node goes by, and who asks to be told when it goes by another.

use std::sync::Arc;

use tokio::sync::watch;

use crate::membership::{BadDocument, Change, Document, Member};
use crate::ring::{RingConfig, RingError};

/// The ring that a node goes by. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct CurrentRing(Arc<watch::Sender<Arc<AdoptedRing>>>);

/// A document with its ring.
#[derive(Debug)]
pub(crate) struct AdoptedRing {
    /// Its place in the order of rings; 0 where there is none: of a node alone.
    pub(crate) epoch: u64,
    /// What decides who owns which key.
    pub(crate) ring: RingConfig,
    /// The members, in the ring's order.
    pub(crate) members: Vec<Member>,
}

impl CurrentRing {
    /// The ring of a node that is alone.
    ///
    /// # Errors
    /// [`BadDocument`]: its id, weight or zone are out of their bounds, or it would have too many points.
    pub(crate) fn alone(member: Member, points_per_weight: u32) -> Result<Self, BadDocument> {
        let empty = Document::empty(points_per_weight);
        let document = empty.changed(&[Change::Join(member)], 0, 0)?.unwrap_or(empty);
        // It is in no order with any other.
        let adopted = AdoptedRing::new(Document { epoch: 0, ..document })?;
        Ok(Self(Arc::new(watch::Sender::new(Arc::new(adopted)))))
    }

    /// The ring of now.
    #[must_use]
    pub(crate) fn load(&self) -> Arc<AdoptedRing> {
        Arc::clone(&self.0.borrow())
    }

    /// The ring of now, and each later one.
    #[must_use]
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<AdoptedRing>> {
        self.0.subscribe()
    }
}

impl AdoptedRing {
    fn new(document: Document) -> Result<Self, RingError> {
        Ok(Self { epoch: document.epoch, ring: document.ring()?, members: document.members })
    }
}
