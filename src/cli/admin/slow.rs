//! `larder admin slow`: the latest calls that took too long.

use std::io::{self, IsTerminal};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Value, json};

use crate::cli::escape::{bytes_json, escaped, quoted};
use crate::cli::exit::{CliError, Exit};
use crate::cli::facts::whole_ms;
use crate::cli::global::Global;
use crate::cli::output::{note, print_json, print_raw};
use crate::client::{AdminClient, SlowOp, SlowOps};
use crate::proto::code_name;

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
    note(&match slow.threshold {
        None => format!("{} in all; none are kept now (slow-op is 0)", slow.total),
        Some(threshold) => {
            format!("{} in all took longer than {} ms (slow-op)", slow.total, whole_ms(threshold))
        }
    });
    Ok(Exit::Done)
}

fn document(slow: &SlowOps) -> Value {
    let ops: Vec<Value> = slow
        .ops
        .iter()
        .map(|op| {
            json!({ "method": op.method, "namespace": op.namespace, "key": bytes_json(&op.key),
                    "items": op.items, "started_unix_ms": op.started_unix_ms, "elapsed_ms": whole_ms(op.elapsed),
                    "queued_ms": whole_ms(op.queued), "code": code_name(op.code), "peer": op.peer,
                    "traceparent": op.traceparent })
        })
        .collect();
    json!({ "ops": ops, "threshold_ms": slow.threshold.map_or(0, whole_ms), "total": slow.total })
}

/// One line each, the newest first: what a client chose is quoted and escaped.
fn lines(ops: &[SlowOp]) -> String {
    ops.iter()
        .map(|op| {
            format!(
                "method={} elapsed_ms={} queued_ms={} code={} items={} started_unix_ms={} namespace={} \
                 key={} peer={} traceparent={}\n",
                op.method,
                whole_ms(op.elapsed),
                whole_ms(op.queued),
                code_name(op.code),
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

fn table(ops: &[SlowOp]) -> Table {
    let mut table = Table::new();
    let header = ["started", "ms", "queued", "method", "items", "namespace", "key", "code", "peer", "trace"];
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for op in ops {
        let started = std::time::UNIX_EPOCH + Duration::from_millis(op.started_unix_ms);
        table.add_row([
            humantime::format_rfc3339_millis(started).to_string(),
            whole_ms(op.elapsed).to_string(),
            whole_ms(op.queued).to_string(),
            op.method.clone(),
            op.items.to_string(),
            quoted(op.namespace.as_bytes()).to_string(),
            escaped(&op.key).to_string(),
            code_name(op.code).to_owned(),
            escaped(op.peer.as_bytes()).to_string(),
            escaped(op.traceparent.as_bytes()).to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_forge_a_line() {
        let op = SlowOp {
            method: "Get".to_owned(),
            namespace: String::new(),
            key: bytes::Bytes::from_static(b"a\"\nmethod=Set \x1b[0m\xff"),
            items: 1,
            started_unix_ms: 0,
            elapsed: Duration::from_millis(20),
            queued: Duration::ZERO,
            code: tonic::Code::DeadlineExceeded,
            peer: String::new(),
            traceparent: "x\n".to_owned(),
        };
        let text = lines(std::slice::from_ref(&op));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r#"key="a\x22\x0amethod=Set \x1b[0m\xff""#), "{text}");
        assert!(text.contains("code=DEADLINE_EXCEEDED"), "{text}");
        assert!(!table(&[op]).to_string().contains('\x1b'));
    }
}
