//! Larder: a distributed cache whose native protocol is gRPC.

pub mod api;
pub mod clock;
pub mod config;
pub mod engine;
pub mod entry;
pub mod server;
pub mod telemetry;
