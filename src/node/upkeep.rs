//! A node's periodic work: it reclaims expired entries, takes out invalidated ones, and logs the node's figures.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use super::context::NodeContext;
use crate::cache::Cache;
use crate::clock::{Pace, Throttle, monotonic, since};
use crate::server::{Lifecycle, NodeState, Platform};
use crate::telemetry::log::StatsLog;

/// How often what has become due is looked for.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// Entries that are looked at for invalidations before the pace of that is thought of: a million take some two seconds.
const ENTRIES_PER_SWEEP: usize = 64;
/// Blobs whose time has ended that are deleted each time.
const BLOBS_PER_SWEEP: usize = 16;

/// Reclaims what has expired and so on until the cache is gone: on a thread of its own where there are such.
pub(super) fn sweep(cache: &Arc<Cache>, lifecycle: &Lifecycle, platform: &Platform) -> std::io::Result<()> {
    let (cache, lifecycle) = (Arc::downgrade(cache), lifecycle.clone());
    match platform {
        Platform::System => {
            std::thread::Builder::new()
                .name("larder-sweep".to_owned())
                .spawn(move || lifecycle.run_part(SWEEPER, || sweep_on_thread(&cache)))?;
        }
        #[cfg(feature = "testing")]
        Platform::Simulated(_) => {
            tokio::spawn(async move { lifecycle.run_task(SWEEPER, sweep_as_task(&cache)).await });
        }
    }
    Ok(())
}

/// What a node cannot do without.
const SWEEPER: &str = "the thread that reclaims what has expired";

fn sweep_on_thread(cache: &Weak<Cache>) {
    while let Some(cache) = cache.upgrade() {
        let (begun, mut pace) = (monotonic(), Pace::new());
        let is_more = sweep_once(&cache, || {
            pace.rest();
            since(begun) < SWEEP_EVERY
        });
        drop(cache);
        if !is_more {
            std::thread::sleep(SWEEP_EVERY);
        }
    }
}

/// The same by simulated time, in which work takes none.
#[cfg(feature = "testing")]
async fn sweep_as_task(cache: &Weak<Cache>) {
    while let Some(cache) = cache.upgrade() {
        sweep_once(&cache, || true);
        drop(cache);
        sleep(SWEEP_EVERY).await;
    }
}

/// Whether there is more to reclaim at once. `goes_on` is asked between two slices of entries, and may take its time.
fn sweep_once(cache: &Cache, mut goes_on: impl FnMut() -> bool) -> bool {
    static UNDELETED: Throttle = Throttle::new();
    cache.charge_blobs();
    cache.advance();
    let mut is_more = cache.sweep(ENTRIES_PER_SWEEP);
    while is_more && goes_on() {
        is_more = cache.sweep(ENTRIES_PER_SWEEP);
    }
    if let Some(blobs) = cache.blobs()
        && let Err(error) = blobs.sweep(cache.now(), BLOBS_PER_SWEEP)
    {
        UNDELETED.say(|left_out| {
            tracing::warn!(%error, left_out, "blobs whose time has ended cannot be deleted");
        });
    }
    is_more
}

/// Logs the figures at the configured interval; [`RunningNode::stopped`](super::RunningNode::stopped) logs the last
/// ones.
pub(super) fn log_stats(context: &Arc<NodeContext>) -> Arc<Mutex<StatsLog>> {
    let log = Arc::new(Mutex::new(StatsLog::new(context.started)));
    let (mut every, lines) = (context.stats_interval.subscribe(), Arc::clone(&log));
    let context = Arc::downgrade(context);
    tokio::spawn(async move {
        loop {
            let every_now = *every.borrow_and_update();
            let due = async {
                match every_now {
                    Some(interval) => sleep(interval).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                changed = every.changed() => match changed {
                    Ok(()) => continue,
                    // The node was dropped.
                    Err(_) => break,
                },
            }
            let Some(context) = context.upgrade() else { break };
            if context.lifecycle.state() == NodeState::Stopped {
                break;
            }
            lines.lock().line(&context.figures(), monotonic());
        }
    });
    log
}
