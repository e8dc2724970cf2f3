//! A script without a runtime: results of something slow are kept between runs and shared by its threads.
//!
//! Four threads want the size of each of some files, of which they share a blocking client. What they ask for at the same time
//! goes out together.
//!
//! ```text
//! cargo run --example blocking_script                                 (starts a node of its own)
//! cargo run --example blocking_script -- --nodes tcp://127.0.0.1:7400 (uses yours)
//! ```

#[path = "support/node.rs"]
mod node;

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use larder::client::blocking::Client;
use larder::client::{ScanOptions, SetOptions};
use node::Failure;

const FILES: [&str; 4] = ["Cargo.toml", "README.md", "src/lib.rs", "src/main.rs"];
const THREADS: usize = 4;

fn main() -> Result<(), Failure> {
    // The node has a runtime of its own, which the client below knows nothing of.
    let runtime = tokio::runtime::Runtime::new()?;
    let (url, _node) = runtime.block_on(node::url(&[("persistence", "none")]))?;
    let client = Client::connect(&url)?;

    let computed = AtomicU32::new(0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| sizes(&client, &computed))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })?;
    let (wanted, computed) = (THREADS * FILES.len(), computed.into_inner());
    println!("{wanted} sizes were wanted, {computed} computed");

    for entry in client.scan_iter("size:", ScanOptions::default()) {
        let entry = entry?;
        println!("{} {}", String::from_utf8_lossy(&entry.key), String::from_utf8_lossy(&entry.entry.value));
    }
    // What has no method of its own, and several calls at once.
    let (first, last) = client.block_on(async |client| {
        futures_util::future::try_join(client.get("size:Cargo.toml"), client.get("size:src/main.rs")).await
    })?;
    let all_kept = first.entry().is_some() && last.entry().is_some();
    if all_kept { Ok(()) } else { Err("a size was not kept".into()) }
}

/// Wants the size of each file. What is missing is computed by the thread that misses it first, while the others wait.
fn sizes(client: &Client, computed: &AtomicU32) -> Result<(), Failure> {
    for file in FILES {
        let compute = || {
            computed.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(std::fs::metadata(file)?.len().to_string())
        };
        client.get_or_load(format!("size:{file}"), &SetOptions::default(), compute)?;
    }
    Ok(())
}
