//! Following a node's Watch, so that the near cache holds nothing untrue.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::NearCache;
use crate::client::backoff::Backoff;
use crate::client::error::ClientError;
use crate::client::node::{Availability, NodeHealth};
use crate::client::pool::Pool;
use crate::client::watch::{WatchEvent, WatchMessage, WatchOptions, WatchPosition, WatchScope, WatchStream};

/// A node that refuses to be watched is asked again after this time.
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// What is expired or dropped is given back this often.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Follows the node for as long as the cache is there.
pub(in crate::client) async fn follow(
    cache: Weak<NearCache>,
    pool: Arc<Pool>,
    mut health: watch::Receiver<NodeHealth>,
) {
    let (mut backoff, mut heard) = (Backoff::default(), Heard::default());
    loop {
        let is_there = |health: &NodeHealth| {
            matches!(health.availability, Availability::Available | Availability::Greylisted)
        };
        if health.wait_for(is_there).await.is_err() {
            return;
        }
        let options = WatchOptions { positions: heard.positions(), ..WatchOptions::default() };
        let wait = match WatchStream::open(&pool, options, pool.timeout()).await {
            Ok(stream) => {
                heard.begin_stream();
                if read(&cache, stream, &mut health, &mut heard).await.is_none() {
                    return;
                }
                if heard.is_covered() {
                    backoff = Backoff::default();
                }
                backoff.next()
            }
            Err(ClientError::Status(_)) => REFUSED_AGAIN_AFTER,
            Err(_) => backoff.next(),
        };
        let Some(cache) = cache.upgrade() else { return };
        cache.trust(Duration::ZERO);
        drop(cache);
        tokio::time::sleep(wait).await;
    }
}

/// Reads a stream to its end. None: the cache is gone.
async fn read(
    cache: &Weak<NearCache>,
    mut stream: WatchStream,
    health: &mut watch::Receiver<NodeHealth>,
    heard: &mut Heard,
) -> Option<()> {
    let mut tidy = tokio::time::interval(TIDY_EVERY);
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            _ = tidy.tick() => {
                cache.upgrade()?.tidy();
                continue;
            }
            gone = health.wait_for(|health| health.availability.is_out()) => return gone.ok().map(|_| ()),
        };
        let Ok(Some(message)) = message else { return Some(()) };
        let cache = cache.upgrade()?;
        heard.take(&cache, message);
    }
}

/// What was heard of the node's shards.
#[derive(Debug, Default)]
struct Heard {
    incarnation: u64,
    shards: HashMap<u32, Shard>,
    /// How many there are.
    count: u32,
    interval: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Shard {
    sequence: u64,
    /// When its last Heartbeat came on this stream, in ms of the cache's time; none: there was none. An event is no such sign:
    /// who has fallen behind is told old ones.
    heard_ms: Option<u64>,
}

impl Heard {
    fn positions(&self) -> Vec<WatchPosition> {
        let position = |(shard, known): (&u32, &Shard)| WatchPosition {
            incarnation: self.incarnation,
            shard: *shard,
            sequence: known.sequence,
        };
        self.shards.iter().map(position).collect()
    }

    fn begin_stream(&mut self) {
        self.shards.values_mut().for_each(|shard| shard.heard_ms = None);
    }

    /// Whether all shards were heard on this stream.
    fn is_covered(&self) -> bool {
        self.count > 0 && (0..self.count).all(|shard| self.heard_ms(shard).is_some())
    }

    fn heard_ms(&self, shard: u32) -> Option<u64> {
        self.shards.get(&shard)?.heard_ms
    }

    fn lose_everything(&mut self, cache: &NearCache) {
        cache.trust(Duration::ZERO);
        cache.reset();
        self.shards.clear();
    }

    fn take(&mut self, cache: &NearCache, message: WatchMessage) {
        if message.incarnation != self.incarnation {
            if self.incarnation != 0 {
                self.lose_everything(cache);
            }
            self.incarnation = message.incarnation;
        }
        let WatchMessage { shard, sequence, previous_sequence, event, .. } = message;
        let interval = match event {
            WatchEvent::Discontinuity(_) | WatchEvent::RingChanged { .. } => {
                return self.lose_everything(cache);
            }
            WatchEvent::Invalidation { namespace, scope, version } => {
                match scope {
                    WatchScope::Key(key) => cache.key_changed(&namespace, &key, version),
                    WatchScope::Prefix(prefix) => cache.prefix_changed(&namespace, &prefix),
                    // Which copies have a tag nobody here knows.
                    WatchScope::Tag(_) | WatchScope::All => cache.prefix_changed(&namespace, &[]),
                }
                None
            }
            WatchEvent::Heartbeat { shards, interval } => {
                self.count = shards;
                Some(interval)
            }
        };
        // Another one than the last from this shard means that something was lost.
        let known = self.shards.get(&shard).map(|shard| shard.sequence);
        if known.is_some_and(|known| known != previous_sequence) {
            self.lose_everything(cache);
        }
        let now = cache.now().steady_ms;
        let heard_ms = if interval.is_some() { Some(now) } else { self.heard_ms(shard) };
        self.shards.insert(shard, Shard { sequence, heard_ms });
        if let Some(interval) = interval {
            self.interval = interval;
            self.vouch(cache, now);
        }
    }

    /// Trusts what is here until three intervals after the oldest of the shards' last Heartbeats.
    fn vouch(&self, cache: &NearCache, now: u64) {
        let oldest = (0..self.count).map(|shard| self.heard_ms(shard)).min().flatten();
        if let Some(oldest) = oldest {
            let age = Duration::from_millis(now.saturating_sub(oldest));
            cache.trust((self.interval * 3).saturating_sub(age));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::Clock;
    use crate::entry::Version;

    const INTERVAL: Duration = Duration::from_secs(1);

    struct Stand {
        cache: Arc<NearCache>,
        heard: Heard,
    }

    impl Stand {
        /// A stream of a node with two shards, both of which have been heard.
        fn new() -> Self {
            let mut stand = Self { cache: Arc::new(NearCache::new(1 << 20)), heard: Heard::default() };
            stand.says(0, 0, 0, Stand::heartbeat());
            assert!(!stand.is_trusted(), "the other shard may have told something");
            stand.says(1, 0, 0, Stand::heartbeat());
            assert!(stand.is_trusted());
            stand
        }

        fn heartbeat() -> WatchEvent {
            WatchEvent::Heartbeat { shards: 2, interval: INTERVAL }
        }

        fn event(key: &'static str) -> WatchEvent {
            let scope = WatchScope::Key(Bytes::from_static(key.as_bytes()));
            WatchEvent::Invalidation { namespace: String::new(), scope, version: Version(9) }
        }

        fn says(&mut self, shard: u32, previous_sequence: u64, sequence: u64, event: WatchEvent) {
            let message = WatchMessage { incarnation: 7, shard, sequence, previous_sequence, event };
            self.heard.take(&self.cache, message);
        }

        fn is_trusted(&self) -> bool {
            self.cache.is_trusted(self.cache.now())
        }

        fn pass(&self, time: Duration) {
            self.cache.clock.advance_to(self.cache.now().steady_ms + time.as_millis() as u64);
        }

        /// How often all copies were dropped.
        fn resets(&self) -> u64 {
            self.cache.counts()[4]
        }
    }

    #[test]
    fn copies_are_trusted_for_three_intervals_after_the_oldest_heartbeat() {
        let mut stand = Stand::new();
        stand.pass(INTERVAL * 2);
        stand.says(0, 0, 0, Stand::heartbeat());
        assert!(stand.is_trusted());
        stand.pass(INTERVAL + INTERVAL / 10);
        assert!(!stand.is_trusted(), "the other shard is silent");
        stand.says(1, 0, 0, Stand::heartbeat());
        assert!(stand.is_trusted());
    }

    #[test]
    fn events_are_no_sign_that_all_was_told() {
        let mut stand = Stand::new();
        for sequence in 1..=8 {
            stand.pass(INTERVAL / 2);
            stand.says(0, sequence - 1, sequence, Stand::event("a"));
            stand.says(1, sequence - 1, sequence, Stand::event("b"));
        }
        assert!(!stand.is_trusted(), "it is behind: they may be old");
        assert_eq!(stand.resets(), 0);
    }

    #[test]
    fn what_was_missed_drops_everything_and_so_does_another_incarnation() {
        let mut stand = Stand::new();
        stand.says(0, 0, 1, Stand::event("a"));
        stand.says(0, 2, 3, Stand::event("a"));
        assert_eq!((stand.resets(), stand.is_trusted()), (1, false), "2 was lost");
        stand.says(0, 3, 3, Stand::heartbeat());
        stand.says(1, 0, 0, Stand::heartbeat());
        assert!(stand.is_trusted());
        let event = Stand::heartbeat();
        let other = WatchMessage { incarnation: 8, shard: 0, sequence: 3, previous_sequence: 3, event };
        stand.heard.take(&stand.cache, other);
        assert_eq!((stand.resets(), stand.is_trusted()), (2, false));
    }

    #[test]
    fn a_new_stream_vouches_for_nothing_until_all_shards_are_heard_on_it() {
        let mut stand = Stand::new();
        stand.cache.trust(Duration::ZERO);
        stand.heard.begin_stream();
        stand.says(0, 0, 4, Stand::event("a"));
        stand.says(0, 4, 4, Stand::heartbeat());
        assert!(!stand.is_trusted() && !stand.heard.is_covered());
        stand.says(1, 0, 0, Stand::heartbeat());
        assert_eq!((stand.is_trusted(), stand.heard.is_covered(), stand.resets()), (true, true, 0));
    }
}
