//! gRPC's framing: five bytes before each message.
//!
//! ```text
//! ┌────────────┬────────────────────┬─────────┐
//! │ compressed │ length, big-endian │ message │
//! │ 1          │ 4                  │ length  │
//! └────────────┴────────────────────┴─────────┘
//! ```

use super::error::GrpcError;

/// Bytes before a message.
pub(crate) const PREFIX: usize = 5;

/// The length of the message whose frame begins here; `None`: the prefix is not whole yet.
pub(crate) fn message_len(frame: &[u8], max: usize) -> Result<Option<usize>, GrpcError> {
    let Some((prefix, _)) = frame.split_first_chunk::<PREFIX>() else { return Ok(None) };
    match prefix[0] {
        0 => {}
        1 => return Err(GrpcError::CompressedFrame),
        _ => return Err(GrpcError::Frame { what: "its compressed flag is neither 0 nor 1" }),
    }
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if len > max { Err(GrpcError::MessageTooLarge { bytes: len, max }) } else { Ok(Some(len)) }
}

/// Writes the prefix of the message that `out` holds from `at + PREFIX` on.
pub(crate) fn finish(out: &mut [u8], at: usize) {
    let len = (out.len() - at - PREFIX) as u32;
    out[at] = 0;
    out[at + 1..at + PREFIX].copy_from_slice(&len.to_be_bytes());
}

/// Writes the prefix for a message of a length known before.
pub(crate) fn put_prefix(out: &mut Vec<u8>, len: usize) {
    out.push(0);
    out.extend_from_slice(&(len as u32).to_be_bytes());
}
