//! grpcurl, which knows nothing but what server reflection tells it, against a real node.

use std::path::PathBuf;
use std::process::Command;

use crate::support::node::Process;
use crate::support::outside::{said, skip};
use serde_json::{Value, json};

/// grpcurl on the PATH, or where `go install` puts it.
fn grpcurl() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(home);
    places.map(|place| place.join("grpcurl")).find(|program| program.is_file())
}

#[test]
fn grpcurl_needs_nothing_but_reflection() {
    let Some(program) = grpcurl() else {
        return skip("grpcurl: neither on the PATH nor in ~/go/bin");
    };
    let process = Process::start(&[]);
    let run = |words: &[&str]| Command::new(&program).arg("-plaintext").args(words).output().unwrap();
    let (data, admin) = (process.ready.data[0].as_str(), process.ready.admin.as_str());
    for address in [data, admin] {
        let output = run(&[address, "list"]);
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        for service in ["larder.v1.Cache", "larder.v1.Admin", "larder.v1.Cluster", "grpc.health.v1.Health"] {
            assert!(listed.lines().any(|line| line == service), "{}", said(&output));
        }
    }
    let call = |address: &str, method: &str, body: Value| -> Value {
        let output = run(&["-d", &body.to_string(), address, method]);
        assert!(output.status.success(), "{method}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // grpcurl writes bytes in base64.
    let set = call(data, "larder.v1.Cache/Set", json!({"key": "dGVh", "value": "QXNzYW0="}));
    assert!(set["stored"]["version"].is_string(), "{set}");
    let got = call(data, "larder.v1.Cache/Get", json!({"key": "dGVh"}));
    assert_eq!((&got["hit"]["value"], &got["hit"]["tier"]), (&json!("QXNzYW0="), &json!("TIER_MEMORY")));
    assert_eq!(got["hit"]["version"], set["stored"]["version"]);
    let stats = call(admin, "larder.v1.Admin/GetStats", json!({}));
    assert_eq!((&stats["hits"], &stats["state"]), (&json!("1"), &json!("NODE_STATE_SERVING")));
    let health = call(data, "grpc.health.v1.Health/Check", json!({"service": "larder.v1.Cache"}));
    assert_eq!(health["status"], "SERVING");
    let refused = run(&["-d", "{}", data, "larder.v1.Cache/Get"]);
    let text = said(&refused);
    assert!(!refused.status.success() && text.contains("InvalidArgument") && text.contains("key"), "{text}");
    let described = run(&[data, "describe", "larder.v1.SetRequest"]);
    assert!(String::from_utf8_lossy(&described.stdout).contains("expire_at_unix_ms"), "{}", said(&described));
}
