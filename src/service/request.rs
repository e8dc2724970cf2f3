//! A request of the data plane, decoded once into views of the bytes that it came in, whichever way it came: a unary call, or
//! a command of a Pipeline. What is asked of a request before it is done, and where it is done, is asked here: its
//! namespace, its keys, and what it is about.

use crate::proto::v1;
use crate::proto::wire::op;
use crate::request::CallError;
use crate::request::convert::{self, Direction};
use crate::request::view::{BatchView, DeleteView, GetView, IncrementView, SetView, TouchView};
use crate::telemetry::CallDescription;
use crate::verb::Verb;

/// What is more than this number of items, or of bytes, takes long.
pub(super) const ITEMS_AT_ONCE: usize = 128;
const BYTES_AT_ONCE: usize = 256 << 10;

/// A request of Cache that comes in one message.
#[derive(Debug)]
pub(super) enum Request<'a> {
    Get(GetView<'a>),
    Write(WriteRequest<'a>),
    Batch(BatchKind, BatchView<'a>),
    Scan(Box<v1::ScanRequest>),
    Invalidate(Box<v1::InvalidateRequest>),
}

/// A request that changes the entry of one key.
#[derive(Debug)]
pub(super) enum WriteRequest<'a> {
    Set(SetView<'a>),
    Delete(DeleteView<'a>),
    /// Increment and Decrement.
    Increment(IncrementView<'a>, Direction),
    Touch(TouchView<'a>),
}

/// What is done with each item of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchKind {
    Get,
    /// Its items are messages of Set, without a namespace of their own.
    Set,
    Delete,
}

impl<'a> Request<'a> {
    /// Reads a verb's message, and of a batch no more than `items_max` items and one; `None`: such a request is not of this
    /// kind.
    #[inline]
    pub(super) fn decode(verb: Verb, message: &'a [u8], items_max: usize) -> Result<Option<Self>, CallError> {
        Ok(Some(match verb {
            Verb::Get => Self::Get(GetView::read(message)?),
            Verb::Set => Self::Write(WriteRequest::Set(SetView::read(message)?)),
            Verb::Delete => Self::Write(WriteRequest::Delete(DeleteView::read(message)?)),
            Verb::Increment => {
                Self::Write(WriteRequest::Increment(IncrementView::read(message)?, Direction::Up))
            }
            Verb::Decrement => {
                Self::Write(WriteRequest::Increment(IncrementView::read(message)?, Direction::Down))
            }
            Verb::Touch => Self::Write(WriteRequest::Touch(TouchView::read(message)?)),
            Verb::BatchGet => Self::Batch(BatchKind::Get, BatchView::read_get(message, items_max)?),
            Verb::BatchSet => Self::Batch(BatchKind::Set, BatchView::read_write(message, items_max)?),
            Verb::BatchDelete => Self::Batch(BatchKind::Delete, BatchView::read_write(message, items_max)?),
            Verb::Scan => Self::Scan(Box::new(convert::decode(message)?)),
            Verb::Invalidate => Self::Invalidate(Box::new(convert::decode(message)?)),
            _ => return Ok(None),
        }))
    }

    /// Reads a command of a Pipeline: the number of its op's field, and that field's message. `None`: it is no request.
    #[inline]
    pub(super) fn of_command(number: u32, message: &'a [u8]) -> Result<Option<Self>, CallError> {
        verb_of(number).map_or(Ok(None), |verb| Self::decode(verb, message, 0))
    }

    /// The name of its namespace.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Get(view) => view.namespace,
            Self::Write(write) => write.namespace(),
            Self::Batch(_, view) => view.namespace,
            Self::Scan(request) => &request.namespace,
            Self::Invalidate(request) => &request.namespace,
        }
    }

    /// The batch that it is, if it is one.
    pub(super) fn batch(&self) -> Option<&BatchView<'a>> {
        match self {
            Self::Batch(_, view) => Some(view),
            Self::Get(_) | Self::Write(_) | Self::Scan(_) | Self::Invalidate(_) => None,
        }
    }

    /// Whether a request of a message this long takes long, so that it is done in turns with others.
    pub(super) fn is_long(&self, message_bytes: usize) -> bool {
        match self {
            Self::Scan(_) => true,
            others => others
                .batch()
                .is_some_and(|batch| message_bytes > BYTES_AT_ONCE || batch.items > ITEMS_AT_ONCE),
        }
    }

    /// The keys that it names, in their order; an item that cannot be read has an empty one.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (one, batch) = match self {
            Self::Get(view) => (Some(view.key), None),
            Self::Write(write) => (Some(write.key()), None),
            Self::Batch(_, view) => (None, Some(view.iter())),
            // What a prefix or a tag covers.
            Self::Scan(_) | Self::Invalidate(_) => (None, None),
        };
        let is_of_sets = matches!(self, Self::Batch(BatchKind::Set, _));
        let key = move |item| match is_of_sets {
            true => SetView::read(item).map_or(&[][..], |item| item.key),
            false => item,
        };
        one.into_iter().chain(batch.into_iter().flatten().map(key))
    }

    /// What the slow log says of the request: its first key, and the number of its keys.
    pub(super) fn describe(&self) -> CallDescription {
        // What a prefix covers is no number of keys.
        let (key, items) = match self {
            Self::Scan(request) => (Some(&*request.prefix), 0),
            Self::Invalidate(_) => (None, 0),
            others => (others.keys().next(), others.batch().map_or(1, |batch| batch.items)),
        };
        CallDescription::new(self.namespace(), key.unwrap_or_default(), items)
    }
}

impl<'a> WriteRequest<'a> {
    /// The name of its namespace.
    fn namespace(&self) -> &'a str {
        match self {
            Self::Set(view) => view.namespace,
            Self::Delete(view) => view.namespace,
            Self::Increment(view, _) => view.namespace,
            Self::Touch(view) => view.namespace,
        }
    }

    fn key(&self) -> &'a [u8] {
        match self {
            Self::Set(view) => view.key,
            Self::Delete(view) => view.key,
            Self::Increment(view, _) => view.key,
            Self::Touch(view) => view.key,
        }
    }
}

/// The Sets of a BatchSet, each in its namespace; an item that cannot be read is left out.
pub(super) fn sets_of<'a>(batch: &BatchView<'a>) -> impl Iterator<Item = SetView<'a>> + use<'a> {
    let namespace = batch.namespace;
    let items = batch.iter().filter_map(|item| SetView::read(item).ok());
    items.map(move |item| SetView { namespace, ..item })
}

/// The verb of a command, by the number of its op's field.
pub(super) fn verb_of(number: u32) -> Option<Verb> {
    Some(match number {
        op::GET => Verb::Get,
        op::SET => Verb::Set,
        op::DELETE => Verb::Delete,
        op::INCREMENT => Verb::Increment,
        op::DECREMENT => Verb::Decrement,
        op::TOUCH => Verb::Touch,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::Served;

    #[test]
    fn every_verb_that_the_table_serves_as_unary_is_a_request_and_no_other_is() {
        for verb in Verb::ALL {
            let is_request = Request::decode(verb, &[], 1).is_ok_and(|request| request.is_some());
            assert_eq!(is_request, verb.served() == Served::Unary, "{verb:?}");
        }
    }

    #[test]
    fn every_command_is_a_request_of_one_key() {
        let one = |number| Request::of_command(number, &[]).unwrap().map(|request| request.keys().count());
        for number in op::GET..=op::TOUCH {
            assert_eq!(one(number), Some(1), "{number}");
        }
        assert_eq!((one(op::GET - 1), one(op::CANCEL)), (None, None));
    }
}
