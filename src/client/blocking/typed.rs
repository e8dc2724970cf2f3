//! Values of an application's own types, and calls that are made of several.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Client;
use crate::client::value::ValueCodec;
use crate::client::{self, ClientError, LoadError, SetOptions, SetOutcome, Updated};

/// A client whose values are of one type: [`client::Typed`], waited for.
pub struct Typed<T> {
    typed: client::Typed<T>,
    /// After what stands on it.
    client: Client,
}

impl Client {
    /// As [`client::Client::typed`].
    #[must_use]
    pub fn typed<T>(&self, codec: ValueCodec) -> Typed<T> {
        Typed { typed: self.client.typed(codec), client: self.clone() }
    }

    /// [`client::Client::update`], and waits for what it comes to.
    ///
    /// # Errors
    /// As there, and see [`Client::block_on`].
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        options: &SetOptions,
        change: impl FnMut(Option<&Bytes>) -> Option<Bytes>,
    ) -> Result<Updated, ClientError> {
        self.wait(self.client.update(key, options, change))
    }

    /// [`client::Client::get_or_load`], whose `load` is called on this thread. Other threads that miss the key meanwhile wait for it.
    ///
    /// # Errors
    /// As there, and see [`Client::block_on`].
    pub fn get_or_load<V: Into<Bytes>, E>(
        &self,
        key: impl AsRef<[u8]>,
        options: &SetOptions,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<Bytes, LoadError<E>> {
        self.wait(self.client.get_or_load(key, options, async { load() }))
    }
}

impl<T: Serialize + DeserializeOwned> Typed<T> {
    /// As [`client::Typed::get`].
    ///
    /// # Errors
    /// As there, and see [`Client::block_on`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<T>, ClientError> {
        self.client.wait(self.typed.get(key))
    }

    /// As [`client::Typed::set`].
    ///
    /// # Errors
    /// As there, and see [`Client::block_on`].
    pub fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        options: &SetOptions,
    ) -> Result<SetOutcome, ClientError> {
        self.client.wait(self.typed.set(key, value, options))
    }

    /// As [`client::Typed::update`].
    ///
    /// # Errors
    /// As there, and see [`Client::block_on`].
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        options: &SetOptions,
        change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Updated<T>, ClientError> {
        self.client.wait(self.typed.update(key, options, change))
    }

    /// [`client::Typed::get_or_load`], whose `load` is called on this thread.
    ///
    /// # Errors
    /// As there, and see [`Client::block_on`].
    pub fn get_or_load<E>(
        &self,
        key: impl AsRef<[u8]>,
        options: &SetOptions,
        load: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, LoadError<E>> {
        self.client.wait(self.typed.get_or_load(key, options, async { load() }))
    }
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        Self { typed: self.typed.clone(), client: self.client.clone() }
    }
}

impl<T> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.typed.fmt(f)
    }
}
