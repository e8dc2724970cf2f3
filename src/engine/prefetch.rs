//! Asks the processor for memory before it is needed, without waiting for it.
//!
//! This file has `unsafe` in it: the standard library has no safe way to the instruction. Reading a byte and
//! dropping it, which is the safe way, keeps the processor from going on once its reorder buffer is full of such reads:
//! with it a BatchGet of 100 keys spent a sixth of its time there (`perf`, cpu-clock; the figures are in
//! docs/src/benchmarks.md). It stands alone, so that it can be tested under AddressSanitizer by itself; .ci/run does.

#![expect(unsafe_code, reason = "a hint to the processor, which reads nothing; see each block")]

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// More lines than these are left to the processor, which asks for what follows by itself.
const LINES_MAX: usize = 4;

/// Asks for the line that something begins in. Changes nothing that can be seen but the time that reading it takes.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction is part of x86-64's baseline; it faults at no address whatever, and this one is a
        // reference's. It neither reads nor writes anything as far as the language is concerned.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Asks for the lines of some bytes, the first four at most.
#[inline(always)]
pub(crate) fn prefetch_bytes(bytes: &[u8]) {
    for at in 0..LINES_MAX {
        let Some(place) = bytes.get(at * LINE_BYTES) else { break };
        prefetch(place);
    }
    // Where the bytes do not begin with a line, their end may be in one more.
    if let Some(last) = bytes.last()
        && bytes.len() <= LINES_MAX * LINE_BYTES
    {
        prefetch(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_place_may_be_asked_for_and_nothing_changes() {
        for len in [0, 1, 63, 64, 65, 255, 256, 257, 100_000] {
            let bytes: Vec<u8> = (0..len).map(|n: usize| n as u8).collect();
            prefetch_bytes(&bytes);
            (0..len).for_each(|at| prefetch_bytes(&bytes[at..]));
            prefetch(&bytes);
            assert!(bytes.iter().enumerate().all(|(n, byte)| *byte == n as u8));
        }
        prefetch(&());
    }
}
