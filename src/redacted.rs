//! Text that may hold a secret, and the one way in which it is shown.
//!
//! People put passwords into URLs (`postgres://user:secret@db/x`), tokens into query parameters and keys where a file's
//! name belongs. Whatever takes such text keeps it as [`Redacted`], whose `Display` and `Debug` leave out what may be
//! secret, so that neither an error, a log line nor a derived `Debug` can tell it. What is shown is decided by
//! [`shown`], of the text alone: it works on text that no parser understands, and rather hides too much than too little.

use std::borrow::Cow;
use std::fmt;

/// Stands for what is not shown.
const MASK: &str = "***";

/// A parameter is secret if its name contains one of these, in whatever case.
const SECRET_NAMES: [&str; 7] = ["pass", "pwd", "token", "secret", "key", "auth", "cred"];

/// What a port that was mistyped has at most, such as `74OO` or `+7400`; longer text behind a colon may be a password.
const PORT_CHARS_MAX: usize = 6;

/// Text as it was given; shown without what may be secret.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Redacted {
    text: Box<str>,
    /// Nothing of it is shown.
    is_secret: bool,
}

impl Redacted {
    /// Text that may have a secret in it, such as a URL.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into().into_boxed_str(), is_secret: false }
    }

    /// Text that is a secret.
    #[must_use]
    pub fn secret(text: impl Into<String>) -> Self {
        Self { text: text.into().into_boxed_str(), is_secret: true }
    }

    /// The text itself. It is not for people to see.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    fn shown(&self) -> Cow<'_, str> {
        if self.is_secret { Cow::Borrowed(MASK) } else { shown(&self.text) }
    }
}

impl From<String> for Redacted {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Redacted {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.shown())
    }
}

impl fmt::Debug for Redacted {
    /// The shown text in quotes, escaped as Rust writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.shown(), f)
    }
}

/// A text without what may be secret in it: the user and password of a URL, whether or not it is a good one, and the
/// values of parameters whose names sound like secrets.
#[must_use]
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(['@', '=']) && !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let text = without_parameters(&without_users(text));
    Cow::Owned(without_passwords(&text))
}

/// Hides all between the first scheme, or the beginning, and the last `@`: a password may have anything in it, also
/// what ought to have been escaped.
fn without_users(text: &str) -> String {
    let Some(at) = text.rfind('@') else { return text.to_owned() };
    let start = text[..at].find("://").map_or(0, |scheme| scheme + "://".len());
    format!("{}{MASK}{}", &text[..start], &text[at..])
}

/// Hides the values of secret parameters, up to the next `&` each.
fn without_parameters(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        shown.push_str(before);
        shown.push('=');
        rest = after;
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '%');
        let start = before.trim_end().trim_end_matches(is_part).len();
        let name = before[start..].to_ascii_lowercase();
        if SECRET_NAMES.iter().any(|secret| name.contains(secret)) {
            shown.push_str(MASK);
            rest = rest.find('&').map_or("", |end| &rest[end..]);
        }
    }
    shown + rest
}

/// Hides what stands in a port's place and is none: of a URL whose host was forgotten, that is the password.
fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after.find(['/', '?', '#', ',']).unwrap_or(after.len());
        let (authority, others) = after.split_at(end);
        match authority.split_once(':') {
            Some((host, port)) if !is_address(authority) && !may_be_port(port) => {
                shown.push_str(host);
                shown.push(':');
                shown.push_str(MASK);
            }
            _ => shown.push_str(authority),
        }
        rest = others;
    }
    shown + rest
}

/// Whether it looks like an IPv6 address, with or without brackets and a port.
fn is_address(authority: &str) -> bool {
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    authority.starts_with('[') || (authority.matches(':').count() > 1 && authority.chars().all(is_part))
}

fn may_be_port(text: &str) -> bool {
    let is_short =
        text.len() <= PORT_CHARS_MAX && text.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c));
    is_short || text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_wherever_it_stands() {
        let cases = [
            ("postgres://user:hunter2@db/x", "postgres://***@db/x"),
            ("redis://:hunter2@db", "redis://***@db"),
            // Password that ought to have been escaped.
            ("postgres://user:hun/ter2@hunter2#@db:5432/x", "postgres://***@db:5432/x"),
            ("user:hunter2@db:7400", "***@db:7400"),
            // The host was forgotten, or the URL is cut short.
            ("postgres://user:hunter2", "postgres://user:***"),
            ("tcp://user:12hunter2/x", "tcp://user:***/x"),
            ("tcp://user:hun:ter2", "tcp://user:***"),
            ("tcp://a:1,tcp://user:hunter2", "tcp://a:1,tcp://user:***"),
            ("tcp://a:1,tcp://user:hunter2@b:1", "tcp://***@b:1"),
            ("static:one=tcp://user:hunter2@b:1", "static:one=tcp://***@b:1"),
            ("http://c:4317?Token=hunter2&x=1", "http://c:4317?Token=***&x=1"),
            ("http://c:4317/?x=1&api_key=hunter2 hunter2", "http://c:4317/?x=1&api_key=***"),
            ("http://c#access-token=hunter2", "http://c#access-token=***"),
            ("host=db user=larder password = 'hunter2 hunter2'", "host=db user=larder password =***"),
            ("authorization=Bearer hunter2", "authorization=***"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected);
            let redacted = Redacted::new(text);
            assert_eq!((redacted.to_string(), redacted.expose()), (expected.to_owned(), text));
            assert!(!format!("{redacted:?} {:?}", Some(redacted.clone())).contains("hunter2"));
        }
        let key = Redacted::secret("hunter2");
        assert_eq!((format!("{key} {key:?}").as_str(), key.expose()), ("*** \"***\"", "hunter2"));
    }

    #[test]
    fn text_without_a_secret_is_shown_as_it_is() {
        for text in [
            "",
            "64MiB",
            "tcp://127.0.0.1:7400",
            "tcp://127.0.0.1:74OO",
            "tcp://cache-0.larder:70000",
            "tcp://[::1]:0,tcp://[fd00::1%eth0]:7400",
            "tcp://fd00::beef:7400",
            "tcp://",
            "tcp://a:",
            "unix:///run/l.sock",
            "files:/srv?x=1",
            "info,larder=debug",
            "static:a=tcp://a:1,b=tcp://b:1",
            "café://",
        ] {
            assert_eq!(shown(text), text);
        }
    }
}
