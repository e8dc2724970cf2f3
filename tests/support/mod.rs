//! What the tests share.

pub(crate) mod collector;
pub(crate) mod etcd;
pub(crate) mod fake;
mod fake_admin;
pub(crate) mod faketime;
pub(crate) mod fixture;
pub(crate) mod forks;
pub(crate) mod held;
pub(crate) mod history;
pub(crate) mod kept;
pub(crate) mod node;
pub(crate) mod opened;
pub(crate) mod outside;
pub(crate) mod plain_node;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod simulated;
pub(crate) mod stored;
pub(crate) mod strace;
pub(crate) mod stream;
pub(crate) mod stuck;
