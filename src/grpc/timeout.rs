//! The deadline that a caller sends: the `grpc-timeout` header.

use std::time::Duration;

use http::HeaderMap;

use super::error::GrpcError;
use crate::quote::Quote;

/// What the caller grants the call from now on; `None`: the caller does not say.
///
/// # Errors
/// [`GrpcError::Header`] for a header that is not one to eight digits and a unit of `H M S m u n`.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, GrpcError> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let bad = || GrpcError::Header {
        name: "grpc-timeout",
        why: format!("{} is not one to eight digits and one of H, M, S, m, u, n", Quote::of(value)),
    };
    let (digits, unit) =
        value.to_str().ok().and_then(|text| text.split_at_checked(text.len().max(1) - 1)).ok_or_else(bad)?;
    if digits.len() > 8 || digits.starts_with('+') {
        return Err(bad());
    }
    let count: u64 = digits.parse().map_err(|_| bad())?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(bad()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &'static str) -> Result<Option<Duration>, GrpcError> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        grpc_timeout(&headers)
    }

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        assert_eq!(timeout("2H"), Ok(Some(Duration::from_secs(7_200))));
        assert_eq!(timeout("99999999S"), Ok(Some(Duration::from_secs(99_999_999))));
        assert_eq!(timeout("0n"), Ok(Some(Duration::ZERO)));
        assert_eq!(timeout("150m"), Ok(Some(Duration::from_millis(150))));
        for bad in ["", "5", "S", "-1S", "+1S", "123456789S", "1.5S", "1s", "1 S", "H1"] {
            assert!(timeout(bad).is_err(), "{bad:?}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), Ok(None));
    }
}
