//! Blobs that a node has acknowledged, and whether they are there after a crash: byte for byte or not at all.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::node::assert_status;

const KEYS: u64 = 3;
/// The most bytes of a blob, as a power of two; as many blobs have fewer than 2 KiB as have more.
const BYTES_MAX_BITS: f64 = 22.0;
/// What a message has of a blob.
const PART_BYTES: usize = 64 << 10;

/// What a key has: nothing, or the blob of a number.
type Is = Option<u64>;

/// What a key was acknowledged to have, and what it was asked to have since.
#[derive(Debug, Default, Clone)]
struct Known {
    acknowledged: Is,
    asked: Option<Is>,
}

/// What every key was acknowledged to have.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<String, Known>>);

impl Ledger {
    fn asks(&self, key: &str, is: Is) {
        self.0.lock().entry(key.to_owned()).or_default().asked = Some(is);
    }

    fn is_acknowledged(&self, key: &str, is: Is) {
        self.0.lock().insert(key.to_owned(), Known { acknowledged: is, asked: None });
    }

    /// How many blobs are there as far as acknowledgements tell.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().values().filter(|known| known.acknowledged.is_some()).count()
    }
}

/// The blob of a number, which says how long it is, and in its first bytes which it is.
fn blob(number: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(number);
    let mut content = vec![0; random.random_range(0.0..BYTES_MAX_BITS).exp2() as usize];
    random.fill_bytes(&mut content);
    content
}

fn sha256(content: &[u8]) -> Vec<u8> {
    Sha256::digest(content).to_vec()
}

/// Puts and deletes its own blobs until the node is gone; each step that it makes counts.
pub(crate) async fn change(
    mut cache: CacheClient<Channel>,
    client: u64,
    seed: u64,
    ledger: Arc<Ledger>,
    steps: Arc<watch::Sender<u64>>,
) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let key = format!("{client}:{}", random.random_range(0..KEYS));
        let is = random.random_bool(0.75).then(|| random.random());
        ledger.asks(&key, is);
        let done = match is {
            Some(number) => {
                let header = BlobHeader { key: key.clone().into(), ..BlobHeader::default() };
                let mut parts = vec![put_blob_request::Part::Header(header)];
                let content = Bytes::from(blob(number));
                parts.extend(
                    content
                        .chunks(PART_BYTES)
                        .map(|part| put_blob_request::Part::Chunk(content.slice_ref(part))),
                );
                let steps = Arc::clone(&steps);
                let counted = tokio_stream::iter(parts.into_iter().map(move |part| {
                    steps.send_modify(|steps| *steps += 1);
                    PutBlobRequest { part: Some(part) }
                }));
                cache.put_blob(counted).await.map(|put| {
                    assert_eq!(put.into_inner().sha256, sha256(&content), "{key}");
                })
            }
            None => {
                let request = DeleteBlobRequest { key: key.clone().into(), ..DeleteBlobRequest::default() };
                cache.delete_blob(request).await.map(drop)
            }
        };
        if done.is_err() {
            return;
        }
        ledger.is_acknowledged(&key, is);
        steps.send_modify(|steps| *steps += 1);
    }
}

/// A blob's bytes as they are read, and the checksum that the node says they have; `None`: there is none.
async fn read(cache: &mut CacheClient<Channel>, key: &str) -> Option<(Vec<u8>, Bytes)> {
    let request = GetBlobRequest { key: key.to_owned().into(), ..GetBlobRequest::default() };
    let mut stream = match cache.get_blob(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => {
            assert_status(&status, tonic::Code::NotFound, "BLOB_NOT_FOUND", None);
            return None;
        }
    };
    let (mut content, mut said) = (Vec::new(), Bytes::new());
    while let Some(message) = stream.message().await.unwrap_or_else(|status| panic!("{key}: {status:?}")) {
        match message.part.unwrap() {
            get_blob_response::Part::Header(header) => said = header.sha256,
            get_blob_response::Part::Chunk(chunk) => content.extend_from_slice(&chunk),
        }
    }
    Some((content, said))
}

/// Everything is there that must be, and nothing else; what is found is what counts from then on.
pub(crate) async fn judge(cache: &mut CacheClient<Channel>, ledger: &Ledger, directory: &Path) {
    let known = ledger.0.lock().clone();
    let mut there = BTreeSet::new();
    for (key, known) in known {
        let found = read(cache, &key).await;
        let is_found = |is: Is| match (&found, is) {
            (None, None) => true,
            (Some((content, said)), Some(number)) => *said == sha256(content) && *content == blob(number),
            _ => false,
        };
        let is = [Some(known.acknowledged), known.asked].into_iter().flatten().find(|is| is_found(*is));
        let found = found.as_ref().map(|(content, _)| content.len());
        let is = is.unwrap_or_else(|| panic!("{key} has {found:?} bytes, and it was {known:?}"));
        there.extend(is.map(|_| key.clone()));
        ledger.is_acknowledged(&key, is);
    }
    let listed = cache.list_blobs(ListBlobsRequest::default()).await.unwrap().into_inner();
    let listed: BTreeSet<_> =
        listed.blobs.iter().map(|blob| String::from_utf8(blob.key.to_vec()).unwrap()).collect();
    assert_eq!(listed, there, "what is listed is what is there");
    let files = std::fs::read_dir(directory.join("blob")).unwrap().count();
    assert_eq!(files, there.len(), "what a kill left half written is cleared away");
}
