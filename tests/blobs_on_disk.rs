//! Blobs of the real program over restarts: with another backend, after a kill, after damage.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/kept.rs"]
mod kept;
#[path = "support/node.rs"]
mod node;

use std::path::{Path, PathBuf};
use std::process::Command;

use kept::{cache_of, flushed};
use larder::api::v1::*;
use node::*;
use tempfile::TempDir;
use tonic::{Code, Status};

/// A node on a directory.
struct Running {
    process: Process,
    calls: Calls,
}

impl Running {
    async fn on(directory: &TempDir, flags: &[&str]) -> Self {
        let data = ["--data-dir", directory.path().to_str().unwrap(), "--memory", "64MiB"];
        let mode = ["--persistence", "journal+snapshot"];
        let mode = if flags.contains(&mode[0]) { &[][..] } else { &mode };
        let process = Process::start(&[&data[..], mode, flags].concat());
        let calls = Calls(cache_of(&process).await);
        Self { process, calls }
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
