//! Compressed values: when they are, what of them is read, and what is refused.

use std::io::Write as _;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::*;

const BOTH: [fn() -> Compression; 2] = [Compression::zstd, Compression::lz4];

fn raw(compression: Compression) -> ValueCodec {
    ValueCodec::raw().with_compression(compression)
}

fn text(bytes: usize) -> String {
    let text = (0..).map(|number: u32| format!("line {number} of the text\n"));
    let mut long = String::with_capacity(bytes + 40);
    text.take_while(|line| {
        long.push_str(line);
        long.len() < bytes
    })
    .for_each(drop);
    long.truncate(bytes);
    long
}

/// Bytes that no compression makes shorter.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn a_value_is_compressed_from_its_length_on_where_that_makes_it_shorter() {
    for compression in BOTH {
        let codec = raw(compression());
        let is_compressed = |value: &[u8]| {
            codec.encode(serde_bytes::Bytes::new(value)).unwrap().content_type.contains("encoding=")
        };
        let long = text(1 << 20);
        assert!(!is_compressed(&long.as_bytes()[..1_023]) && is_compressed(&long.as_bytes()[..1_024]));
        assert!(codec.encode(&long).unwrap().bytes.len() < long.len() / 4);
        assert!(!is_compressed(&noise(100_000)));
        let always = raw(compression().with_min_bytes(0));
        for short in ["", "a", "abababab"] {
            let encoded = always.encode(short).unwrap();
            assert_eq!((&*encoded.bytes, &*encoded.content_type), (short.as_bytes(), ""));
        }
    }
}

#[test]
fn a_compressed_value_that_was_cut_or_changed_is_an_error_and_never_another_value() {
    for compression in BOTH {
        let codec = raw(compression());
        let value = text(5_000);
        let encoded = codec.encode(&value).unwrap();
        let decode = |bytes: &[u8]| codec.decode::<String>(&encoded.content_type, bytes);
        for len in 0..encoded.bytes.len() {
            let Err(refused) = decode(&encoded.bytes[..len]) else { panic!("{len} B are read") };
            assert!(
                matches!(refused, ValueError::NotDecompressed { bytes, .. } if bytes == len),
                "{refused}"
            );
        }
        let mut bytes = encoded.bytes.to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            match decode(&bytes) {
                // Some bits of a frame's head say nothing of the content.
                Ok(decoded) => assert_eq!(decoded, Decoded::Value(value.clone()), "bit {bit}"),
                Err(ValueError::NotDecompressed { .. } | ValueError::TooLong { .. }) => {}
                Err(other) => panic!("bit {bit}: {other}"),
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let longer = [&bytes[..], b"\0"].concat();
        let twice = [&bytes[..], &bytes].concat();
        for more in [longer, twice] {
            assert!(
                matches!(decode(&more), Err(ValueError::NotDecompressed { .. })),
                "one frame, and nothing else"
            );
        }
        let refused = decode(b"plain text, not compressed").unwrap_err().to_string();
        assert!(refused.starts_with("the value's 26 B are damaged, or not "), "{refused}");
    }
}

#[test]
fn a_bomb_becomes_no_longer_than_the_limit() {
    const MAX: usize = 1 << 20;
    for compression in BOTH {
        let bomb = raw(compression()).encode(&"\0".repeat(100 << 20)).unwrap();
        assert!(bomb.bytes.len() < 1 << 20, "{} B", bomb.bytes.len());
        let refused = |codec: ValueCodec| {
            codec.decode::<String>(&bomb.content_type, &bomb.bytes).unwrap_err().to_string()
        };
        let said = refused(ValueCodec::raw());
        assert!(said.contains("become more than 67108864 B"), "{said}");
        assert!(refused(ValueCodec::raw().with_decompressed_bytes_max(MAX)).contains("more than 1048576 B"));
        assert!(refused(ValueCodec::raw().with_decompressed_bytes_max(0)).contains("more than 0 B"));
        let enough = ValueCodec::raw().with_decompressed_bytes_max(100 << 20);
        assert!(enough.decode::<String>(&bomb.content_type, &bomb.bytes).is_ok());
    }
    // Frames that do not say how much they become.
    let zeros = vec![0; 2 * MAX];
    let max = ValueCodec::raw().with_decompressed_bytes_max(MAX);
    let refused = max.decode::<String>("a/b; encoding=zstd", &undeclared_zstd(&zeros)).unwrap_err();
    assert!(matches!(refused, ValueError::OtherFormat { .. }), "the format is looked at first: {refused}");
    for (encoding, frame) in [("zstd", undeclared_zstd(&zeros)), ("lz4", lz4(FrameInfo::new(), &zeros))] {
        let content_type = format!("application/octet-stream; encoding={encoding}");
        let refused = max.decode::<String>(&content_type, &frame).unwrap_err();
        assert!(matches!(refused, ValueError::TooLong { max: MAX, .. }), "{refused}");
        let exact = ValueCodec::raw().with_decompressed_bytes_max(zeros.len());
        assert!(exact.decode::<String>(&content_type, &frame).is_ok());
    }
}

fn undeclared_zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lz4(info: FrameInfo, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn frames_as_other_writers_make_them_are_read() {
    let value = text(300_000);
    let raw = ValueCodec::raw();
    let read = |encoding: &str, frame: &[u8]| {
        let content_type = format!("application/octet-stream; encoding={encoding}");
        assert_eq!(raw.decode::<String>(&content_type, frame).unwrap(), Decoded::Value(value.clone()));
    };
    read("ZSTD", &undeclared_zstd(value.as_bytes()));
    read("zstd", &zstd::bulk::compress(value.as_bytes(), 19).unwrap());
    read("zstd", &zstd::bulk::compress(value.as_bytes(), -5).unwrap());
    for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            let info = FrameInfo::new().block_size(size).block_mode(mode);
            read("lz4", &lz4(info.clone(), value.as_bytes()));
            read("Lz4", &lz4(info.block_checksums(true).content_checksum(true), value.as_bytes()));
        }
    }
    // A frame that was cut between two blocks looks whole to a decoder that takes the end of the bytes for its end.
    let frame = lz4(FrameInfo::new().block_size(BlockSize::Max64KB), value.as_bytes());
    let first_block = 7 + 4 + u32::from_le_bytes(frame[7..11].try_into().unwrap()) as usize;
    let refused =
        raw.decode::<String>("application/octet-stream; encoding=lz4", &frame[..first_block]).unwrap_err();
    assert!(refused.to_string().contains("cut off"), "{refused}");
    // The format that LZ4 had before frames.
    let legacy = [&0x184c_2102_u32.to_le_bytes()[..], &frame[4..]].concat();
    let refused = raw.decode::<String>("application/octet-stream; encoding=lz4", &legacy).unwrap_err();
    assert!(refused.to_string().contains("begin with a frame"), "{refused}");
}

#[test]
fn an_encoding_that_is_not_known_is_an_error_with_those_that_are() {
    let refused = ValueCodec::json().decode::<String>("application/json; encoding=br", b"x").unwrap_err();
    assert_eq!(refused.to_string(), "the value's encoding is \"br\", which is not known; zstd and lz4 are");
}

/// Written by Python: `json.dumps`, `msgpack.packb`, `zstandard` (at once and as a stream), `lz4.frame` (its defaults, and
/// without the content's size, with both checksums).
#[test]
fn what_python_writes_is_read() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Order {
        id: u64,
        name: String,
        price: Option<f64>,
        tags: Vec<String>,
        #[serde(default, with = "serde_bytes")]
        raw: Vec<u8>,
    }
    let order = |raw: &[u8]| Order {
        id: 7,
        name: "tea ".repeat(10),
        price: None,
        tags: vec!["a".to_owned()],
        raw: raw.to_vec(),
    };
    let packed = b"\x85\xa2id\x07\xa4name\xd9(tea tea tea tea tea tea tea tea tea tea \xa5price\xc0\xa4tags\x91\xa1a\xa3raw\
        \xc4\x02\x00\xff";
    let read = ValueCodec::msgpack().decode("application/msgpack", packed).unwrap();
    assert_eq!(read, Decoded::Value(order(b"\x00\xff")));
    let at_once = b"(\xb5/\xfd L}\x01\x00\x84\x02{\x22id\x22: 7, \x22name\x22: \x22tea \x22, \x22tags\x22: [\x22a\x22]}\
        \x01\x00O\xba&";
    let stream = b"(\xb5/\xfd\x00X}\x01\x00\x84\x02{\x22id\x22: 7, \x22name\x22: \x22tea \x22, \x22tags\x22: [\x22a\x22]}\
        \x01\x00O\xba&";
    let lz4 = b"\x04\x22M\x18h@L\x00\x00\x00\x00\x00\x00\x00k/\x00\x00\x00\xff\x08{\x22id\x22: 7, \x22name\x22: \x22tea \
        \x04\x00\x11\xf0\x02\x22, \x22tags\x22: [\x22a\x22]}\x00\x00\x00\x00";
    let with_checksums = b"\x04\x22M\x18t@\xbd/\x00\x00\x00\xff\x08{\x22id\x22: 7, \x22name\x22: \x22tea \
        \x04\x00\x11\xf0\x02\x22, \x22tags\x22: [\x22a\x22]}XE.K\x00\x00\x00\x00\xdc\x07Y ";
    for (encoding, frame) in [("zstd", &at_once[..]), ("zstd", stream), ("lz4", lz4), ("lz4", with_checksums)]
    {
        let content_type = format!("application/json;encoding={encoding}");
        let read = ValueCodec::json().decode(&content_type, frame).unwrap();
        assert_eq!(read, Decoded::Value(order(b"")));
    }
}
