//! Workers that count what they do, in counters that all of them share.
//!
//! Four workers take jobs off a queue and count each as done or failed, under the day it was done on, with a time to live so
//! that old days go by themselves. An increment is atomic, and counts once also where the library has to repeat it: it
//! draws a request id by itself. One worker is told which of the jobs was the hundredth, since each gets the counter's value.
//!
//! ```text
//! cargo run --example worker_counters                                 (starts a node of its own)
//! cargo run --example worker_counters -- --nodes tcp://127.0.0.1:7400 (uses yours)
//! ```

mod support;

use std::sync::Arc;
use std::time::Duration;

use larder::Client;
use larder::client::CounterOptions;
use support::{Failure, connect};
use tokio::sync::{Mutex, mpsc};

const JOBS: u32 = 200;
const WORKERS: usize = 4;
/// A program takes it from its clock.
const DAY: &str = "2026-11-30";
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (client, _node) = connect().await?;
    let keys = ["done", "failed"].map(counter_key);
    client.batch_delete(keys.iter().cloned().map(Into::into).collect(), None).await?;

    let (jobs, queue) = mpsc::channel(16);
    let queue = Arc::new(Mutex::new(queue));
    let workers: Vec<_> =
        (0..WORKERS).map(|worker| tokio::spawn(work(worker, client.clone(), queue.clone()))).collect();
    for job in 0..JOBS {
        jobs.send(job).await?;
    }
    drop(jobs);
    for worker in workers {
        worker.await??;
    }

    let mut counts = Vec::new();
    for (key, outcome) in
        keys.iter().zip(client.batch_get(keys.iter().cloned().map(Into::into).collect()).await?)
    {
        let value = outcome?.into_value().unwrap_or_else(|| "0".into());
        let count: u32 = std::str::from_utf8(&value)?.parse()?;
        println!("{key}: {count}");
        counts.push(count);
    }
    if counts == [180, 20] { Ok(()) } else { Err("a job was counted twice, or not at all".into()) }
}

/// Does jobs until there are no more.
async fn work(worker: usize, client: Client, queue: Arc<Mutex<mpsc::Receiver<u32>>>) -> Result<(), Failure> {
    let options = CounterOptions { ttl: KEPT, ..Default::default() };
    loop {
        // Held while a job is waited for, and not while it is done.
        let Some(job) = queue.lock().await.recv().await else { return Ok(()) };
        let outcome = if is_done(job) { "done" } else { "failed" };
        let counter = client.increment(counter_key(outcome), 1, &options).await?;
        if (outcome, counter.value) == ("done", 100) {
            println!("worker {worker} has done the hundredth job");
        }
    }
}

fn counter_key(outcome: &str) -> String {
    format!("jobs:{outcome}:{DAY}")
}

/// Stands for the work.
fn is_done(job: u32) -> bool {
    !job.is_multiple_of(10)
}
