//! One trait for a cache on the network and for one in the application's own process.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::calls::{Client, CounterOptions, DeleteOptions, SetOptions};
use super::error::{ClientError, Refusal};
use super::keyspace::{InvalidateScope, ScanOptions};
use super::outcome::{Counter, Deletion, GetOutcome, ScanPage, SetOutcome};
use crate::entry::Durability;

/// The data operations that every cache has: a [`Client`] of a node, a `larder::local::LocalCache` in the process, and a
/// [`FaultyCache`](super::faults::FaultyCache) around either. Write the application against it, and which of them it has is one
/// line.
///
/// All come to the same outcomes and refuse with the same codes, reasons and limits; one suite of tests holds them to that
/// (`tests/suite/conformance.rs`). Each operation is what the method of the same name of [`Client`] says. A clone is cheap and
/// shares the cache.
///
/// The futures have no box and are dispatched statically, so that a lookup in the process costs no more for being behind
/// the trait. It can be no `dyn Cache` for that: take `impl Cache`, or a type parameter.
///
/// ```
/// use larder::client::{Cache, ClientError, CounterOptions};
///
/// /// Whether the user may make one more request.
/// async fn is_allowed(cache: &impl Cache, user: &str) -> Result<bool, ClientError> {
///     let counter = cache.increment(user, 1, &CounterOptions::default()).await?;
///     Ok(counter.value <= 5)
/// }
/// ```
pub trait Cache: Clone + Send + Sync + 'static {
    /// Looks a key up; see [`Client::get`].
    ///
    /// # Errors
    /// [`ClientError`], as every operation here.
    fn get(
        &self,
        key: impl AsRef<[u8]> + Send,
    ) -> impl Future<Output = Result<GetOutcome, ClientError>> + Send;

    /// Looks a key up without its value; see [`Client::metadata`].
    ///
    /// # Errors
    /// See [`Cache::get`].
    fn metadata(
        &self,
        key: impl AsRef<[u8]> + Send,
    ) -> impl Future<Output = Result<GetOutcome, ClientError>> + Send;

    /// Stores an entry; see [`Client::set`].
    ///
    /// # Errors
    /// See [`Cache::get`].
    fn set(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl Into<Bytes> + Send,
        options: &SetOptions,
    ) -> impl Future<Output = Result<SetOutcome, ClientError>> + Send;

    /// Removes an entry; see [`Client::delete`].
    ///
    /// # Errors
    /// See [`Cache::get`].
    fn delete(
        &self,
        key: impl AsRef<[u8]> + Send,
        options: &DeleteOptions,
    ) -> impl Future<Output = Result<Deletion, ClientError>> + Send;

    /// Adds to a counter; see [`Client::increment`].
    ///
    /// # Errors
    /// See [`Client::increment`].
    fn increment(
        &self,
        key: impl AsRef<[u8]> + Send,
        delta: i64,
        options: &CounterOptions,
    ) -> impl Future<Output = Result<Counter, ClientError>> + Send;

    /// Takes from a counter; see [`Client::decrement`].
    ///
    /// # Errors
    /// See [`Client::increment`].
    fn decrement(
        &self,
        key: impl AsRef<[u8]> + Send,
        delta: i64,
        options: &CounterOptions,
    ) -> impl Future<Output = Result<Counter, ClientError>> + Send;

    /// Gives an entry a new time to live; see [`Client::touch`].
    ///
    /// # Errors
    /// See [`Cache::get`].
    fn touch(
        &self,
        key: impl AsRef<[u8]> + Send,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, ClientError>> + Send;

    /// Looks many keys up; see [`Client::batch_get`].
    ///
    /// # Errors
    /// See [`Cache::get`].
    fn batch_get(
        &self,
        keys: Vec<Bytes>,
    ) -> impl Future<Output = Result<Vec<Result<GetOutcome, Refusal>>, ClientError>> + Send;

    /// Stores many entries; see [`Client::batch_set`].
    ///
    /// # Errors
    /// See [`Cache::get`].
    fn batch_set(
        &self,
        items: Vec<(Bytes, Bytes)>,
        options: &SetOptions,
    ) -> impl Future<Output = Result<Vec<Result<SetOutcome, Refusal>>, ClientError>> + Send;

    /// Removes many keys; see [`Client::batch_delete`].
    ///
    /// # Errors
    /// See [`Cache::get`].
    fn batch_delete(
        &self,
        keys: Vec<Bytes>,
        durability: Option<Durability>,
    ) -> impl Future<Output = Result<Vec<Result<bool, Refusal>>, ClientError>> + Send;

    /// A page of the entries whose keys begin with the prefix; see [`Client::scan`].
    ///
    /// # Errors
    /// See [`Client::scan`].
    fn scan(
        &self,
        prefix: impl Into<Bytes> + Send,
        options: ScanOptions,
    ) -> impl Future<Output = Result<ScanPage, ClientError>> + Send;

    /// Drops what the scope covers; see [`Client::invalidate`].
    ///
    /// # Errors
    /// See [`Cache::get`].
    fn invalidate(&self, scope: InvalidateScope) -> impl Future<Output = Result<u64, ClientError>> + Send;
}

impl Cache for Client {
    fn get(
        &self,
        key: impl AsRef<[u8]> + Send,
    ) -> impl Future<Output = Result<GetOutcome, ClientError>> + Send {
        Client::get(self, key)
    }

    fn metadata(
        &self,
        key: impl AsRef<[u8]> + Send,
    ) -> impl Future<Output = Result<GetOutcome, ClientError>> + Send {
        Client::metadata(self, key)
    }

    fn set(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl Into<Bytes> + Send,
        options: &SetOptions,
    ) -> impl Future<Output = Result<SetOutcome, ClientError>> + Send {
        Client::set(self, key, value, options)
    }

    fn delete(
        &self,
        key: impl AsRef<[u8]> + Send,
        options: &DeleteOptions,
    ) -> impl Future<Output = Result<Deletion, ClientError>> + Send {
        Client::delete(self, key, options)
    }

    fn increment(
        &self,
        key: impl AsRef<[u8]> + Send,
        delta: i64,
        options: &CounterOptions,
    ) -> impl Future<Output = Result<Counter, ClientError>> + Send {
        Client::increment(self, key, delta, options)
    }

    fn decrement(
        &self,
        key: impl AsRef<[u8]> + Send,
        delta: i64,
        options: &CounterOptions,
    ) -> impl Future<Output = Result<Counter, ClientError>> + Send {
        Client::decrement(self, key, delta, options)
    }

    fn touch(
        &self,
        key: impl AsRef<[u8]> + Send,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, ClientError>> + Send {
        Client::touch(self, key, ttl)
    }

    fn batch_get(
        &self,
        keys: Vec<Bytes>,
    ) -> impl Future<Output = Result<Vec<Result<GetOutcome, Refusal>>, ClientError>> + Send {
        Client::batch_get(self, keys)
    }

    fn batch_set(
        &self,
        items: Vec<(Bytes, Bytes)>,
        options: &SetOptions,
    ) -> impl Future<Output = Result<Vec<Result<SetOutcome, Refusal>>, ClientError>> + Send {
        Client::batch_set(self, items, options)
    }

    fn batch_delete(
        &self,
        keys: Vec<Bytes>,
        durability: Option<Durability>,
    ) -> impl Future<Output = Result<Vec<Result<bool, Refusal>>, ClientError>> + Send {
        Client::batch_delete(self, keys, durability)
    }

    fn scan(
        &self,
        prefix: impl Into<Bytes> + Send,
        options: ScanOptions,
    ) -> impl Future<Output = Result<ScanPage, ClientError>> + Send {
        Client::scan(self, prefix, options)
    }

    fn invalidate(&self, scope: InvalidateScope) -> impl Future<Output = Result<u64, ClientError>> + Send {
        Client::invalidate(self, scope)
    }
}
