//! A node's periodic work: it reclaims expired entries, takes out invalidated ones, and logs the node's figures.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use super::context::NodeContext;
use crate::cache::Cache;
use crate::clock::{Pace, Throttle, monotonic};
use crate::server::{Lifecycle, NodeState};
use crate::telemetry::log::StatsLog;

/// How often what has become due is looked for.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// Entries that are looked at for invalidations before the pace of that is thought of: a million take some two seconds.
const ENTRIES_PER_SWEEP: usize = 64;
/// Blobs whose time has ended that are deleted each time.
const BLOBS_PER_SWEEP: usize = 16;

/// Reclaims what has expired and so on, on a thread of its own, until the cache is gone.
pub(super) fn sweep(cache: &Arc<Cache>, lifecycle: &Lifecycle) -> std::io::Result<()> {
    let (cache, lifecycle) = (Arc::downgrade(cache), lifecycle.clone());
    std::thread::Builder::new().name("larder-sweep".to_owned()).spawn(move || {
        lifecycle.run_part("the thread that reclaims what has expired", || {
            while let Some(cache) = cache.upgrade() {
                let is_more = sweep_once(&cache);
                drop(cache);
                if !is_more {
                    std::thread::sleep(SWEEP_EVERY);
                }
            }
        });
    })?;
    Ok(())
}

/// Whether there is more to reclaim at once.
fn sweep_once(cache: &Cache) -> bool {
    static UNDELETED: Throttle = Throttle::new();
    cache.charge_blobs();
    cache.advance();
    let (begun, mut pace) = (monotonic(), Pace::new());
    let mut is_more = cache.sweep(ENTRIES_PER_SWEEP);
    while is_more && begun.elapsed() < SWEEP_EVERY {
        pace.rest();
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
