//! Calls that have begun to change something, which nobody turns away any more.

/// A call's future that knows whether it has begun.
pub trait Begun {
    /// Whether the call has changed something, or is about to whatever becomes of its future.
    fn has_begun(&self) -> bool;
}
