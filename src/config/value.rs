//! The types that a setting can have: how each is read from text, shown in the contract's `Config` and changed from there.

use std::path::PathBuf;
use std::time::Duration;

use super::live::BadSetting;
use super::setting::{InvalidValue, Problem, Setting};
use super::table::NO_ORIGIN;
use super::{Durability, Endpoint, HostPort, LogFormat, Persistence, PolicyName, RecoveryMethod};
use crate::endpoint::port_of;
use crate::entry::ByteSize;
use crate::persistence::BackendKind;
use crate::proto::FieldValue;
use crate::redacted::Redacted;

/// A type that a setting can have.
pub(super) trait Value: Sized {
    /// What the name of its field of the contract's `Config` ends in.
    const UNIT: &'static str = "";

    /// What a text says.
    fn parse(setting: &Setting, text: &str) -> Result<Self, InvalidValue>;

    /// The value as the contract has it.
    fn field(&self) -> FieldValue;

    /// The value that the contract's says, within the setting's bounds. A type that no live setting has needs none.
    fn change(setting: &Setting, _: &FieldValue) -> Result<Self, BadSetting> {
        Err(setting.needs_restart())
    }
}

/// A type that is a number in the contract, in bytes, milliseconds or plainly counted.
trait Number: Sized {
    const UNIT: &'static str = "";
    fn of(number: u64) -> Self;
    fn number(&self) -> u64;
}

impl<N: Number> Value for N {
    const UNIT: &'static str = N::UNIT;

    fn parse(setting: &Setting, text: &str) -> Result<Self, InvalidValue> {
        Ok(N::of(setting.number(text)?))
    }

    fn field(&self) -> FieldValue {
        FieldValue::Number(self.number())
    }

    fn change(setting: &Setting, value: &FieldValue) -> Result<Self, BadSetting> {
        match value {
            FieldValue::Number(number) => setting.check(*number).map(N::of),
            _ => Err(setting.needs_restart()),
        }
    }
}

impl Number for ByteSize {
    const UNIT: &'static str = "_bytes";

    fn of(number: u64) -> Self {
        Self(number)
    }

    fn number(&self) -> u64 {
        self.0
    }
}

impl Number for Duration {
    const UNIT: &'static str = "_ms";

    fn of(number: u64) -> Self {
        Self::from_millis(number)
    }

    fn number(&self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Number for u32 {
    /// Saturating; the bounds of a setting that has this type are within it.
    fn of(number: u64) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }

    fn number(&self) -> u64 {
        (*self).into()
    }
}

/// `None` is 0.
impl<N: Number> Number for Option<N> {
    const UNIT: &'static str = N::UNIT;

    fn of(number: u64) -> Self {
        (number > 0).then(|| N::of(number))
    }

    fn number(&self) -> u64 {
        self.as_ref().map_or(0, N::number)
    }
}

impl Value for bool {
    fn parse(_: &Setting, text: &str) -> Result<Self, InvalidValue> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("is neither on nor off".into()),
        }
    }

    fn field(&self) -> FieldValue {
        FieldValue::Switch(*self)
    }
}

/// A share.
impl Value for f64 {
    fn parse(_: &Setting, text: &str) -> Result<Self, InvalidValue> {
        match text.parse::<Self>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
            Ok(_) => Err("is out of bounds".into()),
            Err(_) => Err("is no number".into()),
        }
    }

    fn field(&self) -> FieldValue {
        FieldValue::Real(*self)
    }
}

impl Value for String {
    fn parse(setting: &Setting, text: &str) -> Result<Self, InvalidValue> {
        Ok(setting.word(text)?.to_owned())
    }

    fn field(&self) -> FieldValue {
        FieldValue::Text(self.clone())
    }

    fn change(setting: &Setting, value: &FieldValue) -> Result<Self, BadSetting> {
        match value {
            FieldValue::Text(text) => setting.check_text(text),
            _ => Err(setting.needs_restart()),
        }
    }
}

/// `None`: not given.
impl Value for Option<String> {
    fn parse(setting: &Setting, text: &str) -> Result<Self, InvalidValue> {
        String::parse(setting, text).map(Some)
    }

    fn field(&self) -> FieldValue {
        FieldValue::Text(self.clone().unwrap_or_default())
    }
}

impl Value for PathBuf {
    fn parse(setting: &Setting, text: &str) -> Result<Self, InvalidValue> {
        String::parse(setting, text).map(Self::from)
    }

    fn field(&self) -> FieldValue {
        FieldValue::Text(self.display().to_string())
    }
}

impl Value for HostPort {
    fn parse(_: &Setting, text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|error: crate::endpoint::BadHostPort| InvalidValue::Value(error.to_string()))
    }

    fn field(&self) -> FieldValue {
        FieldValue::Text(self.to_string())
    }
}

impl Value for Endpoint {
    fn parse(_: &Setting, text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|error: crate::endpoint::BadEndpoint| InvalidValue::Value(error.to_string()))
    }

    fn field(&self) -> FieldValue {
        FieldValue::Text(self.to_string())
    }
}

/// With commas between.
impl Value for Vec<Endpoint> {
    fn parse(setting: &Setting, text: &str) -> Result<Self, InvalidValue> {
        text.split(',').map(|url| Endpoint::parse(setting, url.trim())).collect()
    }

    fn field(&self) -> FieldValue {
        FieldValue::Texts(self.iter().map(ToString::to_string).collect())
    }
}

/// A URL that others can connect to.
impl Value for Option<Endpoint> {
    fn parse(setting: &Setting, text: &str) -> Result<Self, InvalidValue> {
        match Endpoint::parse(setting, text)? {
            Endpoint::Tcp(address) if address.port == 0 => Err(PORT_0.into()),
            Endpoint::Tcp(address) if address.is_unspecified() => {
                Err("stands for every address of a machine, at which nobody can be reached from another"
                    .into())
            }
            Endpoint::Tcp(address) => Ok(Some(Endpoint::Tcp(address))),
            Endpoint::Unix(_) => Err("is a Unix socket, which nobody can reach from another machine".into()),
            Endpoint::Udp(_) => Err("is no tcp:// URL, and this build serves no UDP yet".into()),
        }
    }

    fn field(&self) -> FieldValue {
        FieldValue::Text(self.as_ref().map(ToString::to_string).unwrap_or_default())
    }
}

/// A collector's URL. There is no TLS in this build, so https would go out in the clear or not at all.
impl Value for Option<Redacted> {
    fn parse(_: &Setting, text: &str) -> Result<Self, InvalidValue> {
        let uri = text.parse::<http::Uri>().ok();
        let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
        let authority = uri.as_ref().and_then(http::Uri::authority);
        match (scheme, authority) {
            (Some("https"), _) => Err("asks for TLS, which this build does not serve yet".into()),
            (Some("http"), Some(authority)) => match port_of(authority.as_str()) {
                Ok(Some(0)) => Err(PORT_0.into()),
                Ok(_) => Ok(Some(text.into())),
                Err(error) => Err(InvalidValue::Value(error.to_string())),
            },
            _ => Err("is no http:// URL".into()),
        }
    }

    fn field(&self) -> FieldValue {
        FieldValue::Text(self.as_ref().map(ToString::to_string).unwrap_or_default())
    }
}

const PORT_0: Problem = "has port 0, at which nobody can be reached";

impl Value for PolicyName {
    fn parse(_: &Setting, text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|_| InvalidValue::Policy)
    }

    fn field(&self) -> FieldValue {
        FieldValue::Text(self.to_string())
    }

    fn change(setting: &Setting, value: &FieldValue) -> Result<Self, BadSetting> {
        match value {
            FieldValue::Text(name) => Ok(name.parse::<Self>()?),
            _ => Err(setting.needs_restart()),
        }
    }
}

/// What a recovery loads from an origin is known and not served.
impl Value for RecoveryMethod {
    fn parse(setting: &Setting, text: &str) -> Result<Self, InvalidValue> {
        setting.word(text)?.parse().map_err(|_| InvalidValue::NotServed(NO_ORIGIN))
    }

    fn field(&self) -> FieldValue {
        FieldValue::Text(self.to_string())
    }
}

/// Types that are one of a few words, which its row names.
macro_rules! words {
    ($($Type:ty: $all:expr;)+) => {
        $(
            impl Value for $Type {
                fn parse(_: &Setting, text: &str) -> Result<Self, InvalidValue> {
                    let found = $all.into_iter().find(|known: &Self| known.as_str() == text);
                    found.ok_or_else(|| "is not known".into())
                }

                fn field(&self) -> FieldValue {
                    FieldValue::Text(self.as_str().to_owned())
                }
            }
        )+
    };
}

words! {
    Persistence: Persistence::ALL;
    BackendKind: BackendKind::ALL;
    Durability: [Durability::Buffered, Durability::Flushed];
    LogFormat: [LogFormat::Text, LogFormat::Json];
}
