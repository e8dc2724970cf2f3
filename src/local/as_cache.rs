//! The client's trait: the methods of `calls.rs` and `keyspace.rs` as futures that are ready when they are first polled.

use std::time::Duration;

use bytes::Bytes;

use super::LocalCache;
use crate::client::{
    Cache, ClientError, Counter, CounterOptions, DeleteOptions, Deletion, GetOutcome, InvalidateScope,
    Refusal, ScanOptions, ScanPage, SetOptions, SetOutcome,
};
use crate::entry::Durability;

impl Cache for LocalCache {
    async fn get(&self, key: impl AsRef<[u8]> + Send) -> Result<GetOutcome, ClientError> {
        self.look_up(key)
    }

    async fn metadata(&self, key: impl AsRef<[u8]> + Send) -> Result<GetOutcome, ClientError> {
        self.metadata(key)
    }

    async fn set(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl Into<Bytes> + Send,
        options: &SetOptions,
    ) -> Result<SetOutcome, ClientError> {
        self.set_with(key, value.into(), options)
    }

    async fn delete(
        &self,
        key: impl AsRef<[u8]> + Send,
        options: &DeleteOptions,
    ) -> Result<Deletion, ClientError> {
        self.delete_with(key, options)
    }

    async fn increment(
        &self,
        key: impl AsRef<[u8]> + Send,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<Counter, ClientError> {
        self.increment_with(key, delta, options)
    }

    async fn decrement(
        &self,
        key: impl AsRef<[u8]> + Send,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<Counter, ClientError> {
        self.decrement_with(key, delta, options)
    }

    async fn touch(&self, key: impl AsRef<[u8]> + Send, ttl: Duration) -> Result<bool, ClientError> {
        self.touch(key, ttl)
    }

    async fn batch_get(&self, keys: Vec<Bytes>) -> Result<Vec<Result<GetOutcome, Refusal>>, ClientError> {
        self.batch_get(&keys)
    }

    async fn batch_set(
        &self,
        items: Vec<(Bytes, Bytes)>,
        options: &SetOptions,
    ) -> Result<Vec<Result<SetOutcome, Refusal>>, ClientError> {
        self.batch_set(&items, options)
    }

    async fn batch_delete(
        &self,
        keys: Vec<Bytes>,
        durability: Option<Durability>,
    ) -> Result<Vec<Result<bool, Refusal>>, ClientError> {
        self.batch_delete(&keys, durability)
    }

    async fn scan(
        &self,
        prefix: impl Into<Bytes> + Send,
        options: ScanOptions,
    ) -> Result<ScanPage, ClientError> {
        self.scan(prefix.into(), &options)
    }

    async fn invalidate(&self, scope: InvalidateScope) -> Result<u64, ClientError> {
        self.invalidate(&scope)
    }
}
