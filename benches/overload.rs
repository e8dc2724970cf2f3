//! Goodput while more is asked than a node can do, beside Redis: open loop, deadlines of 100 ms, 32 connections with up to 256
//! calls open each. Server and four busy neighbours on core 0, so that it has a fifth of a core; load on core 1.
//!
//! `cargo bench --bench overload [-- --quick]`. Needs redis-server. Writes the curves to target/overload.svg.

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use support::open_loop::{Arrivals, CONNECTIONS, DEADLINE, Protocol, run};
use support::{Process, have, headline, pinned, prefill, prefill_redis, quick};

const KEYS: usize = 100_000;
/// What is offered, as parts of what is done in a closed loop.
const OFFERED: [f64; 8] = [0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0];
const NEIGHBOURS: usize = 4;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--spin") {
        loop {
            std::hint::spin_loop();
        }
    }
    if let Some(at) = args.iter().position(|arg| arg == "--load") {
        return load(&args[at + 1..]);
    }
    headline("goodput at overload: open loop, deadlines of 100 ms, Larder unary Get / Redis GET");
    println!("load     {CONNECTIONS} connections, deadline {DEADLINE:?}; the server has a fifth of core 0");
    let larder = Process::larder(&["--memory", "1GiB"]);
    prefill(&larder, KEYS);
    let mut curves = vec![("Larder", curve("larder", &larder))];
    drop(larder);
    if have("redis-server", "redis-server") {
        let redis = Process::redis();
        prefill_redis(&redis, KEYS);
        curves.push(("Redis", curve("redis", &redis)));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/overload.svg");
    std::fs::write(&path, svg(&curves)).expect("the target directory takes a file");
    println!("curves   target/overload.svg");
}

/// Offered load and goodput, as parts of what is done in a closed loop.
type Curve = Vec<(f64, f64)>;

fn curve(name: &str, server: &Process) -> Curve {
    let _neighbours: Vec<_> = (0..NEIGHBOURS).map(|_| Neighbour::start()).collect();
    let peak = measured(name, server, "closed")[0];
    println!("\n{name}: {peak:.0}/s in a closed loop, 32 calls open on each connection");
    println!("offered  goodput  of peak    late/s  refused/s   p50 ms   p99 ms  connections lost");
    let offered = if quick() { &OFFERED[..2] } else { &OFFERED };
    let point = |&part: &f64| {
        let [goodput, late, refused, p50, p99, lost] = measured(name, server, &(part * peak).to_string());
        println!(
            "{part:>6.2}× {goodput:>8.0} {:>8.2} {late:>9.0} {refused:>10.0} {p50:>8.1} {p99:>8.1} {lost:>17}",
            goodput / peak
        );
        (part, goodput / peak)
    };
    offered.iter().map(point).collect()
}

/// A run of the load in a process of its own on core 1: the numbers of its line.
fn measured(name: &str, server: &Process, rate: &str) -> [f64; 6] {
    let own = std::env::current_exe().expect("a process has a file").display().to_string();
    let mut command = pinned(1, &own);
    command.args(quick().then_some("--quick")).args(["--load", name, &server.data, rate]);
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    numbers
        .try_into()
        .unwrap_or_else(|_| panic!("no figures: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

fn load(args: &[String]) {
    let [name, address, rate] = args else { panic!("--load NAME HOST:PORT RATE") };
    let protocol = if name == "redis" { Protocol::Redis } else { Protocol::Larder };
    let arrivals = match rate.parse() {
        Ok(per_second) => Arrivals::Open { per_second },
        Err(_) => Arrivals::Closed,
    };
    let span = Duration::from_millis(if quick() { 900 } else { 6_000 });
    println!("{}", run(protocol, address, arrivals, (KEYS, span)).line());
}

/// A process that is always busy on core 0.
struct Neighbour(std::process::Child);

impl Neighbour {
    fn start() -> Self {
        let own = std::env::current_exe().expect("a process has a file").display().to_string();
        Self(pinned(0, &own).arg("--spin").spawn().expect("it runs"))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The curves as a picture.
fn svg(curves: &[(&str, Curve)]) -> String {
    const COLOURS: [&str; 2] = ["#0b6e4f", "#c1121f"];
    let (x, y) = (|part: f64| 60.0 + part * 130.0, |part: f64| 320.0 - part * 220.0);
    let mut picture = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 380\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"640\" height=\"380\" fill=\"white\"/>\n\
         <text x=\"60\" y=\"24\" font-size=\"14\">Answered within 100 ms, by what is offered (1 = done in a closed loop)</text>\n",
    );
    for part in 0..=4 {
        let at = x(f64::from(part));
        let _ = writeln!(picture, "<text x=\"{at}\" y=\"340\" text-anchor=\"middle\">{part}×</text>");
    }
    for part in [0.0, 0.25, 0.5, 0.75, 1.0, 1.25] {
        let at = y(part);
        let _ = writeln!(
            picture,
            "<path d=\"M60 {at}H580\" stroke=\"#ddd\"/><text x=\"52\" y=\"{}\" text-anchor=\"end\">{part}</text>",
            at + 4.0
        );
    }
    for ((name, curve), (number, colour)) in curves.iter().zip(COLOURS.iter().enumerate()) {
        let points: Vec<String> =
            curve.iter().map(|&(offered, goodput)| format!("{:.1},{:.1}", x(offered), y(goodput))).collect();
        let _ = writeln!(
            picture,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"365\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            60 + 80 * number,
        );
    }
    picture + "</svg>\n"
}
