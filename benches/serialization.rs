//! What a record costs to write and to read, in our own layout (`persistence::record`) and in those that libraries
//! offer: prost, which the contract is written with, and postcard, serde's most compact.
//!
//! `cargo bench --bench serialization [-- --quick]`; each is measured in turns, round after round, and the median of the
//! rounds is printed. One thread, records one behind the other in one buffer, as a frame has them; no checksum. All of
//! them read without copying what they can: key and value, and texts but for prost's.
//!
//! Not among them: bincode, which nobody maintains; rkyv, whose derives write `unsafe` code into this package, which
//! forbids it.

mod support;

use std::hint::black_box;

use bytes::Bytes;
use larder::clock::monotonic;
use larder::engine::{Put, Record, ValueView};
use larder::entry::{Expiry, Version};
use larder::persistence::record;
use prost::Message;
use serde::{Deserialize, Serialize, Serializer};
use support::{headline, median, quick};

/// The size in bytes of a buffer, about that of a snapshot's frame.
const BUFFER_BYTES: usize = 256 << 10;

/// A way to write records.
trait Format {
    const NAME: &'static str;

    /// Writes a record behind what is in the buffer, which must be found again without knowing its length.
    fn write(put: &Put<'_>, out: &mut Vec<u8>);

    /// Reads all records and looks at every field; how many there were.
    fn read(bytes: &Bytes) -> usize;
}

/// As an option, which the libraries know.
fn at_ms(expiry: Expiry) -> Option<u64> {
    match expiry {
        Expiry::Never => None,
        Expiry::AtMs(at) => Some(at),
    }
}

struct Own;

impl Format for Own {
    const NAME: &'static str = "own";

    fn write(put: &Put<'_>, out: &mut Vec<u8>) {
        record::write(&Record::Put(*put), out);
    }

    fn read(bytes: &Bytes) -> usize {
        record::read(bytes, |record| {
            black_box(record);
        })
        .expect("it was just written") as usize
    }
}

/// As the contract would write a record.
#[derive(Clone, PartialEq, Message)]
struct PutMessage {
    #[prost(uint32, tag = "1")]
    namespace: u32,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    value: Bytes,
    #[prost(fixed64, tag = "4")]
    version: u64,
    #[prost(fixed64, tag = "5")]
    expires_steady_ms: u64,
    #[prost(uint32, tag = "6")]
    flags: u32,
    #[prost(string, tag = "7")]
    content_type: String,
    #[prost(string, repeated, tag = "8")]
    tags: Vec<String>,
    #[prost(string, tag = "9")]
    request_id: String,
}

struct Prost;

impl Format for Prost {
    const NAME: &'static str = "prost";

    fn write(put: &Put<'_>, out: &mut Vec<u8>) {
        // A generated message owns what it holds: there is no way to write one from borrowed parts.
        let message = PutMessage {
            namespace: u32::from(put.namespace),
            key: Bytes::copy_from_slice(put.key),
            value: Bytes::copy_from_slice(put.value.as_slice()),
            version: put.version.0,
            expires_steady_ms: at_ms(put.expiry).unwrap_or(0),
            flags: put.flags,
            content_type: put.content_type.to_owned(),
            tags: put.tags.iter().map(|tag| (*tag).to_owned()).collect(),
            request_id: put.request_id.to_owned(),
        };
        message.encode_length_delimited(out).expect("a Vec grows");
    }

    fn read(bytes: &Bytes) -> usize {
        let (mut rest, mut records) = (bytes.clone(), 0);
        while !rest.is_empty() {
            black_box(PutMessage::decode_length_delimited(&mut rest).expect("it was just written"));
            records += 1;
        }
        records
    }
}

/// As serde would write a record.
#[derive(Serialize, Deserialize)]
struct PutFields<'a> {
    namespace: u16,
    #[serde(serialize_with = "as_bytes")]
    key: &'a [u8],
    #[serde(serialize_with = "as_bytes")]
    value: &'a [u8],
    version: u64,
    expires_steady_ms: Option<u64>,
    flags: u32,
    content_type: &'a str,
    #[serde(borrow)]
    tags: Vec<&'a str>,
    request_id: &'a str,
}

/// At once, not byte by byte.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

struct Postcard;

impl Format for Postcard {
    const NAME: &'static str = "postcard";

    fn write(put: &Put<'_>, out: &mut Vec<u8>) {
        let fields = PutFields {
            namespace: put.namespace,
            key: put.key,
            value: put.value.as_slice(),
            version: put.version.0,
            expires_steady_ms: at_ms(put.expiry),
            flags: put.flags,
            content_type: put.content_type,
            tags: put.tags.to_vec(),
            request_id: put.request_id,
        };
        // It ends itself: every part says its length.
        let taken = std::mem::take(out);
        *out = postcard::to_extend(&fields, taken).expect("a Vec grows");
    }

    fn read(bytes: &Bytes) -> usize {
        let (mut rest, mut records) = (&bytes[..], 0);
        while !rest.is_empty() {
            let (fields, behind): (PutFields<'_>, _) =
                postcard::take_from_bytes(rest).expect("it was just written");
            black_box(fields);
            rest = behind;
            records += 1;
        }
        records
    }
}

fn main() {
    headline("records of puts: ns to write and to read one, and its bytes; one thread, medians");
    let rounds = if quick() { 3 } else { 31 };
    println!("{:<24} {:<9} {:>9} {:>9} {:>9}", "key + value", "format", "write ns", "read ns", "bytes");
    for (value_bytes, of) in [(100, "16 B + 100 B"), (4_096, "16 B + 4 KiB")] {
        for (attributes, with) in [(false, ""), (true, ", attributes")] {
            let value = vec![0xA5; value_bytes];
            let put = put(&value, attributes);
            // In turns, so that a slow moment of the machine strikes all of them.
            let mut figures = [const { Vec::new() }; 3];
            for _ in 0..rounds {
                figures[0].push(measure::<Own>(&put));
                figures[1].push(measure::<Prost>(&put));
                figures[2].push(measure::<Postcard>(&put));
            }
            for (name, rounds) in [Own::NAME, Prost::NAME, Postcard::NAME].iter().zip(figures) {
                let of_round = |pick: fn(&Figures) -> f64| median(rounds.iter().map(pick).collect());
                println!(
                    "{:<24} {name:<9} {:>9.1} {:>9.1} {:>9.0}",
                    format!("{of}{with}"),
                    of_round(|figures| figures.write_ns),
                    of_round(|figures| figures.read_ns),
                    of_round(|figures| figures.bytes)
                );
            }
        }
    }
}

fn put(value: &[u8], attributes: bool) -> Put<'_> {
    let plain = Put {
        namespace: 3,
        key: b"0123456789abcdef",
        value: ValueView::Inline(value),
        version: Version(1_782_956_056_660_237_685),
        expiry: Expiry::Never,
        flags: 0,
        content_type: "",
        tags: &[],
        request_id: "",
    };
    if !attributes {
        return plain;
    }
    Put {
        expiry: Expiry::AtMs(4_733_510_400_000),
        flags: 7,
        content_type: "application/json",
        tags: &["customer:1234", "catalogue"],
        ..plain
    }
}

struct Figures {
    write_ns: f64,
    read_ns: f64,
    bytes: f64,
}

fn measure<F: Format>(put: &Put<'_>) -> Figures {
    let mut one = Vec::new();
    F::write(put, &mut one);
    let records = BUFFER_BYTES / one.len();
    let repeats = if quick() { 1 } else { 20 };
    let mut buffer = Vec::with_capacity(2 * BUFFER_BYTES);
    let begun = monotonic();
    for _ in 0..repeats {
        buffer.clear();
        for _ in 0..records {
            F::write(black_box(put), &mut buffer);
        }
    }
    let written = begun.elapsed();
    let bytes = Bytes::from(buffer);
    let begun = monotonic();
    for _ in 0..repeats {
        assert_eq!(F::read(black_box(&bytes)), records, "{} reads what it wrote", F::NAME);
    }
    let read = begun.elapsed();
    let each = |all: std::time::Duration| all.as_secs_f64() * 1e9 / (records * repeats) as f64;
    Figures { write_ns: each(written), read_ns: each(read), bytes: bytes.len() as f64 / records as f64 }
}
