//! What every cache does, whichever it is: each case is given an empty one.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use larder::client::{
    Cache, ClientError, CounterOptions, DeleteOptions, GetOutcome, Hit, InvalidateScope, MissReason,
    NotStored, Refusal, ScanOptions, SetCondition, SetExpiration, SetOptions, SetOutcome, Tier,
};
use larder::clock::{Clock, SystemClock};
use larder::entry::{Durability, TTL_MS_MAX, Version};
use tonic::Code;

const HOUR: Duration = Duration::from_secs(3_600);

fn plain() -> SetOptions {
    SetOptions::default()
}

fn with(condition: SetCondition) -> SetOptions {
    SetOptions { condition, ..plain() }
}

fn expiring(expiration: SetExpiration) -> SetOptions {
    SetOptions { expiration, ..plain() }
}

async fn set(cache: &impl Cache, key: &str, value: &str, options: &SetOptions) -> Version {
    match cache.set(key, value.to_owned(), options).await.unwrap() {
        SetOutcome::Stored(version) => version,
        not => panic!("{key}: {not:?}"),
    }
}

async fn hit(cache: &impl Cache, key: &str) -> Hit {
    match cache.get(key).await.unwrap() {
        GetOutcome::Hit(hit) => hit,
        other => panic!("{key}: {other:?}"),
    }
}

async fn value(cache: &impl Cache, key: &str) -> Option<Bytes> {
    cache.get(key).await.unwrap().into_value()
}

async fn miss(cache: &impl Cache, key: &str) -> MissReason {
    match cache.get(key).await.unwrap() {
        GetOutcome::Miss(reason) => reason,
        other => panic!("{key}: {other:?}"),
    }
}

async fn is_there(cache: &impl Cache, key: &str) -> bool {
    cache.get(key).await.unwrap().entry().is_some()
}

/// What a call was refused with: code, reason, fields, limit.
fn refused<T: Debug>(result: Result<T, ClientError>) -> (Code, String, Vec<String>, Option<u64>) {
    match result.unwrap_err() {
        ClientError::Status(refusal) => {
            let Refusal { code, reason, fields, limit, .. } = *refusal;
            (code, reason, fields, limit)
        }
        other => panic!("{other}"),
    }
}

fn code_and_reason<T: Debug>(result: Result<T, ClientError>) -> (Code, String) {
    let (code, reason, ..) = refused(result);
    (code, reason)
}

fn is(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

pub(super) async fn a_lookup_tells_the_entry_or_why_there_is_none(cache: &impl Cache) {
    assert_eq!(miss(cache, "k").await, MissReason::Unknown);
    let version = set(cache, "k", "value", &plain()).await;
    let found = hit(cache, "k").await;
    assert_eq!((&found.value[..], found.value_bytes, found.version), (&b"value"[..], 5, version));
    assert_eq!((found.remaining_ttl, found.flags, found.content_type.as_str()), (None, 0, ""));
    assert_eq!((found.tier, found.near_cache_ttl), (Tier::Memory, Duration::ZERO));
    let GetOutcome::Hit(about) = cache.metadata("k").await.unwrap() else { panic!("it is there") };
    assert_eq!(about, without_value(&found));
    assert!(cache.delete("k", &DeleteOptions::default()).await.unwrap().deleted);
    assert_eq!(miss(cache, "k").await, MissReason::Deleted);
    assert_eq!(cache.metadata("k").await.unwrap(), GetOutcome::Miss(MissReason::Deleted));
    // Bytes that are no text, nothing at all, and a value that is kept by itself.
    for value in [vec![0, 255, 10], Vec::new(), vec![7; 100_000]] {
        cache.set([0_u8, 255], value.clone(), &plain()).await.unwrap();
        assert_eq!(cache.get([0_u8, 255]).await.unwrap().into_value().unwrap(), value);
    }
}

/// The entry as a lookup without its value has it.
fn without_value(found: &Hit) -> Hit {
    let mut about = found.clone();
    about.value = Bytes::new();
    about
}

pub(super) async fn flags_and_content_types_are_kept_until_they_are_replaced(cache: &impl Cache) {
    let options = SetOptions {
        flags: u32::MAX,
        content_type: "application/json".to_owned(),
        tags: vec!["menu".to_owned(), "menu".to_owned(), "x".repeat(255)],
        ..plain()
    };
    set(cache, "k", "{}", &options).await;
    let found = hit(cache, "k").await;
    assert_eq!((found.flags, found.content_type.as_str()), (u32::MAX, "application/json"));
    set(cache, "k", "{}", &plain()).await;
    let found = hit(cache, "k").await;
    assert_eq!((found.flags, found.content_type.as_str()), (0, ""));
}

pub(super) async fn an_entry_ends_with_its_time_to_live_and_a_touch_prolongs_it(cache: &impl Cache) {
    let short = Duration::from_millis(30);
    set(cache, "k", "v", &expiring(SetExpiration::After(short))).await;
    set(cache, "prolonged", "v", &expiring(SetExpiration::After(HOUR))).await;
    assert!(cache.touch("prolonged", 2 * HOUR).await.unwrap());
    let remaining = hit(cache, "prolonged").await.remaining_ttl.unwrap();
    assert!(remaining > HOUR && remaining <= 2 * HOUR, "{remaining:?}");
    assert!(cache.touch("prolonged", Duration::ZERO).await.unwrap());
    assert_eq!(hit(cache, "prolonged").await.remaining_ttl, None);
    assert!(!cache.touch("nobody", HOUR).await.unwrap());
    // It is found for as long as it lives, and never after.
    let reason = loop {
        match cache.get("k").await.unwrap() {
            GetOutcome::Hit(found) => assert!(found.remaining_ttl.unwrap() <= short),
            GetOutcome::Miss(reason) => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason, MissReason::Expired);
    assert!(!cache.touch("k", HOUR).await.unwrap());
    // Less than a millisecond is one, not for ever.
    set(cache, "shortest", "v", &expiring(SetExpiration::After(Duration::from_nanos(1)))).await;
    while is_there(cache, "shortest").await {}
    set(cache, "for ever", "v", &expiring(SetExpiration::After(Duration::ZERO))).await;
    assert_eq!(hit(cache, "for ever").await.remaining_ttl, None);
}

pub(super) async fn an_expiration_may_be_a_moment_or_the_one_before(cache: &impl Cache) {
    let now_ms = SystemClock::new().now().unix_ms();
    set(cache, "k", "v", &expiring(SetExpiration::AtUnixMs(now_ms + 3_600_000))).await;
    let remaining = hit(cache, "k").await.remaining_ttl.unwrap();
    assert!(remaining > HOUR / 2 && remaining <= HOUR + Duration::from_secs(1), "{remaining:?}");
    set(cache, "k", "w", &expiring(SetExpiration::Keep)).await;
    let kept = hit(cache, "k").await;
    assert!(kept.value == "w" && kept.remaining_ttl.unwrap() <= remaining);
    let past = expiring(SetExpiration::AtUnixMs(now_ms - 1_000));
    let outcome = cache.set("k", "x", &past).await.unwrap();
    assert_eq!(outcome, SetOutcome::NotStored(NotStored::Expired));
    assert!(!is_there(cache, "k").await, "what was there is deleted");
    set(cache, "new", "v", &expiring(SetExpiration::Keep)).await;
    assert_eq!(hit(cache, "new").await.remaining_ttl, None);
}

pub(super) async fn a_condition_that_is_not_met_stores_nothing_and_tells_the_version(cache: &impl Cache) {
    let not_met = |current| SetOutcome::NotStored(NotStored::ConditionNotMet { current });
    let try_set = async |condition| cache.set("k", "w", &with(condition)).await.unwrap();
    assert_eq!(try_set(SetCondition::IfPresent).await, not_met(None));
    assert_eq!(try_set(SetCondition::IfVersion(Version(7))).await, not_met(None));
    let first = set(cache, "k", "v", &with(SetCondition::IfAbsent)).await;
    assert_eq!(try_set(SetCondition::IfAbsent).await, not_met(Some(first)));
    assert_eq!(try_set(SetCondition::IfVersion(Version(7))).await, not_met(Some(first)));
    assert_eq!(value(cache, "k").await.unwrap(), "v");
    let second = set(cache, "k", "w", &with(SetCondition::IfVersion(first))).await;
    let third = set(cache, "k", "x", &with(SetCondition::IfPresent)).await;
    assert!(first < second && second < third);
    let zero = cache.set("k", "y", &with(SetCondition::IfVersion(Version::NONE))).await;
    let (code, reason, fields, _) = refused(zero);
    assert_eq!(
        (code, reason.as_str(), fields),
        (Code::InvalidArgument, "VERSION_ZERO", vec!["if_version".to_owned()])
    );
}

pub(super) async fn a_delete_says_whether_there_was_an_entry_and_heeds_a_version(cache: &impl Cache) {
    let any = DeleteOptions::default();
    let of = |version| DeleteOptions { if_version: Some(version), ..DeleteOptions::default() };
    let none = cache.delete("k", &any).await.unwrap();
    assert_eq!((none.deleted, none.current), (false, None));
    let version = set(cache, "k", "v", &plain()).await;
    let other = cache.delete("k", &of(Version(7))).await.unwrap();
    assert_eq!((other.deleted, other.current), (false, Some(version)));
    assert!(is_there(cache, "k").await);
    let gone = cache.delete("k", &of(version)).await.unwrap();
    assert_eq!((gone.deleted, gone.current), (true, None));
    let again = cache.delete("k", &of(version)).await.unwrap();
    assert_eq!((again.deleted, again.current), (false, None));
    assert_eq!(
        code_and_reason(cache.delete("k", &of(Version::NONE)).await),
        is(Code::InvalidArgument, "VERSION_ZERO")
    );
}

pub(super) async fn versions_grow_with_every_change_of_a_value(cache: &impl Cache) {
    let mut versions = Vec::new();
    for round in 0..50 {
        versions.push(set(cache, "k", "1", &plain()).await);
        versions.push(set(cache, &format!("other {round}"), "1", &plain()).await);
        versions.push(cache.increment("k", 1, &CounterOptions::default()).await.unwrap().version);
        assert_eq!(Some(&hit(cache, "k").await.version), versions.last());
    }
    assert!(versions.is_sorted_by(|one, other| one < other), "{versions:?}");
}

pub(super) async fn counters_are_decimal_integers_and_begin_where_they_are_told_to(cache: &impl Cache) {
    let default = CounterOptions::default();
    let up = async |key: &str, delta, options: &CounterOptions| {
        cache.increment(key, delta, options).await.unwrap().value
    };
    let down = async |key: &str, delta, options: &CounterOptions| {
        cache.decrement(key, delta, options).await.unwrap().value
    };
    set(cache, "k", "10", &plain()).await;
    assert_eq!((up("k", 1, &default).await, up("k", 0, &default).await), (11, 12), "delta 0 is 1");
    assert_eq!((down("k", 0, &default).await, up("k", -20, &default).await), (11, -9));
    assert_eq!(value(cache, "k").await.unwrap(), "-9");
    assert_eq!(up("new", 5, &default).await, 5);
    let from = CounterOptions { initial: 100, ttl: HOUR, ..CounterOptions::default() };
    assert_eq!((up("up", 1, &from).await, up("up", 1, &from).await), (101, 102));
    assert_eq!((down("down", 1, &from).await, down("down", 1, &from).await), (99, 98));
    assert!(hit(cache, "up").await.remaining_ttl.unwrap() <= HOUR);
    assert_eq!(hit(cache, "new").await.remaining_ttl, None);
    set(cache, "least", "-1", &plain()).await;
    assert_eq!(down("least", i64::MIN, &default).await, i64::MAX);
}

pub(super) async fn what_is_no_integer_or_leaves_its_range_is_refused_and_stays(cache: &impl Cache) {
    let default = CounterOptions::default();
    for text in ["", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "9223372036854775808", "ten"] {
        let version = set(cache, "k", text, &plain()).await;
        let refusals = [cache.increment("k", 1, &default).await, cache.decrement("k", 1, &default).await];
        for refusal in refusals {
            assert_eq!(code_and_reason(refusal), is(Code::FailedPrecondition, "NOT_AN_INTEGER"), "{text:?}");
        }
        assert_eq!(hit(cache, "k").await.version, version);
    }
    for (bound, step) in [(i64::MAX, 1), (i64::MIN, -1)] {
        set(cache, "k", &bound.to_string(), &plain()).await;
        let refusal = cache.increment("k", step, &default).await;
        assert_eq!(code_and_reason(refusal), is(Code::OutOfRange, "COUNTER_OVERFLOW"));
        assert_eq!(value(cache, "k").await.unwrap(), bound.to_string());
    }
    let refusal = cache.decrement("none", i64::MIN, &default).await;
    assert_eq!(code_and_reason(refusal), is(Code::OutOfRange, "COUNTER_OVERFLOW"));
    assert!(!is_there(cache, "none").await, "nothing was made");
}

pub(super) async fn a_count_with_a_request_id_counts_once(cache: &impl Cache) {
    let named = |id: &str| CounterOptions { request_id: Some(id.to_owned()), ..CounterOptions::default() };
    let first = cache.increment("k", 5, &named("one")).await.unwrap();
    assert_eq!(cache.increment("k", 5, &named("one")).await.unwrap(), first);
    assert_eq!(cache.increment("k", 5, &named("two")).await.unwrap().value, 10);
    for id in ["", ""] {
        cache.increment("k", 5, &named(id)).await.unwrap();
    }
    assert_eq!(value(cache, "k").await.unwrap(), "20");
    let (code, reason, fields, limit) = refused(cache.increment("k", 1, &named(&"i".repeat(65))).await);
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    assert_eq!(
        (code, reason.as_str(), &fields[..], limit),
        (Code::InvalidArgument, "REQUEST_ID_TOO_LONG", &["request_id"][..], Some(64))
    );
}

pub(super) async fn a_batch_has_a_result_for_each_item_in_order(cache: &impl Cache) {
    let key = |number: usize| Bytes::from(format!("k{number}"));
    let items = (0..100).map(|number| (key(number), Bytes::from(number.to_string()))).collect();
    let stored = cache.batch_set(items, &plain()).await.unwrap();
    assert!(stored.len() == 100 && stored.iter().all(|one| matches!(one, Ok(SetOutcome::Stored(_)))));
    let keys: Vec<Bytes> = (0..200).rev().map(key).collect();
    let found = cache.batch_get(keys.clone()).await.unwrap();
    for (number, one) in (0..200).rev().zip(found) {
        let expected = (number < 100).then(|| number.to_string().into());
        assert_eq!(one.unwrap().into_value(), expected);
    }
    let absent = with(SetCondition::IfAbsent);
    let mixed = vec![(key(0), "w".into()), (key(500), "w".into())];
    let outcomes = cache.batch_set(mixed, &absent).await.unwrap();
    let is_unmet =
        |one| matches!(one, &Ok(SetOutcome::NotStored(NotStored::ConditionNotMet { current: Some(_) })));
    assert!(is_unmet(&outcomes[0]) && matches!(outcomes[1], Ok(SetOutcome::Stored(_))));
    let deleted = cache.batch_delete(keys, None).await.unwrap();
    let deleted: Vec<bool> = deleted.into_iter().map(Result::unwrap).collect();
    assert!(deleted[..100].iter().all(|one| !one) && deleted[100..].iter().all(|one| *one));
    assert!(cache.batch_get(Vec::new()).await.unwrap().is_empty());
    assert!(cache.batch_set(Vec::new(), &plain()).await.unwrap().is_empty());
    assert!(cache.batch_delete(Vec::new(), None).await.unwrap().is_empty());
}

pub(super) async fn a_bad_item_of_a_batch_is_refused_and_the_others_are_done(cache: &impl Cache) {
    let long = Bytes::from("k".repeat(4_097));
    let reasons = |results: Vec<Option<&Refusal>>| -> Vec<Option<(Code, String)>> {
        results.into_iter().map(|one| one.map(|no| (no.code, no.reason.clone()))).collect()
    };
    let empty = Some(is(Code::InvalidArgument, "KEY_EMPTY"));
    let too_long = Some(is(Code::InvalidArgument, "KEY_TOO_LONG"));
    let items = vec![
        ("a".into(), "v".into()),
        (Bytes::new(), "v".into()),
        (long.clone(), "v".into()),
        ("large".into(), vec![0; (1 << 20) + 1].into()),
        ("b".into(), "v".into()),
    ];
    let results = cache.batch_set(items, &plain()).await.unwrap();
    let too_large = Some(is(Code::ResourceExhausted, "VALUE_TOO_LARGE"));
    let expected = vec![None, empty.clone(), too_long.clone(), too_large, None];
    assert_eq!(reasons(results.iter().map(|one| one.as_ref().err()).collect()), expected);
    let keys: Vec<Bytes> = vec!["a".into(), Bytes::new(), "b".into(), long];
    let expected = vec![None, empty, None, too_long];
    let results = cache.batch_get(keys.clone()).await.unwrap();
    assert_eq!(reasons(results.iter().map(|one| one.as_ref().err()).collect()), expected);
    assert!(results[0].as_ref().unwrap().entry().is_some() && results[2].as_ref().unwrap().entry().is_some());
    let results = cache.batch_delete(keys, None).await.unwrap();
    assert_eq!(reasons(results.iter().map(|one| one.as_ref().err()).collect()), expected);
    assert!(*results[0].as_ref().unwrap() && *results[2].as_ref().unwrap());
}

pub(super) async fn a_scan_finds_each_entry_of_its_prefix_once(cache: &impl Cache) {
    let key = |number: usize| format!("p:{number}");
    for number in 0..250 {
        let options = SetOptions { flags: number as u32, ..plain() };
        set(cache, &key(number), &number.to_string(), &options).await;
    }
    set(cache, "q:1", "v", &plain()).await;
    let (mut found, mut pages, mut options) = (BTreeSet::new(), 0, ScanOptions::default());
    options.page_size = 100;
    loop {
        let page = cache.scan("p:", options.clone()).await.unwrap();
        pages += 1;
        assert!(page.items.len() <= 100);
        for item in page.items {
            assert_eq!(item.key, key(item.entry.flags as usize));
            assert_eq!(item.entry.value, item.entry.flags.to_string());
            assert!(found.insert(item.key));
        }
        if page.next_page_token.is_empty() {
            break;
        }
        options.page_token = page.next_page_token;
    }
    assert!(found.len() == 250 && pages >= 3, "{} in {pages}", found.len());
    let all = cache.scan("", ScanOptions { keys_only: true, ..ScanOptions::default() }).await.unwrap();
    assert_eq!(all.items.len(), 251);
    assert!(all.items.iter().all(|item| item.entry.value.is_empty() && item.entry.value_bytes > 0));
    assert!(cache.scan("none", ScanOptions::default()).await.unwrap().items.is_empty());
    let bad_token = is(Code::InvalidArgument, "INVALID_VALUE");
    assert_eq!(code_and_reason(cache.scan("other", options.clone()).await), bad_token);
    options.page_token = "no token".into();
    assert_eq!(code_and_reason(cache.scan("p:", options).await), bad_token);
    let (code, reason, fields, _) = refused(cache.scan("k".repeat(4_097), ScanOptions::default()).await);
    assert_eq!(
        (code, reason.as_str(), fields[0].as_str()),
        (Code::InvalidArgument, "KEY_TOO_LONG", "prefix")
    );
}

pub(super) async fn an_invalidation_drops_a_prefix_a_tag_or_everything(cache: &impl Cache) {
    let tagged = SetOptions { tags: vec!["menu".to_owned(), "de".to_owned()], ..plain() };
    for key in ["p:1", "p:2", "other"] {
        set(cache, key, "v", &plain()).await;
    }
    set(cache, "tagged", "v", &tagged).await;
    let mut generations = vec![cache.invalidate(InvalidateScope::Prefix("p:".into())).await.unwrap()];
    assert_eq!(miss(cache, "p:1").await, MissReason::Invalidated);
    set(cache, "p:1", "new", &plain()).await;
    assert!(is_there(cache, "p:1").await && is_there(cache, "other").await);
    generations.push(cache.invalidate(InvalidateScope::Tag("menu".to_owned())).await.unwrap());
    assert_eq!(miss(cache, "tagged").await, MissReason::Invalidated);
    assert!(is_there(cache, "other").await);
    generations.push(cache.invalidate(InvalidateScope::All).await.unwrap());
    assert!(!is_there(cache, "other").await && !is_there(cache, "p:1").await);
    assert_eq!(generations, [1, 2, 3]);
    let long = "t".repeat(256);
    let long_key = Bytes::from("k".repeat(4_097));
    for (scope, reason) in [
        (InvalidateScope::Prefix(Bytes::new()), "INVALID_VALUE"),
        (InvalidateScope::Prefix(long_key), "KEY_TOO_LONG"),
        (InvalidateScope::Tag(String::new()), "BAD_TAG"),
        (InvalidateScope::Tag(long), "BAD_TAG"),
    ] {
        assert_eq!(code_and_reason(cache.invalidate(scope).await), is(Code::InvalidArgument, reason));
    }
}

pub(super) async fn what_is_over_a_limit_is_refused_with_code_reason_field_and_limit(cache: &impl Cache) {
    use Code::{FailedPrecondition, InvalidArgument, ResourceExhausted};
    let refusal = |code, reason: &str, field: Option<&str>, limit| {
        (code, reason.to_owned(), field.map(str::to_owned).into_iter().collect::<Vec<_>>(), limit)
    };
    let (long, key_max) = ("k".repeat(4_097), Some(4_096));
    let (too_long, empty) = (
        refusal(InvalidArgument, "KEY_TOO_LONG", Some("key"), key_max),
        refusal(InvalidArgument, "KEY_EMPTY", Some("key"), key_max),
    );
    for (key, expected) in [(long.as_str(), too_long), ("", empty)] {
        let (delete, counter) = (DeleteOptions::default(), CounterOptions::default());
        assert_eq!(refused(cache.get(key).await), expected);
        assert_eq!(refused(cache.metadata(key).await), expected);
        assert_eq!(refused(cache.set(key, "v", &plain()).await), expected);
        assert_eq!(refused(cache.delete(key, &delete).await), expected);
        assert_eq!(refused(cache.increment(key, 1, &counter).await), expected);
        assert_eq!(refused(cache.decrement(key, 1, &counter).await), expected);
        assert_eq!(refused(cache.touch(key, HOUR).await), expected);
    }
    let longest = "k".repeat(4_096);
    set(cache, &longest, "v", &plain()).await;
    let too_large = refusal(ResourceExhausted, "VALUE_TOO_LARGE", None, Some(1 << 20));
    assert_eq!(refused(cache.set("k", vec![0; (1 << 20) + 1], &plain()).await), too_large);
    cache.set("k", vec![0; 1 << 20], &plain()).await.unwrap();

    let tags = |tags: Vec<String>| SetOptions { tags, ..plain() };
    let year_3000 = 32_503_680_000_000;
    let (ttl_max, tag_max) = (Some(TTL_MS_MAX), Some(255));
    for (options, expected) in [
        (
            SetOptions { content_type: "c".repeat(256), ..plain() },
            refusal(InvalidArgument, "CONTENT_TYPE_TOO_LONG", Some("content_type"), Some(255)),
        ),
        (tags(vec!["t".to_owned(); 17]), refusal(InvalidArgument, "TOO_MANY_TAGS", Some("tags"), Some(16))),
        (
            tags(vec!["t".to_owned(), String::new()]),
            refusal(InvalidArgument, "BAD_TAG", Some("tags[1]"), tag_max),
        ),
        (tags(vec!["t".repeat(256)]), refusal(InvalidArgument, "BAD_TAG", Some("tags[0]"), tag_max)),
        (
            expiring(SetExpiration::After(Duration::MAX)),
            refusal(InvalidArgument, "TTL_TOO_LONG", Some("ttl_ms"), ttl_max),
        ),
        (
            expiring(SetExpiration::AtUnixMs(year_3000)),
            refusal(InvalidArgument, "TTL_TOO_LONG", Some("expire_at_unix_ms"), ttl_max),
        ),
        (
            SetOptions { durability: Some(Durability::Flushed), ..plain() },
            refusal(FailedPrecondition, "NO_PERSISTENCE", None, None),
        ),
    ] {
        assert_eq!(refused(cache.set("k", "v", &options).await), expected);
    }
    set(cache, "k", "1", &expiring(SetExpiration::After(Duration::from_millis(TTL_MS_MAX)))).await;
    let ttl_too_long = refusal(InvalidArgument, "TTL_TOO_LONG", Some("ttl_ms"), ttl_max);
    let counter = CounterOptions { ttl: Duration::MAX, ..CounterOptions::default() };
    assert_eq!(refused(cache.touch("k", Duration::MAX).await), ttl_too_long);
    assert_eq!(refused(cache.increment("k", 1, &counter).await), ttl_too_long);
    let no_disk = refusal(FailedPrecondition, "NO_PERSISTENCE", None, None);
    let flushed = Some(Durability::Flushed);
    let (delete, counter) = (
        DeleteOptions { durability: flushed, ..DeleteOptions::default() },
        CounterOptions { durability: flushed, ..CounterOptions::default() },
    );
    assert_eq!(refused(cache.delete("k", &delete).await), no_disk);
    assert_eq!(refused(cache.increment("k", 1, &counter).await), no_disk);
    assert_eq!(refused(cache.batch_delete(vec!["k".into()], flushed).await), no_disk);
    let options = SetOptions { durability: flushed, ..plain() };
    assert_eq!(refused(cache.batch_set(vec![("k".into(), "v".into())], &options).await), no_disk);
    let buffered = SetOptions { durability: Some(Durability::Buffered), ..plain() };
    set(cache, "k", "v", &buffered).await;
}

pub(super) async fn clones_share_the_cache_and_tasks_use_it_at_once(cache: &impl Cache) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let cache = cache.clone();
        tasks.spawn(async move {
            for round in 0..25 {
                cache.increment("n", 1, &CounterOptions::default()).await.unwrap();
                let (key, text) = (format!("{task}-{round}"), format!("{task}:{round}"));
                set(&cache, &key, &text, &plain()).await;
                assert_eq!(value(&cache, &key).await.unwrap(), text);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(value(cache, "n").await.unwrap(), "200");
    // A call that is never awaited is never made.
    drop(cache.increment("n", 1, &CounterOptions::default()));
    assert_eq!(value(cache, "n").await.unwrap(), "200");
}

pub(super) async fn a_namespace_that_is_not_there_is_refused(cache: &impl Cache) {
    let expected = is(Code::NotFound, "NAMESPACE_NOT_FOUND");
    let (delete, counter) = (DeleteOptions::default(), CounterOptions::default());
    assert_eq!(code_and_reason(cache.get("k").await), expected);
    assert_eq!(code_and_reason(cache.metadata("k").await), expected);
    assert_eq!(code_and_reason(cache.set("k", "v", &plain()).await), expected);
    assert_eq!(code_and_reason(cache.delete("k", &delete).await), expected);
    assert_eq!(code_and_reason(cache.increment("k", 1, &counter).await), expected);
    assert_eq!(code_and_reason(cache.decrement("k", 1, &counter).await), expected);
    assert_eq!(code_and_reason(cache.touch("k", HOUR).await), expected);
    assert_eq!(code_and_reason(cache.batch_get(vec!["k".into()]).await), expected);
    assert_eq!(code_and_reason(cache.batch_set(vec![("k".into(), "v".into())], &plain()).await), expected);
    assert_eq!(code_and_reason(cache.batch_delete(vec!["k".into()], None).await), expected);
    assert_eq!(code_and_reason(cache.scan("", ScanOptions::default()).await), expected);
    assert_eq!(code_and_reason(cache.invalidate(InvalidateScope::All).await), expected);
}
