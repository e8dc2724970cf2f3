//! A Pipeline stream: commands in, replies out.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::time::Duration;

use bytes::Bytes;
use larder::proto::v1::pipeline_command::Op;
use larder::proto::v1::pipeline_reply::Result as Reply;
use larder::proto::v1::*;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::node::{Calls, found, soon};

pub(crate) fn command(id: u64, op: Op) -> PipelineCommand {
    PipelineCommand { id, op: Some(op), ..PipelineCommand::default() }
}

pub(crate) fn message(commands: impl IntoIterator<Item = PipelineCommand>) -> PipelineRequest {
    PipelineRequest { commands: commands.into_iter().collect(), ..PipelineRequest::default() }
}

/// The ops under ids from 0.
pub(crate) fn numbered(ops: impl IntoIterator<Item = Op>) -> PipelineRequest {
    message(ops.into_iter().zip(0..).map(|(op, id)| command(id, op)))
}

/// A stream with both its ends.
pub(crate) struct Stream {
    pub(crate) send: Option<mpsc::Sender<PipelineRequest>>,
    pub(crate) replies: Streaming<PipelineResponse>,
}

impl Stream {
    pub(crate) async fn open(calls: &mut Calls) -> Self {
        Self::open_within(calls, None).await
    }

    pub(crate) async fn open_within(calls: &mut Calls, timeout: Option<Duration>) -> Self {
        let (send, requests) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(requests));
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let replies = soon(calls.0.pipeline(request)).await.unwrap().into_inner();
        Self { send: Some(send), replies }
    }

    pub(crate) async fn send(&self, message: PipelineRequest) {
        soon(self.send.as_ref().unwrap().send(message)).await.unwrap();
    }

    pub(crate) fn half_close(&mut self) {
        self.send = None;
    }

    /// The next message's replies; `None`: the stream ended OK.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<PipelineReply>>, Status> {
        Ok(soon(self.replies.message()).await?.map(|message| message.replies))
    }

    /// The next `count` replies; panics if more come with them.
    pub(crate) async fn replies(&mut self, count: usize) -> Vec<PipelineReply> {
        let mut replies = Vec::new();
        while replies.len() < count {
            replies.extend(self.next().await.unwrap().expect("more replies"));
        }
        assert_eq!(replies.len(), count);
        replies
    }

    /// All that still comes, and how the stream ended.
    pub(crate) async fn rest(mut self) -> (Vec<PipelineReply>, Status) {
        self.half_close();
        let mut replies = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(more)) => replies.extend(more),
                Ok(None) => return (replies, Status::ok("")),
                Err(status) => return (replies, status),
            }
        }
    }

    /// Sends ops under ids from 0, and waits for their replies.
    pub(crate) async fn done(&mut self, ops: Vec<Op>) -> Vec<Reply> {
        let count = ops.len();
        self.send(numbered(ops)).await;
        let replies = self.replies(count).await;
        replies
            .into_iter()
            .enumerate()
            .map(|(at, reply)| {
                assert_eq!((reply.id, reply.owner.as_str()), (at as u64, ""));
                reply.result.unwrap()
            })
            .collect()
    }
}

#[track_caller]
pub(crate) fn value(reply: &Reply) -> Option<Bytes> {
    match reply {
        Reply::Get(response) => found(response.clone()).ok().map(|hit| hit.value),
        other => panic!("no reply to a get: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn error(reply: &Reply) -> Status {
    let Reply::Error(error) = reply else { panic!("no error: {reply:?}") };
    let details = error.encode_to_vec().into();
    Status::with_details(Code::from_i32(error.code), error.message.clone(), details)
}
