//! Every kind of type in every format, and what a format says of a value that it would lose.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes as ByteStr};

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Newtype(u32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pair(i64, String);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    customer: Option<String>,
    lines: Vec<Line>,
    notes: BTreeMap<String, Vec<i32>>,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Line {
    article: String,
    price: f64,
    count: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Event {
    Unit,
    Newtype(Box<Event>),
    Tuple(u8, String),
    Struct { at: i64, of: Option<Box<Event>> },
}

fn order(lines: usize) -> Order {
    let line =
        |at: usize| Line { article: format!("article {at}"), price: at as f64 / 3.0, count: at as u32 };
    Order {
        id: u64::MAX,
        customer: Some("Zo\u{eb} \"\\\u{0}\u{1f980}".to_owned()),
        lines: (0..lines).map(line).collect(),
        notes: [("".to_owned(), vec![]), ("b".to_owned(), vec![i32::MIN, 0, i32::MAX])].into(),
        signature: (0..=255).collect(),
    }
}

#[test]
fn integers_return_to_their_ends() {
    macro_rules! ends {
        ($($type:ty)*) => { $(for value in [<$type>::MIN, <$type>::MIN + 1, 0, 1, <$type>::MAX - 1, <$type>::MAX] {
            always_returns(&value);
        })* };
    }
    ends!(i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 isize usize);
    always_returns(&[true, false]);
    always_returns(&('\0', 'z', '\u{10ffff}'));
}

#[test]
fn floats_return_as_they_were_and_what_is_no_number_is_refused_by_json_alone() {
    for value in [0.0, -0.0, 0.1, 1.0 / 3.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324] {
        for codec in codecs() {
            assert_eq!(there_and_back(&codec, &value).to_bits(), value.to_bits(), "{value} {codec:?}");
        }
    }
    always_returns(&[f32::MIN, f32::MAX, f32::MIN_POSITIVE, 1e-45, 0.1, 16_777_217.0]);
    let json = ValueCodec::json();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for codec in [ValueCodec::msgpack(), ValueCodec::postcard()] {
            assert_eq!(there_and_back(&codec, &value).to_bits(), value.to_bits());
        }
        assert!(not_encoded(&json, &value).contains("it has no "), "{value}");
        assert!(not_encoded(&json, &vec![Some((value as f32, 1))]).contains("it has no "), "{value}");
    }
    assert_eq!(not_encoded(&json, &f64::INFINITY), "f64 cannot be written as JSON: it has no inf");
}

#[test]
fn strings_and_bytes_return_and_a_byte_string_is_short_where_the_format_has_one() {
    for text in ["", "a", "\u{0}\"\\\n", "\u{1f980}\u{fc}"] {
        always_returns(&text.to_owned());
    }
    let all: Vec<u8> = (0..=255).collect();
    always_returns(&all);
    always_returns(&ByteBuf::from(all.clone()));
    always_returns(&Vec::<u8>::new());
    let bytes = |codec: ValueCodec| {
        let encoded = codec.encode(ByteStr::new(&all)).unwrap();
        encoded.bytes.len()
    };
    assert_eq!((bytes(ValueCodec::msgpack()), bytes(ValueCodec::postcard())), (259, 258));
    assert!(bytes(ValueCodec::json()) > 900, "JSON has a list of numbers");
}

#[test]
fn raw_bytes_are_as_they_are_and_nothing_else() {
    let all: Vec<u8> = (0..=255).collect();
    for codec in in_every_way(ValueCodec::raw()) {
        returns(&codec, &all);
        returns(&codec, &ByteBuf::from(all.clone()));
        returns(&codec, &"text".repeat(100));
        returns(&codec, &String::new());
        returns(&codec, &Vec::<u8>::new());
    }
    let raw = ValueCodec::raw();
    assert_eq!(raw.encode("text").unwrap().bytes, "text");
    assert_eq!(raw.encode(ByteStr::new(&all)).unwrap().bytes, all);
    assert_eq!(there_and_back(&raw, &[1_u8, 2, 3]), [1, 2, 3]);
    assert!(not_encoded(&raw, &1).contains("raw bytes are strings"));
    assert!(not_encoded(&raw, &Some("a")).contains("raw bytes are strings"));
    assert!(not_encoded(&raw, &[1_u16]).contains("raw bytes are strings"));
    assert!(not_encoded(&raw, &order(1)).contains("raw bytes are strings"));
    assert!(not_decoded::<u32>(&raw, b"1").contains("expected u32"));
    assert!(not_decoded::<String>(&raw, b"\xff").contains("expected a string"));
    assert!(not_decoded::<[u8; 2]>(&raw, b"abc").contains("3"));
}

#[test]
fn options_lists_maps_and_structs_return() {
    always_returns(&Some(5));
    always_returns(&None::<u64>);
    always_returns(&vec![Some("a".to_owned()), None]);
    always_returns(&Vec::<String>::new());
    always_returns(&(1, "a".to_owned(), [1.5, 2.5]));
    always_returns(&HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
    always_returns(&BTreeMap::from([(1_u64, Some(1)), (u64::MAX, None)]));
    always_returns(&BTreeMap::<String, u8>::new());
    always_returns(&HashSet::from([1, 2, 3]));
    always_returns(&());
    always_returns(&Unit);
    always_returns(&Newtype(7));
    always_returns(&Pair(-1, "p".to_owned()));
    always_returns(&Order::default());
    always_returns(&order(3));
    always_returns(&std::net::IpAddr::from([127, 0, 0, 1]));
    always_returns(&std::time::Duration::from_nanos(1_000_000_007));
}

#[test]
fn enums_return_in_all_their_shapes_nested_too() {
    let unit = || Box::new(Event::Unit);
    let tuple = Event::Tuple(1, "t".to_owned());
    let nested = Event::Struct { at: -1, of: Some(Box::new(Event::Newtype(Box::new(tuple.clone())))) };
    let all = [Event::Unit, Event::Newtype(unit()), tuple, Event::Struct { at: 0, of: None }, nested];
    for event in &all {
        always_returns(event);
    }
    always_returns(&Vec::from(all));
}

#[test]
fn long_values_return() {
    let long = order(30_000);
    for codec in codecs() {
        let encoded = codec.encode(&long).unwrap();
        let is_plain = !encoded.content_type.contains("encoding");
        assert!(!is_plain || encoded.bytes.len() > 600_000, "{} B", encoded.bytes.len());
        returns(&codec, &long);
        returns(&codec, &"long ".repeat(1 << 20));
    }
}

#[test]
fn a_none_within_some_is_kept_or_refused_and_never_another_value() {
    let nested: [Option<Option<u8>>; 3] = [None, Some(None), Some(Some(1))];
    for value in nested {
        returns(&ValueCodec::postcard(), &value);
    }
    for codec in [ValueCodec::json(), ValueCodec::msgpack()] {
        returns(&codec, &nested[0]);
        returns(&codec, &nested[2]);
        assert!(not_encoded(&codec, &nested[1]).contains("Some(None)"));
        assert!(not_encoded(&codec, &Some(())).contains("Some(None)"));
        assert!(not_encoded(&codec, &vec![Some(Some(None::<u8>))]).contains("Some(None)"));
    }
    assert!(not_encoded(&ValueCodec::json(), &Some(Unit)).contains("Some(None)"));
    returns(&ValueCodec::msgpack(), &Some(Unit));
}

#[test]
fn a_field_that_is_skipped_is_refused_by_postcard_which_would_read_the_next_in_its_place() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        first: Option<u8>,
        second: u8,
    }
    let (kept, skipped) = (Skips { first: Some(1), second: 1 }, Skips { first: None, second: 1 });
    always_returns(&kept);
    returns(&ValueCodec::json(), &skipped);
    returns(&ValueCodec::msgpack(), &skipped);
    let refused = not_encoded(&ValueCodec::postcard(), &skipped);
    assert!(refused.contains("\"first\""), "{refused}");
}

#[test]
fn types_whose_shape_the_bytes_tell_are_read_where_the_bytes_tell_it() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(i64),
        Text(String),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        a: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, String>,
    }
    let flat = Flat { a: 1, rest: [("b".to_owned(), "c".to_owned())].into() };
    for codec in [ValueCodec::json(), ValueCodec::msgpack()] {
        returns(&codec, &Untagged::Text("a".to_owned()));
        returns(&codec, &Untagged::Number(-5));
        returns(&codec, &flat);
    }
    let postcard = ValueCodec::postcard();
    let untagged = postcard.encode(&Untagged::Number(1)).unwrap();
    not_decoded::<Untagged>(&postcard, &untagged.bytes);
    not_encoded(&postcard, &flat);
}

#[test]
fn structs_of_json_and_messagepack_gain_and_lose_fields() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Older {
        id: u64,
        gone: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Newer {
        id: u64,
        #[serde(default)]
        new: Vec<u8>,
    }
    for codec in [ValueCodec::json(), ValueCodec::msgpack()] {
        let encoded = codec.encode(&Older { id: 1, gone: "g".to_owned() }).unwrap();
        let newer = codec.decode(&encoded.content_type, &encoded.bytes).unwrap();
        assert_eq!(newer, Decoded::Value(Newer { id: 1, new: Vec::new() }));
    }
    let encoded = ValueCodec::msgpack().encode(&Older { id: 1, gone: "g".to_owned() }).unwrap();
    assert_eq!(encoded.bytes, b"\x82\xa2id\x01\xa4gone\xa1g"[..], "structs are maps by names");
}

#[test]
fn values_nest_as_deep_as_is_said_in_every_shape_and_no_deeper() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Chain {
        next: Vec<Chain>,
    }
    let chain = |depth: usize| (0..depth).fold(Event::Unit, |event, _| Event::Newtype(Box::new(event)));
    // Each is a variant, fields and a Some.
    let structs =
        |depth| (0..depth).fold(Event::Unit, |event, _| Event::Struct { at: 0, of: Some(Box::new(event)) });
    let lists = |depth: usize| (0..depth).fold(Chain { next: vec![] }, |next, _| Chain { next: vec![next] });
    always_returns(&chain(NESTING_MAX - 1));
    always_returns(&structs(NESTING_MAX / 3));
    always_returns(&lists(NESTING_MAX / 2 - 1));
    for codec in codecs() {
        assert!(not_encoded(&codec, &chain(NESTING_MAX)).contains("deeper than 100"));
        assert!(not_encoded(&codec, &structs(NESTING_MAX / 3 + 1)).contains("deeper than 100"));
        assert!(not_encoded(&codec, &lists(NESTING_MAX / 2)).contains("deeper than 100"));
    }
}

#[test]
fn what_a_type_itself_refuses_is_told() {
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    for codec in codecs() {
        let refused = not_encoded(&codec, &Refuses);
        assert!(refused.ends_with("not today") && refused.contains("Refuses"), "{refused}");
    }
    let refused = not_encoded(&ValueCodec::json(), &BTreeMap::from([(vec![1], 1)]));
    assert!(refused.ends_with("key must be a string"), "{refused}");
}

#[test]
fn content_types_are_those_of_the_contract() {
    let codecs = [ValueCodec::raw(), ValueCodec::json(), ValueCodec::msgpack(), ValueCodec::postcard()];
    let media_types =
        ["application/octet-stream", "application/json", "application/vnd.msgpack", "application/x-postcard"];
    let text = "a".repeat(2_000);
    for (codec, media_type) in codecs.into_iter().zip(media_types) {
        let content_type = |codec: &ValueCodec, value: &str| codec.encode(value).unwrap().content_type;
        let bare = if codec.format() == Format::Raw { "" } else { media_type };
        assert_eq!((&*content_type(&codec, "a"), codec.content_type()), (bare, bare));
        let marked = codec.clone().with_schema("orders-v2").unwrap();
        assert_eq!(&*content_type(&marked, "a"), format!("{media_type}; schema=orders-v2"));
        for (compression, encoding) in [(Compression::zstd(), "zstd"), (Compression::lz4(), "lz4")] {
            let compressed = codec.clone().with_compression(compression);
            assert_eq!(&*content_type(&compressed, "a"), bare, "a short one is left alone");
            assert_eq!(&*content_type(&compressed, &text), format!("{media_type}; encoding={encoding}"));
            let both = marked.clone().with_compression(compression);
            let expected = format!("{media_type}; schema=orders-v2; encoding={encoding}");
            assert_eq!(&*content_type(&both, &text), expected);
            // Also by a reader that compresses nothing, or otherwise.
            let encoded = both.encode(&text).unwrap();
            assert_eq!(
                marked.decode(&encoded.content_type, &encoded.bytes).unwrap(),
                Decoded::Value(text.clone())
            );
            let shouted = encoded.content_type.to_uppercase().replace("ORDERS-V2", "orders-v2");
            assert_eq!(marked.decode(&shouted, &encoded.bytes).unwrap(), Decoded::Value(text.clone()));
        }
    }
}

#[test]
fn a_value_that_is_encoded_shares_its_content_type() {
    let codec = ValueCodec::json().with_schema("s").unwrap();
    let (one, other) = (codec.encode(&1).unwrap(), codec.clone().encode(&2).unwrap());
    assert!(std::sync::Arc::ptr_eq(&one.content_type, &other.content_type));
    let bytes: Bytes = one.bytes;
    assert_eq!(bytes, "1");
}

proptest! {
    #[test]
    fn every_float_returns(value in any::<f64>(), short in any::<f32>()) {
        for codec in codecs() {
            prop_assert_eq!(there_and_back(&codec, &value).to_bits(), value.to_bits());
            prop_assert_eq!(there_and_back(&codec, &short).to_bits(), short.to_bits());
        }
    }

    #[test]
    fn every_value_returns(
        numbers in proptest::collection::vec((any::<i128>(), any::<Option<u64>>()), 0..20),
        texts in proptest::collection::btree_map("\\PC{0,20}", any::<Vec<u8>>(), 0..10),
    ) {
        always_returns(&numbers);
        always_returns(&texts);
    }
}
