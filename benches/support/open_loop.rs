//! Gets that are due at times that do not depend on who answers them, over raw sockets, so that the load costs little beside
//! what is measured: unary calls over HTTP/2, or Redis's protocol.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use larder::clock::monotonic;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How long a caller waits.
pub(crate) const DEADLINE: Duration = Duration::from_millis(100);
/// Connections of the load.
pub(crate) const CONNECTIONS: usize = 32;
/// Calls that a connection has open at the most; what is due beyond is not sent.
const OPEN_MAX: usize = 256;
/// The same in a closed loop.
const OPEN_CLOSED: usize = 32;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Larder,
    Redis,
}

/// How calls are due.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrivals {
    /// A call follows an answer.
    Closed,
    /// This many a second, evenly.
    Open { per_second: f64 },
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    seconds: f64,
    /// Answered within the deadline, and how long it took, in microseconds.
    in_time: Vec<u32>,
    late: u64,
    refused: u64,
    /// Connections that were lost.
    lost: u64,
}

impl Outcome {
    /// Calls a second that were answered within their deadlines.
    pub(crate) fn goodput(&self) -> f64 {
        self.in_time.len() as f64 / self.seconds
    }

    /// One line: goodput, late and refused a second, the median and the 99th percentile in milliseconds, connections lost.
    pub(crate) fn line(mut self) -> String {
        self.in_time.sort_unstable();
        let quantile = |part: f64| {
            let at = (self.in_time.len().saturating_sub(1) as f64 * part) as usize;
            f64::from(self.in_time.get(at).copied().unwrap_or(0)) / 1_000.0
        };
        let (goodput, per_second) = (self.goodput(), |calls: u64| calls as f64 / self.seconds);
        let (p50, p99) = (quantile(0.5), quantile(0.99));
        format!("{goodput} {} {} {p50} {p99} {}", per_second(self.late), per_second(self.refused), self.lost)
    }
}

/// A call that has no answer yet.
struct Call {
    due: Instant,
    has_message: bool,
    is_done: bool,
}

struct Connection {
    protocol: Protocol,
    socket: TcpStream,
    out: Vec<u8>,
    /// What came and is not whole.
    came: Vec<u8>,
    /// Those from the oldest without an answer on, and the number of that.
    calls: VecDeque<Call>,
    first: usize,
    open: usize,
    is_lost: bool,
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

impl Connection {
    fn open(protocol: Protocol, address: &str) -> Self {
        let socket = TcpStream::connect(address).expect("it listens");
        socket.set_nodelay(true).and_then(|()| socket.set_nonblocking(true)).expect("a socket takes options");
        let mut out = Vec::new();
        if protocol == Protocol::Larder {
            out.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            // Windows that never close.
            frame(&mut out, SETTINGS, 0, 0, &[0, 4, 0x3f, 0xff, 0xff, 0xff]);
            frame(&mut out, WINDOW_UPDATE, 0, 0, &0x3fff_0000_u32.to_be_bytes());
        }
        let (came, calls) = (Vec::new(), VecDeque::new());
        Self { protocol, socket, out, came, calls, first: 0, open: 0, is_lost: false }
    }

    /// Sends a get of a key of 16 B, as `larder bench` or `prefill_redis` write it.
    fn send(&mut self, key: usize, due: Instant) {
        let number = self.first + self.calls.len();
        match self.protocol {
            Protocol::Redis => {
                self.out.extend(format!("*2\r\n$3\r\nGET\r\n$16\r\n{key:016}\r\n").as_bytes());
            }
            Protocol::Larder => {
                let stream = number as u32 * 2 + 1;
                frame(&mut self.out, HEADERS, END_HEADERS, stream, &head(number == 0));
                let message = [&[0, 0, 0, 0, 18, 0x12, 16], format!("bench:{key:010}").as_bytes()].concat();
                frame(&mut self.out, 0, END_STREAM, stream, &message);
            }
        }
        self.calls.push_back(Call { due, has_message: false, is_done: false });
        self.open += 1;
    }

    /// Writes and reads what can be; whether that was anything.
    fn poll(&mut self, buffer: &mut [u8], now: Instant, outcome: &mut Outcome) -> bool {
        let mut has_moved = false;
        if !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(sent) => {
                    self.out.drain(..sent);
                    has_moved = true;
                }
                Err(error) => self.is_lost |= error.kind() != ErrorKind::WouldBlock,
            }
        }
        match self.socket.read(buffer) {
            Ok(read) => {
                self.is_lost |= read == 0;
                self.came.extend(&buffer[..read]);
                let came = std::mem::take(&mut self.came);
                let used = match self.protocol {
                    Protocol::Redis => self.read_replies(&came, now, outcome),
                    Protocol::Larder => self.read_frames(&came, now, outcome),
                };
                self.came = came[used..].to_vec();
                has_moved = true;
            }
            Err(error) => self.is_lost |= error.kind() != ErrorKind::WouldBlock,
        }
        has_moved
    }

    /// Reads whole replies, and answers how many bytes that were.
    fn read_replies(&mut self, came: &[u8], now: Instant, outcome: &mut Outcome) -> usize {
        let mut used = 0;
        while let Some(line) = came[used..].iter().position(|byte| *byte == b'\n') {
            let len =
                std::str::from_utf8(&came[used + 1..used + line - 1]).ok().and_then(|len| len.parse().ok());
            let len: usize = len.expect("values are stored, so that a reply is a bulk string");
            let end = used + line + 1 + len + 2;
            if end > came.len() {
                break;
            }
            used = end;
            if let Some(call) = self.calls.front_mut() {
                call.has_message = true;
            }
            self.finish(self.first, now, outcome);
        }
        used
    }

    fn read_frames(&mut self, came: &[u8], now: Instant, outcome: &mut Outcome) -> usize {
        let mut used = 0;
        while let Some(head) = came.get(used..used + 9) {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some(payload) = came.get(used + 9..used + 9 + len) else { break };
            used += 9 + len;
            let number = stream as usize / 2;
            match kind {
                0 if len > 0 => {
                    let call = number.checked_sub(self.first).and_then(|at| self.calls.get_mut(at));
                    call.into_iter().for_each(|call| call.has_message = true);
                }
                HEADERS if flags & END_STREAM != 0 => self.finish(number, now, outcome),
                RST_STREAM => self.finish(number, now, outcome),
                SETTINGS if flags & ACK == 0 => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
                GOAWAY => self.is_lost = true,
                _ => {}
            }
        }
        used
    }

    fn finish(&mut self, number: usize, now: Instant, outcome: &mut Outcome) {
        let Some(call) = number.checked_sub(self.first).and_then(|at| self.calls.get_mut(at)) else { return };
        if std::mem::replace(&mut call.is_done, true) {
            return;
        }
        self.open -= 1;
        let took = now.saturating_duration_since(call.due);
        match call.has_message {
            true if took <= DEADLINE => outcome.in_time.push(took.as_micros() as u32),
            true => outcome.late += 1,
            false => outcome.refused += 1,
        }
        while self.calls.front().is_some_and(|call| call.is_done) {
            self.calls.pop_front();
            self.first += 1;
        }
    }
}

/// A request's head: the first puts its fields into the table, the others name them there.
fn head(is_first: bool) -> Vec<u8> {
    const FIELDS: [(&str, &str); 5] = [
        (":path", "/larder.v1.Cache/Get"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-timeout", "100m"),
    ];
    let mut head = vec![0x83, 0x86];
    if is_first {
        for (name, value) in FIELDS {
            head.push(0x40);
            for text in [name, value] {
                head.push(text.len() as u8);
                head.extend(text.as_bytes());
            }
        }
    } else {
        head.extend([66, 65, 64, 63, 62].map(|at| 0x80 | at));
    }
    head
}

/// Gets of `keys` keys for a while, of which the first third is not counted.
pub(crate) fn run(
    protocol: Protocol,
    address: &str,
    arrivals: Arrivals,
    (keys, span): (usize, Duration),
) -> Outcome {
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| Connection::open(protocol, address)).collect();
    let (mut rng, mut buffer) = (SmallRng::seed_from_u64(1), vec![0; 256 << 10]);
    let (begun, warm_up) = (monotonic(), span / 3);
    let (mut outcome, mut due, mut lost, mut is_counted) = (Outcome::default(), 0, 0, false);
    loop {
        let now = monotonic();
        let elapsed = now.saturating_duration_since(begun);
        if elapsed >= span {
            break;
        }
        if !is_counted && elapsed >= warm_up {
            (outcome, is_counted) = (Outcome::default(), true);
        }
        if let Arrivals::Open { per_second } = arrivals {
            while due < (elapsed.as_secs_f64() * per_second) as usize {
                due += 1;
                let connection = &mut connections[due % CONNECTIONS];
                if connection.open < OPEN_MAX {
                    let at = begun + Duration::from_secs_f64(due as f64 / per_second);
                    connection.send(rng.random_range(0..keys), at);
                }
            }
        }
        let mut has_moved = false;
        for connection in &mut connections {
            while matches!(arrivals, Arrivals::Closed) && connection.open < OPEN_CLOSED {
                connection.send(rng.random_range(0..keys), now);
            }
            has_moved |= connection.poll(&mut buffer, now, &mut outcome);
            if connection.is_lost {
                lost += 1;
                *connection = Connection::open(protocol, address);
            }
        }
        if !has_moved {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    outcome.seconds = (span - warm_up).as_secs_f64();
    outcome.lost = lost;
    outcome
}
