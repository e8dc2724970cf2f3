//! The hot messages, written and read straight on protobuf's bytes: what a Pipeline carries, for the library's streams and
//! for `larder bench`, which may not cost the load thread more than the calls that it measures.
//!
//! Fields are read and written by [`proto::wire`](crate::proto::wire), as on the node. An answer may have any number of
//! them, and a field of another type than the contract's is passed over. A Get and a Set are written from borrowed parts, and
//! what a Get came to is read in place; what is inside other commands and replies is written and read by the generated
//! messages.
//!
//! Tested against the generated types, which are the authority.

mod read;
mod write;

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::proto::wire::Malformed;

pub(crate) use read::{RawReply, ReplyKind, each_command, get_outcome, replies, replies_up_to};
pub(crate) use write::{Command, CommandHead, CommandKind, Get, Set, put_command, put_command_head};

/// The message is not what the protocol allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl From<Malformed> for Unreadable {
    fn from(_: Malformed) -> Self {
        Self
    }
}

impl From<DecodeError> for Unreadable {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// Hands messages through as bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
