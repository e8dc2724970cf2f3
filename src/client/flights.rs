//! Several callers, one piece of work: who comes while it is under way has what it comes to.
//!
//! The work is the caller's own who comes first; a caller that goes away hands it to the next, and where it fails each of
//! the others does its own. What begins after [`Flights::forget`] does not join what began before.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is under way, by key.
#[derive(Debug)]
pub(super) struct Flights<T> {
    flights: Mutex<HashMap<Vec<u8>, Arc<Flight<T>>>>,
}

#[derive(Debug)]
struct Flight<T> {
    /// Held by who does the work.
    landed: tokio::sync::Mutex<Landed<T>>,
}

#[derive(Debug)]
enum Landed<T> {
    NotYet,
    With(T),
    Failed,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { flights: Mutex::default() }
    }
}

impl<T: Clone> Flights<T> {
    /// What the work of this key comes to, done once for all that ask meanwhile.
    ///
    /// # Errors
    /// What the caller's own work fails with.
    pub(super) async fn join<E>(
        &self,
        namespace: &str,
        key: &[u8],
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let name = name_of(namespace, key);
        let flight = self.lock().entry(name.clone()).or_insert_with(|| Arc::new(Flight::new())).clone();
        let mut landed = flight.landed.lock().await;
        match &*landed {
            Landed::With(outcome) => return Ok(outcome.clone()),
            Landed::Failed => {
                drop(landed);
                return work.await;
            }
            Landed::NotYet => {}
        }
        // Where this caller goes away here, the next one finds that nothing has landed.
        let outcome = work.await;
        *landed = outcome.as_ref().map_or(Landed::Failed, |outcome| Landed::With(outcome.clone()));
        drop(landed);
        self.end(&name, &flight);
        outcome
    }

    /// Who asks for this key from now on begins anew.
    #[cfg(feature = "near-cache")]
    pub(super) fn forget(&self, namespace: &str, key: &[u8]) {
        let mut flights = self.lock();
        if !flights.is_empty() {
            flights.remove(&name_of(namespace, key));
        }
    }

    /// Whatever is asked for from now on begins anew.
    #[cfg(feature = "near-cache")]
    pub(super) fn forget_all(&self) {
        self.lock().clear();
    }

    fn end(&self, name: &[u8], flight: &Arc<Flight<T>>) {
        let mut flights = self.lock();
        if flights.get(name).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            flights.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Flight<T>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Flight<T> {
    fn new() -> Self {
        Self { landed: tokio::sync::Mutex::new(Landed::NotYet) }
    }
}

fn name_of(namespace: &str, key: &[u8]) -> Vec<u8> {
    [namespace.as_bytes(), &[0], key].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_do_the_work_once() {
        let (flights, done) = (Flights::default(), AtomicUsize::new(0));
        let ask = |key: &'static str| {
            let done = &done;
            flights.join("", key.as_bytes(), async move {
                tokio::task::yield_now().await;
                done.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>(key)
            })
        };
        let outcomes = join_all((0..100).map(|nth| ask(if nth % 2 == 0 { "a" } else { "b" }))).await;
        assert!(outcomes.iter().enumerate().all(|(nth, key)| *key == Ok(["a", "b"][nth % 2])));
        assert_eq!(done.load(Ordering::Relaxed), 2);
        ask("a").await.unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 3, "what is over is over");
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn work_whose_caller_goes_away_is_done_by_the_next_and_a_failure_is_its_own() {
        let flights = Flights::default();
        let never = flights.join("", b"k", std::future::pending::<Result<u8, ()>>());
        let mut never = Box::pin(never);
        assert!(futures_util::poll!(&mut never).is_pending());
        let mut next = Box::pin(flights.join("", b"k", async { Ok::<_, ()>(7) }));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(never);
        assert_eq!(next.await, Ok(7));
        let fails = || flights.join("", b"k", async { Err::<u8, _>("mine") });
        let works = || flights.join("", b"k", async { Ok::<_, &str>(1) });
        assert_eq!(futures_util::future::join(fails(), works()).await, (Err("mine"), Ok(1)));
    }

    #[tokio::test]
    async fn who_asks_after_a_change_does_not_join_what_began_before() {
        let flights = Flights::default();
        let mut before = Box::pin(flights.join("n", b"k", std::future::pending::<Result<u8, ()>>()));
        assert!(futures_util::poll!(&mut before).is_pending());
        flights.forget("n", b"k");
        assert_eq!(flights.join("n", b"k", async { Ok::<_, ()>(2) }).await, Ok(2));
    }
}
