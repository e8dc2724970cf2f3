//! Slow calls: what a call was about, told when it is over, and ListSlowOps.

use http::HeaderMap;
use prost::Message;

use super::unary::Method;
use crate::api::v1;
use crate::api::wire::{
    BatchView, CommandView, DeleteView, Field, GetView, IncrementView, Reader, SetView, TouchView, op,
};
use crate::telemetry::{Method as Named, Recalled, SlowOps};

/// A call's future that still knows what it was asked for when it is done.
pub trait Recall {
    /// What the call was about, as far as its request was read. Copies: for calls that were slow.
    fn recall(&self) -> Recalled;
}

/// What a unary request is about, if it can be read.
pub(super) fn recall(method: Method, message: &[u8], headers: &HeaderMap) -> Recalled {
    let with_trace = |about| Recalled { traceparent: traceparent(headers), ..about };
    let about = match method {
        Method::Get => GetView::read(message).map(|view| Recalled::new(view.namespace, view.key, 1)),
        Method::Set => SetView::read(message).map(|view| Recalled::new(view.namespace, view.key, 1)),
        Method::Delete => DeleteView::read(message).map(|view| Recalled::new(view.namespace, view.key, 1)),
        Method::Touch => TouchView::read(message).map(|view| Recalled::new(view.namespace, view.key, 1)),
        Method::Increment | Method::Decrement => {
            IncrementView::read(message).map(|view| Recalled::new(view.namespace, view.key, 1))
        }
        Method::BatchGet => BatchView::read_get(message)
            .map(|view| Recalled::new(view.namespace, view.iter().next().unwrap_or_default(), view.items)),
        Method::BatchDelete => BatchView::read_write(message)
            .map(|view| Recalled::new(view.namespace, view.iter().next().unwrap_or_default(), view.items)),
        // What a prefix covers is no number of keys.
        Method::Scan => {
            return v1::ScanRequest::decode(message)
                .map(|request| Recalled::new(&request.namespace, &request.prefix, 0))
                .map(with_trace)
                .unwrap_or_default();
        }
        Method::Invalidate => {
            return v1::InvalidateRequest::decode(message)
                .map(|request| Recalled::new(&request.namespace, &[], 0))
                .map(with_trace)
                .unwrap_or_default();
        }
        Method::BatchSet => BatchView::read_write(message).map(|view| {
            let first = view.iter().next().and_then(|item| SetView::read(item).ok());
            Recalled::new(view.namespace, first.map_or(&[][..], |item| item.key), view.items)
        }),
    };
    with_trace(about.unwrap_or_default())
}

/// The caller's trace context as it came; "" for none and for what is no text.
pub(super) fn traceparent(headers: &HeaderMap) -> String {
    let text = headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default();
    // One of 55 bytes is whole; a later version may have more behind it.
    text.chars().take(TRACEPARENT_BYTES_MAX).collect()
}

const TRACEPARENT_BYTES_MAX: usize = 128;

/// The method and the content of the first command of a Pipeline message of `commands`.
pub(super) fn recall_first(message: &[u8], commands: usize) -> Option<(Named, Recalled)> {
    let mut reader = Reader::new(message);
    let first = loop {
        if let (2, Field::Bytes(command)) = reader.next().ok()?? {
            break CommandView::read(command).ok()?;
        }
    };
    let (number, message) = first.op?;
    let (named, method) = match number {
        op::GET => (Named::Get, Method::Get),
        op::SET => (Named::Set, Method::Set),
        op::DELETE => (Named::Delete, Method::Delete),
        op::INCREMENT => (Named::Increment, Method::Increment),
        op::DECREMENT => (Named::Decrement, Method::Decrement),
        op::TOUCH => (Named::Touch, Method::Touch),
        _ => return None,
    };
    let about = recall(method, message, &HeaderMap::new());
    let items = u32::try_from(commands).unwrap_or(u32::MAX);
    Some((named, Recalled { items, traceparent: first.traceparent.to_owned(), ..about }))
}

/// ListSlowOpsResponse.
pub(super) fn slow_ops_response(slow: &SlowOps) -> v1::ListSlowOpsResponse {
    let (latest, total) = slow.latest();
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let ops = latest
        .into_iter()
        .map(|op| v1::SlowOp {
            method: op.method.name().to_owned(),
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
