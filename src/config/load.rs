//! [`ServeConfig::load`]: each group of settings in turn, then what holds between them.

use super::error::{ConfigError, Said};
use super::layers::Layers;
use super::setting::{self as of, Setting};
use super::variables::Variables;
use super::{
    Durability, Endpoint, Loaded, LogFormat, MemoryPlan, Method, Persistence, ServeArgs, ServeConfig,
};
use crate::endpoint::port_of;
use crate::engine::UnknownPolicy;
use crate::quote::Quote;
use crate::redacted::{Redacted, shown};

impl ServeConfig {
    /// Puts a configuration together from flags, variables and the file that they name.
    ///
    /// # Errors
    /// The first thing that is wrong, as [`ConfigError`] tells it.
    pub fn load(args: &ServeArgs, variables: &Variables) -> Result<Loaded, ConfigError> {
        let mut config = Self::default();
        let mut warnings = variables.check()?;
        let layers = &mut Layers::open(args.config.as_deref(), variables)?;
        config.load_listeners(args, layers)?;
        config.load_engine(args, layers)?;
        config.load_persistence(args, layers)?;
        config.load_node(args, layers)?;
        config.load_life(args, layers)?;
        config.load_limits(args, layers)?;
        config.load_telemetry(args, layers)?;
        if let Some(clash) = config.clash() {
            return Err(ConfigError::Contradiction {
                one: Box::new(layers.said(&clash.one, clash.one_text)),
                other: Box::new(layers.said(&clash.other, clash.other_text)),
                why: clash.why,
            });
        }
        config.check_listeners(layers)?;
        warnings.extend(config.warnings(layers));
        Ok(Loaded { config, sources: layers.sources(), warnings })
    }

    fn load_listeners(&mut self, args: &ServeArgs, layers: &mut Layers<'_>) -> Result<(), ConfigError> {
        let flags = (!args.listen.is_empty()).then(|| args.listen.join(","));
        let parse = |text: &str| text.split(',').map(|url| url.trim().parse()).collect();
        layers.set::<Vec<Endpoint>, super::BadEndpoint>(
            &of::LISTEN,
            flags.as_deref(),
            &mut self.listen,
            parse,
        )?;
        layers.parsed(&of::ADMIN, &args.admin, &mut self.admin)?;
        layers.parsed(&of::HEALTH, &args.health, &mut self.health)?;
        layers.parsed(&of::HTTP, &args.http, &mut self.http)?;
        layers.switch(&of::INSECURE, &args.insecure, &mut self.insecure)
    }

    fn load_engine(&mut self, args: &ServeArgs, layers: &mut Layers<'_>) -> Result<(), ConfigError> {
        layers.number(&of::MEMORY, &args.memory, &mut self.memory_bytes)?;
        let mut shards = 0;
        layers.number(&of::SHARDS, &args.shards, &mut shards)?;
        self.shards = (shards > 0).then_some(shards);
        let mut policy = self.policy.to_string();
        layers.word(&of::POLICY, &args.policy, &mut policy)?;
        self.policy = policy.parse().map_err(|_: UnknownPolicy| {
            let place = layers.said(&of::POLICY, &policy).place;
            ConfigError::Policy { place, source: UnknownPolicy { name: Quote::of(&*shown(&policy)) } }
        })?;
        layers.refuse(&of::ORIGIN, &args.origin)
    }

    fn load_persistence(&mut self, args: &ServeArgs, layers: &mut Layers<'_>) -> Result<(), ConfigError> {
        let mut mode = self.persistence.as_str().to_owned();
        layers.word(&of::PERSISTENCE, &args.persistence, &mut mode)?;
        self.persistence = Persistence::of(&mode).expect("the setting's choices are the modes' words");
        let mut method = self.recovery.to_string();
        layers.word(&of::RECOVERY, &args.recovery, &mut method)?;
        self.recovery = method.parse().map_err(|_| {
            let instead = "give snapshot+journal, snapshot, journal, lazy or empty".to_owned();
            let said = layers.said(&of::RECOVERY, &method);
            ConfigError::NotServed { said, why: "it loads missing keys from nowhere", instead }
        })?;
        let mut backend = self.backend.to_string();
        layers.word(&of::BACKEND, &args.backend, &mut backend)?;
        self.backend = backend.parse().expect("the setting's choices are the backends' words");
        layers.number(&of::FLUSH_INTERVAL, &args.flush_interval, &mut self.flush_interval_ms)?;
        layers.number(&of::SNAPSHOT_INTERVAL, &args.snapshot_interval, &mut self.snapshot_interval_ms)?;
        layers.number(&of::DISK_LIMIT, &args.disk_limit, &mut self.disk_limit_bytes)?;
        let mut durability = self.durability.as_str().to_owned();
        layers.word(&of::DURABILITY, &args.durability, &mut durability)?;
        if durability == "flushed" {
            self.durability = Durability::Flushed;
        }
        self.check_persistence(layers)?;
        let mut directory = String::new();
        layers.word(&of::DATA_DIR, &args.data_dir, &mut directory)?;
        if !directory.is_empty() {
            self.data_dir = directory.into();
        }
        Ok(())
    }

    /// What needs a journal contradicts a mode without one.
    fn check_persistence(&self, layers: &Layers<'_>) -> Result<(), ConfigError> {
        let contradicts = |said, why: &str| {
            let other = Box::new(layers.said(&of::PERSISTENCE, self.persistence.as_str()));
            Err(ConfigError::Contradiction { one: Box::new(said), other, why: why.to_owned() })
        };
        let durability = || layers.said(&of::DURABILITY, self.durability.as_str());
        match (self.persistence, self.durability, self.recovery) {
            (Persistence::None, Durability::Flushed, _) => contradicts(
                durability(),
                "nothing is kept on disk that could be flushed to it; leave --durability out or give buffered",
            ),
            (Persistence::Snapshot, Durability::Flushed, _) => contradicts(
                durability(),
                "what is written between two snapshots is not on disk; leave --durability out or give \
                 buffered, or keep a journal with --persistence journal+snapshot",
            ),
            (Persistence::Snapshot, _, Method::Journal) => contradicts(
                layers.said(&of::RECOVERY, self.recovery.as_str()),
                "there is no journal to recover from; give snapshot",
            ),
            (Persistence::Snapshot, _, Method::Lazy) => contradicts(
                layers.said(&of::RECOVERY, self.recovery.as_str()),
                "what is read late is told apart by the journal, and there is none; give snapshot",
            ),
            _ => Ok(()),
        }
    }

    fn load_node(&mut self, args: &ServeArgs, layers: &mut Layers<'_>) -> Result<(), ConfigError> {
        let some_word = |text: &str| of::NODE_ID.word(text).map(|word| Some(word.to_owned()));
        layers.set(&of::NODE_ID, args.node_id.as_deref(), &mut self.node_id, some_word)?;
        layers.set(&of::ADVERTISE, args.advertise.as_deref(), &mut self.advertise, reachable)?;
        layers.number(&of::WEIGHT, &args.weight, &mut self.weight)?;
        layers.word(&of::ZONE, &args.zone, &mut self.zone)?;
        layers.refuse(&of::MEMBERS, &args.members)?;
        layers.refuse(&of::RING_POINTS, &args.ring_points)?;
        layers.refuse(&of::ABSENCE_AFTER, &args.absence_after)?;
        layers.refuse(&of::RESTART_GRACE, &args.restart_grace)?;
        layers.refuse(&of::GUEST_TTL, &args.guest_ttl)?;
        layers.refuse(&of::CLUSTER_KEY, &args.cluster_key)
    }

    fn load_life(&mut self, args: &ServeArgs, layers: &mut Layers<'_>) -> Result<(), ConfigError> {
        layers.switch(&of::STANDBY, &args.standby, &mut self.standby)?;
        layers.number(&of::TIMEOUT, &args.timeout, &mut self.timeout_ms)?;
        layers.number(&of::LAME_DUCK, &args.lame_duck, &mut self.lame_duck_ms)?;
        layers.number(&of::DRAIN_DEADLINE, &args.drain_deadline, &mut self.drain_deadline_ms)?;
        layers.number(&of::FIRST_BYTE_TIMEOUT, &args.first_byte_timeout, &mut self.first_byte_timeout_ms)?;
        layers.number(&of::STALL_TIMEOUT, &args.stall_timeout, &mut self.stall_timeout_ms)?;
        layers.number(&of::THREADS, &args.threads, &mut self.threads)
    }

    fn load_limits(&mut self, args: &ServeArgs, layers: &mut Layers<'_>) -> Result<(), ConfigError> {
        layers.number(&of::MAX_KEY, &args.max_key, &mut self.max_key_bytes)?;
        layers.number(&of::MAX_VALUE, &args.max_value, &mut self.max_value_bytes)?;
        layers.number(&of::MAX_MESSAGE_IN, &args.max_message_in, &mut self.max_message_in_bytes)?;
        layers.number(&of::MAX_MESSAGE_OUT, &args.max_message_out, &mut self.max_message_out_bytes)?;
        let backlog = &mut self.max_response_backlog_bytes;
        *backlog = MemoryPlan::of(self.memory_bytes).answer_bytes_for(self.max_message_out_bytes);
        layers.number(&of::MAX_RESPONSE_BACKLOG, &args.max_response_backlog, backlog)?;
        layers.number(&of::MAX_BATCH, &args.max_batch, &mut self.max_batch)?;
        layers.number(&of::MAX_CONTENT_TYPE, &args.max_content_type, &mut self.max_content_type_bytes)?;
        layers.number(&of::MAX_TAGS, &args.max_tags, &mut self.max_tags)?;
        layers.number(&of::MAX_TAG, &args.max_tag, &mut self.max_tag_bytes)?;
        layers.number(&of::MAX_TTL, &args.max_ttl, &mut self.max_ttl_ms)?;
        layers.number(&of::MAX_CONNECTIONS, &args.max_connections, &mut self.max_connections)?;
        layers.number(&of::MAX_IN_FLIGHT, &args.max_in_flight, &mut self.max_in_flight)?;
        layers.number(&of::MAX_NAMESPACES, &args.max_namespaces, &mut self.max_namespaces)?;
        layers.number(&of::MAX_STREAMS, &args.max_streams, &mut self.max_streams)
    }

    fn load_telemetry(&mut self, args: &ServeArgs, layers: &mut Layers<'_>) -> Result<(), ConfigError> {
        layers.number(&of::STATS_INTERVAL, &args.stats_interval, &mut self.stats_interval_ms)?;
        layers.number(&of::SLOW_OP, &args.slow_op, &mut self.slow_op_ms)?;
        let mut format = self.log_format.as_str().to_owned();
        layers.word(&of::LOG_FORMAT, &args.log_format, &mut format)?;
        self.log_format = if format == "json" { LogFormat::Json } else { LogFormat::Text };
        layers.word(&of::LOG, &args.log, &mut self.log)?;
        layers.set(&of::OTLP, args.otlp.as_deref(), &mut self.otlp, collector)?;
        layers.set(
            &of::TRACE_SAMPLE,
            args.trace_sample.as_deref(),
            &mut self.trace_sample,
            Setting::ratio,
        )?;
        match layers.given(&of::TRACE_SAMPLE) {
            Some(said) if self.trace_sample > 0.0 && self.otlp.is_none() => Err(ConfigError::Needs {
                said: said.clone(),
                needed: "--otlp URL",
                why: "without a collector the traces go nowhere",
            }),
            _ => Ok(()),
        }
    }

    fn check_listeners(&self, layers: &Layers<'_>) -> Result<(), ConfigError> {
        let said = |setting: &Setting, url: &dyn ToString| {
            let text = url.to_string();
            Said { text: text.as_str().into(), ..layers.said(setting, text) }
        };
        let data = self.listen.iter().map(|url| (of::LISTEN, url));
        let others = [(of::ADMIN, &self.admin), (of::HEALTH, &self.health)];
        let http = Endpoint::Tcp(self.http.clone());
        let mut taken: Vec<(&Endpoint, Said)> = Vec::new();
        for (setting, url) in data.chain(others) {
            let said = said(&setting, url);
            if let Endpoint::Udp(_) = url {
                let why = "it listens on TCP and on Unix sockets";
                let instead = "give a tcp:// or a unix:// URL".to_owned();
                return Err(ConfigError::NotServed { said, why, instead });
            }
            if !self.insecure && setting != of::HEALTH && !url.is_local() {
                return Err(ConfigError::Exposed { said });
            }
            taken.push((url, said));
        }
        taken.push((&http, said(&of::HTTP, &self.http)));
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
        if self.persistence != Persistence::None {
            return Vec::new();
        }
        let disk = layers
            .given(&of::DATA_DIR)
            .map(|said| format!("{said} is not used: persistence is none, so nothing is kept on disk"));
        disk.into_iter().collect()
    }
}

const PORT_0: &str = "has port 0, at which nobody can be reached";

/// A URL that others can connect to.
fn reachable(text: &str) -> Result<Option<Endpoint>, String> {
    match text.parse::<Endpoint>().map_err(|error| error.to_string())? {
        Endpoint::Tcp(address) if address.port == 0 => Err(PORT_0.to_owned()),
        Endpoint::Tcp(address) if address.is_unspecified() => {
            Err("stands for every address of a machine, at which nobody can be reached from another"
                .to_owned())
        }
        Endpoint::Tcp(address) => Ok(Some(Endpoint::Tcp(address))),
        Endpoint::Unix(_) => Err("is a Unix socket, which nobody can reach from another machine".to_owned()),
        Endpoint::Udp(_) => Err("is no tcp:// URL, and this build serves no UDP yet".to_owned()),
    }
}

/// A collector's URL. There is no TLS in this build, so https would go out in the clear or not at all.
fn collector(text: &str) -> Result<Option<Redacted>, String> {
    let uri = text.parse::<http::Uri>().ok();
    let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
    let authority = uri.as_ref().and_then(http::Uri::authority);
    match (scheme, authority) {
        (Some("https"), _) => Err("asks for TLS, which this build does not serve yet".to_owned()),
        (Some("http"), Some(authority)) => match port_of(authority.as_str()) {
            Ok(Some(0)) => Err(PORT_0.to_owned()),
            Ok(_) => Ok(Some(text.into())),
            Err(error) => Err(error.to_string()),
        },
        _ => Err("is no http:// URL".to_owned()),
    }
}
