//! The trace that a call belongs to, and the client's own spans.
//!
//! A call belongs to the trace that [`Client::with_traceparent`](super::Client::with_traceparent) names. Where that names none,
//! and with the feature `opentelemetry`, it belongs to the span that is current in the task that first polls it, if that one is
//! sampled. Its context goes to the node with the call.
//!
//! With that feature the client makes spans of its own, for sampled calls alone: one for each call that goes by itself, and one
//! for all commands that leave together, however many callers they have ([`Gathering`]).

#[cfg(not(feature = "opentelemetry"))]
mod none;
#[cfg(feature = "opentelemetry")]
mod spans;

#[cfg(not(feature = "opentelemetry"))]
use none as spans;

pub(super) use spans::{Gathering, Part, Sampled};

use std::time::Duration;

use super::error::ClientError;
use super::lane::Failure;
use super::url::NodeUrl;
use crate::verb::Verb;

/// The trace of one call.
#[derive(Debug)]
pub(super) struct Trace<'c> {
    given: &'c str,
    url: &'c NodeUrl,
    verb: Verb,
    sampled: Option<Sampled>,
}

impl<'c> Trace<'c> {
    /// Of a call to this node. `given`: the W3C trace context that the client was told; empty: none.
    #[inline]
    pub(super) fn new(given: &'c str, url: &'c NodeUrl, verb: Verb) -> Self {
        Self { given, url, verb, sampled: Sampled::of(given) }
    }

    /// Of a call that belongs to none.
    pub(super) fn none(url: &'c NodeUrl, verb: Verb) -> Self {
        Self { given: "", url, verb, sampled: None }
    }

    /// The W3C trace context that goes to the node; empty: none.
    #[inline]
    pub(super) fn traceparent(&self) -> &str {
        self.sampled.as_ref().map_or(self.given, Sampled::traceparent)
    }

    /// A span for this call alone, if it is traced, which ends with it.
    pub(super) async fn over<T>(
        &self,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let part = self.join(&mut Gathering::default());
        let outcome = call.await;
        if let (Some(part), Err(error)) = (part, &outcome) {
            part.failed(error.code_name());
        }
        outcome
    }

    /// The call has part in a span, and came to this.
    pub(super) fn failed(&self, part: &Part, failure: &Failure) {
        let error = ClientError::of_failure(self.url, self.verb.name(), failure.clone(), Duration::ZERO);
        part.failed(error.code_name());
    }

    /// Takes part in the span of what gathers, if the call is traced.
    #[inline]
    pub(super) fn join(&self, gathering: &mut Gathering) -> Option<Part> {
        self.sampled.as_ref().map(|sampled| gathering.join(sampled, self.verb, self.url))
    }
}
