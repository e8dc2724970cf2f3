//! Conversions between the wire's types and the domain's beside those of data requests (`crate::request`): blobs, namespaces,
//! and hot responses, which are written straight into what is sent.

pub(crate) mod blob;
pub(crate) mod encode;
pub(crate) mod namespace;
