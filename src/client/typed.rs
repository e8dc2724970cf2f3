//! Typed values over a client: an application's own types go in and come out.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calls::{Client, SetOptions};
use super::error::ClientError;
use super::outcome::{GetOutcome, Hit, SetOutcome};
use super::update::{EntryUpdate, LoadError, Updated};
use super::value::{Decoded, ValueCodec};

/// A client whose values are of one type, written and read by a [`ValueCodec`]. Cheap to clone.
///
/// The codec's content type is set on writing and checked on reading: another media type is an error, another schema id a
/// miss.
///
/// ```no_run
/// # async fn run(client: larder::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use larder::client::value::ValueCodec;
/// use larder::client::SetOptions;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Order { id: u64, lines: Vec<String> }
///
/// let orders = client.typed::<Order>(ValueCodec::json());
/// orders.set("order:7", &Order { id: 7, lines: vec![] }, &SetOptions::default()).await?;
/// let order: Option<Order> = orders.get("order:7").await?;
/// # Ok(())
/// # }
/// ```
pub struct Typed<T> {
    client: Client,
    codec: ValueCodec,
    of: PhantomData<fn() -> T>,
}

impl Client {
    /// The same client for values of one type.
    #[must_use]
    pub fn typed<T>(&self, codec: ValueCodec) -> Typed<T> {
        Typed { client: self.clone(), codec, of: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> Typed<T> {
    /// The client that it stands on.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Looks a value up. `None`: there is none, or none that this type can be read from, as its schema id is another.
    ///
    /// # Errors
    /// See [`Client::get`]; [`ClientError::Value`] where what is stored is not of this type.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<T>, ClientError> {
        match self.client.get(key).await? {
            GetOutcome::Hit(hit) | GetOutcome::Stale(hit) => self.read(&hit),
            GetOutcome::Miss(_) => Ok(None),
        }
    }

    /// Stores a value. The codec's content type takes the place of the options'.
    ///
    /// # Errors
    /// See [`Client::set`]; [`ClientError::Value`] where the format cannot hold the value.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        options: &SetOptions,
    ) -> Result<SetOutcome, ClientError> {
        let (bytes, options) = self.write(value, options)?;
        self.client.set(key, bytes, &options).await
    }

    /// Changes a value, as [`Client::update`] in everything else. A value of another schema id counts as none, and is replaced.
    ///
    /// # Errors
    /// See [`Client::update`]; [`ClientError::Value`].
    pub async fn update(
        &self,
        key: impl AsRef<[u8]>,
        options: &SetOptions,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Updated<T>, ClientError> {
        let outcome = self.client.update_entry(key.as_ref(), options, |old| {
            let old = old.map(|hit| self.read(hit)).transpose()?.flatten();
            let Some(new) = change(old) else { return Ok(None) };
            let encoded = self.codec.encode(&new)?;
            Ok::<_, ClientError>(Some((new, encoded.bytes, encoded.content_type)))
        });
        Ok(match outcome.await? {
            EntryUpdate::Stored(value, version) => Updated::Stored { value, version },
            EntryUpdate::Unchanged(entry) => {
                Updated::Unchanged(entry.map(|hit| self.read(&hit)).transpose()?.flatten())
            }
        })
    }

    /// A value, or what `load` finds, as [`Client::get_or_load`] in everything else. A value of another schema id is loaded anew,
    /// and replaced.
    ///
    /// # Errors
    /// See [`Client::get_or_load`]; [`ClientError::Value`].
    pub async fn get_or_load<E>(
        &self,
        key: impl AsRef<[u8]>,
        options: &SetOptions,
        load: impl Future<Output = Result<T, E>>,
    ) -> Result<T, LoadError<E>> {
        let key = key.as_ref();
        let mut replaces = None;
        if let Some(hit) = self.client.found(key).await? {
            if let Some(value) = self.read(&hit)? {
                return Ok(value);
            }
            replaces = Some(hit.version);
        }
        let load = async {
            let value = load.await.map_err(LoadError::Load)?;
            let encoded = self.codec.encode(&value).map_err(ClientError::from)?;
            Ok::<_, LoadError<E>>((encoded.bytes, encoded.content_type.to_string()))
        };
        let (bytes, content_type) = self.client.load(key, options, replaces, load).await?;
        match self.codec.decode(&content_type, &bytes).map_err(ClientError::from)? {
            Decoded::Value(value) => Ok(value),
            Decoded::OtherSchema => {
                Err(self.client.bad_answer(crate::verb::Verb::Get, "a value of another schema").into())
            }
        }
    }

    fn read(&self, hit: &Hit) -> Result<Option<T>, ClientError> {
        Ok(match self.codec.decode(&hit.content_type, &hit.value)? {
            Decoded::Value(value) => Some(value),
            Decoded::OtherSchema => None,
        })
    }

    fn write(&self, value: &T, options: &SetOptions) -> Result<(Bytes, SetOptions), ClientError> {
        let encoded = self.codec.encode(value)?;
        let options = SetOptions { content_type: encoded.content_type.to_string(), ..options.clone() };
        Ok((encoded.bytes, options))
    }
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), codec: self.codec.clone(), of: PhantomData }
    }
}

impl<T> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("client", &self.client).field("codec", &self.codec).finish()
    }
}
