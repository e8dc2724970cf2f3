//! The stream of changes as a test reads it: each record as a line, with nothing lost, added or out of order.

use super::*;
use crate::engine::log::{Put, Record};
use crate::entry::Expiry;

/// A reader of an engine's log.
pub(super) struct Changes {
    config: LogConfig,
    drained: Drained,
    /// What each shard had logged when it was read last.
    events: Vec<u64>,
}

/// The lengths of a line and of the large value that follows it.
const HEAD_BYTES: usize = 8;

impl Changes {
    /// Starts the engine's log.
    pub(super) fn of(engine: &Engine) -> Self {
        let config = LogConfig {
            encode,
            nudge: Arc::new(|| ()),
            nudge_bytes: usize::MAX,
            kept_bytes: 0,
            budget: Arc::new(LogBudget::new(usize::MAX)),
            step_bytes: usize::MAX,
        };
        engine.start_log(&config);
        Self { config, drained: Drained::default(), events: vec![0; engine.shard_count()] }
    }

    /// What has changed since this was called last.
    pub(super) fn read(&mut self, engine: &Engine) -> Vec<String> {
        engine.drain_log(&mut self.drained);
        let bytes: Vec<u8> = self.drained.pieces().flatten().copied().collect();
        let (mut rest, mut lines) = (&bytes[..], Vec::new());
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let [line, large] = [0, 4].map(|at| {
                let length: [u8; 4] = head[at..at + 4].try_into().unwrap();
                u32::from_le_bytes(length) as usize
            });
            lines.push(String::from_utf8(behind[..line].to_vec()).unwrap());
            rest = &behind[line + large..];
        }
        assert_eq!(lines.len() as u64, self.drained.records());
        let (events, barriers): (Vec<u64>, _) =
            (self.drained.events().collect(), self.drained.barriers.len());
        let logged: u64 = events.iter().zip(&self.events).map(|(now, before)| now - before).sum();
        let in_each = (barriers * events.len()) as u64;
        assert_eq!(logged, lines.len() as u64 - barriers as u64 + in_each, "the sequence is dense");
        self.events = events;
        self.drained.clear(&self.config);
        lines
    }

    pub(super) fn put(key: &[u8], version: Version, expiry: Expiry) -> String {
        format!("put {key:?} {version:?} {expiry:?}")
    }

    pub(super) fn remove(key: &[u8]) -> String {
        format!("remove {key:?}")
    }

    pub(super) fn expiry(key: &[u8], expiry: Expiry) -> String {
        format!("expiry {key:?} {expiry:?}")
    }
}

fn encode(record: &Record<'_>, into: &mut Vec<u8>) {
    let (line, large) = match record {
        Record::Put(Put { key, version, expiry, value, .. }) => {
            let large = if let ValueView::Shared(value) = value { value.len() } else { 0 };
            (Changes::put(key, *version, *expiry), large)
        }
        Record::Remove { key, .. } => (Changes::remove(key), 0),
        Record::Expiry { key, expiry, .. } => (Changes::expiry(key, *expiry), 0),
        other => (format!("{other:?}"), 0),
    };
    for length in [line.len(), large] {
        into.extend_from_slice(&(length as u32).to_le_bytes());
    }
    into.extend_from_slice(line.as_bytes());
}
