//! Slow calls: what a call was about, told when it is over, and ListSlowOps.

use http::HeaderMap;

use super::unary::Method;
use crate::api::wire::{
    BatchView, CommandView, DeleteView, Field, GetView, IncrementView, Reader, SetView, TouchView, op,
};
use crate::api::{convert, v1};
use crate::telemetry::{Recalled, SlowOps};
use crate::verb::Verb;

/// A call's future that still knows what it was asked for when it is done.
pub trait Recall {
    /// What the call was about, as far as its request was read. Copies: for calls that were slow.
    fn recall(&self) -> Recalled;
}

/// What a unary request is about, as far as it is here and can be read. No more than `items_max` and one are counted.
pub(super) fn recall(
    method: Method,
    message: Option<&[u8]>,
    headers: &HeaderMap,
    items_max: usize,
) -> Recalled {
    message
        .and_then(|message| about(method, message, items_max))
        .unwrap_or_default()
        .traced(traceparent(headers))
}

fn about(method: Method, message: &[u8], items_max: usize) -> Option<Recalled> {
    let one = |namespace, key| Recalled::new(namespace, key, 1);
    let first = |batch: &BatchView<'_>, key| Recalled::new(batch.namespace, key, batch.items);
    Some(match method {
        Method::Get => GetView::read(message).map(|view| one(view.namespace, view.key)).ok()?,
        Method::Set => SetView::read(message).map(|view| one(view.namespace, view.key)).ok()?,
        Method::Delete => DeleteView::read(message).map(|view| one(view.namespace, view.key)).ok()?,
        Method::Touch => TouchView::read(message).map(|view| one(view.namespace, view.key)).ok()?,
        Method::Increment | Method::Decrement => {
            IncrementView::read(message).map(|view| one(view.namespace, view.key)).ok()?
        }
        Method::BatchGet => {
            let batch = BatchView::read_get(message, items_max).ok()?;
            first(&batch, batch.iter().next().unwrap_or_default())
        }
        Method::BatchDelete => {
            let batch = BatchView::read_write(message, items_max).ok()?;
            first(&batch, batch.iter().next().unwrap_or_default())
        }
        Method::BatchSet => {
            let batch = BatchView::read_write(message, items_max).ok()?;
            let item = batch.iter().next().and_then(|item| SetView::read(item).ok());
            first(&batch, item.map_or(&[][..], |item| item.key))
        }
        // What a prefix covers is no number of keys.
        Method::Scan => {
            let request = convert::decode::<v1::ScanRequest>(message).ok()?;
            Recalled::new(&request.namespace, &request.prefix, 0)
        }
        Method::Invalidate => {
            let request = convert::decode::<v1::InvalidateRequest>(message).ok()?;
            Recalled::new(&request.namespace, &[], 0)
        }
    })
}

/// The caller's trace context as it came; "" for none and for what is no text.
pub(super) fn traceparent(headers: &HeaderMap) -> &str {
    headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The method and the content of a Pipeline message's first command.
pub(super) fn recall_first(message: &[u8]) -> Option<(Verb, Recalled)> {
    let mut reader = Reader::with_items(message, usize::MAX);
    let (mut first, mut commands) = (None, 0);
    while let Ok(Some((number, field))) = reader.next() {
        if let (2, Field::Bytes(command)) = (number, field) {
            commands += 1;
            first = first.or(Some(command));
        }
    }
    let first = CommandView::read(first?).ok()?;
    let (number, message) = first.op?;
    let (named, method) = match number {
        op::GET => (Verb::Get, Method::Get),
        op::SET => (Verb::Set, Method::Set),
        op::DELETE => (Verb::Delete, Method::Delete),
        op::INCREMENT => (Verb::Increment, Method::Increment),
        op::DECREMENT => (Verb::Decrement, Method::Decrement),
        op::TOUCH => (Verb::Touch, Method::Touch),
        _ => return None,
    };
    let about = about(method, message, 0).unwrap_or_default();
    Some((named, Recalled { items: commands, ..about }.traced(first.traceparent)))
}

/// ListSlowOpsResponse.
pub(super) fn slow_ops_response(slow: &SlowOps) -> v1::ListSlowOpsResponse {
    let (latest, total) = slow.latest();
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let ops = latest
        .into_iter()
        .map(|op| v1::SlowOp {
            method: op.verb.name().to_owned(),
            namespace: op.about.namespace,
            key: op.about.key.into(),
            items: op.about.items,
            started_unix_ms: op.started_unix_ms,
            elapsed_ms: ms(op.elapsed),
            queued_ms: ms(op.queued),
            code: op.code as u32,
            peer: op.peer.to_string(),
            traceparent: op.about.traceparent,
        })
        .collect();
    v1::ListSlowOpsResponse { ops, threshold_ms: slow.threshold().map_or(0, ms), total }
}
