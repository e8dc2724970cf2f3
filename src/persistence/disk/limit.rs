//! Room on the disk: it is made before there is none left, and writes are refused while the limit on it is reached.
//!
//! Room is made by a snapshot that stands alone, which takes room itself until what it makes superfluous is deleted. So
//! it is taken while there is still room for it, where it is worth that. Under the limit there may have been none in time:
//! then it passes the limit for as long as it takes, as nothing else would ever make room. On the disk it cannot.

use super::Inner;
use crate::persistence::backend::BackendError;

/// Above this part of the limit, in percent, room is made.
const LIMIT_PERCENT: u64 = 90;
/// Room is made before that where it is this part of the limit, or more.
const WORTH_PART: u64 = 8;
/// On a disk that is nearly full, room is made where it is so much, or more.
const WORTH_BYTES: u64 = 1 << 20;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tightness {
    /// Enough.
    Ample,
    /// For one more snapshot: the next is to stand alone, whenever it is time for it.
    Short,
    /// It is time to make room.
    Tight,
}

/// What a snapshot that stands alone would come to.
struct Outlook {
    /// How long it would be, at the most; of a store nobody knows: 0.
    bytes: u64,
    /// By how much there would be less on disk then.
    won: u64,
}

impl Outlook {
    fn under(&self, limit: u64, used: u64) -> Tightness {
        let most = limit / 100 * LIMIT_PERCENT;
        let is_worth_it = self.won >= limit / WORTH_PART;
        let is_tight = used > most || used + self.bytes > most && is_worth_it;
        if is_tight { Tightness::Tight } else { Tightness::Ample }
    }

    /// `reserve` is for what is written until the snapshot is whole.
    fn on_disk(&self, left: u64, reserve: u64) -> Tightness {
        if left >= 2 * self.bytes + reserve {
            return Tightness::Ample;
        }
        let is_worth_it = self.won >= WORTH_BYTES.max(self.bytes / 2);
        if is_worth_it && left >= self.bytes { Tightness::Tight } else { Tightness::Short }
    }
}

impl Inner {
    /// Has writes refused from now on that find no room.
    pub(super) fn begin_limit(&self) -> Result<(), BackendError> {
        // Without a journal writes take no room: nothing is gained by refusing them.
        if self.config.is_journaled {
            self.room.refuse_in(&self.engine);
        }
        self.tightness().map(|_| ())
    }

    /// How much room there is now. Counts what is on disk if there is a limit on it.
    pub(super) fn tightness(&self) -> Result<Tightness, BackendError> {
        self.look_at_limit()?;
        let (outlook, (left, reserve)) = (self.outlook(), self.room.spare_and_reserve()?);
        let mut look_after = left / 2;
        let mut tightness = outlook.on_disk(left, reserve);
        if let Some(limit) = self.room.limit() {
            let used = self.room.used();
            look_after = look_after.min((limit / 100 * LIMIT_PERCENT).saturating_sub(used + outlook.bytes));
            tightness = tightness.max(outlook.under(limit, used));
        }
        // Who is woken for nothing is not woken again at once.
        self.room.wake_after(look_after.max(WORTH_BYTES / 4));
        Ok(tightness)
    }

    fn outlook(&self) -> Outlook {
        let snapshots: u64 = self.snapshots.lock().iter().map(|snapshot| snapshot.bytes).sum();
        let journal: u64 = self.journal.segments().iter().map(|segment| segment.bytes).sum();
        let stats = self.engine.stats();
        let is_known = self.tier().is_none();
        let bytes = if is_known { stats.bytes_used.saturating_sub(stats.bytes_spare) } else { 0 };
        Outlook { bytes, won: (snapshots + journal).saturating_sub(bytes) }
    }

    /// Counts what is on disk if there is a limit on it, and sees to it that writes are refused while that is reached.
    pub(super) fn look_at_limit(&self) -> Result<(), BackendError> {
        if self.room.limit().is_some() {
            self.room.count()?;
            self.room.settle();
        }
        Ok(())
    }
}
