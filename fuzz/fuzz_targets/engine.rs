//! Any operations on the engine, at any times: every invariant holds after each, and what it answers is what a
//! plain map would, but for entries that it had to evict.
#![no_main]

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arbitrary::Arbitrary;
use larder::clock::Now;
use larder::engine::{
    Condition, Drained, Engine, EngineConfig, Expiration, Increment, LogBudget, LogConfig, Op, Outcome,
    PolicyName, Refusal, ScanRange, Scope, Set,
};
use larder::entry::{TTL_MS_MAX, Ttl, Version};
use libfuzzer_sys::fuzz_target;

/// Few keys, so that operations meet; one in four is long.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Key(u8);

impl Key {
    fn bytes(self) -> Vec<u8> {
        if self.0 % 4 == 3 { vec![self.0; 1 + usize::from(self.0) * 16] } else { vec![self.0] }
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Time {
    Never,
    Short(u16),
    Any(u64),
}

impl Time {
    fn ttl(self) -> Ttl {
        match self {
            Self::Never => Ttl::Never,
            Self::Short(ms) => Ttl::Ms(u64::from(ms).max(1)),
            Self::Any(ms) => Ttl::Ms(ms % TTL_MS_MAX + 1),
        }
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Expiry {
    Default,
    In(Time),
    /// From the present on.
    At(i32),
    AtAny(u64),
    Keep,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum If {
    Always,
    Absent,
    Present,
    Current,
    Version(u64),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Value {
    Bytes(u8, u16),
    Number(i64),
}

impl Value {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Bytes(byte, len) => vec![byte; usize::from(len)],
            Self::Number(number) => number.to_string().into_bytes(),
        }
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Step {
    Get(Key, Option<Time>),
    Set { key: Key, value: Value, expiry: Expiry, condition: If, flags: u32, typed: Option<u8>, tags: u8 },
    Delete(Key, bool),
    Increment { key: Key, delta: i64, initial: i64, expiry: Time, request: u8 },
    Touch(Key, Time),
    Wait(u16),
    WaitLong(u64),
    WallClock(u64),
    Advance,
    Policy(u8),
    InvalidatePrefix(u8),
    InvalidateTag(u8),
    InvalidateAll,
    Sweep(u8),
    Scan(u8),
    Resize(u32),
    Clear,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Start {
    bytes_limit: u32,
    shards: u8,
    policy: u8,
    default_ttl: Time,
}

#[derive(Debug, Clone, PartialEq)]
struct Known {
    value: Vec<u8>,
    version: Version,
    /// On the monotonic side.
    expires_at: Option<u64>,
    flags: u32,
    content_type: String,
    tags: Vec<&'static str>,
}

struct Model {
    engine: Engine,
    now: Now,
    known: HashMap<Vec<u8>, Known>,
    default_ttl: Ttl,
    last_version: Version,
    log: LogConfig,
    drained: Drained,
}

const VALUE_BYTES_MAX: u64 = 1 << 16;

const TAGS: [&str; 3] = ["red", "green", "blue"];

fn policy(seed: u8) -> PolicyName {
    PolicyName::ALL[usize::from(seed) % PolicyName::ALL.len()]
}

/// Those whose bits are set.
fn tags(bits: u8) -> Vec<&'static str> {
    (0..TAGS.len()).filter(|bit| bits >> bit & 1 == 1).map(|bit| TAGS[bit]).collect()
}

/// A log without bounds, as only its records are counted.
fn log() -> LogConfig {
    LogConfig {
        encode: |record, into| into.push(u8::from(record.version() == Version::NONE)),
        nudge: Arc::new(|| ()),
        nudge_bytes: usize::MAX,
        kept_bytes: 0,
        budget: Arc::new(LogBudget::new(usize::MAX)),
        step_bytes: usize::MAX,
    }
}

fn bytes_limit(seed: u32) -> u64 {
    (1 << 20) + u64::from(seed) % (3 << 20)
}

impl Model {
    fn new(start: Start) -> Self {
        let now = Now { steady_ms: 0, unix_us: 1_800_000_000_000_000 };
        let config = EngineConfig {
            bytes_limit: bytes_limit(start.bytes_limit),
            shards: Some(u32::from(start.shards % 4) + 1),
            policy: policy(start.policy),
            default_ttl: start.default_ttl.ttl(),
            value_bytes_max: VALUE_BYTES_MAX,
            node_hash: 7,
            ..EngineConfig::default()
        };
        let (engine, log) = (Engine::new(&config, now), log());
        engine.start_log(&log);
        Self {
            engine,
            log,
            drained: Drained::default(),
            now,
            known: HashMap::new(),
            default_ttl: config.default_ttl,
            last_version: Version::NONE,
        }
    }

    /// Does an operation; also how many records the stream of changes has of it.
    fn apply(&mut self, op: &Op<'_>) -> (Outcome, u64) {
        self.logged();
        let outcome = self.engine.apply(self.engine.default_namespace(), op, self.now);
        let changes = self.logged();
        match outcome {
            Outcome::Stored(_) | Outcome::Deleted(_) | Outcome::Touched(true) => assert_eq!(changes, 1),
            Outcome::NotStored(_) | Outcome::NotDeleted(_) | Outcome::Touched(false) => {
                assert_eq!(changes, 0)
            }
            Outcome::Refused(_) | Outcome::Miss(_) => assert_eq!(changes, 0, "{outcome:?}"),
            Outcome::Hit(_) | Outcome::Counted { .. } | Outcome::Expired => assert!(changes <= 1),
        }
        (outcome, changes)
    }

    /// How many changes there were since this was called last.
    fn logged(&mut self) -> u64 {
        self.engine.drain_log(&mut self.drained);
        let records = self.drained.records();
        self.drained.clear(&self.log);
        records
    }

    fn ends(&self, ttl: Ttl) -> Option<u64> {
        match ttl {
            Ttl::Never => None,
            Ttl::Ms(ms) => Some(self.now.steady_ms + ms),
        }
    }

    /// What has not expired. What the engine has evicted is forgotten first, as a Get tells.
    fn current(&mut self, key: &[u8]) -> Option<Known> {
        let live = |known: &Known| known.expires_at.is_none_or(|at| at > self.now.steady_ms);
        let believed = self.known.get(key).filter(|known| live(known)).cloned();
        let namespace = self.engine.default_namespace();
        let found = self.engine.read(namespace, key, None, self.now, |entry| entry.to_hit());
        match (found, believed) {
            (Ok(hit), Some(known)) => {
                assert_eq!(hit.value, known.value);
                assert_eq!((hit.version, hit.flags), (known.version, known.flags));
                assert_eq!(hit.content_type, known.content_type);
                let remaining = known.expires_at.map_or(0, |at| at - self.now.steady_ms);
                assert_eq!(hit.remaining_ttl_ms, remaining);
                Some(known)
            }
            (Ok(hit), None) => panic!("nothing should be there, and there is {hit:?}"),
            (Err(_), believed) => {
                let evicted = self.engine.stats().evictions;
                assert!(believed.is_none() || evicted > 0, "an entry is gone and none was evicted");
                self.known.remove(key);
                None
            }
        }
    }

    fn stored(&mut self, version: Version) {
        assert!(version > self.last_version, "versions only grow");
        self.last_version = version;
    }

    fn set(&mut self, set: &Set<'_>) {
        let current = self.current(set.key);
        let there = current.as_ref().map_or(Version::NONE, |known| known.version);
        let holds = match set.condition {
            Condition::Always => true,
            Condition::IfAbsent => current.is_none(),
            Condition::IfPresent => current.is_some(),
            Condition::IfVersion(version) => current.is_some() && there == version,
        };
        let unix_ms = self.now.unix_ms();
        match self.apply(&Op::Set(*set)).0 {
            Outcome::Expired => {
                assert!(matches!(set.expiration, Expiration::AtUnixMs(at) if at <= unix_ms) && holds);
                self.known.remove(set.key);
            }
            Outcome::Stored(version) => {
                assert!(holds, "the condition does not hold");
                self.stored(version);
                let expires_at = match set.expiration {
                    Expiration::Default => self.ends(self.default_ttl),
                    Expiration::In(ttl) => self.ends(ttl),
                    Expiration::AtUnixMs(at) => Some(self.now.steady_ms + (at - unix_ms)),
                    Expiration::Keep => match current {
                        Some(known) => known.expires_at,
                        None => self.ends(self.default_ttl),
                    },
                };
                let known = Known {
                    value: set.value.to_vec(),
                    version,
                    expires_at,
                    flags: set.flags,
                    content_type: set.content_type.to_owned(),
                    tags: TAGS.into_iter().filter(|tag| set.tags.contains(tag)).collect(),
                };
                self.known.insert(set.key.to_vec(), known);
            }
            Outcome::NotStored(version) => assert_eq!((version, holds), (there, false)),
            Outcome::Refused(Refusal::TooLarge { needs, limit }) => assert!(needs > limit && holds),
            other => panic!("{other:?}"),
        }
    }

    fn increment(&mut self, increment: &Increment<'_>) {
        let current = self.current(increment.key);
        let number = match &current {
            None => Some(increment.initial),
            Some(known) => std::str::from_utf8(&known.value).ok().and_then(|text| text.parse::<i64>().ok()),
        };
        match self.apply(&Op::Increment(*increment)) {
            // Done before under this request id: nothing changes.
            (Outcome::Counted { .. }, 0) => {
                assert!(!increment.request_id.is_empty());
            }
            (Outcome::Counted { value, version }, _) => {
                let sum = number.map(|number| i128::from(number) + increment.delta);
                assert_eq!(Some(i128::from(value)), sum);
                self.stored(version);
                let made = match increment.expiration {
                    Expiration::In(ttl) => self.ends(ttl),
                    _ => self.ends(self.default_ttl),
                };
                let (expires_at, flags, content_type, tags) = current
                    .map_or((made, 0, String::new(), Vec::new()), |known| {
                        (known.expires_at, known.flags, known.content_type, known.tags)
                    });
                let value = value.to_string().into_bytes();
                let known = Known { value, version, expires_at, flags, content_type, tags };
                self.known.insert(increment.key.to_vec(), known);
            }
            // What parses is not all that counts as a number: "+1" and "007" do not.
            (Outcome::Refused(Refusal::NotAnInteger), _) => {
                let current = current.expect("a new counter is an integer");
                assert_ne!(number.map(|number| number.to_string().into_bytes()), Some(current.value));
            }
            (Outcome::Refused(Refusal::CounterOverflow { current }), _) => {
                assert_eq!(number, Some(current));
                assert!(i64::try_from(i128::from(current) + increment.delta).is_err());
            }
            (Outcome::Refused(Refusal::TooLarge { .. }), _) => {}
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, key: &[u8], touch: Option<Ttl>) {
        let current = self.current(key);
        let (outcome, _) = self.apply(&Op::Get { key, touch });
        assert_eq!(matches!(outcome, Outcome::Hit(_)), current.is_some(), "{outcome:?}");
        if let (Some(ttl), Some(known)) = (touch, current) {
            let expires_at = self.ends(ttl);
            self.known.insert(key.to_vec(), Known { expires_at, ..known });
            self.current(key);
        }
    }

    fn delete(&mut self, key: &[u8], wrong_version: bool) {
        let current = self.current(key);
        let version = current.as_ref().map_or(Version::NONE, |known| known.version);
        let if_version = wrong_version.then_some(Version(version.0 ^ 1 << 20));
        let expected = match (&current, if_version) {
            (None, _) => Outcome::Deleted(false),
            (Some(_), Some(_)) => Outcome::NotDeleted(version),
            (Some(_), None) => Outcome::Deleted(true),
        };
        assert_eq!(self.apply(&Op::Delete { key, if_version }).0, expected);
        if expected == Outcome::Deleted(true) {
            self.known.remove(key);
        }
    }

    fn touch(&mut self, key: &[u8], ttl: Ttl) {
        let current = self.current(key);
        assert_eq!(self.apply(&Op::Touch { key, ttl }).0, Outcome::Touched(current.is_some()));
        if let Some(known) = current {
            let expires_at = self.ends(ttl);
            self.known.insert(key.to_vec(), Known { expires_at, ..known });
        }
    }

    /// Nothing is found that should not be there, and nothing twice.
    /// Whether it was done: it may be refused while many wait to be swept.
    fn invalidate(&self, scope: Scope<'_>) -> bool {
        self.engine.invalidate(self.engine.default_namespace(), scope, self.now).is_ok()
    }

    fn scan(&mut self, page: usize) {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let range = ScanRange { prefix: b"", after, entries_max: page };
            let mut room = page;
            after = self.engine.scan(self.engine.default_namespace(), range, self.now, |key, entry| {
                if room == 0 {
                    return ControlFlow::Break(());
                }
                room -= 1;
                found.push((key.to_vec(), entry.version));
                ControlFlow::Continue(())
            });
            if after.is_none() {
                break;
            }
        }
        let all = found.len();
        found.sort();
        found.dedup_by(|one, other| one.0 == other.0);
        assert_eq!(found.len(), all, "an entry is found twice");
        for (key, version) in found {
            assert_eq!(self.current(&key).map(|known| known.version), Some(version));
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Get(key, touch) => self.get(&key.bytes(), touch.map(Time::ttl)),
            Step::Set { key, value, expiry, condition, flags, typed, tags: bits } => {
                let (key, value) = (key.bytes(), value.bytes());
                let content_type = "x".repeat(typed.unwrap_or_default().into());
                let expiration = match expiry {
                    Expiry::Default => Expiration::Default,
                    Expiry::In(time) => Expiration::In(time.ttl()),
                    Expiry::At(ms) => {
                        Expiration::AtUnixMs(self.now.unix_ms().saturating_add_signed(ms.into()))
                    }
                    // As far off as the layer above lets through.
                    Expiry::AtAny(at) => Expiration::AtUnixMs(at.min(self.now.unix_ms() + TTL_MS_MAX)),
                    Expiry::Keep => Expiration::Keep,
                };
                let condition = match condition {
                    If::Always => Condition::Always,
                    If::Absent => Condition::IfAbsent,
                    If::Present => Condition::IfPresent,
                    If::Current => {
                        Condition::IfVersion(self.current(&key).map_or(Version(1), |known| known.version))
                    }
                    If::Version(version) => Condition::IfVersion(Version(version.max(1))),
                };
                self.set(&Set {
                    key: &key,
                    value: &value,
                    expiration,
                    condition,
                    flags,
                    content_type: &content_type,
                    tags: &tags(bits),
                });
            }
            Step::Delete(key, wrong_version) => self.delete(&key.bytes(), wrong_version),
            Step::Increment { key, delta, initial, expiry, request } => {
                let request_id = if request % 2 == 0 { String::new() } else { request.to_string() };
                let expiration = match expiry.ttl() {
                    Ttl::Never => Expiration::Default,
                    ttl => Expiration::In(ttl),
                };
                self.increment(&Increment {
                    key: &key.bytes(),
                    delta: if request % 4 > 1 { -i128::from(delta) } else { delta.into() },
                    initial,
                    expiration,
                    request_id: &request_id,
                });
            }
            Step::Touch(key, time) => self.touch(&key.bytes(), time.ttl()),
            Step::Wait(ms) => self.now.steady_ms += u64::from(ms),
            Step::WaitLong(ms) => self.now.steady_ms += ms % TTL_MS_MAX,
            // Up to the year 2500: set by hand, or wrong.
            Step::WallClock(us) => self.now.unix_us = us % 16_725_225_600_000_000,
            Step::Advance => {
                self.engine.advance(self.now);
            }
            Step::Policy(seed) => {
                self.engine.set_policy(self.engine.default_namespace(), policy(seed));
            }
            Step::InvalidatePrefix(byte) => {
                if self.invalidate(Scope::Prefix(&[byte])) {
                    self.known.retain(|key, _| key[0] != byte);
                }
            }
            Step::InvalidateTag(seed) => {
                let tag = TAGS[usize::from(seed) % TAGS.len()];
                if self.invalidate(Scope::Tag(tag)) {
                    self.known.retain(|_, known| !known.tags.contains(&tag));
                }
            }
            Step::InvalidateAll => {
                assert!(self.invalidate(Scope::All), "all is never refused");
                self.known.clear();
            }
            Step::Sweep(entries) => {
                self.engine.sweep(entries.into());
            }
            Step::Scan(page) => self.scan(usize::from(page) + 1),
            Step::Resize(seed) => {
                self.engine.resize(bytes_limit(seed), self.now);
                let stats = self.engine.stats();
                assert!(stats.bytes_used <= stats.bytes_limit, "{stats:?}");
            }
            Step::Clear => {
                self.engine.clear(self.engine.default_namespace(), self.now);
                self.known.clear();
                assert_eq!(self.engine.stats().entries, 0);
            }
        }
    }
}

const STEPS_MAX: usize = 400;

fuzz_target!(|input: (Start, Vec<Step>)| {
    let (start, steps) = input;
    let mut model = Model::new(start);
    for step in steps.into_iter().take(STEPS_MAX) {
        model.take(step);
        model.engine.validate();
    }
    let keys: Vec<Vec<u8>> = model.known.keys().cloned().collect();
    for key in keys {
        model.current(&key);
    }
});
