//! What the examples share: a node to speak to.

use std::error::Error;

use larder::config::{ServeArgs, Variables};
use larder::{Client, RunningNode, ServeConfig};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A client of the node that `--nodes URL` names; without it, of one in this process, which lives as long as it is
/// held.
pub(crate) async fn connect() -> Result<(Client, Option<RunningNode>), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (url, node) = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--nodes"), Some(url)) => (url, None),
        _ => {
            let node = start_node().await?;
            (node.node().data_addresses()[0].to_string(), Some(node))
        }
    };
    Ok((Client::builder([url.parse()?]).build()?, node))
}

/// A node on free ports.
async fn start_node() -> Result<RunningNode, Failure> {
    let free = "tcp://127.0.0.1:0";
    let args = ServeArgs::default()
        .with("listen", free)
        .with("admin", free)
        .with("health", free)
        .with("http", "127.0.0.1:0")
        .with("memory", "64MiB")
        // It would lie in the working directory, and the next example would find it there.
        .with("persistence", "none");
    Ok(RunningNode::start(ServeConfig::load(&args, &Variables::default())?).await?)
}
