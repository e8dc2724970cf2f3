//! Nodes and clients in one simulation: on a network that delays, loses and parts by a seed, by a time that is made up.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use larder::client::{ClientError, GetOutcome, Serving, SetExpiration, SetOptions, SetOutcome};
use tokio::time::sleep;

use crate::support::simulated::*;

/// What happened in a simulation, and when by its time.
#[derive(Clone, Default)]
struct Events(Rc<RefCell<Vec<String>>>);

impl Events {
    fn note(&self, what: impl std::fmt::Display) {
        self.0.borrow_mut().push(format!("{:?} {what}", turmoil::elapsed()));
    }
}

/// Runs what a client does beside three nodes to its end, twice, and compares; what it noted.
fn simulate<F: Future<Output = ()> + 'static>(seed: u64, client: impl Fn(Events) -> F) -> Vec<String> {
    let [first, second] = [0, 1].map(|_| {
        let mut simulation = three_nodes(seed);
        let events = Events::default();
        let running = client(events.clone());
        simulation.client("client", async move {
            // Until they listen.
            sleep(Duration::from_millis(100)).await;
            running.await;
            Ok(())
        });
        simulation.run().unwrap();
        events.0.take()
    });
    assert_eq!(first, second, "one seed, one order of events");
    first
}

/// Sets and gets keys of each node, all at once.
async fn set_and_get(events: Events) {
    let nodes = ["one", "two", "three"].map(|name| {
        let events = events.clone();
        async move {
            let client = client(name, DATA).build().unwrap();
            for number in 0..10 {
                let key = format!("{name}-{number}");
                let stored = client.set(key.clone(), key.clone(), &SetOptions::default()).await.unwrap();
                let SetOutcome::Stored(version) = stored else { panic!("{stored:?}") };
                events.note(format_args!("{key} is stored as {version:?}"));
                let GetOutcome::Hit(hit) = client.get(key.clone()).await.unwrap() else { panic!("{key}") };
                assert_eq!((&*hit.value, hit.version), (key.as_bytes(), version));
                events.note(format_args!("{key} is got"));
            }
        }
    });
    futures_util::future::join_all(nodes).await;
}

#[test]
fn one_seed_makes_one_order_of_events_and_another_another() {
    let events = simulate(7, set_and_get);
    assert_eq!(events.len(), 60);
    assert_ne!(events, simulate(8, set_and_get));
}

#[test]
fn a_life_passes_in_simulated_time_and_what_it_leaves_is_reclaimed() {
    simulate(1, |events| async move {
        let (data, admin) =
            (client("one", DATA).build().unwrap(), client("one", ADMIN).build_admin().unwrap());
        let hour = Duration::from_secs(3_600);
        let lives = |life| SetOptions { expiration: SetExpiration::After(life), ..SetOptions::default() };
        data.set("long", "value", &lives(hour)).await.unwrap();
        let begun = turmoil::elapsed();
        data.set("short", "value", &lives(Duration::from_secs(10))).await.unwrap();
        sleep(Duration::from_secs(9)).await;
        let GetOutcome::Hit(hit) = data.get("short").await.unwrap() else { panic!("it lives for 10 s") };
        assert!(turmoil::elapsed() - begun > Duration::from_secs(9), "{hit:?}");
        let entries = async || {
            let stats = admin.stats().await.unwrap();
            events.note(format_args!("since {:?}, for {:?}", stats.incarnation, stats.uptime));
            stats.entries
        };
        assert_eq!(entries().await, 2);
        sleep(Duration::from_secs(2)).await;
        // Nobody has asked for it: the upkeep has taken it out.
        assert_eq!(entries().await, 1);
        assert!(matches!(data.get("short").await.unwrap(), GetOutcome::Miss(_)));
        assert!(matches!(data.get("long").await.unwrap(), GetOutcome::Hit(_)));
    });
}

#[test]
fn a_node_that_is_parted_is_found_out_in_time_and_found_again() {
    simulate(2, |events| async move {
        let (one, two) = (client("one", DATA).build().unwrap(), client("two", DATA).build().unwrap());
        for client in [&one, &two] {
            client.set("key", "value", &SetOptions::default()).await.unwrap();
        }
        turmoil::partition("client", "two");
        let begun = turmoil::elapsed();
        let refused = two.get("key").await.unwrap_err();
        events.note(&refused);
        let took = turmoil::elapsed() - begun;
        assert!(matches!(refused, ClientError::Timeout { .. }), "{refused}");
        assert!((2_000..2_100).contains(&took.as_millis()), "{took:?}");
        assert!(matches!(one.get("key").await.unwrap(), GetOutcome::Hit(_)), "others are not concerned");
        turmoil::repair("client", "two");
        let mut refusals = 0;
        while let Err(error) = two.get("key").await {
            events.note(error);
            refusals += 1;
        }
        assert!(refusals > 0, "the connection was wedged");
        assert!(matches!(two.get("key").await.unwrap(), GetOutcome::Hit(_)));
        assert!(turmoil::elapsed() < Duration::from_secs(30), "keepalive finds what is wedged");
    });
}

#[test]
fn a_node_drains_and_tells_so_on_every_listener() {
    simulate(3, |events| async move {
        let (data, admin) =
            (client("one", DATA).build().unwrap(), client("one", ADMIN).build_admin().unwrap());
        let health = client("one", HEALTH).build_health().unwrap();
        data.set("key", "value", &SetOptions::default()).await.unwrap();
        assert_eq!(health.check("larder.v1.Cache").await.unwrap(), Serving::Serving);
        assert!(http_get("one", "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(http_get("one", "/metrics").await.contains("\nlarder_entries 1\n"));
        admin.drain(None).await.unwrap();
        while let Ok(serving) = health.check("larder.v1.Cache").await {
            assert_eq!(serving, Serving::NotServing);
            events.note("it drains");
        }
        let refused = data.get("key").await.unwrap_err();
        events.note(&refused);
        assert!(matches!(refused, ClientError::Unreachable { .. }), "{refused}");
        // The others go on.
        let two = client("two", DATA).build().unwrap();
        two.set("key", "value", &SetOptions::default()).await.unwrap();
    });
}

#[test]
fn a_node_that_crashes_is_begun_anew_with_later_versions() {
    let mut simulation = three_nodes(4);
    let events = Events::default();
    let noted = events.clone();
    simulation.client("client", async move {
        sleep(Duration::from_millis(100)).await;
        let client = client("one", DATA).build().unwrap();
        let set = async || client.set("key", "value", &SetOptions::default()).await;
        let SetOutcome::Stored(before) = set().await.unwrap() else { panic!("there was room") };
        noted.note("stored");
        while set().await.is_ok() {}
        noted.note("lost");
        let found = loop {
            match client.get("key").await {
                Ok(found) => break found,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        assert!(matches!(found, GetOutcome::Miss(_)), "it was in memory: {found:?}");
        let SetOutcome::Stored(after) = set().await.unwrap() else { panic!("there was room") };
        assert!(after > before, "{after:?} after {before:?}");
        Ok(())
    });
    let until = |simulation: &mut turmoil::Sim<'_>, number| {
        while events.0.borrow().len() < number {
            assert!(!simulation.step().unwrap());
        }
    };
    until(&mut simulation, 1);
    simulation.crash("one");
    until(&mut simulation, 2);
    simulation.bounce("one");
    simulation.run().unwrap();
}
