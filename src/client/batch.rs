//! Calls of many items, cut to what the node takes.
//!
//! How many items and bytes a node takes at once is its own setting (`--max-batch`, `--max-message-in`,
//! `--max-message-out`), which may change while it serves and which its data listeners do not tell. So a batch begins as
//! long as the protocol's defaults allow. Where the node refuses it as too long, the limit that the refusal states is
//! kept for the batches after it (half of what was sent, where none is stated), and what was refused is sent again in
//! smaller parts: a batch that is refused as a whole has changed nothing. An item that the node refuses for itself, such
//! as a key that is too long, is taken out, has that refusal for its result, and the others go on.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use prost::Message;

use super::calls::{Client, SetOptions};
use super::convert::{self, wire_durability};
use super::error::{ClientError, Refusal};
use super::outcome::{GetOutcome, NotStored, SetOutcome};
use super::request::Request;
use crate::entry::{Durability, Limits, MissReason};
use crate::proto::v1;

/// What the fields around an item take in a message, at most.
const ITEM_FIELDS_BYTES: usize = 24;
/// What the fields around all items take, beside the namespace.
const MESSAGE_FIELDS_BYTES: usize = 32;

/// An entry that is stored together with others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchItem {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// What else there is to say of it.
    pub options: SetOptions,
}

/// What a node takes at once, as far as it has told.
#[derive(Debug)]
pub(super) struct BatchLimits {
    items: AtomicUsize,
    message_bytes: AtomicUsize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        let Limits { batch_items_max, message_in_bytes_max, .. } = Limits::default();
        Self { items: batch_items_max.into(), message_bytes: message_in_bytes_max.into() }
    }
}

/// The items of one call that have no result yet, in order.
struct Batch<'l, I, R> {
    items: Vec<I>,
    /// The places of those that are to be sent.
    left: Vec<usize>,
    results: Vec<Option<Result<R, Refusal>>>,
    limits: &'l BatchLimits,
    /// How many items' answers fit into one message, where more did not.
    answers_max: usize,
}

impl<'l, I: Clone, R> Batch<'l, I, R> {
    fn new(items: Vec<I>, limits: &'l BatchLimits) -> Self {
        let left = (0..items.len()).collect();
        let results = items.iter().map(|_| None).collect();
        Self { items, left, results, limits, answers_max: usize::MAX }
    }

    /// How many of the items that are left the next message carries, one at least, and how long it is at most.
    fn part(&self, base: usize, bytes_of: impl Fn(&I) -> usize) -> (usize, usize) {
        let items_max = self.limits.items.load(Ordering::Relaxed).min(self.answers_max).max(1);
        let bytes_max = self.limits.message_bytes.load(Ordering::Relaxed);
        let (mut count, mut bytes) = (0, base + MESSAGE_FIELDS_BYTES);
        for place in self.left.iter().take(items_max) {
            let more = bytes_of(&self.items[*place]) + ITEM_FIELDS_BYTES;
            if count > 0 && bytes + more > bytes_max {
                break;
            }
            (count, bytes) = (count + 1, bytes + more);
        }
        (count, bytes)
    }

    fn answered(&mut self, count: usize, results: Vec<Result<R, Refusal>>) {
        for (place, result) in self.left.drain(..count).zip(results) {
            self.results[place] = Some(result);
        }
    }

    /// Takes in that a message of `count` items and at most `bytes` bytes was refused. Break: for a reason that smaller
    /// parts do not mend.
    fn refused(&mut self, count: usize, bytes: usize, refusal: Refusal) -> ControlFlow<Refusal> {
        let smaller = |stated: Option<u64>, sent: usize| {
            let stated = stated.and_then(|limit| usize::try_from(limit).ok());
            stated.filter(|limit| *limit < sent).unwrap_or(sent / 2)
        };
        match (refusal.reason.as_str(), count) {
            ("BATCH_TOO_LONG", 2..) => {
                self.limits.items.store(smaller(refusal.limit, count).max(1), Ordering::Relaxed);
            }
            ("MESSAGE_TOO_LARGE", 2..) => {
                self.limits.message_bytes.store(smaller(refusal.limit, bytes), Ordering::Relaxed);
            }
            ("ANSWER_TOO_LARGE", 2..) => self.answers_max = count / 2,
            ("BATCH_TOO_LONG" | "MESSAGE_TOO_LARGE" | "ANSWER_TOO_LARGE", _) => self.set_aside(0, refusal),
            _ => match refusal.fields.first().and_then(|field| index(field)) {
                Some(at) if at < count => self.set_aside(at, refusal),
                _ => return ControlFlow::Break(refusal),
            },
        }
        ControlFlow::Continue(())
    }

    /// Gives the item at this place among those left its refusal for a result.
    fn set_aside(&mut self, at: usize, refusal: Refusal) {
        let place = self.left.remove(at);
        self.results[place] = Some(Err(refusal));
    }
}

/// The index in a field such as `keys[3]`.
fn index(field: &str) -> Option<usize> {
    let (_, rest) = field.split_once('[')?;
    rest.split_once(']')?.0.parse().ok()
}

/// The results of a batch whose items all came to the same.
pub(super) fn all_alike<R: Clone>(count: usize, outcome: R) -> Vec<Result<R, Refusal>> {
    vec![outcome; count].into_iter().map(Ok).collect()
}

impl Client {
    /// Looks many keys up. The results are in the keys' order; a key that the node refuses has its refusal for one.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn batch_get(&self, keys: Vec<Bytes>) -> Result<Vec<Result<GetOutcome, Refusal>>, ClientError> {
        #[cfg(feature = "near-cache")]
        if let Some(near) = self.near() {
            return near.look_up_many(self.namespace(), keys, |keys| self.ask_for_many(keys)).await;
        }
        self.ask_for_many(keys).await
    }

    async fn ask_for_many(&self, keys: Vec<Bytes>) -> Result<Vec<Result<GetOutcome, Refusal>>, ClientError> {
        let message = |keys| v1::BatchGetRequest { namespace: self.owned_namespace(), keys };
        let results = |response: v1::BatchGetResponse| {
            response.results.into_iter().filter_map(|result| convert::get_outcome(result).map(Ok)).collect()
        };
        let count = keys.len();
        let outcome = self.in_parts(keys, Bytes::len, message, results).await;
        self.or_nothing(outcome, || Some(all_alike(count, GetOutcome::Miss(MissReason::OwnerDown))))
    }

    /// Stores many entries with the same options, each with its own result, in the items' order. Not atomic.
    ///
    /// # Errors
    /// See [`Client::get`]; what is wrong with one item is that item's result.
    pub async fn batch_set(
        &self,
        items: Vec<(Bytes, Bytes)>,
        options: &SetOptions,
    ) -> Result<Vec<Result<SetOutcome, Refusal>>, ClientError> {
        let request = |(key, value)| convert::set_request("", key, value, options);
        self.set_in_parts(items.into_iter().map(request).collect(), options.durability).await
    }

    /// Stores many entries, each with its own options and its own result, in the items' order. Not atomic. `durability` is
    /// what the answer waits for; `None`: what the node's default says. That of an item is `None` or the same: another one
    /// is INVALID_ARGUMENT, for that item alone.
    ///
    /// # Errors
    /// See [`Client::get`]; what is wrong with one item is that item's result. Of a node that is out it is an error if any
    /// item has a condition.
    pub async fn batch_set_items(
        &self,
        items: Vec<BatchItem>,
        durability: Option<Durability>,
    ) -> Result<Vec<Result<SetOutcome, Refusal>>, ClientError> {
        let request = |BatchItem { key, value, options }| convert::set_request("", key, value, &options);
        self.set_in_parts(items.into_iter().map(request).collect(), durability).await
    }

    async fn set_in_parts(
        &self,
        items: Vec<v1::SetRequest>,
        durability: Option<Durability>,
    ) -> Result<Vec<Result<SetOutcome, Refusal>>, ClientError> {
        use v1::set_result::Result as Item;
        let _written = self.writes_many(items.iter().map(|item| &item.key));
        let durability = wire_durability(durability);
        let message = |items| v1::BatchSetRequest { namespace: self.owned_namespace(), items, durability };
        let url = self.node_of(None).url();
        let results = |response: v1::BatchSetResponse| {
            let results = response.results.into_iter().filter_map(|result| match result.result? {
                Item::Response(response) => convert::set_outcome(response).map(Ok),
                Item::Error(status) => Some(Err(Refusal::of_item(url.to_string(), status))),
            });
            results.collect()
        };
        let (count, is_plain) = (items.len(), items.iter().all(|item| item.condition.is_none()));
        let outcome = self.in_parts(items, Message::encoded_len, message, results).await;
        let nothing = SetOutcome::NotStored(NotStored::OwnerDown);
        self.or_nothing(outcome, || is_plain.then(|| all_alike(count, nothing)))
    }

    /// Removes many keys; each result says whether there was an entry. Not atomic. `durability` is what the answer
    /// waits for; `None`: what the node's default says. A key that the node refuses has its refusal for a result.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn batch_delete(
        &self,
        keys: Vec<Bytes>,
        durability: Option<Durability>,
    ) -> Result<Vec<Result<bool, Refusal>>, ClientError> {
        let _written = self.writes_many(keys.iter());
        let durability = wire_durability(durability);
        let message = |keys| v1::BatchDeleteRequest { namespace: self.owned_namespace(), keys, durability };
        let results = |response: v1::BatchDeleteResponse| response.deleted.into_iter().map(Ok).collect();
        self.in_parts(keys, Bytes::len, message, results).await
    }

    /// Sends items in as many messages as the node's limits ask for; `bytes_of` is an item's length in a message,
    /// without the fields around it, and `results` what an answer says of each. No items are no call.
    async fn in_parts<I: Clone, M: Request, R>(
        &self,
        items: Vec<I>,
        bytes_of: impl Fn(&I) -> usize,
        message: impl Fn(Vec<I>) -> M,
        results: impl Fn(M::Answer) -> Vec<Result<R, Refusal>>,
    ) -> Result<Vec<Result<R, Refusal>>, ClientError> {
        let mut batch = Batch::new(items, self.node_of(None).limits());
        while !batch.left.is_empty() {
            let (count, bytes) = batch.part(self.namespace().len(), &bytes_of);
            let part: Vec<I> = batch.left[..count].iter().map(|place| batch.items[*place].clone()).collect();
            match self.call(message(part)).await.map(&results) {
                Ok(results) if results.len() == count => batch.answered(count, results),
                Ok(results) => {
                    let problem = format!("{} results for {count} items", results.len());
                    return Err(self.bad_answer(M::VERB, &problem));
                }
                Err(ClientError::Status(refusal)) => {
                    if let ControlFlow::Break(refusal) = batch.refused(count, bytes, *refusal) {
                        return Err(ClientError::Status(Box::new(refusal)));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // Nothing is left, so each has its result.
        Ok(batch.results.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn refusal(reason: &str, limit: Option<u64>, field: Option<&str>) -> Refusal {
        let metadata: HashMap<String, String> =
            limit.map(|limit| ("limit".to_owned(), limit.to_string())).into_iter().collect();
        let mut details = ErrorDetails::with_error_info(reason, "larder.dev", metadata);
        if let Some(field) = field {
            details.add_bad_request_violation(field, "it is bad");
        }
        Refusal::new(String::new(), Status::with_error_details(Code::ResourceExhausted, "no", details))
    }

    /// What came of each item, or the reason that ended the batch.
    type Outcome = Result<Vec<Result<usize, String>>, String>;

    /// Runs a batch of items, each given by its size in bytes, against a node that refuses or answers each part. Gives
    /// the parts that were sent, and the outcome.
    fn run(
        items: Vec<usize>,
        limits: &BatchLimits,
        node: impl Fn(&[usize]) -> Option<Refusal>,
    ) -> (Vec<Vec<usize>>, Outcome) {
        let mut batch = Batch::new(items, limits);
        let mut sent = Vec::new();
        while !batch.left.is_empty() {
            let (count, bytes) = batch.part(0, |item| *item);
            let part: Vec<usize> = batch.left[..count].iter().map(|place| batch.items[*place]).collect();
            sent.push(part.clone());
            match node(&part) {
                None => batch.answered(count, part.into_iter().map(Ok).collect()),
                Some(refusal) => {
                    if let ControlFlow::Break(refusal) = batch.refused(count, bytes, refusal) {
                        return (sent, Err(refusal.reason));
                    }
                }
            }
        }
        let results = batch.results.into_iter().flatten().map(|result| result.map_err(|no| no.reason));
        (sent, Ok(results.collect()))
    }

    #[test]
    fn a_limit_on_items_is_kept_stated_or_found() {
        for (stated, tried) in [(Some(3), 1), (None, 2)] {
            let limits = BatchLimits::default();
            let node = |part: &[usize]| (part.len() > 3).then(|| refusal("BATCH_TOO_LONG", stated, None));
            let items: Vec<usize> = (0..10).collect();
            let (sent, results) = run(items.clone(), &limits, node);
            assert_eq!(results.unwrap(), items.iter().map(|item| Ok(*item)).collect::<Vec<_>>());
            assert_eq!(sent.iter().filter(|part| part.len() > 3).count(), tried);
            let (sent, _) = run(items, &limits, node);
            assert!(sent.iter().all(|part| part.len() <= 3), "the second batch knows: {sent:?}");
        }
    }

    #[test]
    fn a_limit_on_bytes_cuts_messages_and_refuses_what_no_message_carries() {
        for stated in [Some(1_000), None] {
            let limits = BatchLimits::default();
            let node = |part: &[usize]| {
                (part.iter().sum::<usize>() > 1_000).then(|| refusal("MESSAGE_TOO_LARGE", stated, None))
            };
            let (_, results) = run(vec![600, 600, 5_000, 10, 10], &limits, node);
            let too_large = Err("MESSAGE_TOO_LARGE".to_owned());
            assert_eq!(results.unwrap(), [Ok(600), Ok(600), too_large, Ok(10), Ok(10)], "{stated:?}");
        }
    }

    #[test]
    fn answers_that_do_not_fit_are_asked_for_in_smaller_parts() {
        let node = |part: &[usize]| {
            (part.iter().sum::<usize>() > 1_000).then(|| refusal("ANSWER_TOO_LARGE", Some(1_000), None))
        };
        let (_, results) = run(vec![400; 9], &BatchLimits::default(), node);
        assert_eq!(results.unwrap(), vec![Ok(400); 9]);
        let (_, results) = run(vec![400, 2_000], &BatchLimits::default(), node);
        assert_eq!(results.unwrap(), [Ok(400), Err("ANSWER_TOO_LARGE".to_owned())]);
    }

    #[test]
    fn a_bad_item_is_taken_out_and_another_refusal_ends_the_batch() {
        let bad = |part: &[usize]| {
            let at = part.iter().position(|item| *item == 0)?;
            Some(refusal("KEY_TOO_LONG", None, Some(&format!("keys[{at}]"))))
        };
        let (sent, results) = run(vec![1, 0, 2, 0], &BatchLimits::default(), bad);
        let bad = Err("KEY_TOO_LONG".to_owned());
        assert_eq!((sent.len(), results.unwrap()), (3, vec![Ok(1), bad.clone(), Ok(2), bad]));
        let (sent, results) =
            run(vec![1, 2], &BatchLimits::default(), |_| Some(refusal("OVERLOADED", None, None)));
        assert_eq!((sent.len(), results), (1, Err("OVERLOADED".to_owned())));
        // A field that names no item of this batch is no reason to go on for ever.
        let (_, results) =
            run(vec![1], &BatchLimits::default(), |_| Some(refusal("KEY_EMPTY", None, Some("keys[7]"))));
        assert_eq!(results, Err("KEY_EMPTY".to_owned()));
    }
}
