//! Scrapes: pages of metrics, which may take long to make, kept away from the thread that answers probes.
//!
//! Pages are made on one blocking thread, one at a time. A page is given to every scrape that asked before it was
//! begun, so it shows everything that was done before it was asked for. After each page the thread rests for [`RESTS`]
//! times as long as making it took. At most [`WAITING_MAX`] scrapes wait for a page; the next one is answered 503. The
//! memory for pages is bounded too: slow readers share one copy, and are cut off in the end.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::clock::{monotonic, since};
use crate::telemetry::Format;

/// Making pages takes a quarter of a processor at the most, …
const RESTS: u32 = 3;
/// … and keeps nobody waiting for longer than this beside.
const REST_MAX: Duration = Duration::from_millis(250);
/// Scrapes that may wait for a page at once.
pub(super) const WAITING_MAX: usize = 16;

/// How a page is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// Makes pages and keeps the latest. Clones are the same.
#[derive(Clone)]
pub(super) struct Scrapes {
    shared: Arc<Shared>,
    waiting: Arc<Semaphore>,
}

struct Shared {
    render: Box<dyn Fn(Format) -> String + Send + Sync>,
    /// Held while a page is made; before when the next is not begun.
    making: Mutex<Option<Instant>>,
    latest: Mutex<Vec<Page>>,
}

/// A page that was made.
struct Page {
    format: Format,
    encoding: Encoding,
    begun: Instant,
    bytes: Bytes,
}

impl Scrapes {
    /// Makes pages by `render`, which may take long.
    pub(super) fn new(render: impl Fn(Format) -> String + Send + Sync + 'static) -> Self {
        let shared = Shared { render: Box::new(render), making: Mutex::default(), latest: Mutex::default() };
        Self { shared: Arc::new(shared), waiting: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// A page; `None`: too many wait for one already.
    pub(super) async fn page(&self, format: Format, encoding: Encoding) -> Option<Bytes> {
        let asked = monotonic();
        // The permit is held until the page is made, also if the scrape has gone meanwhile.
        let waits = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        let shared = Arc::clone(&self.shared);
        let made = spawn_blocking(move || {
            let page = shared.make(asked, format, encoding);
            drop(waits);
            page
        });
        // It fails where making one panics, or the runtime ends.
        made.await.ok()
    }
}

impl Shared {
    /// The latest page, if it was begun after it was asked for.
    fn latest(&self, asked: Instant, format: Format, encoding: Encoding) -> Option<Bytes> {
        let latest = self.latest.lock();
        let page = latest.iter().find(|page| page.format == format && page.encoding == encoding)?;
        (page.begun >= asked).then(|| page.bytes.clone())
    }

    /// Makes a page, unless another has while this one waited for its turn.
    fn make(&self, asked: Instant, format: Format, encoding: Encoding) -> Bytes {
        let mut rests_until = self.making.lock();
        if let Some(bytes) = self.latest(asked, format, encoding) {
            return bytes;
        }
        if let Some(until) = *rests_until {
            std::thread::sleep(until.saturating_duration_since(monotonic()));
        }
        let begun = monotonic();
        let plain = self.latest(asked, format, Encoding::Identity).unwrap_or_else(|| {
            let bytes = Bytes::from((self.render)(format));
            self.keep(Page { format, encoding: Encoding::Identity, begun, bytes: bytes.clone() });
            bytes
        });
        let bytes = match encoding {
            Encoding::Identity => plain,
            Encoding::Gzip => {
                let bytes = gzip(&plain);
                self.keep(Page { format, encoding, begun, bytes: bytes.clone() });
                bytes
            }
        };
        *rests_until = Some(monotonic() + (since(begun) * RESTS).min(REST_MAX));
        bytes
    }

    fn keep(&self, page: Page) {
        let mut latest = self.latest.lock();
        latest.retain(|other| other.format != page.format || other.encoding != page.encoding);
        latest.push(page);
    }
}

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    // A vector takes whatever is written to it.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_before_a_page_is_begun_are_given_that_one() {
        let (go, gone) = mpsc::channel::<()>();
        let (made, gone) = (Arc::new(AtomicUsize::new(0)), Mutex::new(gone));
        let begun = Arc::clone(&made);
        let scrapes = Scrapes::new(move |format| {
            let number = begun.fetch_add(1, Ordering::Relaxed);
            let _ = gone.lock().recv();
            format!("{format:?} {number}")
        });
        let ask = |format, encoding| {
            let scrapes = scrapes.clone();
            tokio::spawn(async move { scrapes.page(format, encoding).await.unwrap() })
        };
        let all_wait_but = async |left: usize| {
            while scrapes.waiting.available_permits() > left {
                tokio::task::yield_now().await;
            }
        };
        let first = ask(Format::OpenMetrics, Encoding::Identity);
        while made.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..5).map(|_| ask(Format::OpenMetrics, Encoding::Identity)).collect();
        let zipped = ask(Format::OpenMetrics, Encoding::Gzip);
        let other = ask(Format::Prometheus, Encoding::Identity);
        all_wait_but(WAITING_MAX - 8).await;
        drop(go);
        assert_eq!(first.await.unwrap(), "OpenMetrics 0");
        let mut told: Vec<Bytes> = join_all(later).await.into_iter().map(|page| page.unwrap()).collect();
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*zipped.await.unwrap()), &mut plain)
            .unwrap();
        told.push(plain.into());
        told.dedup();
        let [one] = &told[..] else { panic!("{told:?}") };
        assert!(one.starts_with(b"OpenMetrics ") && one != "OpenMetrics 0", "{one:?}");
        assert!(other.await.unwrap().starts_with(b"Prometheus "));
    }

    #[tokio::test]
    async fn a_page_tells_of_what_was_done_before_it_was_asked_for() {
        let made = AtomicUsize::new(0);
        let scrapes = Scrapes::new(move |_| made.fetch_add(1, Ordering::Relaxed).to_string());
        for number in 0..3 {
            let page = scrapes.page(Format::Prometheus, Encoding::Identity).await.unwrap();
            assert_eq!(page, number.to_string());
        }
    }

    #[tokio::test]
    async fn a_page_that_takes_long_holds_up_nobody_else_and_not_more_than_some_wait_for_it() {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let render = move |_| {
            let _ = gone.lock().recv();
            "page".to_owned()
        };
        let scrapes = Scrapes::new(render);
        let ask = || {
            let scrapes = scrapes.clone();
            tokio::spawn(async move { scrapes.page(Format::Prometheus, Encoding::Identity).await })
        };
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| ask()).collect();
        // This thread, which is the only one of the runtime, goes on meanwhile.
        while scrapes.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask().await.unwrap(), None);
        // One that has gone counts all the same, or going and coming back would make as many pages as one likes.
        waiting.swap_remove(0).abort();
        assert_eq!(ask().await.unwrap(), None);
        drop(go);
        for page in join_all(waiting).await {
            assert_eq!(page.unwrap().unwrap(), "page");
        }
        assert_eq!(ask().await.unwrap().unwrap(), "page");
    }
}
