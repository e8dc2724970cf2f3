//! Room on the disk: it is made before there is none left, and writes are refused while the limit on it is reached.
//!
//! Room is made by a snapshot that stands alone, which takes room itself until what it makes superfluous is deleted. So
//! it is taken while there is still room for it, where it is worth that. Under the limit there may have been none in time:
//! then it passes the limit for as long as it takes, as nothing else would ever make room. On the disk it cannot.

use super::Inner;
use crate::persistence::backend::BackendError;
use crate::persistence::snapshot::SnapshotError;

/// Above this part of the limit, in percent, room is made.
const LIMIT_PERCENT: u64 = 90;
/// Room is made before that where it is this part of the limit, or more.
const WORTH_PART: u64 = 8;
/// On a nearly full disk, room is made where that frees this number of bytes or more.
const WORTH_BYTES: u64 = 1 << 20;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DiskPressure {
    /// Enough.
    Ample,
    /// For one more snapshot: the next is to stand alone, whenever it is time for it.
    Short,
    /// It is time to make room.
    Tight,
}

/// What a snapshot that stands alone would come to.
struct Outlook {
    /// How long it would be, at the most; of a store as long as the one before.
    bytes: u64,
    /// By how much there would be less on disk then.
    won: u64,
}

impl Outlook {
    fn under(&self, limit: u64, used: u64) -> DiskPressure {
        let most = limit / 100 * LIMIT_PERCENT;
        let is_worth_it = self.won >= limit / WORTH_PART;
        let is_tight = used > most || used + self.bytes > most && is_worth_it;
        if is_tight { DiskPressure::Tight } else { DiskPressure::Ample }
    }

    /// `reserve` is for what is written until the snapshot is whole.
    fn on_disk(&self, left: u64, reserve: u64) -> DiskPressure {
        if left >= 2 * self.bytes + reserve {
            return DiskPressure::Ample;
        }
        let is_worth_it = self.won >= WORTH_BYTES.max(self.bytes / 2);
        if is_worth_it && left >= self.bytes { DiskPressure::Tight } else { DiskPressure::Short }
    }
}

impl Inner {
    /// Has writes refused from now on that find no room.
    pub(super) fn begin_limit(&self) -> Result<(), BackendError> {
        self.room.refuse_in(&self.engine, self.config.is_journaled);
        self.pressure().map(|_| ())
    }

    /// How much room there is now. Counts what is on disk if there is a limit on it.
    pub(super) fn pressure(&self) -> Result<DiskPressure, BackendError> {
        let outlook = self.outlook();
        self.room.keep_for_snapshot(outlook.bytes);
        self.look_at_limit()?;
        let (left, reserve) = self.room.spare_and_reserve()?;
        let mut look_after = left / 2;
        let mut pressure = outlook.on_disk(left, reserve);
        if let Some(limit) = self.room.limit() {
            let used = self.room.used();
            look_after = look_after.min((limit / 100 * LIMIT_PERCENT).saturating_sub(used + outlook.bytes));
            pressure = pressure.max(outlook.under(limit, used));
        }
        // A wake-up that was for nothing is not to be followed by another at once.
        self.room.wake_after(look_after.max(WORTH_BYTES / 4));
        Ok(pressure)
    }

    fn outlook(&self) -> Outlook {
        let (snapshots, newest) = {
            let snapshots = self.snapshots.lock();
            let all: u64 = snapshots.iter().map(|snapshot| snapshot.bytes).sum();
            (all, snapshots.first().map_or(0, |newest| newest.bytes))
        };
        let journal: u64 = self.journal.segments().iter().map(|segment| segment.bytes).sum();
        let stats = self.engine.stats();
        let is_known = self.tier().is_none();
        let bytes = if is_known { stats.bytes_used.saturating_sub(stats.bytes_spare) } else { newest };
        Outlook { bytes, won: (snapshots + journal).saturating_sub(bytes) }
    }

    /// Whether there may be room for a snapshot now.
    pub(super) fn begin_snapshot(&self) -> Result<(), SnapshotError> {
        let Some(tier) = self.tier() else {
            return Ok(self.room.begin_snapshot(self.outlook().bytes)?);
        };
        // What is gone is gone from there too.
        self.journal.written()?;
        // One that is given up half way stays, as places lead there.
        Ok(self.room.begin_whole_snapshot(tier.live_bytes())?)
    }

    /// Looks at the room there is, and sees to it that writes are refused while there is none.
    pub(super) fn look_at_limit(&self) -> Result<(), BackendError> {
        if self.room.limit().is_some() {
            self.room.count()?;
        }
        self.room.look_at_disk(0)?;
        self.room.settle();
        Ok(())
    }
}
