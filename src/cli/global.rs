//! The flags that every subcommand takes that calls a node, before the subcommand or after it.

use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};

use super::exit::CliError;
use super::parse;
use crate::client::{AdminClient, BadNodeUrl, Client, ClientBuilder, ClientError, NodeUrl};
use crate::config::{ADMIN_VARIABLE, NODES_VARIABLE};

const NODES_DEFAULT: &str = "tcp://127.0.0.1:7400";
const ADMIN_DEFAULT: &str = "tcp://127.0.0.1:7401";
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// What stdout carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Output {
    /// One fact per line, `name value`.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// The flags as they were given.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = "Calling a node")]
pub(super) struct ClientArgs {
    /// The nodes, tcp://HOST:PORT, HOST:PORT or unix:///PATH [env: LARDER_NODES] [default: tcp://127.0.0.1:7400]
    #[arg(long, value_name = "URL,…", env = NODES_VARIABLE, hide_env = true)]
    nodes: Option<String>,
    /// The admin listener, for `admin` [env: LARDER_ADMIN] [default: tcp://127.0.0.1:7401]
    #[arg(long, value_name = "URL", env = ADMIN_VARIABLE, hide_env = true)]
    admin: Option<String>,
    /// The namespace [default: the one that is named ""]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// How long a call may take [default: 5s]
    #[arg(long, value_name = "DUR", value_parser = parse::positive_duration)]
    timeout: Option<Duration>,
    /// What is printed on stdout [default: text]
    #[arg(long, value_enum, hide_default_value = true)]
    output: Option<Output>,
}

/// The flags with defaults filled in and URLs read.
#[derive(Debug, Clone)]
pub(super) struct Global {
    pub(super) nodes: Vec<NodeUrl>,
    pub(super) admin: NodeUrl,
    pub(super) namespace: String,
    pub(super) timeout: Duration,
    pub(super) output: Output,
}

impl std::fmt::Debug for ClientArgs {
    /// Nothing of what was given: as long as it is not parsed, any of it may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientArgs").finish_non_exhaustive()
    }
}

impl ClientArgs {
    /// These, and where they say nothing, those.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.or(other.nodes),
            admin: self.admin.or(other.admin),
            namespace: self.namespace.or(other.namespace),
            timeout: self.timeout.or(other.timeout),
            output: self.output.or(other.output),
        }
    }

    /// These without what comes of variables that are empty: such a one counts as unset.
    pub(super) fn without_empty_variables(mut self, matches: &ArgMatches) -> Self {
        let is_variable = |flag| matches.value_source(flag) == Some(ValueSource::EnvVariable);
        for (flag, value) in [("nodes", &mut self.nodes), ("admin", &mut self.admin)] {
            value.take_if(|value| value.is_empty() && is_variable(flag));
        }
        self
    }

    pub(super) fn output(&self) -> Output {
        self.output.unwrap_or_default()
    }

    pub(super) fn resolve(self) -> Result<Global, CliError> {
        let output = self.output();
        let url = |flag: &str, text: &str| {
            text.trim()
                .parse::<NodeUrl>()
                .map_err(|error: BadNodeUrl| CliError::Usage(format!("{flag}: {}", ClientError::from(error))))
        };
        let nodes = self.nodes.as_deref().unwrap_or(NODES_DEFAULT);
        Ok(Global {
            nodes: nodes.split(',').map(|text| url("--nodes", text)).collect::<Result<_, _>>()?,
            admin: url("--admin", self.admin.as_deref().unwrap_or(ADMIN_DEFAULT))?,
            namespace: self.namespace.unwrap_or_default(),
            timeout: self.timeout.unwrap_or(TIMEOUT_DEFAULT),
            output,
        })
    }
}

impl Global {
    pub(super) fn builder(&self) -> ClientBuilder {
        ClientBuilder::new(self.nodes.iter().cloned())
            .short_lived()
            .namespace(self.namespace.clone())
            .timeout(self.timeout)
    }

    pub(super) fn client(&self) -> Result<Client, CliError> {
        Ok(self.builder().build()?)
    }

    pub(super) fn admin_client(&self) -> Result<AdminClient, CliError> {
        Ok(ClientBuilder::new([self.admin.clone()]).timeout(self.timeout).build_admin()?)
    }

    pub(super) fn json(&self) -> bool {
        self.output == Output::Json
    }
}

/// The first of the client's flags that stands on the command line before the subcommand.
pub(super) fn given_before(matches: &ArgMatches) -> Option<&'static str> {
    ["nodes", "admin", "namespace", "timeout", "output"]
        .into_iter()
        .find(|flag| matches.value_source(flag) == Some(ValueSource::CommandLine))
}
