//! The only conversions between the wire's types and the domain's: requests read where they lie, checked against the
//! limits and made operations of the engine; hot responses written straight into what is sent.

pub(crate) mod blob;
pub(crate) mod convert;
pub(crate) mod encode;
pub(crate) mod namespace;
pub(crate) mod view;
