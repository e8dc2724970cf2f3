//! What a file says of itself where no manifest does: its footer, or that it never had one.

use super::format::{
    CHUNK_HEAD_BYTES, FOOTER_END_BYTES, HEAD_BYTES, Manifest, begins_chunk, chunk_bytes_of, head, is_chunk,
    payload_len, read_footer, record_len,
};
use super::{Result, file_id};
use crate::persistence::{Backend, BackendError, ReadAt};

/// Why a file says nothing of itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndError {
    /// The disk refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What is at its end is no footer of it.
    #[error("{0}")]
    Bad(&'static str),
}

/// The catalogue's key and the manifest, as a file's footer says them.
pub(super) fn read_end(
    backend: &dyn Backend,
    number: u64,
    len: u64,
) -> std::result::Result<(Vec<u8>, Manifest), EndError> {
    let file = backend.open(file_id(number))?;
    let Some(end_offset) = len.checked_sub(FOOTER_END_BYTES as u64) else {
        return Err(EndError::Bad("it is too short"));
    };
    let mut end = [0; FOOTER_END_BYTES];
    if file.read_at(end_offset, &mut end)? != FOOTER_END_BYTES {
        return Err(EndError::Bad("it is too short"));
    }
    let Some(record) = record_len(&end) else { return Err(EndError::Bad("it has no end")) };
    let Some(footer_offset) = end_offset.checked_sub(record as u64) else {
        return Err(EndError::Bad("its footer is longer than it is"));
    };
    let mut footer = vec![0; record + FOOTER_END_BYTES];
    if file.read_at(footer_offset, &mut footer)? != footer.len() {
        return Err(EndError::Bad("it is too short"));
    }
    let (key, manifest) = read_footer(&footer).map_err(EndError::Bad)?;
    let mut first = [0; HEAD_BYTES];
    file.read_at(0, &mut first)?;
    let whole = manifest.file == number
        && manifest.footer_offset() == footer_offset
        && first == head(number, manifest.chunk_bytes);
    if whole { Ok((key, manifest)) } else { Err(EndError::Bad("its footer is another file's")) }
}

/// Whether a file is what is left of a write that was never finished: a head, whole chunks, and then nothing, zeroes, or
/// the beginning of another; and nothing that may have been a footer, or the rest of something that was whole once. Reads
/// all of it, a chunk at a time.
pub(super) fn is_unfinished(backend: &dyn Backend, number: u64) -> Result<bool> {
    let file = backend.open(file_id(number))?;
    let mut first = [0; HEAD_BYTES];
    let read = file.read_at(0, &mut first)?;
    let Some(chunk_bytes) = chunk_bytes_of(&first, number) else {
        return Ok(
            head(number, super::format::CHUNK_BYTES).starts_with(&first[..read]) || is_zero_from(&*file, 0)?
        );
    };
    let (mut offset, mut chunk) = (HEAD_BYTES as u64, vec![0; CHUNK_HEAD_BYTES + chunk_bytes as usize]);
    for index in 0.. {
        let read = file.read_at(offset, &mut chunk)?;
        let there = &chunk[..read];
        let whole = payload_len(there).map(|len| CHUNK_HEAD_BYTES + len).filter(|len| *len <= read);
        match whole.filter(|len| is_chunk(number, index, &there[..*len])) {
            Some(len) => offset += len as u64,
            None => {
                return Ok(begins_chunk(index, chunk_bytes, there) || is_zero_from(&*file, offset)?);
            }
        }
    }
    Ok(false)
}

/// Whether there is nothing but zeroes from an offset on, or nothing at all.
fn is_zero_from(file: &dyn ReadAt, mut offset: u64) -> Result<bool> {
    let mut some = [0; 4_096];
    loop {
        let read = file.read_at(offset, &mut some)?;
        if some[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read < some.len() {
            return Ok(true);
        }
        offset += read as u64;
    }
}
