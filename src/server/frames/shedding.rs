//! Requests that lay unread for too long are refused before HTTP/2 sees them.
//!
//! What has piled up in a connection's socket, and at its client, while the connection was parked or could not be read to its end, is
//! too old by then, and a refusal that goes the way of an answer costs a good part of one. So until the socket is empty,
//! frames are looked at one by one: those of requests are taken out, and answered in the end with a refusal that was made
//! once, unless the client has given them up itself.
//!
//! A request's head may change the table by which later heads are read (RFC 7541 §2.3.2). HTTP/2 has to see such a head: it is
//! passed on as a request without a body, in a piece of its own, which the stack refuses.

use std::collections::VecDeque;
use std::task::Poll;

use super::scanner::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameScanner, HEADERS, PADDED, PRIORITY_FIELDS,
};
use super::scanner::{RST_STREAM, WINDOW_UPDATE};

/// Requests that were taken out and are not answered; with more of them, all are answered.
const UNANSWERED_MAX: usize = 4_096;
/// Of refused requests, the bytes that are given back to the peer's window together.
const CREDIT_BYTES: u32 = 64 << 10;
/// What is read and not looked at: more than a frame.
const BUFFER_BYTES: usize = 64 << 10;
const FRAME_HEAD_BYTES: usize = 9;
const NO_ERROR: u32 = 0;

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
    /// Streams whose requests were refused, as far as something of them may come or they are not answered, in their order.
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
    /// Looks at what comes from now on. The bytes before were followed by `begun`, in which `newest` was the newest stream; refusals
    /// have this block of fields.
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
    /// not begun.
    pub(super) fn is_over(&self) -> bool {
        self.unseen().is_empty()
            && self.passed.is_empty()
            && self.answers.is_empty()
            && self.begun.is_between_frames()
            && self.newest_passed >= self.newest_refused
            && self.unanswered == 0
    }

    /// Passes on what is left as it is: nothing more will come.
    pub(super) fn end(&mut self) {
        self.passed.extend_from_slice(&self.buffer[self.seen..self.filled]);
        self.seen = self.filled;
    }

    /// Looks at frames, and refuses requests if `refuses`. Ends when what is passed on is of another age than before, which it
    /// tells.
    pub(super) fn look(&mut self, refuses: bool) -> Option<Age> {
        self.pass_begun();
        let mut changed = None;
        while let Some(frame) = Head::read(self.unseen()) {
            let whole = FRAME_HEAD_BYTES + frame.bytes;
            if self.unseen().len() < whole {
                break;
            }
            let is_old = refuses && frame.opens(self.newest_passed.max(self.newest_refused));
            let takes_out = is_old && frame.flags & END_HEADERS != 0 && !self.changes_table(&frame);
            let age = if is_old { Age::TooOld } else { Age::Young };
            if frame.kind == HEADERS && !takes_out && age != self.age {
                // Only what has one age is given out at a time.
                if !self.passed.is_empty() {
                    break;
                }
                self.age = age;
                changed = Some(age);
            }
            if takes_out {
                self.take_out(&frame);
            } else if is_old {
                self.pass_without_body(&frame);
            } else {
                self.pass_or_swallow(&frame);
            }
            self.seen += whole;
        }
        if self.unanswered > UNANSWERED_MAX {
            self.answer_all();
        }
        changed
    }

    /// Passes on the rest of the frame that had begun.
    fn pass_begun(&mut self) {
        while !self.begun.is_between_frames() && self.seen < self.filled {
            let rest = &self.buffer[self.seen..self.filled];
            let bytes = self.begun.bytes_expected().min(rest.len());
            let newest = &mut self.newest_passed;
            self.begun.scan(&rest[..bytes], |frame| *newest = frame.newest(*newest));
            self.passed.extend_from_slice(&rest[..bytes]);
            self.seen += bytes;
        }
    }

    /// The payload of a frame that is whole.
    fn payload(&self, frame: &Head) -> &[u8] {
        &self.buffer[self.seen + FRAME_HEAD_BYTES..][..frame.bytes]
    }

    /// Whether a head changes the table, or is of a form that is not looked at.
    fn changes_table(&self, frame: &Head) -> bool {
        let payload = self.payload(frame);
        let fields = match frame.flags & (PADDED | PRIORITY_FIELDS) {
            0 => Some(payload),
            PRIORITY_FIELDS => payload.get(5..),
            _ => None,
        };
        fields.is_none_or(changes_table)
    }

    fn take_out(&mut self, frame: &Head) {
        self.requests_refused += 1;
        self.newest_refused = frame.stream;
        self.refuse(frame, true);
    }

    fn refuse(&mut self, frame: &Head, wants_answer: bool) {
        let is_open = frame.flags & END_STREAM == 0;
        self.unanswered += usize::from(wants_answer);
        self.refused.push_back(Refused { stream: frame.stream, is_open, wants_answer });
    }

    /// A head that HTTP/2 has to see, as a request that has no more than that.
    fn pass_without_body(&mut self, frame: &Head) {
        self.requests_refused += 1;
        let at = self.passed.len();
        self.pass(frame);
        self.passed[at + 4] |= END_STREAM;
        self.newest_passed = frame.stream;
        self.refuse(frame, false);
    }

    fn pass(&mut self, frame: &Head) {
        let whole = FRAME_HEAD_BYTES + frame.bytes;
        self.passed.extend_from_slice(&self.buffer[self.seen..][..whole]);
    }

    fn pass_or_swallow(&mut self, frame: &Head) {
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
                self.give_back(u32::try_from(frame.bytes).unwrap_or(u32::MAX));
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

/// A frame's head.
#[derive(Debug)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
    bytes: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & !(1 << 31);
        Some(Self { kind, flags, stream, bytes: u32::from_be_bytes([0, a, b, c]) as usize })
    }

    /// Whether it begins a stream.
    fn opens(&self, newest: u32) -> bool {
        self.kind == HEADERS && self.stream > newest && self.stream % 2 == 1
    }
}

fn put_head(out: &mut Vec<u8>, bytes: usize, kind: u8, flags: u8, stream: u32) {
    let [_, a, b, c] = u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    out.extend([a, b, c, kind, flags]);
    out.extend(stream.to_be_bytes());
}

/// Whether a block of fields changes the table of fields, or cannot be read (RFC 7541 §6).
fn changes_table(mut block: &[u8]) -> bool {
    while let Some(&first) = block.first() {
        let read = match first {
            0x80.. => skip_integer(&mut block, 7).is_some(),
            0x20.. => return true,
            _ => skip_literal(&mut block).is_some(),
        };
        if !read {
            return true;
        }
    }
    false
}

/// A field that is not put into the table.
fn skip_literal(block: &mut &[u8]) -> Option<()> {
    if skip_integer(block, 4)? == 0 {
        skip_string(block)?;
    }
    skip_string(block)
}

fn skip_string(block: &mut &[u8]) -> Option<()> {
    let bytes = skip_integer(block, 7)?;
    *block = block.get(bytes..)?;
    Some(())
}

/// An integer with a prefix of so many bits (RFC 7541 §5.1), of at most four bytes.
fn skip_integer(block: &mut &[u8], bits: u8) -> Option<usize> {
    let (&first, mut rest) = block.split_first()?;
    let max = (1_u8 << bits).wrapping_sub(1);
    let mut value = usize::from(first & max);
    if value == usize::from(max) {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 14 {
                return None;
            }
        }
    }
    *block = rest;
    Some(value)
}

/// A response's head as a block of fields that says the same to every peer: nothing of it is put into a table.
pub(super) fn field_block<B>(response: &http::Response<B>) -> Vec<u8> {
    /// `:status: 200` in the static table.
    const STATUS_200: u8 = 0x88;
    let mut block = vec![STATUS_200];
    for (name, value) in response.headers() {
        block.push(0);
        put_string(&mut block, name.as_str().as_bytes());
        put_string(&mut block, value.as_bytes());
    }
    block
}

fn put_string(block: &mut Vec<u8>, bytes: &[u8]) {
    const PREFIX: usize = 0x7f;
    if bytes.len() < PREFIX {
        block.push(bytes.len() as u8);
    } else {
        block.push(PREFIX as u8);
        let mut rest = bytes.len() - PREFIX;
        while rest >= 0x80 {
            block.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(bytes);
}
