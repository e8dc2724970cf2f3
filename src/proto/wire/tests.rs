//! The bytes against the generated types, which are the authority.

use bytes::BytesMut;
use prost::Message;

use super::*;
use crate::proto::v1::{self, pipeline_command::Op};

#[test]
fn a_limit_on_fields_holds_where_it_is_asked_for() {
    let fields = |message: &mut Reader<'_>| {
        let mut count = 0;
        while message.next()?.is_some() {
            count += 1;
        }
        Result::Ok(count)
    };
    let long = [0x78, 0x01].repeat(FIELDS_MAX + 2);
    assert_eq!(fields(&mut Reader::new(&long)), Err(Malformed::Fields { max: FIELDS_MAX }));
    assert_eq!(fields(&mut Reader::with_items(&long, 2)), Ok(FIELDS_MAX + 2));
    assert_eq!(fields(&mut Reader::unlimited(&long)), Ok(FIELDS_MAX + 2));
}

#[test]
fn what_no_protobuf_is_is_told_apart() {
    let cases: [(&[u8], Malformed); 6] = [
        (&[0x08], Malformed::Truncated),
        (&[0x0a, 0x02, 0x01], Malformed::Truncated),
        (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], Malformed::Varint),
        (&[0x00, 0x01], Malformed::FieldKey { key: 0 }),
        (&[0x0f], Malformed::FieldKey { key: 15 }),
        (&[0x0b].repeat(200), Malformed::Depth),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Reader::unlimited(bytes).next().unwrap_err(), expected, "{bytes:?}");
        assert!(v1::CancelRequest::decode(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn numbers_of_all_lengths_are_written_as_the_generated_types_read_them() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
        let (mut always, mut nonzero) = (BytesMut::new(), Vec::new());
        put_number(&mut always, 1, value);
        put_nonzero(&mut nonzero, 1, value);
        assert_eq!((always.len(), nonzero.len()), (1 + varint_len(value), nonzero_len(value)));
        for bytes in [&always[..], &nonzero] {
            assert_eq!(v1::CancelRequest::decode(bytes), Ok(v1::CancelRequest { id: value }));
        }
        let expected = v1::CancelRequest { id: value }.encode_to_vec();
        assert_eq!(nonzero, expected);

        let mut fixed = Vec::new();
        put_nonzero_fixed64(&mut fixed, 1, value);
        assert_eq!(fixed.len(), nonzero_fixed64_len(value));
        assert_eq!(fixed, v1::Stored { version: value }.encode_to_vec());
    }
}

#[test]
fn the_numbers_of_ops_and_results_are_the_contracts() {
    let ops = [
        (op::GET, Op::Get(v1::GetRequest::default())),
        (op::SET, Op::Set(v1::SetRequest::default())),
        (op::DELETE, Op::Delete(v1::DeleteRequest::default())),
        (op::INCREMENT, Op::Increment(v1::IncrementRequest::default())),
        (op::DECREMENT, Op::Decrement(v1::DecrementRequest::default())),
        (op::TOUCH, Op::Touch(v1::TouchRequest::default())),
        (op::CANCEL, Op::Cancel(v1::CancelRequest::default())),
    ];
    for (number, op) in ops {
        let bytes = v1::PipelineCommand { op: Some(op), ..Default::default() }.encode_to_vec();
        let (field, _) = Reader::new(&bytes).next().unwrap().unwrap();
        assert_eq!(field, number);
    }
    use v1::pipeline_reply::Result as Reply;
    let results = [
        (result::GET, Reply::Get(v1::GetResponse::default())),
        (result::SET, Reply::Set(v1::SetResponse::default())),
        (result::DELETE, Reply::Delete(v1::DeleteResponse::default())),
        (result::INCREMENT, Reply::Increment(v1::IncrementResponse::default())),
        (result::DECREMENT, Reply::Decrement(v1::DecrementResponse::default())),
        (result::TOUCH, Reply::Touch(v1::TouchResponse::default())),
        (result::ERROR, Reply::Error(crate::proto::google::rpc::Status::default())),
    ];
    for (number, result) in results {
        let bytes = v1::PipelineReply { result: Some(result), ..Default::default() }.encode_to_vec();
        let (field, _) = Reader::new(&bytes).next().unwrap().unwrap();
        assert_eq!(field, number);
    }
}
