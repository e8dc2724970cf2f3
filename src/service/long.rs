//! Calls that take long: done on a thread that may block, or in turns with others.
//!
//! One that changes something goes on to its end when nobody waits for it any more, so that what it changes is changed
//! whole. None has begun when its future is first polled: what is turned away then, because too many wait, has changed
//! nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::task::{spawn_blocking, yield_now};

use super::below::joined;
use super::data::Plane;
use super::turns::Turns;
use super::unary::{Answered, Method, call, in_turns};
use crate::cache::Cache;
use crate::telemetry::Recalled;

/// A unary call that takes long.
pub struct LongCall {
    call: Pin<Box<dyn Future<Output = Answered> + Send>>,
    plane: Arc<Plane>,
    recalled: Recalled,
}

impl std::fmt::Debug for LongCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LongCall").finish_non_exhaustive()
    }
}

impl LongCall {
    /// One that may block, as it looks for entries on disk.
    pub(super) fn blocking(method: Method, plane: &Arc<Plane>, message: Bytes, recalled: Recalled) -> Self {
        let works_on = Arc::clone(plane);
        let done = async move {
            yield_now().await;
            joined(spawn_blocking(move || call(method, &works_on, &message))).await
        };
        Self { call: Box::pin(done), plane: Arc::clone(plane), recalled }
    }

    /// One that is done in turns.
    pub(super) fn in_turns(method: Method, plane: &Arc<Plane>, message: Bytes, recalled: Recalled) -> Self {
        let works_on = Arc::clone(plane);
        let work = async move { in_turns(method, &works_on, &message, Turns::many()).await };
        let done: Pin<Box<dyn Future<Output = Answered> + Send>> = if method.is_write() {
            Box::pin(async move {
                yield_now().await;
                joined(tokio::spawn(work)).await
            })
        } else {
            Box::pin(async move {
                yield_now().await;
                work.await
            })
        };
        Self { call: done, plane: Arc::clone(plane), recalled }
    }

    pub(super) fn cache(&self) -> &Arc<Cache> {
        &self.plane.cache
    }

    pub(super) fn recalled(&self) -> &Recalled {
        &self.recalled
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answered> {
        self.call.as_mut().poll(cx)
    }
}
