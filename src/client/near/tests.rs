//! When copies are kept and served, without a node.

use super::*;
use crate::entry::MissReason;

struct Stand {
    near: Near,
}

impl Stand {
    fn new() -> Self {
        let cache = Arc::new(NearCache::new(1 << 20));
        Self { near: cache.of("n").unwrap() }
    }

    fn cache(&self) -> &NearCache {
        &self.near.cache
    }

    /// Reads a version of a key from a node that is not there, while `meanwhile` happens.
    fn read(&self, key: &[u8], version: u64, meanwhile: impl FnOnce()) {
        let ticket = self.near.ticket("n", key);
        meanwhile();
        self.near.keep(ticket, key, &hit(version, Duration::ZERO));
    }

    fn version(&self, key: &[u8]) -> Option<u64> {
        self.near.get(key).map(|hit| hit.version.0)
    }
}

fn hit(version: u64, near_cache_ttl: Duration) -> Hit {
    Hit {
        value: Bytes::from("value"),
        value_bytes: 5,
        version: Version(version),
        remaining_ttl: None,
        flags: 3,
        content_type: "text/plain".to_owned(),
        tier: Tier::Memory,
        near_cache_ttl,
    }
}

const TRUST: Duration = Duration::from_secs(60);

#[test]
fn a_copy_is_kept_and_served_while_watch_vouches_for_it() {
    let stand = Stand::new();
    stand.read(b"k", 5, || ());
    assert_eq!(stand.version(b"k"), None, "nobody vouches");
    stand.cache().trust(TRUST);
    assert_eq!(stand.version(b"k"), None, "nor did anybody when it was read");
    stand.read(b"k", 5, || ());
    let copy = stand.near.get(b"k").unwrap();
    assert_eq!((copy.tier, copy.flags, copy.content_type.as_str()), (Tier::NearCache, 3, "text/plain"));
    assert_eq!((&copy.value[..], copy.value_bytes), (&b"value"[..], 5));
    stand.cache().trust(Duration::ZERO);
    assert_eq!(stand.version(b"k"), None);
    stand.cache().trust(TRUST);
    assert_eq!(stand.version(b"k"), Some(5), "it was kept meanwhile");
    stand.cache().reset();
    assert_eq!((stand.version(b"k"), stand.cache().counts()[4]), (None, 1));
}

#[test]
fn an_event_drops_what_is_older_and_leaves_what_is_not() {
    let stand = Stand::new();
    stand.cache().trust(TRUST);
    stand.read(b"k", 5, || ());
    stand.cache().key_changed("n", b"k", Version(5));
    assert_eq!(stand.version(b"k"), Some(5), "it tells of this very copy");
    stand.cache().key_changed("other", b"k", Version(9));
    assert_eq!(stand.version(b"k"), Some(5));
    stand.cache().key_changed("n", b"k", Version(6));
    assert_eq!(stand.version(b"k"), None);
    for (prefix, left) in [(&b"ab"[..], Some(1)), (b"k", None), (b"", None)] {
        stand.read(b"key", 1, || ());
        stand.cache().prefix_changed("n", prefix);
        assert_eq!(stand.version(b"key"), left, "{prefix:?}");
    }
}

#[test]
fn what_was_asked_for_before_something_happened_is_not_kept() {
    let stand = Stand::new();
    stand.cache().trust(TRUST);
    let cache = stand.cache();
    let happenings: [&dyn Fn(); 5] = [
        &|| cache.key_changed("n", b"k", Version(9)),
        &|| cache.prefix_changed("n", b"x"),
        &|| cache.reset(),
        &|| drop(stand.near.writing("n", b"k")),
        &|| drop(stand.near.dropping("n", &InvalidateScope::All)),
    ];
    for (nth, happens) in happenings.iter().enumerate() {
        stand.read(b"k", 5, happens);
        assert_eq!(stand.version(b"k"), None, "{nth}");
        stand.read(b"k", 5, || ());
        assert_eq!(stand.version(b"k"), Some(5), "{nth}");
    }
    // Watch that came up meanwhile knows nothing of what was before.
    cache.trust(Duration::ZERO);
    stand.read(b"late", 5, || cache.trust(TRUST));
    assert_eq!(stand.version(b"late"), None);
}

#[test]
fn a_namespace_may_allow_copies_that_nobody_vouches_for() {
    let stand = Stand::new();
    let ticket = stand.near.ticket("n", b"k");
    stand.near.keep(ticket, b"k", &hit(5, TRUST));
    assert_eq!(stand.version(b"k"), Some(5));
    let read = stand.cache().engine.read(&stand.near.namespace, b"none", None, stand.cache().now(), |_| ());
    assert_eq!(read, Err(MissReason::Unknown));
    // Bytes that were left out are no copy.
    let part = Hit { value: Bytes::new(), ..hit(6, TRUST) };
    stand.near.keep(ticket, b"part", &part);
    assert_eq!(stand.version(b"part"), None);
}

#[test]
fn a_copys_times_are_counted_from_when_it_was_asked_for() {
    let stand = Stand::new();
    stand.cache().clock.advance_to(60_000);
    stand.cache().trust(TRUST);
    let second = Duration::from_secs(1);
    let asked = |ago: Duration| {
        let ticket = stand.near.ticket("n", b"k");
        Ticket { asked_ms: ticket.asked_ms.saturating_sub(ago.as_millis() as u64), ..ticket }
    };
    stand.near.keep(asked(10 * second), b"k", &hit(5, 30 * second));
    let copy = stand.near.get(b"k").unwrap();
    assert!((10 * second..=20 * second).contains(&copy.near_cache_ttl), "{copy:?}");
    assert!((10 * second..=20 * second).contains(&copy.remaining_ttl.unwrap()), "{copy:?}");
    stand.near.keep(asked(10 * second), b"late", &hit(5, 9 * second));
    assert_eq!(stand.version(b"late"), None);
    let short_lived = Hit { remaining_ttl: Some(9 * second), ..hit(5, Duration::ZERO) };
    stand.near.keep(asked(10 * second), b"ended", &short_lived);
    assert_eq!(stand.version(b"ended"), None);
}
