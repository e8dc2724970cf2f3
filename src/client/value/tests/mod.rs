//! Values there and back, and what is refused.

mod compressed;
mod damage;
mod round_trips;

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// Every format that takes any type, plain and compressed in every way from the first byte on.
fn codecs() -> Vec<ValueCodec> {
    [ValueCodec::json(), ValueCodec::msgpack(), ValueCodec::postcard()]
        .into_iter()
        .flat_map(in_every_way)
        .collect()
}

fn in_every_way(codec: ValueCodec) -> [ValueCodec; 3] {
    [
        codec.clone(),
        codec.clone().with_compression(Compression::zstd().with_min_bytes(0)),
        codec.with_compression(Compression::lz4().with_min_bytes(0)),
    ]
}

/// What comes back of a value.
#[track_caller]
fn there_and_back<T: Serialize + DeserializeOwned>(codec: &ValueCodec, value: &T) -> T {
    let encoded = codec.encode(value).unwrap();
    codec.decode(&encoded.content_type, &encoded.bytes).unwrap().into_value().unwrap()
}

#[track_caller]
fn returns<T: Serialize + DeserializeOwned + PartialEq + Debug>(codec: &ValueCodec, value: &T) {
    assert_eq!(&there_and_back(codec, value), value, "{codec:?}");
}

/// The value comes back the same, in every format and by every compression.
#[track_caller]
fn always_returns<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for codec in codecs() {
        returns(&codec, value);
    }
}

/// What is said of a value that is not written.
#[track_caller]
fn not_encoded<T: Serialize + ?Sized>(codec: &ValueCodec, value: &T) -> String {
    match codec.encode(value) {
        Err(error @ ValueError::NotEncoded { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// What is said of bytes that are not read.
#[track_caller]
fn not_decoded<T: DeserializeOwned + Debug>(codec: &ValueCodec, bytes: &[u8]) -> String {
    match codec.decode::<T>(codec.content_type(), bytes) {
        Err(error @ ValueError::NotDecoded { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}
