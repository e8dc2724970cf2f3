//! The views against the generated types, on the same bytes: for the property tests and for fuzz/.

use prost::Message;

use super::{
    BatchView, CommandView, ConditionView, DeleteView, ExpirationView, GetView, IncrementView, SetView,
    TouchView,
};
use crate::proto::v1;
use crate::proto::wire::{FIELDS_MAX, op};

pub(super) fn get_view(request: &v1::GetRequest) -> GetView<'_> {
    GetView {
        namespace: &request.namespace,
        key: &request.key,
        touch_ttl_ms: request.touch_ttl_ms,
        max_stale_ms: request.max_stale_ms,
        lease_ms: request.lease_ms,
        wait_ms: request.wait_ms,
        metadata_only: request.metadata_only,
    }
}

pub(super) fn set_view(request: &v1::SetRequest) -> SetView<'_> {
    use v1::set_request::{Condition, Expiration};
    SetView {
        namespace: &request.namespace,
        key: &request.key,
        value: &request.value,
        expiration: request.expiration.map(|expiration| match expiration {
            Expiration::TtlMs(ms) => ExpirationView::TtlMs(ms),
            Expiration::ExpireAtUnixMs(ms) => ExpirationView::ExpireAtUnixMs(ms),
            Expiration::KeepTtl(keep) => ExpirationView::KeepTtl(keep),
        }),
        condition: request.condition.map(|condition| match condition {
            Condition::IfAbsent(holds) => ConditionView::IfAbsent(holds),
            Condition::IfPresent(holds) => ConditionView::IfPresent(holds),
            Condition::IfVersion(version) => ConditionView::IfVersion(version),
        }),
        flags: request.flags,
        content_type: &request.content_type,
        tags: request.tags.iter().map(String::as_str).collect(),
        soft_ttl_ms: request.soft_ttl_ms,
        jitter_percent: request.jitter_percent,
        lease_token: request.lease_token,
        durability: request.durability,
    }
}

fn increment_view(request: &v1::IncrementRequest) -> IncrementView<'_> {
    IncrementView {
        namespace: &request.namespace,
        key: &request.key,
        delta: request.delta,
        initial: request.initial,
        ttl_ms: request.ttl_ms,
        request_id: &request.request_id,
        durability: request.durability,
    }
}

/// Reads the same bytes both ways, as every message there is a view of. What has more fields than a view reads is passed
/// over.
///
/// # Panics
/// Where one reads what the other refuses, or reads it otherwise.
pub(crate) fn agree(bytes: &[u8]) {
    if bytes.len() > FIELDS_MAX {
        return;
    }
    let generated = v1::GetRequest::decode(bytes);
    assert_eq!(GetView::read(bytes).ok(), generated.as_ref().ok().map(get_view), "Get");
    let generated = v1::SetRequest::decode(bytes);
    assert_eq!(SetView::read(bytes).ok(), generated.as_ref().ok().map(set_view), "Set");
    let generated = v1::IncrementRequest::decode(bytes);
    assert_eq!(IncrementView::read(bytes).ok(), generated.as_ref().ok().map(increment_view), "Increment");
    let generated = v1::DeleteRequest::decode(bytes).ok();
    let view = generated.as_ref().map(|request| DeleteView {
        namespace: &request.namespace,
        key: &request.key,
        if_version: request.if_version,
        durability: request.durability,
    });
    assert_eq!(DeleteView::read(bytes).ok(), view, "Delete");
    let generated = v1::TouchRequest::decode(bytes).ok();
    let view = generated.as_ref().map(|request| TouchView {
        namespace: &request.namespace,
        key: &request.key,
        ttl_ms: request.ttl_ms,
    });
    assert_eq!(TouchView::read(bytes).ok(), view, "Touch");
    batches_agree(bytes);
    command_agrees(bytes);
}

fn batches_agree(bytes: &[u8]) {
    let keys = |view: &BatchView<'_>| view.iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let read =
        BatchView::read_get(bytes, bytes.len()).ok().map(|view| (view.namespace, view.items, keys(&view)));
    let generated = v1::BatchGetRequest::decode(bytes).ok();
    let expected = generated.as_ref().map(|request| {
        (&*request.namespace, request.keys.len(), request.keys.iter().map(|key| key.to_vec()).collect())
    });
    assert_eq!(read, expected, "BatchGet");

    let view = BatchView::read_write(bytes, bytes.len()).ok();
    let read = view.map(|view| (view.namespace, view.durability, view.items, keys(&view)));
    let generated = v1::BatchDeleteRequest::decode(bytes).ok();
    let expected = generated.as_ref().map(|request| {
        let keys = request.keys.iter().map(|key| key.to_vec()).collect();
        (&*request.namespace, request.durability, request.keys.len(), keys)
    });
    assert_eq!(read, expected, "BatchDelete");

    // A batch of Sets is read in two steps: the batch, then each item.
    let read = view.and_then(|view| {
        let items: Option<Vec<_>> = view.iter().map(|item| SetView::read(item).ok()).collect();
        Some((view.namespace, view.durability, items?))
    });
    let generated = v1::BatchSetRequest::decode(bytes).ok();
    let expected = generated.as_ref().map(|request| {
        (&*request.namespace, request.durability, request.items.iter().map(set_view).collect())
    });
    assert_eq!(read, expected, "BatchSet");
}

fn command_agrees(bytes: &[u8]) {
    use v1::pipeline_command::Op;
    let Ok(generated) = v1::PipelineCommand::decode(bytes) else { return };
    let view = CommandView::read(bytes).expect("what the generated type reads, the view reads");
    assert_eq!(
        (view.id, view.timeout_ms, view.traceparent),
        (generated.id, generated.timeout_ms, &*generated.traceparent)
    );
    // The generated type merges an op that is set more than once; the view has none then.
    let Some((number, message)) = view.op else { return };
    match generated.op.expect("an op that the view has") {
        Op::Get(request) => {
            assert_eq!((number, GetView::read(message)), (op::GET, Ok(get_view(&request))));
        }
        Op::Set(request) => {
            assert_eq!((number, SetView::read(message)), (op::SET, Ok(set_view(&request))));
        }
        Op::Increment(request) => {
            assert_eq!((number, IncrementView::read(message)), (op::INCREMENT, Ok(increment_view(&request))));
        }
        Op::Delete(_) => assert_eq!((number, DeleteView::read(message).is_ok()), (op::DELETE, true)),
        Op::Decrement(_) => assert_eq!((number, IncrementView::read(message).is_ok()), (op::DECREMENT, true)),
        Op::Touch(_) => assert_eq!((number, TouchView::read(message).is_ok()), (op::TOUCH, true)),
        Op::Cancel(_) => assert_eq!(number, op::CANCEL),
    }
}
