//! What a node stands on.

/// What a node stands on: whose sockets it opens, and whose threads do what is its own work.
#[derive(Debug, Clone, Default)]
pub enum Platform {
    /// The operating system's sockets. What must go on whatever the rest of the program is busy with has threads of its own:
    /// probes, the node's course of events, upkeep.
    #[default]
    System,
    /// A simulation's network. The node has no thread of its own: all that it does are tasks of the runtime that it is started
    /// in, so that one seed makes one order of events. What would have a thread of its own can be starved there, which is
    /// why nothing but a simulation runs so.
    #[cfg(feature = "testing")]
    Simulated(crate::endpoint::network::SharedNetwork),
}

impl Platform {
    /// Whether a node has threads of its own here.
    pub(crate) fn has_threads(&self) -> bool {
        matches!(self, Self::System)
    }
}
