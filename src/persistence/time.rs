//! Steady time over a restart: where it goes on, by the time marks that are on the disk.
//!
//! ```text
//!                      last time mark          this start
//! wall clock    ───────────┼───────────────────────┼──────────   may show anything
//! steady time   ───────────┼ + max(0, wall − wall) ┼──────────   never less than it was
//! ```
//!
//! A time mark is one reading of both clocks ([`Now`]). Every frame of the journal and of a snapshot has one in its header,
//! the mark beside the journal too, and a node that has nothing to write renews that one every ten seconds at the latest.
//! All that expires on disk does so at a moment of steady time. So what is left of a life after a restart is the smaller
//! of what the wall clock says and what was left at the last time mark:
//!
//! - a clock that was set back counts as if no time had passed, and lengthens no life;
//! - a clock that was ahead at some time before the last time mark, and is right by then, ends none;
//! - when the last marks are lost with the journal's end, steady and wall time are both those of the mark before.
//!
//! The last time mark is the one of the latest steady time, as that alone never goes back. Those of another lineage than
//! the directory's do not count. In what format 1 wrote the wall clock's time stands for both: it was what entries
//! expired by.

use super::backend::{Backend, BackendError, FileId, FileKind};
use super::frame::{FrameKind, FrameReader, check, if_a_frame};
use super::lineage::Lineage;
use super::mark::JournalMark;
use super::recover::{Inspected, snapshots};
use super::segment::SegmentBody;
use crate::clock::{Clock, Now};

/// Steady time on disk that is later is not believed: a time to live is added to it.
const STEADY_MS_MAX: u64 = 1 << 60;
/// A wall clock that is behind by less has only been set right.
const BEHIND_MS_TOLD: u64 = 1_000;

/// Steady time goes on from what is on the disk. To be called once, before anything is read there that expires.
///
/// # Errors
/// The disk refuses.
pub fn resume_clock(backend: &dyn Backend, clock: &dyn Clock) -> Result<(), BackendError> {
    let mark = backend.read_mark()?.as_ref().and_then(JournalMark::read);
    let snapshots = snapshots(backend)?;
    let Lineage { mark, lineage, .. } = Lineage::of(backend, mark, &snapshots)?;
    let last = last(backend, mark.as_ref(), &snapshots, lineage)?;
    let unix_ms = clock.now().unix_ms();
    let behind_ms = last.map_or(0, |last| last.unix_ms().saturating_sub(unix_ms));
    if behind_ms >= BEHIND_MS_TOLD {
        tracing::warn!(
            behind_ms,
            "the wall clock shows less than when the data directory was written last: no time counts as passed since \
             for what expires"
        );
    }
    clock.advance_to(begin_ms(last, unix_ms));
    Ok(())
}

/// What steady time begins with, where the wall clock shows this.
fn begin_ms(last: Option<Now>, unix_ms: u64) -> u64 {
    let Some(last) = last else { return unix_ms };
    last.steady_ms.saturating_add(unix_ms.saturating_sub(last.unix_ms())).min(STEADY_MS_MAX)
}

/// The last time mark of a lineage, if there is one.
fn last(
    backend: &dyn Backend,
    mark: Option<&JournalMark>,
    snapshots: &[Inspected],
    lineage: u64,
) -> Result<Option<Now>, BackendError> {
    let of_snapshots = snapshots.iter().flatten().filter(|info| info.lineage == lineage);
    let of_files = of_snapshots.map(|info| info.time).chain(last_of_journal(backend, lineage)?);
    Ok(mark.map(|mark| mark.time).into_iter().chain(of_files).max_by_key(|time| time.steady_ms))
}

/// That of the journal: in the last of its segments that has one.
fn last_of_journal(backend: &dyn Backend, lineage: u64) -> Result<Option<Now>, BackendError> {
    let files = backend.files()?.into_iter().map(|(file, _)| file);
    let mut segments: Vec<FileId> = files.filter(|file| file.kind == FileKind::Journal).collect();
    segments.sort_unstable_by_key(|file| std::cmp::Reverse(file.number));
    for segment in segments {
        let last = last_of_segment(backend, segment, lineage)?;
        if last.is_some() {
            return Ok(last);
        }
    }
    Ok(None)
}

/// Looks at the headers of its frames, up to the first that is not whole.
fn last_of_segment(backend: &dyn Backend, file: FileId, lineage: u64) -> Result<Option<Now>, BackendError> {
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let mut body = Vec::new();
    let mut last: Option<Now> = None;
    while let Some(frame) = if_a_frame(reader.skip(|kind| kind == FrameKind::Segment, &mut body))? {
        if frame.header.kind == FrameKind::Segment {
            let is_whole = check(&frame.header, &body).is_ok();
            if !is_whole || SegmentBody::read(&body).is_none_or(|said| said.lineage != lineage) {
                return Ok(None);
            }
        }
        last = last.into_iter().chain([frame.header.time]).max_by_key(|time| time.steady_ms);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_time_goes_on_by_what_the_wall_clock_says_has_passed_and_never_goes_back() {
        let last = |steady_ms, unix_ms: u64| Some(Now { steady_ms, unix_us: unix_ms * 1_000 });
        assert_eq!(begin_ms(None, 7), 7, "a new directory's is the wall clock's");
        assert_eq!(begin_ms(last(100, 5_000), 5_030), 130);
        assert_eq!(begin_ms(last(100, 5_000), 5_000), 100);
        assert_eq!(begin_ms(last(100, 5_000), 7), 100, "a clock that was set back");
        assert_eq!(begin_ms(last(u64::MAX, 5_000), 5_030), STEADY_MS_MAX);
    }
}
