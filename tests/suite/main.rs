//! The behaviour of the program and of the library, as their users meet it: one file for each. They are one program, as each
//! program links the whole library; `cargo test --test suite pipeline` runs those of one file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod backlog;
mod blob_faults;
mod blob_kills;
mod blobs;
mod blobs_on_disk;
mod blocking;
mod cache;
mod cli;
mod client;
mod client_forks;
mod client_spans;
mod client_streams;
mod client_values;
mod config;
mod conformance;
mod counters;
mod disk;
mod disk_trouble;
mod durability;
mod embedding;
mod failpoints;
mod floods;
mod formats;
mod frames;
mod fsync;
mod grpcurl;
mod increments;
mod insight;
mod keyspace;
mod lifecycle;
mod listener;
mod live_config;
mod logs;
mod membership;
mod namespaces;
mod near_cache;
mod pipeline;
mod pipeline_disk;
mod process;
mod python;
mod ring;
mod ring_hash;
#[path = "../model/tests/rules.rs"]
mod rules;
mod simulation;
mod slow_ops;
mod stalled;
mod status;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod transports;
mod watch;
