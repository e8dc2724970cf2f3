//! What the benchmarks share: processes on chosen cores, their memory, the machine's description.

#![expect(dead_code, reason = "each benchmark uses its part")]

pub(crate) mod bare;
pub(crate) mod open_loop;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// The program that is measured.
pub(crate) const LARDER: &str = env!("CARGO_BIN_EXE_larder");

/// Whether the benchmark was asked for a short run (`-- --quick`), which only shows that it works.
pub(crate) fn quick() -> bool {
    std::env::args().any(|arg| arg == "--quick")
}

/// Says what is measured, where, and with which command.
pub(crate) fn headline(what: &str) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("\n# {what}");
    println!("machine  {cores} cores,{}, Linux {}", &cpu[cpu.find(':').unwrap_or(0) + 1..], kernel.trim());
    println!("command  {}", std::env::args().collect::<Vec<_>>().join(" "));
}

/// Whether a program is installed; where not, says loudly what is left out and how to get it.
pub(crate) fn have(program: &str, package: &str) -> bool {
    let found = Command::new("which").arg(program).stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    if !found {
        println!("SKIPPED  {program} is not installed: apt-get install {package}");
    }
    found
}

/// A command on one core, if `taskset` is there and the machine has that core.
pub(crate) fn pinned(core: usize, program: &str) -> Command {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if core < cores.max(2) && Command::new("taskset").arg("-V").stdout(Stdio::null()).status().is_ok() {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string(), program]);
        command
    } else {
        Command::new(program)
    }
}

/// A free port of loopback.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it was just bound").port()
}

/// A process that ends with the benchmark.
pub(crate) struct Process {
    child: Child,
    /// Its data listener, HOST:PORT.
    pub(crate) data: String,
    /// Its admin listener.
    pub(crate) admin: String,
}

impl Process {
    /// A node on core 0 with one worker, without persistence unless it is asked for, as its peers.
    pub(crate) fn larder(args: &[&str]) -> Self {
        Self::node(pinned(0, LARDER), &[&["--threads", "1"], args].concat())
    }

    /// A node on all cores.
    pub(crate) fn larder_everywhere(args: &[&str]) -> Self {
        Self::node(Command::new(LARDER), args)
    }

    fn node(mut command: Command, args: &[&str]) -> Self {
        command.args(["serve", "--stats-interval", "0s", "--log", "warn"]);
        for listener in ["--listen", "--admin", "--health"] {
            command.args([listener, "tcp://127.0.0.1:0"]);
        }
        if !args.contains(&"--persistence") {
            command.args(["--persistence", "none"]);
        }
        let mut child = command
            .args(["--http", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was built with the benchmark");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says when it is ready");
        let part = |name: &str| {
            let found = line.split_whitespace().find_map(|part| part.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in {line:?}")).to_owned()
        };
        Self { child, data: part("data=tcp://"), admin: part("admin=tcp://") }
    }

    /// redis-server on core 0, without persistence.
    pub(crate) fn redis() -> Self {
        let port = free_port().to_string();
        let args = ["--port", &port, "--save", "", "--appendonly", "no"];
        Self::on_port("redis-server", &args, &port)
    }

    /// memcached on core 0 with one thread.
    pub(crate) fn memcached() -> Self {
        let port = free_port().to_string();
        Self::on_port(
            "memcached",
            &["-u", "root", "-m", "4096", "-t", "1", "-l", "127.0.0.1", "-p", &port],
            &port,
        )
    }

    /// This benchmark again, as the bare tonic service.
    pub(crate) fn bare() -> Self {
        let port = free_port().to_string();
        let own = std::env::current_exe().expect("a process has a file");
        Self::on_port(&own.display().to_string(), &["--bare", &port], &port)
    }

    fn on_port(program: &str, args: &[&str], port: &str) -> Self {
        let mut command = pinned(0, program);
        let child = command.args(args).stdout(Stdio::null()).spawn().expect("it was found before");
        let data = format!("127.0.0.1:{port}");
        while std::net::TcpStream::connect(&data).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Self { child, data, admin: String::new() }
    }

    pub(crate) fn port(&self) -> &str {
        self.data.rsplit(':').next().unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
    }

    /// Processor time used so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used so far, in seconds.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Runs `larder bench` on core 1 and answers keys per second.
pub(crate) fn larder_bench(node: &Process, args: &[&str]) -> f64 {
    larder_report(node, args)["throughput"]["keys_per_s"].as_f64().expect("a report has its throughput")
}

/// Runs `larder bench` on core 1 and answers all that it reports.
pub(crate) fn larder_report(node: &Process, args: &[&str]) -> serde_json::Value {
    let mut command = pinned(1, LARDER);
    command.args(["bench", "--nodes", &format!("tcp://{}", node.data), "--threads", "1", "--output", "json"]);
    // What a run leaves is what the next one reads, and deleting it is no part of what is measured.
    command.arg("--keep");
    let output = command.args(args).output().expect("the program was built with the benchmark");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Has a node store values of 100 B under keys of 16 B, as `larder bench` asks for them.
pub(crate) fn prefill(node: &Process, keys: usize) {
    let keys = keys.to_string();
    larder_bench(
        node,
        &["--keys", &keys, "--prefill", "--requests", "1000", "--batch", "100", "--ratio", "1:0"],
    );
}

/// Has Redis store values of 100 B under keys of 16 digits, as redis-benchmark can ask for them.
pub(crate) fn prefill_redis(redis: &Process, keys: usize) {
    let client = redis::Client::open(format!("redis://{}/", redis.data)).expect("a URL");
    let mut connection = client.get_connection().expect("it is up");
    for first in (0..keys).step_by(1_000) {
        let mut pipe = redis::pipe();
        for key in first..first + 1_000 {
            pipe.set(format!("{key:016}"), [b'v'; 100].as_slice()).ignore();
        }
        pipe.exec(&mut connection).expect("it stores");
    }
}
