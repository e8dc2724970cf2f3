//! Blobs on a disk that fails: nothing is taken that may not be there, whatever fails says so, and reads go on.

use crate::support::opened;
use std::sync::Arc;

use crate::support::node::*;
use crate::support::opened::blob_files_become;
use larder::persistence::backend::memory::{Call, Fault, IoFault, Strikes};
use larder::persistence::recover::RecoveryProgress;
use larder::persistence::{DirectoryLock, MemoryBackend};
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

const CHUNK: usize = 256 << 10;

/// A node whose journal and blobs lie in memory, which fails to order.
struct Faulty {
    node: Node,
    backend: MemoryBackend,
    cache: CacheClient<Channel>,
    _directory: tempfile::TempDir,
}

impl Faulty {
    async fn start() -> Self {
        let (node, backend) = (Node::start().await, MemoryBackend::new());
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(directory.path()).unwrap();
        let options = opened::options(directory.path(), false);
        let (cache, opened) = (Arc::clone(node.running.cache()), Arc::new(backend.clone()));
        let open = move || cache.open_disk_on(opened, lock, &options, &RecoveryProgress::default());
        tokio::task::spawn_blocking(open).await.unwrap().unwrap();
        let cache = node.cache().await;
        Self { node, backend, cache, _directory: directory }
    }

    async fn put(&mut self, content: &[u8]) -> Result<PutBlobResponse, Status> {
        let parts: Vec<_> =
            [header()].into_iter().chain(content.chunks(CHUNK).map(|part| chunk(part.to_vec()))).collect();
        soon(self.cache.put_blob(tokio_stream::iter(parts))).await.map(tonic::Response::into_inner)
    }

    async fn delete(&mut self) -> Result<bool, Status> {
        let request = DeleteBlobRequest { key: "k".into(), ..DeleteBlobRequest::default() };
        soon(self.cache.delete_blob(request)).await.map(|response| response.into_inner().deleted)
    }

    async fn get(&mut self) -> Result<Vec<u8>, Status> {
        let request = GetBlobRequest { key: "k".into(), ..GetBlobRequest::default() };
        let mut stream = soon(self.cache.get_blob(request)).await?.into_inner();
        let mut content = Vec::new();
        while let Some(message) = soon(stream.message()).await? {
            if let Some(get_blob_response::Part::Chunk(chunk)) = message.part {
                content.extend_from_slice(&chunk);
            }
        }
        Ok(content)
    }

    /// Lets a sync of the journal fail.
    async fn poison(&mut self) {
        self.backend.plan(fault(Some(Call::Sync), 0, IoFault::Io, Strikes::Once));
        let set = SetRequest { durability: Durability::Flushed as i32, ..set("poison", "v") };
        let refused = soon(self.cache.set(set)).await.unwrap_err();
        assert_status(&refused, Code::FailedPrecondition, "JOURNAL_POISONED", None);
    }
}

fn fault(call: Option<Call>, passing: u64, refusal: IoFault, strikes: Strikes) -> Fault {
    Fault { call, passing, refusal, strikes }
}

fn header() -> PutBlobRequest {
    let header = BlobHeader { key: "k".into(), ..BlobHeader::default() };
    PutBlobRequest { part: Some(put_blob_request::Part::Header(header)) }
}

fn chunk(chunk: Vec<u8>) -> PutBlobRequest {
    PutBlobRequest { part: Some(put_blob_request::Part::Chunk(chunk.into())) }
}

fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) ^ (at >> 8) as u8).collect()
}

#[tokio::test]
async fn no_blob_is_written_or_deleted_once_the_journal_is_poisoned() {
    let mut faulty = Faulty::start().await;
    faulty.put(b"before").await.unwrap();
    faulty.poison().await;
    let written = |backend: &MemoryBackend| {
        [Call::Create, Call::Append, Call::Sync, Call::Commit, Call::Delete]
            .map(|call| backend.calls_of(call))
    };
    let before = written(&faulty.backend);
    let refused = faulty.put(&content(1, 2 * CHUNK)).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "JOURNAL_POISONED", None);
    let refused = faulty.delete().await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "JOURNAL_POISONED", None);
    assert_eq!(written(&faulty.backend), before, "nothing was written");
    assert_eq!(faulty.get().await.unwrap(), b"before", "reads go on");
    let list = faulty.cache.list_blobs(ListBlobsRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.blobs.len(), 1);
}

#[tokio::test]
async fn a_blob_that_streams_while_the_journal_is_poisoned_is_never_seen() {
    let mut faulty = Faulty::start().await;
    faulty.put(b"before").await.unwrap();
    let (send, parts) = mpsc::channel(1);
    let mut cache = faulty.node.cache().await;
    let put = tokio::spawn(async move { cache.put_blob(ReceiverStream::new(parts)).await });
    send.send(header()).await.unwrap();
    send.send(chunk(content(1, CHUNK))).await.unwrap();
    blob_files_become(&faulty.backend, 2).await;
    faulty.poison().await;
    send.send(chunk(content(2, CHUNK))).await.unwrap();
    let commits = faulty.backend.calls_of(Call::Commit);
    drop(send);
    let refused = soon(put).await.unwrap().unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "JOURNAL_POISONED", None);
    assert_eq!(faulty.get().await.unwrap(), b"before");
    assert_eq!(faulty.backend.calls_of(Call::Commit), commits);
    blob_files_become(&faulty.backend, 1).await;
}

#[tokio::test]
async fn a_disk_that_fails_under_a_blob_is_an_error_whichever_call_it_is() {
    for refusal in [IoFault::Io, IoFault::Full, IoFault::ReadOnly] {
        let mut faulty = Faulty::start().await;
        let reason = if refusal == IoFault::Full { "DISK_FULL" } else { "DISK_FAILED" };
        let (one, two) = (content(1, 2 * CHUNK + 7), content(2, CHUNK + 9));
        faulty.put(&one).await.unwrap();
        let mut failures = 0;
        for (passing, is_put) in (0..).flat_map(|passing| [(passing, true), (passing, false)]) {
            faulty.backend.plan(fault(None, passing, refusal, Strikes::FromThenOn));
            let failed = if is_put { faulty.put(&two).await.err() } else { faulty.delete().await.err() };
            faulty.backend.heal();
            let found = faulty.get().await;
            let is_whole = match &found {
                Ok(found) => *found == one || *found == two,
                Err(status) => status.code() == Code::NotFound,
            };
            assert!(is_whole, "{refusal:?} after {passing} calls: {found:?}");
            match &failed {
                Some(status) => assert_eq!(facts(status).1, reason, "after {passing} calls: {status:?}"),
                None if is_put => break,
                None => {}
            }
            failures += usize::from(failed.is_some());
            faulty.put(&one).await.unwrap();
        }
        assert!(failures > 6, "{refusal:?}: {failures}");
        let set = SetRequest { durability: Durability::Flushed as i32, ..set("k", "v") };
        faulty.cache.set(set).await.unwrap();
    }
}
