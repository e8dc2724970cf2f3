//! What the tests share.

pub(crate) mod fake;
mod fake_admin;
