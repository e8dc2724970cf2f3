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

mod support;

use std::time::Duration;

use larder::Client;
use larder::client::{DeleteOptions, GetOutcome, SetCondition, SetExpiration, SetOptions, SetOutcome};
use support::{Failure, connect};

const SESSION: &str = "session:8f14e45f";
const TTL: Duration = Duration::from_secs(30 * 60);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (client, node) = connect().await?;

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
    println!("{tries} tries for 10 changes; {:?} to live", session.remaining_ttl.unwrap_or_default());

    // A request that only reads renews the session. Log out; the next one finds none.
    println!("renewed: {}", client.touch(SESSION, TTL).await?);
    println!("deleted: {}", client.delete(SESSION, &DeleteOptions::default()).await?.deleted);
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
            condition: SetCondition::IfVersion(session.version),
            ..Default::default()
        };
        if let SetOutcome::Stored(_) = client.set(SESSION, cart, &options).await? {
            return Ok(tries);
        }
    }
    Err("logged out meanwhile".into())
}
