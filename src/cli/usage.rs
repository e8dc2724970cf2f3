//! A command line that clap refuses, told without the secrets that may stand in it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use super::exit::{CliError, Exit};
use super::global::Output;
use super::output::print_error;
use crate::redacted::shown;
use crate::telemetry::log;

/// Prints what clap says of a command line, help and version as well; the exit status that goes with it.
#[must_use]
pub fn report(error: &clap::Error, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let text = error.render().to_string();
    match redacted(&text, args) {
        Some(text) if error.use_stderr() => log::write_error(text.trim_end_matches('\n')),
        _ => match error.print() {
            // A reader that has gone away is no failure, and where stderr is gone nobody is left to be told.
            Err(source) if !error.use_stderr() && source.kind() != ErrorKind::BrokenPipe => {
                let error = CliError::Stdout(source);
                print_error(Output::Text, &error);
                return error.exit().into();
            }
            _ => {}
        },
    }
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
}

/// The text with each argument in it, and each side of its first `=`, as it may be shown; `None`: it has no secret.
fn redacted(text: &str, args: impl IntoIterator<Item = OsString>) -> Option<String> {
    let args: Vec<String> = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let sides = args.iter().filter_map(|arg| arg.split_once('=')).flat_map(|(key, value)| [key, value]);
    let mut told = text.to_owned();
    for given in args.iter().map(String::as_str).chain(sides) {
        let shown = shown(given);
        if shown != given {
            told = told.replace(given, &shown);
        }
    }
    (told != text).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    #[test]
    fn no_secret_of_a_command_line_is_told_when_it_is_refused() {
        for line in [
            "larder postgres://user:hunter2@db/x",
            "larder serve postgres://user:hunter2@db/x",
            "larder serve --orgin=postgres://user:hunter2@db/x",
            "larder serve --orgin postgres://user:hunter2@db/x",
            "larder --timeout postgres://user:hunter2@db/x get k",
            "larder get k --timeout=postgres://user:hunter2@db/x",
            "larder get k --output http://a?token=hunter2",
            "larder admin config set timeout=tcp://user:hunter2@a:1",
            "larder admin config set otlp=tcp://user:hunter2@a:1",
            "larder admin config set tcp://user:hunter2@a:1",
            "larder admin config set tcp://user:hunter2@a:1=x",
            "larder admin resize tcp://user:hunter2",
        ] {
            let args = || line.split(' ').map(OsString::from);
            let error = Cli::from_args(args()).unwrap_err();
            let text = error.render().to_string();
            let told = redacted(&text, args()).unwrap_or(text);
            assert!(told.contains("error: ") && !told.contains("hunter2"), "{line}: {told}");
        }
        assert_eq!(redacted("error: tcp://a:1", ["tcp://a:1".into()]), None);
    }
}
