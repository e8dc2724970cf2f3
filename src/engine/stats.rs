//! What the engine counts. Each shard counts under its own lock, so a counter costs an add and nothing contends;
//! reading them takes each lock once.

use super::op::MissReason;

/// Counters since the start or the last reset, and gauges of now, summed over the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Gets that found an entry.
    pub hits: u64,
    /// Of these, the ones whose entry was not in memory and was read from the disk.
    pub hits_on_disk: u64,
    /// Gets that found none, by reason: [`MissReason`]'s number less one.
    pub misses_by_reason: [u64; MissReason::ALL.len()],
    /// Sets that stored.
    pub sets: u64,
    /// Sets whose condition did not hold.
    pub not_stored: u64,
    /// Deletes that removed an entry.
    pub deletes: u64,
    /// Increments and decrements that changed a counter.
    pub increments: u64,
    /// Touches, also by a Get, that found an entry.
    pub touches: u64,
    /// Entries that the policy let go.
    pub evictions: u64,
    /// Entries reclaimed after their time to live.
    pub expirations: u64,
    /// Entries that an invalidation or a Clear covered, counted when they are swept or looked for.
    pub invalidated: u64,
    /// Sets and increments refused because the entry does not fit a shard.
    pub refusals: u64,
    /// Entries now.
    pub entries: u64,
    /// Bytes that entries, their index and the policy's tables take now.
    pub bytes_used: u64,
    /// Of these, bytes in cells that hold no entry.
    pub bytes_spare: u64,
    /// The most that `bytes_used` may be.
    pub bytes_limit: u64,
}

impl Stats {
    /// All misses.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.misses_by_reason.iter().sum()
    }

    /// Misses for one reason.
    #[must_use]
    pub fn misses_for(&self, reason: MissReason) -> u64 {
        self.misses_by_reason[reason as usize - 1]
    }

    /// Hits among all gets, 0 to 1; `None` before the first.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let gets = self.hits + self.misses();
        (gets > 0).then(|| self.hits as f64 / gets as f64)
    }

    pub(crate) fn count_miss(&mut self, reason: MissReason) {
        self.misses_by_reason[reason as usize - 1] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.hits_on_disk += other.hits_on_disk;
        for (mine, theirs) in self.misses_by_reason.iter_mut().zip(other.misses_by_reason) {
            *mine += theirs;
        }
        self.sets += other.sets;
        self.not_stored += other.not_stored;
        self.deletes += other.deletes;
        self.increments += other.increments;
        self.touches += other.touches;
        self.evictions += other.evictions;
        self.expirations += other.expirations;
        self.invalidated += other.invalidated;
        self.refusals += other.refusals;
        self.entries += other.entries;
        self.bytes_used += other.bytes_used;
        self.bytes_spare += other.bytes_spare;
        self.bytes_limit += other.bytes_limit;
    }
}
