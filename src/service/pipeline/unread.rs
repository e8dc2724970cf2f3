//! What a stream holds of long messages while its client has replies to read: it gives way to others after a while.
//!
//! Nobody asks a stream for its next frame before its client has read the one before. So a client that reads slowly, or
//! not at all, would keep the place of its message in the budget of long requests for as long as it likes. Until the
//! stream is asked again its message lies here, where a task may take it: when others wait for what it takes, and the
//! time for a request to come has passed. The stream ends then.

use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::commands::Message;
use crate::request::CallError;
use crate::service::long_requests::{ARRIVES_WITHIN, LongRequests, RequestPermit};

/// What a stream holds.
pub(super) struct StreamBuffers {
    /// The message that is being worked on.
    pub(super) message: Option<Message>,
    /// The place of the one that is being read, and what has come of it.
    pub(super) permit: Option<RequestPermit>,
    pub(super) partial: BytesMut,
}

/// What a stream holds, until it is asked for its next frame.
pub(super) struct ParkedBuffers {
    held: Arc<Mutex<Option<StreamBuffers>>>,
    watch: AbortHandle,
}

impl ParkedBuffers {
    pub(super) fn new(held: StreamBuffers, requests: &LongRequests) -> Self {
        let held = Arc::new(Mutex::new(Some(held)));
        let (watched, wanted) = (Arc::downgrade(&held), requests.clone().wanted());
        let watch = tokio::spawn(async move {
            wanted.await;
            if let Some(held) = watched.upgrade() {
                held.lock().take();
            }
        });
        Self { held, watch: watch.abort_handle() }
    }

    /// Gives it back.
    ///
    /// # Errors
    /// It gave way to others.
    pub(super) fn take_back(self) -> Result<StreamBuffers, CallError> {
        let held = self.held.lock().take();
        held.ok_or(CallError::RepliesUnread { seconds: ARRIVES_WITHIN.as_secs() })
    }
}

impl Drop for ParkedBuffers {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
