//! W3C Trace Context: the `traceparent` header, parsed by hand because every traced-or-not call passes here.
//!
//! ```text
//! 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//! └┬┘ └───────────── trace id ─────┘ └── span id ───┘ └┬┘
//! version (ff is none; a later one may have more       flags: bit 0 = sampled
//! behind, after another dash)
//! ```

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The span that a call belongs to, as its `traceparent` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traceparent {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) sampled: bool,
}

/// Bytes of the header's present version.
const LEN: usize = 55;

impl Traceparent {
    /// `None` for what is no valid traceparent: the call then counts as having no parent, as the standard says.
    pub(crate) fn parse(header: &[u8]) -> Option<Self> {
        let (fixed, rest) = header.split_at_checked(LEN)?;
        if fixed[2] != b'-' || fixed[35] != b'-' || fixed[52] != b'-' {
            return None;
        }
        match hex(&fixed[..2])? {
            0xff => return None,
            0 if !rest.is_empty() => return None,
            _ if !rest.is_empty() && rest[0] != b'-' => return None,
            _ => {}
        }
        let trace_id = u128::from(hex(&fixed[3..19])?) << 64 | u128::from(hex(&fixed[19..35])?);
        let span_id = hex(&fixed[36..52])?;
        let flags = hex(&fixed[53..])?;
        (trace_id != 0 && span_id != 0).then(|| Self {
            trace_id: trace_id.into(),
            span_id: span_id.into(),
            sampled: flags & 1 == 1,
        })
    }

    /// That of a span that is sampled; `None` as well for one that is not.
    pub(crate) fn sampled(header: &[u8]) -> Option<Self> {
        Self::parse(header).filter(|parent| parent.sampled)
    }

    /// The span as one of another process, as whose child a sampled span is made.
    pub(crate) fn remote_context(self, state: TraceState) -> SpanContext {
        SpanContext::new(self.trace_id, self.span_id, TraceFlags::SAMPLED, true, state)
    }
}

/// Up to 16 lower-case hex digits.
fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_standards_example_is_understood() {
        let parent = Traceparent::parse(VALID.as_bytes()).unwrap();
        assert_eq!(parent.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id.to_string(), "b7ad6b7169203331");
        assert!(parent.sampled);
        let unsampled = VALID.replace("-01", "-fe");
        assert!(!Traceparent::parse(unsampled.as_bytes()).unwrap().sampled);
        let later = format!("cc{}-what-comes-later", &VALID[2..]);
        assert_eq!(Traceparent::parse(later.as_bytes()), Some(parent));
    }

    #[test]
    fn what_the_standard_forbids_is_no_parent() {
        let upper = VALID.to_uppercase();
        let no_trace = VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let no_span = VALID.replace("b7ad6b7169203331", &"0".repeat(16));
        let longer = format!("{VALID}-00");
        let later = format!("cc{}x", &VALID[2..]);
        let version = format!("ff{}", &VALID[2..]);
        let dashes = VALID.replace('-', "_");
        for text in ["", "00", &VALID[..54], &upper, &no_trace, &no_span, &longer, &later, &version, &dashes]
        {
            assert_eq!(Traceparent::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Traceparent::parse(&bytes);
        }

        #[test]
        fn ids_come_through(trace in 1_u128.., span in 1_u64.., flags in any::<u8>()) {
            let header = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            let parent = Traceparent::parse(header.as_bytes()).unwrap();
            prop_assert_eq!(parent.trace_id, TraceId::from(trace));
            prop_assert_eq!(parent.span_id, SpanId::from(span));
            prop_assert_eq!(parent.sampled, flags & 1 == 1);
        }
    }
}
