//! Config's fields by name, for UpdateConfig: those of settings that can be changed while a node serves.

use super::v1;

macro_rules! numbers {
    ($($field:ident,)*) => {
        /// The number in a field; `None`: it has none, or cannot be changed.
        pub(crate) fn number(config: &v1::Config, field: &str) -> Option<u64> {
            match field {
                $(stringify!($field) => Some(config.$field.into()),)*
                _ => None,
            }
        }

        /// Sets the number in a field, saturating; false: it has none, or cannot be changed.
        #[cfg(feature = "cli")]
        pub(crate) fn set_number(config: &mut v1::Config, field: &str, number: u64) -> bool {
            match field {
                $(stringify!($field) => config.$field = number.try_into().unwrap_or(u32::MAX.into()),)*
                _ => return false,
            }
            true
        }
    };
}

numbers! {
    memory_bytes,
    timeout_ms,
    stats_interval_ms,
    lame_duck_ms,
    drain_deadline_ms,
    max_key_bytes,
    max_value_bytes,
    max_message_in_bytes,
    max_message_out_bytes,
    max_response_backlog_bytes,
    max_batch,
    max_content_type_bytes,
    max_tags,
    max_tag_bytes,
    max_ttl_ms,
    max_namespaces,
    max_connections,
    max_in_flight,
    slow_op_ms,
    max_streams,
    first_byte_timeout_ms,
    stall_timeout_ms,
}

/// The text in a field; `None`: it has none, or cannot be changed.
pub(crate) fn text<'c>(config: &'c v1::Config, field: &str) -> Option<&'c str> {
    match field {
        "policy" => Some(&config.policy),
        "log" => Some(&config.log),
        _ => None,
    }
}

/// Sets the text in a field; false: it has none, or cannot be changed.
#[cfg(feature = "cli")]
pub(crate) fn set_text(config: &mut v1::Config, field: &str, text: String) -> bool {
    match field {
        "policy" => config.policy = text,
        "log" => config.log = text,
        _ => return false,
    }
    true
}
