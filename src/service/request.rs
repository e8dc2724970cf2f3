//! A request of the data plane, decoded once into views of the bytes that it came in, whichever way it came: a unary call, or
//! a command of a Pipeline. What is asked of a request before it is done, and where it is done, is asked here: its
//! namespace, its keys, and what it is about.

use crate::proto::v1;
use crate::proto::wire::op;
use crate::service::codec::convert::{self, Direction};
use crate::service::codec::view::{BatchView, DeleteView, GetView, IncrementView, SetView, TouchView};
use crate::service::error::CallError;
use crate::telemetry::CallDescription;
use crate::verb::Verb;

/// What is more than this number of items, or of bytes, takes long.
pub(super) const ITEMS_AT_ONCE: usize = 128;
const BYTES_AT_ONCE: usize = 256 << 10;

/// A request of Cache that comes in one message.
#[derive(Debug)]
pub(super) enum Request<'a> {
    Get(GetView<'a>),
    Set(SetView<'a>),
    Delete(DeleteView<'a>),
    /// Increment and Decrement.
    Increment(IncrementView<'a>, Direction),
    Touch(TouchView<'a>),
    BatchGet(BatchView<'a>),
    /// Its items are messages of Set, without a namespace of their own.
    BatchSet(BatchView<'a>),
    BatchDelete(BatchView<'a>),
    Scan(Box<v1::ScanRequest>),
    Invalidate(Box<v1::InvalidateRequest>),
}

impl<'a> Request<'a> {
    /// Reads a verb's message, and of a batch no more than `items_max` items and one; `None`: such a request is not of this
    /// kind.
    #[inline]
    pub(super) fn decode(verb: Verb, message: &'a [u8], items_max: usize) -> Result<Option<Self>, CallError> {
        Ok(Some(match verb {
            Verb::Get => Self::Get(GetView::read(message)?),
            Verb::Set => Self::Set(SetView::read(message)?),
            Verb::Delete => Self::Delete(DeleteView::read(message)?),
            Verb::Increment => Self::Increment(IncrementView::read(message)?, Direction::Up),
            Verb::Decrement => Self::Increment(IncrementView::read(message)?, Direction::Down),
            Verb::Touch => Self::Touch(TouchView::read(message)?),
            Verb::BatchGet => Self::BatchGet(BatchView::read_get(message, items_max)?),
            Verb::BatchSet => Self::BatchSet(BatchView::read_write(message, items_max)?),
            Verb::BatchDelete => Self::BatchDelete(BatchView::read_write(message, items_max)?),
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
            Self::Set(view) => view.namespace,
            Self::Delete(view) => view.namespace,
            Self::Increment(view, _) => view.namespace,
            Self::Touch(view) => view.namespace,
            Self::BatchGet(view) | Self::BatchSet(view) | Self::BatchDelete(view) => view.namespace,
            Self::Scan(request) => &request.namespace,
            Self::Invalidate(request) => &request.namespace,
        }
    }

    /// The batch that it is, if it is one.
    pub(super) fn batch(&self) -> Option<&BatchView<'a>> {
        match self {
            Self::BatchGet(view) | Self::BatchSet(view) | Self::BatchDelete(view) => Some(view),
            _ => None,
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
            Self::Set(view) => (Some(view.key), None),
            Self::Delete(view) => (Some(view.key), None),
            Self::Increment(view, _) => (Some(view.key), None),
            Self::Touch(view) => (Some(view.key), None),
            Self::BatchGet(view) | Self::BatchDelete(view) | Self::BatchSet(view) => {
                (None, Some(view.iter()))
            }
            // What a prefix or a tag covers.
            Self::Scan(_) | Self::Invalidate(_) => (None, None),
        };
        let is_of_sets = matches!(self, Self::BatchSet(_));
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
