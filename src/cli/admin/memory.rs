//! `larder admin memory`: where a node's bytes are, and what could be done about them.

use std::io::{self, IsTerminal};

use serde_json::{Value, json};

use crate::cli::exit::{CliError, Exit};
use crate::cli::facts::{Fact, Group, json, lines, listing};
use crate::cli::global::Global;
use crate::cli::output::{colours, print_json, print_raw};
use crate::client::{AdminClient, MemoryReport};

pub(super) async fn run(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let report = admin.memory_report().await?;
    let (all, parts) = (all(&report), parts(&report));
    if global.json() {
        let mut document = json(&[all]);
        let parts: Vec<Value> = (report.parts.iter())
            .map(|part| json!({ "name": part.name, "bytes": part.bytes, "charged": part.charged }))
            .collect();
        let advice: Vec<Value> = (report.advice.iter())
            .map(|advice| json!({ "reason": advice.reason, "description": advice.description }))
            .collect();
        document.insert("parts".to_owned(), Value::Array(parts));
        document.insert("advice".to_owned(), Value::Array(advice));
        print_json(&Value::Object(document))?;
        return Ok(Exit::Done);
    }
    let groups = [all, parts, advice(&report)];
    let text =
        if io::stdout().is_terminal() { listing(&groups, colours(&io::stdout())) } else { lines(&groups) };
    print_raw(text.as_bytes())?;
    Ok(Exit::Done)
}

fn all(report: &MemoryReport) -> Group {
    let parts: u64 = report.parts.iter().map(|part| part.bytes).sum();
    let resident_bytes = report.resident_bytes.unwrap_or_default();
    let facts = [
        ("bytes_limit", Fact::Bytes(report.bytes_limit)),
        ("bytes_used", Fact::Bytes(report.bytes_used)),
        ("allocated_bytes", Fact::Bytes(report.allocated_bytes.unwrap_or_default())),
        ("resident_bytes", Fact::Bytes(resident_bytes)),
        // What no part accounts for: the program, connections, messages under way.
        ("other_bytes", Fact::Bytes(resident_bytes.saturating_sub(parts))),
        ("entries", Fact::Count(report.entries)),
    ];
    Group { title: "Memory", facts: facts.map(|(name, fact)| (name.to_owned(), fact)).into() }
}

fn parts(report: &MemoryReport) -> Group {
    let facts = report.parts.iter().map(|part| (format!("parts.{}", part.name), Fact::Bytes(part.bytes)));
    Group { title: "Parts", facts: facts.collect() }
}

/// A description may quote a namespace's name, escaped by the node.
fn advice(report: &MemoryReport) -> Group {
    let facts = (report.advice.iter())
        .map(|advice| (format!("advice.{}", advice.reason), Fact::Text(advice.description.clone())));
    Group { title: "Advice", facts: facts.collect() }
}
