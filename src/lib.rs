//! Larder: a distributed cache whose native protocol is gRPC.

pub mod api;
pub mod cache;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod engine;
pub mod entry;
pub mod node;
pub mod server;
pub mod service;
pub mod telemetry;
