//! Operations on many keys, and on a namespace as a whole.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::calls::{Wanted, hit, is_served};
use super::{LocalCache, refusal, refused};
use crate::client::{
    ClientError, GetOutcome, InvalidateScope, Refusal, ScanItem, ScanOptions, ScanPage, SetOptions,
    SetOutcome,
};
use crate::engine::{EntryView, NotRead, Op, Outcome, ScanRange};
use crate::entry::Durability;
use crate::proto::v1::invalidate_request::Scope;
use crate::request::CallError;
use crate::request::convert::{self, unexpected};
use crate::request::page::{PageToken, page_size};

/// Entries that a page looks at before it ends, be it empty: some milliseconds of work.
const ENTRIES_PER_PAGE: usize = 20_000;

/// The result of each item of a batch, in their order.
type Results<T> = Vec<Result<T, Refusal>>;

impl LocalCache {
    /// Looks many keys up. The results are in the keys' order; a key that is refused has its refusal for one.
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn batch_get(&self, keys: &[impl AsRef<[u8]>]) -> Result<Results<GetOutcome>, ClientError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let namespace = self.namespace_in_use().map_err(refused)?;
        let shared = &*self.shared;
        let mut results = Vec::with_capacity(keys.len());
        let (mut good, mut places) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for (at, key) in keys.iter().enumerate() {
            match self.key_of_batch(key.as_ref(), at) {
                Ok(key) => {
                    good.push(key);
                    places.push(at);
                    results.push(Ok(GetOutcome::Miss(crate::entry::MissReason::Unknown)));
                }
                Err(error) => results.push(Err(refusal(&error))),
            }
        }
        let found = |index: usize, read: Result<EntryView<'_>, NotRead>| {
            results[places[index]] = match read {
                Ok(entry) => Ok(GetOutcome::Hit(hit(&namespace, &entry, Wanted::Entry))),
                Err(NotRead::Miss(reason)) => Ok(GetOutcome::Miss(reason)),
                Err(NotRead::Refused(refused)) => Err(refusal(&CallError::refused(refused, 0))),
                Err(NotRead::NeedsLoad(never)) => match never {},
            };
            ControlFlow::Continue(())
        };
        let read = shared.engine.read_batch(&namespace, &good, shared.now(), found);
        debug_assert!(read.is_ok(), "nothing is fetched where there is no disk");
        Ok(results)
    }

    /// Stores many entries, each with its own result, in the items' order. Not atomic.
    ///
    /// # Errors
    /// There is no such namespace, or `FLUSHED` is asked for; what is wrong with one item is that item's result.
    pub fn batch_set(
        &self,
        items: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)],
        options: &SetOptions,
    ) -> Result<Results<SetOutcome>, ClientError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        self.namespace_in_use().map_err(refused)?;
        is_served(options.durability).map_err(refused)?;
        let mut results = Vec::with_capacity(items.len());
        for (key, value) in items {
            add(&mut results, self.store(key.as_ref(), value.as_ref(), options));
        }
        Ok(results)
    }

    /// Removes many keys; each result says whether there was an entry. Not atomic.
    ///
    /// # Errors
    /// There is no such namespace, or `FLUSHED` is asked for.
    pub fn batch_delete(
        &self,
        keys: &[impl AsRef<[u8]>],
        durability: Option<Durability>,
    ) -> Result<Results<bool>, ClientError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let namespace = self.namespace_in_use().map_err(refused)?;
        is_served(durability).map_err(refused)?;
        let shared = &*self.shared;
        let delete = |at: usize, key: &[u8]| {
            let key = self.key_of_batch(key, at)?;
            match shared.engine.apply(&namespace, &Op::Delete { key, if_version: None }, shared.now()) {
                Outcome::Deleted(deleted) => Ok(deleted),
                other => Err(unexpected(&other, 0)),
            }
        };
        let mut results = Vec::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            add(&mut results, delete(at, key.as_ref()));
        }
        Ok(results)
    }

    /// A page of the entries whose keys begin with the prefix. What is there throughout a scan, page after page, is returned
    /// exactly once; `next_page_token` is empty on the last page, and a page may have fewer entries than were asked for, even
    /// none.
    ///
    /// # Errors
    /// See [`Self::look_up`]; a token of another cache, namespace or prefix is `INVALID_ARGUMENT`.
    pub fn scan(&self, prefix: impl AsRef<[u8]>, options: &ScanOptions) -> Result<ScanPage, ClientError> {
        self.page(prefix.as_ref(), options).map_err(refused)
    }

    fn page(&self, prefix: &[u8], options: &ScanOptions) -> Result<ScanPage, CallError> {
        let shared = &*self.shared;
        let prefix = convert::prefix(prefix, &shared.limits)?;
        let namespace = self.namespace_in_use()?;
        let token = PageToken::of(shared.id, self.namespace(), prefix);
        let after = token.cursor(&options.page_token)?;
        let wanted = page_size(options.page_size, shared.limits.batch_items_max);
        let bytes_max = shared.limits.message_out_bytes_max;
        let value = if options.keys_only { Wanted::Metadata } else { Wanted::Entry };
        let (mut items, mut bytes) = (Vec::new(), 0);
        let range = ScanRange { prefix, after, entries_max: ENTRIES_PER_PAGE };
        let next = shared.engine.scan(&namespace, range, shared.now(), |key, entry| {
            let item = ScanItem { key: Bytes::copy_from_slice(key), entry: hit(&namespace, &entry, value) };
            // A page is as long as a node's, but of one entry at least.
            bytes += item.key.len() + item.entry.value.len();
            if items.len() == wanted || (bytes > bytes_max && !items.is_empty()) {
                return ControlFlow::Break(());
            }
            items.push(item);
            ControlFlow::Continue(())
        });
        let next_page_token = next.map(|cursor| token.at(cursor)).unwrap_or_default();
        Ok(ScanPage { items, next_page_token })
    }

    /// Drops what the scope covers, in constant time however much that is; answers the namespace's count of invalidations.
    ///
    /// # Errors
    /// [`ClientError::Status`] as a node answers: what is named is empty or too long, or too many earlier ones still wait to be
    /// taken out.
    pub fn invalidate(&self, scope: &InvalidateScope) -> Result<u64, ClientError> {
        self.drop_scope(scope).map_err(refused)
    }

    fn drop_scope(&self, scope: &InvalidateScope) -> Result<u64, CallError> {
        let shared = &*self.shared;
        let namespace = self.namespace_in_use()?;
        let asked = match scope {
            InvalidateScope::Prefix(prefix) => Scope::Prefix(prefix.clone()),
            InvalidateScope::Tag(tag) => Scope::Tag(tag.clone()),
            InvalidateScope::All => Scope::All(true),
        };
        let scope = convert::scope(Some(&asked), &shared.limits)?;
        let invalidated = shared.engine.invalidate(&namespace, scope, shared.now());
        let generation = invalidated.map_err(|refusal| CallError::refused(refusal, 0))?;
        if !shared.has_upkeep {
            shared.engine.sweep(usize::MAX);
        }
        Ok(generation)
    }

    /// A key of a batch, and its place there, which names it if it is refused.
    fn key_of_batch<'k>(&self, key: &'k [u8], at: usize) -> Result<&'k [u8], CallError> {
        convert::key(key, &self.shared.limits, || format!("keys[{at}]"))
    }
}

/// Adds the result of the next item.
fn add<T>(results: &mut Results<T>, result: Result<T, CallError>) {
    results.push(result.map_err(|error| refusal(&error)));
}
