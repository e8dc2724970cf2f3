//! What is printed, and how: text for people and scripts, or JSON.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::exit::CliError;
use super::global::{Global, Output};
use crate::client::ClientError;
use crate::telemetry::log;

const ESCAPE_BOLD_RED: &str = "\x1b[1;31m";
const ESCAPE_RESET: &str = "\x1b[0m";

/// Prints one answer: the facts as lines, or the document.
pub(super) fn print(
    global: &Global,
    document: &Value,
    facts: &[(&str, &dyn std::fmt::Display)],
) -> Result<(), CliError> {
    if global.json() {
        return print_json(document);
    }
    let mut text = String::new();
    for (name, value) in facts {
        text.push_str(&format!("{name} {value}\n"));
    }
    print_raw(text.as_bytes())
}

/// Prints one JSON document on a line of its own.
pub(super) fn print_json(document: &Value) -> Result<(), CliError> {
    print_raw(format!("{document}\n").as_bytes())
}

/// Prints bytes as they are. A reader that has gone away (`| head`) is no error worth a word.
#[expect(clippy::exit, reason = "of a command whose reader is gone there is nothing left to do or to undo")]
pub(super) fn print_raw(bytes: &[u8]) -> Result<(), CliError> {
    match write_stdout(bytes) {
        // Nothing that follows would be read either: a command that goes on and on ends here too.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(CliError::Stdout),
    }
}

/// Writes all of it, also where another process has made the pipe that it shares with this one return at once.
fn write_stdout(mut bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    while !bytes.is_empty() {
        match stdout.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) => wait_out(error)?,
        }
    }
    while let Err(error) = stdout.flush() {
        wait_out(error)?;
    }
    Ok(())
}

fn wait_out(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => {}
        ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
        _ => return Err(error),
    }
    Ok(())
}

/// A note on stderr for the person at the terminal.
pub(super) fn note(text: &str) {
    log::write_error(&format!("larder: {text}"));
}

/// Prints what went wrong: words on stderr, and with `--output json` a document on stdout.
pub(super) fn print_error(output: Output, error: &CliError) {
    let (start, end) = if colours(&io::stderr()) { (ESCAPE_BOLD_RED, ESCAPE_RESET) } else { ("", "") };
    log::write_error(&format!("{start}larder: error:{end} {error}"));
    if output == Output::Json {
        // What went wrong keeps its own exit status, whether it is read or not.
        let _ = write_stdout(format!("{}\n", error_document(error)).as_bytes());
    }
}

/// True where a stream may carry colours: a terminal, and NO_COLOR not set.
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A fixed64 in JSON: a string, as protobuf's JSON has it, since a JSON number holds 53 bits only.
pub(super) fn token_json(token: u64) -> Value {
    Value::from(token.to_string())
}

fn error_document(error: &CliError) -> Value {
    let message = error.to_string();
    let detail = match error {
        CliError::Client(ClientError::Status(refusal)) => {
            let retry_after_ms =
                refusal.retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            json!({ "code": code(error), "reason": refusal.reason, "message": message,
                    "fields": refusal.fields, "retry_after_ms": retry_after_ms, "url": refusal.url })
        }
        _ => json!({ "code": code(error), "message": message }),
    };
    json!({ "error": detail })
}

fn code(error: &CliError) -> &'static str {
    match error {
        CliError::Client(error) => error.code_name(),
        CliError::Refused(_) | CliError::NotSaved(_) | CliError::Stdout(_) => "UNKNOWN",
        CliError::Usage(_) | CliError::Local { .. } => "USAGE",
    }
}
