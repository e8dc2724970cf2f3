//! A node's place in its cluster.
//!
//! So far a node is alone: its ring is of itself, and never changes. What it adopts, confirms and hands over in a cluster of many
//! is to be here.

mod ring;

pub(crate) use ring::{AdoptedRing, CurrentRing};
