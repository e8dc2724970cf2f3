//! A store in memory that fails as it is told to: for tests and simulations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::document::Document;
use super::store::{Life, Revision, Store, StoreError, Stored, Swapped, read_document};
use crate::clock::monotonic;

/// A store in memory. A clone is another way to the same content, with faults of its own.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    fault: Arc<watch::Sender<MemoryFault>>,
}

/// What a store does wrong, on one way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryFault {
    /// Nothing.
    #[default]
    None,
    /// It refuses everything.
    Down,
    /// It answers nothing.
    Silent,
    /// It answers after this time.
    Slow(Duration),
    /// It refuses to write.
    Full,
    /// It does what it is asked, and its answer is lost.
    Mute,
    /// What it has is no document.
    Nonsense,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    revision: u64,
    document: Option<Document>,
    lives: BTreeMap<Life, Instant>,
}

const NAME: &str = "memory";

impl Default for MemoryStore {
    fn default() -> Self {
        Self::to(Arc::new(Shared { kept: Mutex::default(), revision: watch::Sender::new(0) }))
    }
}

impl MemoryStore {
    /// Another way to the same content, without faults: of another node.
    #[must_use]
    pub fn another_way(&self) -> Self {
        Self::to(self.shared.clone())
    }

    /// A way to this content, without faults.
    fn to(shared: Arc<Shared>) -> Self {
        Self { shared, fault: Arc::new(watch::Sender::new(MemoryFault::None)) }
    }

    /// What goes wrong on this way from now on. What waits now learns of it.
    pub fn set_fault(&self, fault: MemoryFault) {
        self.fault.send_replace(fault);
    }

    /// Ends every life, as a store does that has lost its leases.
    pub fn drop_lives(&self) {
        self.shared.kept.lock().lives.clear();
    }

    /// The document that it has.
    #[must_use]
    pub fn document(&self) -> Option<Document> {
        self.shared.kept.lock().document.clone()
    }

    /// Puts a document there that it may have had before, as from a backup.
    pub fn restore(&self, document: Option<Document>) {
        self.put(&mut self.shared.kept.lock(), document);
    }

    fn put(&self, kept: &mut Kept, document: Option<Document>) -> Revision {
        kept.revision += 1;
        kept.document = document;
        self.shared.revision.send_replace(kept.revision);
        Revision(kept.revision.to_string())
    }

    /// Does something as the fault says that it is done.
    async fn faulty<T>(
        &self,
        writes: bool,
        work: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let unavailable = |problem: &str| {
            Err(StoreError::Unavailable { store: NAME.to_owned(), problem: problem.to_owned() })
        };
        let mut fault = self.fault.subscribe();
        let in_force = *fault.borrow_and_update();
        match in_force {
            MemoryFault::None => work(),
            MemoryFault::Down => unavailable("it is down"),
            MemoryFault::Silent => {
                // Until something else is wrong with it, which breaks the connection.
                let _ = fault.changed().await;
                unavailable("the connection was lost")
            }
            MemoryFault::Slow(time) => {
                tokio::time::sleep(time).await;
                work()
            }
            MemoryFault::Full if writes => {
                Err(StoreError::NotWritten { store: NAME.to_owned(), problem: "it is full".to_owned() })
            }
            MemoryFault::Full => work(),
            MemoryFault::Mute => work().and_then(|_| unavailable("its answer was lost")),
            MemoryFault::Nonsense => read_document(NAME, b"nonsense").and_then(|_| work()),
        }
    }

    fn stored(&self) -> Stored {
        let mut kept = self.shared.kept.lock();
        let now = monotonic();
        kept.lives.retain(|_, until| now < *until);
        Stored {
            revision: Revision(kept.revision.to_string()),
            document: kept.document.clone(),
            lives: kept.lives.keys().cloned().collect(),
        }
    }

    fn swap(&self, expected: &Revision, document: &Document) -> Swapped {
        let mut kept = self.shared.kept.lock();
        if kept.revision.to_string() != expected.0 {
            return Swapped::Outdone;
        }
        Swapped::Written(self.put(&mut kept, Some(document.clone())))
    }

    fn live(&self, life: &Life, ttl: Duration) {
        let mut kept = self.shared.kept.lock();
        if ttl.is_zero() {
            kept.lives.remove(life);
        } else {
            kept.lives.insert(life.clone(), monotonic() + ttl);
        }
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &str {
        NAME
    }

    fn read(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        self.faulty(false, || Ok(self.stored())).boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        expected: &'a Revision,
        document: &'a Document,
    ) -> BoxFuture<'a, Result<Swapped, StoreError>> {
        self.faulty(true, || Ok(self.swap(expected, document))).boxed()
    }

    fn changed<'a>(&'a self, since: &'a Revision) -> BoxFuture<'a, Result<Stored, StoreError>> {
        let wait = async {
            let (mut revision, mut fault) = (self.shared.revision.subscribe(), self.fault.subscribe());
            let is_another = |revision: &u64| revision.to_string() != since.0;
            tokio::select! {
                _ = revision.wait_for(is_another) => {}
                _ = fault.changed() => {}
            }
            self.read().await
        };
        wait.boxed()
    }

    fn keep_alive<'a>(&'a self, life: &'a Life, ttl: Duration) -> BoxFuture<'a, Result<(), StoreError>> {
        let keep = move || {
            self.live(life, ttl);
            Ok(())
        };
        self.faulty(true, keep).boxed()
    }
}
