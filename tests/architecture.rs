//! The house's rules, read off the sources: which way arrows point, how long files are, what is not written.
//!
//! A change that breaks a rule is a reason to look at the design, not to loosen the rule in passing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[path = "architecture/arrows.rs"]
mod arrows;

use arrows::ARROWS;

/// The crates that the engine stands on: data structures and errors.
const ENGINE_CRATES: &[&str] = &[
    "std",
    "arc_swap",
    "bytes",
    "foldhash",
    "hashbrown",
    "parking_lot",
    "thiserror",
    "crate",
    "self",
    "super",
];
/// And what it keeps away from within std.
const ENGINE_NOT: &[&str] =
    &["std::fs", "std::io", "std::net", "std::process", "std::env", "std::time::SystemTime"];

const LINES_MAX: usize = 600;

/// A source file.
struct Source {
    path: PathBuf,
    /// Its text without comments and without what is compiled for tests alone.
    code: String,
}

impl Source {
    /// The room that it belongs to: `engine`, `node`, `server/stack`.
    fn room(&self) -> &str {
        let path = self.path.to_str().unwrap();
        for inner in ["server/stack", "client/near"] {
            if path.strip_prefix(inner).is_some_and(|rest| rest.starts_with('/')) {
                return inner;
            }
        }
        path.split('/').next().unwrap().trim_end_matches(".rs")
    }
}

/// All of src/, but for files of tests.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    rust_files(&root, &mut |path, text| {
        let path = path.strip_prefix(&root).unwrap().to_owned();
        let name = path.file_name().unwrap();
        if name != "tests.rs" && !path.components().any(|part| part.as_os_str() == "tests") {
            let code = code(&text);
            sources.push(Source { path, code });
        }
    });
    assert!(sources.len() > 50, "{} sources are not all", sources.len());
    sources
}

fn rust_files(directory: &Path, found: &mut impl FnMut(&Path, String)) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found(&path, std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Leaves out comments and items for tests, which rustfmt lays out so that an item ends with its own indent.
fn code(text: &str) -> String {
    let mut lines = text.lines();
    let mut code = String::new();
    while let Some(line) = lines.next() {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        if rest.starts_with("//") {
            continue;
        }
        if rest.starts_with("#[cfg(test)]") || rest.starts_with("#[cfg(any(test,") {
            for line in lines.by_ref() {
                let ends = line.strip_prefix(indent).is_some_and(|rest| {
                    rest.starts_with('}') || (!rest.starts_with([' ', '#', '/']) && rest.ends_with(';'))
                });
                if ends {
                    break;
                }
            }
            continue;
        }
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// Every `crate::ROOM::NAME` in the code, also in groups.
fn mentions(code: &str) -> BTreeSet<(String, String)> {
    let mut mentions = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // pub(in crate::engine) is no arrow, and $crate no path of ours.
        if code[..at].ends_with("in ") || code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        for (room, rest) in names(rest) {
            let within = rest.strip_prefix("::").map(names).unwrap_or_default();
            if within.is_empty() {
                mentions.insert((room.to_owned(), String::new()));
            }
            mentions.extend(within.into_iter().map(|(name, _)| (room.to_owned(), name.to_owned())));
        }
    }
    mentions
}

/// The names that a path goes on with, each with what follows it: one, or those of a group.
fn names(path: &str) -> Vec<(&str, &str)> {
    let name = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let Some(group) = path.strip_prefix('{') else {
        let end = name(path);
        return if end == 0 { Vec::new() } else { vec![path.split_at(end)] };
    };
    let (mut found, mut depth, mut expected) = (Vec::new(), 0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            c if expected && (c.is_alphabetic() || c == '_') => {
                expected = false;
                found.push(group[at..].split_at(name(&group[at..])));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn arrows_point_from_the_outside_in() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources() {
        let room = source.room();
        if room == "lib" {
            continue;
        }
        let within = room.split('/').next().unwrap();
        for (to, name) in mentions(&source.code) {
            let allowed =
                ARROWS.iter().find(|(from, _)| *from == room).map(|(_, to)| *to).unwrap_or_default();
            let arrow = allowed.iter().find(|(known, _)| *known == to);
            let right = to == within
                || arrow.is_some_and(|(_, only)| only.is_none_or(|only| only.contains(&name.as_str())));
            if !right {
                wrong.push(format!("src/{}: crate::{to}::{name}", source.path.display()));
            }
            used.insert((room.to_owned(), to, name));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "wrong arrows");
    // The reader above reads.
    for (from, to, name) in
        [("engine", "clock", "Now"), ("service", "grpc", "GrpcError"), ("config", "entry", "ByteSize")]
    {
        assert!(used.contains(&(from.to_owned(), to.to_owned(), name.to_owned())), "{from} → {to}::{name}");
    }
}

/// What a program that embeds a node, an engine or a client may build on; `cli` is for src/main.rs, and hidden.
const PUBLIC: &[&str] =
    &["client", "clock", "config", "endpoint", "engine", "entry", "local", "node", "proto", "ring", "cli"];

#[test]
fn the_public_interface_is_small_and_the_rest_is_public_to_tests_alone() {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let lines: Vec<&str> = lib.lines().collect();
    let (mut public, mut for_tests) = (Vec::new(), 0);
    for (at, line) in lines.iter().enumerate() {
        let Some(room) = line.strip_prefix("pub mod ") else { continue };
        let mut attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        if attributes.any(|attribute| *attribute == "#[cfg(feature = \"testing\")]") {
            for_tests += 1;
        } else {
            public.push(room.trim_end_matches(';'));
        }
    }
    public.sort_unstable();
    let mut expected = PUBLIC.to_vec();
    expected.sort_unstable();
    assert_eq!(public, expected);
    assert!(for_tests > 0, "the reader of this rule reads");
    // The backend whose faults are made to order is in no program.
    let backends =
        sources().into_iter().find(|source| source.path == Path::new("persistence/backend/mod.rs"));
    assert!(!backends.unwrap().code.contains("mod memory"));
}

#[test]
fn no_file_leaves_its_room_by_super() {
    for source in sources() {
        let depth = source.path.components().count();
        let module = source.path.file_name().unwrap() == "mod.rs";
        let climb = "super::".repeat(if module { depth - 1 } else { depth });
        // What is indented may stand in a module of the file's own.
        let mut lines = source.code.lines().filter(|line| depth > 2 || !line.starts_with(' '));
        let leaves = lines.find(|line| line.contains(&climb));
        assert_eq!(
            leaves,
            None,
            "src/{}: write crate::, which is what the rules read",
            source.path.display()
        );
    }
}

/// The most packages that a build of the client alone may compile, larder among them, and hashring with its siphasher.
const CLIENT_PACKAGES_MAX: usize = 116;
/// And one of the client with the cache in its own process: the engine's data structures beside.
const LOCAL_PACKAGES_MAX: usize = CLIENT_PACKAGES_MAX + 8;
/// What makes a node, of which that one has nothing.
const NODE_CRATES: &[&str] = &[
    "axum",
    "clap",
    "opentelemetry",
    "sled",
    "socket2",
    "toml",
    "tonic-reflection",
    "tracing-subscriber",
    "flate2",
    "rand",
];

/// The rooms of a build that has these features and no others.
fn rooms_of(features: &[&str]) -> BTreeSet<String> {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let (mut rooms, mut gates) = (BTreeSet::new(), Vec::new());
    for line in lib.lines() {
        let room =
            line.trim_start_matches("pub ").strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
        let is_shut = |gate: &&str| {
            let opens = |feature: &&str| gate.contains(&format!("feature = \"{feature}\""));
            gate.starts_with("#[cfg(") && !features.iter().any(opens)
        };
        match room {
            Some(room) if !gates.iter().any(is_shut) => drop(rooms.insert(room.to_owned())),
            None if line.starts_with("#[") => {
                gates.push(line);
                continue;
            }
            _ => {}
        }
        gates.clear();
    }
    rooms
}

#[test]
fn what_builds_without_a_node_needs_no_room_that_its_build_leaves_out() {
    let client = rooms_of(&["client"]);
    let expected = ["client", "clock", "endpoint", "entry", "grpc", "proto", "redacted", "ring", "verb"];
    assert_eq!(client.iter().collect::<Vec<_>>(), expected);
    let local = rooms_of(&["client", "local"]);
    let more: Vec<&String> = local.difference(&client).collect();
    assert_eq!(more, ["engine", "local", "quote", "request"]);
    for (from, rooms) in [
        ("client", &client),
        ("client/near", &local),
        ("local", &local),
        ("engine", &local),
        ("request", &local),
    ] {
        let (_, arrows) = ARROWS.iter().find(|(room, _)| *room == from).unwrap();
        for (to, _) in *arrows {
            assert!(rooms.contains(*to), "{from} → {to}, which a build of {from} alone does not have");
        }
    }
}

/// The packages that a build with this feature alone compiles, by name and version.
fn packages_of(feature: &str) -> BTreeSet<String> {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--no-default-features", "--features", feature])
        .args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    // Name and version; what follows says where it is from, or that it was listed before.
    let package = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    tree.lines().map(package).collect()
}

#[test]
fn the_client_alone_is_few_packages_and_the_local_cache_few_more() {
    let client = packages_of("client");
    assert!(client.len() > 50, "{} packages are not all", client.len());
    assert!(client.len() <= CLIENT_PACKAGES_MAX, "{} packages: {client:?}", client.len());
    let local = packages_of("local");
    assert!(local.is_superset(&client) && local.len() > client.len());
    let more: Vec<&String> = local.difference(&client).collect();
    assert!(local.len() <= LOCAL_PACKAGES_MAX, "{} packages more: {more:?}", more.len());
    for package in more {
        let name = package.split(' ').next().unwrap();
        assert!(!NODE_CRATES.contains(&name), "{name} is a node's");
    }
}

/// A generated type in a signature or field of the client that others see: a change of the contract would be a change of
/// the library.
#[test]
fn what_the_client_gives_out_is_its_own() {
    let mut shown = 0;
    for source in sources().into_iter().filter(|source| source.room().starts_with("client")) {
        let path = source.path.to_str().unwrap();
        let generated: BTreeSet<&str> = ["v1::", "rpc::"].into();
        for item in public_items(&source.code) {
            shown += 1;
            let leaks = generated.iter().any(|name| item.contains(name));
            assert!(!leaks, "src/{path}: {item}");
        }
    }
    assert!(shown > 100, "{shown} items are not all");
}

/// The public functions up to their bodies, and public fields.
fn public_items(code: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut lines = code.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if !line.starts_with("pub ") {
            continue;
        }
        let mut item = line.to_owned();
        while !item.ends_with(['{', ';', ',', '}']) || is_open(&item) {
            let Some(next) = lines.next() else { break };
            item.push(' ');
            item.push_str(next);
        }
        items.push(item);
    }
    items
}

/// Whether there is a parenthesis that is not closed.
fn is_open(item: &str) -> bool {
    item.matches('(').count() > item.matches(')').count()
}

#[test]
fn the_engine_stands_on_little() {
    for source in sources().into_iter().filter(|source| ["engine", "entry"].contains(&source.room())) {
        let path = source.path.display();
        let more: &[&str] = if source.room() == "entry" { &["humantime"] } else { &[] };
        for line in source.code.lines() {
            let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            if let Some(import) = line.strip_prefix("use ") {
                let root = import.split([':', ';', ' ']).next().unwrap();
                // Modules of the file's own are imported without a prefix.
                let own = source.code.contains(&format!("mod {root};"));
                let right = own || ENGINE_CRATES.contains(&root) || more.contains(&root);
                assert!(right, "src/{path} uses {root}");
            }
        }
        for not in ENGINE_NOT.iter().chain(&["tokio::", "tonic::", "hyper::", "tracing::", "sled::"]) {
            assert!(!source.code.contains(not), "src/{path} has {not}");
        }
    }
}

#[test]
fn two_files_have_unsafe_in_them_and_say_why_at_each_block() {
    // Each is tested under AddressSanitizer by .ci/run.
    const FILES: [&str; 2] = ["src/engine/prefetch.rs", "src/client/process.rs"];
    let is_word = |word: &str| word == "unsafe";
    let mut blocks = 0;
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path, text| {
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        let is_comment = |line: &&str| line.starts_with("//");
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| !is_comment(line)) {
            if !line.split(|c: char| !c.is_alphanumeric() && c != '_').any(is_word) {
                continue;
            }
            assert!(FILES.iter().any(|file| path.ends_with(file)), "{}: {line}", path.display());
            let mut before = lines[..at].iter().rev().copied().take_while(|line| is_comment(line));
            assert!(before.any(|line| line.contains("SAFETY:")), "{}: no reason: {line}", path.display());
            blocks += 1;
        }
    });
    assert_eq!(blocks, 3);
}

#[test]
fn only_the_clock_asks_for_the_time() {
    for source in sources() {
        for asks in ["Instant::now(", "SystemTime::now(", "UNIX_EPOCH.elapsed("] {
            let right = source.path == Path::new("clock.rs") || !source.code.contains(asks);
            assert!(right, "src/{}: {asks}) outside clock.rs", source.path.display());
        }
    }
}

#[test]
fn nothing_panics_on_purpose_outside_of_tests() {
    for source in sources() {
        for word in [".unwrap()", ".unwrap_err()", "panic!(", "todo!(", "unimplemented!(", "dbg!("] {
            let at = source.code.lines().find(|line| line.contains(word));
            assert!(at.is_none(), "src/{}: {}", source.path.display(), at.unwrap_or_default().trim());
        }
    }
}

/// The macros panic where what they print to is gone, and wait where it is full: `telemetry::log` and `cli::output` do
/// neither. Nothing else has the standard streams, but to ask whether they are terminals.
#[test]
fn nothing_is_printed_past_the_log() {
    let mut found = 0;
    for source in sources() {
        let path = source.path.to_str().unwrap();
        for line in source.code.lines() {
            for word in ["println!(", "print!(", "eprintln!(", "eprint!("] {
                assert!(!line.contains(word), "src/{path}: {}", line.trim());
            }
            let is_stream = line.contains("io::stdout()") || line.contains("io::stderr()");
            let asks = ["is_terminal()", "colours(", "tcgetwinsize("].iter().any(|ask| line.contains(ask));
            if is_stream && !asks {
                let may = ["cli/output.rs", "telemetry/log.rs", "telemetry/log/streams.rs"].contains(&path);
                assert!(may, "src/{path}: {}", line.trim());
                found += 1;
            }
        }
    }
    assert!(found > 0, "the reader of this rule reads");
}

#[test]
fn a_file_that_is_long_says_why_and_every_file_says_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for directory in ["src", "tests", "benches", "examples"].map(|name| root.join(name)) {
        if !directory.is_dir() {
            continue;
        }
        rust_files(&directory, &mut |path, text| {
            let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
            assert!(!header.is_empty(), "{} has no //! at its head", path.display());
            let lines = text.lines().count();
            let excused = header.iter().any(|line| line.starts_with("//! Long because"));
            assert!(
                lines <= LINES_MAX || excused,
                "{} has {lines} lines and does not say why",
                path.display()
            );
        });
    }
    let lines = |name: &str| std::fs::read_to_string(root.join("src").join(name)).unwrap().lines().count();
    assert!(lines("lib.rs") <= 120 && lines("main.rs") <= 60);
}

#[test]
fn every_test_is_named_by_a_sentence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for directory in ["src", "tests"] {
        rust_files(&root.join(directory), &mut |path, text| {
            for line in text.lines() {
                let line = line.trim_start();
                let name = line.strip_prefix("fn test_").or(line.strip_prefix("async fn test_"));
                assert!(name.is_none(), "{}: {line}", path.display());
            }
        });
    }
}

#[test]
fn the_reader_of_these_rules_reads() {
    let text = "use crate::engine::{Op, record::{Draft}, Set};\n//! crate::cli::x\nfn f() { crate::node::g() }\n\
                #[cfg(test)]\nmod tests {\n    use crate::proto::v1;\n}\nuse crate::{cache::Cache, entry};\n\
                pub(in crate::server) fn h() {}\n#[cfg(test)]\nmod more;\nfn i() { x.unwrap() }\n";
    let pairs = [
        ("cache", "Cache"),
        ("engine", "Op"),
        ("engine", "Set"),
        ("engine", "record"),
        ("entry", ""),
        ("node", "g"),
    ];
    let expected = pairs.map(|(room, name)| (room.to_owned(), name.to_owned())).into();
    assert_eq!(mentions(&code(text)), expected);
    assert!(code(text).contains(".unwrap()") && !code(text).contains("mod more"));
}
