//! One load per key, of a source that answers when a test lets it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::engine::{EngineConfig, Op, Outcome, Set};

/// A source that reports each lookup, and answers it with the next answer that the test sends.
#[derive(Debug)]
struct Held {
    asked: Sender<Vec<u8>>,
    answers: Mutex<Receiver<Answer>>,
}

impl Source for Held {
    fn load(&self, target: &LoadTarget) -> Answer {
        self.asked.send(target.key.to_vec()).unwrap();
        self.answers.lock().recv().expect("the test sends an answer")
    }
}

struct Stand {
    runtime: Runtime,
    engine: Arc<Engine>,
    clock: SystemClock,
    lookup: Lookup,
    asked: Receiver<Vec<u8>>,
    answers: Sender<Answer>,
}

impl Stand {
    fn new() -> Self {
        Self::with_threads(1)
    }

    fn with_threads(threads: usize) -> Self {
        let runtime =
            Builder::new_current_thread().enable_time().max_blocking_threads(threads).build().unwrap();
        let clock = SystemClock::new();
        let engine = Arc::new(Engine::new(&EngineConfig::default(), clock.now()));
        engine.start_fetching();
        let ((asks, asked), (answers, told)) = (channel(), channel());
        let source = Held { asked: asks, answers: Mutex::new(told) };
        let lookup = Lookup::new(Arc::clone(&engine), Arc::new(source));
        Self { runtime, engine, clock, lookup, asked, answers }
    }

    /// A load that is not started.
    fn idle(&self, key: &[u8]) -> Loading {
        let namespace = self.engine.default_namespace();
        let fetch = self.engine.begin_fetch(namespace, key, self.clock.now()).expect("it is not in memory");
        self.lookup.pending_load(fetch, namespace).into_loading(key)
    }

    fn begin(&self, key: &[u8]) -> Loading {
        let loading = self.idle(key);
        self.start(&[&loading], usize::MAX);
        loading
    }

    fn start(&self, loadings: &[&Loading], bytes_max: usize) {
        let _entered = self.runtime.enter();
        Loading::start_together(loadings.iter().copied(), bytes_max);
    }

    fn set(&self, key: &[u8]) {
        let set = Op::Set(Set::new(key, b"v"));
        let done = self.engine.apply(self.engine.default_namespace(), &set, self.clock.now());
        assert!(matches!(done, Outcome::Stored(_)));
    }

    fn delete(&self, key: &[u8]) {
        let delete = Op::Delete { key, if_version: None };
        self.engine.apply(self.engine.default_namespace(), &delete, self.clock.now());
    }
}

fn is_pending(loading: &mut Loading) -> bool {
    Pin::new(loading).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn who_asks_for_a_key_that_is_being_loaded_waits_for_the_same_load() {
    let stand = Stand::new();
    let mut first = stand.begin(b"k");
    assert_eq!(stand.asked.recv().unwrap(), b"k");
    let (second, third) = (stand.begin(b"k"), stand.begin(b"k"));
    assert!(is_pending(&mut first));
    // Who began it need not stay for it to go on.
    drop(first);
    stand.answers.send(Answer::Failed(Refusal::Shortage)).unwrap();
    let loaded = [second, third].map(|loading| stand.runtime.block_on(loading));
    for loaded in &loaded {
        assert!(matches!(**loaded.answer(), Answer::Failed(Refusal::Shortage)));
    }
    assert!(stand.asked.try_recv().is_err(), "it was loaded once");
    assert_eq!(stand.lookup.flights(), 0);
}

#[test]
fn what_was_loaded_before_a_key_was_changed_is_not_given_to_who_came_after() {
    let stand = Stand::new();
    let before = stand.begin(b"k");
    assert_eq!(stand.asked.recv().unwrap(), b"k");
    stand.set(b"k");
    stand.delete(b"k");
    let after = stand.begin(b"k");
    stand.answers.send(Answer::Damaged).unwrap();
    stand.answers.send(Answer::Absent).unwrap();
    let before = stand.runtime.block_on(before);
    assert!(matches!(**before.answer(), Answer::Damaged));
    let after = stand.runtime.block_on(after);
    assert!(matches!(**after.answer(), Answer::Absent), "it was loaded anew");
    // What is late changes nothing that is newer: the operation has to look again.
    let namespace = stand.engine.default_namespace();
    let get = Op::Get { key: b"k", touch: None };
    let late = stand.engine.apply_fetched(namespace, &get, before.into_fetch(), None, stand.clock.now());
    stand.engine.end_fetch(late.unwrap_err());
    let newest = stand.engine.apply_fetched(namespace, &get, after.into_fetch(), None, stand.clock.now());
    assert!(matches!(newest, Ok(Outcome::Miss(_))));
}

#[test]
fn what_everybody_has_given_up_before_it_began_is_not_loaded() {
    let stand = Stand::new();
    let (first, second, third) = (stand.begin(b"1"), stand.begin(b"2"), stand.begin(b"3"));
    assert_eq!(stand.asked.recv().unwrap(), b"1");
    assert!(second.give_up().is_none(), "nothing of it has begun");
    let leaving = first.give_up().expect("it has begun");
    let cx = Context::from_waker(Waker::noop());
    assert!(leaving.poll(&cx).is_pending());
    stand.answers.send(Answer::Absent).unwrap();
    assert_eq!(stand.asked.recv().unwrap(), b"3");
    assert!(leaving.poll(&cx).is_ready());
    stand.answers.send(Answer::Absent).unwrap();
    assert!(matches!(**stand.runtime.block_on(third).answer(), Answer::Absent));
}

#[test]
fn loads_started_together_are_done_one_behind_another_until_one_blocks() {
    let stand = Stand::with_threads(2);
    let loadings = [b"1", b"2", b"3"].map(|key| stand.idle(key));
    stand.start(&loadings.each_ref(), usize::MAX);
    assert_eq!(stand.asked.recv().unwrap(), b"1");
    std::thread::sleep(2 * flight::SLOW);
    assert!(stand.asked.try_recv().is_err(), "one thread does them");
    stand.answers.send(Answer::Absent).unwrap();
    // Neither of these is answered before both are asked for.
    let mut asked = [(); 2].map(|()| stand.asked.recv().unwrap());
    asked.sort();
    assert_eq!(asked, [b"2", b"3"]);
    for loading in loadings {
        stand.answers.send(Answer::Absent).unwrap();
        assert!(matches!(**stand.runtime.block_on(loading).answer(), Answer::Absent));
    }
}

#[test]
fn a_load_that_does_not_end_holds_up_none_that_was_started_with_it() {
    let stand = Stand::with_threads(4);
    let [stuck, second, third] = [b"1", b"2", b"3"].map(|key| stand.idle(key));
    stand.start(&[&stuck, &second, &third], usize::MAX);
    assert_eq!(stand.asked.recv().unwrap(), b"1");
    stand.runtime.block_on(async {
        while stand.asked.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    });
    (0..3).for_each(|_| stand.answers.send(Answer::Absent).unwrap());
    for loading in [stuck, second, third] {
        assert!(matches!(**stand.runtime.block_on(loading).answer(), Answer::Absent));
    }
}

#[test]
fn loads_that_found_no_room_are_done_when_they_are_waited_for() {
    let stand = Stand::new();
    let (first, second) = (stand.idle(b"1"), stand.idle(b"2"));
    stand.start(&[&first, &second], 0);
    while !first.is_idle() || !second.is_idle() {
        std::thread::yield_now();
    }
    assert!(stand.asked.try_recv().is_err(), "nothing is loaded");
    for loading in [second, first] {
        stand.answers.send(Answer::Absent).unwrap();
        assert!(matches!(**stand.runtime.block_on(loading).answer(), Answer::Absent));
    }
}

#[test]
fn a_source_that_panics_leaves_nobody_waiting() {
    let stand = Stand::new();
    let loading = stand.begin(b"k");
    stand.asked.recv().unwrap();
    drop(stand.answers);
    let loaded = stand.runtime.block_on(loading);
    assert!(matches!(**loaded.answer(), Answer::Failed(Refusal::Unreadable)));
}
