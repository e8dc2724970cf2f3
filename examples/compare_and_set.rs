//! Compare-and-set: a lock with a holder, and a change that never overwrites another.
//!
//! Eight workers want to be the one that does a job. The lock is an entry that only one Set can make (if_absent); its
//! time to live frees it if the holder dies, and it is given back by version, so that nobody gives back a lock that
//! has passed to another meanwhile. Then all eight move one from stock to sold in the same entry, each by the version
//! that it read, and try again where somebody was faster: nothing is sold twice.
//!
//! ```text
//! cargo run --example compare_and_set                                 (starts a node of its own)
//! cargo run --example compare_and_set -- --nodes tcp://127.0.0.1:7400 (uses yours)
//! ```

mod support;

use std::time::Duration;

use larder::Client;
use larder::client::{DeleteOptions, GetOutcome, SetCondition, SetExpiration, SetOptions, SetOutcome};
use larder::entry::Version;
use support::{Failure, connect};

const WORKERS: u32 = 8;
const LOCK: &str = "lock:nightly-report";
const SHELF: &str = "shelf:42";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (client, _node) = connect().await?;
    client.batch_delete(vec![LOCK.into(), SHELF.into()], None).await?;

    let mut held = Vec::new();
    for worker in 0..WORKERS {
        match lock(&client, worker).await? {
            Some(version) => held.push((worker, version)),
            None => println!("worker {worker}: somebody else does it"),
        }
    }
    for (worker, version) in held {
        let mine = DeleteOptions { if_version: Some(version), ..Default::default() };
        let freed = client.delete(LOCK, &mine).await?.deleted;
        println!("worker {worker}: done, lock given back: {freed}");
        println!("again: {}", client.delete(LOCK, &mine).await?.deleted);
    }

    client.set(SHELF, "8 in stock, 0 sold", &SetOptions::default()).await?;
    let buyers: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(buy(client.clone()))).collect();
    let mut tries = 0;
    for buyer in buyers {
        tries += buyer.await??;
    }
    let GetOutcome::Hit(shelf) = client.get(SHELF).await? else { return Err("no shelf".into()) };
    let shelf = String::from_utf8_lossy(&shelf.value).into_owned();
    println!("{shelf}, in {tries} tries");
    if shelf == "0 in stock, 8 sold" { Ok(()) } else { Err(shelf.into()) }
}

/// Takes the lock for a minute, if it is free; its version is what gives it back.
async fn lock(client: &Client, worker: u32) -> Result<Option<Version>, Failure> {
    let options = SetOptions {
        condition: SetCondition::IfAbsent,
        expiration: SetExpiration::After(Duration::from_secs(60)),
        ..Default::default()
    };
    Ok(match client.set(LOCK, format!("worker {worker}"), &options).await? {
        SetOutcome::Stored(version) => Some(version),
        _ => None,
    })
}

/// Moves one from stock to sold; how many tries it took.
async fn buy(client: Client) -> Result<u32, Failure> {
    for tries in 1.. {
        let GetOutcome::Hit(shelf) = client.get(SHELF).await? else { break };
        let text = String::from_utf8_lossy(&shelf.value).into_owned();
        let numbers: Vec<u32> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [stock @ 1..=u32::MAX, sold] = numbers[..] else { break };
        let options = SetOptions { condition: SetCondition::IfVersion(shelf.version), ..Default::default() };
        let now = format!("{} in stock, {} sold", stock - 1, sold + 1);
        if let SetOutcome::Stored(_) = client.set(SHELF, now, &options).await? {
            return Ok(tries);
        }
    }
    Err("sold out".into())
}
