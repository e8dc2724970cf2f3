//! A Pipeline stream: many commands to a message, several messages on the way.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
#[cfg(feature = "cli")]
use {
    futures_util::Stream,
    tonic::{Status, Streaming},
};

use super::calls::{Client, CounterOptions, DeleteOptions, SetOptions};
use super::codec::{self, CommandHead, CommandKind, ReplyKind, Unreadable};
use super::convert;
use super::error::{ClientError, Refusal};
use super::outcome::{PipelineOutcome, PipelineReply};
use super::pool::{Incoming, Pool};
use crate::proto::google::rpc;
use crate::proto::v1;
use crate::verb::Verb;

/// A message of commands, written as they are added.
///
/// A command's id is the caller's name for it, which its reply carries; it is no other command's that is still outstanding
/// on the stream.
#[derive(Debug, Clone)]
pub struct Commands {
    namespace: Arc<str>,
    message: BytesMut,
    count: usize,
}

/// The writing half. Dropping it half-closes the stream: what is outstanding is still answered.
#[derive(Debug)]
pub struct PipelineSender {
    messages: mpsc::Sender<Bytes>,
}

/// The reading half.
#[derive(Debug)]
pub struct PipelineReceiver {
    client: Client,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The call is opened by the first read, because a node need not answer before there is something to
    /// answer.
    Opening(mpsc::Receiver<Bytes>),
    Open(Box<Incoming<Bytes>>),
    Ended,
}

impl Client {
    /// Opens a Pipeline stream on the next connection in turn. At most `messages_in_flight_max` messages wait
    /// here to be written; the receiver must be read for anything to move. A stream has no deadline: each
    /// wait for replies has the call's timeout instead.
    #[must_use]
    pub fn pipeline(&self, messages_in_flight_max: usize) -> (PipelineSender, PipelineReceiver) {
        let (messages, outgoing) = mpsc::channel(messages_in_flight_max.max(1));
        (
            PipelineSender { messages },
            PipelineReceiver { client: self.clone(), state: State::Opening(outgoing) },
        )
    }

    /// Opens a Pipeline stream for a caller that writes and reads its messages by the codec, and bounds each wait itself.
    #[cfg(feature = "cli")]
    pub(crate) async fn raw_pipeline(
        &self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        Ok(self.node_of(None).exchange(Verb::Pipeline, messages).await?.into_inner())
    }

    /// A message for a Pipeline, without commands yet. They name this client's namespace.
    #[must_use]
    pub fn commands(&self) -> Commands {
        Commands { namespace: self.shared_namespace(), message: BytesMut::new(), count: 0 }
    }
}

impl Commands {
    /// Adds a get, as [`Client::get`] in everything else.
    pub fn get(&mut self, id: u64, key: impl Into<Bytes>) {
        let request = v1::GetRequest { namespace: self.name(), key: key.into(), ..Default::default() };
        self.put(id, CommandKind::Get, &request);
    }

    /// Adds a set, as [`Client::set`] in everything else.
    pub fn set(&mut self, id: u64, key: impl Into<Bytes>, value: impl Into<Bytes>, options: &SetOptions) {
        let request = convert::set_request(&self.namespace, key.into(), value.into(), options);
        self.put(id, CommandKind::Set, &request);
    }

    /// Adds a delete, as [`Client::delete`] in everything else.
    pub fn delete(&mut self, id: u64, key: impl Into<Bytes>, options: &DeleteOptions) {
        let request = convert::delete_request(&self.namespace, key.into(), options);
        self.put(id, CommandKind::Delete, &request);
    }

    /// Adds an increment, as [`Client::increment`] in everything else.
    pub fn increment(&mut self, id: u64, key: impl Into<Bytes>, delta: i64, options: &CounterOptions) {
        let request = convert::increment_request(&self.namespace, key.into(), delta, options);
        self.put(id, CommandKind::Increment, &request);
    }

    /// Adds a decrement, as [`Client::decrement`] in everything else.
    pub fn decrement(&mut self, id: u64, key: impl Into<Bytes>, delta: i64, options: &CounterOptions) {
        let request = convert::decrement_request(&self.namespace, key.into(), delta, options);
        self.put(id, CommandKind::Decrement, &request);
    }

    /// Adds a touch, as [`Client::touch`] in everything else.
    pub fn touch(&mut self, id: u64, key: impl Into<Bytes>, ttl: Duration) {
        let ttl_ms = convert::wire_ms(ttl);
        let request = v1::TouchRequest { namespace: self.name(), key: key.into(), ttl_ms };
        self.put(id, CommandKind::Touch, &request);
    }

    /// Gives an earlier command up. This has no reply of its own: the command's is `CANCELLED`, unless it was done.
    pub fn cancel(&mut self, id: u64) {
        self.put(0, CommandKind::Cancel, &v1::CancelRequest { id });
    }

    /// How many commands there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no command yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How long the message is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.message.len()
    }

    fn name(&self) -> String {
        self.namespace.as_ref().to_owned()
    }

    fn put(&mut self, id: u64, kind: CommandKind, request: &impl Message) {
        let head = CommandHead { id, ..CommandHead::default() };
        codec::put_command_head(&mut self.message, head, kind, request.encoded_len());
        request.encode(&mut self.message).expect("a buffer that grows has room");
        self.count += 1;
    }
}

impl PipelineSender {
    /// Sends commands as one message, waiting while too many are under way. False: the stream has ended; the
    /// receiver knows why.
    pub async fn send(&self, commands: Commands) -> bool {
        self.messages.send(commands.message.freeze()).await.is_ok()
    }
}

impl PipelineReceiver {
    /// The next replies, in whatever grouping the node sent them. None: the stream has ended.
    ///
    /// # Errors
    /// [`ClientError`]: the stream broke, or nothing came within the client's timeout. Nothing more comes
    /// after it.
    pub async fn replies(&mut self) -> Result<Option<Vec<PipelineReply>>, ClientError> {
        let replies = match self.next().await {
            Ok(Some(message)) => read(&message, self.client.node_of(None)).map(Some),
            other => other.map(|_| None),
        };
        if !matches!(replies, Ok(Some(_))) {
            self.state = State::Ended;
        }
        replies
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let pool = self.client.node_of(None);
        let mut incoming = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Ok(None),
            State::Open(incoming) => incoming,
            State::Opening(outgoing) => {
                let call = pool.exchange(Verb::Pipeline, ReceiverStream::new(outgoing));
                Box::new(pool.incoming(Verb::Pipeline.name(), call).await?)
            }
        };
        let message = incoming.next(Some(pool.timeout())).await;
        self.state = State::Open(incoming);
        message
    }
}

/// All replies of a message.
fn read(message: &Bytes, pool: &Pool) -> Result<Vec<PipelineReply>, ClientError> {
    let mut replies = Vec::new();
    let each = |raw: codec::RawReply<'_>| {
        let result = match raw.kind {
            ReplyKind::Error => {
                let status = rpc::Status::decode(raw.result)?;
                Err(Refusal::of_item(pool.url().to_string(), status))
            }
            kind => Ok(outcome(kind, message.slice_ref(raw.result))?),
        };
        replies.push(PipelineReply {
            id: raw.id,
            owner: String::from_utf8(raw.owner.to_vec()).map_err(|_| Unreadable)?,
            result,
        });
        Ok(())
    };
    codec::replies(message, each)
        .map_err(|Unreadable| pool.bad_answer(Verb::Pipeline.name(), "replies that cannot be read"))?;
    Ok(replies)
}

/// What a reply's result says. The values in it share the message's memory.
fn outcome(kind: ReplyKind, result: Bytes) -> Result<PipelineOutcome, Unreadable> {
    Ok(match kind {
        ReplyKind::Get => {
            PipelineOutcome::Get(convert::get_outcome(Message::decode(result)?).ok_or(Unreadable)?)
        }
        ReplyKind::Set => {
            PipelineOutcome::Set(convert::set_outcome(Message::decode(result)?).ok_or(Unreadable)?)
        }
        ReplyKind::Delete => PipelineOutcome::Delete(convert::deletion(&Message::decode(result)?)),
        ReplyKind::Increment => PipelineOutcome::Count(convert::incremented(&Message::decode(result)?)),
        ReplyKind::Decrement => PipelineOutcome::Count(convert::decremented(&Message::decode(result)?)),
        ReplyKind::Touch => PipelineOutcome::Touch(v1::TouchResponse::decode(result)?.found),
        ReplyKind::Error => return Err(Unreadable),
    })
}
