//! `larder admin slow`: the latest calls that took too long.

use std::io::{self, IsTerminal};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Value, json};
use tonic::Code;

use crate::cli::escape::{bytes_json, escaped, quoted};
use crate::cli::exit::{CliError, Exit};
use crate::cli::global::Global;
use crate::cli::output::{note, print_json, print_raw};
use crate::client::AdminClient;
use crate::proto::code_name;
use crate::proto::v1;

pub(super) async fn run(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let slow = admin.slow_ops().await?;
    if global.json() {
        print_json(&document(&slow))?;
        return Ok(Exit::Done);
    }
    if io::stdout().is_terminal() {
        print_raw(format!("{}\n", table(&slow.ops)).as_bytes())?;
    } else {
        print_raw(lines(&slow.ops).as_bytes())?;
    }
    note(&match slow.threshold_ms {
        0 => format!("{} in all; none are kept now (slow-op is 0)", slow.total),
        ms => format!("{} in all took longer than {ms} ms (slow-op)", slow.total),
    });
    Ok(Exit::Done)
}

fn document(slow: &v1::ListSlowOpsResponse) -> Value {
    let ops: Vec<Value> = slow
        .ops
        .iter()
        .map(|op| {
            json!({ "method": op.method, "namespace": op.namespace, "key": bytes_json(&op.key),
                    "items": op.items, "started_unix_ms": op.started_unix_ms, "elapsed_ms": op.elapsed_ms,
                    "queued_ms": op.queued_ms, "code": code(op), "peer": op.peer,
                    "traceparent": op.traceparent })
        })
        .collect();
    json!({ "ops": ops, "threshold_ms": slow.threshold_ms, "total": slow.total })
}

/// One line each, the newest first: what a client chose is quoted and escaped.
fn lines(ops: &[v1::SlowOp]) -> String {
    ops.iter()
        .map(|op| {
            format!(
                "method={} elapsed_ms={} queued_ms={} code={} items={} started_unix_ms={} namespace={} \
                 key={} peer={} traceparent={}\n",
                op.method,
                op.elapsed_ms,
                op.queued_ms,
                code(op),
                op.items,
                op.started_unix_ms,
                quoted(op.namespace.as_bytes()),
                quoted(&op.key),
                quoted(op.peer.as_bytes()),
                quoted(op.traceparent.as_bytes()),
            )
        })
        .collect()
}

fn table(ops: &[v1::SlowOp]) -> Table {
    let mut table = Table::new();
    let header = ["started", "ms", "queued", "method", "items", "namespace", "key", "code", "peer", "trace"];
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for op in ops {
        let started = std::time::UNIX_EPOCH + Duration::from_millis(op.started_unix_ms);
        table.add_row([
            humantime::format_rfc3339_millis(started).to_string(),
            op.elapsed_ms.to_string(),
            op.queued_ms.to_string(),
            op.method.clone(),
            op.items.to_string(),
            quoted(op.namespace.as_bytes()).to_string(),
            escaped(&op.key).to_string(),
            code(op).to_owned(),
            escaped(op.peer.as_bytes()).to_string(),
            escaped(op.traceparent.as_bytes()).to_string(),
        ]);
    }
    table
}

fn code(op: &v1::SlowOp) -> &'static str {
    code_name(Code::from(op.code as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_forge_a_line() {
        let op = v1::SlowOp {
            method: "Get".to_owned(),
            key: bytes::Bytes::from_static(b"a\"\nmethod=Set \x1b[0m\xff"),
            traceparent: "x\n".to_owned(),
            code: 4,
            ..v1::SlowOp::default()
        };
        let text = lines(std::slice::from_ref(&op));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r#"key="a\x22\x0amethod=Set \x1b[0m\xff""#), "{text}");
        assert!(text.contains("code=DEADLINE_EXCEEDED"), "{text}");
        assert!(!table(&[op]).to_string().contains('\x1b'));
    }
}
