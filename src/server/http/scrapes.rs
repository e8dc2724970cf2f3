//! Scrapes: pages of metrics, which may take long to make, kept away from the thread that answers probes.
//!
//! A page is made on a thread that may block, one at a time however many ask, and given to all who ask within
//! [`FRESH`]. No more than [`WAITING_MAX`] wait for one: whoever comes then is told to come again. What is held of pages
//! is bounded too: those who read slowly share what they read, and are cut in the end.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::clock::monotonic;
use crate::telemetry::Format;

/// How old a page may be that is given out. Scrapers ask every few seconds.
pub(super) const FRESH: Duration = Duration::from_millis(250);
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
    fresh: Duration,
    /// Held while a page is made.
    making: Mutex<()>,
    latest: Mutex<Vec<Page>>,
}

/// A page that was made.
struct Page {
    format: Format,
    encoding: Encoding,
    made: Instant,
    bytes: Bytes,
}

impl Scrapes {
    /// Makes pages by `render`, which may take long, and gives them out while they are `fresh`.
    pub(super) fn new(render: impl Fn(Format) -> String + Send + Sync + 'static, fresh: Duration) -> Self {
        let shared =
            Shared { render: Box::new(render), fresh, making: Mutex::default(), latest: Mutex::default() };
        Self { shared: Arc::new(shared), waiting: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// A page; `None`: too many wait for one already.
    pub(super) async fn page(&self, format: Format, encoding: Encoding) -> Option<Bytes> {
        if let Some(bytes) = self.shared.latest(format, encoding) {
            return Some(bytes);
        }
        // It counts until the page is made, also where whoever asked has gone meanwhile.
        let waits = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        let shared = Arc::clone(&self.shared);
        let made = spawn_blocking(move || {
            let page = shared.make(format, encoding);
            drop(waits);
            page
        });
        // It fails where making one panics, or the runtime ends.
        made.await.ok()
    }
}

impl Shared {
    fn latest(&self, format: Format, encoding: Encoding) -> Option<Bytes> {
        let latest = self.latest.lock();
        let page = latest.iter().find(|page| page.format == format && page.encoding == encoding)?;
        (page.made.elapsed() < self.fresh).then(|| page.bytes.clone())
    }

    /// Makes a page, unless another has while this one waited for its turn.
    fn make(&self, format: Format, encoding: Encoding) -> Bytes {
        let _one_at_a_time = self.making.lock();
        if let Some(bytes) = self.latest(format, encoding) {
            return bytes;
        }
        let plain = self.latest(format, Encoding::Identity).unwrap_or_else(|| {
            let made = monotonic();
            let bytes = Bytes::from((self.render)(format));
            self.keep(Page { format, encoding: Encoding::Identity, made, bytes: bytes.clone() });
            bytes
        });
        if encoding == Encoding::Identity {
            return plain;
        }
        let made = monotonic();
        let bytes = gzip(&plain);
        self.keep(Page { format, encoding, made, bytes: bytes.clone() });
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

    /// Pages that say how many there were before.
    fn counted(fresh: Duration) -> Scrapes {
        let made = AtomicUsize::new(0);
        let render = move |format| format!("{format:?} {}", made.fetch_add(1, Ordering::Relaxed));
        Scrapes::new(render, fresh)
    }

    #[tokio::test]
    async fn those_who_ask_together_are_given_one_page() {
        let scrapes = counted(Duration::MAX);
        let asks = (0..WAITING_MAX).map(|_| scrapes.page(Format::OpenMetrics, Encoding::Identity));
        let pages = join_all(asks).await;
        assert!(pages.iter().all(|page| page.as_deref() == Some(b"OpenMetrics 0")), "{pages:?}");
        let zipped = scrapes.page(Format::OpenMetrics, Encoding::Gzip).await.unwrap();
        let mut plain = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*zipped), &mut plain).unwrap();
        assert_eq!(plain, "OpenMetrics 0", "it is the same page");
        let other = scrapes.page(Format::Prometheus, Encoding::Identity).await.unwrap();
        assert_eq!(other, "Prometheus 1");
    }

    #[tokio::test]
    async fn a_page_that_is_not_fresh_is_made_anew() {
        let scrapes = counted(Duration::ZERO);
        for number in 0..3 {
            let page = scrapes.page(Format::Prometheus, Encoding::Identity).await.unwrap();
            assert_eq!(page, format!("Prometheus {number}"));
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
        let scrapes = Scrapes::new(render, Duration::MAX);
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
