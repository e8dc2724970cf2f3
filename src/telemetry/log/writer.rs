//! Lines on their way to a stream that may take none: written by a thread of their own, lost where that is hung up.
//!
//! ```text
//!   any thread ── line ──▶ pending (bounded) ──▶ thread ── whole lines of 4 KiB at most ──▶ stderr, stdout
//!                    │ full: lost                    │ refused: lost
//! ```
//!
//! Invariants:
//! - Who logs never waits for the stream and never learns of it: a pipe that nobody reads, a reader that is gone and a
//!   full disk cost lines, which are counted.
//! - Lines stay in order, and appear as soon as the stream takes them.
//! - Lines of up to 4 KiB are each in one `write`, as a pipe that several processes write to keeps those whole.
//!
//! It is not tracing-appender's `NonBlocking`, which does the same but for the end: that prints with `eprintln!` where
//! its thread is hung up, and so panics or blocks at exit, where this must not.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// The handle of a stream's thread. Clones are the same; the thread lives as long as the process.
#[derive(Debug, Clone)]
pub(super) struct LogWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Condvar,
    /// What was taken is written or lost.
    settled: Condvar,
    lost_lines: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole lines.
    pending: Vec<u8>,
    /// Bytes that were ever put here, and those of them that are written or lost.
    taken_in: u64,
    settled: u64,
}

impl LogWriter {
    /// Writes to `stream` on a thread of this name from now on. `tell_lost` is called there with the number of lines that
    /// were lost, once the stream takes some again.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub(super) fn start(
        name: &'static str,
        stream: impl Write + Send + 'static,
        tell_lost: impl FnMut(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let drain = Drain { shared: Arc::clone(&shared), stream, is_torn: false, tell_lost, told_lines: 0 };
        thread::Builder::new().name(name.to_owned()).spawn(move || drain.run())?;
        Ok(Self(shared))
    }

    /// Puts whole lines in the queue, or loses them where it is full.
    pub(super) fn put(&self, lines: &[u8]) {
        let mut queue = self.0.queue.lock();
        if queue.pending.len() + lines.len() > PENDING_BYTES_MAX {
            drop(queue);
            return self.0.lose(lines);
        }
        queue.pending.extend_from_slice(lines);
        queue.taken_in += lines.len() as u64;
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Waits until what was put before is written or lost; whether that was done in time.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let mut queue = self.0.queue.lock();
        let taken_in = queue.taken_in;
        !self.0.settled.wait_while_for(&mut queue, |queue| queue.settled < taken_in, within).timed_out()
    }

    /// Lines that were lost since the start.
    pub(super) fn lost_lines(&self) -> u64 {
        self.0.lost_lines.load(Ordering::Relaxed)
    }
}

impl<'w> MakeWriter<'w> for LogWriter {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> &'w Self {
        self
    }
}

impl Write for &LogWriter {
    /// Takes all, and never fails.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.put(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lose(&self, lines: &[u8]) {
        self.lost_lines.fetch_add(count(lines), Ordering::Relaxed);
    }
}

/// The thread's end of the queue.
struct Drain<W, T> {
    shared: Arc<Shared>,
    stream: W,
    /// The stream took the beginning of a line and not its end.
    is_torn: bool,
    tell_lost: T,
    told_lines: u64,
}

impl<W: Write, T: FnMut(u64)> Drain<W, T> {
    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            {
                let mut queue = self.shared.queue.lock();
                queue.settled += batch.len() as u64;
                batch.clear();
                batch.shrink_to(KEPT_BYTES);
                self.shared.settled.notify_all();
                self.shared.filled.wait_while(&mut queue, |queue| queue.pending.is_empty());
                std::mem::swap(&mut queue.pending, &mut batch);
            }
            let mut has_written = false;
            let mut rest = &batch[..];
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(piece_bytes(rest));
                has_written |= self.write(piece);
                rest = others;
            }
            let lost_lines = self.shared.lost_lines.load(Ordering::Relaxed);
            if has_written && lost_lines > self.told_lines {
                (self.tell_lost)(lost_lines - self.told_lines);
                self.told_lines = lost_lines;
            }
        }
    }

    /// Writes some lines, or loses them; whether they are written.
    fn write(&mut self, lines: &[u8]) -> bool {
        if self.is_torn && self.write_all(b"\n").is_err() {
            self.shared.lose(lines);
            return false;
        }
        self.is_torn = false;
        match self.write_all(lines) {
            Ok(()) => true,
            Err(written) => {
                self.shared.lose(&lines[written..]);
                self.is_torn = written > 0 && lines[written - 1] != b'\n';
                false
            }
        }
    }

    /// Writes all, or fails with the number of bytes that are written.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(0) => return Err(written),
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process has made the pipe that it shares with this one return at once.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_EVERY),
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }
}

/// How much of `lines` goes into one `write`: whole lines, as many as a pipe takes in one piece, or a long one alone.
fn piece_bytes(lines: &[u8]) -> usize {
    let end = |part: &[u8], from: usize| part.iter().position(|byte| *byte == b'\n').map(|at| from + at + 1);
    let atomic = &lines[..lines.len().min(ATOMIC_BYTES)];
    match atomic.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => last + 1,
        None => end(&lines[atomic.len()..], atomic.len()).unwrap_or(lines.len()),
    }
}

/// Lines in `bytes`, the last also where it has no end.
fn count(bytes: &[u8]) -> u64 {
    let ends = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    ends + u64::from(bytes.last().is_some_and(|last| *last != b'\n'))
}

/// What waits at most: some thousand lines. As much again may be on its way.
const PENDING_BYTES_MAX: usize = 1 << 20;
/// What is kept of a buffer that was longer.
const KEPT_BYTES: usize = 64 << 10;
/// What a pipe takes in one piece (PIPE_BUF of Linux; POSIX grants 512 B, which no line of ours keeps to).
const ATOMIC_BYTES: usize = 4096;
const RETRY_EVERY: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{BufRead, BufReader, Read};
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn start(stream: impl Write + Send + 'static) -> LogWriter {
        LogWriter::start("test", stream, |_| {}).unwrap()
    }

    /// Each `write` takes the script's next number of bytes, or fails with its next error; at the end of the script it
    /// takes all.
    struct Scripted(VecDeque<Result<usize, ErrorKind>>, mpsc::Sender<Vec<u8>>);

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.0.pop_front().unwrap_or(Ok(bytes.len()))?;
            self.1.send(bytes[..taken].to_vec()).unwrap();
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted(
        script: impl IntoIterator<Item = Result<usize, ErrorKind>>,
    ) -> (Scripted, mpsc::Receiver<Vec<u8>>) {
        let (sender, written) = mpsc::channel();
        (Scripted(script.into_iter().collect(), sender), written)
    }

    #[test]
    fn lines_appear_at_once_and_in_order() {
        let (reader, stream) = io::pipe().unwrap();
        let (writer, mut lines) = (start(stream), BufReader::new(reader).lines());
        for number in 0..3 {
            writer.put(format!("line {number}\n").as_bytes());
            assert_eq!(lines.next().unwrap().unwrap(), format!("line {number}"), "without a flush");
        }
        for number in 0..10_000 {
            writer.put(format!("{number}\n").as_bytes());
        }
        for number in 0..10_000 {
            assert_eq!(lines.next().unwrap().unwrap(), number.to_string());
        }
        assert!(writer.flush(LONG));
        assert_eq!(writer.lost_lines(), 0);
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_holds_nobody_up() {
        let (mut reader, stream) = io::pipe().unwrap();
        let (tell, told) = mpsc::channel();
        let writer = LogWriter::start("test", stream, move |lines| tell.send(lines).unwrap()).unwrap();
        let line = format!("{}\n", "x".repeat(999));
        // More than the pipe, the batch and the queue hold together.
        for _ in 0..10_000 {
            writer.put(line.as_bytes());
        }
        assert!(!writer.flush(Duration::from_millis(50)), "it says that it was in vain");
        let lost = writer.lost_lines();
        assert!((5_000..10_000).contains(&lost), "{lost}");
        // Once it is read again, it has exactly the lines that it had room for, and the loss is reported.
        let reading = thread::spawn(move || {
            let mut bytes = vec![0; (10_000 - lost as usize) * line.len()];
            reader.read_exact(&mut bytes).unwrap();
            assert!(bytes.chunks(line.len()).all(|found| found == line.as_bytes()));
        });
        assert_eq!(told.recv_timeout(LONG).unwrap(), lost);
        reading.join().unwrap();
        assert!(writer.flush(LONG));
        assert_eq!(writer.lost_lines(), lost);
    }

    #[test]
    fn a_reader_that_is_gone_costs_every_line_and_nothing_else() {
        let (reader, stream) = io::pipe().unwrap();
        drop(reader);
        let writer = start(stream);
        for sent in 1..=3 {
            writer.put(b"one\n");
            assert!(writer.flush(LONG));
            assert_eq!(writer.lost_lines(), sent);
        }
    }

    #[test]
    fn a_full_disk_costs_what_it_does_not_take_and_the_next_line_begins_anew() {
        // The disk takes 5 bytes, is full, and has room again.
        let full = Err(ErrorKind::StorageFull);
        let (stream, written) = scripted([Ok(5), full, full, Ok(1), Ok(4)]);
        let writer = start(stream);
        for (line, lost) in [("one\ntwo\n", 1), ("three\n", 2), ("four\n", 2)] {
            writer.put(line.as_bytes());
            assert!(writer.flush(LONG));
            assert_eq!(writer.lost_lines(), lost, "{line:?}");
        }
        drop(writer);
        let text: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!(String::from_utf8(text).unwrap(), "one\nt\nfour\n");
    }

    #[test]
    fn a_stream_that_returns_at_once_is_tried_again() {
        let (stream, written) = scripted([
            Err(ErrorKind::WouldBlock),
            Err(ErrorKind::Interrupted),
            Ok(2),
            Err(ErrorKind::WouldBlock),
        ]);
        let writer = start(stream);
        writer.put(b"whole\n");
        assert!(writer.flush(LONG));
        let text: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!((text.as_slice(), writer.lost_lines()), (&b"whole\n"[..], 0));
    }

    #[test]
    fn each_write_has_whole_lines_and_is_no_longer_than_a_pipe_takes_in_one_piece() {
        let lines = |lengths: &[usize]| -> Vec<u8> {
            lengths.iter().flat_map(|length| [vec![b'x'; length - 1], vec![b'\n']].concat()).collect()
        };
        assert_eq!(piece_bytes(&lines(&[10, 20])), 30);
        assert_eq!(piece_bytes(&lines(&[4_000, 97])), 4_000);
        assert_eq!(piece_bytes(&lines(&[4_000, 96, 5])), 4_096);
        assert_eq!(piece_bytes(&lines(&[9_000, 5])), 9_000, "a long one goes alone");
        assert_eq!(piece_bytes(&[b'x'; 9_000]), 9_000);
    }
}
