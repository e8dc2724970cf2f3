//! Membership stores: what every one keeps to, over all of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use larder::clock::monotonic;
use larder::membership::*;

use crate::support::etcd::Etcd;
use crate::support::node::LONG;

fn member(id: &str, incarnation: u64) -> Member {
    let (zone, addresses) = (String::new(), vec!["tcp://127.0.0.1:7400".to_owned()]);
    Member { id: id.to_owned(), incarnation, weight: 1, zone, addresses, state: MemberState::Serving }
}

fn life(id: &str, incarnation: u64) -> Life {
    Life { id: id.to_owned(), incarnation }
}

fn joined(document: Option<&Document>, ids: &[&str]) -> Document {
    let empty = Document::empty(8);
    let joins: Vec<Change> = ids.iter().map(|id| Change::Join(member(id, 7))).collect();
    document.unwrap_or(&empty).changed(&joins, 0, 1).unwrap().unwrap()
}

/// The whole suite, over two ways to one store that has nothing yet.
async fn holds(one: Arc<dyn Store>, other: Arc<dyn Store>) {
    a_document_is_swapped_by_one_of_those_that_saw_the_one_before(&*one, &*other).await;
    of_many_that_swap_at_once_none_is_lost(&one, &other).await;
    a_change_is_heard_of(&one, &other).await;
    lives_end_in_their_time(&*one, &*other).await;
    let large: Vec<String> = (0..1_000).map(|number| format!("larder-{number}.larder.prod.svc")).collect();
    let stored = one.read().await.unwrap();
    let ids: Vec<&str> = large.iter().map(String::as_str).collect();
    let document = joined(stored.document.as_ref(), &ids);
    assert!(matches!(one.compare_and_swap(&stored.revision, &document).await.unwrap(), Swapped::Written(_)));
    assert_eq!(other.read().await.unwrap().document, Some(document));
}

async fn a_document_is_swapped_by_one_of_those_that_saw_the_one_before(one: &dyn Store, other: &dyn Store) {
    let nothing = one.read().await.unwrap();
    assert_eq!((&nothing.document, nothing.lives.len()), (&None, 0));
    assert_eq!(other.read().await.unwrap(), nothing);
    let first = joined(None, &["a"]);
    let Swapped::Written(revision) = one.compare_and_swap(&nothing.revision, &first).await.unwrap() else {
        panic!("nobody else was there");
    };
    let stored = other.read().await.unwrap();
    assert_eq!((&stored.revision, stored.document.as_ref()), (&revision, Some(&first)));
    let late = joined(None, &["b"]);
    assert_eq!(other.compare_and_swap(&nothing.revision, &late).await.unwrap(), Swapped::Outdone);
    assert_eq!(one.read().await.unwrap(), stored, "what was outdone has changed nothing");
    let second = joined(Some(&first), &["b"]);
    assert!(matches!(other.compare_and_swap(&revision, &second).await.unwrap(), Swapped::Written(_)));
    let third = joined(Some(&first), &["c"]);
    assert_eq!(one.compare_and_swap(&revision, &third).await.unwrap(), Swapped::Outdone);
    assert_eq!(one.read().await.unwrap().document, Some(second));
}

async fn of_many_that_swap_at_once_none_is_lost(one: &Arc<dyn Store>, other: &Arc<dyn Store>) {
    let swaps = (0..8).map(|number| {
        let store = if number % 2 == 0 { one.clone() } else { other.clone() };
        tokio::spawn(async move {
            let (id, mut tries) = (format!("swap-{number}"), 0);
            loop {
                tries += 1;
                let stored = store.read().await.unwrap();
                let next = joined(stored.document.as_ref(), &[&id]);
                if let Swapped::Written(_) = store.compare_and_swap(&stored.revision, &next).await.unwrap() {
                    return tries;
                }
            }
        })
    });
    for tries in join_all(swaps).await {
        assert!(tries.unwrap() <= 8, "each time one of them was quicker");
    }
    let document = one.read().await.unwrap().document.unwrap();
    assert!((0..8).all(|number| document.member(&format!("swap-{number}")).is_some()), "{document:?}");
}

async fn a_change_is_heard_of(one: &Arc<dyn Store>, other: &Arc<dyn Store>) {
    let stored = one.read().await.unwrap();
    let waits = {
        let (store, since) = (other.clone(), stored.revision.clone());
        tokio::spawn(async move {
            loop {
                let heard = store.changed(&since).await.unwrap();
                if heard.revision != since {
                    return heard;
                }
            }
        })
    };
    let next = joined(stored.document.as_ref(), &["heard"]);
    let Swapped::Written(revision) = one.compare_and_swap(&stored.revision, &next).await.unwrap() else {
        panic!("nobody else was there");
    };
    let heard = tokio::time::timeout(LONG, waits).await.expect("it was not heard of").unwrap();
    assert_eq!((&heard.revision, heard.document.as_ref()), (&revision, Some(&next)));
    let at_once = tokio::time::timeout(LONG, other.changed(&stored.revision)).await.unwrap().unwrap();
    assert_eq!(at_once.document, Some(next), "what is older than what is there need not be waited for");
}

async fn lives_end_in_their_time(one: &dyn Store, other: &dyn Store) {
    let short = Duration::from_secs(4);
    one.keep_alive(&life("kept", 1), LONG * 3).await.unwrap();
    other.keep_alive(&life("kept", u64::MAX), LONG * 3).await.unwrap();
    other.keep_alive(&life("given up", 1), LONG * 3).await.unwrap();
    let begun = monotonic();
    one.keep_alive(&life("short", 1), short).await.unwrap();
    let both = [life("kept", 1), life("kept", u64::MAX)];
    let all = [&[life("given up", 1)][..], &both, &[life("short", 1)]].concat();
    assert_eq!(other.read().await.unwrap().lives, all);
    other.keep_alive(&life("given up", 1), Duration::ZERO).await.unwrap();
    other.keep_alive(&life("never there", 1), Duration::ZERO).await.unwrap();
    let took = loop {
        let lives = one.read().await.unwrap().lives;
        let took = monotonic() - begun;
        if lives == both {
            break took;
        }
        assert_eq!(lives, [&both[..], &[life("short", 1)]].concat());
        assert!(took < LONG, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(took >= short, "{took:?}: sooner than it was told");
    // Whoever keeps itself is there again, whatever somebody else has done, and for as long as it says now.
    one.keep_alive(&both[0], Duration::ZERO).await.unwrap();
    other.keep_alive(&both[1], Duration::ZERO).await.unwrap();
    one.keep_alive(&both[0], LONG).await.unwrap();
    other.keep_alive(&both[0], Duration::ZERO).await.unwrap();
    one.keep_alive(&both[0], LONG).await.unwrap();
    assert_eq!(other.read().await.unwrap().lives, both[..1]);
    one.keep_alive(&both[0], Duration::from_secs(1)).await.unwrap();
    let begun = monotonic();
    while !other.read().await.unwrap().lives.is_empty() {
        assert!(begun.elapsed() < LONG, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    one.keep_alive(&both[0], Duration::ZERO).await.unwrap();
    one.keep_alive(&both[1], Duration::ZERO).await.unwrap();
    assert!(other.read().await.unwrap().lives.is_empty());
}

#[tokio::test(start_paused = true)]
async fn memory_holds() {
    let store = MemoryStore::default();
    let another = store.another_way();
    holds(Arc::new(store), Arc::new(another)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ring.json");
    holds(Arc::new(FileStore::new(&path)), Arc::new(FileStore::new(&path))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_holds() {
    let Some(etcd) = Etcd::start().await else { return };
    // A watch that has nothing to tell goes on: etcd closes connections on which pings come more often than each 5 s.
    let quiet = {
        let store = etcd.store("quiet");
        tokio::spawn(async move {
            let nothing = store.read().await.unwrap().revision;
            tokio::time::timeout(Duration::from_secs(12), store.changed(&nothing)).await
        })
    };
    holds(Arc::new(etcd.store("larder/one")), Arc::new(etcd.store("larder/one"))).await;
    // Another prefix is another cluster, also where it begins like this one.
    let another = etcd.store("larder/on").read().await.unwrap();
    assert_eq!((another.document, another.lives.len()), (None, 0));
    let told = quiet.await.unwrap();
    assert!(told.is_err(), "{told:?}");
}

#[tokio::test]
async fn an_etcd_that_is_gone_is_an_error_and_one_that_is_back_has_what_it_had() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let store = etcd.store("larder");
    let nothing = store.read().await.unwrap();
    let first = joined(None, &["a"]);
    store.compare_and_swap(&nothing.revision, &first).await.unwrap();
    store.keep_alive(&life("a", 7), LONG).await.unwrap();
    let stored = store.read().await.unwrap();
    let waits = {
        let (store, since) = (etcd.store("larder"), stored.revision.clone());
        tokio::spawn(async move { store.changed(&since).await })
    };
    etcd.kill();
    let heard = tokio::time::timeout(LONG, waits).await.expect("it waits for what is gone").unwrap();
    assert!(heard.is_err() || heard.unwrap() == stored);
    let error = store.read().await.unwrap_err().to_string();
    assert!(error.contains(&format!("etcd:{}/larder", etcd.url())), "{error}");
    store.keep_alive(&life("a", 7), LONG).await.unwrap_err();
    etcd.run().await;
    // By another endpoint as well, where the first does not answer.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let two = format!("http://{},{}/larder", nobody.local_addr().unwrap(), etcd.url());
    let two = EtcdStore::new(&two.parse().unwrap()).unwrap();
    for store in [&store, &two] {
        assert_eq!(store.read().await.unwrap(), stored, "its leases have gone on");
        store.keep_alive(&life("a", 7), LONG).await.unwrap();
        assert_eq!(store.read().await.unwrap(), stored);
    }
}

#[tokio::test]
async fn a_file_that_is_none_is_an_error_that_names_it_and_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ring.json");
    let store = FileStore::new(&path);
    std::fs::write(&path, "{ \"format\": 9 }").unwrap();
    let error = store.read().await.unwrap_err().to_string();
    assert!(error.contains(&format!("file:{}", path.display())) && error.contains("format 9"), "{error}");
    let document = joined(None, &["a"]);
    let nothing = FileStore::new(&directory.path().join("another.json")).read().await.unwrap().revision;
    assert_eq!(store.compare_and_swap(&nothing, &document).await.unwrap(), Swapped::Outdone);
    assert_eq!(std::fs::read(&path).unwrap(), b"{ \"format\": 9 }");
    // Damaged lives are nobody's.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(directory.path().join("ring.json.lives"), "[{]").unwrap();
    assert!(store.read().await.unwrap().lives.is_empty());
    store.keep_alive(&life("a", 1), LONG).await.unwrap();
    assert_eq!(store.read().await.unwrap().lives, [life("a", 1)]);
    let nowhere = FileStore::new(&directory.path().join("missing/ring.json"));
    let error = nowhere.read().await.unwrap_err().to_string();
    assert!(error.contains("missing/ring.json.lock") && error.contains("No such file"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_as_it_is_told_and_of_one_way_alone() {
    let store = MemoryStore::default();
    let well = store.another_way();
    let nothing = well.read().await.unwrap();
    let first = joined(None, &["a"]);
    for (fault, said) in [
        (MemoryFault::Down, "it is down"),
        (MemoryFault::Nonsense, "no membership document"),
        (MemoryFault::Mute, "its answer was lost"),
    ] {
        store.set_fault(fault);
        let error = store.read().await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(well.read().await.unwrap(), nothing);
    }
    store.compare_and_swap(&nothing.revision, &first).await.unwrap_err();
    assert_eq!(well.document(), Some(first.clone()), "its answer was lost, and it was done");
    store.set_fault(MemoryFault::Full);
    assert_eq!(store.read().await.unwrap().document, Some(first.clone()));
    store.keep_alive(&life("a", 7), LONG).await.unwrap_err();
    store.set_fault(MemoryFault::Slow(LONG));
    let begun = monotonic();
    store.keep_alive(&life("a", 7), LONG).await.unwrap();
    assert!(monotonic() - begun >= LONG);
    store.set_fault(MemoryFault::Silent);
    let silent = tokio::time::timeout(LONG, store.read()).await;
    assert!(silent.is_err(), "{silent:?}");
    // Lost leases, and a backup.
    assert_eq!(well.read().await.unwrap().lives, []);
    well.keep_alive(&life("a", 7), LONG).await.unwrap();
    well.drop_lives();
    assert_eq!(well.read().await.unwrap().lives, []);
    let before = well.read().await.unwrap();
    well.restore(None);
    let restored = well.read().await.unwrap();
    assert_eq!(restored.document, None);
    assert_ne!(restored.revision, before.revision);
    assert_ne!(restored.revision, nothing.revision, "a restored store is not the one that it was");
}
