//! An application whose tests need no server: its code takes any cache, its tests give it one in the process, and one that fails.
//!
//! ```text
//! cargo run --example in_process_tests                                 (a cache in this process)
//! cargo run --example in_process_tests -- --nodes tcp://127.0.0.1:7400 (your node)
//! cargo test --example in_process_tests                                (the tests, without a server)
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::Client;
use larder::client::{Cache, ClientError, CounterOptions, SetExpiration, SetOptions};
use larder::local::LocalCache;

/// What the application keeps elsewhere, and asks as seldom as it can.
struct Database {
    rows: HashMap<&'static str, &'static str>,
    queries: AtomicUsize,
}

impl Database {
    fn new() -> Self {
        Self { rows: HashMap::from([("ada", "Ada Lovelace"), ("alan", "Alan Turing")]), queries: 0.into() }
    }

    fn name_of(&self, user: &str) -> Option<&'static str> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.rows.get(user).copied()
    }
}

/// The user's name, from the cache or from the database. A cache that is out of service costs queries, and nothing else.
async fn name(cache: &impl Cache, database: &Database, user: &str) -> Result<Option<String>, ClientError> {
    let key = format!("name:{user}");
    if let Some(cached) = cache.get(&key).await?.into_value() {
        return Ok(Some(String::from_utf8_lossy(&cached).into_owned()));
    }
    let Some(name) = database.name_of(user) else { return Ok(None) };
    let expiration = SetExpiration::After(Duration::from_secs(300));
    cache.set(&key, name, &SetOptions { expiration, ..Default::default() }).await?;
    Ok(Some(name.to_owned()))
}

/// Whether the user may make one more request this minute.
async fn is_allowed(cache: &impl Cache, user: &str) -> Result<bool, ClientError> {
    let options = CounterOptions { ttl: Duration::from_secs(60), ..Default::default() };
    Ok(cache.increment(format!("rate:{user}"), 1, &options).await?.value <= 5)
}

async fn serve(cache: impl Cache) -> Result<(), ClientError> {
    let database = Database::new();
    for request in 1..=7 {
        if is_allowed(&cache, "ada").await? {
            println!("request {request}: {:?}", name(&cache, &database, "ada").await?);
        } else {
            println!("request {request}: too many requests");
        }
    }
    println!("{} queries of the database", database.queries.load(Ordering::Relaxed));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        // Which cache it is, is said in one line.
        (Some("--nodes"), Some(url)) => serve(Client::builder([url.parse()?]).connect().await?).await?,
        _ => serve(LocalCache::builder().memory(64 << 20).build()).await?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use larder::client::faults::{CacheOperation, Fault, FaultRule, FaultyCache};
    use larder::clock::ManualClock;

    use super::*;

    fn queries(database: &Database) -> usize {
        database.queries.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_name_is_asked_for_once_in_five_minutes() -> Result<(), ClientError> {
        let (database, clock) = (Database::new(), ManualClock::new());
        let cache = LocalCache::builder().clock(clock.clone()).build();
        for expected in [1, 1, 2] {
            assert_eq!(name(&cache, &database, "ada").await?.as_deref(), Some("Ada Lovelace"));
            assert_eq!(queries(&database), expected);
            clock.advance(Duration::from_secs(150));
        }
        Ok(())
    }

    #[tokio::test]
    async fn the_sixth_request_of_a_minute_is_refused() -> Result<(), ClientError> {
        let clock = ManualClock::new();
        let cache = LocalCache::builder().clock(clock.clone()).build();
        for request in 1..=6 {
            assert_eq!(is_allowed(&cache, "ada").await?, request <= 5);
        }
        clock.advance(Duration::from_secs(60));
        assert!(is_allowed(&cache, "ada").await?);
        Ok(())
    }

    #[tokio::test]
    async fn while_the_cache_is_out_names_come_from_the_database() -> Result<(), ClientError> {
        let database = Database::new();
        let cache = FaultyCache::new(LocalCache::builder().build());
        cache.inject(FaultRule::new(Fault::NodeOut));
        for expected in [1, 2] {
            assert_eq!(name(&cache, &database, "ada").await?.as_deref(), Some("Ada Lovelace"));
            assert_eq!(queries(&database), expected);
        }
        cache.clear_faults();
        for _ in 0..2 {
            name(&cache, &database, "ada").await?;
        }
        assert_eq!(queries(&database), 3);
        Ok(())
    }

    #[tokio::test]
    async fn a_cache_that_is_slow_to_store_is_an_error_that_the_caller_sees() {
        let cache = FaultyCache::new(LocalCache::builder().build());
        let time_out = Fault::TimeOut { after: Duration::ZERO, was_done: false };
        cache.inject(FaultRule::new(time_out).on([CacheOperation::Set]).at_call(1));
        let first = name(&cache, &Database::new(), "ada").await;
        assert!(matches!(first, Err(ClientError::Timeout { .. })), "{first:?}");
        assert!(name(&cache, &Database::new(), "ada").await.is_ok(), "the second is stored");
    }
}
