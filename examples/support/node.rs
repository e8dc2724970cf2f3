//! A node to speak to.

use std::error::Error;

use larder::config::{ServeArgs, Variables};
use larder::{RunningNode, ServeConfig};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The URL that `--nodes URL` names; without it, that of a node in this process, which lives as long as it is held. Its
/// ports are free ones, and `settings` are those that it has beside them, by the names of larder serve's flags.
pub(crate) async fn url(settings: &[(&str, &str)]) -> Result<(String, Option<RunningNode>), Failure> {
    let mut arguments = std::env::args().skip(1);
    if let (Some("--nodes"), Some(url)) = (arguments.next().as_deref(), arguments.next()) {
        return Ok((url, None));
    }
    let free = "tcp://127.0.0.1:0";
    let mut args = ServeArgs::default()
        .with("listen", free)
        .with("admin", free)
        .with("health", free)
        .with("http", "127.0.0.1:0")
        .with("memory", "64MiB");
    for (name, value) in settings {
        args = args.with(*name, *value);
    }
    let node = RunningNode::start(ServeConfig::load(&args, &Variables::default())?).await?;
    let url = node.node().data_addresses()[0].to_string();
    Ok((url, Some(node)))
}
