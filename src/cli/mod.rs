//! The command line: one file per subcommand, what they share beside it.
//!
//! ```text
//!  main.rs ─ Cli::from_args ─ Cli::run ─┬─ serve.rs                       the node itself
//!                                       ├─ get set del incr … probe       one call, current-thread runtime
//!                                       ├─ put-blob get-blob import       files, with progress
//!                                       ├─ replay bench latency           load and figures
//!                                       └─ admin/                         the admin listener
//!  global.rs  flags before or after the subcommand      output.rs    text, JSON, terminal or not
//!  exit.rs    the exit statuses                          parse.rs     durations, ranges, ratios
//!  escape.rs  bytes as text and back                     keys.rs      keys as they are written
//!  read.rs    values, never more than a node takes       refusals.rs  what was refused while the rest went on
//!  interrupt.rs  Ctrl-C that ends a measurement early
//! ```
//!
//! Rules that every subcommand keeps: facts go to stdout, words about them to stderr; text is one fact per line
//! `name value`; with `--output json` stdout carries exactly one JSON document (watching: one per line), also
//! where the call failed; colours, tables and progress bars appear on a terminal only.
//!
//! Exit status: 0; 1 for a miss or a condition not met; 2 for wrong usage or configuration; 3 when the server, the
//! network or stdout refused; 4, of `serve` alone, when the node's last writes may not be on its disk; 130, of `bench`
//! and `replay`, when Ctrl-C ended them early. A reader of stdout that has gone away (`| head`) is no failure.

mod admin;
mod bench;
mod blobs;
mod check;
mod completions;
mod counter;
mod del;
mod durability;
mod escape;
mod exists;
mod exit;
mod facts;
mod get;
mod global;
mod import;
mod interrupt;
mod invalidate;
mod keys;
mod latency;
mod output;
mod pages;
mod parse;
mod probe;
mod progress;
mod read;
mod refusals;
mod replay;
mod ring;
mod scan;
mod serve;
mod set;
mod touch;
mod ttl;
mod usage;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};

pub use exit::{CliError, Exit};
use global::ClientArgs;
pub use usage::report;

use crate::config::{SETTINGS, ServeArgs, Variables};
use crate::telemetry::log;
use parse::Offered;

/// A command line that has been parsed.
#[derive(Debug, Parser)]
#[command(
    name = "larder",
    version,
    about = "A distributed cache whose native protocol is gRPC",
    after_help = "Exit status: 0; 1 for a miss or a condition not met; 2 for wrong usage or configuration; \
                  3 when the server, the network or stdout refused; 4, of serve alone: see `larder serve --help`."
)]
pub struct Cli {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    #[command(after_help = SERVE_EXITS)]
    Serve(Box<ServeArgs>),
    /// Write the value of a key to stdout, or a line for each of several; exit 1 where one misses
    Get(get::GetArgs),
    /// Count the keys that have an entry; exit 1 where one has none
    Exists(exists::ExistsArgs),
    /// Print how long an entry has to live, in milliseconds; exit 1 where there is none
    Ttl(ttl::TtlArgs),
    /// Store a value, or what stdin has, under a key; exit 1 where a condition is not met
    Set(set::SetArgs),
    /// Remove keys; exit 1 where none was there
    Del(del::DelArgs),
    /// Add to a counter and print what it is then
    Incr(counter::CounterArgs),
    /// Take from a counter and print what it is then
    Decr(counter::CounterArgs),
    /// Give an entry a new time to live; exit 1 where there is none
    Touch(touch::TouchArgs),
    /// List the entries whose keys begin with a prefix; exit 1 where there are none
    Scan(scan::ScanArgs),
    /// Drop a prefix, a tag or everything of a namespace at once
    Invalidate(invalidate::InvalidateArgs),
    /// Print what becomes untrue, a line for each change, until interrupted
    Watch(watch::WatchArgs),
    /// Show the members of the cluster and their shares of the keys, or the owners of the keys given
    Ring(ring::RingArgs),
    /// Store a file, or stdin, as a blob: streamed to the node's disk, of any size
    PutBlob(blobs::PutBlobArgs),
    /// Write a blob to stdout or a file; exit 1 where there is none
    GetBlob(blobs::GetBlobArgs),
    /// Remove blobs; exit 1 where none was there
    DelBlob(blobs::DelBlobArgs),
    /// List the blobs whose keys begin with a prefix; exit 1 where there are none
    Blobs(blobs::BlobsArgs),
    /// Store every file below a directory, under its path
    Import(import::ImportArgs),
    /// Send a recorded trace as load, in order: get, and on a miss set
    Replay(replay::ReplayArgs),
    /// Measure throughput and latency
    Bench(bench::BenchArgs),
    /// Measure round trips one after the other, a line a second, until interrupted
    Latency(latency::LatencyArgs),
    /// Ask the health service of any listener; exit 0 where it is SERVING, 1 where not, 3 where out of reach
    Probe(probe::ProbeArgs),
    /// Run, observe and change a node
    Admin(admin::AdminArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// How a node's process ends.
const SERVE_EXITS: &str = "\
Signals: SIGTERM, SIGINT and SIGHUP drain the node, as `larder admin drain` does; a second one, 250 ms later or more, \
exits at once. A SIGHUP that is ignored when the node starts, as under nohup, stays ignored.

Exit status: 0 when it has drained; 2 for a wrong configuration or a data directory that cannot be used; 3 when a listener \
cannot be opened, at a second signal, and when the node has drained by itself because a part of it had ended (the log says \
which); 4 when it has stopped and its last writes may not be on its disk (the log says why).";

/// The subcommands that call no node, and so take none of the client's flags.
const WITHOUT_CLIENT: [&str; 2] = ["serve", "completions"];

impl Cli {
    /// Parses arguments, the program's name first.
    ///
    /// # Errors
    /// clap's error, which also stands for `--help` and `--version`: [`report`] prints it, without secrets.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = command.try_get_matches_from_mut(args)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        cli.client = cli.client.without_empty_variables(&matches);
        match matches.subcommand() {
            Some((name, inner)) if !WITHOUT_CLIENT.contains(&name) => {
                let given =
                    ClientArgs::from_arg_matches(inner).map_err(|error| error.format(&mut command))?;
                cli.client = given.without_empty_variables(inner).or(cli.client);
            }
            Some((name, _)) => {
                if let Some(flag) = global::given_before(&matches) {
                    let message = format!(
                        "--{flag} before the subcommand is a client's flag, and `{name}` calls no node; \
                         write what belongs to `{name}` after it\n"
                    );
                    return Err(command.error(clap::error::ErrorKind::ArgumentConflict, message));
                }
            }
            None => {}
        }
        Ok(cli)
    }

    /// Does what the command line says and reports how it ended; what went wrong has been printed.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let output = self.client.output();
        let exit = self.dispatch().unwrap_or_else(|error| {
            output::print_error(output, &error);
            error.exit()
        });
        log::flush();
        exit.into()
    }

    fn dispatch(self) -> Result<Exit, CliError> {
        let global = |client: ClientArgs| {
            Variables::of_process().check_client().map_err(|error| CliError::Usage(error.to_string()))?;
            client.resolve()
        };
        match self.command {
            Command::Serve(args) => serve::run(&args),
            Command::Completions(args) => completions::run(&args, &mut command()),
            Command::Get(args) => get::run(&global(self.client)?, args),
            Command::Exists(args) => exists::run(&global(self.client)?, args),
            Command::Ttl(args) => ttl::run(&global(self.client)?, args),
            Command::Set(args) => set::run(&global(self.client)?, args),
            Command::Del(args) => del::run(&global(self.client)?, args),
            Command::Incr(args) => counter::run(&global(self.client)?, args, counter::Direction::Up),
            Command::Decr(args) => counter::run(&global(self.client)?, args, counter::Direction::Down),
            Command::Touch(args) => touch::run(&global(self.client)?, args),
            Command::Scan(args) => scan::run(&global(self.client)?, args),
            Command::Invalidate(args) => invalidate::run(&global(self.client)?, args),
            Command::Watch(args) => watch::run(&global(self.client)?, args),
            Command::Ring(args) => ring::run(&global(self.client)?, args),
            Command::PutBlob(args) => blobs::put(&global(self.client)?, args),
            Command::GetBlob(args) => blobs::get(&global(self.client)?, args),
            Command::DelBlob(args) => blobs::del(&global(self.client)?, args),
            Command::Blobs(args) => blobs::list(&global(self.client)?, args),
            Command::Import(args) => import::run(&global(self.client)?, args),
            Command::Replay(args) => replay::run(&global(self.client)?, args),
            Command::Bench(args) => bench::run(&global(self.client)?, args),
            Command::Latency(args) => latency::run(&global(self.client)?, args),
            Command::Probe(args) => probe::run(&global(self.client)?, args),
            Command::Admin(args) => admin::run(&global(self.client)?, args),
        }
    }
}

/// The whole command, with the client's flags accepted before and after each subcommand that calls a node.
fn command() -> clap::Command {
    let mut command = Cli::command();
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| !WITHOUT_CLIENT.contains(&name.as_str())) {
        command = command.mut_subcommand(name, |sub| {
            let flags = ClientArgs::augment_args(clap::Command::new("client"));
            let flags: Vec<clap::Arg> =
                flags.get_arguments().map(|flag| flag.clone().global(true).env(None::<&str>)).collect();
            sub.args(flags)
        });
    }
    command.mut_subcommand("serve", complete_settings)
}

/// Lets a shell's completion offer a setting's words and files; what is right is the configuration's to say.
fn complete_settings(serve: clap::Command) -> clap::Command {
    let serve =
        SETTINGS.iter().filter(|setting| !setting.words().is_empty()).fold(serve, |serve, setting| {
            serve.mut_arg(setting.flag, |flag| {
                flag.value_parser(Offered(setting.words())).hide_possible_values(true)
            })
        });
    serve
        .mut_arg("config", |flag| flag.value_hint(ValueHint::FilePath))
        .mut_arg("data-dir", |flag| flag.value_hint(ValueHint::DirPath))
}

/// The runtime of a subcommand that makes a few calls: no threads of its own, so that it starts at once.
fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Local { what: "cannot start the runtime".to_owned(), source })?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::from_args(std::iter::once("larder").chain(line.split(' ')).map(OsString::from))
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn client_flags_stand_before_or_after_the_subcommand_and_the_latter_wins() {
        for line in [
            "--nodes tcp://a:1 get k",
            "get --nodes tcp://a:1 k",
            "get k --nodes tcp://a:1",
            "--nodes tcp://b:1 get k --nodes tcp://a:1",
        ] {
            let nodes = parse(line).unwrap().client.resolve().unwrap().nodes;
            assert_eq!(nodes[0].to_string(), "tcp://a:1", "{line}");
        }
        for line in [
            "admin stats --admin tcp://a:1",
            "admin --admin tcp://a:1 stats",
            "--admin tcp://a:1 admin stats",
        ] {
            let admin = parse(line).unwrap().client.resolve().unwrap().admin;
            assert_eq!(admin.to_string(), "tcp://a:1", "{line}");
        }
    }

    /// The long flags of a command and all below it, but for those of every client, and the commands' names.
    fn words(command: &clap::Command, name: &str, words: &mut Vec<String>) {
        words.push(name.to_owned());
        let everywhere = ["help", "version", "nodes", "admin", "namespace", "timeout", "output"];
        let flags = command.get_arguments().filter_map(clap::Arg::get_long);
        words.extend(flags.filter(|flag| !everywhere.contains(flag)).map(|flag| format!("--{flag}")));
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        for below in below {
            let of_admin = name == "larder" || name == "larder admin";
            let path =
                if of_admin { format!("{name} {}", below.get_name()) } else { below.get_name().to_owned() };
            self::words(below, &path, words);
        }
    }

    #[test]
    fn the_reference_names_every_command_and_flag() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/command-line.md");
        // The book is in the repository alone, not in the package.
        let Ok(page) = std::fs::read_to_string(page) else { return };
        let mut all = Vec::new();
        let command = command().mut_subcommand("serve", |_| clap::Command::new("serve"));
        words(&command, "larder", &mut all);
        assert!(all.len() > 60, "{} words are not all", all.len());
        let missing: Vec<&String> = all.iter().filter(|word| !page.contains(*word)).collect();
        assert_eq!(missing, Vec::<&String>::new());
    }

    #[test]
    fn client_flags_before_serve_are_refused() {
        let error = parse("--namespace x serve").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--namespace"), "{error}");
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "frobnicate",
            "get",
            "get k --no-such-flag",
            "set",
            "set k v --file f",
            "set k v --if-absent --if-present",
            "set k v --ttl soon",
            "set k v --ttl 5s --keep-ttl",
            "set k v --durability disk",
            "del k --durability disk",
            "touch k --ttl 5s --durability flushed",
            "incr k --by many",
            "touch k",
            "bench --requests 5 --duration 5s",
            "bench --pipeline 4 --batch 4",
            "bench --ratio 0:0",
            "put-blob k",
            "put-blob k f --ttl soon",
            "get-blob k --offset -1",
            "del-blob",
            "get k --key-hex --escaped",
            "del",
            "del k -0",
            "del -0 --escaped",
            "exists",
            "watch --count 0",
            "ttl",
            "scan -0 --values",
            "latency --count 1 --duration 1s",
            "get k --output xml",
            "get k --timeout 0",
        ] {
            assert_eq!(parse(line).err().map(|error| error.exit_code()), Some(2), "{line}");
        }
    }
}
