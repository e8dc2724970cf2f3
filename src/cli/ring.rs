//! `larder ring`: the members, and which of them own which keys.

use std::ffi::OsString;
use std::io::{self, IsTerminal};

use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::escape::{bytes_json, escaped};
use super::exit::{CliError, Exit};
use super::facts::named_lines;
use super::global::Global;
use super::keys::KeyForm;
use super::output::{note, print_json, print_raw, token_json};
use super::refusals::Refusals;
use crate::client::{ClusterMember, ClusterRing};

/// Arguments of `ring`.
#[derive(Debug, Args)]
pub(super) struct RingArgs {
    /// Say which member owns each of these keys of the namespace [default: list the members]
    #[arg(value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: RingArgs) -> Result<Exit, CliError> {
    let mut refused = Refusals::default();
    let keys = args.form.keys(&args.keys, &mut refused)?;
    let ring = super::block_on(async { Ok(global.client()?.ring().await?) })?;
    if !args.keys.is_empty() {
        return owners(global, &ring, &keys, &refused);
    }
    let members: Vec<(&ClusterMember, f64)> = ring.members.iter().zip(ring.ring().shares()).collect();
    if global.json() {
        print_json(&document(&ring, &members))?;
    } else if io::stdout().is_terminal() {
        print_raw(format!("{}\n", table(&members)).as_bytes())?;
        note(&summary(&ring));
    } else {
        print_raw(lines(&ring, &members).as_bytes())?;
    }
    Ok(Exit::Done)
}

fn owners(
    global: &Global,
    ring: &ClusterRing,
    keys: &[bytes::Bytes],
    refused: &Refusals,
) -> Result<Exit, CliError> {
    let owned = keys.iter().map(|key| (key, &ring.owner(&global.namespace, key).id));
    if global.json() {
        let owners: Vec<Value> =
            owned.map(|(key, owner)| json!({ "key": bytes_json(key), "owner": owner })).collect();
        print_json(&json!({ "epoch": token_json(ring.epoch), "keys": owners, "refused": refused.count(),
            "refusals": refused.json() }))?;
    } else {
        let text: String =
            owned.map(|(key, owner)| format!("{}\t{}\n", escaped(key), escaped(owner.as_bytes()))).collect();
        print_raw(text.as_bytes())?;
    }
    refused.tell("not looked up");
    Ok(if refused.count() == 0 { Exit::Done } else { Exit::Refused })
}

fn summary(ring: &ClusterRing) -> String {
    let (epoch, points) = (ring.epoch, ring.points_per_weight());
    format!("epoch {epoch}, {points} points for each 1 of weight, digest {}", ring.digest())
}

fn document(ring: &ClusterRing, members: &[(&ClusterMember, f64)]) -> Value {
    let member = |(member, share): &(&ClusterMember, f64)| {
        json!({
            "node_id": member.id,
            "state": member.state.as_str(),
            "weight": member.weight,
            "share": share,
            "zone": member.zone,
            "incarnation": token_json(member.incarnation),
            "addresses": member.addresses,
        })
    };
    json!({
        "epoch": token_json(ring.epoch),
        "digest": ring.digest().to_string(),
        "points_per_weight": ring.points_per_weight(),
        "ring_hash_min_size": ring.ring_hash_sizes.map(|(min, _)| min),
        "ring_hash_max_size": ring.ring_hash_sizes.map(|(_, max)| max),
        "members": members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn table(members: &[(&ClusterMember, f64)]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["node", "state", "weight", "share", "zone", "address"]);
    for (member, share) in members {
        let text = |text: &str| escaped(text.as_bytes()).to_string();
        table.add_row([
            text(&member.id),
            member.state.to_string(),
            member.weight.to_string(),
            percent(*share),
            text(&member.zone),
            member.addresses.first().map(|url| text(url)).unwrap_or_default(),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// One fact a line, for scripts.
fn lines(ring: &ClusterRing, members: &[(&ClusterMember, f64)]) -> String {
    let (epoch, digest, points) = (ring.epoch, ring.digest(), ring.points_per_weight());
    let named = members.iter().map(|(member, share)| {
        let facts = vec![
            ("state", member.state.to_string()),
            ("weight", member.weight.to_string()),
            ("share", format!("{share:.6}")),
            ("zone", format!("{:?}", member.zone)),
            ("incarnation", member.incarnation.to_string()),
            ("addresses", format!("{:?}", member.addresses.join(","))),
        ];
        (member.id.as_str(), facts)
    });
    format!("epoch {epoch}\ndigest {digest}\npoints_per_weight {points}\n{}", named_lines("member", named))
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_shown_in_hundredths_of_a_percent() {
        assert_eq!([percent(1.0), percent(1.0 / 3.0)], ["100.00 %", "33.33 %"]);
    }
}
