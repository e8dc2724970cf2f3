//! Any bytes as the page token of a Scan, alone or behind the beginning of a token that the node gave: it is refused,
//! or the scan goes on from it to its end and returns nothing twice.
#![no_main]

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use larder::cache::Cache;
use larder::engine::{EngineConfig, Op, Outcome, Set};
use larder::entry::Limits;
use larder::proto::larder::v1;
use larder::service::{DataService, GeneratedService};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tower_service::Service;

const PREFIX: usize = 5;
/// Entries that a scan of the prefix finds; as many others are beside them.
const ENTRIES: usize = 200;
/// The token's form, and the cache and the range that it is of.
const AGREED_BYTES: usize = 17;
/// A page of one entry each, the empty ones at the ends of shards, and some to spare.
const PAGES_MAX: usize = ENTRIES + 100;
/// Turns of one page: far more than it needs on a machine that is busy.
const TURNS_MAX: usize = 10_000;

/// A whole request.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The same in all runs: a scan changes nothing.
static SERVICE: LazyLock<DataService> = LazyLock::new(|| {
    let engine = EngineConfig { bytes_limit: 8 << 20, shards: Some(4), ..EngineConfig::default() };
    let cache = Arc::new(Cache::new(&engine, Limits::default()));
    let namespace = cache.namespace("").expect("the default namespace").into_owned();
    for number in 0..ENTRIES {
        for prefix in ["k", "other"] {
            let key = format!("{prefix}{number}");
            let outcome = cache.apply(&namespace, &Op::Set(Set::new(key.as_bytes(), b"value")), cache.now());
            assert!(matches!(outcome, Outcome::Stored(_)));
        }
    }
    // The node never drains.
    let ending = || Box::pin(std::future::pending()) as Pin<Box<dyn Future<Output = ()> + Send>>;
    DataService::new(cache, ending, GeneratedService::new(tonic::service::Routes::default()))
});

fn status_in(headers: &HeaderMap) -> Option<String> {
    headers.get("grpc-status").map(|status| status.to_str().expect("a status is a number").to_owned())
}

/// A page, or the status of its refusal.
fn scan(page_token: &[u8], page_size: u32) -> Result<v1::ScanResponse, String> {
    let page_token = Bytes::copy_from_slice(page_token);
    let request =
        v1::ScanRequest { prefix: "k".into(), page_size, page_token, keys_only: true, ..Default::default() };
    let message = request.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    let request = Request::post("/larder.v1.Cache/Scan")
        .header("content-type", "application/grpc")
        .body(Whole(Some(frame.into())))
        .expect("a request");
    let mut context = Context::from_waker(Waker::noop());
    // A scan lets others run between its turns; nobody else is here, so it has the next one at once.
    let mut call = pin!(SERVICE.clone().call(request));
    let answered = (0..TURNS_MAX).find_map(|_| match call.as_mut().poll(&mut context) {
        Poll::Ready(response) => Some(response),
        Poll::Pending => None,
    });
    let Ok(response) = answered.expect("a whole request waits for nothing but its turns");
    if let Some(status) = status_in(response.headers()) {
        return Err(status);
    }
    let (mut body, mut data, mut status) = (pin!(response.into_body()), Vec::new(), None);
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut context) {
        match frame.expect("the client is still there").into_data() {
            Ok(chunk) => data.extend_from_slice(&chunk),
            Err(frame) => status = status_in(&frame.into_trailers().expect("data or trailers")),
        }
    }
    assert_eq!(status.as_deref(), Some("0"), "an answer that began ends well");
    Ok(v1::ScanResponse::decode(&data[PREFIX..]).expect("the generated type reads the page"))
}

fuzz_target!(|input: &[u8]| {
    let [what, size, rest @ ..] = input else { return };
    let mut token = Vec::new();
    if what & 1 == 1 {
        let given = scan(&[], 1).expect("a scan begins").next_page_token;
        token.extend_from_slice(&given[..AGREED_BYTES]);
    }
    token.extend_from_slice(rest);
    let from_the_beginning = token.is_empty();
    let (mut found, mut pages) = (HashSet::new(), 0);
    loop {
        let page = match scan(&token, 1 + u32::from(*size)) {
            Ok(page) => page,
            Err(status) => {
                assert_eq!((pages, status.as_str()), (0, "3"), "only what the node did not give is refused");
                return;
            }
        };
        for item in page.items {
            assert!(item.key.starts_with(b"k"), "{:?}", item.key);
            assert!(found.insert(item.key), "an entry is returned once");
        }
        pages += 1;
        assert!(pages <= PAGES_MAX, "a scan ends");
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token.to_vec();
    }
    assert!(!from_the_beginning || found.len() == ENTRIES, "a whole scan finds all");
});
