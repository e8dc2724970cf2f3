//! A caller of Get and Set, or of BatchGet and BatchSet: one call in flight.

use std::rc::Rc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::load::{Load, Operation};
use super::plan::Mode;
use super::run::Worker;
use super::wire::{self, Answer, RawCodec};
use crate::client::MESSAGE_BYTES_MAX;
use crate::clock::monotonic;

const GET: PathAndQuery = PathAndQuery::from_static("/larder.v1.Cache/Get");
const SET: PathAndQuery = PathAndQuery::from_static("/larder.v1.Cache/Set");
const BATCH_GET: PathAndQuery = PathAndQuery::from_static("/larder.v1.Cache/BatchGet");
const BATCH_SET: PathAndQuery = PathAndQuery::from_static("/larder.v1.Cache/BatchSet");
/// How long a caller waits after a call that reached nobody.
const BACK_OFF: Duration = Duration::from_millis(20);

pub(super) async fn caller(worker: Rc<Worker>, channel: Channel, mut load: Load) {
    let mut grpc = client(channel);
    let is_batch = worker.plan.mode == Mode::Batch;
    let timeout = worker.plan.timeout;
    while let Some((start, items)) = worker.next_call().await {
        let operation = load.operation();
        let (message, path) = match (is_batch, operation) {
            (false, Operation::Get) => (load.single(operation), GET),
            (false, Operation::Set) => (load.single(operation), SET),
            (true, Operation::Get) => (load.batch(operation, items), BATCH_GET),
            (true, Operation::Set) => (load.batch(operation, items), BATCH_SET),
        };
        let call = async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            grpc.unary(Request::new(message), path, RawCodec).await
        };
        let answer = tokio::time::timeout(timeout, call).await;
        let end = monotonic();
        let code = match answer {
            Ok(Ok(response)) => {
                let each = |answer| worker.answered(start, end, answer, 1);
                match wire::answers(response.get_ref(), operation, is_batch, each) {
                    Ok(()) => {
                        worker.call_done(start);
                        continue;
                    }
                    Err(wire::Malformed) => Code::Internal,
                }
            }
            Ok(Err(status)) => status.code(),
            Err(_elapsed) => Code::DeadlineExceeded,
        };
        worker.answered(start, end, Answer::Refused(code), items as u64);
        if code == Code::Unavailable {
            tokio::time::sleep(BACK_OFF).await;
        }
    }
}

pub(super) fn client(channel: Channel) -> Grpc<Channel> {
    Grpc::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
