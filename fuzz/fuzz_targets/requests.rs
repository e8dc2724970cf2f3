//! Any bytes as each hot request: the hand-written readers and the generated types read the same, or both refuse.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| larder::service::fuzz::requests_agree(bytes));
