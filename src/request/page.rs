//! Pages of a scan: how long they are, and the token that the next one is asked for with.
//!
//! ```text
//! page token, 21 or 29 bytes, big-endian
//! ┌──────────┬──────────────┬──────────────────────────────────┬───────────┬──────────────────┐
//! │ form (1) │ cache id (8) │ XXH64 of namespace, 0, prefix (8)│ shard (4) │ place in it, (8) │
//! └──────────┴──────────────┴──────────────────────────────────┴───────────┴──────────────────┘
//! ```
//!
//! The order of a scan comes of the engine's hashes, which are seeded in each process: a token is worth something
//! only where it came from.

use bytes::Bytes;

use super::CallError;
use crate::engine::ScanCursor;

const PAGE_SIZE_DEFAULT: usize = 1_000;
const TOKEN_FORM: u8 = 1;
/// Without and with a place in the shard.
const TOKEN_BYTES: [usize; 2] = [21, PAGE_TOKEN_BYTES_MAX];
/// The longest token.
pub(crate) const PAGE_TOKEN_BYTES_MAX: usize = 29;

/// What a page token must agree with.
#[derive(Debug)]
pub(crate) struct PageToken {
    cache: u64,
    range: u64,
}

impl PageToken {
    /// Of a scan of this namespace and prefix, in the cache of this id.
    pub(crate) fn of(cache: u64, namespace: &str, prefix: &[u8]) -> Self {
        let mut range = namespace.as_bytes().to_vec();
        range.push(0);
        range.extend_from_slice(prefix);
        Self { cache, range: xxhash_rust::xxh64::xxh64(&range, 0) }
    }

    /// The token of a place in the scan.
    pub(crate) fn at(&self, cursor: ScanCursor) -> Bytes {
        let mut token = vec![TOKEN_FORM];
        token.extend_from_slice(&self.cache.to_be_bytes());
        token.extend_from_slice(&self.range.to_be_bytes());
        token.extend_from_slice(&cursor.shard.to_be_bytes());
        token.extend(cursor.after.iter().flat_map(|after| after.to_be_bytes()));
        token.into()
    }

    /// Where a token says that the page before ended; an empty one is the beginning.
    pub(crate) fn cursor(&self, token: &[u8]) -> Result<Option<ScanCursor>, CallError> {
        if token.is_empty() {
            return Ok(None);
        }
        let number = |at: usize| {
            let bytes = token.get(at..at + 8)?;
            Some(u64::from_be_bytes(bytes.try_into().ok()?))
        };
        let known = TOKEN_BYTES.contains(&token.len()) && token[0] == TOKEN_FORM;
        let shard = token.get(17..21).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
        let (true, Some(cache), Some(range), Some(shard)) = (known, number(1), number(9), shard) else {
            return Err(bad_token("it is none that a node gave"));
        };
        if cache != self.cache {
            return Err(bad_token(
                "it is of another node, or of this one before it was restarted: begin anew",
            ));
        }
        if range != self.range {
            return Err(bad_token("it is of a scan of another namespace or prefix"));
        }
        Ok(Some(ScanCursor { shard, after: number(21) }))
    }
}

/// How many items a page may have.
pub(crate) fn page_size(asked: u32, max: usize) -> usize {
    let asked = if asked == 0 { PAGE_SIZE_DEFAULT } else { asked as usize };
    asked.min(max)
}

/// A page token that cannot be gone on from.
pub(crate) fn bad_token(why: &str) -> CallError {
    CallError::Invalid { field: "page_token", why: why.to_owned() }
}
