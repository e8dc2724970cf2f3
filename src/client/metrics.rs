//! What a client has done, in numbers.

use super::node::Node;

/// Counts since the client was built. All only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientMetrics {
    /// Single-key commands that were written to a Pipeline.
    pub commands: u64,
    /// Answers to them.
    pub replies: u64,
    /// Batches in which they went out: `commands / batches` of them to a batch, on average.
    pub batches: u64,
    /// Bytes of commands.
    pub bytes_sent: u64,
    /// Bytes of answers.
    pub bytes_received: u64,
    /// Calls that waited because a connection took no more.
    pub queued: u64,
    /// Calls whose deadline passed.
    pub deadlines: u64,
    /// Calls that were sent again.
    pub retries: u64,
    /// Gets that were asked a second time before they were answered.
    pub hedges: u64,
    /// Connections that were opened for commands.
    pub connections_opened: u64,
    /// How often the node was found to be out.
    pub times_out: u64,
    /// Gets that the near cache answered.
    pub near_hits: u64,
    /// Gets that it did not.
    pub near_misses: u64,
    /// Entries that it has copies of.
    pub near_entries: u64,
    /// Bytes that it takes.
    pub near_bytes: u64,
    /// How often it dropped everything, because it could not tell what was still true.
    pub near_resets: u64,
}

impl ClientMetrics {
    pub(super) fn of(node: &Node) -> Self {
        let mut sum = Self {
            retries: node.retries(),
            hedges: node.hedges(),
            times_out: node.times_out(),
            ..Self::default()
        };
        for counts in node.counts() {
            sum.commands += counts.commands;
            sum.replies += counts.replies;
            sum.batches += counts.batches;
            sum.bytes_sent += counts.bytes_sent;
            sum.bytes_received += counts.bytes_received;
            sum.queued += counts.queued;
            sum.deadlines += counts.deadlines;
            sum.connections_opened += counts.opened;
        }
        sum
    }

    #[cfg(feature = "near-cache")]
    pub(super) fn with_near(self, [hits, misses, entries, bytes, resets]: [u64; 5]) -> Self {
        Self {
            near_hits: hits,
            near_misses: misses,
            near_entries: entries,
            near_bytes: bytes,
            near_resets: resets,
            ..self
        }
    }
}
