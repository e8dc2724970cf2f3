//! Sessions: a time to live that each request renews, and changes that never overwrite each other.
//!
//! Ten requests at once add an item to the same session's cart. Each reads the session, changes it and stores it
//! under the condition that nobody else did meanwhile (compare-and-set by version), and tries again where
//! somebody did: all ten items are there at the end.
//!
//! ```text
//! cargo run --example session_store                                 (starts a node of its own)
//! cargo run --example session_store -- --nodes tcp://127.0.0.1:7400 (uses yours)
//! ```

use std::error::Error;
use std::time::Duration;

use larder::client::{GetOutcome, SetCondition, SetExpiration, SetOptions, SetOutcome};
use larder::config::ServeArgs;
use larder::entry::Version;
use larder::{Client, RunningNode, ServeConfig};

type Failure = Box<dyn Error + Send + Sync>;

const SESSION: &str = "session:8f14e45f";
const TTL: Duration = Duration::from_secs(30 * 60);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (url, node) = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--nodes"), Some(url)) => (url, None),
        _ => {
            let node = start_node().await?;
            (node.node().data_addresses()[0].to_string(), Some(node))
        }
    };
    let client = Client::builder([url.parse()?]).build()?;

    // Log in.
    client
        .set(SESSION, "", &SetOptions { expiration: SetExpiration::After(TTL), ..Default::default() })
        .await?;
    // Ten requests at once.
    let requests = (1..=10).map(|item| tokio::spawn(add_to_cart(client.clone(), item)));
    let mut tries = 0;
    for request in requests.collect::<Vec<_>>() {
        tries += request.await??;
    }
    let GetOutcome::Hit(session) = client.get(SESSION).await? else { return Err("no session".into()) };
    println!("cart: {}", std::str::from_utf8(&session.value)?);
    println!("{tries} tries for 10 changes; {} ms to live", session.remaining_ttl_ms);

    // A request that only reads renews the session. Log out; the next one finds none.
    println!("renewed: {}", client.touch(SESSION, TTL).await?);
    println!("deleted: {}", client.delete(SESSION, None).await?.deleted);
    println!("renewed: {}", client.touch(SESSION, TTL).await?);
    if let Some(node) = node {
        node.node().lifecycle().drain(None);
        node.stopped().await;
    }
    Ok(())
}

/// Adds an item to the session's cart; how many tries it took.
async fn add_to_cart(client: Client, item: u32) -> Result<u32, Failure> {
    for tries in 1.. {
        let GetOutcome::Hit(session) = client.get(SESSION).await? else { break };
        let cart = format!("{}{item} ", std::str::from_utf8(&session.value)?);
        let options = SetOptions {
            expiration: SetExpiration::After(TTL),
            condition: SetCondition::IfVersion(Version(session.version)),
            ..Default::default()
        };
        if let SetOutcome::Stored(_) = client.set(SESSION, cart, &options).await? {
            return Ok(tries);
        }
    }
    Err("logged out meanwhile".into())
}

/// A node in this process, on free ports.
async fn start_node() -> Result<RunningNode, Failure> {
    let free = || "tcp://127.0.0.1:0".to_owned();
    let args = ServeArgs {
        listen: vec![free()],
        admin: Some(free()),
        health: Some(free()),
        http: Some("127.0.0.1:0".to_owned()),
        memory: Some("64MiB".to_owned()),
        ..ServeArgs::default()
    };
    Ok(RunningNode::start(ServeConfig::load(&args, &|_| None)?).await?)
}
