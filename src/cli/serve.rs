//! `larder serve`: the node itself.

use rustix::fs::Mode;

use super::exit::{CliError, Exit, local};
use super::{check, progress};
use crate::config::{LoadedConfig, ServeArgs, ServeConfig, Variables};
use crate::node::{NodeError, RunningNode, descriptors, worker_parks, worker_unparks};
use crate::server::{StartError, Stop};
use crate::telemetry::log;

pub(super) fn run(args: &ServeArgs) -> Result<Exit, CliError> {
    if args.check().is_none() {
        log::start_streams().map_err(local("cannot start the thread that writes the log"))?;
    }
    let loaded = ServeConfig::load(args, &Variables::of_process())
        .map_err(|error| CliError::Usage(error.to_string()))?;
    if let Some(what) = args.check() {
        return check::run(&loaded, what == "settings");
    }
    let config = &loaded.config;
    log::init(config.telemetry.log_format, &config.telemetry.log)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    keep_pages_small();
    // What the node makes is its own, also what a library makes for it.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.node.threads as usize)
        .thread_name("larder-worker")
        .on_thread_park(worker_parks)
        .on_thread_unpark(worker_unparks)
        .enable_all()
        .build()
        .map_err(local("cannot start the runtime"))?;
    // The listeners' tasks run on the workers; this thread only waits.
    let ended = runtime.block_on(serve(loaded));
    // A handler that is stuck must not hold up the exit.
    runtime.shutdown_background();
    ended
}

/// Huge pages would make memory resident that nothing was stored in yet: measured, 12 B more for each of a
/// million entries, and 13 MB for an empty node.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "transparent huge pages stay as they are");
    }
}

async fn serve(loaded: LoadedConfig) -> Result<Exit, CliError> {
    let node = match RunningNode::start_as_program(loaded, progress::recovery()).await {
        Ok(node) => node,
        // It has served nobody, and changed nothing that a kill would not leave as well.
        Err(NodeError::Start(error)) if error.is_leaving() => {
            tracing::info!("told to stop before it served");
            return Ok(Exit::Done);
        }
        Err(error @ NodeError::Start(StartError::Listen { .. })) => {
            return Err(CliError::Refused(error.to_string()));
        }
        Err(error) => return Err(CliError::Usage(error.to_string())),
    };
    let line = node.ready_line();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{line}");
    // The pipe may be closed, or never be read; that is no reason to stop, or to wait.
    if let Err(error) = log::print(&line) {
        tracing::warn!(%error, "the ready line is not on stdout");
    }
    match node.stopped().await {
        Stop::Drained => Ok(Exit::Done),
        Stop::Failed => Err(CliError::Refused(
            "stopped, as a part of the node had ended that it cannot do without: the log says which"
                .to_owned(),
        )),
        Stop::Unsaved => Err(CliError::NotSaved(
            "stopped, and the last changes may not be on disk: the log says why".to_owned(),
        )),
        Stop::Forced => Err(CliError::Refused("stopped by a second signal before it had drained".to_owned())),
    }
}
