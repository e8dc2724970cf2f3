//! The server: listeners, layers and the life of a node.

pub mod http;
