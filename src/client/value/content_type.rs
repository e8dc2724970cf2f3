//! Content types of values: how they are written and read.
//!
//! ```text
//!  application/json; schema=orders-v2; encoding=zstd
//!  └ media type ──┘          │                  └ how the bytes are compressed; none: they are not
//!                            └ the application's id of what the bytes mean; none: it has none
//! ```
//!
//! Written always like this. Read as RFC 9110 §8.3.1 allows: spaces and tabs around semicolons, any case of the media
//! type, of parameters' names and of the encoding, quoted values, and parameters that are not known.

/// The longest schema id, in bytes.
pub(super) const SCHEMA_BYTES_MAX: usize = 64;

/// A content type, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentType<'a> {
    /// Empty: the value has no content type.
    pub(super) media_type: &'a str,
    pub(super) schema: Option<&'a str>,
    pub(super) encoding: Option<&'a str>,
}

impl<'a> ContentType<'a> {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (media_type, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
        let media_type = media_type.trim_matches(SPACE);
        let is_none = media_type.is_empty() && rest.is_empty();
        if !is_none
            && !media_type.split_once('/').is_some_and(|(kind, name)| is_token(kind) && is_token(name))
        {
            return Err("it does not begin with a media type, TYPE/SUBTYPE");
        }
        let mut content_type = Self { media_type, schema: None, encoding: None };
        while let Some(begun) = rest.strip_prefix(';') {
            let (parameter, left) = parameter(begun)?;
            rest = left;
            let Some((name, value)) = parameter else { continue };
            let known = match name {
                name if name.eq_ignore_ascii_case("schema") => &mut content_type.schema,
                name if name.eq_ignore_ascii_case("encoding") => &mut content_type.encoding,
                _ => continue,
            };
            if known.replace(value).is_some() {
                return Err("schema or encoding stands in it twice");
            }
        }
        Ok(content_type)
    }

    /// As it is written.
    pub(super) fn write(&self) -> String {
        let mut text = self.media_type.to_owned();
        for (name, value) in [("schema", self.schema), ("encoding", self.encoding)] {
            if let Some(value) = value {
                text.extend(["; ", name, "=", value]);
            }
        }
        text
    }
}

/// Whether it may be the id of a schema.
pub(super) fn is_schema_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=SCHEMA_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain)
}

const SPACE: [char; 2] = [' ', '\t'];

/// A parameter's name and value, if there is one, and what is behind it: nothing, or from the next semicolon on.
type Parameter<'a> = (Option<(&'a str, &'a str)>, &'a str);

fn parameter(text: &str) -> Result<Parameter<'_>, &'static str> {
    let text = text.trim_start_matches(SPACE);
    if text.is_empty() || text.starts_with(';') {
        return Ok((None, text));
    }
    let (name, value) = text.split_once('=').ok_or("a parameter has no value")?;
    if !is_token(name) {
        return Err("the name of a parameter has characters that a name cannot have");
    }
    let (value, rest) = match value.strip_prefix('"') {
        Some(quoted) => {
            let end = end_of_quotes(quoted).ok_or("the quotes of a parameter do not end")?;
            let rest = quoted[end + 1..].trim_start_matches(SPACE);
            if !rest.is_empty() && !rest.starts_with(';') {
                return Err("something stands behind the quotes of a parameter");
            }
            (&quoted[..end], rest)
        }
        None => {
            let (value, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
            let value = value.trim_end_matches(SPACE);
            if !is_token(value) {
                return Err("the value of a parameter has characters that stand in quotes alone");
            }
            (value, rest)
        }
    };
    Ok((Some((name, value)), rest))
}

/// Where the closing quote stands; a backslash takes the next character as it is.
fn end_of_quotes(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (&str, Option<&str>, Option<&str>) {
        let ContentType { media_type, schema, encoding } = ContentType::parse(text).unwrap();
        (media_type, schema, encoding)
    }

    #[test]
    fn what_other_writers_vary_is_read() {
        assert_eq!(parsed(""), ("", None, None));
        for text in [
            "application/json; schema=v1; encoding=zstd",
            "application/json;schema=v1;encoding=zstd",
            "application/json \t; \t encoding=zstd ; schema=v1 ",
            "application/json; charset=utf-8; Schema=v1; ENCODING=zstd;",
            "application/json;; schema=\"v1\" ; encoding=\"zstd\"; note=\"a \\\"; schema=v2\"",
        ] {
            assert_eq!(parsed(text), ("application/json", Some("v1"), Some("zstd")), "{text}");
        }
    }

    #[test]
    fn what_is_no_content_type_is_refused_with_its_reason() {
        for (text, reason) in [
            ("json", "media type"),
            (";schema=v1", "media type"),
            ("/json", "media type"),
            ("application/", "media type"),
            ("application/json text", "media type"),
            ("application/json; schema", "no value"),
            ("application/json; sch ema=v1", "the name"),
            ("application/json; =v1", "the name"),
            ("application/json; schema=", "the value"),
            ("application/json; schema=a b", "the value"),
            ("application/json; schema=\u{fc}", "the value"),
            ("application/json; schema=\"v1", "do not end"),
            ("application/json; schema=\"v1\"v2", "behind"),
            ("application/json; schema=v1; schema=v1", "twice"),
            ("application/json; encoding=zstd; Encoding=lz4", "twice"),
        ] {
            let refused = ContentType::parse(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn ids_of_schemas_need_no_quotes() {
        for id in ["a", "orders-v2", "a.b_C-9", &"x".repeat(64)] {
            assert!(is_schema_id(id) && is_token(id), "{id}");
        }
        for id in ["", "a b", "a;b", "a\"", "a/b", "\u{e9}", "a\n", &"x".repeat(65)] {
            assert!(!is_schema_id(id), "{id}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in "\\PC{0,80}", punctuation in "[;=\" \\\\a/]{0,40}") {
            let _ = ContentType::parse(&text);
            let _ = ContentType::parse(&punctuation);
            let _ = ContentType::parse(&format!("a/b;{punctuation}"));
        }

        #[test]
        fn what_is_written_is_read(schema in proptest::option::of("[A-Za-z0-9._-]{1,64}"), zstd in any::<bool>()) {
            let encoding = zstd.then_some("zstd");
            let content_type = ContentType { media_type: "application/x-postcard", schema: schema.as_deref(), encoding };
            let text = content_type.write();
            prop_assert!(text.len() <= 255);
            prop_assert_eq!(ContentType::parse(&text), Ok(content_type));
        }
    }
}
