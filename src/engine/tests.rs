use super::*;

fn at(ms: u64) -> Now {
    Now { ticks_ms: ms, unix_us: 1_800_000_000_000_000 + ms * 1_000 }
}

#[test]
fn set_get_delete() {
    let engine = Engine::new(&EngineConfig::default(), at(0));
    engine.apply(&Op::Set(Set::new(b"k", b"v")), at(0));
    let (outcome, _) = engine.apply(&Op::Get { key: b"k", touch: None }, at(0));
    assert!(matches!(outcome, Outcome::Hit(hit) if hit.value == "v"));
    engine.validate();
}
