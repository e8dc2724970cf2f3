//! Each fault as an application sees it, and that the same calls have the same faults.

use super::*;
use crate::entry::Version;
use crate::local::LocalCache;

fn faulty() -> FaultyCache<LocalCache> {
    FaultyCache::new(LocalCache::builder().memory(1 << 20).build())
}

fn plain() -> SetOptions {
    SetOptions::default()
}

async fn is_hit(cache: &impl Cache) -> bool {
    cache.get("k").await.unwrap().entry().is_some()
}

#[tokio::test]
async fn a_node_that_is_out_is_a_cache_that_has_nothing_and_what_must_not_be_lost_is_an_error() {
    let cache = faulty();
    cache.set("k", "v", &plain()).await.unwrap();
    cache.inject(FaultRule::new(Fault::NodeOut));
    let miss = GetOutcome::Miss(MissReason::OwnerDown);
    assert_eq!(cache.get("k").await.unwrap(), miss);
    assert_eq!(cache.metadata("k").await.unwrap(), miss);
    let batch = cache.batch_get(vec!["k".into(), "l".into()]).await.unwrap();
    assert!(batch.len() == 2 && batch.iter().all(|result| result.as_ref().unwrap() == &miss));
    let not_stored = SetOutcome::NotStored(NotStored::OwnerDown);
    assert_eq!(cache.set("k", "w", &plain()).await.unwrap(), not_stored);
    let batch = cache.batch_set(vec![("k".into(), "w".into())], &plain()).await.unwrap();
    assert_eq!(*batch[0].as_ref().unwrap(), not_stored);
    let absent = SetOptions { condition: SetCondition::IfAbsent, ..plain() };
    let counter = CounterOptions::default();
    let errors = [
        cache.set("k", "w", &absent).await.map(drop).unwrap_err(),
        cache.batch_set(vec![("k".into(), "w".into())], &absent).await.map(drop).unwrap_err(),
        cache.delete("k", &DeleteOptions::default()).await.map(drop).unwrap_err(),
        cache.increment("n", 1, &counter).await.map(drop).unwrap_err(),
        cache.decrement("n", 1, &counter).await.map(drop).unwrap_err(),
        cache.touch("k", Duration::ZERO).await.map(drop).unwrap_err(),
        cache.batch_delete(vec!["k".into()], None).await.map(drop).unwrap_err(),
        cache.scan("", ScanOptions::default()).await.map(drop).unwrap_err(),
        cache.invalidate(InvalidateScope::All).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    }
    let strict = cache.clone().on_unavailable(OnUnavailable::Error);
    assert!(strict.get("k").await.unwrap_err().is_unavailable());
    assert_eq!((cache.calls(), cache.faults()), (16, 15));
    cache.clear_faults();
    assert_eq!(cache.get("k").await.unwrap().into_value().unwrap(), "v", "nothing was done meanwhile");
}

#[tokio::test]
async fn a_call_that_times_out_or_breaks_off_may_have_been_done() {
    for (was_done, value) in [(false, "old"), (true, "new")] {
        let after = Duration::ZERO;
        for fault in [Fault::TimeOut { after, was_done }, Fault::BrokenOff { was_done }] {
            let cache = faulty().on_unavailable(OnUnavailable::Error);
            cache.set("k", "old", &plain()).await.unwrap();
            cache.inject(FaultRule::new(fault.clone()));
            let error = cache.set("k", "new", &plain()).await.unwrap_err();
            let expected = match fault {
                Fault::TimeOut { .. } => matches!(error, ClientError::Timeout { method: "Set", .. }),
                _ => matches!(error, ClientError::BrokenOff { method: "Set", .. }),
            };
            assert!(expected, "{error}");
            assert_eq!(cache.inner().get("k").unwrap(), value);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn delays_add_up_and_a_time_out_takes_its_time() {
    let cache = faulty();
    let (begun, second) = (tokio::time::Instant::now(), Duration::from_secs(1));
    cache.inject(FaultRule::new(Fault::Delay(second)));
    cache.inject(FaultRule::new(Fault::Delay(second)));
    cache.set("k", "v", &plain()).await.unwrap();
    assert_eq!(begun.elapsed(), 2 * second);
    cache.inject(FaultRule::new(Fault::TimeOut { after: second, was_done: false }));
    let error = cache.get("k").await.unwrap_err();
    let ClientError::Timeout { after, .. } = error else { panic!("{error}") };
    assert_eq!((after, begun.elapsed()), (3 * second, 5 * second));
}

#[tokio::test]
async fn a_refusal_has_its_code_and_reason_and_unavailable_is_a_miss() {
    let cache = faulty();
    let overloaded = Fault::Refused { code: Code::ResourceExhausted, reason: "OVERLOADED" };
    cache.inject(FaultRule::new(overloaded).at_call(1));
    let error = cache.get("k").await.unwrap_err();
    let ClientError::Status(refusal) = error else { panic!("{error}") };
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    cache.inject(FaultRule::new(Fault::Refused { code: Code::Unavailable, reason: "DRAINING" }));
    assert_eq!(cache.get("k").await.unwrap(), GetOutcome::Miss(MissReason::OwnerDown));
}

#[tokio::test]
async fn rules_choose_calls_by_operation_key_and_number() {
    let cache = faulty();
    cache.set("k", "v", &plain()).await.unwrap();
    let miss = || FaultRule::new(Fault::Miss(MissReason::Evicted));
    cache.inject(miss().at_calls(2..4));
    let mut hits = Vec::new();
    for _ in 0..4 {
        // What is no lookup is not counted, and is done.
        cache.set("k", "v", &plain()).await.unwrap();
        hits.push(is_hit(&cache).await);
    }
    assert_eq!(hits, [true, false, false, true]);
    cache.clear_faults();
    cache.inject(miss().on([CacheOperation::Metadata]));
    assert!(is_hit(&cache).await && cache.metadata("k").await.unwrap().entry().is_none());
    cache.clear_faults();
    cache.inject(miss().when(|call| call.keys.contains(&&b"l"[..])));
    assert!(is_hit(&cache).await);
    let both = cache.batch_get(vec!["k".into(), "l".into()]).await.unwrap();
    assert_eq!(*both[0].as_ref().unwrap(), GetOutcome::Miss(MissReason::Evicted));
    let stale = DeleteOptions { if_version: Some(Version(1)), ..DeleteOptions::default() };
    assert!(!cache.delete("k", &stale).await.unwrap().deleted);
}

#[tokio::test]
async fn a_probability_chooses_the_same_calls_each_time_and_as_many_as_it_says() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let cache = faulty();
        cache.set("k", "v", &plain()).await.unwrap();
        cache.inject(FaultRule::new(Fault::Miss(MissReason::Unknown)).with_probability(0.25, seed));
        let mut hits = Vec::new();
        for _ in 0..1_000 {
            hits.push(is_hit(&cache).await);
        }
        let misses = hits.iter().filter(|hit| !**hit).count();
        assert!((200..300).contains(&misses), "{misses} of 1,000");
        runs.push(hits);
    }
    assert!(runs[0] == runs[1] && runs[0] != runs[2]);
}
