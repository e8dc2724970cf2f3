//! Failpoints: places between two steps of what must outlive a crash, at which a test has the process die.
//!
//! They are there only where the `fail` crate has its feature `failpoints`, which it has as a dev-dependency: in what
//! `cargo test` and `cargo bench` build, and in no other build. There `larder` reads from the environment which of them
//! are armed, in the crate's own words; where they are not compiled in it reads nothing:
//!
//! ```sh
//! FAILPOINTS='journal-synced=2*off->return' larder serve   # dies when it is there for the third time
//! ```
//!
//! An armed failpoint ends the process at once by SIGKILL, as a kill from outside does: nothing is flushed, no
//! destructor runs, and no core is dumped. With `return(5)` the other threads have 5 ms before that, so that an answer
//! that is sent too soon is received.
//!
//! `tests/suite/failpoints.rs` goes through all of them, and fails where one is never reached.

use std::time::Duration;

/// A place at which the process can be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failpoint(&'static str);

/// Failpoints that are armed, until this is dropped.
#[derive(Debug)]
#[must_use = "they are armed for as long as this is there"]
pub struct Armed(#[expect(dead_code, reason = "held for what its drop does")] Option<Scenario>);

/// The crate's own, which cannot be shown.
struct Scenario(#[expect(dead_code, reason = "held for what its drop does")] fail::FailScenario<'static>);

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scenario")
    }
}

/// Arms what the environment says, where there are failpoints.
///
/// # Panics
/// It says something that is no failpoint's action.
pub fn from_environment() -> Armed {
    Armed(fail::has_failpoints().then(|| Scenario(fail::FailScenario::setup())))
}

macro_rules! failpoints {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        impl Failpoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$constant),*];
            $($(#[$doc])* pub const $constant: Self = Self($name);)*
        }
    };
}

failpoints! {
    /// Some of an append is written, and the rest is not.
    FILE_TORN = "file-torn";
    /// A batch is drained from memory, and not in the file.
    JOURNAL_DRAINED = "journal-drained";
    /// Room is reserved for those that come, and nothing of that is synced.
    JOURNAL_RESERVED = "journal-reserved";
    /// It is appended, and not synced.
    JOURNAL_APPENDED = "journal-appended";
    /// It is synced, and the mark does not say so.
    JOURNAL_SYNCED = "journal-synced";
    /// The mark says so, and nobody has been told.
    JOURNAL_MARKED = "journal-marked";
    /// The mark is to be synced, with a higher ceiling for versions.
    MARK_SYNCING = "mark-syncing";
    /// It is synced, and no version has been drawn below that ceiling.
    MARK_SYNCED = "mark-synced";
    /// A segment has ended, and the next has no file.
    SEGMENT_ENDED = "segment-ended";
    /// The next has a file with nothing in it.
    SEGMENT_CREATED = "segment-created";
    /// It says what it is, unsynced, and has no batch.
    SEGMENT_BEGUN = "segment-begun";
    /// A segment is to be deleted.
    SEGMENT_FORGETTING = "segment-forgetting";
    /// It is deleted, and those behind it are there.
    SEGMENT_FORGOTTEN = "segment-forgotten";
    /// A snapshot's file is there with nothing in it.
    SNAPSHOT_CREATED = "snapshot-created";
    /// It has its head.
    SNAPSHOT_HEAD = "snapshot-head";
    /// It has some entries, or all.
    SNAPSHOT_ENTRIES = "snapshot-entries";
    /// It has all entries, and the journal goes on in another segment.
    SNAPSHOT_ROLLED = "snapshot-rolled";
    /// It has some of its tail, or all.
    SNAPSHOT_TAIL = "snapshot-tail";
    /// It has its end, unsynced.
    SNAPSHOT_ENDED = "snapshot-ended";
    /// It is synced, and the catalogue does not know.
    SNAPSHOT_SYNCED = "snapshot-synced";
    /// The catalogue knows, and the one that is one too many is there.
    SNAPSHOT_NOTED = "snapshot-noted";
    /// The catalogue knows no more of that one, whose file is there.
    SNAPSHOT_UNNOTED = "snapshot-unnoted";
    /// Its file is deleted, and the journal behind it is there.
    SNAPSHOT_DELETED = "snapshot-deleted";
    /// A compaction has a segment of its own, and no snapshot.
    COMPACTION_ROLLED = "compaction-rolled";
    /// A compaction has its snapshot, and all that is before it is there.
    COMPACTION_TAKEN = "compaction-taken";
    /// A recovery has loaded a snapshot.
    RECOVERY_LOADED = "recovery-loaded";
    /// It has replayed a batch.
    RECOVERY_REPLAYED = "recovery-replayed";
    /// All is in memory, and the directory is as it was.
    RECOVERY_APPLIED = "recovery-applied";
    /// Segments that are of no use are cleared away, and snapshots are not.
    RECOVERY_CLEARED = "recovery-cleared";
    /// Snapshots are too, and the journal has not gone on.
    RECOVERY_SORTED = "recovery-sorted";
    /// The journal has gone on, and nobody is served.
    RECOVERY_JOURNALED = "recovery-journaled";
    /// A blob has one more chunk.
    BLOB_CHUNK = "blob-chunk";
    /// It is whole, unsynced.
    BLOB_WHOLE = "blob-whole";
    /// It is synced, and the catalogue does not know.
    BLOB_SYNCED = "blob-synced";
    /// The catalogue knows, and the one before has its file.
    BLOB_COMMITTED = "blob-committed";
    /// The one before has none, and nobody has been told.
    BLOB_REPLACED = "blob-replaced";
    /// The catalogue knows no more of a blob, whose file is there.
    BLOB_REMOVED = "blob-removed";
    /// A commit is written to the catalogue, unsynced.
    CATALOGUE_WRITTEN = "catalogue-written";
    /// It is synced, and the catalogue's mark does not say so.
    CATALOGUE_SYNCED = "catalogue-synced";
    /// Another backend's catalogue is to be taken over, and nothing of it is.
    TAKEOVER_BEGUN = "takeover-begun";
    /// All of it is, and it is there.
    TAKEOVER_COPIED = "takeover-copied";
    /// It is not there any more, and a sign says that it is being taken over.
    TAKEOVER_REMOVED = "takeover-removed";
}

impl Failpoint {
    /// The name by which it is armed.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }

    /// Dies here, if this is armed. Costs nothing where there are no failpoints.
    #[inline]
    pub fn reached(self) {
        if let Some(others_go_on) = self.armed() {
            die(others_go_on);
        }
    }

    /// Does something half and dies, if this is armed.
    #[inline]
    pub fn half_way(self, half: impl FnOnce()) {
        if let Some(others_go_on) = self.armed() {
            half();
            die(others_go_on);
        }
    }

    #[inline]
    fn armed(self) -> Option<Duration> {
        fail::fail_point!(self.0, |ms| {
            let ms = ms.and_then(|ms| ms.parse().ok()).unwrap_or(0);
            Some(Duration::from_millis(ms))
        });
        None
    }
}

fn die(others_go_on: Duration) -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    std::thread::sleep(others_go_on);
    let _ = kill_process(getpid(), Signal::KILL);
    // It is not survived; should it be, this is as good.
    std::process::abort()
}
