//! The `larder` program: parse, run, exit status.

use std::process::ExitCode;

use larder::cli::{self, Cli};
use larder::persistence::failpoint;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let _armed = failpoint::from_environment();
    match Cli::from_args(std::env::args_os()) {
        Ok(cli) => cli.run(),
        Err(error) => cli::report(&error, std::env::args_os()),
    }
}
