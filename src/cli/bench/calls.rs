//! A caller of Get and Set, or of BatchGet and BatchSet: one call in flight.

use std::rc::Rc;

use http::uri::PathAndQuery;
use tonic::Status;

use super::connection::Connection;
use super::load::{Load, Operation};
use super::plan::Mode;
use super::run::Worker;
use super::wire;
use crate::clock::monotonic;

const GET: PathAndQuery = PathAndQuery::from_static("/larder.v1.Cache/Get");
const SET: PathAndQuery = PathAndQuery::from_static("/larder.v1.Cache/Set");
const BATCH_GET: PathAndQuery = PathAndQuery::from_static("/larder.v1.Cache/BatchGet");
const BATCH_SET: PathAndQuery = PathAndQuery::from_static("/larder.v1.Cache/BatchSet");

pub(super) async fn caller(worker: Rc<Worker>, connection: Rc<Connection>, mut load: Load) {
    let is_batch = worker.plan.mode == Mode::Batch;
    let timeout = worker.plan.timeout;
    let (get, set) = if is_batch { (BATCH_GET, BATCH_SET) } else { (GET, SET) };
    let (Ok(get), Ok(set)) = (connection.method(get), connection.method(set)) else { return };
    while let Some((start, items)) = worker.next_call().await {
        let operation = load.operation();
        let message = if is_batch { load.batch(operation, items) } else { load.single(operation) };
        let method = match operation {
            Operation::Get => get.clone(),
            Operation::Set => set.clone(),
        };
        let call = connection.call(method, &message);
        let answer = tokio::time::timeout(timeout, call).await;
        let end = monotonic();
        let mut pause = None;
        let done = match answer {
            Ok(Ok(response)) => {
                let each = |answer: wire::Answer| {
                    pause = pause.max(answer.retry_after());
                    worker.answered(start, end, answer, 1);
                };
                wire::answers(&response, operation, is_batch, each)
                    .map_err(|wire::Unreadable| Status::internal("the answer cannot be read"))
            }
            Ok(Err(status)) => Err(status),
            Err(_elapsed) => Err(Status::deadline_exceeded("no answer came in time")),
        };
        match done {
            Ok(()) => worker.call_done(start),
            Err(status) => pause = worker.refused(start, end, &status, items as u64),
        }
        if let Some(pause) = pause {
            worker.hold_back(load.spread(pause)).await;
        }
    }
}
