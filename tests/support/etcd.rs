//! A real etcd of one member, in a process and a directory of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use larder::membership::{EtcdStore, Store};
use tempfile::TempDir;

use super::node::LONG;
use super::outside::skip;

pub(crate) struct Etcd {
    directory: TempDir,
    client_port: u16,
    peer_port: u16,
    running: Option<Child>,
}

impl Etcd {
    /// One that answers. `None`: there is no etcd on this machine, which was said.
    pub(crate) async fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip("etcd is not installed (Debian: etcd-server): no membership store is tested against it");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut etcd = Self { directory, client_port: 0, peer_port: 0, running: None };
        // Its own port 0 would be announced as 0. Another process may take a port that is free now.
        for _ in 0..5 {
            let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            [etcd.client_port, etcd.peer_port] =
                free.each_ref().map(|free| free.local_addr().unwrap().port());
            drop(free);
            if etcd.runs().await {
                return Some(etcd);
            }
            etcd.kill();
            let _ = std::fs::remove_dir_all(etcd.directory.path().join("data"));
        }
        panic!("{}", etcd.log());
    }

    /// Its endpoint.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// A way to what it has under this prefix.
    pub(crate) fn store(&self, prefix: &str) -> EtcdStore {
        EtcdStore::new(&format!("{}/{prefix}", self.url()).parse().unwrap()).unwrap()
    }

    /// Ends it at once; what it has acknowledged is on its disk.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }

    /// Starts it on its directory, and waits until it answers.
    pub(crate) async fn run(&mut self) {
        assert!(self.runs().await, "{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Starts it. False: it has ended, or does not answer.
    async fn runs(&mut self) -> bool {
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.directory.path().join("data"));
        command.args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--name", "one", "--initial-cluster", &format!("one={peer}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.running = Some(command.spawn().unwrap());
        let store = self.store("answers");
        let answers = async {
            while store.read().await.is_err() {
                if self.running.as_mut().is_none_or(|running| running.try_wait().unwrap().is_some()) {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            true
        };
        tokio::time::timeout(LONG, answers).await.unwrap_or(false)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
