//! What an error quotes of a text that a caller chose: its beginning, so that it can be recognised, and never more,
//! so that a caller cannot have a node write or send as much as it likes.
//!
//! Every error that quotes a caller holds a [`Quote`] instead of the text. Making one looks at the text's beginning
//! alone, so its cost does not grow with the text.

use std::fmt::{self, Write};

/// The longest quote, marks and length included.
pub(crate) const QUOTE_BYTES_MAX: usize = 128;
/// What follows a text that was cut: `…" (18446744073709551615 bytes)`.
const TAIL_BYTES_MAX: usize = 33;

/// A caller's text as errors show it: in quotation marks, escaped as Rust does it, at most [`QUOTE_BYTES_MAX`] long. One
/// that is longer is cut, with its length in bytes behind it.
#[derive(Clone, PartialEq, Eq)]
pub struct Quote(Box<str>);

impl Quote {
    /// A quote of text, or of bytes that are probably text.
    #[must_use]
    pub fn of(text: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        let bytes = text.as_ref();
        // Escaped it is no shorter, so what lies behind this is never shown.
        let shown = &bytes[..bytes.len().min(QUOTE_BYTES_MAX)];
        let mut quoted = String::with_capacity(QUOTE_BYTES_MAX);
        let mut whole_up_to = 1;
        quoted.push('"');
        for chunk in shown.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\'' => quoted.push(c),
                    c => quoted.extend(c.escape_debug()),
                }
                whole_up_to = place_for_tail(&quoted, whole_up_to);
            }
            for byte in chunk.invalid() {
                // A String takes whatever is written to it.
                let _ = write!(quoted, "\\x{byte:02x}");
                whole_up_to = place_for_tail(&quoted, whole_up_to);
            }
        }
        if quoted.len() < QUOTE_BYTES_MAX {
            quoted.push('"');
        } else {
            quoted.truncate(whole_up_to);
            let _ = write!(quoted, "…\" ({} bytes)", bytes.len());
        }
        Self(quoted.into())
    }

    /// The quote, with its marks.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where the text is cut if it proves too long: behind the last character that leaves room for the tail.
fn place_for_tail(quoted: &str, before: usize) -> usize {
    if quoted.len() <= QUOTE_BYTES_MAX - TAIL_BYTES_MAX { quoted.len() } else { before }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_quoted_whole_and_escaped() {
        assert_eq!(Quote::of("").as_str(), "\"\"");
        assert_eq!(Quote::of("it's \"ü\"\n").as_str(), r#""it's \"ü\"\n""#);
        assert_eq!(Quote::of(b"k\xff\x00").as_str(), r#""k\xff\0""#);
        let longest = "x".repeat(QUOTE_BYTES_MAX - 2);
        assert_eq!(Quote::of(&longest).as_str(), format!("\"{longest}\""));
    }

    #[test]
    fn a_long_text_is_cut_between_characters_with_its_length_behind() {
        let cut = Quote::of(&"x".repeat(6_000));
        assert_eq!(cut.as_str(), format!("\"{}…\" (6000 bytes)", "x".repeat(94)));
        for text in ["x", "ü", "€", "🦀", "\n", "\u{1b}", "a\u{301}"] {
            for count in 1..200 {
                let quote = Quote::of(&text.repeat(count));
                assert!(quote.as_str().len() <= QUOTE_BYTES_MAX, "{quote}");
            }
        }
        for byte in [0x00, 0x80, 0xff] {
            let quote = Quote::of(&[byte; 4_096][..]);
            assert!(quote.as_str().len() <= QUOTE_BYTES_MAX && quote.as_str().ends_with("\" (4096 bytes)"));
        }
    }
}
