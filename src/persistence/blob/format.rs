//! A blob's bytes on disk, and its entry in the catalogue. Nothing here does I/O.
//!
//! ```text
//! file      ┌──────────┬─────────┬─────────┬──   ──┬────────┐
//!           │ head, 32 │ chunk 0 │ chunk 1 │   …   │ footer │      an empty blob has no chunk
//!           └──────────┴─────────┴─────────┴──   ──┴────────┘
//! head      ┌──────────────┬─────────┬────────────────┬────────────────┬────────────┬────────┐
//!           │ "LARDBLOB" 8 │ form, 4 │ chunk bytes, 4 │ file number, 8 │ nothing, 4 │ CRC, 4 │
//!           └──────────────┴─────────┴────────────────┴────────────────┴────────────┴────────┘
//! chunk     ┌──────────┬───────────┬────────┬─────────┐
//!           │ index, 8 │ length, 4 │ CRC, 4 │ payload │      every one but the last has `chunk bytes`
//!           └──────────┴───────────┴────────┴─────────┘
//! footer    ┌────────┬───────────┬────────┬──────────────┐
//!           │ record │ length, 4 │ CRC, 4 │ "LARD.END" 8 │    found from the file's end
//!           └────────┴───────────┴────────┴──────────────┘
//! record    ┌─────────────────┬──────────┐
//!           │ catalogue key,  │ manifest │                    all that the catalogue knows of the blob
//!           │ 2 + its length  │          │
//!           └─────────────────┴──────────┘
//! manifest  ┌─────────┬─────────┬────────────┬─────────┬────────────┬────────────┬───────┬────────┬─────────────────────┐
//!           │ form, 1 │ file, 8 │ version, 8 │ size, 8 │ expires, 8 │ created, 8 │ chunk │ SHA256 │ content type,       │
//!           │         │         │            │         │ steady ms  │ unix ms    │ by, 4 │ 32     │ 1 + its length      │
//!           └─────────┴─────────┴────────────┴─────────┴────────────┴────────────┴───────┴────────┴─────────────────────┘
//! catalogue  key:    "blob/" │ length of the namespace, 1 │ namespace │ key
//!            value:  manifest │ CRC, 4
//! ```
//!
//! Numbers are little-endian. A CRC is CRC-32 (IEEE) of what stands before it in its part; a chunk's covers the file's
//! number, index, length and payload, so that a chunk of another file or of another place is damage too, and the
//! catalogue's covers the key as well. The namespace's length stands before it, so that a prefix of the catalogue's keys
//! is exactly a namespace, or a prefix of the keys of one.

use crate::entry::Version;

/// Payload of every chunk but the last.
pub const CHUNK_BYTES: u32 = 256 << 10;
/// A file that says more of itself is not ours: its chunks would not be read into memory.
const CHUNK_BYTES_MAX: u32 = 16 << 20;
/// Larger ones are not believed, so that places in a file never overflow.
const SIZE_BYTES_MAX: u64 = 1 << 60;
/// Bytes before the first chunk.
pub const HEAD_BYTES: usize = 32;
/// Bytes before a chunk's payload.
pub const CHUNK_HEAD_BYTES: usize = 16;
/// Bytes at the end of the footer that tell how long it is.
pub const FOOTER_END_BYTES: usize = 16;
/// No record is longer: namespace, key and content type have their limits.
pub const RECORD_BYTES_MAX: usize = 2 + PREFIX.len() + 256 + 65_535 + MANIFEST_FIXED_BYTES + 255;
const MANIFEST_FIXED_BYTES: usize = 78;
const HEAD_MAGIC: &[u8; 8] = b"LARDBLOB";
const END_MAGIC: &[u8; 8] = b"LARD.END";
const FORM: u8 = 1;
const PREFIX: &[u8] = b"blob/";
/// The catalogue's key that says that there is a catalogue of blobs. No blob's key is as short.
pub(super) const MARKER: &[u8] = b"blobs";

/// What is known of a blob beside its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The number of the file that it lies in.
    pub file: u64,
    /// Its version.
    pub version: Version,
    /// Its length.
    pub size_bytes: u64,
    /// When it expires, in milliseconds of steady time; 0: never.
    pub expires_steady_ms: u64,
    /// When it was stored, in milliseconds of wall time since 1970.
    pub created_unix_ms: u64,
    /// Payload of its chunks.
    pub chunk_bytes: u32,
    /// The SHA-256 of its content.
    pub sha256: [u8; 32],
    /// The media type; empty: none.
    pub content_type: String,
}

impl Manifest {
    /// Chunks of the content.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.size_bytes.div_ceil(u64::from(self.chunk_bytes))
    }

    /// Where a chunk begins in the file, its head that is.
    #[must_use]
    pub fn chunk_offset(&self, index: u64) -> u64 {
        HEAD_BYTES as u64 + index * (u64::from(self.chunk_bytes) + CHUNK_HEAD_BYTES as u64)
    }

    /// The length of a chunk's payload.
    #[must_use]
    pub fn chunk_len(&self, index: u64) -> usize {
        let begin = index * u64::from(self.chunk_bytes);
        self.size_bytes.saturating_sub(begin).min(u64::from(self.chunk_bytes)) as usize
    }

    /// Where the footer begins in the file.
    #[must_use]
    pub fn footer_offset(&self) -> u64 {
        HEAD_BYTES as u64 + self.size_bytes + self.chunks() * CHUNK_HEAD_BYTES as u64
    }

    /// The file's length, for a blob under this key of the catalogue.
    #[must_use]
    pub fn file_bytes(&self, catalogue_key: &[u8]) -> u64 {
        let record = 2 + catalogue_key.len() + MANIFEST_FIXED_BYTES + self.content_type.len();
        self.footer_offset() + (record + FOOTER_END_BYTES) as u64
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        for number in
            [self.file, self.version.0, self.size_bytes, self.expires_steady_ms, self.created_unix_ms]
        {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.chunk_bytes.to_le_bytes());
        out.extend_from_slice(&self.sha256);
        out.push(self.content_type.len() as u8);
        out.extend_from_slice(self.content_type.as_bytes());
    }

    fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut bytes = Bytes(bytes);
        if bytes.array::<1>()? != [FORM] {
            return Err("it is of a form that this build does not know");
        }
        let mut number = || bytes.array().map(u64::from_le_bytes);
        let (file, version, size_bytes) = (number()?, Version(number()?), number()?);
        let (expires_steady_ms, created_unix_ms) = (number()?, number()?);
        let chunk_bytes = u32::from_le_bytes(bytes.array()?);
        let sha256 = bytes.array()?;
        let [len] = bytes.array::<1>()?;
        let content_type = std::str::from_utf8(bytes.take(usize::from(len))?);
        let content_type = content_type.map_err(|_| "its content type is no text")?.to_owned();
        if !bytes.0.is_empty() || !(1..=CHUNK_BYTES_MAX).contains(&chunk_bytes) || size_bytes > SIZE_BYTES_MAX
        {
            return Err("its numbers are out of their bounds");
        }
        Ok(Self {
            file,
            version,
            size_bytes,
            expires_steady_ms,
            created_unix_ms,
            chunk_bytes,
            sha256,
            content_type,
        })
    }
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it is too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or("it is too short")?;
        self.0 = rest;
        Ok(*taken)
    }
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// What all keys of the catalogue begin with that are blobs of a namespace whose keys begin with `prefix`.
#[must_use]
pub fn catalogue_key(namespace: &str, prefix: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX.len() + 1 + namespace.len() + prefix.len());
    key.extend_from_slice(PREFIX);
    key.push(namespace.len() as u8);
    key.extend_from_slice(namespace.as_bytes());
    key.extend_from_slice(prefix);
    key
}

/// What all keys of the catalogue begin with that are blobs.
pub(super) const fn all_blobs() -> &'static [u8] {
    PREFIX
}

/// The namespace and the key of a key of the catalogue.
#[must_use]
pub fn split_catalogue_key(key: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = key.strip_prefix(PREFIX)?.split_first()?;
    let (namespace, key) = rest.split_at_checked(usize::from(*len))?;
    if key.is_empty() { None } else { Some((std::str::from_utf8(namespace).ok()?, key)) }
}

/// The catalogue's value.
#[must_use]
pub fn catalogue_value(key: &[u8], manifest: &Manifest) -> Vec<u8> {
    let mut value = Vec::with_capacity(MANIFEST_FIXED_BYTES + manifest.content_type.len() + 4);
    manifest.put(&mut value);
    let crc = crc(&[key, &value]);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

/// Reads the catalogue's value under a key.
///
/// # Errors
/// What is wrong with it.
pub fn read_catalogue_value(key: &[u8], value: &[u8]) -> Result<Manifest, &'static str> {
    let (manifest, said) = value.split_last_chunk::<4>().ok_or("it is too short")?;
    if crc(&[key, manifest]) != u32::from_le_bytes(*said) {
        return Err("its checksum does not fit");
    }
    Manifest::read(manifest)
}

/// A file's head.
#[must_use]
pub fn head(file: u64, chunk_bytes: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(HEAD_MAGIC);
    head[8..12].copy_from_slice(&u32::from(FORM).to_le_bytes());
    head[12..16].copy_from_slice(&chunk_bytes.to_le_bytes());
    head[16..24].copy_from_slice(&file.to_le_bytes());
    let crc = crc(&[&head[..28]]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// The payload of chunks, by a file's head; `None`: it is not this file's.
#[must_use]
pub fn chunk_bytes_of(first: &[u8; HEAD_BYTES], file: u64) -> Option<u32> {
    let chunk_bytes = u32::from_le_bytes([first[12], first[13], first[14], first[15]]);
    let is_ours = (1..=CHUNK_BYTES_MAX).contains(&chunk_bytes) && *first == head(file, chunk_bytes);
    is_ours.then_some(chunk_bytes)
}

/// A chunk's head.
#[must_use]
pub fn chunk_head(file: u64, index: u64, payload: &[u8]) -> [u8; CHUNK_HEAD_BYTES] {
    let mut head = [0; CHUNK_HEAD_BYTES];
    head[..8].copy_from_slice(&index.to_le_bytes());
    head[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = crc(&[&file.to_le_bytes(), &head[..12], payload]);
    head[12..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Whether a chunk is what was written there: head and payload as they were read.
#[must_use]
pub fn is_chunk(file: u64, index: u64, chunk: &[u8]) -> bool {
    let Some((head, payload)) = chunk.split_first_chunk::<CHUNK_HEAD_BYTES>() else { return false };
    *head == chunk_head(file, index, payload)
}

/// How long a chunk's payload is, as its head says; `None`: the head is not all there.
#[must_use]
pub fn payload_len(chunk: &[u8]) -> Option<usize> {
    let len = chunk.get(8..12)?;
    (chunk.len() >= CHUNK_HEAD_BYTES)
        .then(|| len.iter().rev().fold(0, |len, byte| len << 8 | usize::from(*byte)))
}

/// Whether the last bytes of a file are the beginning of a chunk, and not all of it.
#[must_use]
pub fn begins_chunk(index: u64, chunk_bytes: u32, rest: &[u8]) -> bool {
    let index = index.to_le_bytes();
    let is_index = rest.iter().zip(index).all(|(found, expected)| *found == expected);
    let is_cut_off = |len| len <= chunk_bytes as usize && rest.len() < CHUNK_HEAD_BYTES + len;
    is_index && payload_len(rest).is_none_or(is_cut_off)
}

/// A file's footer.
#[must_use]
pub fn footer(catalogue_key: &[u8], manifest: &Manifest) -> Vec<u8> {
    let mut footer = Vec::with_capacity(RECORD_BYTES_MAX.min(512 + catalogue_key.len()));
    footer.extend_from_slice(&(catalogue_key.len() as u16).to_le_bytes());
    footer.extend_from_slice(catalogue_key);
    manifest.put(&mut footer);
    let len = footer.len() as u32;
    footer.extend_from_slice(&len.to_le_bytes());
    let crc = crc(&[&footer]);
    footer.extend_from_slice(&crc.to_le_bytes());
    footer.extend_from_slice(END_MAGIC);
    footer
}

/// The length of the record, by the last bytes of a file.
#[must_use]
pub fn record_len(end: &[u8; FOOTER_END_BYTES]) -> Option<usize> {
    let len = u32::from_le_bytes([end[0], end[1], end[2], end[3]]) as usize;
    (end[8..] == *END_MAGIC && len <= RECORD_BYTES_MAX).then_some(len)
}

/// Reads a whole footer: the catalogue's key, and what belongs there.
///
/// # Errors
/// What is wrong with it.
pub fn read_footer(footer: &[u8]) -> Result<(Vec<u8>, Manifest), &'static str> {
    let (record, end) = footer.split_last_chunk::<FOOTER_END_BYTES>().ok_or("it is too short")?;
    if record_len(end) != Some(record.len()) {
        return Err("it has no end");
    }
    let said = u32::from_le_bytes([end[4], end[5], end[6], end[7]]);
    if crc(&[record, &end[..4]]) != said {
        return Err("its checksum does not fit");
    }
    let mut bytes = Bytes(record);
    let key = usize::from(u16::from_le_bytes(bytes.array()?));
    let key = bytes.take(key)?.to_vec();
    if split_catalogue_key(&key).is_none() {
        return Err("its key is none of a blob");
    }
    Ok((key, Manifest::read(bytes.0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            file: 7,
            version: Version(9),
            size_bytes: 600_000,
            expires_steady_ms: 11,
            created_unix_ms: 5,
            chunk_bytes: CHUNK_BYTES,
            sha256: [3; 32],
            content_type: "image/png".to_owned(),
        }
    }

    #[test]
    fn what_is_written_reads_back_and_every_flipped_bit_is_found() {
        let (key, manifest) = (catalogue_key("n", b"k"), manifest());
        let (value, footer) = (catalogue_value(&key, &manifest), footer(&key, &manifest));
        assert_eq!(read_catalogue_value(&key, &value), Ok(manifest.clone()));
        assert_eq!(read_footer(&footer), Ok((key.clone(), manifest.clone())));
        assert_eq!(manifest.file_bytes(&key), manifest.footer_offset() + footer.len() as u64);
        let (head, payload) = (head(7, CHUNK_BYTES), b"payload");
        let chunk = [&chunk_head(7, 2, payload)[..], payload].concat();
        assert!(is_chunk(7, 2, &chunk));
        assert!(!is_chunk(8, 2, &chunk) && !is_chunk(7, 3, &chunk) && !is_chunk(7, 2, &chunk[..20]));
        let flipped = |bytes: &[u8], check: &dyn Fn(&[u8]) -> bool| {
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(check(&bytes), "bit {bit}");
            }
        };
        flipped(&value, &|value| read_catalogue_value(&key, value).is_err());
        flipped(&footer, &|footer| read_footer(footer).is_err());
        flipped(&chunk, &|chunk| !is_chunk(7, 2, chunk));
        flipped(&head, &|bytes| bytes != head);
    }

    #[test]
    fn a_manifest_is_worth_nothing_under_another_key() {
        let value = catalogue_value(&catalogue_key("n", b"k"), &manifest());
        assert!(read_catalogue_value(&catalogue_key("n", b"l"), &value).is_err());
    }

    #[test]
    fn keys_of_one_namespace_stand_together_and_in_order() {
        let mut keys =
            [("", &b"nx"[..]), ("n", b"x"), ("nx", b"y"), ("n", b"a\x00"), ("n", b"a"), ("", b"a")]
                .map(|(namespace, key)| catalogue_key(namespace, key));
        keys.sort();
        let split: Vec<_> = keys.iter().map(|key| split_catalogue_key(key).unwrap()).collect();
        let expected =
            [("", &b"a"[..]), ("", b"nx"), ("n", b"a"), ("n", b"a\x00"), ("n", b"x"), ("nx", b"y")];
        assert_eq!(split, expected);
        assert!(split_catalogue_key(MARKER).is_none() && !MARKER.starts_with(all_blobs()));
        assert!(split_catalogue_key(&catalogue_key("n", b"")).is_none());
    }

    #[test]
    fn places_in_a_file_follow_from_the_size() {
        let manifest = manifest();
        let chunk = u64::from(CHUNK_BYTES);
        assert_eq!((manifest.chunks(), manifest.chunk_len(2)), (3, 600_000 - 2 * CHUNK_BYTES as usize));
        assert_eq!(manifest.chunk_offset(1), 32 + chunk + 16);
        assert_eq!(manifest.footer_offset(), 32 + 600_000 + 3 * 16);
        let empty = Manifest { size_bytes: 0, ..manifest };
        assert_eq!((empty.chunks(), empty.footer_offset(), empty.chunk_len(0)), (0, 32, 0));
    }
}
