//! Recovery: what is on the disk becomes what is in memory, by one of several methods.
//!
//! | method | applies |
//! |---|---|
//! | `empty` | nothing; what is on the disk is given up |
//! | `snapshot` | the newest snapshot that is whole; the journal behind it is given up |
//! | `journal` | the journal, from the first record that is there |
//! | `snapshot+journal` | the newest snapshot that is whole, then the journal behind it |
//! | `lazy` | the same but for the snapshot's entries, which are read when they are asked for |
//!
//! A snapshot that is damaged is passed over for the one before it, and told. What has expired
//! is judged by one moment of steady time, which goes on from what is on the disk ([`super::time`]).

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::backend::{Backend, BackendError, FileId, FileKind};
use super::directory_notes::Finished;
use super::failpoint::Failpoint;
use super::lazy;
use super::lineage::Lineage;
use super::mark::JournalMark;
use super::replay::{Damage, JournalEnd, ReadError, ReplayFrom, replay};
use super::snapshot::{self, LoadContext, LoadedSnapshot, SnapshotInfo, TierFile};
use super::tier::DiskTier;
use crate::clock::{Now, monotonic};
use crate::engine::{Engine, Restored, Restorer};
use crate::quote::Quote;

/// How a node gets its content back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecoveryMethod {
    /// It begins with nothing.
    Empty,
    /// From the newest snapshot alone.
    Snapshot,
    /// From the journal alone.
    Journal,
    /// From the newest snapshot and the journal behind it.
    SnapshotAndJournal,
    /// From the newest snapshot and the journal behind it, entries as they are asked for.
    Lazy,
}

impl RecoveryMethod {
    /// Every method.
    pub const ALL: [Self; 5] =
        [Self::Empty, Self::Snapshot, Self::Journal, Self::SnapshotAndJournal, Self::Lazy];

    /// The word for it in flags and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Snapshot => "snapshot",
            Self::Journal => "journal",
            Self::SnapshotAndJournal => "snapshot+journal",
            Self::Lazy => "lazy",
        }
    }

    fn reads_snapshots(self) -> bool {
        matches!(self, Self::Snapshot | Self::SnapshotAndJournal | Self::Lazy)
    }

    /// The same, where there is no journal that counts.
    pub(super) fn of_snapshots(self) -> Self {
        if self == Self::Empty { self } else { Self::Snapshot }
    }

    fn reads_journal(self) -> bool {
        matches!(self, Self::Journal | Self::SnapshotAndJournal | Self::Lazy)
    }
}

/// A word that is no recovery method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word} is no recovery method; there are {}", RecoveryMethod::ALL.map(RecoveryMethod::as_str).join(", "))]
pub struct UnknownRecoveryMethod {
    /// The word.
    pub word: Quote,
}

impl FromStr for RecoveryMethod {
    type Err = UnknownRecoveryMethod;

    fn from_str(word: &str) -> Result<Self, UnknownRecoveryMethod> {
        let found = Self::ALL.into_iter().find(|method| method.as_str() == word);
        found.ok_or_else(|| UnknownRecoveryMethod { word: Quote::of(word) })
    }
}

impl fmt::Display for RecoveryMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a recovery brought back.
#[derive(Debug, Clone)]
pub struct Report {
    /// How.
    pub method: RecoveryMethod,
    /// Entries that it applied whose time had ended.
    pub expired: u64,
    /// Entries that did not fit into memory, or whose namespace is missing.
    pub refused: u64,
    /// The snapshot that it began with.
    pub snapshot: Option<SnapshotInfo>,
    /// The first position that it replayed; 0: none.
    pub first_position: u64,
    /// The last position that it reached.
    pub position: u64,
    /// Bytes of a torn tail.
    pub torn_bytes: u64,
    /// What is not as it was written.
    pub damages: Vec<Damage>,
    /// How long it took.
    pub elapsed: Duration,
}

/// How far a recovery is, for those who look on.
#[derive(Debug, Default)]
pub struct RecoveryProgress {
    /// Records that are applied.
    pub applied: AtomicU64,
    /// Entries that the snapshot has; 0: not known.
    pub expected: AtomicU64,
}

/// What a recovery works with.
#[derive(Debug)]
pub struct Recovery<'a> {
    /// What is read.
    pub backend: &'a dyn Backend,
    /// What it is applied to: empty, not logged, not served.
    pub engine: &'a Engine,
    /// The moment that expiry is judged by: steady time has gone on from what is on the disk.
    pub now: Now,
    /// Threads that load a snapshot.
    pub threads: usize,
    /// Where it tells how far it is.
    pub progress: &'a RecoveryProgress,
    /// The disk tier, if there is one: everything that is applied arrives there too.
    pub tier: Option<&'a DiskTier>,
}

/// What a recovery came to: for people, and for the journal that goes on.
#[derive(Debug)]
pub struct Recovered {
    /// For people.
    pub report: Report,
    /// Where the journal goes on.
    pub end: JournalEnd,
    /// All snapshots that are there, newest first, with what is wrong with those that are damaged.
    pub snapshots: Vec<Inspected>,
    /// The numbers of snapshots that nobody finished.
    pub unfinished: Vec<u64>,
    /// The numbers of snapshots of a lineage that was given up.
    pub given_up: Vec<u64>,
}

impl Recovery<'_> {
    /// Applies what is on the disk; changes nothing there.
    ///
    /// # Errors
    /// The disk refuses. Damage is no error but told in the report.
    pub fn run(&self, method: RecoveryMethod) -> Result<Recovered, BackendError> {
        self.run_into(method, Restorer::new(self.engine))
    }

    /// [`Self::run`] by a restorer of the engine.
    pub(super) fn run_into(
        &self,
        method: RecoveryMethod,
        mut restorer: Restorer<'_>,
    ) -> Result<Recovered, BackendError> {
        let begun = monotonic();
        let evicted = self.engine.stats().evictions;
        let mark = self.backend.read_mark()?.as_ref().and_then(JournalMark::read);
        self.engine.begin_at(self.now);
        let finished = Finished::read(self.backend)?;
        let mut snapshots = snapshots(self.backend)?;
        let Lineage { mark, lineage, damage } = Lineage::of(self.backend, mark, &snapshots)?;
        let missing = finished.missing(&snapshots);
        let unfinished = finished.take_unfinished(&mut snapshots);
        // Of what was given up once, something may have come back with a crash.
        let is_given_up = |found: &mut Inspected| matches!(found, Ok(info) if info.lineage != lineage);
        let given_up =
            snapshots.extract_if(.., is_given_up).flatten().map(|info| info.number).collect::<Vec<_>>();
        let mut report = Report {
            method,
            expired: 0,
            refused: 0,
            snapshot: None,
            first_position: 0,
            position: 0,
            torn_bytes: 0,
            damages: damage.into_iter().chain(missing).collect(),
            elapsed: Duration::ZERO,
        };
        if method.reads_snapshots() {
            for snapshot in &snapshots {
                if self.load(snapshot, &mut restorer, &mut report)? {
                    break;
                }
            }
        }
        let from = match (&report.snapshot, method) {
            (Some(snapshot), _) => ReplayFrom::Behind(snapshot.position),
            (None, RecoveryMethod::Journal) => ReplayFrom::First,
            (None, _) => ReplayFrom::Behind(0),
        };
        let mut end = if method.reads_journal() {
            self.replay(mark.as_ref(), from, &mut restorer, &mut report)?
        } else {
            self.pass_over(mark.as_ref(), report.position)?
        };
        end.lineage = if end.lineage == 0 { lineage } else { end.lineage };
        restorer.sweep();
        if let Some(mark) = &mark {
            self.engine.raise_versions(mark.version_ceiling);
        }
        if self.tier.is_none() {
            report.refused += self.engine.stats().evictions.saturating_sub(evicted);
        }
        report.elapsed = begun.elapsed();
        Ok(Recovered { report, end, snapshots, unfinished, given_up })
    }

    /// Loads a snapshot; whether it could.
    fn load(
        &self,
        snapshot: &Inspected,
        restorer: &mut Restorer<'_>,
        report: &mut Report,
    ) -> Result<bool, BackendError> {
        let info = match snapshot {
            Ok(info) => info,
            Err((_, damage)) => {
                report.damages.push(damage.clone());
                return Ok(false);
            }
        };
        self.progress.expected.store(info.entries, Ordering::Relaxed);
        self.progress.applied.store(0, Ordering::Relaxed);
        let tier_file = self.tier_file(FileId { kind: FileKind::Snapshot, number: info.number })?;
        let context =
            LoadContext { now: self.now, threads: self.threads, applied: &self.progress.applied, tier_file };
        let loaded = match report.method {
            RecoveryMethod::Lazy => {
                lazy::load_around(self.backend, info, restorer, &context).map(|()| LoadedSnapshot::default())
            }
            _ => snapshot::load(self.backend, info, restorer, &context),
        };
        Failpoint::RECOVERY_LOADED.reached();
        match loaded {
            Ok(loaded) => {
                report.expired += loaded.expired;
                report.refused += loaded.refused;
                report.snapshot = Some(*info);
                report.position = info.position;
                self.engine.raise_versions(info.newest_version);
                Ok(true)
            }
            Err(ReadError::Backend(error)) => Err(error),
            Err(ReadError::Damaged(damage)) => {
                report.damages.push(damage);
                restorer.empty(self.now);
                self.tier.iter().for_each(|tier| tier.clear());
                Ok(false)
            }
        }
    }

    /// A file as the disk tier knows it, if there is one.
    fn tier_file(&self, file: FileId) -> Result<Option<TierFile<'_>>, BackendError> {
        let Some(tier) = self.tier else { return Ok(None) };
        Ok(Some(TierFile { tier, engine: self.engine, file: tier.open(file)? }))
    }

    fn replay(
        &self,
        mark: Option<&JournalMark>,
        from: ReplayFrom,
        restorer: &mut Restorer<'_>,
        report: &mut Report,
    ) -> Result<JournalEnd, BackendError> {
        let (mut expired, mut refused) = (0, 0);
        let mut tier_file: Option<(u64, Option<TierFile<'_>>)> = None;
        let mut unopened = None;
        let mut end = replay(self.backend, mark, from, &mut |segment, frame, body| {
            if tier_file.is_none_or(|(number, _)| number != segment) {
                let opened = self.tier_file(FileId { kind: FileKind::Journal, number: segment });
                tier_file = Some((
                    segment,
                    opened.unwrap_or_else(|error| {
                        unopened = Some(error);
                        None
                    }),
                ));
            }
            if report.first_position == 0 {
                report.first_position = frame.header.first_position;
            }
            self.progress.applied.fetch_add(u64::from(frame.header.records), Ordering::Relaxed);
            snapshot::apply(frame, body, &mut |record| match restorer.apply(record, self.now) {
                Restored::Applied => {}
                Restored::Expired => expired += 1,
                Restored::NoNamespace(_) | Restored::Refused(_) => refused += 1,
            })?;
            Failpoint::RECOVERY_REPLAYED.reached();
            tier_file
                .and_then(|(_, tier_file)| tier_file)
                .map_or(Ok(()), |tier_file| tier_file.arrive(frame, body))
        })?;
        if let Some(error) = unopened {
            return Err(error);
        }
        report.expired += expired;
        report.refused += refused;
        // A snapshot may reach further than what is left of the journal.
        end.position = end.position.max(report.position);
        report.position = end.position;
        report.torn_bytes = end.torn_bytes;
        report.damages.extend(end.passed_over.iter().chain(&end.damage).cloned());
        Ok(end)
    }

    /// Where a journal goes on that is not read: behind the snapshot, with frames that no file has.
    fn pass_over(&self, mark: Option<&JournalMark>, position: u64) -> Result<JournalEnd, BackendError> {
        let files = self.backend.files()?;
        let journal = |(file, _): &(FileId, u64)| (file.kind == FileKind::Journal).then_some(file.number);
        let beyond: Vec<u64> = files.iter().filter_map(journal).collect();
        let last = beyond.iter().copied().max().unwrap_or(0);
        Ok(JournalEnd {
            sequence: last.max(mark.map_or(0, |mark| mark.synced_sequence)),
            position,
            beyond,
            begins: true,
            ..JournalEnd::default()
        })
    }
}

/// A snapshot as its end describes it, or its number and what is wrong with it.
pub type Inspected = Result<SnapshotInfo, (u64, Damage)>;

/// All snapshots, newest first, as their ends describe them.
///
/// # Errors
/// The disk refuses.
pub fn snapshots(backend: &dyn Backend) -> Result<Vec<Inspected>, BackendError> {
    let mut numbers: Vec<u64> = backend
        .files()?
        .into_iter()
        .filter(|(file, _)| file.kind == FileKind::Snapshot)
        .map(|(FileId { number, .. }, _)| number)
        .collect();
    numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
    numbers
        .into_iter()
        .map(|number| match snapshot::inspect(backend, number) {
            Ok(info) => Ok(Ok(info)),
            Err(ReadError::Damaged(damage)) => Ok(Err((number, damage))),
            Err(ReadError::Backend(error)) => Err(error),
        })
        .collect()
}
