//! Listings as streams: pages are asked for one after the other, each when the one before has been read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::blobs::ListBlobsOptions;
use super::calls::Client;
use super::error::ClientError;
use super::keyspace::ScanOptions;
use super::outcome::{BlobInfo, ScanItem};

/// What comes item by item. After an error nothing more comes; there is a page of it in memory at most.
#[must_use = "a stream does nothing until it is read"]
pub struct ItemStream<T>(Pin<Box<dyn Stream<Item = Result<T, ClientError>> + Send>>);

impl<T> ItemStream<T> {
    pub(super) fn new(items: impl Stream<Item = Result<T, ClientError>> + Send + 'static) -> Self {
        Self(Box::pin(items))
    }
}

impl<T> Stream for ItemStream<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl<T> fmt::Debug for ItemStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemStream").finish_non_exhaustive()
    }
}

impl Client {
    /// [`Client::scan`], page after page to the end: the entries whose keys begin with the prefix. Each page is a call with a
    /// deadline of its own. `options.page_token` is where it begins.
    pub fn scan_stream(&self, prefix: impl Into<Bytes>, options: ScanOptions) -> ItemStream<ScanItem> {
        let (client, prefix) = (self.clone(), prefix.into());
        pages(options.page_token.clone(), move |page_token| {
            let (client, prefix) = (client.clone(), prefix.clone());
            let options = ScanOptions { page_token, ..options.clone() };
            async move {
                let page = client.scan(prefix, options).await?;
                Ok((page.items, page.next_page_token))
            }
        })
    }

    /// [`Client::list_blobs`], page after page to the end, as [`Client::scan_stream`].
    pub fn list_blobs_stream(
        &self,
        prefix: impl Into<Bytes>,
        options: ListBlobsOptions,
    ) -> ItemStream<BlobInfo> {
        let (client, prefix) = (self.clone(), prefix.into());
        pages(options.page_token.clone(), move |page_token| {
            let (client, prefix) = (client.clone(), prefix.clone());
            let options = ListBlobsOptions { page_token, ..options.clone() };
            async move {
                let page = client.list_blobs(prefix, options).await?;
                Ok((page.blobs, page.next_page_token))
            }
        })
    }
}

/// The items of all pages, of which `ask` is given a token and answers the items and the next token.
fn pages<T: Send + 'static, F>(
    first: Bytes,
    mut ask: impl FnMut(Bytes) -> F + Send + 'static,
) -> ItemStream<T>
where
    F: Future<Output = Result<(Vec<T>, Bytes), ClientError>> + Send + 'static,
{
    let pages = stream::try_unfold(Some(first), move |token| {
        let page = token.map(&mut ask);
        async move {
            let Some(page) = page else { return Ok::<_, ClientError>(None) };
            let (items, next) = page.await?;
            let items = stream::iter(items.into_iter().map(Ok));
            Ok(Some((items, (!next.is_empty()).then_some(next))))
        }
    });
    ItemStream::new(pages.try_flatten())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn pages_are_asked_for_when_they_are_read_and_none_after_an_error() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let tokens = asked.clone();
        let mut items = pages(Bytes::from("0"), move |token: Bytes| {
            let nth = token[0] - b'0';
            tokens.lock().unwrap().push(nth);
            async move {
                match nth {
                    // A page may be empty with more to come.
                    1 => Ok((Vec::new(), Bytes::from("2"))),
                    3 => Err(ClientError::NoNode),
                    _ => Ok((vec![nth, nth], Bytes::from(vec![b'0' + nth + 1]))),
                }
            }
        });
        assert!(asked.lock().unwrap().is_empty(), "nothing is asked before it is read");
        let mut read = Vec::new();
        for _ in 0..2 {
            read.push(items.next().await.unwrap().unwrap());
        }
        assert_eq!((read.as_slice(), asked.lock().unwrap().as_slice()), (&[0, 0][..], &[0][..]));
        for _ in 0..2 {
            read.push(items.next().await.unwrap().unwrap());
        }
        assert_eq!(read, [0, 0, 2, 2]);
        assert!(matches!(items.next().await, Some(Err(ClientError::NoNode))));
        assert!(items.next().await.is_none());
        assert_eq!(asked.lock().unwrap().as_slice(), [0, 1, 2, 3]);
        let last = |_| async { Ok((vec![7], Bytes::new())) };
        assert_eq!(pages(Bytes::new(), last).try_collect::<Vec<_>>().await.unwrap(), [7]);
    }
}
