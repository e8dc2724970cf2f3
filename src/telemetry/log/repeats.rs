//! Warnings of libraries, one of a kind a second.
//!
//! h2 warns of each connection whose client resets calls faster than they are answered, or answers pings that nobody has
//! sent: a client that does so on one connection after the other would write the log. What this crate says itself it holds
//! to that by [`Throttle`], where a client can bring it about.

use std::collections::HashMap;

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::clock::Throttle;

/// Leaves out what a library has warned of within the last second at the same place in its code.
#[derive(Debug, Default)]
pub(super) struct RepeatLimit {
    /// By place: as many as there are in the libraries.
    places: Mutex<HashMap<Identifier, Throttle>>,
}

impl<S: Subscriber> Layer<S> for RepeatLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // A filter that lets more than warnings through gets every line.
        if *metadata.level() > Level::WARN || metadata.target().split("::").next() == Some("larder") {
            return true;
        }
        let (mut is_said, mut left_out) = (false, None);
        let mut places = self.places.lock();
        places.entry(metadata.callsite()).or_default().say(|times| (is_said, left_out) = (true, times));
        drop(places);
        if let Some(times) = left_out {
            tracing::warn!(target: "larder::log", of = metadata.target(), times, "left out what a library says again and again");
        }
        is_said
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Keeps the targets of what reaches it.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().push(event.metadata().target().to_owned());
        }
    }

    #[test]
    fn a_library_warns_once_a_second_at_each_place_and_this_crate_as_often_as_it_does() {
        let seen = Seen::default();
        let subscriber = tracing_subscriber::registry().with(seen.clone()).with(RepeatLimit::default());
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                tracing::warn!(target: "h2::one", "of this connection");
                tracing::warn!(target: "h2::two", "of it as well");
                tracing::info!(target: "h2::news", "asked for");
                tracing::warn!(target: "larder::server", "held by what says it");
            }
        });
        let seen = seen.0.lock();
        let times = |target: &str| seen.iter().filter(|seen| *seen == target).count();
        let all = ["h2::one", "h2::two", "h2::news", "larder::server"].map(times);
        assert_eq!(all, [1, 1, 3, 3]);
    }
}
