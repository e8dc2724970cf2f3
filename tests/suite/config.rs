//! What `larder serve` makes of flags, variables and a file, and what it says of those that are wrong.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use larder::config::{
    BackendKind, CacheSettings, ConfigError, DiskSettings, Durability, Endpoint, LimitSettings,
    ListenerSettings, LoadedConfig, LogFormat, NodeSettings, Persistence, RecoveryMethod, SETTINGS,
    ServeArgs, ServeConfig, Source, TelemetrySettings, TimeoutSettings, Variables,
};
use larder::engine::PolicyName;
use larder::entry::ByteSize;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Flags, variables as NAME=VALUE, and the lines of a file.
fn load(flags: &[&str], variables: &[&str], file: &str) -> Result<LoadedConfig, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.toml");
    std::fs::write(&path, file).unwrap();
    let mut words = vec!["serve", "--config", path.to_str().unwrap()];
    words.extend(flags);
    let args = Cli::try_parse_from(words).unwrap().serve;
    ServeConfig::load(&args, &environment(variables))
}

fn environment(variables: &[&str]) -> Variables {
    let pairs = variables.iter().map(|variable| variable.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), OsString::from(value))).collect()
}

/// The error's text, with the file's directory cut off.
fn error(flags: &[&str], variables: &[&str], file: &str) -> String {
    let text = load(flags, variables, file).unwrap_err().to_string();
    match text.find("larder.toml") {
        Some(start) if text.starts_with('/') => text[start..].to_owned(),
        _ => text,
    }
}

fn source(loaded: &LoadedConfig, flag: &str) -> Source {
    loaded.sources.iter().find(|found| found.setting.flag == flag).unwrap().source
}

#[test]
fn nothing_said_gives_the_documented_defaults() {
    let args = Cli::try_parse_from(["serve"]).unwrap().serve;
    let loaded = ServeConfig::load(&args, &environment(&[])).unwrap();
    assert_eq!(loaded.config, ServeConfig::default());
    assert!(loaded.sources.iter().all(|found| found.source == Source::Default));
    assert!(loaded.warnings.is_empty());
    let config = loaded.config;
    assert_eq!(config.listeners.listen[0].to_string(), "tcp://127.0.0.1:7400");
    assert_eq!(config.listeners.admin.to_string(), "tcp://127.0.0.1:7401");
    assert_eq!(config.listeners.health.to_string(), "tcp://127.0.0.1:7402");
    assert_eq!(config.listeners.http.to_string(), "127.0.0.1:7403");
    assert_eq!(
        (config.cache.policy, config.disk.persistence),
        (PolicyName::Adaptive, Persistence::JournalAndSnapshot)
    );
    assert_eq!(config.identity(&[]).node_id, "tcp://127.0.0.1:7400");
}

#[test]
fn flags_override_variables_override_the_file() {
    let file = "memory = \"2MiB\"\ntimeout = \"2s\"\nzone = \"file\"\n";
    let variables = ["LARDER_MEMORY=3MiB", "LARDER_TIMEOUT=3s", "LARDER_ZONE=", "LARDER_NODE_ID="];
    let loaded = load(&["--memory", "4MiB"], &variables, file).unwrap();
    assert_eq!(loaded.config.cache.memory, ByteSize::mib(4));
    assert_eq!(loaded.config.timeouts.timeout, Some(Duration::from_secs(3)));
    assert_eq!(loaded.config.node.zone, "file", "an empty variable says nothing");
    assert_eq!(source(&loaded, "memory"), Source::Flag);
    assert_eq!(source(&loaded, "timeout"), Source::Environment);
    assert_eq!(source(&loaded, "zone"), Source::File);
    assert_eq!(source(&loaded, "node-id"), Source::Default);
}

#[test]
fn every_served_setting_of_a_file_arrives() {
    let file = r#"
        listen = ["tcp://127.0.0.1:1", "tcp://0.0.0.0:2"]
        admin = "tcp://[::1]:3"
        health = "tcp://127.0.0.1:4"
        http = "0.0.0.0:5"
        insecure = true
        memory = "32MiB"
        shards = 0x10
        policy = "lru"
        data-dir = "/tmp/larder"
        persistence = "journal"
        backend = "files"
        durability = "flushed"
        flush-interval = "20ms"
        snapshot-interval = "2m"
        disk-limit = "1GiB"
        recovery = "snapshot"
        node-id = "a"
        advertise = "tcp://cache-0.cache:1"
        weight = 7
        zone = "z"
        standby = true
        timeout = 0
        lame-duck = "1s"
        drain-deadline = "2s"
        first-byte-timeout = "3s"
        stall-timeout = "4s"
        threads = 3
        max-key = "1KiB"
        max-value = "2MiB"
        max-message-in = "3MiB"
        max-message-out = "5MiB"
        max-response-backlog = "10MiB"
        max-batch = 1_000
        max-content-type = "9B"
        max-tags = 2
        max-tag = "20B"
        max-ttl = "1h"
        max-namespaces = 7
        max-connections = 8
        max-in-flight = 9
        max-watchers = 11
        max-streams = 10
        stats-interval = "1m"
        slow-op = "5ms"
        log-format = "json"
        log = "warn"
        otlp = "http://127.0.0.1:4317"
        trace-sample = 0.25
    "#;
    let url = |text: &str| text.parse::<Endpoint>().unwrap();
    let expected = ServeConfig {
        listeners: ListenerSettings {
            listen: vec![url("tcp://127.0.0.1:1"), url("tcp://0.0.0.0:2")],
            admin: url("tcp://[::1]:3"),
            health: url("tcp://127.0.0.1:4"),
            http: "0.0.0.0:5".parse().unwrap(),
            insecure: true,
        },
        cache: CacheSettings { memory: ByteSize::mib(32), shards: Some(16), policy: PolicyName::Lru },
        disk: DiskSettings {
            data_dir: PathBuf::from("/tmp/larder"),
            persistence: Persistence::Journal,
            durability: Durability::Flushed,
            backend: BackendKind::Files,
            flush_interval: Duration::from_millis(20),
            snapshot_interval: Duration::from_secs(120),
            disk_limit: Some(ByteSize(1 << 30)),
            recovery: RecoveryMethod::Snapshot,
        },
        node: NodeSettings {
            node_id: Some("a".to_owned()),
            advertise: Some(url("tcp://cache-0.cache:1")),
            weight: 7,
            zone: "z".to_owned(),
            standby: true,
            threads: 3,
        },
        timeouts: TimeoutSettings {
            timeout: None,
            lame_duck: Duration::from_secs(1),
            drain_deadline: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(4),
        },
        limits: LimitSettings {
            max_key: ByteSize(1 << 10),
            max_value: ByteSize::mib(2),
            max_message_in: ByteSize::mib(3),
            max_message_out: ByteSize::mib(5),
            max_response_backlog: ByteSize::mib(10),
            max_batch: 1_000,
            max_content_type: ByteSize(9),
            max_tags: 2,
            max_tag: ByteSize(20),
            max_ttl: Duration::from_secs(3_600),
            max_namespaces: 7,
            max_connections: 8,
            max_in_flight: 9,
            max_watchers: 11,
            max_streams: 10,
        },
        telemetry: TelemetrySettings {
            stats_interval: Some(Duration::from_secs(60)),
            slow_op: Some(Duration::from_millis(5)),
            log_format: LogFormat::Json,
            log: "warn".to_owned(),
            otlp: Some("http://127.0.0.1:4317".into()),
            trace_sample: 0.25,
        },
    };
    let loaded = load(&[], &[], file).unwrap();
    assert_eq!(loaded.config, expected);
    assert_eq!(loaded.warnings.len(), 0);
    let unused = load(&["--data-dir", "/tmp/larder", "--persistence", "none"], &[], "").unwrap();
    assert_eq!(unused.warnings.len(), 1, "a data directory that is not used is not passed over in silence");
}

#[test]
fn every_setting_is_a_flag_a_variable_and_a_key_and_is_checked_in_each() {
    let flags: BTreeSet<String> =
        Cli::command().get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect();
    let mut names: BTreeSet<String> = SETTINGS.iter().map(|setting| setting.flag.to_owned()).collect();
    names.extend(["check", "config"].map(str::to_owned));
    assert_eq!(flags, names);
    for setting in &SETTINGS {
        let flag = format!("--{}=\u{7}", setting.flag);
        assert!(error(&[&flag], &[], "").starts_with(&format!("--{}", setting.flag)));
        let variable = setting.variable();
        assert!(error(&[], &[&format!("{variable}=\u{7}")], "").starts_with(&variable), "{variable}");
        let line = format!("\n{} = \"\\u0007\"", setting.flag);
        assert!(error(&[], &[], &line).starts_with(&format!("larder.toml, line 2, {}", setting.flag)));
    }
}

#[test]
fn every_field_of_the_proto_is_a_settings_and_each_setting_has_one() {
    let proto = std::fs::read_to_string("proto/larder/v1/admin.proto").unwrap();
    let message = proto.split("message Config {").nth(1).unwrap().split("\n}").next().unwrap();
    let fields: BTreeSet<&str> = message
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter_map(|line| line.split(" = ").next()?.split(' ').next_back())
        .filter(|name| !name.is_empty())
        .collect();
    let ours: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.field).collect();
    assert_eq!(ours, fields);
}

#[test]
fn wrong_key_names_the_file_the_line_and_the_nearest_key() {
    let file = "# a comment\nmemory = \"64MiB\"\nmemroy = \"64MiB\"\n";
    assert_eq!(
        error(&[], &[], file),
        "larder.toml, line 3: there is no setting \"memroy\"; did you mean \"memory\"?"
    );
    let nearest = |key: &str| error(&[], &[], &format!("{key} = 1"));
    assert!(nearest("data_dir").ends_with("did you mean \"data-dir\"?"));
    assert!(nearest("max-connection").ends_with("did you mean \"max-connections\"?"));
    assert!(nearest("max-value-bytes").ends_with("did you mean \"max-value\"?"));
    assert_eq!(
        nearest("qqq"),
        "larder.toml, line 1: there is no setting \"qqq\"; the keys are the flags' names without dashes in \
         front, see larder serve --help"
    );
    assert!(error(&[], &[], "\n[cluster]\nmembers = \"x\"").starts_with("larder.toml, line 2: there is no"));
}

#[test]
fn the_whole_file_is_checked_even_where_a_flag_overrides_it() {
    let text = error(&["--timeout", "1s"], &[], "timeout = 5");
    assert_eq!(
        text,
        "larder.toml, line 1, timeout is an integer; give 0 or a duration up to 1h, such as 250ms, 5s or 1h, \
         in quotes"
    );
}

#[test]
fn wrong_type_names_the_line_the_key_and_what_is_allowed() {
    let cases = [
        (
            "memory = 64.5",
            "line 1, memory is a float; give a size from 1MiB to 16TiB, such as 64MiB or 1000B, in quotes",
        ),
        (
            "max-batch = \"10\"",
            "line 1, max-batch is a string; give a whole number from 1 to 1000000, without quotes",
        ),
        ("\n\nstandby = \"yes\"", "line 3, standby is a string; give true or false, without quotes"),
        (
            "trace-sample = true",
            "line 1, trace-sample is a boolean; give a number from 0 to 1, without quotes",
        ),
        (
            "listen = [1]",
            "line 1, listen is an array; give a URL such as tcp://127.0.0.1:7400 or tcp://[::1]:0 in quotes, or an array of such",
        ),
        (
            "policy = [\"lru\"]",
            "line 1, policy is an array; give lru, lfu, fifo, sieve, s3-fifo, w-tinylfu, arc or adaptive, in quotes",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(error(&[], &[], file), format!("larder.toml, {expected}"));
    }
}

#[test]
fn files_that_cannot_be_read_or_parsed_are_named() {
    assert!(error(&[], &[], "memory = \"1MiB\"\nlisten = ").starts_with("larder.toml, line 2: "));
    let twice = error(&[], &[], "memory = \"1MiB\"\nmemory = \"2MiB\"");
    assert!(twice.starts_with("larder.toml, line 2: duplicate key"), "{twice}");
    let args = ServeArgs::default().with_file("/nowhere/l.toml");
    let text = ServeConfig::load(&args, &environment(&[])).unwrap_err().to_string();
    assert!(
        text.starts_with("--config names \"/nowhere/l.toml\", which cannot be read: No such file"),
        "{text}"
    );
    let variables = environment(&["LARDER_CONFIG=/nowhere/l.toml"]);
    let text = ServeConfig::load(&ServeArgs::default(), &variables).unwrap_err().to_string();
    assert!(text.starts_with("LARDER_CONFIG names"), "{text}");
}

#[test]
fn values_out_of_bounds_say_what_is_allowed() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--memory", "1023KiB"],
            "--memory: \"1023KiB\" is too little; give a size from 1MiB to 16TiB, such as 64MiB or 1000B",
        ),
        (
            &["--disk-limit", "4095KiB"],
            "--disk-limit: \"4095KiB\" is too little; give 0 for none, or a size from 4MiB, such as 64MiB or 10GiB",
        ),
        (
            &["--recovery", "x"],
            "--recovery: \"x\" is not known; give snapshot+journal, snapshot, journal, lazy or empty",
        ),
        (
            &["--memory", "64"],
            "--memory: \"64\" is too little; give a size from 1MiB to 16TiB, such as 64MiB or 1000B",
        ),
        (
            &["--max-key", "5KiB"],
            "--max-key: \"5KiB\" is too much; give a size from 1B to 4KiB, such as 64MiB or 1000B",
        ),
        (
            &["--timeout", "5"],
            "--timeout: \"5\" is no duration with a unit; give 0 or a duration up to 1h, such as 250ms, 5s or 1h",
        ),
        (
            &["--timeout", "5us"],
            "--timeout: \"5us\" is finer than a millisecond; give 0 or a duration up to 1h, such as 250ms, 5s or 1h",
        ),
        (
            &["--drain-deadline", "0"],
            "--drain-deadline: \"0\" is too little; give a duration from 1ms to 1h, such as 250ms, 5s or 1h",
        ),
        (
            &["--max-ttl", "101years"],
            "--max-ttl: \"101years\" is too much; give a duration from 1ms to 100years, such as 250ms, 5s or 1h",
        ),
        (
            &["--max-streams", "1025"],
            "--max-streams: \"1025\" is too much; give a whole number from 1 to 1024",
        ),
        (&["--max-tags", "17"], "--max-tags: \"17\" is too much; give a whole number from 0 to 16"),
        (
            &["--max-tag", "256B"],
            "--max-tag: \"256B\" is too much; give a size from 1B to 255B, such as 64MiB or 1000B",
        ),
        (
            &["--max-namespaces", "1025"],
            "--max-namespaces: \"1025\" is too much; give a whole number from 1 to 1024",
        ),
        (&["--weight", "0"], "--weight: \"0\" is too little; give a whole number from 1 to 1000"),
        (&["--weight", "1.5"], "--weight: \"1.5\" is no whole number; give a whole number from 1 to 1000"),
        (
            &["--max-batch", "99999999999999999999"],
            "--max-batch: \"99999999999999999999\" is too much; give a whole number from 1 to 1000000",
        ),
        (
            &["--node-id", ""],
            "--node-id: \"\" is empty; give text of 1 to 255 bytes without control characters",
        ),
        (
            &["--node-id", "a\nb"],
            "--node-id: \"a\\nb\" has control characters; give text of 1 to 255 bytes without control characters",
        ),
        (&["--log-format", "xml"], "--log-format: \"xml\" is not known; give text or json"),
        (&["--standby=maybe"], "--standby: \"maybe\" is neither on nor off; give true or false"),
        (&["--trace-sample", "2"], "--trace-sample: \"2\" is out of bounds; give a number from 0 to 1"),
        (&["--trace-sample", "NaN"], "--trace-sample: \"NaN\" is out of bounds; give a number from 0 to 1"),
        (
            &["--otlp", "collector:4317"],
            "--otlp: \"collector:4317\" is no http:// URL; give the URL of a collector such as http://127.0.0.1:4317",
        ),
        (
            &["--otlp", "http://collector:99999"],
            "--otlp: \"http://collector:99999\" has a port that is no number from 0 to 65535; give the URL of a collector such as \
             http://127.0.0.1:4317",
        ),
        (
            &["--otlp", "http://[::1]:0"],
            "--otlp: \"http://[::1]:0\" has port 0, at which nobody can be reached; give the URL of a collector such as \
             http://127.0.0.1:4317",
        ),
        (
            &["--listen", "127.0.0.1:7400"],
            "--listen: \"127.0.0.1:7400\" has no scheme; give a URL such as tcp://127.0.0.1:7400 or tcp://[::1]:0",
        ),
        (
            &["--http", "7403"],
            "--http: \"7403\" has no port; give an address such as 127.0.0.1:7403 or [::1]:0",
        ),
        (
            &["--advertise", "tcp://a:0"],
            "--advertise: \"tcp://a:0\" has port 0, at which nobody can be reached; give a URL such as tcp://127.0.0.1:7400 or tcp://[::1]:0",
        ),
    ];
    for (flags, expected) in cases {
        assert_eq!(error(flags, &[], ""), *expected);
    }
    let text = error(&[], &["LARDER_MAX_IN_FLIGHT=many"], "");
    assert_eq!(
        text,
        "LARDER_MAX_IN_FLIGHT: \"many\" is no whole number; give a whole number from 1 to 1000000"
    );
}

#[test]
#[cfg(unix)]
fn variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let variables = Variables::from_iter([("LARDER_ZONE".to_owned(), OsString::from_vec(vec![0xff]))]);
    let text = ServeConfig::load(&ServeArgs::default(), &variables).unwrap_err().to_string();
    assert_eq!(text, "LARDER_ZONE is not UTF-8; give text of up to 255 bytes without control characters");
}

#[test]
fn an_unknown_policy_names_those_that_there_are() {
    assert_eq!(
        error(&["--policy", "lrru"], &[], ""),
        "--policy: there is no policy \"lrru\"; there are lru, lfu, fifo, sieve, s3-fifo, w-tinylfu, arc, adaptive"
    );
    assert_eq!(
        error(&[], &[], "policy = \"adaptve\""),
        "larder.toml, line 1, policy: there is no policy \"adaptve\"; there are lru, lfu, fifo, sieve, s3-fifo, w-tinylfu, arc, adaptive"
    );
}

#[test]
fn what_is_not_served_yet_is_refused_and_never_ignored() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--recovery", "keys+origin"],
            "--recovery keys+origin is not served by this build yet: it loads missing keys from nowhere; give snapshot+journal, snapshot, journal, lazy or empty",
        ),
        (
            &["--members", "static:a"],
            "--members static:a is not served by this build yet: its nodes do not form a cluster; leave it out",
        ),
        (
            &["--listen", "udp://127.0.0.1:1"],
            "--listen udp://127.0.0.1:1 is not served by this build yet: it listens on TCP and on Unix sockets; give a tcp:// or a unix:// URL",
        ),
    ];
    for (flags, expected) in cases {
        assert_eq!(error(flags, &[], ""), *expected);
    }
    assert_eq!(
        error(&[], &["LARDER_ORIGIN=files:/srv"], ""),
        "LARDER_ORIGIN=files:/srv is not served by this build yet: it loads missing keys from nowhere; leave it out"
    );
    assert_eq!(
        error(&[], &[], "ring-points = 100"),
        "larder.toml, line 1, ring-points = \"100\" is not served by this build yet: its nodes do not form a \
         cluster; leave it out"
    );
    assert!(
        error(&["--persistence", "jornal"], &[], "")
            .starts_with("--persistence: \"jornal\" is not known; give none, journal")
    );
    assert!(
        error(&["--otlp", "https://c:1"], &[], "")
            .contains("asks for TLS, which this build does not serve yet")
    );
}

#[test]
fn settings_that_contradict_each_other_are_both_named() {
    let cases: &[(&[&str], &[&str], &str)] = &[
        (
            &["--persistence", "none"],
            &["LARDER_DURABILITY=flushed"],
            "LARDER_DURABILITY=flushed contradicts --persistence none: nothing is kept on disk that could be flushed to it; leave --durability out or give buffered",
        ),
        (
            &["--durability", "flushed"],
            &["LARDER_PERSISTENCE=none"],
            "--durability flushed contradicts LARDER_PERSISTENCE=none: nothing is kept on disk that could be flushed to it; leave --durability out or give buffered",
        ),
        (
            &["--persistence", "snapshot"],
            &["LARDER_DURABILITY=flushed"],
            "LARDER_DURABILITY=flushed contradicts --persistence snapshot: what is written between two snapshots is not on disk; leave --durability out or give buffered, or keep a journal with --persistence journal+snapshot",
        ),
        (
            &["--persistence", "snapshot", "--recovery", "journal"],
            &[],
            "--recovery journal contradicts --persistence snapshot: there is no journal to recover from; give snapshot",
        ),
        (
            &["--persistence", "snapshot", "--recovery", "lazy"],
            &[],
            "--recovery lazy contradicts --persistence snapshot: lazy recovery needs a journal, and there is none; give snapshot",
        ),
        (
            &["--max-value", "5MiB"],
            &[],
            "--max-value 5MiB contradicts --max-message-in 4MiB (the default): such a value could never arrive; lower --max-value or raise --max-message-in",
        ),
        (
            &["--max-message-out", "512KiB"],
            &[],
            "--max-value 1MiB (the default) contradicts --max-message-out 512KiB: such a value could never be read; lower --max-value or raise --max-message-out",
        ),
        (
            &["--max-response-backlog", "7MiB"],
            &[],
            "--max-message-out 4MiB (the default) contradicts --max-response-backlog 7MiB: one such answer would take more than half of it; lower --max-message-out or raise --max-response-backlog",
        ),
        (
            &["--memory", "1MiB", "--max-value", "2MiB"],
            &[],
            "--max-value 2MiB contradicts --memory 1MiB: such a value could never be stored; lower --max-value or raise --memory",
        ),
        (
            &["--lame-duck", "8s"],
            &[],
            "--lame-duck 8s contradicts --drain-deadline 8s (the default): the pause is part of the drain and leaves no time for the rest of it; make it shorter",
        ),
        (
            &["--listen", "tcp://127.0.0.1:7401"],
            &[],
            "--admin tcp://127.0.0.1:7401 (the default) contradicts --listen tcp://127.0.0.1:7401: no two listeners can have one address, and 0.0.0.0 has all of IPv4, [::] all that there are; give each its own port or path, or leave one out",
        ),
        (
            &["--trace-sample", "0.5"],
            &[],
            "--trace-sample 0.5 needs --otlp URL: without a collector the traces go nowhere; give both or neither",
        ),
    ];
    for (flags, variables, expected) in cases {
        assert_eq!(error(flags, variables, ""), *expected);
    }
    for none in ["0", "0B"] {
        assert_eq!(load(&["--disk-limit", none], &[], "").unwrap().config.disk.disk_limit, None);
    }
    let free =
        ["--listen=tcp://127.0.0.1:0,tcp://127.0.0.1:0", "--admin=tcp://127.0.0.1:0", "--http=127.0.0.1:0"];
    assert_eq!(load(&free, &[], "").unwrap().config.listeners.listen.len(), 2, "any number may have port 0");
}

#[test]
fn only_insecure_opens_data_and_admin_listeners_beyond_loopback() {
    for host in ["0.0.0.0", "[::]", "::", "[::ffff:0.0.0.0]", "10.1.2.3", "fd00::1", "cache-0.cache"] {
        let url = format!("tcp://{host}:7500");
        for (flag, exposed) in [("--listen", true), ("--admin", true), ("--health", false)] {
            let plain = load(&[flag, &url], &[], "");
            assert_eq!(plain.is_err(), exposed, "{flag} {url}");
            assert!(load(&[flag, &url, "--insecure", "--listen=tcp://127.0.0.1:0"], &[], "").is_ok());
        }
        assert!(load(&["--http", &format!("{host}:1")], &[], "").is_ok());
    }
    assert_eq!(
        error(
            &["--listen", "tcp://127.0.0.1:1", "--listen", "tcp://0.0.0.0:7400"],
            &["LARDER_INSECURE=false"],
            ""
        ),
        "--listen tcp://0.0.0.0:7400 can be reached from other machines, with neither TLS nor authentication; \
         listen on 127.0.0.1, [::1] or localhost, or say --insecure if the network is trusted"
    );
    assert!(load(&["--listen", "tcp://0.0.0.0:1"], &["LARDER_INSECURE=1"], "").is_ok());
    for host in ["127.0.0.2", "[::1]", "::1", "[::ffff:127.0.0.1]", "localhost"] {
        let url = format!("tcp://{host}:1");
        assert!(
            load(&["--listen", &url], &[], "").is_ok() && load(&["--admin", &url], &[], "").is_ok(),
            "{url}"
        );
    }
}

#[test]
fn identity_follows_the_port_that_was_picked() {
    let picked: Endpoint = "tcp://127.0.0.1:41007".parse().unwrap();
    let config = load(&["--listen", "tcp://127.0.0.1:0"], &[], "").unwrap().config;
    assert_eq!(config.identity(std::slice::from_ref(&picked)).node_id, "tcp://127.0.0.1:41007");
    let config = load(&["--advertise", "tcp://a:1", "--node-id", "n"], &[], "").unwrap().config;
    let identity = config.identity(&[picked]);
    assert_eq!((identity.node_id.as_str(), identity.advertise.as_str()), ("n", "tcp://a:1"));
}
