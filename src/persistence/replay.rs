//! Reading the journal back: every batch in order, up to its end, and what that end is.
//!
//! A journal ends in one of three ways. *Clean*: after a whole frame. *Torn*: the last frames of the last segment are
//! not whole, and none of them was synced: a crash cut them off, which loses nothing that was promised. *Damaged*: what
//! was synced is not as it was written, or not there. Then what is before the damage is applied, what is after it is
//! not (it may rest on what is lost), and the damage is reported. A torn tail stays in its file: the segment that was
//! begun after it continues the chain from the last whole frame, which distinguishes it from damage.
//!
//! Zeroes up to the end of a file were reserved and never written, or what was written there has not reached the disk:
//! the file ends before them.

use super::backend::{Backend, BackendError, FileId, FileKind};
use super::frame::{BadFrame, Frame, FrameError, FrameKind, FrameReader, HEADER_BYTES, check, if_a_frame};
use super::mark::JournalMark;
use super::segment::{Segment, SegmentBody};

/// A place on disk that is not as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// The file, below the data directory.
    pub place: String,
    /// Where in it.
    pub offset: u64,
    /// The first journal position that is hit; 0: not known, or none is.
    pub position: u64,
    /// What is lost by it, as far as can be told; 0: cannot be told.
    pub lost: u64,
    /// What was expected and found.
    pub description: String,
    /// It is as it was written, by a later build, whose format this one does not read.
    pub is_newer: bool,
}

impl Damage {
    /// What is wrong in a file at an offset.
    pub(super) fn of(file: FileId, offset: u64, why: &BadFrame) -> Self {
        let is_newer = matches!(why, BadFrame::Format { .. });
        Self { place: file.to_string(), offset, description: why.to_string(), is_newer, ..Self::default() }
    }
}

/// Why a file could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// It is not as it was written.
    #[error("{} is damaged at byte {}: {}", .0.place, .0.offset, .0.description)]
    Damaged(Damage),
}

impl ReadError {
    /// Whether nothing is wrong with the disk, and the file can be read in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Backend(error) if error.is_passing())
    }

    /// Why the frame at an offset of a file was not read.
    pub(super) fn of(file: FileId, offset: u64, why: FrameError) -> Self {
        match why {
            FrameError::Backend(error) => Self::Backend(error),
            FrameError::Bad(why) => Self::Damaged(Damage::of(file, offset, &why)),
        }
    }
}

/// Where a journal ends, which is where the next segment goes on.
#[derive(Debug, Clone, Default)]
pub struct JournalEnd {
    /// Which lineage it is of; 0: of none yet.
    pub lineage: u64,
    /// What goes on here is a new beginning, which does not rest on any segment before.
    pub begins: bool,
    /// The last frame.
    pub sequence: u64,
    /// What the next one calls it.
    pub called: u32,
    /// The last record.
    pub position: u64,
    /// The first record that is there; 0: none is.
    pub first_position: u64,
    /// Its files that are still of use.
    pub segments: Vec<Segment>,
    /// Bytes behind the end that a crash cut off.
    pub torn_bytes: u64,
    /// Why it ends here, if something that was synced is damaged or lost.
    pub damage: Option<Damage>,
    /// What is damaged before the end, and is known from elsewhere.
    pub passed_over: Vec<Damage>,
    /// Segments behind the end: none of what is in them was applied.
    pub beyond: Vec<u64>,
}

/// What a replay calls with each batch, the segment that it is in, and its records' bytes; an error ends it there.
pub type VisitBatch<'a> = dyn FnMut(u64, &Frame, &[u8]) -> Result<(), BadFrame> + 'a;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayFrom {
    /// Behind this position: what is before it is known. A journal that begins later has lost something.
    Behind(u64),
    /// With the first that is there.
    First,
}

/// Reads the journal and visits each batch that has records behind `from`, in order, with its records' bytes.
///
/// # Errors
/// The disk refuses. What is damaged is no error but told in the end.
pub fn replay(
    backend: &dyn Backend,
    mark: Option<&JournalMark>,
    from: ReplayFrom,
    visit: &mut VisitBatch<'_>,
) -> Result<JournalEnd, BackendError> {
    let mut numbers: Vec<u64> = backend
        .files()?
        .into_iter()
        .filter(|(file, _)| file.kind == FileKind::Journal)
        .map(|(file, _)| file.number)
        .collect();
    numbers.sort_unstable();
    let mut replay = Replay {
        backend,
        from,
        visit,
        body: Vec::new(),
        end: JournalEnd { lineage: mark.map_or(0, |mark| mark.lineage), ..JournalEnd::default() },
        is_begun: false,
    };
    let synced = mark.map_or(0, |mark| mark.synced_sequence);
    replay.leave_out_unbegun(&mut numbers, synced)?;
    replay.leave_out_known(&mut numbers)?;
    for (index, number) in numbers.iter().enumerate() {
        let Some(stop) = replay.segment(*number)? else { continue };
        let next = numbers.get(index + 1).copied();
        if let Some(next) = next
            && replay.goes_on_in(next)?
        {
            // What is left of this segment was torn off before the next one was begun.
            continue;
        }
        if next.is_none() && replay.end.sequence >= synced {
            replay.end.torn_bytes += stop.bytes_left;
            if !replay.end.segments.iter().any(|segment| segment.number == *number) {
                replay.end.beyond.push(*number);
            }
        } else {
            replay.damaged(&stop, *number, &numbers[index + 1..]);
        }
        return Ok(replay.end);
    }
    let known = match from {
        ReplayFrom::Behind(position) => position,
        ReplayFrom::First => 0,
    };
    let mark = mark.copied().unwrap_or_default();
    if replay.end.sequence < synced && mark.synced_position > replay.end.position.max(known) {
        replay.lost(&mark, numbers.last().copied());
    }
    Ok(replay.end)
}

/// What a segment says of itself; `None`: its first frame is not whole.
///
/// # Errors
/// The disk refuses.
pub(super) fn read_segment_body(
    backend: &dyn Backend,
    file: FileId,
) -> Result<Option<SegmentBody>, BackendError> {
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let mut body = Vec::new();
    let Some(Frame { header, .. }) = if_a_frame(reader.next(&mut body))? else { return Ok(None) };
    let is_whole = header.kind == FrameKind::Segment && check(&header, &body).is_ok();
    Ok(if is_whole { SegmentBody::read(&body) } else { None })
}

/// Whether there is more in a segment than a crash leaves of its first frame.
///
/// # Errors
/// The disk refuses.
pub(super) fn is_begun(backend: &dyn Backend, file: FileId) -> Result<bool, BackendError> {
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let is_whole = if_a_frame(reader.next(&mut Vec::new()))?.is_some();
    Ok(is_whole || reader.written_from(0)? > (HEADER_BYTES + SegmentBody::BYTES) as u64)
}

fn segment_file(number: u64) -> FileId {
    FileId { kind: FileKind::Journal, number }
}

/// Why a segment was not read to its end.
struct Stop {
    offset: u64,
    bytes_left: u64,
    why: BadFrame,
}

struct Replay<'a> {
    backend: &'a dyn Backend,
    from: ReplayFrom,
    visit: &'a mut VisitBatch<'a>,
    body: Vec<u8>,
    end: JournalEnd,
    is_begun: bool,
}

impl Replay<'_> {
    /// Reads a segment; where it cannot go on, if it does not end clean.
    fn segment(&mut self, number: u64) -> Result<Option<Stop>, BackendError> {
        let mut reader = FrameReader::new(self.backend.open(segment_file(number))?)?;
        let mut is_first = true;
        loop {
            let offset = reader.offset();
            let mut body = std::mem::take(&mut self.body);
            let taken = match reader.next(&mut body) {
                Ok(None) if is_first => Err(BadFrame::Short { found: 0, expected: HEADER_BYTES }),
                Ok(None) => {
                    self.body = body;
                    return Ok(None);
                }
                Ok(Some(frame)) => self.frame(&frame, &body, number, is_first),
                Err(FrameError::Bad(why)) => Err(why),
                Err(FrameError::Backend(error)) => return Err(error),
            };
            self.body = body;
            if let Err(why) = taken {
                let bytes_left = reader.written_from(offset)?;
                return Ok((is_first || bytes_left > 0).then_some(Stop { offset, bytes_left, why }));
            }
            if is_first && let Some(segment) = self.end.segments.last_mut() {
                segment.bytes = reader.end();
            }
            is_first = false;
        }
    }

    fn frame(&mut self, frame: &Frame, body: &[u8], number: u64, is_first: bool) -> Result<(), BadFrame> {
        let header = &frame.header;
        if self.is_begun {
            frame.follows(self.end.sequence, self.end.called)?;
        } else if header.sequence != number {
            return Err(BadFrame::Sequence { found: header.sequence, expected: number });
        }
        let last = header.first_position + u64::from(header.records).saturating_sub(1);
        let is_known = matches!(self.from, ReplayFrom::Behind(position) if last <= position);
        match (header.kind, check(header, body)) {
            // What it says is known, and the chain goes on: nothing is lost by it.
            (FrameKind::Batch, Err(why)) if is_known && !is_first => self.passed_over(frame, number, &why),
            (_, checked) => checked?,
        }
        match header.kind {
            FrameKind::Segment if is_first => {
                let said = SegmentBody::read(body).ok_or(BadFrame::Unexpected { found: header.kind })?;
                self.end.lineage = said.lineage;
                if !self.is_begun {
                    self.begin(header.first_position)?;
                }
                let first_position = header.first_position;
                self.end.segments.push(Segment { number, first_position, bytes: 0 });
            }
            FrameKind::Batch if !is_first => {
                if !is_known {
                    (self.visit)(number, frame, body)?;
                }
                if self.end.first_position == 0 {
                    self.end.first_position = header.first_position;
                }
                self.end.position = last;
            }
            found => return Err(BadFrame::Unexpected { found }),
        }
        self.is_begun = true;
        self.end.sequence = header.sequence;
        self.end.called = frame.called;
        Ok(())
    }

    /// Leaves out the last segments if a crash came before they had their first frame, or a start that failed.
    fn leave_out_unbegun(&mut self, numbers: &mut Vec<u64>, synced: u64) -> Result<(), BackendError> {
        while let Some(number) = numbers.pop_if(|number| *number > synced) {
            if is_begun(self.backend, segment_file(number))? {
                numbers.push(number);
                return Ok(());
            }
            self.end.beyond.push(number);
        }
        Ok(())
    }

    /// Leaves out the segments that do not count any more, and those before the one in which reading begins.
    fn leave_out_known(&mut self, numbers: &mut Vec<u64>) -> Result<(), BackendError> {
        let mut known = Vec::new();
        let mut is_behind = false;
        for number in std::mem::take(numbers) {
            let mut reader = FrameReader::new(self.backend.open(segment_file(number))?)?;
            let first = if_a_frame(reader.next(&mut self.body))?;
            if let Some(Frame { header, .. }) = first {
                if check(&header, &self.body).is_ok()
                    && SegmentBody::read(&self.body).is_some_and(|said| said.begins)
                {
                    numbers.clear();
                    known.clear();
                    is_behind = false;
                }
                let first_position = header.first_position;
                let is_known =
                    matches!(self.from, ReplayFrom::Behind(position) if first_position <= position + 1);
                if is_known && !is_behind {
                    // The one before ends where this one begins.
                    numbers.clear();
                    known.push(Segment { number, first_position, bytes: reader.end() });
                }
                is_behind |= !is_known;
            }
            numbers.push(number);
        }
        known.pop();
        self.end.segments = known;
        Ok(())
    }

    fn begin(&mut self, first_position: u64) -> Result<(), BadFrame> {
        if let ReplayFrom::Behind(position) = self.from
            && first_position > position + 1
        {
            return Err(BadFrame::Gap { found: first_position, expected: position + 1 });
        }
        self.end.position = first_position.saturating_sub(1);
        Ok(())
    }

    /// Whether the next segment was begun right behind the last whole frame.
    fn goes_on_in(&self, next: u64) -> Result<bool, BackendError> {
        if !self.is_begun || next != self.end.sequence + 1 {
            return Ok(false);
        }
        let mut reader = FrameReader::new(self.backend.open(segment_file(next))?)?;
        let first = if_a_frame(reader.next(&mut Vec::new()))?;
        Ok(first.is_some_and(|frame| frame.header.previous == self.end.called))
    }

    fn passed_over(&mut self, frame: &Frame, number: u64, why: &BadFrame) {
        let position = frame.header.first_position;
        self.end.passed_over.push(Damage { position, ..Damage::of(segment_file(number), frame.offset, why) });
    }

    fn damaged(&mut self, stop: &Stop, number: u64, later: &[u64]) {
        let position = self.end.position + 1;
        self.end.damage =
            Some(Damage { position, ..Damage::of(segment_file(number), stop.offset, &stop.why) });
        if !self.end.segments.iter().any(|segment| segment.number == number) {
            self.end.beyond.push(number);
        }
        self.end.beyond.extend(later);
    }

    fn lost(&mut self, mark: &JournalMark, last: Option<u64>) {
        let place = last.map_or_else(|| "journal".to_owned(), |number| segment_file(number).to_string());
        self.end.damage = Some(Damage {
            place,
            position: self.end.position + 1,
            lost: mark.synced_position.saturating_sub(self.end.position),
            description: format!(
                "the journal ends with frame {} at position {}, and frame {} at position {} was synced: its end is lost",
                self.end.sequence, self.end.position, mark.synced_sequence, mark.synced_position
            ),
            ..Damage::default()
        });
        // No position is given to two records, also if one of them is lost.
        self.end.position = mark.synced_position;
    }
}
