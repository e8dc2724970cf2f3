//! What is drained is cut in all shards at one moment.

use std::sync::atomic::AtomicBool;

use super::*;

const WRITES: u64 = 50_000;

fn number(record: &Record<'_>, out: &mut Vec<u8>) {
    let Record::Put(put) = record else { panic!("{record:?}") };
    out.extend_from_slice(put.key);
    out.push(b' ');
}

#[test]
fn no_drain_has_a_change_without_those_that_were_made_before_it() {
    let engine = engine(64 << 20, 64, PolicyName::Lru);
    engine.start_log(&LogConfig {
        encode: number,
        nudge: Arc::new(|| {}),
        nudge_bytes: usize::MAX,
        kept_bytes: 0,
        budget: Arc::new(LogBudget::new(usize::MAX)),
        step_bytes: usize::MAX,
    });
    let is_done = AtomicBool::new(false);
    let mut next = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..WRITES {
                let key = n.to_string();
                let set = Op::Set(Set::new(key.as_bytes(), b"v"));
                engine.apply(engine.default_namespace(), &set, at(0));
            }
            is_done.store(true, Ordering::Release);
        });
        let mut drained = Drained::default();
        loop {
            let is_last = is_done.load(Ordering::Acquire);
            engine.drain_log(&mut drained);
            let bytes = drained.pieces().collect::<Vec<_>>().concat();
            let mut numbers: Vec<u64> = std::str::from_utf8(&bytes)
                .unwrap()
                .split_whitespace()
                .map(|number| number.parse().unwrap())
                .collect();
            numbers.sort_unstable();
            let expected: Vec<u64> = (next..next + numbers.len() as u64).collect();
            assert!(numbers == expected, "after {next} comes not what was written next");
            next += numbers.len() as u64;
            if is_last {
                break;
            }
        }
    });
    assert_eq!(next, WRITES);
}

fn nothing(_: &Record<'_>, out: &mut Vec<u8>) {
    out.push(b' ');
}

#[test]
fn invalidations_count_as_logged_until_they_are_written() {
    let engine = engine(64 << 20, 64, PolicyName::Lru);
    let namespace = engine.default_namespace();
    let budget = Arc::new(LogBudget::new(100_000));
    let config = LogConfig {
        encode: nothing,
        nudge: Arc::new(|| {}),
        nudge_bytes: usize::MAX,
        kept_bytes: 0,
        budget: Arc::clone(&budget),
        step_bytes: usize::MAX,
    };
    engine.start_log(&config);
    for scope in [Scope::All, Scope::Prefix(b"k"), Scope::Tag("red")] {
        let taken = (0..10_000).take_while(|_| engine.invalidate(namespace, scope, at(1)).is_ok()).count();
        assert!((100..400).contains(&taken), "each is remembered by 64 shards: {taken}");
        let refused = engine.invalidate(namespace, scope, at(1)).unwrap_err();
        assert_eq!(refused, Refusal::Backlogged { bytes: budget.bytes() as u64 });
        let set = engine.apply(namespace, &Op::Set(Set::new(b"k", b"v")), at(1));
        assert_eq!(set, Outcome::Refused(refused), "as a write is");
        let mut drained = Drained::default();
        engine.drain_log(&mut drained);
        assert_eq!(drained.records(), taken as u64);
        drained.clear(&config);
        assert_eq!(budget.bytes(), 0);
    }
    engine.invalidate(namespace, Scope::All, at(1)).unwrap();
    engine.stop_log();
    assert_eq!(budget.bytes(), 0, "what was not drained is forgotten");
}
