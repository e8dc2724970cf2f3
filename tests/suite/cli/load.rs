//! Commands that send much: import, replay and bench.

use serde_json::Value;

use super::*;
use crate::support::fake::{FakeNode, VALUE_BYTES_MAX};

#[test]
fn a_node_that_takes_little_at_once_is_filled_and_read_all_the_same() {
    let limits =
        ["--max-batch", "50", "--max-value", "8KiB", "--max-key", "64B", "--max-message-in", "16KiB"];
    let (_process, nodes) = real(&[&limits[..], &["--max-message-out", "16KiB"]].concat());
    let run = |args: &[&str]| command(args).args(&nodes).output().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let names: Vec<String> = (0..300).map(|n| format!("{n}")).collect();
    for name in &names {
        std::fs::write(path.join(name), vec![b'v'; 1_000]).unwrap();
    }
    std::fs::write(path.join("over"), vec![b'v'; 9 << 10]).unwrap();
    std::fs::write(path.join("way over"), vec![b'v'; 20 << 10]).unwrap();
    std::fs::write(path.join("long".repeat(20)), "v").unwrap();
    let output = run(&["import", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), REFUSED);
    assert!(stdout(&output).contains("stored 300\n"), "{}{}", stdout(&output), stderr(&output));
    for line in
        ["over: RESOURCE_EXHAUSTED (VALUE_TOO_LARGE)", "way over: RESOURCE_EXHAUSTED (MESSAGE_TOO_LARGE)"]
    {
        assert!(stderr(&output).contains(&format!("not stored: {line}")), "{}", stderr(&output));
    }
    assert!(stderr(&output).contains("(KEY_TOO_LONG)"), "{}", stderr(&output));

    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let output = run(&[&["get"][..], &keys].concat());
    assert_eq!(
        (output.status.code(), stdout(&output).lines().count()),
        (Some(0), 300),
        "{}",
        stderr(&output)
    );
    let long = "k".repeat(65);
    let output = run(&[&["del"][..], &keys, &[&long]].concat());
    assert_ends(&output, REFUSED, "deleted 300\nrefused 1\n", "(KEY_TOO_LONG)");

    let trace = path.join("t.u64s.zst");
    // A window of 300 requests: values that fit twice into a message, and one that fits into none.
    write_trace(&trace, (0..299).flat_map(|key| [key, 7_000]).chain([299, 20 << 10]));
    let output = run(&["replay", trace.to_str().unwrap(), "--output", "json"]);
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(output.status.code(), REFUSED, "{document} {}", stderr(&output));
    assert_eq!((&document["misses"], &document["stored"]), (&300.into(), &299.into()), "{document}");
    assert_eq!(document["refused_by_code"]["RESOURCE_EXHAUSTED"], 1);
    assert_eq!(stdout(&run(&["scan", "--page-size", "200"])).lines().count(), 299);

    let output = run(&["bench", "--prefill", "-k", "200", "-n", "100", "-P", "60", "-c", "1"]);
    assert_eq!(output.status.code(), REFUSED, "it sends what it was asked to send");
    let words = "the first call that was refused: RESOURCE_EXHAUSTED: the batch has 51 items or more, the limit is 50";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert_eq!(stdout(&run(&["scan", "bench:"])), "", "filled and cleaned up");
}

#[test]
fn values_are_as_long_as_the_node_takes() {
    let limits = ["--max-value", "8MiB", "--max-message-in", "9MiB", "--max-message-out", "9MiB"];
    let (_process, nodes) = real(&[&limits[..], &["--memory", "256MiB", "--shards", "2"]].concat());
    let run = |args: &[&str]| command(args).args(&nodes).output().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let value: Vec<u8> = (0..6 << 20).map(|n: u32| b'a' + (n % 26) as u8).collect();
    for name in ["a", "b"] {
        std::fs::write(directory.path().join(name), &value).unwrap();
    }
    let path = directory.path().to_str().unwrap();
    let output = run(&["set", "k", "--file", &format!("{path}/a")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(run(&["get", "k"]).stdout == value);
    let output = run(&["import", path]);
    assert!(stdout(&output).starts_with("stored 2\n"), "{}", stderr(&output));
    // Both do not fit into one answer.
    let output = run(&["get", "a", "b"]);
    assert_eq!((output.status.code(), stdout(&output).lines().count()), (Some(0), 2), "{}", stderr(&output));
    let output =
        run(&["bench", "-s", "7MiB", "-k", "2", "-n", "4", "-c", "1", "--callers", "1", "--prefill"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn bench_counts_what_the_node_counted() {
    for mode in [&[][..], &["--batch", "7"], &["--pipeline", "16", "--depth", "3"], &["--client"]] {
        let node = FakeNode::start();
        let load = ["bench", "-c", "2", "--callers", "2", "--keys", "100", "--prefill", "--requests", "1000"];
        let load = [&load[..], &["--ratio", "1:1", "--value-size", "1-64"], mode].concat();
        let (code, document) = json(&node, &[&load[..], &["--keep"]].concat());
        assert_eq!(code, Some(0), "{document}");
        let counters = node.counters();
        let figures = &document["throughput"];
        assert_eq!(figures["keys"], 1_000, "{mode:?}");
        // The first get of all is the check that somebody is there, before the prefill: one miss.
        assert_eq!((counters.hits, counters.misses), (figures["hits"].as_u64().unwrap(), 1), "{mode:?}");
        assert_eq!(counters.sets, 100 + figures["stored"].as_u64().unwrap(), "{mode:?}");
        assert!(counters.hits > 100 && figures["stored"].as_u64() > Some(100), "{mode:?}: {figures}");
        assert_eq!(figures["errors"], 0);
        assert!(document["latency_us"]["all"]["p99.9"].as_f64() > Some(0.0));
        assert_eq!(node.entries(), 100);
        assert_eq!(node.value(b"bench:0000000042").map(|value| (1..=64).contains(&value.len())), Some(true));
        on(&node, &["set", "not the bench's", "v"]);
        assert_eq!(on(&node, &load).status.code(), Some(0));
        assert_eq!(node.entries(), 1, "{mode:?}: it cleans up what it wrote, and nothing else");
    }
}

#[test]
fn bench_of_the_client_shares_connections_and_says_how_many_calls_went_out_together() {
    let (_process, nodes) = real(&[]);
    let run = |flags: &[&str]| {
        let load = ["bench", "--client", "-k", "100", "--prefill", "-n", "4000", "--output", "json"];
        let output = command(&[&load[..], flags].concat()).args(&nodes).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_str::<Value>(&stdout(&output)).unwrap()
    };
    let shared = run(&["-c", "2", "--callers", "64", "--threads", "2"]);
    let load = &shared["load"];
    assert_eq!(
        (&load["mode"], &load["connections"], &load["callers"]),
        (&"client".into(), &2.into(), &64.into())
    );
    assert_eq!((&shared["throughput"]["keys"], &shared["throughput"]["errors"]), (&4_000.into(), &0.into()));
    assert!(shared["throughput"]["calls_per_message"].as_f64() > Some(2.0), "{shared}");
    let alone = run(&["-c", "4", "--callers", "1"]);
    assert_eq!(alone["throughput"]["calls_per_message"].as_f64(), Some(1.0), "{alone}");
    let output = command(&["bench", "--client", "--batch", "7"]).args(&nodes).output().unwrap();
    assert_ends(&output, USAGE, "", "--batch");
}

#[test]
fn bench_in_an_open_loop_keeps_its_rate() {
    let node = FakeNode::start();
    for mode in [&["--arrivals", "poisson"][..], &["--arrivals", "constant"], &["--client"]] {
        let open = ["bench", "-c", "1", "--rate", "2000", "--requests", "1000"];
        let (code, document) = json(&node, &[&open[..], mode].concat());
        assert_eq!(code, Some(0), "{document}");
        assert_eq!(document["throughput"]["keys"], 1_000);
        // Sending faster than asked for would be wrong; how much slower depends on the machine.
        assert!(document["throughput"]["elapsed_s"].as_f64() > Some(0.35), "{document}");
        assert_eq!(document["throughput"]["unsent_calls"], 0);
    }
}

/// Interrupts a run once the node has counted something of it; how it ends.
fn interrupted(node: &FakeNode, args: &[&str]) -> Output {
    let url = node.url();
    let mut command = command(&[&["--nodes", &url], args].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let before = node.counters().hits;
    while node.counters().hits < before + 10 {
        std::thread::yield_now();
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn bench_that_is_interrupted_prints_its_figures_and_cleans_up() {
    let node = FakeNode::start();
    for mode in [&[][..], &["--pipeline", "4"], &["--rate", "500"], &["--client"]] {
        let load = ["bench", "-c", "1", "-k", "10", "--prefill", "--duration", "1h"];
        let output = interrupted(&node, &[&load[..], mode].concat());
        assert_ends_with_figures(&output, "keys_per_s ");
        assert_eq!(node.entries(), 0, "{mode:?}");
    }
}

#[track_caller]
fn assert_ends_with_figures(output: &Output, figure: &str) {
    assert_eq!(output.status.code(), Some(130), "{}", stderr(output));
    assert!(stdout(output).contains(figure), "{}", stdout(output));
    assert!(
        stderr(output).contains("interrupted: the figures are of what came before"),
        "{}",
        stderr(output)
    );
}

#[test]
fn bench_reports_refusals_by_code_and_ends_with_3() {
    let node = FakeNode::start();
    for mode in [&["--batch", "2"][..], &["--pipeline", "2"]] {
        let load =
            ["bench", "-c", "1", "--callers", "1", "--ratio", "0:1", "--value-size", "1049000", "-n", "10"];
        let (code, document) = json(&node, &[&load[..], mode].concat());
        assert_eq!(code, REFUSED, "{document}");
        assert_eq!(document["throughput"]["errors_by_code"]["RESOURCE_EXHAUSTED"], 10, "{document}");
    }
}

#[test]
fn bench_writes_a_histogram() {
    let node = FakeNode::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bench.hgrm");
    let output = on(&node, &["bench", "-n", "100", "--histogram", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("\nkeys 100\n"));
    assert!(stderr(&output).contains("gets missed, and a miss costs less than a hit"), "{}", stderr(&output));
    assert!(std::fs::read_to_string(file).unwrap().contains("#[Max"));
}

#[test]
fn import_stores_every_file_under_its_path_and_counts_what_is_refused() {
    let node = FakeNode::start();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    std::fs::create_dir_all(root.join("deep/er")).unwrap();
    std::fs::write(root.join("a.txt"), "one").unwrap();
    std::fs::write(root.join("deep/er/b.txt"), "two").unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::os::unix::fs::symlink(root, root.join("deep/round")).unwrap();
    for index in 0..2_500 {
        std::fs::write(root.join(format!("deep/{index}")), vec![b'x'; index]).unwrap();
    }
    let path = root.to_str().unwrap();
    let (code, document) = json(&node, &["import", path]);
    assert_eq!((code, &document["stored"]), (Some(0), &Value::from(2_503)), "{document}");
    assert_eq!(node.value(b"deep/er/b.txt").as_deref(), Some(&b"two"[..]));
    assert_eq!(node.value(b"empty").as_deref(), Some(&b""[..]));
    assert_eq!(node.value(b"deep/2499").map(|value| value.len()), Some(2_499));

    std::fs::write(root.join("over"), vec![0; VALUE_BYTES_MAX + 1]).unwrap();
    std::fs::write(root.join("way over"), vec![0; 5 << 20]).unwrap();
    let output = on(&node, &["import", path, "--prefix", "files/"]);
    assert_eq!(output.status.code(), REFUSED);
    assert!(stdout(&output).contains("stored 2503\n") && stdout(&output).contains("refused 2\n"));
    assert!(stderr(&output).contains("files/over: RESOURCE_EXHAUSTED"), "{}", stderr(&output));
    assert!(stderr(&output).contains("files/way over: OUT_OF_RANGE"), "{}", stderr(&output));
    assert!(stderr(&output).contains("no files: 1 (pipes"), "{}", stderr(&output));
    assert_ends(&on(&node, &["import", "/no/such"]), USAGE, "", "/no/such is no directory");
}

#[test]
fn the_hottest_keys_are_shown_and_no_more_than_asked_for() {
    let (_process, nodes) = real(&[]);
    let run = |args: &[&str]| command(args).args(&nodes).output().unwrap();
    let load = ["bench", "--prefill", "--keep", "-k", "10", "-n", "4000", "-r", "1:0", "-c", "1"];
    assert_eq!(run(&load).status.code(), Some(0));
    let keys = |flags: &[&str]| {
        let output = run(&[&["admin", "hot-keys", "--output", "json"], flags].concat());
        let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
        document["keys"].as_array().map(Vec::len)
    };
    assert_eq!((keys(&["--limit", "2"]), keys(&[])), (Some(2), Some(10)));
    assert!(stdout(&run(&["admin", "hot-keys", "--limit", "1"])).contains("key \"bench:000000000"));
}

fn write_trace(path: &std::path::Path, numbers: impl IntoIterator<Item = u64>) {
    let bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
    std::fs::write(path, zstd::encode_all(&bytes[..], 3).unwrap()).unwrap();
}

#[test]
fn replay_counts_as_if_every_request_waited_for_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.u64.zst");
    // Runs of one key, keys that come back within a window, and new ones.
    let keys: Vec<u64> = (0..5_000_u64).map(|i| if i % 3 == 0 { i / 90 } else { (i * i) % 701 }).collect();
    let distinct = keys.iter().collect::<std::collections::HashSet<_>>().len() as u64;
    write_trace(&path, keys.iter().copied());
    for flags in [&[][..], &["--window", "1"], &["--streams", "3"]] {
        let node = FakeNode::start();
        let (code, document) = json(&node, &[&["replay", path.to_str().unwrap()], flags].concat());
        assert_eq!(code, Some(0), "{document}");
        assert_eq!(document["requests"], 5_000, "{flags:?}");
        assert_eq!(document["misses"], distinct, "{flags:?}");
        assert_eq!(document["repeats_before_set"], 0);
        let counters = node.counters();
        assert_eq!((counters.hits, counters.misses, counters.sets), (5_000 - distinct, distinct, distinct));
        assert_eq!(node.value(b"0000000000000000").map(|value| value.len()), Some(100));
    }
    let node = FakeNode::start();
    let output = on(&node, &["replay", path.to_str().unwrap(), "--limit", "10", "--value-size", "7"]);
    assert!(stdout(&output).starts_with("requests 10\n"), "{}", stdout(&output));
    assert_eq!(node.value(b"0000000000000000").map(|value| value.len()), Some(7));
}

#[test]
fn replay_that_is_interrupted_prints_its_figures() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.u64.zst");
    write_trace(&path, std::iter::repeat_n(7, 3_000_000));
    let output = interrupted(&FakeNode::start(), &["replay", path.to_str().unwrap()]);
    assert_ends_with_figures(&output, "requests_per_s ");
}

#[test]
fn replay_takes_sizes_from_the_trace_and_counts_what_is_refused() {
    let node = FakeNode::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.u64s.zst");
    write_trace(&path, [1, 500, 2, 1 << 21, 3, 1 << 40, 1, 500, 4, 900_000, 5, 900_000]);
    let (code, document) = json(&node, &["replay", path.to_str().unwrap()]);
    assert_eq!(code, REFUSED, "{document}");
    assert_eq!(document["refused_by_code"]["RESOURCE_EXHAUSTED"], 2, "{document}");
    assert_eq!((&document["hits"], &document["stored"]), (&Value::from(1), &Value::from(3)));
    assert_eq!(node.value(b"0000000000000001").map(|value| value.len()), Some(500));
    assert_ends(&on(&node, &["replay", "trace.csv"]), USAGE, "", "NAME.u64.zst");
}

#[test]
fn replay_of_a_trace_that_is_cut_off_tells_of_what_came_before() {
    let node = FakeNode::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.u64.zst");
    let bytes: Vec<u8> = [1_u64, 2, 1].iter().flat_map(|key| key.to_le_bytes()).chain([7, 7]).collect();
    std::fs::write(&path, zstd::encode_all(&bytes[..], 3).unwrap()).unwrap();
    let (code, document) = json(&node, &["replay", path.to_str().unwrap()]);
    assert_eq!(
        (code, &document["requests"], &document["hits"]),
        (REFUSED, &3.into(), &1.into()),
        "{document}"
    );
    assert!(document["broken_off"].as_str().unwrap().contains("cut off"), "{document}");
    assert_eq!(node.entries(), 2);
}
