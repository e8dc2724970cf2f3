//! The macro that reads the table of settings.
//!
//! A row is
//!
//! ```text
//!   /// What it means, as the help and the book have it
//!   name: Type { VALUE, takes KIND, default EXPRESSION, shown "the default in words", live EFFECT }
//! ```
//!
//! VALUE stands for the value in the help, KIND says what the value may be ([`Kind`](super::setting::Kind)), `shown` is
//! there where the default depends on the machine or on other settings, and EFFECT tells from when on a change while
//! serving holds ([`Effect`](super::setting::Effect)). A row that is not served has `{ VALUE, "Heading", WHY }` and no field.

macro_rules! settings {
    (
        $(
            $(#[doc = $about:literal])+
            $group:ident: $Group:ident $title:literal {
                $(
                    $(#[doc = $help:literal])+
                    $name:ident: $Type:ty {
                        $value:ident, takes $kind:expr, default $default:expr, $(shown $shown:literal,)? live $effect:ident
                    }
                )+
            }
        )+
        not served {
            $(
                $(#[doc = $missing_help:literal])+
                $missing:ident: $MissingType:ty { $missing_value:ident, $missing_title:literal, $why:expr }
            )+
        }
    ) => {
        /// What a node runs with: the settings, in their groups.
        ///
        /// # Defaults
        /// Those of the book's configuration page; memory and threads by what the machine has.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct ServeConfig {
            $(
                $(#[doc = $about])+
                pub $group: $Group,
            )+
        }

        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Group {
                $(
                    $(#[doc = $help])+
                    pub $name: $Type,
                )+
            }

            impl Default for $Group {
                fn default() -> Self {
                    Self { $($name: $default,)+ }
                }
            }
        )+

        /// Every setting, in the order of the table.
        pub static SETTINGS: [$crate::config::setting::Setting; SETTINGS_COUNT] = [
            $($(
                $crate::config::setting::Setting {
                    flag: $crate::config::row::flag!($name),
                    field: $crate::config::row::field!($name, $Type),
                    effect: $crate::config::setting::Effect::$effect,
                    group: $title,
                    help: concat!($($help),+),
                    value_name: stringify!($value),
                    default: $crate::config::row::shown!($($shown)?),
                    kind: $kind,
                    access: Some($crate::config::setting::Access {
                        load: |setting, text, config| {
                            config.$group.$name = $crate::config::value::Value::parse(setting, text)?;
                            Ok(())
                        },
                        value: |config| $crate::config::value::Value::field(&config.$group.$name),
                        change: |setting, value, config| {
                            config.$group.$name = $crate::config::value::Value::change(setting, value)?;
                            Ok(())
                        },
                    }),
                },
            )+)+
            $(
                $crate::config::setting::Setting {
                    flag: $crate::config::row::flag!($missing),
                    field: $crate::config::row::field!($missing, $MissingType),
                    effect: $crate::config::setting::Effect::Restart,
                    group: $missing_title,
                    help: concat!($($missing_help),+),
                    value_name: stringify!($missing_value),
                    default: None,
                    kind: $crate::config::setting::Kind::NotServed($why),
                    access: None,
                },
            )+
        ];

        /// Where a setting is in [`SETTINGS`].
        #[expect(non_camel_case_types, dead_code, reason = "a setting's one name, for those that code asks for by it")]
        pub(in crate::config) enum Row { $($($name,)+)+ $($missing,)+ }

        const SETTINGS_COUNT: usize = [$($(stringify!($name),)+)+ $(stringify!($missing),)+].len();
    };
}

/// A setting of the table by its name.
macro_rules! setting {
    ($name:ident) => {
        (&$crate::config::table::SETTINGS[$crate::config::table::Row::$name as usize])
    };
}

/// A row's name as a flag has it, with dashes.
macro_rules! flag {
    ($name:ident) => {{
        const NAME: &str = stringify!($name);
        const FLAG: [u8; NAME.len()] = $crate::config::row::dashed(NAME);
        $crate::config::row::text(&FLAG)
    }};
}

/// A row's name as the contract's `Config` has it, with its unit.
macro_rules! field {
    ($name:ident, $Type:ty) => {{
        const NAME: &str = stringify!($name);
        const UNIT: &str = <$Type as $crate::config::value::Value>::UNIT;
        const FIELD: [u8; NAME.len() + UNIT.len()] = $crate::config::row::joined(NAME, UNIT);
        $crate::config::row::text(&FIELD)
    }};
}

/// The default in words, where a row has them.
macro_rules! shown {
    () => {
        None
    };
    ($shown:literal) => {
        Some($shown)
    };
}

pub(super) use {field, flag, setting, settings, shown};

pub(super) const fn dashed<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes: [u8; N] = joined(name, "");
    let mut at = 0;
    while at < N {
        if bytes[at] == b'_' {
            bytes[at] = b'-';
        }
        at += 1;
    }
    bytes
}

pub(super) const fn joined<const N: usize>(name: &str, end: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        let is_name = at < name.len();
        bytes[at] = if is_name { name.as_bytes()[at] } else { end.as_bytes()[at - name.len()] };
        at += 1;
    }
    bytes
}

/// The text that a name of the table makes, which is ASCII.
pub(super) const fn text(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}
