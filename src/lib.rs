//! Larder: a distributed cache whose native protocol is gRPC.

pub mod api;
pub mod cli;
pub mod client;
pub mod clock;
pub mod engine;
pub mod entry;
