//! Calls made of several: reading and writing in a loop, and loading what is missing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::backoff::random_share;
use super::calls::{Client, SetCondition, SetOptions};
use super::error::ClientError;
use super::outcome::{GetOutcome, Hit, NotStored, SetOutcome};
use crate::clock::monotonic;
use crate::entry::Version;

/// What an update came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Updated<T = Bytes> {
    /// The new value is stored, as this version.
    Stored {
        /// The value.
        value: T,
        /// Its version.
        version: Version,
    },
    /// The function wanted no change: this is what is there. `None`: nothing.
    Unchanged(Option<T>),
}

/// Why a value could be neither found nor loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The cache failed otherwise than by being out of service.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The caller's own load did.
    #[error("cannot load the value: {0}")]
    Load(E),
}

/// What a load found, as it is stored: bytes and content type.
pub(super) type LoadedValue = (Bytes, String);

/// Before an update that lost against another is tried again: a random time up to this, and twice as long each time.
const CONTENTION_FIRST: Duration = Duration::from_micros(500);
const CONTENTION_DOUBLINGS_MAX: u32 = 6;

impl Client {
    /// Reads an entry, lets `change` make its new value of the old one, and stores that, if nobody has written it meanwhile;
    /// otherwise all of it again, until the client's timeout has passed. `change` gets `None` where there is no entry; where it
    /// gives `None` nothing is stored. It may be called several times.
    ///
    /// `options.condition` is not heeded. An entry keeps its time to live if `options.expiration` is
    /// [`Keep`](super::SetExpiration::Keep).
    ///
    /// # Errors
    /// See [`Client::get`]; [`ClientError::Timeout`] where others were always faster, [`ClientError::Unavailable`] where the node is
    /// out, whatever [`OnUnavailable`](super::OnUnavailable) says: a change must not be lost in silence.
    pub async fn update(
        &self,
        key: impl AsRef<[u8]>,
        options: &SetOptions,
        mut change: impl FnMut(Option<&Bytes>) -> Option<Bytes>,
    ) -> Result<Updated, ClientError> {
        let outcome = self
            .update_entry(key.as_ref(), options, |old| {
                let new = change(old.map(|hit| &hit.value));
                let content_type: Arc<str> = options.content_type.as_str().into();
                Ok::<_, ClientError>(new.map(|new| (new.clone(), new, content_type)))
            })
            .await?;
        Ok(match outcome {
            EntryUpdate::Stored(value, version) => Updated::Stored { value, version },
            EntryUpdate::Unchanged(entry) => Updated::Unchanged(entry.map(|hit| hit.value)),
        })
    }

    /// [`Self::update`] of whole entries: `change` gives what to remember of a new value, its bytes and its content type.
    pub(super) async fn update_entry<T, E: From<ClientError>>(
        &self,
        key: &[u8],
        options: &SetOptions,
        mut change: impl FnMut(Option<&Hit>) -> Result<Option<(T, Bytes, Arc<str>)>, E>,
    ) -> Result<EntryUpdate<T>, E> {
        let (begun, strict, mut tried) = (monotonic(), self.strict(), 0_u32);
        loop {
            let left = self.timeout().saturating_sub(monotonic().saturating_duration_since(begun));
            if left.is_zero() && tried > 0 {
                let url = self.node_of(None).url().to_string();
                let (method, after) = ("update", self.timeout());
                return Err(ClientError::Timeout { url, method, after, phase: None }.into());
            }
            let client = strict.with_timeout(if tried == 0 { self.timeout() } else { left });
            // From the node: what a near cache has may be what is to be replaced.
            let old = match client.ask(key, false).await? {
                GetOutcome::Hit(hit) | GetOutcome::Stale(hit) => Some(hit),
                GetOutcome::Miss(_) => None,
            };
            let Some((kept, new, content_type)) = change(old.as_ref())? else {
                return Ok(EntryUpdate::Unchanged(old));
            };
            let condition = old.map_or(SetCondition::IfAbsent, |old| SetCondition::IfVersion(old.version));
            let content_type = content_type.to_string();
            let options = SetOptions { condition, content_type, ..options.clone() };
            match client.set(key, new, &options).await? {
                SetOutcome::Stored(version) => return Ok(EntryUpdate::Stored(kept, version)),
                SetOutcome::NotStored(NotStored::ConditionNotMet { .. }) => {}
                SetOutcome::NotStored(_) => return Ok(EntryUpdate::Unchanged(None)),
            }
            let most = CONTENTION_FIRST * (1 << tried.min(CONTENTION_DOUBLINGS_MAX));
            tokio::time::sleep(random_share(most)).await;
            tried += 1;
        }
    }

    /// An entry's value, or what `load` finds, which is then stored for others. However many callers of this client and its
    /// clones miss a key at once, one load is made, and the others have what it finds; if its caller goes away, the
    /// next one loads; if it fails, each does so for itself.
    ///
    /// A cache that is out, or does not answer in time, is one that has nothing: the value is loaded and not stored. What
    /// somebody else has stored meanwhile is left as it is.
    ///
    /// # Errors
    /// [`LoadError::Load`] with what `load` failed with; [`LoadError::Client`] where the cache refused the key.
    pub async fn get_or_load<V, E>(
        &self,
        key: impl AsRef<[u8]>,
        options: &SetOptions,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<Bytes, LoadError<E>>
    where
        V: Into<Bytes>,
    {
        let key = key.as_ref();
        if let Some(hit) = self.found(key).await? {
            return Ok(hit.value);
        }
        let load = async { load.await.map(|value| (value.into(), options.content_type.clone())) };
        let (value, _) = self.load(key, options, None, load).await.map_err(LoadError::Load)?;
        Ok(value)
    }

    /// The entry, if the cache has it and can say so.
    pub(super) async fn found(&self, key: &[u8]) -> Result<Option<Hit>, ClientError> {
        match self.get(key).await {
            Ok(GetOutcome::Hit(hit) | GetOutcome::Stale(hit)) => Ok(Some(hit)),
            Ok(GetOutcome::Miss(_)) => Ok(None),
            Err(error) if error.is_unavailable() || matches!(error, ClientError::Timeout { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Loads a value once for all callers that miss it, and stores it. `replaces`: an entry that is there, and of no use.
    pub(super) async fn load<E>(
        &self,
        key: &[u8],
        options: &SetOptions,
        replaces: Option<Version>,
        load: impl Future<Output = Result<LoadedValue, E>>,
    ) -> Result<LoadedValue, E> {
        let loaded = async {
            // Who missed it before another's load ended begins here after that one has stored it.
            if replaces.is_none()
                && let Ok(Some(hit)) = self.found(key).await
            {
                return Ok((hit.value, hit.content_type));
            }
            let (value, content_type) = load.await?;
            // A value that was written after the miss is newer than this one.
            let condition = replaces.map_or(SetCondition::IfAbsent, SetCondition::IfVersion);
            let options = SetOptions { condition, content_type: content_type.clone(), ..options.clone() };
            // That it could not be stored is no reason to withhold it.
            let _ = self.set(key, value.clone(), &options).await;
            Ok((value, content_type))
        };
        self.loads().join(self.namespace(), key, loaded).await
    }
}

/// What an update of an entry came to.
pub(super) enum EntryUpdate<T> {
    Stored(T, Version),
    Unchanged(Option<Hit>),
}
