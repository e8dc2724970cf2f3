//! Where an engine's bytes are.

/// What an engine holds, by use, in bytes; the parts do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Entries.
    pub entries: u64,
    /// Their cells: key, metadata, values up to 4 KiB, rounding.
    pub entry_bytes: u64,
    /// Values above 4 KiB, with the allocator's rounding.
    pub large_value_bytes: u64,
    /// Cells that hold no entry.
    pub spare_bytes: u64,
    /// What is left at the ends of pages, and pages kept for the next entries.
    pub page_rest_bytes: u64,
    /// The index.
    pub index_bytes: u64,
    /// The policies' tables: ghosts, sketches, shadows.
    pub policy_bytes: u64,
    /// The memory of departed keys, for the reasons of misses.
    pub departed_bytes: u64,
    /// The request ids of increments.
    pub request_bytes: u64,
    /// The tags' names and tables.
    pub tag_bytes: u64,
    /// The count of hot keys.
    pub hot_key_bytes: u64,
    /// Invalidations that the sweep has not been everywhere for.
    pub invalidation_bytes: u64,
    /// What it takes to know where entries lie on disk.
    pub disk_tier_bytes: u64,
    /// What it takes to know which blobs there are.
    pub blob_bytes: u64,
    /// What events for watchers may take, while they are noted.
    pub event_bytes: u64,
    /// What all of it together may be.
    pub bytes_limit: u64,
}

impl Memory {
    /// The parts by name.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, u64); 14] {
        [
            ("entries", self.entry_bytes),
            ("large-values", self.large_value_bytes),
            ("free-cells", self.spare_bytes),
            ("page-ends", self.page_rest_bytes),
            ("index", self.index_bytes),
            ("policy", self.policy_bytes),
            ("departed-keys", self.departed_bytes),
            ("request-ids", self.request_bytes),
            ("tags", self.tag_bytes),
            ("hot-keys", self.hot_key_bytes),
            ("invalidations", self.invalidation_bytes),
            ("places-on-disk", self.disk_tier_bytes),
            ("blobs", self.blob_bytes),
            ("watch-log", self.event_bytes),
        ]
    }

    /// All parts together: what counts against the limit.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }
}
