//! One caller's stream of operations: which key, get or set, how large a value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::distr::{Distribution as _, Uniform};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::Zipf;

use super::plan::Plan;
use super::wire;
use crate::cli::exit::CliError;
use crate::cli::parse::Distribution;
use crate::client::wire_durability;

/// What a call, or a command of a Pipeline, does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Set,
}

/// How many keys have been taken in sequence, over all callers.
#[derive(Debug, Default)]
pub(super) struct Sequence(AtomicU64);

/// Which keys were set, by their numbers: what is to be deleted at the end.
#[derive(Debug)]
pub(super) struct Written(Vec<AtomicU64>);

impl Written {
    /// Room for the numbers below `keys`; an eighth of a byte each.
    pub(super) fn new(keys: u64) -> Self {
        let words = usize::try_from(keys.div_ceil(64)).unwrap_or(usize::MAX);
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    fn add(&self, number: u64) {
        let bit = 1 << (number % 64);
        let Some(word) = usize::try_from(number / 64).ok().and_then(|word| self.0.get(word)) else { return };
        // Most keys are set again and again, and reading keeps the line with every thread.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// The numbers that were added, in order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        let words = (0_u64..).zip(&self.0);
        words.flat_map(|(index, word)| {
            let word = word.load(Ordering::Relaxed);
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index * 64 + bit)
        })
    }

    /// How many they are.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }
}

/// One caller's operations.
#[derive(Debug)]
pub(super) struct Load {
    plan: Arc<Plan>,
    sequence: Arc<Sequence>,
    /// `None`: nothing is to be deleted.
    written: Option<Arc<Written>>,
    random: SmallRng,
    draw: Draw,
    buffer: BytesMut,
    item: BytesMut,
}

#[derive(Debug)]
enum Draw {
    Uniform(Uniform<u64>),
    Zipf(Zipf<f64>),
    Sequential,
}

impl Load {
    pub(super) fn new(
        plan: Arc<Plan>,
        sequence: Arc<Sequence>,
        written: Option<Arc<Written>>,
        seed: u64,
    ) -> Result<Self, CliError> {
        let wrong = |error: &dyn std::fmt::Display| CliError::Usage(format!("--distribution: {error}"));
        let draw = match plan.distribution {
            Distribution::Uniform => Draw::Uniform(Uniform::new(0, plan.keys).map_err(|e| wrong(&e))?),
            Distribution::Zipf(exponent) => {
                Draw::Zipf(Zipf::new(plan.keys as f64, exponent).map_err(|e| wrong(&e))?)
            }
            Distribution::Sequential => Draw::Sequential,
        };
        let random = SmallRng::seed_from_u64(seed);
        Ok(Self { plan, sequence, written, random, draw, buffer: BytesMut::new(), item: BytesMut::new() })
    }

    /// What the next call does.
    pub(super) fn operation(&mut self) -> Operation {
        let ratio = self.plan.ratio;
        if ratio.sets == 0
            || (ratio.gets > 0 && self.random.random_range(0..ratio.gets + ratio.sets) < ratio.gets)
        {
            Operation::Get
        } else {
            Operation::Set
        }
    }

    /// A pause and up to half of it more, so that callers that were refused together do not come again together.
    pub(super) fn spread(&mut self, pause: Duration) -> Duration {
        pause + pause.mul_f64(self.random.random_range(0.0..0.5))
    }

    /// A GetRequest or SetRequest of one key.
    pub(super) fn single(&mut self, operation: Operation) -> Bytes {
        let first = self.first(1);
        let number = self.number(first, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        wire::put_namespace(&mut buffer, &self.plan.namespace);
        self.put_item(&mut buffer, operation, number);
        self.put_durability(&mut buffer, wire::DURABILITY, operation);
        self.finish(buffer)
    }

    /// A BatchGetRequest or BatchSetRequest of `items` keys.
    pub(super) fn batch(&mut self, operation: Operation, items: usize) -> Bytes {
        let first = self.first(items);
        let mut buffer = std::mem::take(&mut self.buffer);
        wire::put_namespace(&mut buffer, &self.plan.namespace);
        for index in 0..items {
            let number = self.number(first, index);
            match operation {
                // In BatchGetRequest a key is field 2, as in GetRequest.
                Operation::Get => self.put_item(&mut buffer, operation, number),
                Operation::Set => self.put_nested(&mut buffer, wire::BATCH_SET_ITEMS, operation, number),
            }
        }
        self.put_durability(&mut buffer, wire::BATCH_SET_DURABILITY, operation);
        self.finish(buffer)
    }

    /// A PipelineRequest of `items` commands, whose ids count up from `first_id`.
    pub(super) fn pipeline(&mut self, first_id: u64, items: usize) -> Bytes {
        let first = self.first(items);
        let mut buffer = std::mem::take(&mut self.buffer);
        for index in 0..items {
            let operation = self.operation();
            let number = self.number(first, index);
            let mut item = std::mem::take(&mut self.item);
            item.clear();
            wire::put_namespace(&mut item, &self.plan.namespace);
            self.put_item(&mut item, operation, number);
            self.put_durability(&mut item, wire::DURABILITY, operation);
            wire::put_command(&mut buffer, first_id + index as u64, operation, &item);
            self.item = item;
        }
        self.finish(buffer)
    }

    /// The key of a call of the client library, and of a set the value.
    pub(super) fn entry(&mut self, operation: Operation) -> (Bytes, Bytes) {
        let first = self.first(1);
        let number = self.number(first, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        self.plan.put_key(&mut buffer, number);
        let key = self.finish(buffer);
        let value = match operation {
            Operation::Get => Bytes::new(),
            Operation::Set => {
                let bytes = self.value_bytes(number);
                self.plan.value.slice(..bytes)
            }
        };
        (key, value)
    }

    /// How long the value is that the key of this number is set to, which is noted.
    fn value_bytes(&mut self, number: u64) -> usize {
        if let Some(written) = &self.written {
            written.add(number);
        }
        let range = self.plan.value_bytes;
        match range.max - range.min {
            0 => range.max,
            _ => self.random.random_range(range.min..=range.max),
        }
    }

    fn put_item(&mut self, buffer: &mut BytesMut, operation: Operation, number: u64) {
        wire::put_head(buffer, wire::KEY, self.plan.key_bytes());
        self.plan.put_key(buffer, number);
        if operation == Operation::Set {
            let bytes = self.value_bytes(number);
            wire::put_bytes(buffer, wire::VALUE, &self.plan.value[..bytes]);
            if let Some(ttl_ms) = self.plan.ttl_ms {
                wire::put_number(buffer, wire::TTL_MS, ttl_ms);
            }
        }
    }

    fn put_durability(&self, buffer: &mut BytesMut, field: u32, operation: Operation) {
        if let (Operation::Set, Some(durability)) = (operation, self.plan.durability) {
            wire::put_number(buffer, field, u64::from(wire_durability(Some(durability)).unsigned_abs()));
        }
    }

    fn put_nested(&mut self, buffer: &mut BytesMut, field: u32, operation: Operation, number: u64) {
        let mut item = std::mem::take(&mut self.item);
        item.clear();
        self.put_item(&mut item, operation, number);
        wire::put_bytes(buffer, field, &item);
        self.item = item;
    }

    /// Where a run of keys in sequence begins. Of no meaning to the other distributions.
    fn first(&self, items: usize) -> u64 {
        match self.draw {
            Draw::Sequential => self.sequence.0.fetch_add(items as u64, Ordering::Relaxed),
            _ => 0,
        }
    }

    fn number(&mut self, first: u64, index: usize) -> u64 {
        match &self.draw {
            Draw::Uniform(uniform) => uniform.sample(&mut self.random),
            Draw::Zipf(zipf) => (zipf.sample(&mut self.random) as u64).clamp(1, self.plan.keys) - 1,
            Draw::Sequential => (first + index as u64) % self.plan.keys,
        }
    }

    /// Hands the message out and keeps the rest of its allocation for the next.
    fn finish(&mut self, mut buffer: BytesMut) -> Bytes {
        const ALLOCATION: usize = 64 << 10;
        let message = buffer.split().freeze();
        if buffer.capacity() < message.len() {
            buffer = BytesMut::with_capacity(ALLOCATION.max(message.len() * 4));
        }
        self.buffer = buffer;
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_known_by_number() {
        let written = Written::new(130);
        for number in [0, 63, 64, 129, 64, 1_000] {
            written.add(number);
        }
        assert_eq!(written.numbers().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(written.count(), 4);
    }
}
