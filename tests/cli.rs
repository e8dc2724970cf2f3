//! The command line as its users meet it: the real binary against a node that is only a map.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod support;

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::fake::FakeNode;

const MISS: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(2);
const REFUSED: Option<i32> = Some(3);

/// Runs the binary with a clean environment and words split at blanks.
fn larder(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn on(node: &FakeNode, args: &[&str]) -> Output {
    let url = node.url();
    larder(&[&["--nodes", &url, "--admin", &url], args].concat())
}

/// Runs with `--output json`, which must print exactly one document.
fn json(node: &FakeNode, args: &[&str]) -> (Option<i32>, Value) {
    let output = on(node, &[args, &["--output", "json"]].concat());
    let text = stdout(&output);
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_ends(output: &Output, code: Option<i32>, out: &str, err: &str) {
    assert_eq!(output.status.code(), code, "{}{}", stdout(output), stderr(output));
    assert_eq!(stdout(output), out);
    assert!(stderr(output).contains(err), "{:?} lacks {err:?}", stderr(output));
    assert!(!stdout(output).contains('\x1b') && !stderr(output).contains('\x1b'), "colours off a terminal");
}

#[test]
fn what_is_set_is_got_byte_for_byte() {
    let node = FakeNode::start();
    assert_eq!(on(&node, &["set", "tea", "Earl Grey"]).status.code(), Some(0));
    assert_ends(&on(&node, &["get", "tea"]), Some(0), "Earl Grey", "");
    assert_eq!(on(&node, &["set", "none", ""]).status.code(), Some(0));
    assert_ends(&on(&node, &["get", "none"]), Some(0), "", "");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("binary");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(on(&node, &["set", "binary", "--file", file.to_str().unwrap()]).status.code(), Some(0));
    assert_eq!(on(&node, &["get", "binary"]).stdout, bytes);
    assert_eq!(on(&node, &["set", "negative", "-5"]).status.code(), Some(0));
    assert_eq!(on(&node, &["get", "--key-hex", "6e65676174697665"]).stdout, b"-5");
}

#[test]
fn a_miss_is_told_on_stderr_with_status_1() {
    let node = FakeNode::start();
    assert_ends(&on(&node, &["get", "nothing"]), MISS, "", "miss: nothing (unknown)");
    let (code, document) = json(&node, &["get", "nothing"]);
    assert_eq!((code, &document["outcome"]), (MISS, &Value::from("miss")));
}

#[test]
fn conditions_that_are_not_met_have_status_1() {
    let node = FakeNode::start();
    assert_ends(&on(&node, &["set", "k", "v", "--if-present"]), MISS, "current_version 0\n", "not stored");
    let (code, stored) = json(&node, &["set", "k", "v", "--if-absent", "--ttl", "1h", "--flags", "7"]);
    assert_eq!((code, &stored["outcome"]), (Some(0), &Value::from("stored")));
    assert_eq!(on(&node, &["set", "k", "w", "--if-absent"]).status.code(), MISS);
    let version = stored["version"].as_str().unwrap();
    assert_eq!(on(&node, &["set", "k", "w", "--keep-ttl", "--if-version", version]).status.code(), Some(0));
    let (code, document) = json(&node, &["set", "k", "x", "--if-version", version]);
    assert_eq!((code, &document["outcome"]), (MISS, &Value::from("not_stored")));
    let (_, document) = json(&node, &["get", "k"]);
    assert_eq!(document["remaining_ttl_ms"], 3_600_000);
    assert_eq!(document["value"], "w");
}

#[test]
fn a_set_whose_time_has_passed_says_so_with_status_1() {
    let node = FakeNode::start();
    on(&node, &["set", "k", "v"]);
    let late = ["set", "k", "v", "--expire-at", "2001-02-03T04:05:06Z"];
    assert_ends(&on(&node, &late), MISS, "current_version 0\n", "has passed by the node's clock");
    assert_eq!(on(&node, &["get", "k"]).status.code(), MISS);
    let (code, document) = json(&node, &["set", "k", "v", "--expire-at", "981173106000"]);
    assert_eq!((code, &document["outcome"]), (MISS, &Value::from("not_stored")));
    assert_eq!(document["expired"], true);
    let (code, document) = json(&node, &["set", "k", "v", "--expire-at", "2100-01-01T00:00:00Z"]);
    assert_eq!((code, &document["outcome"]), (Some(0), &Value::from("stored")));
    let both = on(&node, &["set", "k", "v", "--ttl", "1h", "--expire-at", "2100-01-01T00:00:00Z"]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn bytes_that_are_no_text_are_base64_in_json() {
    let node = FakeNode::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f");
    std::fs::write(&file, [0xff, 0x00]).unwrap();
    on(&node, &["set", "--key-hex", "fe", "--file", file.to_str().unwrap()]);
    let (_, document) = json(&node, &["get", "--key-hex", "fe"]);
    assert_eq!(document["key"]["base64"], "/g==");
    assert_eq!(document["value"]["base64"], "/wA=");
}

#[test]
fn keys_are_deleted_and_touched() {
    let node = FakeNode::start();
    for key in ["a", "b"] {
        on(&node, &["set", key, "v"]);
    }
    assert_ends(&on(&node, &["touch", "a", "--ttl", "5s"]), Some(0), "found true\n", "");
    assert_ends(&on(&node, &["del", "a", "b", "c"]), Some(0), "deleted 2\n", "");
    assert_ends(&on(&node, &["del", "a"]), MISS, "deleted 0\n", "no such entry");
    assert_ends(&on(&node, &["touch", "a", "--ttl", "0"]), MISS, "found false\n", "not found: a");
}

#[test]
fn counters_count_and_refuse_what_is_none() {
    let node = FakeNode::start();
    assert_ends(&on(&node, &["incr", "n", "--by", "5", "--initial", "10"]), Some(0), "15\n", "");
    assert_ends(&on(&node, &["decr", "n"]), Some(0), "14\n", "");
    assert_ends(&on(&node, &["incr", "n", "--by", "-4"]), Some(0), "10\n", "");
    let (code, document) = json(&node, &["incr", "n"]);
    assert_eq!((code, &document["value"]), (Some(0), &Value::from(11)));
    on(&node, &["set", "word", "tea"]);
    assert_ends(&on(&node, &["incr", "word"]), REFUSED, "", "FAILED_PRECONDITION (NOT_A_COUNTER)");
    assert_eq!(on(&node, &["incr", "n", "--by", "9223372036854775807"]).status.code(), REFUSED);
}

#[test]
fn errors_of_the_node_are_documents_in_json() {
    let node = FakeNode::start();
    let (code, document) = json(&node, &["get", "k", "--namespace", "nowhere"]);
    assert_eq!(code, REFUSED);
    assert_eq!(document["error"]["code"], "NOT_FOUND");
    assert_eq!(document["error"]["reason"], "NAMESPACE_NOT_FOUND");
}

/// How a server ends a call that it does not answer.
#[derive(Clone, Copy)]
enum Ends {
    Reset,
    AnswerBrokenOff,
    HangUp,
}

/// A server that ends its first call so; where it listens.
fn server_that_ends(how: Ends) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
            let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
            match how {
                Ends::Reset => respond.send_reset(h2::Reason::CANCEL),
                Ends::AnswerBrokenOff => {
                    let head = http::Response::builder().header("content-type", "application/grpc");
                    let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    body.send_data(bytes::Bytes::from_static(b"\0"), false).unwrap();
                    body.send_reset(h2::Reason::INTERNAL_ERROR);
                }
                Ends::HangUp => return,
            }
            // Until the client has gone.
            while connection.accept().await.is_some() {}
        });
    });
    url
}

#[test]
fn a_call_that_is_broken_off_is_told_from_a_node_that_is_not_there() {
    for how in [Ends::Reset, Ends::AnswerBrokenOff, Ends::HangUp] {
        let url = server_that_ends(how);
        let output = larder(&["--nodes", &url, "get", "k"]);
        assert_ends(&output, REFUSED, "", &format!("{url} closed Get before it was answered ("));
        assert!(!stderr(&output).contains("is a node listening"), "{}", stderr(&output));
    }
}

#[test]
fn a_node_that_is_not_there_or_silent_has_status_3() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", free.local_addr().unwrap());
    // It listens and never answers.
    let silent = larder(&["--nodes", &url, "get", "k", "--timeout", "200ms"]);
    assert_eq!(silent.status.code(), REFUSED, "{}", stderr(&silent));
    drop(free);
    for args in [&["get", "k"][..], &["probe"], &["bench"]] {
        let gone = larder(&[&["--nodes", &url], args].concat());
        assert_ends(&gone, REFUSED, "", "cannot reach tcp://127.0.0.1");
    }
    let node = FakeNode::start();
    assert_ends(&on(&node, &["get", "stuck", "--timeout", "100ms"]), REFUSED, "", "within 100ms");
}

#[test]
fn wrong_usage_has_status_2_and_says_what_is_allowed() {
    for (args, word) in [
        (&["get"][..], "<KEY>"),
        (&["get", ""], "1 to 4096 bytes"),
        (&["get", "k", "--nodes", "localhost"], "tcp://HOST:PORT"),
        (&["get", "k", "--nodes", "unix:///x"], "not served by this build yet"),
        (&["get", "k", "--nodes", "tcp://a:1,tcp://b:1"], "exactly one"),
        (&["get", "k", "--timeout", "5"], "250ms"),
        (&["set", "k", "v", "--ttl", "200years"], "100 years"),
        (&["set", "k", "v", "--ttl", "1s", "--keep-ttl"], "cannot be used with"),
        (&["set", "k", "v", "--if-version", "0"], "--if-version"),
        (&["set", "k", "--file", "/no/such/file"], "/no/such/file"),
        (&["incr", "k", "--by", "0"], "at least 1"),
        (&["bench", "--ratio", "9"], "GETS:SETS"),
        (&["bench", "--key-size", "3"], "--key-size 3 is too short"),
        (&["bench", "--batch", "1000", "--value-size", "64KiB"], "63 keys of that size fit"),
        (&["bench", "--distribution", "normal"], "zipf:0.99"),
        (&["admin", "resize", "64"], "64MiB"),
        (&["admin", "stats", "--watch", "1ms"], "100ms to 1h"),
        (&["--nodes", "tcp://a:1", "serve"], "--nodes"),
        (&["touhc", "k"], "touch"),
    ] {
        assert_ends(&larder(args), USAGE, "", word);
    }
}

#[test]
fn the_environment_names_nodes_and_flags_override_it() {
    let node = FakeNode::start();
    let get = |flags: &[&str], nodes: &str| {
        command(&[&["get", "k"], flags].concat()).env("LARDER_NODES", nodes).output().unwrap().status.code()
    };
    assert_eq!(get(&[], &node.url()), MISS);
    assert_eq!(get(&["--nodes", &node.url()], "tcp://127.0.0.1:1"), MISS);
    assert_eq!(get(&[], "nonsense"), USAGE);
}

#[test]
fn probe_tells_serving_from_not_serving() {
    let node = FakeNode::start();
    assert_ends(&on(&node, &["probe"]), Some(0), "status SERVING\n", "");
    assert_eq!(on(&node, &["probe", "--service", "larder.v1.Cache"]).status.code(), Some(0));
    assert_ends(&on(&node, &["probe", "--service", "asleep"]), MISS, "status NOT_SERVING\n", "");
    assert_ends(&on(&node, &["probe", "--service", "who"]), MISS, "status SERVICE_UNKNOWN\n", "");
}

#[test]
fn admin_shows_and_changes_a_node() {
    let node = FakeNode::start();
    on(&node, &["set", "k", "v"]);
    on(&node, &["get", "k"]);
    let text = stdout(&on(&node, &["admin", "stats"]));
    for line in ["state serving", "hits 1", "hit_ratio 1.000000", "incarnation 18446744073709551615"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let (_, stats) = json(&node, &["admin", "stats"]);
    assert_eq!((&stats["hits"], &stats["namespaces"][0]["hits"]), (&Value::from(1), &Value::from(1)));
    let watched = on(&node, &["admin", "stats", "--watch", "1s", "--output", "json"]);
    let watched = stdout(&watched);
    assert_eq!(watched.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(), 2);

    assert_eq!(on(&node, &["admin", "policy", "lru"]).status.code(), Some(0));
    assert_ends(&on(&node, &["admin", "policy"]), Some(0), "policy lru\n", "");
    assert_ends(&on(&node, &["admin", "policy", "best"]), REFUSED, "", "lru and s3-fifo");
    let resized = on(&node, &["admin", "resize", "128MiB"]);
    assert_ends(&resized, Some(0), "bytes_limit 134217728\nprevious_bytes_limit 67108864\n", "");
    let config = stdout(&on(&node, &["admin", "config"]));
    for line in ["memory_bytes 67108864 -\n", "policy lru flag\n"] {
        assert!(config.contains(line), "{config}");
    }
    let (_, config) = json(&node, &["admin", "config"]);
    assert_eq!(config["policy"]["source"], "flag");
    assert_ends(&on(&node, &["admin", "clear"]), Some(0), "entries 1\n", "");
    assert_ends(&on(&node, &["admin", "reset-stats"]), Some(0), "reset true\n", "");
    assert_eq!(node.counters().hits, 0);
    assert_ends(&on(&node, &["admin", "drain", "--deadline", "1s"]), Some(0), "state draining\n", "");
    let spawned = on(&node, &["admin", "spawn"]);
    assert_ends(&spawned, Some(0), "state serving\ndata tcp://127.0.0.1:1\n", "");
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let output = larder(&["completions", shell]);
        assert!(output.status.success() && stdout(&output).contains("larder"), "{shell}");
    }
}

#[test]
fn bench_counts_what_the_node_counted() {
    for mode in [&[][..], &["--batch", "7"], &["--pipeline", "16", "--depth", "3"]] {
        let node = FakeNode::start();
        let load = ["bench", "-c", "2", "--callers", "2", "--keys", "100", "--prefill", "--requests", "1000"];
        let (code, document) =
            json(&node, &[&load[..], &["--ratio", "1:1", "--value-size", "1-64"], mode].concat());
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
        assert_eq!(node.value(b"0000000000000042").map(|value| (1..=64).contains(&value.len())), Some(true));
    }
}

#[test]
fn bench_in_an_open_loop_keeps_its_rate() {
    let node = FakeNode::start();
    for arrivals in ["poisson", "constant"] {
        let open = ["bench", "-c", "1", "--rate", "2000", "--arrivals", arrivals, "--requests", "1000"];
        let (code, document) = json(&node, &open);
        assert_eq!(code, Some(0), "{document}");
        assert_eq!(document["throughput"]["keys"], 1_000);
        // Sending faster than asked for would be wrong; how much slower depends on the machine.
        assert!(document["throughput"]["elapsed_s"].as_f64() > Some(0.35), "{document}");
        assert_eq!(document["throughput"]["unsent_calls"], 0);
    }
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

    std::fs::write(root.join("over"), vec![0; support::fake::VALUE_BYTES_MAX + 1]).unwrap();
    std::fs::write(root.join("way over"), vec![0; 5 << 20]).unwrap();
    let output = on(&node, &["import", path, "--prefix", "files/"]);
    assert_eq!(output.status.code(), REFUSED);
    assert!(stdout(&output).contains("stored 2503\n") && stdout(&output).contains("refused 2\n"));
    assert!(stderr(&output).contains("files/over: RESOURCE_EXHAUSTED"), "{}", stderr(&output));
    assert!(stderr(&output).contains("files/way over: it has 5242880 bytes"), "{}", stderr(&output));
    assert_ends(&on(&node, &["import", "/no/such"]), USAGE, "", "/no/such is no directory");
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
