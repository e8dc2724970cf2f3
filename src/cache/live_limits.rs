//! Limits that can be changed while calls read them: one relaxed load each, no lock and no count of readers.
//!
//! A call that runs while they change may see some of the old and some of the new ones; each holds by itself.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::entry::Limits;

#[derive(Debug)]
pub(super) struct LiveLimits {
    key_bytes_max: AtomicUsize,
    value_bytes_max: AtomicUsize,
    content_type_bytes_max: AtomicUsize,
    tags_max: AtomicUsize,
    tag_bytes_max: AtomicUsize,
    batch_items_max: AtomicUsize,
    message_in_bytes_max: AtomicUsize,
    message_out_bytes_max: AtomicUsize,
    ttl_ms_max: AtomicU64,
}

impl LiveLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            key_bytes_max: limits.key_bytes_max.into(),
            value_bytes_max: limits.value_bytes_max.into(),
            content_type_bytes_max: limits.content_type_bytes_max.into(),
            tags_max: limits.tags_max.into(),
            tag_bytes_max: limits.tag_bytes_max.into(),
            batch_items_max: limits.batch_items_max.into(),
            message_in_bytes_max: limits.message_in_bytes_max.into(),
            message_out_bytes_max: limits.message_out_bytes_max.into(),
            ttl_ms_max: limits.ttl_ms_max.into(),
        }
    }

    #[inline]
    pub(super) fn load(&self) -> Limits {
        Limits {
            key_bytes_max: self.key_bytes_max.load(Relaxed),
            value_bytes_max: self.value_bytes_max.load(Relaxed),
            content_type_bytes_max: self.content_type_bytes_max.load(Relaxed),
            tags_max: self.tags_max.load(Relaxed),
            tag_bytes_max: self.tag_bytes_max.load(Relaxed),
            batch_items_max: self.batch_items_max.load(Relaxed),
            message_in_bytes_max: self.message_in_bytes_max.load(Relaxed),
            message_out_bytes_max: self.message_out_bytes_max.load(Relaxed),
            ttl_ms_max: self.ttl_ms_max.load(Relaxed),
        }
    }

    pub(super) fn store(&self, limits: &Limits) {
        self.key_bytes_max.store(limits.key_bytes_max, Relaxed);
        self.value_bytes_max.store(limits.value_bytes_max, Relaxed);
        self.content_type_bytes_max.store(limits.content_type_bytes_max, Relaxed);
        self.tags_max.store(limits.tags_max, Relaxed);
        self.tag_bytes_max.store(limits.tag_bytes_max, Relaxed);
        self.batch_items_max.store(limits.batch_items_max, Relaxed);
        self.message_in_bytes_max.store(limits.message_in_bytes_max, Relaxed);
        self.message_out_bytes_max.store(limits.message_out_bytes_max, Relaxed);
        self.ttl_ms_max.store(limits.ttl_ms_max, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded() {
        let live = LiveLimits::new(&Limits::default());
        assert_eq!(live.load(), Limits::default());
        let other = Limits {
            key_bytes_max: 1,
            value_bytes_max: 2,
            content_type_bytes_max: 3,
            tags_max: 4,
            tag_bytes_max: 5,
            batch_items_max: 6,
            message_in_bytes_max: 7,
            message_out_bytes_max: 8,
            ttl_ms_max: 9,
        };
        live.store(&other);
        assert_eq!((live.load(), LiveLimits::new(&other).load()), (other, other));
    }
}
