//! Blobs of the real program over restarts: with another backend, after a kill, after damage.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::kept::{cache_of, flushed};
use crate::support::node::*;
use larder::proto::google;
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::*;
use prost::Message;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A node on a directory.
struct Running {
    process: Process,
    calls: Calls,
    admin: AdminClient<Channel>,
}

impl Running {
    async fn on(directory: &TempDir, flags: &[&str]) -> Self {
        let data = ["--data-dir", directory.path().to_str().unwrap(), "--memory", "64MiB"];
        let mode = ["--persistence", "journal+snapshot"];
        let mode = if flags.contains(&mode[0]) { &[][..] } else { &mode };
        let process = Process::start(&[&data[..], mode, flags].concat());
        let calls = Calls(cache_of(&process).await);
        let admin = AdminClient::new(connect(&process.ready.admin).await);
        Self { process, calls, admin }
    }

    async fn put(&mut self, namespace: &str, key: &str, content: &[u8]) -> Result<(), Status> {
        let header = BlobHeader {
            namespace: namespace.to_owned(),
            key: key.to_owned().into(),
            ..BlobHeader::default()
        };
        let parts =
            [put_blob_request::Part::Header(header), put_blob_request::Part::Chunk(content.to_vec().into())];
        let parts = parts.map(|part| PutBlobRequest { part: Some(part) });
        soon(self.calls.0.put_blob(tokio_stream::iter(parts))).await.map(drop)
    }

    async fn blob(&mut self, namespace: &str, key: &str) -> Result<Vec<u8>, Status> {
        let request = GetBlobRequest {
            namespace: namespace.to_owned(),
            key: key.to_owned().into(),
            ..GetBlobRequest::default()
        };
        let mut stream = soon(self.calls.0.get_blob(request)).await?.into_inner();
        let mut content = Vec::new();
        while let Some(message) = soon(stream.message()).await? {
            if let Some(get_blob_response::Part::Chunk(chunk)) = message.part {
                content.extend_from_slice(&chunk);
            }
        }
        Ok(content)
    }

    async fn delete_blob(&mut self, key: &str) {
        let request = DeleteBlobRequest { key: key.to_owned().into(), ..DeleteBlobRequest::default() };
        assert!(soon(self.calls.0.delete_blob(request)).await.unwrap().into_inner().deleted);
    }

    async fn create_namespace(&mut self, name: &str) {
        let config =
            NamespaceConfig { name: name.to_owned(), policy: "lru".to_owned(), ..Default::default() };
        let create = CreateNamespaceRequest { namespace: Some(config) };
        self.admin.create_namespace(create).await.unwrap();
    }

    /// The policy of a namespace that is there.
    async fn policy(&mut self, name: &str) -> Option<String> {
        let listed = self.admin.list_namespaces(ListNamespacesRequest {}).await.unwrap().into_inner();
        listed.namespaces.into_iter().find(|namespace| namespace.name == name).map(|found| found.policy)
    }

    async fn verified(&mut self) -> Result<VerifyRecoveryResponse, Status> {
        let request = VerifyRecoveryRequest::default();
        soon(self.admin.verify_recovery(request)).await.map(tonic::Response::into_inner)
    }

    /// Stops in good order; its log.
    fn stops(self) -> String {
        self.process.terminate();
        let (status, _, log) = self.process.ended();
        assert!(status.success(), "{log}");
        log
    }

    fn dies(self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-KILL", &id]).status().unwrap().success());
        self.process.ended();
    }
}

fn not_found(found: &Result<Vec<u8>, Status>) -> bool {
    matches!(found, Err(status) if status.code() == Code::NotFound)
}

fn blob_files(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory.join("blob")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_that_are_put_with_either_backend_are_there_with_the_other() {
    for [one, other] in [["sled", "files"], ["files", "sled"]] {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Running::on(&directory, &["--backend", one]).await;
        node.put("", "deleted", b"first").await.unwrap();
        node.put("", "replaced", b"first").await.unwrap();
        node.stops();

        let mut node = Running::on(&directory, &["--backend", other]).await;
        node.delete_blob("deleted").await;
        node.put("", "added", b"second").await.unwrap();
        node.put("", "replaced", b"second").await.unwrap();
        let log = node.stops();
        assert!(log.contains("took over the catalogue") && !log.contains("lost"), "{log}");

        let mut node = Running::on(&directory, &["--backend", one]).await;
        assert!(not_found(&node.blob("", "deleted").await));
        assert_eq!(node.blob("", "added").await.unwrap(), b"second");
        assert_eq!(node.blob("", "replaced").await.unwrap(), b"second");
        assert_eq!((node.verified().await.unwrap().blobs, blob_files(directory.path()).len()), (2, 2));
        let log = node.stops();
        assert!(log.contains("took over the catalogue") && !log.contains("lost"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_writes_of_one_backend_are_there_with_the_other_whatever_that_was_used_for_before() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = ["--backend", "sled", "--persistence", "snapshot"];
    let mut node = Running::on(&directory, &snapshots).await;
    node.calls.set(set("a", "1")).await.unwrap();
    node.stops();
    let mut node = Running::on(&directory, &["--backend", "files"]).await;
    node.calls.set(flushed(set("b", "2"))).await.unwrap();
    node.dies();
    let mut node = Running::on(&directory, &["--backend", "sled"]).await;
    assert_eq!((&*node.calls.value("a").await, &*node.calls.value("b").await), (&b"1"[..], &b"2"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_flipped_bit_in_the_catalogue_costs_no_blob_and_no_flushed_write() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--backend", "files"];
    let mut node = Running::on(&directory, &flags).await;
    for n in 0..3 {
        node.put("", &format!("b{n}"), format!("content {n}").as_bytes()).await.unwrap();
    }
    node.calls.set(flushed(set("k", "v"))).await.unwrap();
    node.dies();
    flip(&directory.path().join("catalogue/0000000000000001.log"), 130);
    // A blob that is damaged as well is not deleted either.
    let damaged = &blob_files(directory.path())[1];
    flip(damaged, std::fs::metadata(damaged).unwrap().len() as usize - 3);
    let mut node = Running::on(&directory, &flags).await;
    assert_eq!(node.blob("", "b0").await.unwrap(), b"content 0");
    assert_eq!(node.blob("", "b2").await.unwrap(), b"content 2");
    assert!(not_found(&node.blob("", "b1").await));
    assert_eq!(&*node.calls.value("k").await, b"v");
    assert!(directory.path().join("quarantine").join(damaged.file_name().unwrap()).is_file());
    let log = node.stops();
    assert!(log.contains("set a blob's file aside") && log.contains("made anew of their files"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_blob_has_its_namespace_after_a_kill() {
    for backend in ["sled", "files"] {
        let directory = tempfile::tempdir().unwrap();
        let flags = ["--backend", backend, "--flush-interval", "1h"];
        let mut node = Running::on(&directory, &flags).await;
        node.create_namespace("n").await;
        node.put("n", "k", b"content").await.unwrap();
        node.dies();
        let mut node = Running::on(&directory, &flags).await;
        assert_eq!(node.policy("n").await.as_deref(), Some("lru"), "as it was created");
        assert_eq!(node.blob("n", "k").await.unwrap(), b"content");
        let log = node.stops();
        assert!(!log.contains("made a namespace again"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_was_not_recovered_is_made_again_for_its_blobs() {
    let snapshots = ["--backend", "files", "--persistence", "snapshot"];
    let empty = ["--backend", "files", "--recovery", "empty"];
    for flags in [snapshots, empty] {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Running::on(&directory, &flags).await;
        node.create_namespace("n").await;
        node.create_namespace("without blobs").await;
        node.put("n", "k", b"content").await.unwrap();
        node.dies();
        let mut node = Running::on(&directory, &flags).await;
        assert_eq!(node.blob("n", "k").await.unwrap(), b"content", "{flags:?}");
        assert_eq!(node.policy("n").await.as_deref(), Some("adaptive"));
        assert_eq!(node.policy("without blobs").await, None);
        let log = node.stops();
        assert!(log.contains("made a namespace again") && log.contains("WARN"), "{log}");
        // It is a namespace like any other from then on.
        let node = Running::on(&directory, &["--backend", "files"]).await;
        let log = node.stops();
        assert!(!log.contains("made a namespace again"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_reads_blobs_too_and_names_those_that_are_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Running::on(&directory, &["--backend", "files"]).await;
    for key in ["whole", "flipped", "gone"] {
        node.put("", key, &[7; 1_000]).await.unwrap();
    }
    let found = node.verified().await.unwrap();
    assert_eq!((found.blobs, found.blob_bytes, found.damages_total), (3, 3_000, 0));
    let files = blob_files(directory.path());
    flip(&files[1], 100);
    std::fs::remove_file(&files[2]).unwrap();
    let refused = node.verified().await.unwrap_err();
    assert_status(&refused, Code::DataLoss, "RECOVERY_DAMAGED", None);
    let details = google::rpc::Status::decode(refused.details()).unwrap().details;
    let report = details.iter().find(|any| any.type_url.ends_with("VerifyRecoveryResponse")).unwrap();
    let found = VerifyRecoveryResponse::decode(&*report.value).unwrap();
    assert_eq!((found.blobs, found.blob_bytes, found.damages_total), (1, 1_000, 2), "{found:?}");
    let mut places: Vec<_> = found.damages.iter().map(|damage| &*damage.place).collect();
    places.sort_unstable();
    assert_eq!(places, ["blob/0000000000000002.blob", "blob/0000000000000003.blob"]);
    assert!(found.damages.iter().all(|damage| !damage.description.is_empty()));
}
