//! Bytes as text, and back: what is printed of a key can be given back as it stands.
//!
//! | form | written by | read by | on the command line |
//! |---|---|---|---|
//! | escaped: printable UTF-8 as it is, a backslash doubled, any other byte as `\xNN` | [`escaped`], [`quoted`] | [`unescape`] | `scan`, `--escaped` |
//! | JSON: a string where the bytes are UTF-8, else `{"base64": "…"}` | [`bytes_json`] | [`from_json`] | `--output json`, `--key-json` |
//! | hexadecimal: two digits a byte | | [`unhex`] | `--key-hex` |
//!
//! Every writer's text is free of control characters, so that nobody's key can forge a line or drive a terminal, and
//! its reader gives exactly the bytes that it was written from. [`shown`] is the exception: it is for eyes alone.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

/// Bytes in the escaped form.
pub(super) fn escaped(bytes: &[u8]) -> impl fmt::Display {
    Escaped { bytes, in_quotes: false }
}

/// Bytes in the escaped form between double quotes; those within are `\x22`.
pub(super) fn quoted(bytes: &[u8]) -> impl fmt::Display {
    Escaped { bytes, in_quotes: true }
}

/// A value for a terminal: lines and tabs stay, and so does a backslash; what else does not print is `\xNN`.
pub(super) fn shown(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '\n' | '\t') || prints(c, CharPosition::Within) {
                text.push(c);
            } else {
                put_hex(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        put_hex(&mut text, chunk.invalid());
    }
    text
}

struct Escaped<'b> {
    bytes: &'b [u8],
    in_quotes: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.bytes.len() + 2);
        if self.in_quotes {
            text.push('"');
        }
        let mut place = CharPosition::First;
        for chunk in self.bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => text.push_str(r"\\"),
                    c if prints(c, place) && !(c == '"' && self.in_quotes) => text.push(c),
                    c => put_hex(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
                place = CharPosition::Within;
            }
            put_hex(&mut text, chunk.invalid());
        }
        if self.in_quotes {
            text.push('"');
        }
        f.write_str(&text)
    }
}

/// Where a character stands in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CharPosition {
    First,
    Within,
}

/// True where a character has a glyph of its own or, within a text, belongs to the one before it.
fn prints(c: char, place: CharPosition) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // The standard library knows what prints, and says so of a whole text alone: it escapes an accent that has no
    // letter before it.
    let mut text = [b'a', 0, 0, 0, 0];
    let end = 1 + c.encode_utf8(&mut text[1..]).len();
    let from = if place == CharPosition::First { 1 } else { 0 };
    std::str::from_utf8(&text[from..end]).is_ok_and(|text| !text.escape_debug().any(|c| c == '\\'))
}

fn put_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Text that is not in the form that it should be in, and what that form is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadText {
    #[error(
        r"{text}: the backslash at byte {at} escapes nothing; write a backslash as \\ and a byte as \xNN with two hexadecimal digits, as scan prints them"
    )]
    Escape { text: String, at: usize },
    #[error(
        "{text} is no key in JSON: write \"text\" or {{\"base64\":\"…\"}} with padding, as --output json prints them"
    )]
    Json { text: String },
    #[error("{text} is no key in hexadecimal: write two digits 0-9a-f for each byte, such as 6b6579")]
    Hex { text: String },
}

/// The text that is refused, for a message: a backslash stays as it was written.
fn named(text: &[u8]) -> String {
    format!("\"{}\"", shown(text).replace('\n', r"\x0a").replace('\t', r"\x09"))
}

/// The bytes of a text in the escaped form.
pub(super) fn unescape(text: &[u8]) -> Result<Vec<u8>, BadText> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, more @ ..] = rest {
        let (byte, after) = match (first, more) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) if let Some(byte) = hex_byte(*high, *low) => (byte, after),
            (b'\\', _) => {
                let at = text.len() - rest.len();
                return Err(BadText::Escape { text: named(text), at });
            }
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Ok(bytes)
}

/// The bytes of a text of hexadecimal digits.
pub(super) fn unhex(text: &[u8]) -> Result<Vec<u8>, BadText> {
    let pairs = text.chunks_exact(2);
    let is_even = pairs.remainder().is_empty();
    let bytes: Option<Vec<u8>> = pairs.map(|pair| hex_byte(pair[0], pair[1])).collect();
    bytes.filter(|_| is_even).ok_or_else(|| BadText::Hex { text: named(text) })
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Keys and values in JSON: a string where they are UTF-8, else `{"base64": …}`.
pub(super) fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": base64(bytes) }),
    }
}

/// The bytes of a JSON text that [`bytes_json`] could have written.
pub(super) fn from_json(text: &[u8]) -> Result<Vec<u8>, BadText> {
    let bytes = match serde_json::from_slice(text) {
        Ok(Value::String(text)) => Some(text.into_bytes()),
        Ok(Value::Object(object)) if object.len() == 1 => {
            object.get("base64").and_then(Value::as_str).and_then(from_base64)
        }
        _ => None,
    };
    bytes.ok_or_else(|| BadText::Json { text: named(text) })
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sextet = (group >> (18 - 6 * place)) & 0x3f;
            text.push(if place <= chunk.len() { char::from(BASE64[sextet as usize]) } else { '=' });
        }
    }
    text
}

/// `None`: it is not what [`base64`] writes.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.as_bytes().chunks(4) {
        let mut group = 0_u32;
        for byte in chunk {
            let sextet = BASE64.iter().position(|digit| digit == byte)?;
            group = group << 6 | u32::try_from(sextet).ok()?;
        }
        let group = group << (6 * (4 - chunk.len()));
        bytes.extend_from_slice(group.to_be_bytes().get(1..chunk.len())?);
    }
    // One text for the same bytes: right padding, and no bits that are lost.
    (base64(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Bytes that are mostly text with what escaping turns on, so that not everything is escaped.
        #[test]
        fn every_form_reads_back_what_it_writes(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'"'), Just(b'\n'), b'a'..=b'f', b'0'..=b'9'],
                0..64,
            ),
            text in any::<String>(),
        ) {
            for bytes in [bytes, text.into_bytes()] {
                let written = escaped(&bytes).to_string();
                prop_assert!(!written.chars().any(char::is_control), "{written:?}");
                prop_assert_eq!(unescape(written.as_bytes()).unwrap(), bytes.clone());
                let written = quoted(&bytes).to_string();
                let within = written.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap();
                prop_assert!(!within.contains('"'));
                prop_assert_eq!(unescape(within.as_bytes()).unwrap(), bytes.clone());
                prop_assert_eq!(from_json(bytes_json(&bytes).to_string().as_bytes()).unwrap(), bytes.clone());
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                prop_assert_eq!(unhex(hex.as_bytes()).unwrap(), bytes.clone());
                prop_assert!(!shown(&bytes).chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')));
            }
        }
    }

    #[test]
    fn printable_text_stays_as_it_is_and_the_rest_is_escaped() {
        for text in ["café", "cafe\u{301}", "日本語", "a b'c\"d", "~", "🙂"] {
            assert_eq!(escaped(text.as_bytes()).to_string(), text);
        }
        for (bytes, text) in [
            (&b"a\\b"[..], r"a\\b"),
            (b"\n\t\x1b[0m\x7f", r"\x0a\x09\x1b[0m\x7f"),
            (b"caf\xe9", r"caf\xe9"),
            ("\u{202e}x\u{a0}".as_bytes(), r"\xe2\x80\xaex\xc2\xa0"),
            // An accent without a letter would sit on what is printed before the key.
            ("\u{301}".as_bytes(), r"\xcc\x81"),
        ] {
            assert_eq!(escaped(bytes).to_string(), text);
        }
        assert_eq!(quoted(b"a\"b").to_string(), r#""a\x22b""#);
    }

    #[test]
    fn a_terminal_is_shown_text_and_never_driven() {
        assert_eq!(shown(b"{\"path\":\"C:\\\\\"}\n\tcaf\xc3\xa9"), "{\"path\":\"C:\\\\\"}\n\tcafé");
        assert_eq!(shown(b"\x1b]0;title\x07\r\x00\xff"), r"\x1b]0;title\x07\x0d\x00\xff");
    }

    #[test]
    fn text_that_is_in_no_form_is_refused_with_what_to_write() {
        for wrong in [&b"a\\"[..], b"\\n", b"\\x4", b"\\xzz", b"\\X41"] {
            let error = unescape(wrong).unwrap_err().to_string();
            assert!(error.contains(r"\xNN"), "{error}");
        }
        assert!(unescape(b"ab\\q").unwrap_err().to_string().contains("byte 2"));
        for wrong in
            ["tea", "1", "null", "[]", "{}", r#"{"base64":"/w="}"#, r#"{"base64":"/x=="}"#, r#"{"base64":1}"#]
        {
            let error = from_json(wrong.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("base64"), "{wrong}: {error}");
        }
        for wrong in ["6", "6g", "é0"] {
            assert!(unhex(wrong.as_bytes()).unwrap_err().to_string().contains("hexadecimal"));
        }
    }

    #[test]
    fn base64_equals_the_vectors_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
            assert_eq!(from_base64(encoded).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_base64_in_json() {
        assert_eq!(bytes_json(b"tea"), json!("tea"));
        assert_eq!(bytes_json(&[0xff, 0x00]), json!({ "base64": "/wA=" }));
    }
}
