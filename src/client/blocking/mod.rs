//! The client for programs without a runtime: the calls of [`client::Client`], each of which waits for
//! its answer.
//!
//! ```no_run
//! use larder::client::SetOptions;
//! use larder::client::blocking::Client;
//!
//! let client = Client::connect("tcp://127.0.0.1:7400")?;
//! client.set("colour", "green", &SetOptions::default())?;
//! println!("{:?}", client.get("colour")?.into_value());
//! # Ok::<(), larder::client::ClientError>(())
//! ```
//!
//! A client owns one thread, `larder-client`, with the connections and timers. Threads of the application share a client
//! or clones of it, and what they call at the same time goes out together, as of tasks. The last clone to go ends the thread.
//!
//! It is not for async code: in a task of a tokio runtime each call is [`ClientError::InTask`]. Nor does it outlive a fork: in
//! the child each call is [`ClientError::Forked`].

mod blobs;
mod thread;
mod typed;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::watch;

pub use self::blobs::{BlobReader, BlobWriter};
use self::thread::{RuntimeThread, Shared};
pub use self::typed::Typed;
use super::of_process::OfProcess;
use super::{
    BatchItem, BlobInfo, BlobOptions, BlobPage, BlobRange, ClientBuilder, ClientError, ClientMetrics,
    Counter, CounterOptions, DeleteOptions, Deletion, GetOutcome, InvalidateScope, ListBlobsOptions,
    NodeHealth, Refusal, ScanItem, ScanOptions, ScanPage, SetOptions, SetOutcome, StoredBlob, WatchMessage,
    WatchOptions,
};
use crate::client;
use crate::entry::Durability;

/// A client of the data plane whose calls wait. Cloning it is cheap and shares the connections and the thread.
#[derive(Debug, Clone)]
pub struct Client {
    client: client::Client,
    /// After the client, which is to be dropped first.
    shared: Arc<Shared>,
}

impl Client {
    /// A client of the node at this URL with the [defaults](ClientBuilder#defaults), once the node can be asked;
    /// [`ClientBuilder::connect_blocking`] takes others.
    ///
    /// # Errors
    /// See [`ClientBuilder::connect_blocking`].
    pub fn connect(url: &str) -> Result<Self, ClientError> {
        ClientBuilder::new([url.parse()?]).connect_blocking()
    }

    pub(super) fn build(builder: ClientBuilder) -> Result<Self, ClientError> {
        let thread = RuntimeThread::start()?;
        let client = {
            let _context = thread.runtime()?.enter();
            builder.build()?
        };
        Ok(Self { client: client.clone(), shared: Arc::new(Shared::new(client, thread)) })
    }

    pub(super) fn build_connected(builder: ClientBuilder) -> Result<Self, ClientError> {
        let client = Self::build(builder)?;
        client.wait(client.client.node().connected())?;
        Ok(client)
    }

    /// Makes calls of the async client and waits for what comes of them: several at once, or one that has no method here.
    ///
    /// ```no_run
    /// # fn run(client: larder::client::blocking::Client) -> Result<(), larder::client::ClientError> {
    /// use futures_util::future::try_join;
    ///
    /// let (a, b) = client.block_on(async |client| try_join(client.get("a"), client.get("b")).await)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the calls come to; [`ClientError::InTask`] in a task of a tokio runtime, [`ClientError::Forked`] in a fork of the
    /// process in which the client was built, and nothing is called then.
    pub fn block_on<T, E: From<ClientError>>(
        &self,
        calls: impl AsyncFnOnce(&client::Client) -> Result<T, E>,
    ) -> Result<T, E> {
        self.wait(async { calls(&self.client).await })
    }

    fn wait<T, E: From<ClientError>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.shared.thread.wait(call)
    }

    /// As [`client::Client::with_timeout`].
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { client: self.client.with_timeout(timeout), ..self.clone() }
    }

    /// As [`client::Client::with_namespace`].
    #[must_use]
    pub fn with_namespace(&self, namespace: &str) -> Self {
        Self { client: self.client.with_namespace(namespace), ..self.clone() }
    }

    /// As [`client::Client::with_traceparent`].
    #[must_use]
    pub fn with_traceparent(&self, traceparent: &str) -> Self {
        Self { client: self.client.with_traceparent(traceparent), ..self.clone() }
    }

    /// As [`client::Client::health`].
    #[must_use]
    pub fn health(&self) -> watch::Receiver<NodeHealth> {
        self.client.health()
    }

    /// As [`client::Client::metrics`].
    #[must_use]
    pub fn metrics(&self) -> ClientMetrics {
        self.client.metrics()
    }

    /// As [`client::Client::scan_stream`].
    pub fn scan_iter(&self, prefix: impl Into<Bytes>, options: ScanOptions) -> Items<ScanItem> {
        Items::new(self, self.client.scan_stream(prefix, options))
    }

    /// As [`client::Client::list_blobs_stream`].
    pub fn list_blobs_iter(&self, prefix: impl Into<Bytes>, options: ListBlobsOptions) -> Items<BlobInfo> {
        Items::new(self, self.client.list_blobs_stream(prefix, options))
    }

    /// [`client::Client::watch`], whose messages are the iterator's. Each is waited for however long that takes.
    ///
    /// # Errors
    /// As there, and see [`Client::block_on`].
    pub fn watch(&self, options: WatchOptions) -> Result<Items<WatchMessage>, ClientError> {
        let stream = self.wait(self.client.watch(options))?;
        let next =
            async |mut stream: client::WatchStream| Ok(stream.next().await?.map(|message| (message, stream)));
        Ok(Items::new(self, futures_util::stream::try_unfold(stream, next)))
    }
}

/// The calls that are the async client's, waited for.
macro_rules! calls {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $outcome:ty;)*) => {
        impl Client {$(
            #[doc = concat!("[`client::Client::", stringify!($name), "`], and waits for the answer.")]
            ///
            /// # Errors
            /// As there, and see [`Client::block_on`].
            pub fn $name(&self, $($argument: $type),*) -> Result<$outcome, ClientError> {
                self.wait(self.client.$name($($argument),*))
            }
        )*}
    };
}

calls! {
    fn get(key: impl AsRef<[u8]>) -> GetOutcome;
    fn metadata(key: impl AsRef<[u8]>) -> GetOutcome;
    fn set(key: impl AsRef<[u8]>, value: impl Into<Bytes>, options: &SetOptions) -> SetOutcome;
    fn delete(key: impl AsRef<[u8]>, options: &DeleteOptions) -> Deletion;
    fn increment(key: impl AsRef<[u8]>, delta: i64, options: &CounterOptions) -> Counter;
    fn decrement(key: impl AsRef<[u8]>, delta: i64, options: &CounterOptions) -> Counter;
    fn touch(key: impl AsRef<[u8]>, ttl: Duration) -> bool;
    fn batch_get(keys: Vec<Bytes>) -> Vec<Result<GetOutcome, Refusal>>;
    fn batch_set(items: Vec<(Bytes, Bytes)>, options: &SetOptions) -> Vec<Result<SetOutcome, Refusal>>;
    fn batch_set_items(items: Vec<BatchItem>, durability: Option<Durability>) -> Vec<Result<SetOutcome, Refusal>>;
    fn batch_delete(keys: Vec<Bytes>, durability: Option<Durability>) -> Vec<Result<bool, Refusal>>;
    fn scan(prefix: impl Into<Bytes>, options: ScanOptions) -> ScanPage;
    fn invalidate(scope: InvalidateScope) -> u64;
    fn put_blob_bytes(key: impl Into<Bytes>, options: &BlobOptions, content: impl Into<Bytes>) -> StoredBlob;
    fn delete_blob(key: impl Into<Bytes>) -> bool;
    fn list_blobs(prefix: impl Into<Bytes>, options: ListBlobsOptions) -> BlobPage;
}

impl Client {
    /// [`client::Client::blob_reader`]: what is read of it is waited for.
    ///
    /// # Errors
    /// As there, and see [`Client::block_on`].
    pub fn blob_reader(
        &self,
        key: impl Into<Bytes>,
        range: BlobRange,
    ) -> Result<Option<BlobReader>, ClientError> {
        let reader = self.wait(self.client.blob_reader(key, range))?;
        Ok(reader.map(|reader| BlobReader::new(self, reader)))
    }

    /// [`client::Client::blob_writer`]: what is written to it is waited for.
    pub fn blob_writer(&self, key: impl Into<Bytes>, options: &BlobOptions) -> BlobWriter {
        BlobWriter::new(self, self.client.blob_writer(key, options))
    }
}

/// What comes item by item, each waited for. After an error nothing more comes.
pub struct Items<T> {
    client: Client,
    stream: OfProcess<super::ItemStream<T>>,
}

impl<T> Items<T> {
    fn new(client: &Client, stream: impl Stream<Item = Result<T, ClientError>> + Send + 'static) -> Self {
        Self { client: client.clone(), stream: OfProcess::new(super::ItemStream::new(stream)) }
    }
}

impl<T> Iterator for Items<T> {
    type Item = Result<T, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next =
            |stream: &mut super::ItemStream<T>| self.client.wait(async { stream.next().await.transpose() });
        self.stream.get_mut().and_then(next).transpose()
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}
