//! Any text as the file of `--config`, as variables and as flags: a configuration within its own bounds, or an
//! error that says what is wrong.
//!
//! Input: the file; after a NUL variables, `NAME=VALUE` a line; after another NUL flags, a word a line.
#![no_main]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::Parser;
use larder::config::{Endpoint, SETTINGS, ServeArgs, ServeConfig, Variables};
use libfuzzer_sys::fuzz_target;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Where this process writes its files: in memory where it can be.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let directory = if memory.is_dir() { memory } else { std::env::temp_dir() };
    directory.join(format!("larder-fuzz-{}.toml", std::process::id()))
});

fn check(config: &ServeConfig) {
    assert!(config.limits.max_value <= config.limits.max_message_in, "{config:?}");
    assert!(config.limits.max_value <= config.limits.max_message_out, "{config:?}");
    assert!(config.limits.max_value <= config.cache.memory, "{config:?}");
    assert!(config.limits.max_message_out.0 <= config.limits.max_response_backlog.0 / 2, "{config:?}");
    assert!(config.cache.memory.0 >= 1 << 20, "{config:?}");
    assert!(config.timeouts.lame_duck < config.timeouts.drain_deadline, "{config:?}");
    assert!((0.0..=1.0).contains(&config.telemetry.trace_sample), "{config:?}");
    assert!(config.node.weight >= 1 && !config.listeners.listen.is_empty(), "{config:?}");
    for url in config.listeners.listen.iter().chain([&config.listeners.admin]) {
        assert!(!matches!(url, Endpoint::Udp(_)), "{config:?}");
        assert!(config.listeners.insecure || url.is_local(), "{config:?}");
    }
    // What is asked of a configuration on the way to a node.
    let _ = config.identity(&config.listeners.listen);
}

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let file = parts.next().unwrap_or_default();
    let variables = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let words = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let mut args = ServeArgs::default();
    if !words.is_empty() {
        let Ok(cli) = Cli::try_parse_from(["serve"].into_iter().chain(words.lines())) else { return };
        args = cli.serve;
    }
    // Only the file of this run is read: one that the input names could be /dev/zero.
    std::fs::write(&*FILE, file).expect("the file is written");
    let args = args.with_file(FILE.display().to_string());
    let lines = variables.lines().filter_map(|line| line.split_once('='));
    let variables: Variables = lines.map(|(name, value)| (name.to_owned(), OsString::from(value))).collect();
    match ServeConfig::load(&args, &variables) {
        Ok(loaded) => {
            check(&loaded.config);
            assert_eq!(loaded.sources.len(), SETTINGS.len(), "each setting has its source");
        }
        Err(error) => assert!(error.to_string().len() > 20, "{error}"),
    }
});
