//! A Pipeline stream: many commands to a message, several messages on the way.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::calls::Client;
use super::error::ClientError;
use super::pool::Pool;
use crate::proto::v1;

/// The writing half. Dropping it half-closes the stream: what is outstanding is still answered.
#[derive(Debug)]
pub struct PipelineSender {
    messages: mpsc::Sender<v1::PipelineRequest>,
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
    Opening(mpsc::Receiver<v1::PipelineRequest>),
    Open(Box<Streaming<v1::PipelineResponse>>),
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
}

impl PipelineSender {
    /// Sends commands as one message, waiting while too many are under way. False: the stream has ended; the
    /// receiver knows why.
    pub async fn send(&self, commands: Vec<v1::PipelineCommand>) -> bool {
        self.messages.send(v1::PipelineRequest { ring_epoch: 0, commands }).await.is_ok()
    }
}

impl PipelineReceiver {
    /// The next replies, in whatever grouping the node sent them. None: the stream has ended.
    ///
    /// # Errors
    /// [`ClientError`]: the stream broke, or nothing came within the client's timeout. Nothing more comes
    /// after it.
    pub async fn replies(&mut self) -> Result<Option<Vec<v1::PipelineReply>>, ClientError> {
        let wait = self.client.pool().timeout();
        match self.next(wait).await {
            Ok(Some(response)) => Ok(Some(response.replies)),
            other => {
                self.state = State::Ended;
                other.map(|_| None)
            }
        }
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<v1::PipelineResponse>, ClientError> {
        const METHOD: &str = "Pipeline";
        let pool: &Pool = self.client.pool();
        let streaming = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Ok(None),
            State::Open(streaming) => streaming,
            State::Opening(outgoing) => {
                let mut cache = pool.cache();
                let call = cache.pipeline(Request::new(ReceiverStream::new(outgoing)));
                Box::new(pool.finish(METHOD, call).await?)
            }
        };
        self.state = State::Open(streaming);
        let State::Open(streaming) = &mut self.state else { return Ok(None) };
        match tokio::time::timeout(wait, streaming.message()).await {
            Ok(answer) => answer.map_err(|status| pool.error(METHOD, status)),
            Err(_elapsed) => Err(pool.timed_out(METHOD)),
        }
    }
}
