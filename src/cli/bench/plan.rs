//! What is to be run, checked as a whole: flags that contradict each other are found here.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Arrivals, BenchArgs};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::parse::{Distribution, Ratio, SizeRange};
use crate::client::{ClientBuilder, SetExpiration, SetOptions};
use crate::endpoint::Endpoint;
use crate::entry::{Durability, KEY_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Callers on each connection, where nothing else is asked for.
const CALLERS: usize = 16;

/// How calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Get and Set, one key each.
    Unary,
    /// BatchGet and BatchSet.
    Batch,
    /// Pipeline, with `depth` messages in flight on a stream.
    Pipeline { depth: usize },
    /// Get and Set of the client library, which sends together what is asked for at the same time.
    Client,
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopAfter {
    /// After this number of keys.
    Keys(u64),
    /// After this time.
    Elapsed(Duration),
}

/// When calls start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadPattern {
    /// When the last one of the caller is answered.
    Closed,
    /// At `keys_per_s` keys a second, however fast they are answered.
    Open { keys_per_s: u64, arrivals: Arrivals },
}

/// A benchmark that has been checked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) builder: ClientBuilder,
    /// The library as it is measured.
    pub(super) service: ClientBuilder,
    /// Where the node is.
    pub(super) endpoint: Endpoint,
    pub(super) namespace: String,
    pub(super) timeout: Duration,
    pub(super) threads: usize,
    pub(super) connections: usize,
    /// On each connection; of the client library in all.
    pub(super) callers: usize,
    pub(super) mode: Mode,
    /// Keys to a call or message.
    pub(super) items: usize,
    pub(super) keys: u64,
    pub(super) distribution: Distribution,
    pub(super) ratio: Ratio,
    pub(super) value_bytes: SizeRange,
    /// Random bytes, of which a value is the beginning.
    pub(super) value: Bytes,
    pub(super) ttl_ms: Option<u64>,
    pub(super) durability: Option<Durability>,
    pub(super) until: StopAfter,
    pub(super) warmup: Duration,
    pub(super) pace: LoadPattern,
    /// A key whose number is 0: the others differ in their last digits.
    key_zero: Bytes,
}

impl Plan {
    pub(super) fn new(global: &Global, args: BenchArgs) -> Result<Self, CliError> {
        let key_zero = key_zero(&args)?;
        let connections = args.connections.get();
        let (mode, items, callers) = match (args.pipeline, args.batch) {
            (Some(items), _) => (Mode::Pipeline { depth: args.depth.get() }, items, 1),
            (None, Some(items)) => (Mode::Batch, items, CALLERS),
            (None, None) if args.client => (Mode::Client, 1, CALLERS.saturating_mul(connections)),
            (None, None) => (Mode::Unary, 1, CALLERS),
        };
        let callers = args.callers.map_or(callers, NonZeroUsize::get);
        // Each thread has a connection, and of the library's callers one.
        let threads_max = if mode == Mode::Client { connections.min(callers) } else { connections };
        let plan = Self {
            builder: global.builder(),
            service: global.service_builder(),
            endpoint: global.nodes.first().expect("a list has one at least").endpoint().clone(),
            namespace: global.namespace.clone(),
            timeout: global.timeout,
            threads: args.threads.get().min(threads_max),
            connections,
            callers,
            mode,
            items,
            keys: args.keys,
            distribution: args.distribution,
            ratio: args.ratio,
            value_bytes: args.value_size,
            value: random_bytes(args.value_size.max),
            ttl_ms: args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            durability: args.waits_for.durability,
            until: match (args.requests, args.duration) {
                (Some(keys), _) => StopAfter::Keys(keys),
                (None, Some(duration)) => StopAfter::Elapsed(duration),
                (None, None) => StopAfter::Elapsed(Duration::from_secs(10)),
            },
            warmup: args.warmup,
            pace: match args.rate {
                None => LoadPattern::Closed,
                Some(keys_per_s) => LoadPattern::Open { keys_per_s, arrivals: args.arrivals },
            },
            key_zero,
        };
        plan.check_message()?;
        Ok(plan)
    }

    /// Appends the key of a number below `keys`, formatted to its fixed width.
    pub(super) fn put_key(&self, buffer: &mut BytesMut, number: u64) {
        let start = buffer.len();
        buffer.put_slice(&self.key_zero);
        let mut rest = number;
        for digit in buffer[start..].iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    pub(super) fn key(&self, number: u64) -> Bytes {
        let mut buffer = BytesMut::with_capacity(self.key_bytes());
        self.put_key(&mut buffer, number);
        buffer.freeze()
    }

    pub(super) fn key_bytes(&self) -> usize {
        self.key_zero.len()
    }

    /// What is said of what is set.
    pub(super) fn set_options(&self) -> SetOptions {
        SetOptions {
            expiration: self.ttl_ms.map_or(SetExpiration::NamespaceDefault, |ms| {
                SetExpiration::After(Duration::from_millis(ms))
            }),
            durability: self.durability,
            ..SetOptions::default()
        }
    }

    /// What an item takes in a message, at most: key, value and the fields around them.
    pub(super) fn item_bytes_max(&self) -> usize {
        const FIELDS: usize = 64;
        self.key_bytes() + self.value_bytes.max + FIELDS
    }

    /// Both a message of sets and an answer to gets must fit into the longest message that a node can be set to take. Its
    /// own limit may be lower, and it will say so.
    fn check_message(&self) -> Result<(), CliError> {
        let bytes = self.item_bytes_max().saturating_mul(self.items).saturating_add(self.namespace.len());
        if bytes <= MESSAGE_BYTES_MAX {
            return Ok(());
        }
        let fit = MESSAGE_BYTES_MAX / self.item_bytes_max();
        Err(CliError::Usage(format!(
            "{} keys with values of {} B make a message of {bytes} B, and one may have {MESSAGE_BYTES_MAX} B; \
             {fit} keys of that size fit",
            self.items, self.value_bytes.max
        )))
    }
}

fn key_zero(args: &BenchArgs) -> Result<Bytes, CliError> {
    let digits = args.keys.saturating_sub(1).checked_ilog10().unwrap_or(0) as usize + 1;
    let needed = args.key_prefix.len() + digits;
    if args.key_size < needed {
        return Err(CliError::Usage(format!(
            "--key-size {} is too short for {} keys with the prefix {:?}: they need {needed} bytes",
            args.key_size, args.keys, args.key_prefix
        )));
    }
    if args.key_size > KEY_BYTES_MAX {
        return Err(CliError::Usage(format!(
            "--key-size {} is over the longest key, {KEY_BYTES_MAX} bytes",
            args.key_size
        )));
    }
    let mut key = args.key_prefix.clone().into_bytes();
    key.resize(args.key_size, b'0');
    Ok(key.into())
}

fn random_bytes(count: usize) -> Bytes {
    let mut bytes = vec![0; count];
    SmallRng::seed_from_u64(0x001a_4de4).fill_bytes(&mut bytes);
    bytes.into()
}
