//! A Python client, made by grpcio's own generator from proto/ alone, against a real node.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::support::node::Process;
use crate::support::outside::{said, skip};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn a_python_client_made_from_proto_alone_can_do_all_that_is_served() {
    let python = match python_with_grpc() {
        Ok(python) => python,
        Err(why) => return skip(&format!("the Python client: {why}")),
    };
    let generated = generated(&python);
    let process = Process::start(&["--memory", "64MiB"]);
    let output = Command::new(&python)
        .arg(Path::new(HERE).join("tests/python/client.py"))
        .arg(&process.ready.data[0])
        .arg(generated.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("all is well"));
}

/// The contract's Python modules, in a directory of their own.
pub(crate) fn generated(python: &Path) -> tempfile::TempDir {
    let generated = tempfile::tempdir().unwrap();
    let protos =
        ["google/rpc/status", "larder/v1/types", "larder/v1/cache", "larder/v1/admin", "larder/v1/cluster"];
    let output = Command::new(python)
        .args(["-m", "grpc_tools.protoc", "-I", "proto", "--python_out"])
        .arg(generated.path())
        .arg("--grpc_python_out")
        .arg(generated.path())
        .args(protos.map(|proto| format!("{proto}.proto")))
        .current_dir(HERE)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    generated
}

/// A Python that has grpcio and its generator; made once and kept below target/.
pub(crate) fn python_with_grpc() -> Result<PathBuf, String> {
    // Two tests want it.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-client");
    let python = directory.join("bin/python");
    let works = || {
        let found = Command::new(&python).args(["-c", "import grpc, grpc_tools"]).output();
        found.is_ok_and(|output| output.status.success())
    };
    if works() {
        return Ok(python);
    }
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", said(&output))),
        Err(error) => Err(format!("{command:?}: {error}")),
    };
    // Whatever was left half made.
    let _ = std::fs::remove_dir_all(&directory);
    run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
    run(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "grpcio==1.85.1",
        "grpcio-tools==1.85.1",
    ]))?;
    if works() { Ok(python) } else { Err("grpcio was installed and cannot be imported".to_owned()) }
}
