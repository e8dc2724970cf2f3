//! Changes of the configuration while the node serves: checked as a whole, then handed to the parts that they concern.
//!
//! What is checked first is all that can fail; what follows cannot, so that all of a change holds or none of it.

use std::sync::Weak;

use super::context::NodeContext;
use super::descriptors;
use super::parts::{bytes, connection_config, limits};
use crate::config::{LoadedConfig, MemoryPlan, ServeConfig, Source, memory};
use crate::entry::ByteSize;
use crate::server::DrainTimes;
use crate::service::{CallError, ConfigUpdate};
use crate::telemetry::log::{self, LogError};

impl NodeContext {
    /// The configuration in force, with what Resize and SetEvictionPolicy made of it.
    pub(super) fn in_force(&self) -> LoadedConfig {
        let mut loaded = LoadedConfig::clone(&self.current.load());
        let (memory, policy) = (ByteSize(self.cache.bytes_limit()), self.cache.policy());
        let resized = std::mem::replace(&mut loaded.config.cache.memory, memory) != memory;
        let exchanged = std::mem::replace(&mut loaded.config.cache.policy, policy) != policy;
        for source in &mut loaded.sources {
            let changed = match source.setting.field {
                "memory_bytes" => resized,
                "policy" => exchanged,
                _ => false,
            };
            if changed {
                source.source = Source::Admin;
            }
        }
        loaded
    }

    /// Changes settings, all or none, one caller at a time.
    pub(super) fn update(&self, update: &ConfigUpdate) -> Result<(), CallError> {
        let _one_at_a_time = self.current.updating.lock();
        let mut loaded = self.in_force();
        let before = loaded.config.clone();
        update.apply(&mut loaded.config)?;
        self.check_memory(update, &before, &loaded.config)?;
        if update.changes("max_connections") {
            self.check_connections(&loaded.config)?;
        }
        if update.changes("log") {
            set_filter(&loaded.config.telemetry.log)?;
        }
        for source in &mut loaded.sources {
            if update.changes(source.setting.field) {
                source.source = Source::Admin;
            }
        }
        let names: Vec<&str> = update.settings().map(|setting| setting.flag).collect();
        let config = loaded.config.clone();
        self.current.store(loaded);
        self.tell(&before, &config);
        tracing::info!(settings = names.join(","), "configuration changed");
        Ok(())
    }

    /// The bounds of Resize, where memory or the longest value is to change.
    fn check_memory(
        &self,
        update: &ConfigUpdate,
        before: &ServeConfig,
        config: &ServeConfig,
    ) -> Result<(), CallError> {
        let longer = config.limits.max_value > before.limits.max_value;
        let field = match (update.changes("memory_bytes"), longer) {
            (true, _) => "memory_bytes",
            (false, true) => "max_value_bytes",
            (false, false) => return Ok(()),
        };
        let asked = config.cache.memory.0;
        // What every shard must be able to hold.
        let min = self.cache.bytes_limit_min_for(config.limits.max_value.0);
        let max = memory::process_bytes().unwrap_or(u64::MAX).max(min);
        if field == "memory_bytes" && !(min..=max).contains(&asked) {
            let why = format!(
                "{field} is {asked}, not between {min}, room for two of the longest values (--max-value) in each shard, \
                 and {max}, what the process may use"
            );
            return Err(CallError::Setting { field: field.to_owned(), why });
        }
        if asked < min {
            let value = config.limits.max_value.0;
            let why = format!(
                "{field} is {value}: the shards could not hold several of that length within memory_bytes {asked}; \
                 that takes {min}"
            );
            return Err(CallError::Setting { field: field.to_owned(), why });
        }
        Ok(())
    }

    /// No more connections than there are descriptors for.
    fn check_connections(&self, config: &ServeConfig) -> Result<(), CallError> {
        let (asked, limit) = (config.limits.max_connections, descriptors::limit());
        let shares = descriptors::shares(config, limit);
        let most = shares.map_or(0, |shares| shares.connections.data);
        let Some(limit) = limit.filter(|_| most < asked as usize) else { return Ok(()) };
        let why = format!(
            "max_connections is {asked}, and the process may have {limit} files open, which leaves {most} for \
             connections: give it a higher limit (prlimit --nofile=N --pid PID; ulimit -n, LimitNOFILE= of systemd, --ulimit \
             nofile of Docker for the next start)"
        );
        Err(CallError::Setting { field: "max_connections".to_owned(), why })
    }

    /// Hands what is in force now to the parts of the node that keep it.
    fn tell(&self, before: &ServeConfig, config: &ServeConfig) {
        self.bounds.set(config);
        self.stats_interval.send_if_modified(|interval| {
            std::mem::replace(interval, config.telemetry.stats_interval) != config.telemetry.stats_interval
        });
        self.slow_ops.set_threshold(config.telemetry.slow_op);
        let (lame_duck, deadline) = (config.timeouts.lame_duck, config.timeouts.drain_deadline);
        self.lifecycle.set_drain_times(DrainTimes { lame_duck, deadline });
        if let Some(server) = self.server.get().and_then(Weak::upgrade) {
            server.set_connection(connection_config(config));
        }
        let plan = MemoryPlan::of(config.cache.memory.0);
        if let Some(disk) = self.cache.disk() {
            disk.journal().set_backlog(bytes(plan.journal_bytes), bytes(plan.waiting_bytes));
        }
        self.cache.set_limits(&limits(config));
        self.cache.set_namespaces_max(config.limits.max_namespaces as usize);
        if config.cache.policy != before.cache.policy {
            self.cache.set_policy(self.cache.default_namespace(), config.cache.policy);
        }
        if config.cache.memory != before.cache.memory {
            self.cache.resize(config.cache.memory.0);
        }
    }
}

fn set_filter(filter: &str) -> Result<(), CallError> {
    log::set_filter(filter).map_err(|error| match error {
        LogError::BadFilter { filter, reason } => CallError::Setting {
            field: "log".to_owned(),
            why: format!("log is {filter:?}, which is no filter ({reason}): give a level, such as info, or a list, such as info,larder=debug"),
        },
        other => CallError::NeedsRestart { why: format!("log: {other}") },
    })
}
