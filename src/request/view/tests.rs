//! The views against the generated types: what one writes the other reads as the same, and what one refuses the
//! other does.

use proptest::prelude::*;
use prost::Message;

use super::agree::{agree, set_view};
use super::*;
use crate::proto::v1;
use crate::proto::wire::{FIELDS_MAX, Malformed};

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

#[test]
fn durability_of_a_wrong_wire_type_is_refused_and_in_a_batch_get_unknown() {
    let bytes = [0x1a, 0x01, 0x01];
    assert_eq!(BatchView::read_write(&bytes, 9), Err(Malformed::WireType { field: 3 }));
    assert_eq!(BatchView::read_get(&bytes, 9).unwrap().durability, 0);
    agree(&bytes);
}

#[test]
fn a_message_has_so_many_fields_and_no_more() {
    // Unknown ones, known ones that are said again and again, and those inside an unknown group.
    let fields: [&dyn Fn(usize) -> Vec<u8>; 3] =
        [&|count| [0xc8, 0x01, 0x01].repeat(count), &|count| [0x0a, 0x01, b'n'].repeat(count), &|count| {
            [&[0xcb, 0x01][..], &[0x08, 0x01].repeat(count - 1), &[0xcc, 0x01]].concat()
        }];
    let too_many = Malformed::Fields { max: FIELDS_MAX };
    for of in fields {
        assert!(GetView::read(&of(FIELDS_MAX)).is_ok());
        let long = of(FIELDS_MAX + 1);
        assert_eq!(GetView::read(&long), Err(too_many.clone()));
        assert_eq!(SetView::read(&long).unwrap_err(), too_many);
        assert!(crate::request::convert::decode::<v1::ScanRequest>(&long).is_err());
        assert!(crate::request::convert::decode::<v1::ScanRequest>(&of(FIELDS_MAX)).is_ok());
    }
}

#[test]
fn the_items_of_a_batch_are_counted_up_to_one_more_than_there_may_be() {
    let items = |count: usize| [0x12, 0x00].repeat(count);
    assert_eq!(BatchView::read_get(&items(5), 5).unwrap().items, 5);
    let long = [items(2_000_000), vec![0xff; 9]].concat();
    let view = BatchView::read_get(&long, 10_000).unwrap();
    assert_eq!((view.items, view.iter().count() > 10_000), (10_001, true));
    // Items are apart from the fields.
    let many = [[0x78, 0x01].repeat(FIELDS_MAX), items(5)].concat();
    assert_eq!(BatchView::read_write(&many, 5).unwrap().iter().count(), 5);
    assert!(BatchView::read_write(&[[0x78, 0x01].repeat(FIELDS_MAX + 7), items(5)].concat(), 5).is_err());
}
