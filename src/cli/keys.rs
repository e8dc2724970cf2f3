//! Keys on the command line: text, or with `--key-hex` hexadecimal digits for keys that are none.

use bytes::Bytes;
use clap::Args;

use super::exit::CliError;
use crate::entry::KEY_BYTES_MAX;

/// How keys are written.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct KeyForm {
    /// Keys are written as hexadecimal digits
    #[arg(long)]
    key_hex: bool,
}

impl KeyForm {
    /// The bytes of a key as it was written.
    pub(super) fn key(self, text: &str) -> Result<Bytes, CliError> {
        let key = if self.key_hex {
            unhex(text).ok_or_else(|| {
                CliError::Usage(format!(
                    "{text:?} is no key in hexadecimal: write two digits 0-9a-f for each byte, such as 6b6579"
                ))
            })?
        } else {
            text.as_bytes().to_vec()
        };
        match key.len() {
            0 => Err(CliError::Usage("the key is empty; a key has 1 to 4096 bytes".to_owned())),
            // The node's own limit may be lower, and it will say so.
            bytes if bytes > KEY_BYTES_MAX => Err(CliError::Usage(format!(
                "the key has {bytes} bytes; a key has 1 to {KEY_BYTES_MAX}: hash a longer one"
            ))),
            _ => Ok(key.into()),
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_text_or_hex_of_1_to_4096_bytes() {
        let (text, hex) = (KeyForm { key_hex: false }, KeyForm { key_hex: true });
        assert_eq!(text.key("6b").unwrap(), "6b");
        assert_eq!(hex.key("6bFF").unwrap().as_ref(), [0x6b, 0xff]);
        assert!(text.key("").unwrap_err().to_string().contains("empty"));
        assert!(text.key(&"k".repeat(4_096)).is_ok());
        assert!(text.key(&"k".repeat(4_097)).unwrap_err().to_string().contains("4097"));
        for wrong in ["6", "6g", "é0"] {
            assert!(hex.key(wrong).unwrap_err().to_string().contains("hexadecimal"));
        }
    }
}
