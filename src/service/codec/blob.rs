//! Proto ⇄ domain for blobs: a header that begins one, checked against the limits.

use crate::entry::{Limits, Ttl};
use crate::proto::v1;
use crate::request::CallError;
use crate::request::convert::{key, ttl};

/// The SHA-256's length.
const SHA256_BYTES: usize = 32;

/// What a header of PutBlob says, beside names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobPromise {
    /// `None`: the namespace's default.
    pub(crate) ttl: Option<Ttl>,
    /// The length, where it is said.
    pub(crate) size_bytes: Option<u64>,
    /// The digest, where it is said.
    pub(crate) sha256: Option<[u8; SHA256_BYTES]>,
}

/// Reads the header of a PutBlob.
pub(crate) fn promise(header: &v1::BlobHeader, limits: &Limits) -> Result<BlobPromise, CallError> {
    key(&header.key, limits, || "key".to_owned())?;
    let (bytes, max) = (header.content_type.len(), limits.content_type_bytes_max);
    if bytes > max {
        return Err(CallError::ContentTypeTooLong { bytes, max });
    }
    let ttl = ttl("ttl_ms", header.ttl_ms, limits.ttl_ms_max)?;
    if header.version != 0 {
        let why = "it is the node's to draw: leave it 0".to_owned();
        return Err(CallError::Invalid { field: "version", why });
    }
    let sha256 = match header.sha256.len() {
        0 => None,
        bytes => Some(header.sha256[..].try_into().map_err(|_| CallError::Invalid {
            field: "sha256",
            why: format!(
                "it has {bytes} bytes: a SHA-256 has {SHA256_BYTES}, and none at all is not checked"
            ),
        })?),
    };
    Ok(BlobPromise {
        ttl: (ttl != Ttl::Never).then_some(ttl),
        size_bytes: (header.size_bytes != 0).then_some(header.size_bytes),
        sha256,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::grpc::Failure;

    #[test]
    fn a_header_is_held_to_the_limits_and_what_is_not_said_is_not_checked() {
        let limits = Limits::default();
        let good = v1::BlobHeader { key: Bytes::from("k"), ..Default::default() };
        assert_eq!(promise(&good, &limits), Ok(BlobPromise { ttl: None, size_bytes: None, sha256: None }));
        let said =
            v1::BlobHeader { ttl_ms: 5, size_bytes: 7, sha256: Bytes::from(vec![9; 32]), ..good.clone() };
        let expected = BlobPromise { ttl: Some(Ttl::Ms(5)), size_bytes: Some(7), sha256: Some([9; 32]) };
        assert_eq!(promise(&said, &limits), Ok(expected));
        let wrong = [
            v1::BlobHeader { key: Bytes::new(), ..good.clone() },
            v1::BlobHeader { key: vec![1; 4_097].into(), ..good.clone() },
            v1::BlobHeader { content_type: "t".repeat(256), ..good.clone() },
            v1::BlobHeader { ttl_ms: u64::MAX, ..good.clone() },
            v1::BlobHeader { version: 1, ..good.clone() },
            v1::BlobHeader { sha256: Bytes::from(vec![9; 31]), ..good },
        ];
        for header in wrong {
            assert_eq!(promise(&header, &limits).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }
}
