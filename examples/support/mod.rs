//! What the examples share: a client of a node.

mod node;

use larder::{Client, RunningNode};

pub(crate) use node::Failure;

/// A client of the node that `--nodes URL` names; without it, of one in this process, which lives as long as it is
/// held.
pub(crate) async fn connect() -> Result<(Client, Option<RunningNode>), Failure> {
    // What it kept would lie in the working directory, and the next example would find it there.
    let (url, node) = node::url(&[("persistence", "none")]).await?;
    Ok((Client::builder([url.parse()?]).build()?, node))
}
