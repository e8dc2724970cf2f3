//! gRPC's framing: five bytes before each message.
//!
//! ```text
//! ┌────────────┬────────────────────┬─────────┐
//! │ compressed │ length, big-endian │ message │
//! │ 1          │ 4                  │ length  │
//! └────────────┴────────────────────┴─────────┘
//! ```

#[cfg(feature = "server")]
use super::error::GrpcError;

/// Bytes before a message.
pub(crate) const PREFIX: usize = 5;

/// The compressed flag and the length of the message whose frame begins here; `None`: the prefix is not whole yet.
pub(crate) fn head(frame: &[u8]) -> Option<(u8, usize)> {
    let (prefix, _) = frame.split_first_chunk::<PREFIX>()?;
    Some((prefix[0], u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize))
}

/// The first message of some that have prefixes, and what follows it; `None`: it is not whole yet.
pub(crate) fn split(frames: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, len) = head(frames)?;
    frames[PREFIX..].split_at_checked(len)
}

/// The length of the message whose frame begins here; `None`: the prefix is not whole yet.
#[cfg(feature = "server")]
pub(crate) fn message_len(frame: &[u8], max: usize) -> Result<Option<usize>, GrpcError> {
    let Some((compressed, len)) = head(frame) else { return Ok(None) };
    match compressed {
        0 => {}
        1 => return Err(GrpcError::CompressedFrame),
        _ => return Err(GrpcError::Frame { what: "its compressed flag is neither 0 nor 1" }),
    }
    if len > max { Err(GrpcError::MessageTooLarge { bytes: len, max }) } else { Ok(Some(len)) }
}

/// Writes the prefix of the message that `out` holds from `at + PREFIX` on.
pub(crate) fn finish(out: &mut [u8], at: usize) {
    let len = (out.len() - at - PREFIX) as u32;
    out[at] = 0;
    out[at + 1..at + PREFIX].copy_from_slice(&len.to_be_bytes());
}

/// Writes the prefix for a message of a length known before.
#[cfg(feature = "server")]
pub(crate) fn put_prefix(out: &mut Vec<u8>, len: usize) {
    out.push(0);
    out.extend_from_slice(&(len as u32).to_be_bytes());
}
