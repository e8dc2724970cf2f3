//! Requests that lay unread for too long are refused before HTTP/2 sees them.
//!
//! What has piled up in a connection's socket, and at its client, while the connection was parked or could not be read to
//! its end, is too old by then, and a refusal that goes the way of an answer costs a good part of one. So frames are looked
//! at one by one until the socket is empty: those of requests are taken out, and answered in the end with a refusal that was
//! made once, unless the client has given them up itself.
//!
//! A request's head may change the table by which later heads are read (RFC 7541 §2.3.2). HTTP/2 has to see such a head: it
//! is passed on as a request without a body, in a piece of its own, which the stack refuses.

use std::collections::VecDeque;
use std::task::Poll;

use super::field_block::changes_table;
use super::scanner::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, FrameScanner, HEAD_BYTES, HEADERS, NO_ERROR, PADDED,
    PRIORITY_FIELDS, RST_STREAM, WINDOW_UPDATE, put_head,
};

/// Requests that were taken out and are not answered; with more of them, all are answered.
const UNANSWERED_MAX: usize = 4_096;
/// Of refused requests, the bytes that are given back to the peer's window together.
const CREDIT_BYTES: u32 = 64 << 10;
/// What is read and not looked at: more than a frame.
const BUFFER_BYTES: usize = 64 << 10;

/// Which requests are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refuses {
    /// All that come until the socket is empty.
    All,
    /// Those that begin within this many bytes.
    Within(usize),
}

impl Refuses {
    pub(super) const NONE: Self = Self::Within(0);

    fn covers_next(self) -> bool {
        self != Self::NONE
    }

    fn pass(&mut self, bytes: usize) {
        if let Self::Within(left) = self {
            *left = left.saturating_sub(bytes);
        }
    }
}

/// How old the requests of a piece are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Young enough to be done.
    Young,
    /// To be refused.
    TooOld,
}

/// A request that was refused.
#[derive(Debug, Clone, Copy)]
struct Refused {
    stream: u32,
    /// Its rest may come.
    is_open: bool,
    /// It is to be answered here.
    wants_answer: bool,
}

/// The frames of a connection that has a backlog.
#[derive(Debug)]
pub(super) struct Shedding {
    /// The frame that had begun before the others were looked at: its rest is passed on.
    begun: FrameScanner,
    /// What was read and not looked at, from a frame's beginning on but for the first.
    buffer: Box<[u8]>,
    seen: usize,
    filled: usize,
    /// What is passed on, and how old it is.
    passed: Vec<u8>,
    given: usize,
    age: Age,
    /// Refusals, and room given back.
    answers: Vec<u8>,
    /// The payload of a refusal.
    refusal: Vec<u8>,
    /// Streams whose requests were refused, while something of them may come or they are not answered; in their order.
    refused: VecDeque<Refused>,
    unanswered: usize,
    /// The newest streams that were passed on, and that were taken out.
    newest_passed: u32,
    newest_refused: u32,
    credit: u32,
    requests_refused: u64,
    requests_passed: u64,
}

impl Shedding {
    /// Looks at what comes from now on. The bytes before were followed by `begun`, in which `newest` was the newest
    /// stream; refusals have this block of fields.
    pub(super) fn new(begun: FrameScanner, newest: u32, refusal: Vec<u8>) -> Self {
        Self {
            begun,
            buffer: vec![0; BUFFER_BYTES].into(),
            seen: 0,
            filled: 0,
            passed: Vec::new(),
            given: 0,
            age: Age::Young,
            answers: Vec::new(),
            refusal,
            refused: VecDeque::new(),
            unanswered: 0,
            newest_passed: newest,
            newest_refused: 0,
            credit: 0,
            requests_refused: 0,
            requests_passed: 0,
        }
    }

    /// What was read and not looked at.
    fn unseen(&self) -> &[u8] {
        &self.buffer[self.seen..self.filled]
    }

    /// Has something read, which is to be looked at; how much it was.
    pub(super) fn fill<E>(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Poll<Result<usize, E>>,
    ) -> Poll<Result<usize, E>> {
        self.buffer.copy_within(self.seen..self.filled, 0);
        self.filled -= self.seen;
        self.seen = 0;
        let read = read(&mut self.buffer[self.filled..]);
        if let Poll::Ready(Ok(read)) = read {
            self.filled += read;
        }
        read
    }

    /// What is passed on and was not given out.
    pub(super) fn passed(&self) -> &[u8] {
        &self.passed[self.given..]
    }

    /// This was given out.
    pub(super) fn give(&mut self, bytes: usize) {
        self.given += bytes;
        if self.given == self.passed.len() {
            self.passed.clear();
            self.given = 0;
        }
    }

    /// What is to be sent between two frames.
    pub(super) fn answers(&mut self) -> &mut Vec<u8> {
        &mut self.answers
    }

    /// Requests that were taken out, and that were passed on to be done, since it was asked.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.requests_refused), std::mem::take(&mut self.requests_passed))
    }

    /// Whether nothing is left that has to be looked at: no stream can be named any more that HTTP/2 takes for one that has
    /// not begun, and what was passed on last is not to be refused.
    pub(super) fn is_over(&self) -> bool {
        self.age == Age::Young
            && self.unseen().is_empty()
            && self.passed.is_empty()
            && self.answers.is_empty()
            && self.begun.is_between_frames()
            && self.newest_passed >= self.newest_refused
            && self.unanswered == 0
    }

    /// How old the requests are that are passed on.
    pub(super) fn age(&self) -> Age {
        self.age
    }

    /// Passes on what is left as it is, and answers the rest: nothing more will come.
    pub(super) fn end(&mut self) {
        self.answer_all();
        self.passed.extend_from_slice(&self.buffer[self.seen..self.filled]);
        self.seen = self.filled;
    }

    /// Looks at frames, and refuses some of the requests. Ends when what is passed on is of another age than before; whether
    /// that begins here.
    pub(super) fn look(&mut self, refuses: &mut Refuses) -> bool {
        refuses.pass(self.pass_begun());
        let mut has_changed = false;
        while let Some(frame) = Frame::read(self.unseen()) {
            let whole = frame.bytes();
            if self.unseen().len() < whole {
                break;
            }
            let is_old = refuses.covers_next() && opens(&frame, self.newest_passed.max(self.newest_refused));
            let takes_out = is_old && frame.flags & END_HEADERS != 0 && !self.changes_table(&frame);
            let age = if is_old { Age::TooOld } else { Age::Young };
            if frame.kind == HEADERS && !takes_out && age != self.age {
                // Only what has one age is given out at a time.
                if !self.passed.is_empty() {
                    break;
                }
                self.age = age;
                has_changed = true;
            }
            if takes_out {
                self.take_out(&frame);
            } else if is_old {
                self.pass_without_body(&frame);
            } else {
                self.pass_or_swallow(&frame);
            }
            self.seen += whole;
            refuses.pass(whole);
        }
        if self.unanswered > UNANSWERED_MAX {
            self.answer_all();
        }
        has_changed
    }

    /// Passes on the rest of the frame that had begun; how much it was.
    fn pass_begun(&mut self) -> usize {
        let before = self.seen;
        while !self.begun.is_between_frames() && self.seen < self.filled {
            let rest = &self.buffer[self.seen..self.filled];
            let bytes = self.begun.bytes_expected().min(rest.len());
            let newest = &mut self.newest_passed;
            self.begun.scan(&rest[..bytes], |frame| *newest = frame.newest(*newest));
            self.passed.extend_from_slice(&rest[..bytes]);
            self.seen += bytes;
        }
        self.seen - before
    }

    /// The payload of a frame that is whole.
    fn payload(&self, frame: &Frame) -> &[u8] {
        &self.buffer[self.seen..][HEAD_BYTES..frame.bytes()]
    }

    /// Whether a head changes the table, or is of a form that is not looked at.
    fn changes_table(&self, frame: &Frame) -> bool {
        let payload = self.payload(frame);
        let fields = match frame.flags & (PADDED | PRIORITY_FIELDS) {
            0 => Some(payload),
            PRIORITY_FIELDS => payload.get(5..),
            _ => None,
        };
        fields.is_none_or(changes_table)
    }

    fn take_out(&mut self, frame: &Frame) {
        self.requests_refused += 1;
        self.newest_refused = frame.stream;
        self.refuse(frame, true);
    }

    fn refuse(&mut self, frame: &Frame, wants_answer: bool) {
        let is_open = frame.flags & END_STREAM == 0;
        self.unanswered += usize::from(wants_answer);
        self.refused.push_back(Refused { stream: frame.stream, is_open, wants_answer });
    }

    /// A head that HTTP/2 has to see, as a request that has no more than that.
    fn pass_without_body(&mut self, frame: &Frame) {
        self.requests_refused += 1;
        let at = self.passed.len();
        self.pass(frame);
        self.passed[at + 4] |= END_STREAM;
        self.newest_passed = frame.stream;
        self.refuse(frame, false);
    }

    fn pass(&mut self, frame: &Frame) {
        self.passed.extend_from_slice(&self.buffer[self.seen..][..frame.bytes()]);
    }

    fn pass_or_swallow(&mut self, frame: &Frame) {
        let refused = match frame.kind {
            HEADERS | CONTINUATION => None,
            _ if frame.stream == 0 => None,
            _ => self.refused.binary_search_by_key(&frame.stream, |refused| refused.stream).ok(),
        };
        let is_unknown = frame.stream > self.newest_passed && frame.stream <= self.newest_refused;
        let Some(refused) = refused.map(|at| &mut self.refused[at]) else {
            if frame.kind == HEADERS {
                self.requests_passed += 1;
                self.newest_passed = self.newest_passed.max(frame.stream);
            }
            if frame.kind == HEADERS || frame.kind == CONTINUATION || !is_unknown {
                self.pass(frame);
            }
            return;
        };
        match frame.kind {
            DATA => {
                refused.is_open &= frame.flags & END_STREAM == 0;
                self.give_back(frame.payload_bytes);
            }
            RST_STREAM => {
                self.unanswered -= usize::from(refused.wants_answer);
                refused.is_open = false;
                refused.wants_answer = false;
            }
            _ => {}
        }
        let is_over = |refused: &Refused| !refused.is_open && !refused.wants_answer;
        while self.refused.front().is_some_and(is_over) {
            self.refused.pop_front();
        }
    }

    /// Refuses all requests that were taken out; what is not whole is stopped too.
    pub(super) fn answer_all(&mut self) {
        if self.unanswered == 0 {
            return;
        }
        let (refusal, answers) = (&self.refusal, &mut self.answers);
        for refused in self.refused.iter_mut().filter(|refused| refused.wants_answer) {
            put_head(answers, refusal.len(), HEADERS, END_HEADERS | END_STREAM, refused.stream);
            answers.extend_from_slice(refusal);
            if refused.is_open {
                put_head(answers, 4, RST_STREAM, 0, refused.stream);
                answers.extend(NO_ERROR.to_be_bytes());
            }
            refused.wants_answer = false;
        }
        self.unanswered = 0;
        self.refused.retain(|refused| refused.is_open);
        // Who is told and goes on all the same is left to HTTP/2.
        while self.refused.len() > UNANSWERED_MAX {
            self.refused.pop_front();
        }
    }

    /// Has the connection's window opened again by what was swallowed.
    fn give_back(&mut self, bytes: u32) {
        self.credit += bytes;
        if self.credit >= CREDIT_BYTES {
            put_head(&mut self.answers, 4, WINDOW_UPDATE, 0, 0);
            self.answers.extend(self.credit.to_be_bytes());
            self.credit = 0;
        }
    }
}

/// Whether a frame begins a stream.
fn opens(frame: &Frame, newest: u32) -> bool {
    frame.kind == HEADERS && frame.stream > newest && frame.stream % 2 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fields that are in the table, and some that are not and do not change it.
    const INDEXED: &[u8] = &[0x83, 0x86, 0x04, 1, b'/', 0x10, 1, b'a', 1, b'b'];
    /// One that is put into the table.
    const INSERTS: &[u8] = &[0x83, 0x40, 1, b'a', 1, b'b'];

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        put_head(&mut frame, payload.len(), kind, flags, stream);
        frame.extend_from_slice(payload);
        frame
    }

    fn request(stream: u32, block: &[u8]) -> Vec<u8> {
        [frame(HEADERS, END_HEADERS, stream, block), frame(DATA, END_STREAM, stream, b"12345")].concat()
    }

    fn refusal(stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, b"refusal")
    }

    fn shedding() -> Shedding {
        Shedding::new(FrameScanner::default(), 0, b"refusal".to_vec())
    }

    /// What is passed on of these bytes, in pieces of one age each.
    fn passed(shedding: &mut Shedding, bytes: &[u8], refuses: bool) -> Vec<(Age, Vec<u8>)> {
        let mut rest = bytes;
        let mut passed: Vec<(Age, Vec<u8>)> = Vec::new();
        loop {
            shedding.look(&mut if refuses { Refuses::All } else { Refuses::NONE });
            if shedding.passed().is_empty() {
                if rest.is_empty() {
                    return passed;
                }
                let read = shedding.fill(|room| {
                    let read = room.len().min(rest.len());
                    room[..read].copy_from_slice(&rest[..read]);
                    rest = &rest[read..];
                    Poll::Ready(Ok::<_, ()>(read))
                });
                assert!(read.is_ready());
                continue;
            }
            match passed.last_mut() {
                Some((age, bytes)) if *age == shedding.age => bytes.extend_from_slice(shedding.passed()),
                _ => passed.push((shedding.age, shedding.passed().to_vec())),
            }
            shedding.give(shedding.passed().len());
        }
    }

    fn answers(shedding: &mut Shedding) -> Vec<u8> {
        shedding.answer_all();
        std::mem::take(shedding.answers())
    }

    #[test]
    fn requests_are_taken_out_and_answered_unless_they_were_given_up() {
        let mut shedding = shedding();
        let ping = frame(6, 0, 0, &[7; 8]);
        let given_up = frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]);
        let head = frame(HEADERS, END_HEADERS, 5, INDEXED);
        let bytes = [request(1, INDEXED), ping.clone(), request(3, INDEXED), given_up, head].concat();
        assert_eq!(passed(&mut shedding, &bytes, true), [(Age::Young, ping)]);
        assert_eq!(shedding.take_counts(), (3, 0));
        // What is not whole is stopped.
        let stopped = frame(RST_STREAM, 0, 5, &[0; 4]);
        assert_eq!(answers(&mut shedding), [refusal(1), refusal(5), stopped].concat());
        assert!(!shedding.is_over(), "HTTP/2 does not know of 5, of which more may come");
        let rest = [frame(DATA, 0, 5, b"more"), frame(WINDOW_UPDATE, 0, 5, &[0, 0, 1, 0])].concat();
        assert_eq!(passed(&mut shedding, &rest, false), []);
        let next = request(7, INDEXED);
        assert_eq!(passed(&mut shedding, &next, false), [(Age::Young, next)]);
        assert_eq!(shedding.take_counts(), (0, 1));
        assert!(shedding.is_over());
    }

    #[test]
    fn a_head_that_changes_the_table_is_passed_on_alone_and_without_its_body() {
        let mut shedding = shedding();
        let bytes = [request(1, INDEXED), request(3, INSERTS), request(5, INDEXED)].concat();
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 3, INSERTS);
        assert_eq!(passed(&mut shedding, &bytes, true), [(Age::TooOld, head)]);
        assert_eq!(answers(&mut shedding), [refusal(1), refusal(5)].concat(), "the stack refuses 3");
        let next = request(7, INSERTS);
        assert_eq!(passed(&mut shedding, &next, false), [(Age::Young, next)]);
    }

    #[test]
    fn only_what_is_old_is_refused() {
        let mut shedding = shedding();
        let bytes = [request(1, INDEXED), request(3, INDEXED), request(5, INDEXED)].concat();
        let _ = shedding.fill(|room| {
            room[..bytes.len()].copy_from_slice(&bytes);
            Poll::Ready(Ok::<_, ()>(bytes.len()))
        });
        shedding.look(&mut Refuses::Within(request(1, INDEXED).len() + 1));
        assert_eq!(shedding.passed(), request(5, INDEXED));
        assert_eq!(answers(&mut shedding), [refusal(1), refusal(3)].concat());
    }

    #[test]
    fn a_frame_that_had_begun_is_passed_on_whole() {
        let (begun, next) = (frame(DATA, 0, 1, &[9; 100]), request(3, INDEXED));
        for cut in 1..begun.len() {
            let mut scanner = FrameScanner::default();
            scanner.scan(&begun[..cut], |_| {});
            let mut shedding = Shedding::new(scanner, 1, b"refusal".to_vec());
            let bytes = [&begun[cut..], &next].concat();
            assert_eq!(passed(&mut shedding, &bytes, true), [(Age::Young, begun[cut..].to_vec())], "{cut}");
            assert_eq!(answers(&mut shedding), refusal(3));
        }
    }

    #[test]
    fn the_window_is_opened_again_by_what_was_swallowed() {
        let mut shedding = shedding();
        let head = frame(HEADERS, END_HEADERS, 1, INDEXED);
        let data = frame(DATA, 0, 1, &[0; 16 << 10]);
        let bytes = [head, data.repeat(4)].concat();
        assert_eq!(passed(&mut shedding, &bytes, true), []);
        let opened = frame(WINDOW_UPDATE, 0, 0, &(64_u32 << 10).to_be_bytes());
        assert!(answers(&mut shedding).starts_with(&opened));
    }

    proptest! {
        /// Whatever comes, in whatever pieces, nothing panics, and without a reason to refuse all is passed on as it is.
        #[test]
        fn frames_of_any_kind_are_passed_on_as_they_are(
            frames in prop::collection::vec(
                (0..12_u8, any::<u8>(), 0..20_u32, prop::collection::vec(any::<u8>(), 0..40)),
                0..30,
            ),
            refuses: bool,
        ) {
            let bytes = frames.iter().map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload));
            let bytes = bytes.collect::<Vec<_>>().concat();
            let mut shedding = shedding();
            let passed = passed(&mut shedding, &bytes, refuses);
            let passed = passed.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>().concat();
            answers(&mut shedding);
            if !refuses {
                prop_assert_eq!(passed, bytes);
            }
        }
    }
}
