//! [`ServeConfig::load`]: every setting of the table in turn, then what holds between them.

use super::error::{ConfigError, GivenValue};
use super::layers::Layers;
use super::row::setting;
use super::setting::Setting;
use super::table::SETTINGS;
use super::variables::Variables;
use super::{
    Durability, Endpoint, LoadedConfig, MemoryPlan, Persistence, RecoveryMethod, ServeArgs, ServeConfig,
};
use crate::entry::ByteSize;

impl ServeConfig {
    /// Puts a configuration together from flags, variables and the file that they name.
    ///
    /// # Errors
    /// The first thing that is wrong, as [`ConfigError`] tells it.
    pub fn load(args: &ServeArgs, variables: &Variables) -> Result<LoadedConfig, ConfigError> {
        if let Some(flag) = args.unknown_flag() {
            return Err(ConfigError::UnknownFlag { flag: flag.into(), nearest: Setting::nearest_flag(flag) });
        }
        let mut config = Self::default();
        let mut warnings = variables.check()?;
        let layers = &mut Layers::open(args.file(), variables)?;
        for setting in &SETTINGS {
            layers.load(setting, args.text(setting), &mut config)?;
        }
        config.follow_memory(layers);
        config.check_persistence(layers)?;
        config.check_traces(layers)?;
        if let Some(conflict) = config.conflict() {
            return Err(ConfigError::Contradiction {
                one: Box::new(layers.given_or(conflict.one, conflict.one_text)),
                other: Box::new(layers.given_or(conflict.other, conflict.other_text)),
                why: conflict.why,
            });
        }
        config.check_listeners(layers)?;
        warnings.extend(config.warnings(layers));
        Ok(LoadedConfig { config, sources: layers.sources(), warnings })
    }

    /// The limit on unread answers follows the limit on memory, where it is not given.
    fn follow_memory(&mut self, layers: &Layers<'_>) {
        if layers.given(setting!(max_response_backlog)).is_none() {
            let plan = MemoryPlan::of(self.cache.memory.0);
            self.limits.max_response_backlog = ByteSize(plan.answer_bytes_for(self.limits.max_message_out.0));
        }
    }

    /// What needs a journal contradicts a mode without one.
    fn check_persistence(&self, layers: &Layers<'_>) -> Result<(), ConfigError> {
        let contradicts = |given, why: &str| {
            let other = Box::new(layers.given_or(setting!(persistence), self.disk.persistence.as_str()));
            Err(ConfigError::Contradiction { one: Box::new(given), other, why: why.to_owned() })
        };
        let durability = || layers.given_or(setting!(durability), self.disk.durability.as_str());
        match (self.disk.persistence, self.disk.durability, self.disk.recovery) {
            (Persistence::None, Durability::Flushed, _) => contradicts(
                durability(),
                "nothing is kept on disk that could be flushed to it; leave --durability out or give buffered",
            ),
            (Persistence::Snapshot, Durability::Flushed, _) => contradicts(
                durability(),
                "what is written between two snapshots is not on disk; leave --durability out or give \
                 buffered, or keep a journal with --persistence journal+snapshot",
            ),
            (Persistence::Snapshot, _, RecoveryMethod::Journal) => contradicts(
                layers.given_or(setting!(recovery), self.disk.recovery.as_str()),
                "there is no journal to recover from; give snapshot",
            ),
            (Persistence::Snapshot, _, RecoveryMethod::Lazy) => contradicts(
                layers.given_or(setting!(recovery), self.disk.recovery.as_str()),
                "lazy recovery needs a journal, and there is none; give snapshot",
            ),
            _ => Ok(()),
        }
    }

    /// Traces that are sampled need a collector.
    fn check_traces(&self, layers: &Layers<'_>) -> Result<(), ConfigError> {
        match layers.given(setting!(trace_sample)) {
            Some(given) if self.telemetry.trace_sample > 0.0 && self.telemetry.otlp.is_none() => {
                Err(ConfigError::Needs {
                    given: given.clone(),
                    needed: "--otlp URL",
                    why: "without a collector the traces go nowhere",
                })
            }
            _ => Ok(()),
        }
    }

    fn check_listeners(&self, layers: &Layers<'_>) -> Result<(), ConfigError> {
        let given = |setting: &Setting, url: &dyn ToString| {
            let text = url.to_string();
            GivenValue { text: text.as_str().into(), ..layers.given_or(setting, text) }
        };
        let data = self.listeners.listen.iter().map(|url| (setting!(listen), url));
        let others = [(setting!(admin), &self.listeners.admin), (setting!(health), &self.listeners.health)];
        let http = Endpoint::Tcp(self.listeners.http.clone());
        let mut taken: Vec<(&Endpoint, GivenValue)> = Vec::new();
        for (setting, url) in data.chain(others) {
            let given = given(setting, url);
            if let Endpoint::Udp(_) = url {
                let why = "it listens on TCP and on Unix sockets";
                let instead = "give a tcp:// or a unix:// URL".to_owned();
                return Err(ConfigError::NotServed { given, why, instead });
            }
            if !self.listeners.insecure && setting != setting!(health) && !url.is_local() {
                return Err(ConfigError::Exposed { given });
            }
            taken.push((url, given));
        }
        taken.push((&http, given(setting!(http), &self.listeners.http)));
        for (number, (url, one)) in taken.iter().enumerate() {
            let before = taken[..number].iter().find(|(other, _)| other.overlaps(url));
            if let Some((_, other)) = before {
                let why = "no two listeners can have one address, and 0.0.0.0 has all of IPv4, [::] all that there \
                           are; give each its own port or path, or leave one out"
                    .to_owned();
                return Err(ConfigError::Contradiction {
                    one: Box::new(one.clone()),
                    other: Box::new(other.clone()),
                    why,
                });
            }
        }
        Ok(())
    }

    fn warnings(&self, layers: &Layers<'_>) -> Vec<String> {
        if self.disk.persistence != Persistence::None {
            return Vec::new();
        }
        let disk = layers
            .given(setting!(data_dir))
            .map(|given| format!("{given} is not used: persistence is none, so nothing is kept on disk"));
        disk.into_iter().collect()
    }
}
