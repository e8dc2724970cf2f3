//! What a node may hold in memory beside its entries, by use. All of it follows from the limit on memory.
//!
//! A host plans for the limit, a tenth of it and 64 MiB. What entries, index and policies take is held to the limit, and
//! the program, its connections and the storage's own caches take about 32 MiB. What is left, the *spare memory*, is
//! divided here; the rest is the allocator's and that of what cannot be counted:
//!
//! | part | of the spare memory | at the most |
//! |---|---|---|
//! | answers that clients have yet to read | a third | 32 MiB |
//! | long requests under way | an eighth | 256 MiB |
//! | what came of long requests that wait to be read | what the others leave of ten twelfths | 64 MiB |
//! | short requests that wait for the disk | a twelfth | 64 MiB |
//! | changes that wait for the disk | a thirty-second of the limit, at least 4 MiB | 64 MiB |

const MIB: u64 = 1 << 20;
/// The most that `--max-response-backlog` is where it is not given: eight answers of the longest kind.
const MAX_RESPONSE_BACKLOG_BYTES: u64 = 32 * MIB;

/// The parts, each in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Answers that clients have yet to read: `--max-response-backlog`, where it is not given.
    pub answer_bytes: u64,
    /// Long requests from when their length is known until they are done. One at a time may be longer.
    pub request_bytes: u64,
    /// Changes that are logged and not written.
    pub journal_bytes: u64,
    /// Short requests that wait for room in the journal's backlog.
    pub waiting_bytes: u64,
    /// What may have come of long requests that wait to be read.
    pub unread_bytes: u64,
    /// What a peer may send of a call before the node has read it: 64 KiB to 1 MiB.
    pub window_bytes: u64,
}

impl MemoryPlan {
    /// The plan for a limit on memory.
    #[must_use]
    pub fn of(memory_bytes: u64) -> Self {
        let spare = 32 * MIB + memory_bytes / 10;
        let answer_bytes = (spare / 3).min(MAX_RESPONSE_BACKLOG_BYTES);
        let request_bytes = (spare / 8).min(256 * MIB);
        let journal_bytes = (memory_bytes / 32).clamp(4 * MIB, 64 * MIB);
        let waiting_bytes = (spare / 12).min(64 * MIB);
        let others = answer_bytes + request_bytes + journal_bytes + waiting_bytes;
        Self {
            answer_bytes,
            request_bytes,
            journal_bytes,
            waiting_bytes,
            unread_bytes: (spare / 12 * 10).saturating_sub(others).min(64 * MIB),
            window_bytes: (memory_bytes / 4_096).clamp(MIB / 16, MIB),
        }
    }

    /// [`Self::answer_bytes`], or twice the longest answer where that is more and no more than the most.
    #[must_use]
    pub fn answer_bytes_for(&self, message_out_bytes_max: u64) -> u64 {
        let two = message_out_bytes_max.saturating_mul(2);
        self.answer_bytes.max(two.min(MAX_RESPONSE_BACKLOG_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_leave_room_beside_what_a_host_plans_for() {
        let mut before = MemoryPlan::of(0);
        for memory_bytes in (0..40).map(|power| 1 << power) {
            let plan = MemoryPlan::of(memory_bytes);
            let MemoryPlan { answer_bytes, request_bytes, journal_bytes, window_bytes, .. } = plan;
            let all = answer_bytes + request_bytes + journal_bytes + plan.waiting_bytes + plan.unread_bytes;
            assert!(all <= (32 * MIB + memory_bytes / 10) / 12 * 10, "{memory_bytes}: {plan:?}");
            assert!(plan.unread_bytes / window_bytes >= 60, "60 long requests may wait");
            assert!(journal_bytes >= before.journal_bytes && window_bytes >= before.window_bytes);
            before = plan;
        }
        let journal = |memory_bytes| MemoryPlan::of(memory_bytes).journal_bytes;
        assert_eq!([64 * MIB, 1 << 30, 1 << 36].map(journal), [4 * MIB, 32 * MIB, 64 * MIB]);
    }
}
