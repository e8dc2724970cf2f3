//! By when a call is to be answered.

use std::time::{Duration, Instant};

use crate::client::convert::wire_ms;

/// A call's deadline, and what was left until then when it was looked at last.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct CallTime {
    pub(in crate::client) deadline: Instant,
    pub(in crate::client) timeout_ms: u32,
}

impl CallTime {
    pub(in crate::client) fn new(now: Instant, timeout: Duration) -> Self {
        Self { deadline: now + timeout, timeout_ms: whole_ms(timeout) }
    }

    /// The same deadline, seen from now; none: it has passed.
    pub(in crate::client) fn left(self, now: Instant) -> Option<Self> {
        let left = self.deadline.checked_duration_since(now).filter(|left| !left.is_zero())?;
        Some(Self { timeout_ms: whole_ms(left), ..self })
    }
}

fn whole_ms(duration: Duration) -> u32 {
    u32::try_from(wire_ms(duration)).unwrap_or(u32::MAX)
}
