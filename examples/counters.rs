//! Counters: a rate limit with a window that ends by itself, and tickets that are handed out once each.
//!
//! A request is allowed while its counter is at most five. The counter is made by the first request with a time to
//! live, and increments keep that: when the window ends it is gone, and the next request begins another. Tickets are
//! numbered by an increment each, from an initial value on, by ten callers at once.
//!
//! ```text
//! cargo run --example counters                                 (starts a node of its own)
//! cargo run --example counters -- --nodes tcp://127.0.0.1:7400 (uses yours)
//! ```

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use larder::Client;
use larder::client::CounterOptions;
use support::{Failure, connect};

const LIMIT: i64 = 5;
const WINDOW: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (client, _node) = connect().await?;
    client.batch_delete(vec!["rate:ada".into(), "tickets".into()], None).await?;

    for request in 1..=7 {
        let answer = if allowed(&client, "ada").await? { "200 OK" } else { "429 Too Many Requests" };
        println!("request {request}: {answer}");
    }

    // The first ticket is 1001: a counter that is not there counts as `initial`.
    let options = CounterOptions { initial: 1_000, ..Default::default() };
    let tickets = try_join_all((0..10).map(|_| client.increment("tickets", 1, &options))).await?;
    let numbers: BTreeSet<i64> = tickets.iter().map(|ticket| ticket.value).collect();
    if let (Some(first), Some(last)) = (numbers.first(), numbers.last()) {
        println!("{} tickets, each once: {first} to {last}", numbers.len());
    }

    let back = client.decrement("tickets", 1, &options).await?;
    println!("one is given back: {} handed out", back.value - 1_000);
    if numbers.len() == 10 { Ok(()) } else { Err("a ticket was handed out twice".into()) }
}

/// Counts a request of a user; whether it is within the limit.
async fn allowed(client: &Client, user: &str) -> Result<bool, Failure> {
    let options = CounterOptions { ttl: WINDOW, ..Default::default() };
    let counter = client.increment(format!("rate:{user}"), 1, &options).await?;
    Ok(counter.value <= LIMIT)
}
