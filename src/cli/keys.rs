//! Keys on the command line: as they stand, or in a form for those that no shell can write.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use clap::Args;

use super::escape::{from_json, unescape, unhex};
use super::exit::CliError;
use super::refusals::Refusals;
use crate::entry::KEY_BYTES_MAX;

/// How keys are written. By default they are the argument's bytes, whether or not these are UTF-8.
#[derive(Debug, Clone, Copy, Default, Args)]
#[group(multiple = false)]
pub(super) struct KeyForm {
    /// Keys are written as scan prints them: \\ is a backslash, \xNN a byte in hexadecimal
    #[arg(long)]
    escaped: bool,
    /// Keys are written as --output json prints them: "text" or {"base64":"…"}
    #[arg(long)]
    key_json: bool,
    /// Keys are written as hexadecimal digits, two a byte
    #[arg(long)]
    key_hex: bool,
}

impl KeyForm {
    /// The bytes of a key as it was written.
    pub(super) fn key(self, text: &OsStr) -> Result<Bytes, CliError> {
        self.read(text).and_then(check).map_err(CliError::Usage)
    }

    /// The bytes of what keys begin with, which may be nothing.
    pub(super) fn prefix(self, text: &OsStr) -> Result<Bytes, CliError> {
        if text.is_empty() { Ok(Bytes::new()) } else { self.key(text) }
    }

    /// The keys that can be sent; those that cannot are added to `refused`, as they were written.
    ///
    /// # Errors
    /// Where none can be sent: what is wrong with the first.
    pub(super) fn keys(self, texts: &[OsString], refused: &mut Refusals) -> Result<Vec<Bytes>, CliError> {
        let mut keys = Vec::with_capacity(texts.len());
        let mut first = None;
        for text in texts {
            match self.read(text).and_then(check) {
                Ok(key) => keys.push(key),
                Err(why) => {
                    refused.add(text.as_bytes(), &why);
                    first.get_or_insert(why);
                }
            }
        }
        match first {
            Some(why) if keys.is_empty() => Err(CliError::Usage(why)),
            _ => Ok(keys),
        }
    }

    fn read(self, text: &OsStr) -> Result<Vec<u8>, String> {
        let text = text.as_bytes();
        let key = match self {
            Self { escaped: true, .. } => unescape(text),
            Self { key_json: true, .. } => from_json(text),
            Self { key_hex: true, .. } => unhex(text),
            _ => Ok(text.to_vec()),
        };
        key.map_err(|error| error.to_string())
    }
}

/// The key, if a node can hold it: its own limit may be lower, and it will say so.
pub(super) fn check(key: Vec<u8>) -> Result<Bytes, String> {
    match key.len() {
        0 => Err(format!("the key is empty; a key has 1 to {KEY_BYTES_MAX} bytes")),
        bytes if bytes > KEY_BYTES_MAX => {
            Err(format!("the key has {bytes} bytes; a key has 1 to {KEY_BYTES_MAX}: hash a longer one"))
        }
        _ => Ok(key.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(escaped: bool, key_json: bool, key_hex: bool) -> KeyForm {
        KeyForm { escaped, key_json, key_hex }
    }

    #[test]
    fn keys_are_the_arguments_bytes_or_what_a_form_says() {
        let raw = KeyForm::default();
        assert_eq!(raw.key(OsStr::new("6b")).unwrap(), "6b");
        assert_eq!(raw.key(OsStr::new(r"a\x41")).unwrap(), r"a\x41");
        assert_eq!(raw.key(OsStr::from_bytes(b"caf\xe9")).unwrap().as_ref(), b"caf\xe9");
        assert_eq!(form(true, false, false).key(OsStr::new(r"a\x41\\")).unwrap(), r"aA\");
        assert_eq!(form(false, true, false).key(OsStr::new(r#""a\n""#)).unwrap(), "a\n");
        assert_eq!(
            form(false, true, false).key(OsStr::new(r#"{"base64":"/g=="}"#)).unwrap().as_ref(),
            [0xfe]
        );
        assert_eq!(form(false, false, true).key(OsStr::new("6bFF")).unwrap().as_ref(), [0x6b, 0xff]);
        assert!(form(true, false, false).key(OsStr::new(r"\q")).is_err());
    }

    #[test]
    fn a_key_has_1_to_4096_bytes() {
        let raw = KeyForm::default();
        assert!(raw.key(OsStr::new("")).unwrap_err().to_string().contains("1 to 4096"));
        assert!(raw.key(OsStr::new(&"k".repeat(4_096))).is_ok());
        assert!(raw.key(OsStr::new(&"k".repeat(4_097))).unwrap_err().to_string().contains("4097"));
        assert_eq!(raw.prefix(OsStr::new("")).unwrap(), "");
    }

    #[test]
    fn a_bad_key_among_others_is_set_aside_and_alone_is_an_error() {
        let mut refused = Refusals::default();
        let keys = KeyForm::default().keys(&["a".into(), "".into(), "b".into()], &mut refused).unwrap();
        assert_eq!((keys, refused.count()), (vec![Bytes::from("a"), Bytes::from("b")], 1));
        assert!(KeyForm::default().keys(&["".into()], &mut Refusals::default()).is_err());
    }
}
