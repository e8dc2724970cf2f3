//! The `larder` program: parse, run, exit status.

use std::process::ExitCode;

use larder::cli::{self, Cli};
use larder::node::failpoint;
use tikv_jemalloc_ctl::{Access, AsName, background_thread};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// After this time, memory that was freed goes back to the system. jemalloc's own ten seconds would leave some 20 MiB more
/// in a process that large values come to and go from.
const DIRTY_DECAY_MS: isize = 100;

fn main() -> ExitCode {
    // Where it cannot, freed memory stays longer, and nothing else is different.
    let _ = return_freed_memory();
    let _armed = failpoint::from_environment();
    match Cli::from_args(std::env::args_os()) {
        Ok(cli) => cli.run(),
        Err(error) => cli::report(&error, std::env::args_os()),
    }
}

/// Has a thread of jemalloc's give freed memory back, in the arena of this thread and in those of all that come. Set here
/// and not while jemalloc is built, so that it holds however the program is built.
fn return_freed_memory() -> Result<(), tikv_jemalloc_ctl::Error> {
    for (arenas, arena, decay_ms) in [
        (&b"arenas.dirty_decay_ms\0"[..], &b"arena.0.dirty_decay_ms\0"[..], DIRTY_DECAY_MS),
        (b"arenas.muzzy_decay_ms\0", b"arena.0.muzzy_decay_ms\0", 0),
    ] {
        arenas.name().write(decay_ms)?;
        arena.name().write(decay_ms)?;
    }
    background_thread::write(true)
}
