//! How a node is deployed: variables, secrets, `--check`, and what deploy/ starts.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use super::{ask, assert_refused};
use crate::support::node::{FREE_PORTS, Process, larder};
use larder::entry::ByteSize;

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn ran(command: &mut Command) -> (Option<i32>, String, String) {
    texts(&command.output().unwrap())
}

/// `larder serve` on free ports, with nothing on disk.
fn serve() -> Command {
    let mut command = larder();
    command.arg("serve").args(FREE_PORTS).args(["--persistence", "none"]);
    command
}

#[test]
fn a_variable_that_is_nearly_a_settings_is_refused_by_node_and_client() {
    let (code, stdout, stderr) = ran(serve().env("LARDER_POLCY", "lru"));
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(stderr.contains("LARDER_POLCY") && stderr.contains("LARDER_POLICY"), "{stderr}");
    let (code, _, stderr) = ran(larder().args(["get", "k"]).env("LARDER_NODSE", "tcp://127.0.0.1:1"));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("LARDER_NODSE") && stderr.contains("LARDER_NODES"), "{stderr}");
}

#[test]
fn an_unknown_variable_is_warned_of_and_service_links_are_not() {
    let links = [
        ("LARDER_PORT", "tcp://10.0.0.1:7400"),
        ("LARDER_PORT_7400_TCP_ADDR", "10.0.0.1"),
        ("LARDER_SERVICE_HOST", "10.0.0.1"),
        ("LARDER_ADMIN_PORT", "tcp://10.0.0.1:7401"),
        ("LARDER_ADMIN_SERVICE_PORT", "7401"),
    ];
    let process = Process::run(serve().envs(links).env("LARDER_QQQ", "hunter2").env("LARDER_POLCY", ""));
    process.terminate();
    let (status, _, stderr) = process.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("WARN") && stderr.contains("LARDER_QQQ"), "{stderr}");
    for left in ["hunter2", "LARDER_PORT", "LARDER_SERVICE", "LARDER_ADMIN", "LARDER_POLCY"] {
        assert!(!stderr.contains(left), "{left}: {stderr}");
    }
}

#[test]
fn no_output_of_the_program_tells_a_secret() {
    let url = "postgres://user:hunter2@db/x";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("origin = \"{url}\"\n")).unwrap();
    for output in [
        larder().args(["serve", "--origin", url]).output(),
        larder().args(["serve", &format!("--orgin={url}")]).output(),
        larder().args(["serve", "--admin", url]).output(),
        larder().args(["serve", "--cluster-key", "hunter2"]).output(),
        larder().args(["serve", "--config"]).arg(file.path()).output(),
        larder().arg("serve").env("LARDER_MEMBERS", url).output(),
        larder().arg(url).output(),
        larder().args(["--nodes", url, "get", "k"]).output(),
        larder().args(["get", "k", "--nodes", "tcp://user:hunter2"]).output(),
        larder().args(["get", "k"]).env("LARDER_NODES", url).output(),
        larder().args(["admin", "stats"]).env("LARDER_ADMIN", url).output(),
    ] {
        let (code, stdout, stderr) = texts(&output.unwrap());
        assert_eq!(code, Some(2), "{stderr}");
        assert!(
            stderr.contains("error") && !format!("{stdout}{stderr}").contains("hunter2"),
            "{stdout}{stderr}"
        );
    }
    for command in [&["--help"][..], &["get", "--help"], &["serve", "--help"]] {
        let (code, stdout, stderr) =
            ran(larder().args(command).env("LARDER_NODES", url).env("LARDER_ADMIN", url));
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("Usage") && !format!("{stdout}{stderr}").contains("hunter2"), "{stdout}");
    }
    let otlp = "http://user:hunter2@127.0.0.1:1/?token=hunter2";
    let process = Process::run(serve().args(["--otlp", otlp, "--log", "trace"]));
    let (code, stdout, stderr) = ask(&process, &["admin", "config"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("otlp http://***@127.0.0.1:1/?token=*** flag\n"), "{stdout}");
    process.terminate();
    let (_, _, stderr) = process.ended();
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn loopback_is_loopback_however_it_is_written() {
    for host in ["[::ffff:127.0.0.1]", "::ffff:127.0.0.1", "127.0.0.2", "localhost"] {
        let process = Process::start(&["--listen", &format!("tcp://{host}:0")]);
        let probe = larder().args(["probe", "--nodes", &format!("tcp://{}", process.ready.data[1])]).output();
        assert_eq!(probe.unwrap().status.code(), Some(0), "{host}");
    }
    for host in ["[::ffff:0.0.0.0]", "::", "[::]", "0.0.0.0"] {
        let url = format!("tcp://{host}:0");
        assert_refused(&["--listen", &url], 2, &["--insecure"]);
    }
}

#[test]
fn a_check_tells_what_would_be_in_force_and_changes_nothing() {
    let here = tempfile::tempdir().unwrap();
    let directory = here.path().join("data");
    let mut check = larder();
    check.args(["serve", "--check"]).args(FREE_PORTS).arg("--data-dir").arg(&directory);
    let (code, stdout, stderr) = ran(check.args(["--policy", "lru"]).env("LARDER_MEMORY", "64Mi"));
    assert_eq!(code, Some(0), "{stderr}");
    for line in ["policy lru flag\n", "memory 64MiB environment\n", "weight 1 default\n"] {
        assert!(stdout.contains(line), "{line} is not in {stdout}");
    }
    assert!(!directory.exists(), "nothing is made");

    let (code, stdout, stderr) = ran(serve().args(["--check", "--max-value", "8MiB"]));
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    let (code, _, stderr) = ran(serve().args(["--check=settings", "--log", "larder=loudly"]));
    assert!(code == Some(2) && stderr.contains("is no filter"), "{stderr}");
}

#[test]
fn a_check_names_everything_that_is_in_the_way() {
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("file");
    std::fs::write(&file, "").unwrap();
    let here = here.path().to_str().unwrap();
    let node = Process::start(&["--persistence", "journal", "--data-dir", here]);
    let data = format!("tcp://{}", node.ready.data[0]);
    let check = |what: &str, directory: &str| {
        let mut command = larder();
        command.args(["serve", what, "--listen", &data, "--admin", "tcp://127.0.0.1:0", "--health"]);
        command.args([
            &format!("tcp://{}", node.ready.health),
            "--http",
            "127.0.0.1:0",
            "--data-dir",
            directory,
        ]);
        ran(&mut command)
    };
    let (code, _, stderr) = check("--check", here);
    assert_eq!(code, Some(2), "{stderr}");
    for word in [&data[..], &node.ready.health, "in use", &format!("process {}", node.id()), here] {
        assert!(stderr.contains(word), "{word} is not in {stderr}");
    }
    let (code, _, stderr) = check("--check", file.to_str().unwrap());
    assert!(code == Some(2) && stderr.contains("no directory"), "{stderr}");
    // The settings themselves are right: a running node's may be checked beside it.
    let (code, stdout, stderr) = check("--check=settings", here);
    assert!(code == Some(0) && stdout.contains(&format!("listen {data} flag\n")), "{stdout}{stderr}");
    assert_eq!(ask(&node, &["get", "k"]).0, Some(1), "the node has noticed nothing");
}

#[test]
fn a_node_resizes_as_its_manual_shows() {
    let process = Process::start(&["--memory", "256MiB"]);
    let resize = |size: &str| ask(&process, &["admin", "resize", size]);
    assert_eq!(resize("128MiB").1, "bytes_limit 134217728\nprevious_bytes_limit 268435456\n");
    assert_eq!(resize("64Mi").0, Some(0), "a quarter");
    let (code, _, stderr) = resize("1B");
    assert!(code == Some(3) && stderr.contains("--max-value"), "{stderr}");
    // And one without any setting for memory.
    let process = Process::start(&[]);
    let config = ask(&process, &["admin", "config"]).1;
    let memory = config.lines().find_map(|line| line.strip_prefix("memory ")?.split(' ').next()).unwrap();
    let quarter = memory.parse::<ByteSize>().unwrap().0 / 4;
    let (code, _, stderr) = ask(&process, &["admin", "resize", &quarter.to_string()]);
    assert_eq!(code, Some(0), "{stderr}");
}

/// A file of deploy/, which is in the repository and not in the package.
fn deployed(name: &str) -> Option<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    if !directory.is_dir() {
        crate::support::outside::skip("deploy/ is not in the package");
        return None;
    }
    Some(std::fs::read_to_string(directory.join(name)).unwrap())
}

/// The arguments with every port that is listened on exchanged for a free one.
fn on_free_ports(args: impl IntoIterator<Item = String>) -> Vec<String> {
    let is_listener =
        |arg: &str| ["--listen=", "--health=", "--http="].iter().any(|flag| arg.starts_with(flag));
    let free = |arg: String| match arg.rsplit_once(':') {
        Some((address, _)) if is_listener(&arg) => format!("{address}:0"),
        _ => arg,
    };
    args.into_iter().map(free).collect()
}

#[test]
fn the_manifest_for_kubernetes_starts_a_node_that_all_of_its_pod_can_reach() {
    let Some(manifest) = deployed("kubernetes.yaml") else { return };
    assert!(manifest.contains("\n      enableServiceLinks: false\n"));
    let (_, args) = manifest.split_once("          args:\n").unwrap();
    let (args, _) = args.split_once("          env:\n").unwrap();
    let args = args.lines().filter_map(|line| line.trim().strip_prefix("- "));
    let args = args.map(|arg| arg.trim_matches('"').replace("$(POD_NAME)", "larder-0"));
    let args = on_free_ports(args);
    assert!(!args.iter().any(|arg| arg.contains("$(")), "{args:?}");
    let here = tempfile::tempdir().unwrap();
    let mut command = larder();
    command.args(&args).args(["--admin", "tcp://127.0.0.1:0"]).env("LARDER_DATA_DIR", here.path());
    let process = Process::run(&mut command);
    let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
    let (data, health, http) =
        (port(&process.ready.data[0]), port(&process.ready.health), port(&process.ready.http));
    let client = |host: &str, words: &[&str]| {
        ran(larder().args(["--nodes", &format!("tcp://{host}:{data}")]).args(words))
    };
    // As `kubectl exec` and `kubectl port-forward` come, by loopback.
    assert_eq!(client("127.0.0.1", &["set", "k", "v"]).0, Some(0));
    let mut hosts = vec!["127.0.0.1"];
    if process.ready.data[0].starts_with("[::]") {
        hosts.push("[::1]");
    }
    for host in hosts {
        assert_eq!(client(host, &["get", "k"]).1, "v");
        let url = format!("tcp://{host}:{health}");
        let (code, _, stderr) =
            ran(larder().args(["probe", "--nodes", &url, "--service", "larder.v1.Cache"]));
        assert_eq!(code, Some(0), "{stderr}");
        TcpStream::connect(format!("{host}:{http}")).unwrap();
    }
    let config = ask(&process, &["admin", "config"]).1;
    for line in ["advertise tcp://larder-0.larder:7400 flag\n", "memory 768MiB flag\n"] {
        assert!(config.contains(line), "{config}");
    }
}

#[test]
fn the_images_command_the_units_and_the_file_beside_them_are_valid() {
    let Some(dockerfile) = deployed("Dockerfile") else { return };
    let dockerfile = dockerfile.replace("\\\n", "");
    let (_, words) = dockerfile.split_once("\nCMD [").unwrap();
    let image: Vec<String> = serde_json::from_str(&format!("[{}", words.lines().next().unwrap())).unwrap();
    let unit = deployed("larder.service").unwrap();
    let unit = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/larder ")).unwrap();
    let unit: Vec<String> = unit.split(' ').map(str::to_owned).collect();
    let file = format!("{}/deploy/larder.toml", env!("CARGO_MANIFEST_DIR"));
    let file = ["serve", "--config", &file].map(str::to_owned).to_vec();
    for words in [image, unit, file] {
        let (code, stdout, stderr) = ran(larder().args(&words).arg("--check=settings"));
        assert_eq!(code, Some(0), "{words:?}: {stderr}");
        assert!(stdout.contains("log-format json "), "{stdout}");
    }
}
