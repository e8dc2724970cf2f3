//! Bytes that are not what is asked for: the wrong schema, format or type, damaged, or made to harm.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

/// A type of many shapes that can hold itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Number(i64),
    Float(f32),
    Wide(i128),
    Text(String),
    #[serde(with = "serde_bytes")]
    Bytes(Vec<u8>),
    Pair(Option<Box<Tree>>, char),
    Branch {
        name: String,
        trees: Vec<Tree>,
        by_name: BTreeMap<String, Tree>,
    },
}

fn tree() -> Tree {
    let leaves = vec![Tree::Leaf, Tree::Number(-5), Tree::Float(1.5), Tree::Wide(i128::MIN)];
    let pair = Tree::Pair(Some(Box::new(Tree::Text("text".to_owned()))), 'c');
    let by_name = [("bytes".to_owned(), Tree::Bytes(vec![1, 2, 3])), ("pair".to_owned(), pair)].into();
    Tree::Branch { name: "root".to_owned(), trees: leaves, by_name }
}

#[test]
fn another_schema_is_a_miss_whatever_else_there_is_about_the_value() {
    let schema = |id: &str| ValueCodec::json().with_schema(id).unwrap();
    let (v1, v2, none) = (schema("v1"), schema("v2"), ValueCodec::json());
    let encoded = v1.encode("a").unwrap();
    for reader in [&v2, &none, &schema("V1"), &ValueCodec::postcard(), &ValueCodec::raw()] {
        assert_eq!(
            reader.decode::<String>(&encoded.content_type, &encoded.bytes).unwrap(),
            Decoded::OtherSchema
        );
    }
    let unmarked = none.encode("a").unwrap();
    assert_eq!(v1.decode::<String>(&unmarked.content_type, &unmarked.bytes).unwrap(), Decoded::OtherSchema);
    assert_eq!(v1.decode::<String>("", b"raw").unwrap(), Decoded::OtherSchema);
    let foreign = "application/vnd.later; schema=v3; encoding=brotli";
    assert_eq!(v1.decode::<String>(foreign, b"\xff").unwrap(), Decoded::OtherSchema);
    assert_eq!(Decoded::<u8>::OtherSchema.into_value(), None);
}

#[test]
fn ids_that_need_quotes_are_refused_with_the_characters_that_do_not() {
    for id in ["", "a b", "a;b", "\u{fc}", &"x".repeat(65)] {
        let refused = ValueCodec::json().with_schema(id).unwrap_err().to_string();
        assert!(refused.contains(&format!("{id:?}")) && refused.contains("A-Z a-z 0-9 . _ -"), "{refused}");
    }
    assert_eq!(ValueCodec::json().with_schema("a").unwrap().schema(), Some("a"));
}

#[test]
fn another_format_is_an_error_that_names_both() {
    let encoded = ValueCodec::msgpack().encode("a").unwrap();
    let refused = ValueCodec::json().decode::<String>(&encoded.content_type, &encoded.bytes).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the value is \"application/vnd.msgpack\" and is read as \"application/json\"; read it by a codec of its \
         format, or write it again"
    );
    for (codec, content_type) in [
        (ValueCodec::json(), "text/plain"),
        (ValueCodec::json(), ""),
        (ValueCodec::msgpack(), ""),
        (ValueCodec::postcard(), ""),
        (ValueCodec::raw(), "image/png"),
    ] {
        let refused = codec.decode::<String>(content_type, b"x").unwrap_err();
        assert!(matches!(refused, ValueError::OtherFormat { .. }), "{refused}");
    }
    for (codec, content_type) in [
        (ValueCodec::json(), "application/json;charset=utf-8"),
        (ValueCodec::msgpack(), "application/msgpack"),
        (ValueCodec::msgpack(), "application/x-msgpack"),
        (ValueCodec::postcard(), "Application/Postcard"),
    ] {
        let encoded = codec.encode("a").unwrap();
        assert_eq!(codec.decode(content_type, &encoded.bytes).unwrap(), Decoded::Value("a".to_owned()));
    }
    let refused = ValueCodec::json().decode::<String>("json", b"1").unwrap_err().to_string();
    assert!(refused.starts_with("content type \"json\" cannot be read: it does not begin with"), "{refused}");
}

#[test]
fn a_counter_is_read_as_json_and_other_raw_bytes_are_not() {
    let json = ValueCodec::json();
    for (text, value) in
        [("0", 0), ("-5", -5), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
    {
        assert_eq!(json.decode::<i64>("", text.as_bytes()).unwrap(), Decoded::Value(value));
        assert_eq!(ValueCodec::raw().decode("", text.as_bytes()).unwrap(), Decoded::Value(text.to_owned()));
    }
    for text in ["", "+5", "5 ", "1.5", "true", "\"a\"", "9223372036854775808", "\u{ff15}"] {
        let refused = json.decode::<serde_json::Value>("", text.as_bytes()).unwrap_err();
        assert!(matches!(refused, ValueError::OtherFormat { .. }), "{text}: {refused}");
    }
    let marked = json.with_schema("v1").unwrap();
    assert_eq!(marked.decode::<i64>("", b"5").unwrap(), Decoded::OtherSchema);
}

#[test]
fn another_type_and_damage_are_errors_with_format_length_and_the_decoders_words() {
    let said = not_decoded::<u32>(&ValueCodec::json(), b"\"text\"");
    assert_eq!(
        said,
        "the value's 6 B cannot be read as JSON of type u32: invalid type: string \"text\", expected u32 at line 1 \
         column 6"
    );
    let text = ValueCodec::msgpack().encode("text").unwrap();
    let said = not_decoded::<u32>(&ValueCodec::msgpack(), &text.bytes);
    assert!(
        said.starts_with("the value's 5 B cannot be read as MessagePack of type u32: wrong msgpack marker"),
        "{said}"
    );
    let said = not_decoded::<String>(&ValueCodec::postcard(), b"\x05ab");
    assert!(
        said.starts_with("the value's 3 B cannot be read as postcard of type alloc::string::String: "),
        "{said}"
    );
    for codec in [ValueCodec::json(), ValueCodec::msgpack(), ValueCodec::postcard()] {
        assert!(not_decoded::<String>(&codec, b"").contains("the value's 0 B"));
        let encoded = codec.encode(&tree()).unwrap();
        for len in 0..encoded.bytes.len() {
            not_decoded::<Tree>(&codec, &encoded.bytes[..len]);
        }
        let longer = [&encoded.bytes[..], b"\x01"].concat();
        not_decoded::<Tree>(&codec, &longer);
    }
}

#[test]
fn bytes_that_nest_without_end_are_refused_before_the_stack_ends() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Chain(Option<(Box<Chain>, u8)>);
    const LEVELS: usize = 1 << 20;
    let lists = |open: &[u8]| open.repeat(LEVELS);
    for said in [
        not_decoded::<serde_json::Value>(&ValueCodec::json(), &lists(b"[")),
        not_decoded::<Tree>(&ValueCodec::json(), &lists(b"{\"Pair\":[")),
    ] {
        assert!(said.contains("recursion limit"), "{said}");
    }
    for said in [
        not_decoded::<serde_json::Value>(&ValueCodec::msgpack(), &lists(b"\x91")),
        not_decoded::<Tree>(&ValueCodec::msgpack(), &lists(b"\x81\xa4Pair\x92")),
        not_decoded::<Chain>(&ValueCodec::msgpack(), &lists(b"\x92")),
        not_decoded::<Chain>(&ValueCodec::postcard(), &lists(b"\x01")),
        not_decoded::<Tree>(&ValueCodec::postcard(), &lists(b"\x06\x01")),
    ] {
        assert!(said.contains("nests deeper than 100"), "{said}");
    }
    // What is skipped as unknown nests too.
    #[derive(Debug, Deserialize)]
    struct Empty {}
    let said = not_decoded::<Empty>(&ValueCodec::msgpack(), &[&b"\x81\xa1x"[..], &lists(b"\x91")].concat());
    assert!(said.contains("nests deeper than 100"), "{said}");
}

#[test]
fn lengths_that_lie_set_no_memory_aside() {
    for bytes in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ] {
        not_decoded::<Vec<u64>>(&ValueCodec::msgpack(), bytes);
        not_decoded::<String>(&ValueCodec::msgpack(), bytes);
        not_decoded::<serde_bytes::ByteBuf>(&ValueCodec::msgpack(), bytes);
        not_decoded::<BTreeMap<u8, u8>>(&ValueCodec::msgpack(), bytes);
    }
    let long = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    not_decoded::<Vec<u64>>(&ValueCodec::postcard(), long);
    not_decoded::<String>(&ValueCodec::postcard(), long);
    not_decoded::<serde_bytes::ByteBuf>(&ValueCodec::postcard(), long);
    not_decoded::<BTreeMap<u8, u8>>(&ValueCodec::postcard(), long);
}

proptest! {
    #[test]
    fn no_bytes_panic_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for codec in [ValueCodec::raw(), ValueCodec::json(), ValueCodec::msgpack(), ValueCodec::postcard()] {
            for encoding in ["", "; encoding=zstd", "; encoding=lz4"] {
                let content_type = format!("{}{encoding}", codec.format().media_type());
                let _ = codec.decode::<Tree>(&content_type, &bytes);
                let _ = codec.decode::<serde_json::Value>(&content_type, &bytes);
                let _ = codec.decode::<(i128, Option<f32>, Vec<String>)>(&content_type, &bytes);
            }
        }
    }

    #[test]
    fn no_change_to_a_value_panics_a_decoder(at in any::<proptest::sample::Index>(), bit in 0..8, len in any::<proptest::sample::Index>()) {
        for codec in codecs() {
            let encoded = codec.encode(&vec![tree(); 20]).unwrap();
            let mut bytes = encoded.bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let _ = codec.decode::<Vec<Tree>>(&encoded.content_type, &bytes);
            bytes.truncate(len.index(bytes.len()));
            let _ = codec.decode::<Vec<Tree>>(&encoded.content_type, &bytes);
        }
    }

    #[test]
    fn no_content_type_panics_a_decoder(content_type in "\\PC{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
        let _ = ValueCodec::json().decode::<Tree>(&content_type, &bytes);
    }
}
