//! What the layers around a service ask of a call's future while it still holds the call.
//!
//! They ask, rather than have the service leave notes in the response's extensions: those are a map on the heap, made at
//! the first insert, and a call that is neither slow nor turned away needs no note. A call that is never asked pays
//! nothing.

/// A call's future that still knows what it was asked for when it is done.
pub trait DescribeCall {
    /// What the service tells of a call; the default of a call that never came to it.
    type Description: Default;

    /// What the call was about, as far as its request was read. Copies: for calls that were slow.
    fn describe(&self) -> Self::Description;
}

/// A call's future that knows how far the call is.
pub trait Begun {
    /// Whether the call has changed something, or is about to whatever becomes of its future: such a call nobody turns
    /// away any more.
    fn has_begun(&self) -> bool;

    /// Whether it waits for its peer, as its request is not whole yet.
    fn is_arriving(&self) -> bool;
}
