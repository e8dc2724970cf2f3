//! The process's `LARDER_` variables: those that are settings, those that were meant to be, and those that are
//! somebody else's.
//!
//! A variable that is a setting's but for a slip of the pen is refused, as a flag would be. One that resembles none is
//! only warned of: it may belong to a script. Kubernetes' service links are left alone: beside a Service named
//! `larder`, or `larder-admin`, every container gets
//!
//! ```text
//!   LARDER_SERVICE_HOST=10.0.0.1            LARDER_PORT=tcp://10.0.0.1:7400
//!   LARDER_SERVICE_PORT=7400                LARDER_PORT_7400_TCP=tcp://10.0.0.1:7400
//!   LARDER_SERVICE_PORT_GRPC=7400           LARDER_PORT_7400_TCP_PROTO, …_PORT, …_ADDR
//!   LARDER_ADMIN_SERVICE_HOST=10.0.0.2      LARDER_ADMIN_PORT=tcp://10.0.0.2:7401
//! ```

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::error::ConfigError;
use super::table::SETTINGS;

/// The variable that names the nodes to a client.
pub const NODES_VARIABLE: &str = "LARDER_NODES";
/// The variable that names the admin listener: where a node opens it, and where `larder admin` finds it.
pub const ADMIN_VARIABLE: &str = "LARDER_ADMIN";

const PREFIX: &str = "LARDER_";

/// Variables by name, with what they say.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Variables(BTreeMap<String, OsString>);

impl Variables {
    /// Those of this process whose names begin with LARDER_, in either case.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value)).collect()
    }

    /// What a variable says. An empty one says nothing: that is how shells and compose files leave something out.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Looks for variables that were meant for `larder serve` and would not reach it; what there is to warn of.
    ///
    /// # Errors
    /// [`ConfigError::UnknownVariable`]: a name that is nearly a setting's.
    pub(super) fn check(&self) -> Result<Vec<String>, ConfigError> {
        let known = known();
        let mut warnings = Vec::new();
        for name in self.strangers(&known) {
            if let Some(nearest) = nearest(name, &known) {
                return Err(ConfigError::UnknownVariable {
                    name: name.to_owned(),
                    nearest: nearest.to_owned(),
                });
            }
            if name.starts_with(PREFIX) {
                warnings.push(format!(
                    "the variable {name} is no setting and has no effect; see larder serve --help for those that \
                     there are, or unset it"
                ));
            }
        }
        Ok(warnings)
    }

    /// Looks for variables that were meant for a client of a node and would not reach it.
    ///
    /// # Errors
    /// [`ConfigError::UnknownVariable`]: a name that is nearly one of a client's.
    pub fn check_client(&self) -> Result<(), ConfigError> {
        let known = known();
        for name in self.strangers(&known) {
            match nearest(name, &known) {
                Some(nearest) if [NODES_VARIABLE, ADMIN_VARIABLE].contains(&nearest) => {
                    let (name, nearest) = (name.to_owned(), nearest.to_owned());
                    return Err(ConfigError::UnknownVariable { name, nearest });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The names that are neither known nor a service link's, and say something.
    fn strangers<'v>(&'v self, known: &'v [String]) -> impl Iterator<Item = &'v str> {
        let strangers = self.0.iter().filter(|(name, value)| {
            !value.is_empty() && !known.contains(name) && !is_service_link(name, value)
        });
        strangers.map(|(name, _)| name.as_str())
    }
}

impl FromIterator<(String, OsString)> for Variables {
    /// Takes those whose names begin with LARDER_, in either case.
    fn from_iter<I: IntoIterator<Item = (String, OsString)>>(variables: I) -> Self {
        let is_ours = |name: &str| normal(name).starts_with(PREFIX);
        Self(variables.into_iter().filter(|(name, _)| is_ours(name)).collect())
    }
}

impl std::fmt::Debug for Variables {
    /// Their names: what they say may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The names that the program reads.
fn known() -> Vec<String> {
    let settings = SETTINGS.iter().map(|setting| setting.variable());
    settings.chain(["LARDER_CONFIG".to_owned(), NODES_VARIABLE.to_owned()]).collect()
}

/// As the program's own names are written.
fn normal(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// The known name that an unknown one was meant to be.
fn nearest<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    let normal = normal(name);
    let meant = normal.strip_prefix(PREFIX)?;
    // The field of the proto's Config, with its unit.
    let field = SETTINGS.iter().find(|setting| setting.field.eq_ignore_ascii_case(meant));
    if let Some(setting) = field {
        let variable = setting.variable();
        return known.iter().find(|known| **known == variable).map(String::as_str);
    }
    known
        .iter()
        .filter_map(|known| known.strip_prefix(PREFIX).map(|word| (strsim::osa_distance(meant, word), known)))
        .min_by_key(|(slips, _)| *slips)
        .filter(|(slips, known)| *slips <= slips_max(known.len() - PREFIX.len()) && !meant.is_empty())
        .map(|(_, known)| known.as_str())
}

/// How many letters may be wrong in a name of this length for it to be taken for that name.
fn slips_max(length: usize) -> usize {
    match length {
        0..=5 => 1,
        6..=11 => 2,
        _ => 3,
    }
}

/// Whether Kubernetes made a variable, for a Service that is named `larder` or `larder-…`. What `…_PORT` says tells its
/// links from a setting's name that somebody made up.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let Some(rest) = name.strip_prefix("LARDER") else { return false };
    if rest.ends_with("_SERVICE_HOST") || rest.ends_with("_SERVICE_PORT") || rest.contains("_SERVICE_PORT_") {
        return true;
    }
    let is_url =
        || ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.to_string_lossy().starts_with(scheme));
    is_port_link(rest) || (rest.ends_with("_PORT") && is_url())
}

/// Whether a name ends in `_PORT_7400_TCP`, or in that and `_PROTO`, `_PORT` or `_ADDR`.
fn is_port_link(name: &str) -> bool {
    let name = ["_PROTO", "_PORT", "_ADDR"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let name = ["_TCP", "_UDP", "_SCTP"].iter().find_map(|end| name.strip_suffix(end));
    let port = name.and_then(|name| name.rsplit_once("_PORT_")).map(|(_, port)| port);
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(lines: &[&str]) -> Variables {
        lines
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
    }

    /// The known name that a name is refused for, or `None`.
    fn meant(name: &str) -> Option<String> {
        match variables(&[&format!("{name}=hunter2")]).check() {
            Err(ConfigError::UnknownVariable { name: told, nearest }) if told == name => Some(nearest),
            Err(other) => panic!("{name}: {other}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn a_name_that_is_nearly_a_settings_is_refused() {
        for (name, nearest) in [
            ("LARDER_POLCY", "LARDER_POLICY"),
            ("LARDER_MEMROY", "LARDER_MEMORY"),
            ("LARDER_MEMORY_BYTES", "LARDER_MEMORY"),
            ("LARDER_TIMEOUT_MS", "LARDER_TIMEOUT"),
            ("LARDER_DATADIR", "LARDER_DATA_DIR"),
            ("LARDER_DATA-DIR", "LARDER_DATA_DIR"),
            ("larder_data_dir", "LARDER_DATA_DIR"),
            ("Larder_Listen", "LARDER_LISTEN"),
            ("LARDER_LISTENS", "LARDER_LISTEN"),
            ("LARDER_PERSISTANCE", "LARDER_PERSISTENCE"),
            ("LARDER_MAX_CONNECTION", "LARDER_MAX_CONNECTIONS"),
            ("LARDER_LOGS", "LARDER_LOG"),
            ("LARDER_CONFIGS", "LARDER_CONFIG"),
            ("LARDER_NODE", "LARDER_NODES"),
            ("LARDER_ADMN", "LARDER_ADMIN"),
        ] {
            assert_eq!(meant(name).as_deref(), Some(nearest), "{name}");
        }
        let error = variables(&["LARDER_POLCY=hunter2"]).check().unwrap_err();
        assert!(error.to_string().contains("LARDER_POLICY"), "{error}");
        assert!(!format!("{error} {error:?} {:?}", variables(&["LARDER_POLCY=hunter2"])).contains("hunter2"));
    }

    #[test]
    fn another_unknown_name_is_warned_of() {
        // The tests' own are among them: they reach every process that a test starts.
        for name in [
            "LARDER_QQQ",
            "LARDER_POD_IP",
            "LARDER_NODE_NAME",
            "LARDER_HOME",
            "LARDER_PORT",
            "LARDER_HTTP_PORT",
            "LARDER_NO_MOUNT",
            "LARDER_REQUIRE_ALL",
            "LARDER_KILLS",
            "LARDER_MODEL_OPS",
            "LARDER_SOAK_SECONDS",
            "LARDER_STORE_STEPS",
            "LARDER_INCREMENTS",
            "LARDER_STARVED",
        ] {
            assert_eq!(meant(name), None);
            let warnings = variables(&[&format!("{name}=1")]).check().unwrap();
            assert!(warnings.len() == 1 && warnings[0].contains(name), "{name}: {warnings:?}");
        }
    }

    #[test]
    fn service_links_settings_and_what_is_empty_or_not_ours_are_left_alone() {
        let left = variables(&[
            "LARDER_SERVICE_HOST=10.0.0.1",
            "LARDER_SERVICE_PORT=7400",
            "LARDER_SERVICE_PORT_GRPC=7400",
            "LARDER_PORT=tcp://10.0.0.1:7400",
            "LARDER_PORT_7400_TCP=tcp://10.0.0.1:7400",
            "LARDER_PORT_7400_TCP_PROTO=tcp",
            "LARDER_PORT_7400_TCP_PORT=7400",
            "LARDER_PORT_7400_TCP_ADDR=10.0.0.1",
            "LARDER_PORT_7400_UDP=udp://10.0.0.1:7400",
            "LARDER_ADMIN_SERVICE_HOST=10.0.0.1",
            "LARDER_ADMIN_SERVICE_PORT=7401",
            "LARDER_ADMIN_PORT=tcp://10.0.0.1:7401",
            "LARDER_ADMIN_PORT_7401_TCP_ADDR=10.0.0.1",
            "LARDER_LOG_SERVICE_PORT_LOGS=1",
            "LARDER_LOGS_PORT=tcp://10.0.0.1:1",
            "LARDER_POLICY=lru",
            "LARDER_CONFIG=/etc/larder.toml",
            "LARDER_NODES=tcp://a:1",
            "LARDER_POLCY=",
            "LARDERS_POLCY=lru",
            "PATH=/bin",
        ]);
        assert_eq!(left.check().unwrap(), Vec::<String>::new());
        assert!(left.check_client().is_ok());
        for setting in &SETTINGS {
            assert!(
                !is_service_link(&setting.variable(), OsStr::new("tcp://10.0.0.1:1")),
                "{}",
                setting.flag
            );
        }
        assert_eq!((left.get("LARDER_POLICY"), left.get("LARDER_POLCY")), (Some(OsStr::new("lru")), None));
    }

    #[test]
    fn a_client_minds_its_own_variables() {
        for (name, is_refused) in
            [("LARDER_NODSE", true), ("LARDER_AMDIN", true), ("LARDER_POLCY", false), ("LARDER_QQQ", false)]
        {
            assert_eq!(variables(&[&format!("{name}=x")]).check_client().is_err(), is_refused, "{name}");
        }
        let several = variables(&["LARDER_LOGS=x", "LARDER_NODSE=x"]);
        assert!(several.check_client().is_err(), "another's slip hides nothing");
    }
}
