//! Slow calls: what a call was about, told when it is over, and ListSlowOps.

use http::HeaderMap;

use super::request::{Request, verb_of};
use crate::proto::v1;
use crate::proto::wire::{Field, Reader};
use crate::request::convert;
use crate::request::view::CommandView;
use crate::telemetry::{CallDescription, SlowOps};
use crate::verb::Verb;

/// What a unary request is about, as far as it is here and can be read. No more than `items_max` and one are counted.
pub(super) fn describe(
    verb: Verb,
    message: Option<&[u8]>,
    headers: &HeaderMap,
    items_max: usize,
) -> CallDescription {
    message
        .and_then(|message| about(verb, message, items_max))
        .unwrap_or_default()
        .traced(traceparent(headers))
}

/// What a request is about, if it can be read.
fn about(verb: Verb, message: &[u8], items_max: usize) -> Option<CallDescription> {
    // What a prefix covers is no number of keys.
    Some(match verb {
        Verb::GetBlob => {
            let request = convert::decode::<v1::GetBlobRequest>(message).ok()?;
            CallDescription::new(&request.namespace, &request.key, 1)
        }
        Verb::DeleteBlob => {
            let request = convert::decode::<v1::DeleteBlobRequest>(message).ok()?;
            CallDescription::new(&request.namespace, &request.key, 1)
        }
        Verb::ListBlobs => {
            let request = convert::decode::<v1::ListBlobsRequest>(message).ok()?;
            CallDescription::new(&request.namespace, &request.prefix, 0)
        }
        keyed => Request::decode(keyed, message, items_max).ok()??.describe(),
    })
}

/// The caller's trace context as it came; "" for none and for what is no text.
pub(super) fn traceparent(headers: &HeaderMap) -> &str {
    headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The verb and the content of a Pipeline message's first command.
pub(super) fn describe_first(message: &[u8]) -> Option<(Verb, CallDescription)> {
    let mut reader = Reader::unlimited(message);
    let (mut first, mut commands) = (None, 0);
    while let Ok(Some((number, field))) = reader.next() {
        if let (2, Field::Bytes(command)) = (number, field) {
            commands += 1;
            first = first.or(Some(command));
        }
    }
    let first = CommandView::read(first?).ok()?;
    let (number, message) = first.op?;
    let verb = verb_of(number)?;
    let about = about(verb, message, 0).unwrap_or_default();
    Some((verb, CallDescription { items: commands, ..about }.traced(first.traceparent)))
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
