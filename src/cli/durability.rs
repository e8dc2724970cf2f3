//! What a write waits for: the flag of every command that writes entries.

use clap::Args;
use clap::builder::TypedValueParser;

use super::parse::Offered;
use crate::entry::Durability;

/// What the answer to a write waits for.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct WaitsFor {
    /// What the answer waits for: buffered (memory) or flushed (the disk) [default: the node's --durability]
    #[arg(long, value_name = "DURABILITY", hide_possible_values = true, value_parser = words())]
    pub(super) durability: Option<Durability>,
}

const ALL: [Durability; 2] = [Durability::Buffered, Durability::Flushed];

fn words() -> impl TypedValueParser<Value = Durability> {
    Offered(ALL.map(Durability::as_str).to_vec()).try_map(|text| parse(&text))
}

fn parse(text: &str) -> Result<Durability, String> {
    ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(|| "write buffered or flushed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durabilities_are_the_words_of_the_nodes_own_flag() {
        assert_eq!(parse("buffered"), Ok(Durability::Buffered));
        assert_eq!(parse("flushed"), Ok(Durability::Flushed));
        for wrong in ["", "Flushed", "disk", "unspecified"] {
            assert!(parse(wrong).unwrap_err().contains("buffered or flushed"), "{wrong}");
        }
    }
}
