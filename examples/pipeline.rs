//! A Pipeline stream: page views counted, many commands to a message, several messages on the way.
//!
//! Counts 100,000 views of 100 pages, once with one call each from 64 callers and once over one Pipeline stream,
//! and prints what each took.
//!
//! ```text
//! cargo run --release --example pipeline                                 (starts a node of its own)
//! cargo run --release --example pipeline -- --nodes tcp://127.0.0.1:7400 (uses yours)
//! ```

mod support;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use larder::Client;
use larder::client::{CounterOptions, GetOutcome, PipelineOutcome};
use larder::clock::monotonic;
use support::{Failure, connect};

const VIEWS: u64 = 100_000;
const PAGES: u64 = 100;
const COMMANDS: u64 = 100;
const MESSAGES_IN_FLIGHT: usize = 8;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (client, _node) = connect().await?;
    client.batch_delete((0..PAGES).map(|page| key(page).into()).collect(), None).await?;

    let (start, options) = (monotonic(), CounterOptions::default());
    stream::iter(0..VIEWS)
        .map(|view| client.increment(key(view % PAGES), 1, &options))
        .buffer_unordered(64)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    println!("{VIEWS} calls:    {:?}", start.elapsed());

    let start = monotonic();
    let answered = count_in_pipeline(&client).await?;
    println!("{answered} commands: {:?}", start.elapsed());

    if let GetOutcome::Hit(hit) = client.get(key(7)).await? {
        println!("page 7: {} views", String::from_utf8_lossy(&hit.value));
    }
    Ok(())
}

/// Sends every view as a command; how many were answered.
async fn count_in_pipeline(client: &Client) -> Result<u64, Failure> {
    let (sender, mut receiver) = client.pipeline(MESSAGES_IN_FLIGHT);
    // Written by a task of its own: a stream that is not read is stopped by flow control.
    let (writing, options) = (client.clone(), CounterOptions::default());
    let writer = tokio::spawn(async move {
        for first in (0..VIEWS).step_by(COMMANDS as usize) {
            let mut commands = writing.commands();
            for view in first..first + COMMANDS {
                commands.increment(view, key(view % PAGES), 1, &options);
            }
            if !sender.send(commands).await {
                break;
            }
        }
    });
    let mut answered = 0;
    while let Some(replies) = receiver.replies().await? {
        for reply in replies {
            match reply.result {
                Ok(PipelineOutcome::Count(_)) => answered += 1,
                other => return Err(format!("command {}: {other:?}", reply.id).into()),
            }
        }
    }
    writer.await?;
    Ok(answered)
}

fn key(page: u64) -> String {
    format!("views:{page}")
}
