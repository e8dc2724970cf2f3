//! The views against the generated types: what one writes the other reads as the same, and what one refuses the
//! other does.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::api::v1;

fn get_view(request: &v1::GetRequest) -> GetView<'_> {
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

fn set_view(request: &v1::SetRequest) -> SetView<'_> {
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
        tags: request.tags.len(),
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

/// Both readers on the same bytes: equal views, or both refuse.
fn agree(bytes: &[u8]) {
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
    if let Ok(generated) = v1::BatchGetRequest::decode(bytes) {
        let view = BatchView::read(bytes).expect("what the generated type reads, the view reads");
        assert_eq!((view.namespace, view.items), (&*generated.namespace, generated.keys.len()));
        assert!(view.iter().eq(generated.keys.iter().map(|key| &key[..])));
    }
}

prop_compose! {
    fn set_request()(
        text in ("[a-zé]{0,9}", "[a-z/]{0,9}", prop::collection::vec("[a-z]{0,5}", 0..3)),
        key in prop::collection::vec(any::<u8>(), 0..40),
        value in prop::collection::vec(any::<u8>(), 0..300),
        numbers in (any::<u32>(), any::<u64>(), any::<u32>(), any::<u64>(), -3i32..5),
        which in (0..4usize, 0..4usize),
        number in any::<u64>(),
        yes in any::<bool>(),
    ) -> v1::SetRequest {
        use v1::set_request::{Condition, Expiration};
        v1::SetRequest {
            namespace: text.0,
            content_type: text.1,
            tags: text.2,
            key: key.into(),
            value: value.into(),
            expiration: [
                None, Some(Expiration::TtlMs(number)), Some(Expiration::ExpireAtUnixMs(number)),
                Some(Expiration::KeepTtl(yes)),
            ][which.0],
            condition: [
                None, Some(Condition::IfAbsent(yes)), Some(Condition::IfPresent(yes)),
                Some(Condition::IfVersion(number)),
            ][which.1],
            flags: numbers.0,
            soft_ttl_ms: numbers.1,
            jitter_percent: numbers.2,
            lease_token: numbers.3,
            durability: numbers.4,
        }
    }
}

proptest! {
    #[test]
    fn views_read_what_the_generated_types_write(request in set_request()) {
        let bytes = request.encode_to_vec();
        prop_assert_eq!(SetView::read(&bytes).unwrap(), set_view(&request));
        agree(&bytes);
    }

    #[test]
    fn views_and_generated_types_refuse_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        agree(&bytes);
    }

    #[test]
    fn damaged_requests_read_the_same(request in set_request(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            agree(&bytes);
            agree(&bytes[..at]);
        }
    }

    #[test]
    fn commands_read_what_the_generated_type_writes(id: u64, timeout_ms: u32, key in "[a-z]{1,9}", kind in 0..7) {
        use v1::pipeline_command::Op;
        let key = bytes::Bytes::from(key);
        let op = match kind {
            0 => None,
            1 => Some(Op::Get(v1::GetRequest { key, ..Default::default() })),
            2 => Some(Op::Set(v1::SetRequest { key, ..Default::default() })),
            3 => Some(Op::Delete(v1::DeleteRequest { key, ..Default::default() })),
            4 => Some(Op::Increment(v1::IncrementRequest { key, delta: -4, ..Default::default() })),
            5 => Some(Op::Touch(v1::TouchRequest { key, ttl_ms: 9, ..Default::default() })),
            _ => Some(Op::Cancel(v1::CancelRequest { id: 7 })),
        };
        let (number, inner) = match &op {
            None => (0, Vec::new()),
            Some(Op::Get(request)) => (op::GET, request.encode_to_vec()),
            Some(Op::Set(request)) => (op::SET, request.encode_to_vec()),
            Some(Op::Delete(request)) => (op::DELETE, request.encode_to_vec()),
            Some(Op::Increment(request)) => (op::INCREMENT, request.encode_to_vec()),
            Some(Op::Decrement(request)) => (op::DECREMENT, request.encode_to_vec()),
            Some(Op::Touch(request)) => (op::TOUCH, request.encode_to_vec()),
            Some(Op::Cancel(request)) => (op::CANCEL, request.encode_to_vec()),
        };
        let traceparent = "00-ab-cd-01".to_owned();
        let expected = op.is_some().then_some((number, &inner[..]));
        let bytes = v1::PipelineCommand { id, timeout_ms, traceparent, op }.encode_to_vec();
        let view = CommandView::read(&bytes).unwrap();
        prop_assert_eq!((view.id, view.timeout_ms, view.traceparent), (id, timeout_ms, "00-ab-cd-01"));
        prop_assert_eq!(view.op, expected);
    }
}

#[test]
fn unknown_fields_and_groups_are_skipped() {
    let mut bytes = v1::GetRequest { key: "k".into(), ..Default::default() }.encode_to_vec();
    // Field 100 as a group that holds a nested group, a varint, a fixed32 and bytes.
    bytes.extend([0xa3, 0x06, 0x0b, 0x08, 0x01, 0x0c, 0x1d, 1, 2, 3, 4, 0x22, 1, 9, 0xa4, 0x06]);
    assert_eq!(GetView::read(&bytes).unwrap().key, b"k");
    agree(&bytes);
}
