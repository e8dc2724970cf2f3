//! A request's metadata, as far as the contract or gRPC fixes a name: refused where it is malformed or asks for what is
//! not served, never ignored.
//!
//! | name | this node, which serves no ring |
//! |---|---|
//! | grpc-encoding | reads `identity` alone: UNIMPLEMENTED, with grpc-accept-encoding in the answer |
//! | larder-ring-epoch | a decimal u64; 0 is no ring or one without an epoch, any other is UNIMPLEMENTED |
//! | larder-ring-digest-bin | base64; empty is no digest, any other is UNIMPLEMENTED |

use http::{HeaderMap, HeaderValue};
use tonic::metadata::MetadataMap;

use crate::grpc::GrpcError;
use crate::quote::Quote;
use crate::request::CallError;

const ENCODING: &str = "grpc-encoding";
const RING_EPOCH: &str = "larder-ring-epoch";
const RING_DIGEST: &str = "larder-ring-digest-bin";

/// Checks what a call's headers say. One pass over them, as most requests have none of these.
#[inline]
pub(super) fn check(headers: &HeaderMap) -> Result<(), CallError> {
    for (name, value) in headers {
        match name.as_str() {
            ENCODING => encoding(value)?,
            RING_EPOCH => ring_epoch(value)?,
            RING_DIGEST => ring_digest(value)?,
            _ => {}
        }
    }
    Ok(())
}

fn encoding(value: &HeaderValue) -> Result<(), CallError> {
    if value == "identity" {
        Ok(())
    } else {
        Err(GrpcError::Compressed { encoding: Quote::of(value) }.into())
    }
}

fn ring_epoch(value: &HeaderValue) -> Result<(), CallError> {
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse::<u64>().ok()) {
        Some(0) => Ok(()),
        Some(_) => Err(CallError::NotServed { what: RING_EPOCH.to_owned() }),
        None => Err(CallError::Invalid {
            field: RING_EPOCH,
            why: format!("{} is no decimal number of 64 bits", Quote::of(value)),
        }),
    }
}

fn ring_digest(value: &HeaderValue) -> Result<(), CallError> {
    let mut alone = HeaderMap::new();
    alone.insert(RING_DIGEST, value.clone());
    let alone = MetadataMap::from_headers(alone);
    match alone.get_bin(RING_DIGEST).and_then(|value| value.to_bytes().ok()) {
        Some(digest) if digest.is_empty() => Ok(()),
        Some(_) => Err(CallError::NotServed { what: RING_DIGEST.to_owned() }),
        None => {
            Err(CallError::Invalid { field: RING_DIGEST, why: format!("{} is not base64", Quote::of(value)) })
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::grpc::Failure;

    fn code(name: &'static str, value: &str) -> Code {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert(name, value.parse().unwrap());
        check(&headers).map_or_else(|error| error.code(), |()| Code::Ok)
    }

    #[test]
    fn what_is_malformed_is_told_from_what_is_not_served() {
        assert_eq!(code("grpc-encoding", "identity"), Code::Ok);
        for other in ["gzip", "", "Identity", "identity, gzip"] {
            assert_eq!(code("grpc-encoding", other), Code::Unimplemented, "{other:?}");
        }
        for none in ["0", "000"] {
            assert_eq!(code("larder-ring-epoch", none), Code::Ok, "{none:?}");
        }
        for epoch in ["1", "18446744073709551615"] {
            assert_eq!(code("larder-ring-epoch", epoch), Code::Unimplemented, "{epoch:?}");
        }
        for bad in ["x", "", "-1", "+1", " 1", "1.0", "0x1", "18446744073709551616", "1,1"] {
            assert_eq!(code("larder-ring-epoch", bad), Code::InvalidArgument, "{bad:?}");
        }
        assert_eq!(code("larder-ring-digest-bin", ""), Code::Ok);
        for digest in ["AAECAwQFBgc", "AAECAwQFBgc="] {
            assert_eq!(code("larder-ring-digest-bin", digest), Code::Unimplemented, "{digest:?}");
        }
        for bad in ["x", "*", "AAEC AwQ", "AA=E"] {
            assert_eq!(code("larder-ring-digest-bin", bad), Code::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn every_value_of_a_name_is_looked_at_and_other_names_are_not() {
        let mut headers = HeaderMap::new();
        headers.append("larder-ring-epoch", HeaderValue::from_static("0"));
        headers.insert("larder-ring", HeaderValue::from_static("x"));
        assert_eq!(check(&headers), Ok(()));
        headers.append("larder-ring-epoch", HeaderValue::from_static("x"));
        assert!(check(&headers).is_err());
    }
}
