//! Tests that need programs of others: skipped loudly where those are not to be had.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::process::Output;

/// Says that a test is skipped. With LARDER_REQUIRE_ALL=1, as in CI, that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("LARDER_REQUIRE_ALL").is_none_or(|all| all != "1"), "{why}");
    // Past libtest's capture, which takes what eprintln! writes.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED: {why}\n").as_bytes());
}

/// What a program said, for the message of a failure.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}
