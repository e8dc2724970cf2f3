//! Tests that fork, each in a process of its own: this one has threads of other tests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use rustix::process::{Pid, WaitOptions, waitpid};

/// Set in the process that forks: the node's URL.
const URL: &str = "LARDER_TEST_FORKS";

/// The node's URL, in the process that is to fork.
pub(crate) fn url() -> Option<String> {
    std::env::var(URL).ok()
}

/// Runs the test of this name in a process of its own, where [`url`] is this one; a process that hangs is ended.
pub(crate) fn run_apart(test: &str, url: &str) {
    let mut command = Command::new("timeout");
    command
        .arg("60")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(URL, url);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let is_done = output.status.success() && said.contains("1 passed");
    assert!(is_done, "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Forks, has the child do something with what there is, and waits for it; the parent goes on with what there is.
pub(crate) fn in_a_fork<T>(all: T, child: impl FnOnce(T)) -> T {
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let outcome = catch_unwind(AssertUnwindSafe(|| child(all)));
            #[expect(clippy::exit, reason = "the rest of the test is the parent's")]
            std::process::exit(outcome.is_err().into());
        }
        fork::Fork::Parent(child) => {
            let child = Pid::from_raw(child).unwrap();
            let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(0));
            all
        }
    }
}
