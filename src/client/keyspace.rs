//! Calls that speak of a namespace as a whole: Scan and Invalidate.

use bytes::Bytes;

use super::calls::Client;
use super::convert;
use super::error::ClientError;
use super::outcome::ScanPage;
use crate::proto::v1;
use crate::verb::Verb;

/// What a Scan may say beside the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanOptions {
    /// Entries to a page, up to 10,000; 0 is 1,000.
    pub page_size: u32,
    /// `next_page_token` of the page before, with the same prefix; empty for the first page.
    pub page_token: Bytes,
    /// Leave the values out.
    pub keys_only: bool,
}

/// What an Invalidate drops.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidateScope {
    /// Entries whose keys begin with this, 1 B to 4 KiB.
    Prefix(Bytes),
    /// Entries that were set with this tag, 1 B to 255 B.
    Tag(String),
    /// All entries of the namespace.
    All,
}

impl Client {
    /// A page of the entries whose keys begin with the prefix. What is there throughout a scan, page after page, is
    /// returned exactly once while the node runs; `next_page_token` is empty on the last page, and a page may have
    /// fewer entries than were asked for, even none.
    ///
    /// # Errors
    /// See [`Client::get`]; a token of another node, namespace or prefix is INVALID_ARGUMENT.
    pub async fn scan(
        &self,
        prefix: impl Into<Bytes>,
        options: ScanOptions,
    ) -> Result<ScanPage, ClientError> {
        let message = v1::ScanRequest {
            namespace: self.owned_namespace(),
            prefix: prefix.into(),
            page_size: options.page_size,
            page_token: options.page_token,
            keys_only: options.keys_only,
        };
        let page = convert::scan_page(self.call(message).await?);
        page.ok_or_else(|| self.bad_answer(Verb::Scan, "an item without an entry"))
    }

    /// Drops what the scope covers, in constant time however much that is; answers the namespace's count of
    /// invalidations.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn invalidate(&self, scope: InvalidateScope) -> Result<u64, ClientError> {
        use v1::invalidate_request::Scope;
        #[cfg(feature = "near-cache")]
        let _dropping = self.near().map(|near| near.dropping(self.namespace(), &scope));
        let scope = match scope {
            InvalidateScope::Prefix(prefix) => Scope::Prefix(prefix),
            InvalidateScope::Tag(tag) => Scope::Tag(tag),
            InvalidateScope::All => Scope::All(true),
        };
        let message = v1::InvalidateRequest { namespace: self.owned_namespace(), scope: Some(scope) };
        Ok(self.call(message).await?.generation)
    }
}
