//! What documents keep to however they change, and what is refused of one that lies in a store.

use proptest::prelude::*;

use super::*;

fn member(id: &str, incarnation: u64) -> Member {
    Member {
        id: id.to_owned(),
        incarnation,
        weight: 1,
        zone: "a".to_owned(),
        addresses: vec!["tcp://10.0.0.1:7400".to_owned()],
        state: MemberState::Serving,
    }
}

fn leave(id: &str, incarnation: u64) -> Change {
    Change::Leave { id: id.to_owned(), incarnation }
}

fn after(document: &Document, changes: &[Change]) -> Document {
    document.changed(changes, 0, 1_000).unwrap().expect("it changes something")
}

#[test]
fn a_change_gives_a_later_document_that_remembers_the_ring_before() {
    let empty = Document::empty(40);
    let one = after(&empty, &[Change::Join(member("b", 7))]);
    assert_eq!((one.epoch, one.ring_epoch, one.past.len()), (1_000, 1_000, 0));
    let two = after(&one, &[Change::Join(member("a", 8))]);
    assert_eq!((two.epoch, two.ring_epoch), (1_001, 1_001), "the clock may stand, the order does not");
    assert_eq!(two.members.iter().map(|member| &member.id).collect::<Vec<_>>(), ["a", "b"]);
    let before = PastRing {
        since: 1_000,
        until: 1_000,
        points_per_weight: 40,
        members: vec![PastMember("b".to_owned(), 7, 1)],
    };
    assert_eq!(two.past, [before]);
    // What moves no key begins no ring.
    let restarting = Member { state: MemberState::Restarting { until_unix_ms: 9 }, ..member("a", 8) };
    let three = after(&two, &[Change::Update(restarting)]);
    assert_eq!((three.epoch, three.ring_epoch, &three.past), (1_002, 1_001, &two.past));
    let four = after(&three, &[leave("b", 7)]);
    assert_eq!((four.past.len(), four.past[0].since, four.past[0].until), (2, 1_001, 1_002));
    // The highest of what there is, what the writer knows and the time.
    assert_eq!(one.changed(&[leave("b", 7)], 5_000, 1_000).unwrap().unwrap().epoch, 5_001);
    assert_eq!(one.changed(&[leave("b", 7)], 5_000, 9_000).unwrap().unwrap().epoch, 9_000);
    let last = after(&one, &[leave("b", 7)]);
    assert!(last.members.is_empty() && last.ring().is_err());
    assert_eq!(Document::from_json(&last.to_json()).unwrap(), last, "the last one may leave");
}

#[test]
fn a_new_incarnation_takes_the_place_of_the_one_before_and_what_is_over_changes_nothing() {
    let one = after(&Document::empty(40), &[Change::Join(member("a", 1)), Change::Join(member("b", 1))]);
    let again = after(&one, &[Change::Join(member("a", 2))]);
    assert!(again.member_of("a", 2).is_some() && again.member_of("a", 1).is_none());
    assert_eq!((again.members.len(), again.past.len()), (2, 1), "another incarnation is another ring");
    let heavier = Member { weight: 5, ..member("a", 1) };
    for nothing in [Change::Update(heavier), leave("a", 1), leave("c", 1), Change::Join(member("a", 2))] {
        assert_eq!(again.changed(std::slice::from_ref(&nothing), 0, 1).unwrap(), None, "{nothing:?}");
    }
    let renewed = again.renewed(0, 50_000).unwrap();
    let expected = (50_000, again.ring_epoch, &again.members, &again.past);
    assert_eq!((renewed.epoch, renewed.ring_epoch, &renewed.members, &renewed.past), expected);
    // After a document that the writer has not seen nothing is known of what there was.
    for (known, is_known) in [(again.epoch, true), (50_000, false)] {
        let later = again.changed(&[leave("b", 1)], known, 1).unwrap().unwrap();
        let same = again.renewed(known, 1).unwrap();
        for document in [later, same] {
            assert_eq!(document.rings_since(again.epoch).is_some(), is_known, "{known}: {document:?}");
        }
    }
}

#[test]
fn rings_since_an_epoch_are_known_as_long_as_they_are_remembered() {
    let mut documents = vec![after(&Document::empty(40), &[Change::Join(member("a", 1))])];
    for number in 0..PAST_MAX as u32 + 4 {
        let last = documents.last().unwrap();
        let heavier = Member { weight: number + 2, ..member("a", 1) };
        let zoned = Member { zone: "z".to_owned(), ..heavier.clone() };
        let next = after(last, &[Change::Update(heavier)]);
        documents.push(after(&next, &[Change::Update(zoned)]));
    }
    let last = documents.last().unwrap();
    assert_eq!(last.past.len(), PAST_MAX);
    for (back, document) in documents.iter().rev().enumerate() {
        let between = last.rings_since(document.epoch);
        assert_eq!(
            between.map(<[PastRing]>::len),
            (back <= PAST_MAX).then(|| back.saturating_sub(1)),
            "{back}"
        );
    }
    assert_eq!(last.rings_since(last.epoch + 1), None, "it was not yet");
    assert_eq!(
        last.past[0].ring().unwrap().digest(),
        documents[documents.len() - 2].ring().unwrap().digest()
    );
}

#[test]
fn what_no_document_may_say_is_refused_with_what_it_says() {
    let refused =
        |member: Member| Document::empty(40).changed(&[Change::Join(member)], 0, 1).unwrap_err().to_string();
    let long = "i".repeat(256);
    for (member, said) in [
        (Member { incarnation: 0, ..member("a", 1) }, "incarnation 0"),
        (Member { weight: 0, ..member("a", 1) }, "weight 0"),
        (Member { weight: 1_001, ..member("a", 1) }, "weight 1001"),
        (member("", 1), "1 B to 255 B"),
        (member(&long, 1), "1 B to 255 B"),
        (Member { zone: long.clone(), ..member("a", 1) }, "256 B"),
        (
            Member { addresses: vec!["10.0.0.1:7400".to_owned()], ..member("a", 1) },
            "\"10.0.0.1:7400\" of \"a\" has no scheme",
        ),
        (Member { addresses: vec!["tcp://h:1".to_owned(); 17], ..member("a", 1) }, "17 addresses"),
    ] {
        let error = refused(member);
        assert!(error.contains(said), "{error}");
    }
    let error = Document::empty(u32::MAX).changed(&[Change::Join(member("a", 1))], 0, 1).unwrap_err();
    assert!(error.to_string().contains("--ring-points"), "{error}");
    let one = after(&Document::empty(40), &[Change::Join(member("a", 1))]);
    let error = one.changed(&[leave("a", 1)], u64::MAX - 1, 1).unwrap_err();
    assert!(error.to_string().contains("no higher epoch"), "{error}");
}

#[test]
fn a_document_is_written_for_people_and_read_again() {
    let one = after(&Document::empty(40), &[Change::Join(member("a", 0xC0FFEE))]);
    let two = after(
        &one,
        &[Change::Join(Member {
            state: MemberState::Restarting { until_unix_ms: 5 },
            ..member("b", u64::MAX)
        })],
    );
    let json = two.to_json();
    assert_eq!(Document::from_json(&json).unwrap(), two);
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&value["format"], &value["members"][0]["incarnation"]),
        (&1.into(), &"0000000000c0ffee".into())
    );
    assert_eq!(
        (&value["members"][0]["state"], &value["members"][1]["state"]),
        (&"SERVING".into(), &"RESTARTING".into())
    );
    let read = |at: &str, put: serde_json::Value| {
        let mut changed = value.clone();
        *changed.pointer_mut(at).unwrap() = put;
        Document::from_json(&serde_json::to_vec(&changed).unwrap()).map_err(|error| error.to_string())
    };
    // What a later version adds is passed over; what it changes is not read.
    let mut more = value.clone();
    more["more"] = 1.into();
    assert_eq!(Document::from_json(&serde_json::to_vec(&more).unwrap()).unwrap(), two);
    let later = read("", serde_json::json!({ "format": 2, "members": "somewhere else" })).unwrap_err();
    assert!(later.contains("format 2") && later.contains("reads 1"), "{later}");
    for (at, put, expected) in [
        ("/epoch", 0.into(), "in no order"),
        ("/ring_epoch", 9_999.into(), "in no order"),
        ("/members/0/incarnation", "12".into(), "16 hexadecimal digits"),
        ("/members/0/incarnation", "+000000000c0ffee".into(), "16 hexadecimal digits"),
        ("/members/1/id", "a".into(), "two members have the id \"a\""),
        ("/members/1/state", "AWAY".into(), "AWAY"),
        ("/past/0/until", 9_999.into(), "does not come before"),
        ("/past/0/since", 0.into(), "does not come before"),
        ("", 7.into(), "no membership document"),
    ] {
        let said = read(at, put).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    assert!(Document::from_json(b"").is_err() && Document::from_json(b"{}").is_err());
}

#[test]
fn a_thousand_members_that_often_change_fit_into_what_stores_take() {
    let joins: Vec<Change> = (1..=1_000)
        .map(|number| Change::Join(member(&format!("larder-{number}.larder.prod"), number)))
        .collect();
    let mut document = after(&Document::empty(40), &joins);
    for weight in 2..40 {
        document =
            after(&document, &[Change::Update(Member { weight, ..member("larder-1.larder.prod", 1) })]);
    }
    let bytes = document.to_json().len();
    assert!(bytes < 1 << 20 && document.past.len() >= 2, "{bytes} B, {} rings", document.past.len());
}

proptest! {
    /// However documents change, each keeps to the rules, is read as it was written, and says which rings there were.
    #[test]
    fn documents_follow_each_other(changes in prop::collection::vec(changes(), 1..40)) {
        let mut documents = vec![after(&Document::empty(8), &[Change::Join(member("a", 1))])];
        for (now, change) in changes.into_iter().enumerate() {
            let last = documents.last().unwrap();
            if let Some(next) = last.changed(&change, 0, now as u64 * 700).unwrap() {
                prop_assert!(next.epoch > last.epoch);
                prop_assert_eq!(&Document::from_json(&next.to_json()).unwrap(), &next);
                documents.push(next);
            }
        }
        let last = documents.last().unwrap();
        for (at, document) in documents.iter().enumerate() {
            let mut rings: Vec<_> = documents[at..].iter().rev().map(|after| after.short().collect::<Vec<_>>()).collect();
            rings.dedup();
            let Some(between) = last.rings_since(document.epoch) else {
                prop_assert!(rings.len() > PAST_MAX);
                continue;
            };
            let between: Vec<_> = between.iter().map(|ring| ring.members.clone()).collect();
            let expected = if rings.len() < 2 { &[][..] } else { &rings[1..rings.len() - 1] };
            prop_assert_eq!(&between, expected);
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let id = prop::sample::select(vec!["a", "b", "c"]);
    let change = (id, 1..3_u64, 1..3_u32, any::<bool>()).prop_map(|(id, incarnation, weight, is_there)| {
        let changed = Member { weight, ..member(id, incarnation) };
        match (is_there, weight) {
            (true, 1) => Change::Join(changed),
            (true, _) => Change::Update(changed),
            (false, _) => leave(id, incarnation),
        }
    });
    prop::collection::vec(change, 1..3)
}
