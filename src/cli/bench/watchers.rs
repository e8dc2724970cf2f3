//! Watch streams of everything that are read while a benchmark runs, each on a connection of its own, and what they were
//! told. Messages are counted where they lie: who decoded each would be what is measured.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread::JoinHandle;

use bytes::{Buf, BytesMut};
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use http_body_util::BodyExt;
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

use super::connection::Connection;
use crate::cli::exit::{CliError, local};
use crate::clock::{Clock, SystemClock};
use crate::endpoint::Endpoint;
use crate::entry::Version;
use crate::grpc::frame;
use crate::proto::wire::Reader;

const WATCH: PathAndQuery = PathAndQuery::from_static("/larder.v1.Cache/Watch");
/// Fields of a WatchResponse and of its Invalidation.
const INVALIDATION: u32 = 5;
const DISCONTINUITY: u32 = 7;
const VERSION: u32 = 6;
/// The longest time from a change to its event that is told apart, in µs.
const PROPAGATION_US_MAX: u64 = 60_000_000;

/// What all watchers together were told.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) watchers: usize,
    pub(super) events: u64,
    pub(super) discontinuities: u64,
    /// From a change to its event, in µs, of the first event of what was read at once. The clocks of both machines are
    /// taken to be the same.
    pub(super) propagation_us: Histogram<u64>,
    /// What was wrong with a stream that ended.
    pub(super) broken: Option<String>,
}

/// Watchers that run on a thread of their own.
pub(super) struct Watchers {
    thread: JoinHandle<Result<Watched, CliError>>,
    stop: watch::Sender<bool>,
}

impl Watchers {
    /// Opens `count` streams; all of them have begun when this returns.
    pub(super) fn start(endpoint: &Endpoint, count: usize) -> Result<Self, CliError> {
        let (stop, stopped) = watch::channel(false);
        let (begun, all) = oneshot::channel();
        let endpoint = endpoint.clone();
        let thread = std::thread::spawn(move || run(&endpoint, count, stopped, begun));
        // Where they did not begin, the thread has ended and says why.
        let _ = all.blocking_recv();
        Ok(Self { thread, stop })
    }

    /// Ends them.
    pub(super) fn stop(self) -> Result<Watched, CliError> {
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| CliError::Refused("the watchers' thread panicked".to_owned()))?
    }
}

fn run(
    endpoint: &Endpoint,
    count: usize,
    mut stopped: watch::Receiver<bool>,
    begun: oneshot::Sender<()>,
) -> Result<Watched, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(local("cannot start the watchers' runtime"))?;
    let propagation_us = Histogram::new_with_max(PROPAGATION_US_MAX, 3)
        .map_err(|error| CliError::Usage(format!("the histogram of propagation: {error}")))?;
    let watched = Watched { watchers: count, events: 0, discontinuities: 0, propagation_us, broken: None };
    let watched = Rc::new(RefCell::new(watched));
    LocalSet::new().block_on(&runtime, async {
        let mut waiting = Vec::new();
        for _ in 0..count {
            let (begun, has_begun) = oneshot::channel();
            waiting.push(has_begun);
            tokio::task::spawn_local(watcher(endpoint.clone(), Rc::clone(&watched), begun));
        }
        for has_begun in waiting {
            // One that broke says so in what was watched.
            let _ = has_begun.await;
        }
        let _ = begun.send(());
        let _ = stopped.wait_for(|stopped| *stopped).await;
    });
    let watched = watched.borrow().clone();
    match &watched.broken {
        Some(why) => Err(CliError::Refused(format!("a Watch stream broke: {why}"))),
        None => Ok(watched),
    }
}

async fn watcher(endpoint: Endpoint, watched: Rc<RefCell<Watched>>, begun: oneshot::Sender<()>) {
    if let Err(why) = read(&endpoint, &watched, begun).await {
        watched.borrow_mut().broken.get_or_insert(why);
    }
}

async fn read(
    endpoint: &Endpoint,
    watched: &RefCell<Watched>,
    begun: oneshot::Sender<()>,
) -> Result<(), String> {
    let (connection, clock) = (Connection::new(endpoint), SystemClock::new());
    let path = connection.method(WATCH);
    let uri = path.map_err(|error| error.to_string())?;
    let response = connection.open_stream(uri, &[]).await.map_err(|status| status.message().to_owned())?;
    if let Some(status) = tonic::Status::from_header_map(response.headers()) {
        return Err(status.message().to_owned());
    }
    let (mut body, mut begun) = (response.into_body(), Some(begun));
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Ok(data) = frame.into_data() else { return Err("the node has ended it".to_owned()) };
        if let Some(begun) = begun.take() {
            let _ = begun.send(());
        }
        rest.extend_from_slice(&data);
        let now = Version::clock_at(clock.now().unix_us).unwrap_or_default();
        note(&mut rest, &mut watched.borrow_mut(), now);
    }
    Ok(())
}

/// Counts the messages that are whole, and leaves the rest; `now` is the time as versions have it, in µs.
fn note(rest: &mut BytesMut, watched: &mut Watched, now: u64) {
    let mut is_first = true;
    while let Some((message, _)) = frame::split(rest) {
        let whole = frame::PREFIX + message.len();
        let mut fields = Reader::unlimited(message);
        while let Ok(Some((number, field))) = fields.next() {
            match number {
                INVALIDATION => {
                    watched.events += 1;
                    let invalidation = field.bytes(number).unwrap_or_default();
                    if std::mem::take(&mut is_first)
                        && let Some(version) = version(invalidation)
                    {
                        let passed = now.saturating_sub(version.clock());
                        watched.propagation_us.saturating_record(passed);
                    }
                }
                DISCONTINUITY => watched.discontinuities += 1,
                _ => {}
            }
        }
        rest.advance(whole);
    }
}

fn version(invalidation: &[u8]) -> Option<Version> {
    let mut fields = Reader::unlimited(invalidation);
    while let Ok(Some((number, field))) = fields.next() {
        if number == VERSION {
            return field.fixed64(number).ok().map(Version);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::v1;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let event = |event| v1::WatchResponse { incarnation: 1, event: Some(event), ..Default::default() };
        let version = Version::of_clock(1_000).0;
        let invalidation = v1::Invalidation { version, ..v1::Invalidation::default() };
        let messages = [
            event(v1::watch_response::Event::Invalidation(invalidation)),
            event(v1::watch_response::Event::Heartbeat(v1::Heartbeat::default())),
            event(v1::watch_response::Event::Discontinuity(v1::Discontinuity::default())),
        ];
        let mut bytes = Vec::new();
        for message in messages {
            bytes.push(0);
            bytes.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
            message.encode(&mut bytes).unwrap();
        }
        for length in 1..bytes.len() {
            let propagation_us = Histogram::new_with_max(PROPAGATION_US_MAX, 3).unwrap();
            let mut watched =
                Watched { watchers: 1, events: 0, discontinuities: 0, propagation_us, broken: None };
            let mut rest = BytesMut::new();
            for piece in bytes.chunks(length) {
                rest.extend_from_slice(piece);
                note(&mut rest, &mut watched, 1_250);
            }
            assert_eq!((watched.events, watched.discontinuities, rest.len()), (1, 1, 0));
            assert_eq!(watched.propagation_us.max(), 250);
        }
    }
}
