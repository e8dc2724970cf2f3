//! A caller of the client library, as an application is one: it awaits each of its calls, and what callers ask for at the
//! same time the library sends together.

use std::rc::Rc;

use super::load::{Load, Operation};
use super::run::Worker;
use super::wire::Answer;
use crate::client::{Client, ClientError, SetOutcome};
use crate::clock::monotonic;

pub(super) async fn caller(worker: Rc<Worker>, client: Client, mut load: Load) {
    let options = worker.plan.set_options();
    while let Some((start, _)) = worker.next_call().await {
        let operation = load.operation();
        let (key, value) = load.entry(operation);
        let outcome = match operation {
            Operation::Get => client.get(&key).await.map(|outcome| match outcome.entry() {
                Some(_) => Answer::Hit,
                None => Answer::Miss,
            }),
            Operation::Set => client.set(&key, value, &options).await.map(|outcome| match outcome {
                SetOutcome::Stored(_) => Answer::Stored,
                SetOutcome::NotStored(_) => Answer::NotStored,
            }),
        };
        let end = monotonic();
        match outcome {
            Ok(answer) => {
                worker.answered(start, end, answer, 1);
                worker.call_done(start);
            }
            Err(error) => {
                let retry_after = match &error {
                    ClientError::Status(refusal) => refusal.retry_after,
                    _ => None,
                };
                let pause = worker.failed(start, end, error.code(), retry_after, 1, || error.to_string());
                if let Some(pause) = pause {
                    worker.hold_back(load.spread(pause)).await;
                }
            }
        }
    }
}
