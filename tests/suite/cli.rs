//! The command line as its users meet it: the real binary against a node that is only a map.

mod load;

use crate::support::node;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

use crate::support::fake::FakeNode;
use serde_json::Value;

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
fn several_keys_are_got_at_once_and_one_that_misses_has_status_1() {
    let node = FakeNode::start();
    on(&node, &["set", "café", "two\nlines"]);
    on(&node, &["set", "b", "\\"]);
    assert_ends(&on(&node, &["get", "café", "b"]), Some(0), "café\ttwo\\x0alines\nb\t\\\\\n", "");
    assert_ends(&on(&node, &["get", "b", "c"]), MISS, "b\t\\\\\n", "miss: c (unknown)");
    let (code, document) = json(&node, &["get", "b", "c"]);
    assert_eq!((code, &document["found"]), (MISS, &Value::from(1)));
    assert_eq!(document["keys"][0]["value"], "\\");
    assert_eq!(document["keys"][1]["outcome"], "miss");
}

#[test]
fn what_exists_and_how_long_is_told_without_the_value() {
    let node = FakeNode::start();
    on(&node, &["set", "a", "v", "--ttl", "1h"]);
    on(&node, &["set", "b", "v"]);
    assert_ends(&on(&node, &["exists", "a", "b"]), Some(0), "found 2\n", "");
    assert_ends(&on(&node, &["exists", "a", "c"]), MISS, "found 1\n", "miss: c (unknown)");
    let (_, document) = json(&node, &["exists", "a", "c"]);
    assert_eq!(
        (&document["keys"][0]["exists"], &document["keys"][1]["exists"]),
        (&true.into(), &false.into())
    );
    assert_ends(&on(&node, &["ttl", "a"]), Some(0), "remaining_ttl_ms 3600000\n", "");
    assert_ends(&on(&node, &["ttl", "b"]), Some(0), "remaining_ttl_ms 0\n", "it never expires");
    assert_ends(&on(&node, &["ttl", "c"]), MISS, "", "miss: c (unknown)");
}

#[test]
fn one_bad_key_of_several_ends_with_3_when_the_others_are_done() {
    let node = FakeNode::start();
    let long = "k".repeat(4_097);
    for (command, word, out) in [
        ("get", "not asked for", "a\tv\n"),
        ("exists", "not asked for", "found 1\n"),
        ("del", "not deleted", "deleted 1\nrefused 1\n"),
    ] {
        on(&node, &["set", "a", "v"]);
        let output = on(&node, &[command, &long, "a"]);
        assert_ends(&output, REFUSED, out, "the key has 4097 bytes");
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
        assert_ends(&on(&node, &[command, &long]), USAGE, "", "the key has 4097 bytes");
    }
    assert_eq!(node.entries(), 0);
}

#[test]
fn a_value_that_is_missing_is_read_from_stdin() {
    let node = FakeNode::start();
    let mut child = command(&["--nodes", &node.url(), "set", "k"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a\0b\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(node.value(b"k").as_deref(), Some(&b"a\0b\n"[..]));
    assert_eq!(on(&node, &["set", "k", "--file", "-"]).status.code(), Some(0));
    assert_eq!(node.value(b"k").as_deref(), Some(&b""[..]));
}

#[test]
fn a_node_needs_no_scheme() {
    let node = FakeNode::start();
    let url = node.url();
    let authority = url.strip_prefix("tcp://").unwrap();
    assert_ends(&larder(&["--nodes", authority, "get", "k"]), MISS, "", "miss: k");
    assert_eq!(larder(&["--admin", authority, "admin", "policy"]).status.code(), Some(0));
}

#[test]
fn latency_prints_what_round_trips_took() {
    let node = FakeNode::start();
    let output = on(&node, &["latency", "--count", "3", "--interval", "1ms"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("all calls 3 errors 0 min_us ") && text.contains(" p99_us "), "{text}");
    assert_eq!(node.counters().misses, 0, "it counts as no lookup");
    let (_, document) = json(&node, &["latency", "--count", "2", "--interval", "0", "--key", "k"]);
    assert_eq!((&document["calls"], node.counters().misses), (&Value::from(2), 3));
    assert!(document["max_us"].as_f64() >= document["min_us"].as_f64());
    let output = on(&node, &["latency", "--duration", "1ms", "--interval", "1h"]);
    assert_eq!(output.status.code(), Some(0), "it waits no longer than it is to take: {}", stderr(&output));
}

/// A node that works, and what its client needs to find it.
fn real(flags: &[&str]) -> (node::Process, Vec<String>) {
    let process = node::Process::start(flags);
    let words = ["--nodes", &process.ready.data[0], "--admin", &process.ready.admin].map(str::to_owned);
    (process, words.into())
}

#[test]
fn what_scan_prints_can_be_given_back() {
    let (_process, nodes) = real(&[]);
    let run = |args: &[&[u8]], stdin: &[u8]| {
        let mut child = command(&[])
            .args(&nodes)
            .args(args.iter().map(|arg| std::ffi::OsStr::from_bytes(arg)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        child.wait_with_output().unwrap()
    };
    let keys: [&[u8]; 6] = ["café".as_bytes(), b"caf\xe9", b"a b\nc", b"back\\slash", b"\\x41", b"'\""];
    let fill = || keys.iter().for_each(|key| assert!(run(&[b"set", b"--", key], b"v").status.success()));
    let is_empty = || run(&[b"scan"], b"").status.code() == MISS;
    let printed = |args: &[&[u8]]| stdout(&run(args, b""));

    fill();
    let text = printed(&[b"scan"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), keys.len(), "{text}");
    assert!(
        lines.contains(&"café") && lines.contains(&r"caf\xe9") && lines.contains(&r"back\\slash"),
        "{text}"
    );
    let escaped: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    let output = run(&[&[&b"del"[..], b"--escaped", b"--"], &escaped[..]].concat(), b"");
    assert_eq!(stdout(&output), "deleted 6\n", "{}", stderr(&output));
    assert!(is_empty());

    fill();
    let documents: Vec<Value> = printed(&[b"scan", b"--output", b"json"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["key"].clone())
        .collect();
    let texts: Vec<String> = documents.iter().map(Value::to_string).collect();
    let json: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
    let output = run(&[&[&b"del"[..], b"--key-json", b"--"], &json[..]].concat(), b"");
    assert_eq!(stdout(&output), "deleted 6\n", "{}", stderr(&output));
    assert!(is_empty());

    fill();
    let raw = run(&[b"scan", b"-0"], b"").stdout;
    assert_eq!(raw.split(|byte| *byte == 0).filter(|key| keys.contains(key)).count(), keys.len());
    let output = run(&[b"del", b"-0"], &[&raw[..], b"\0not there\0"].concat());
    assert_ends(&output, REFUSED, "deleted 6\nrefused 1\n", "the key is empty");
    assert!(is_empty());

    assert!(run(&[b"set", b"--key-hex", b"610062"], b"v").status.success());
    let output = run(&[b"scan", b"-0"], b"");
    assert_ends(&output, REFUSED, "", r"a\x00b: it holds a zero byte");
    assert_eq!(run(&[b"scan", b"-0", b"--output", b"json"], b"").status.code(), USAGE);
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
    for (how, said) in [
        (Ends::Reset, "closed Get before it was answered ("),
        (Ends::AnswerBrokenOff, "closed Get before it was answered ("),
        (Ends::HangUp, "closed the connection before Get was answered ("),
    ] {
        let url = server_that_ends(how);
        let output = larder(&["--nodes", &url, "get", "k"]);
        assert_ends(&output, REFUSED, "", &format!("{url} {said}"));
        assert!(!stderr(&output).contains("is a node listening"), "{}", stderr(&output));
    }
}

#[test]
fn a_connection_that_is_closed_at_once_is_told_with_what_may_be_the_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
    // Which of its layers notices it first, and in which words, is chance.
    for _ in 0..10 {
        let output = larder(&["--nodes", &url, "set", "k", "v"]);
        assert_ends(&output, REFUSED, "", &format!("{url} closed the connection before Set was answered ("));
        assert!(stderr(&output).contains("--max-connections"), "{}", stderr(&output));
    }
}

#[test]
fn a_value_is_not_taken_from_a_stdin_that_is_not_there() {
    let node = FakeNode::start();
    let said = "there is no value, and stdin is closed or /dev/null";
    assert_ends(&on(&node, &["set", "k"]), USAGE, "", said);
    let closed = format!("exec {} --nodes {} set k <&-", env!("CARGO_BIN_EXE_larder"), node.url());
    let output = Command::new("sh").args(["-c", &closed]).env_clear().output().unwrap();
    assert_ends(&output, USAGE, "", said);
    assert_eq!(node.entries(), 0);
    for named in ["-", "/dev/null"] {
        assert_eq!(on(&node, &["set", named, "--file", named]).status.code(), Some(0));
        assert_ends(&on(&node, &["get", named]), Some(0), "", "");
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
        (&["get", "k", "--escaped", "--key-hex"], "cannot be used with"),
        (&["get", "--escaped", "a\\n"], "\\xNN"),
        (&["set", "k", "--file", "/dev/zero"], "put-blob"),
        (&["serve", "--config", "/dev/zero"], "longer than 1MiB"),
        (&["get", "k", "--nodes", "udp://a:1"], "not served by this build yet"),
        (&["get", "k", "--nodes", "tcp://a:1,tcp://b:1"], "exactly one"),
        (&["get", "k", "--timeout", "5"], "250ms"),
        (&["set", "k", "v", "--ttl", "200years"], "100 years"),
        (&["set", "k", "v", "--ttl", "1s", "--keep-ttl"], "cannot be used with"),
        (&["set", "k", "v", "--if-version", "0"], "--if-version"),
        (&["set", "k", "--file", "/no/such/file"], "/no/such/file"),
        (&["incr", "k", "--by", "0"], "at least 1"),
        (&["bench", "--ratio", "9"], "GETS:SETS"),
        (&["bench", "--key-size", "3"], "--key-size 3 is too short"),
        (&["bench", "--batch", "10000", "--value-size", "1MiB"], "2047 keys of that size fit"),
        (&["bench", "--distribution", "normal"], "zipf:0.99"),
        (&["admin", "resize", "64 of them"], "64MiB"),
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
    // One that is empty counts as unset: the default node is asked, whether it is there or not.
    for (variable, args) in [("LARDER_NODES", &["get", "k"][..]), ("LARDER_ADMIN", &["admin", "stats"])] {
        let output = command(args).env(variable, "").output().unwrap();
        assert_ne!(output.status.code(), Some(2), "{}", stderr(&output));
    }
    let output = larder(&["get", "k", "--nodes", ""]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
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
    for line in ["memory 64MiB -\n", "policy lru flag\n"] {
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
        for value in ["w-tinylfu", "flushed", "snapshot+journal", "zipf", "larder.v1.Admin", "poisson"] {
            assert!(stdout(&output).contains(value), "{shell} offers no {value}");
        }
    }
}
