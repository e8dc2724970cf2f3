//! Every key set before a run, and deleted after it: by the client library, which keeps to what the node takes at once.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::plan::Plan;
use crate::cli::exit::CliError;
use crate::cli::progress;
use crate::client::{Client, ClientError};

/// Keys and bytes of a batch, which keep connection and node busy without holding either up.
const BATCH_KEYS: usize = 1_000;
const BATCH_BYTES: usize = 256 << 10;
const BATCHES_IN_FLIGHT: usize = 4;

/// Sets every key of the plan once.
pub(super) fn set(plan: &Plan) -> Result<(), CliError> {
    let options = &plan.set_options();
    each_batch(plan, "prefill", plan.keys, 0..plan.keys, async |client, keys, random| {
        let item = |key: Bytes| (key, plan.value.slice(..value_bytes(plan, random)));
        let items = keys.into_iter().map(item).collect();
        let refused = client.batch_set(items, options).await?.into_iter().find_map(Result::err);
        refused.map_or(Ok(()), |refusal| Err(CliError::Refused(format!("prefill: {refusal}"))))
    })
}

/// Deletes the plan's keys of these numbers, `count` of them.
pub(super) fn delete(plan: &Plan, count: u64, numbers: impl Iterator<Item = u64>) -> Result<(), CliError> {
    each_batch(plan, "clean up", count, numbers, async |client, keys, _| {
        let refused = client.batch_delete(keys, None).await?.into_iter().find_map(Result::err);
        refused.map_or(Ok(()), |refusal| Err(ClientError::Status(Box::new(refusal)).into()))
    })
}

fn value_bytes(plan: &Plan, random: &mut SmallRng) -> usize {
    random.random_range(plan.value_bytes.min..=plan.value_bytes.max)
}

/// Calls with batches of the keys of these numbers, `count` of them, a few at a time.
fn each_batch(
    plan: &Plan,
    what: &'static str,
    count: u64,
    numbers: impl Iterator<Item = u64>,
    call: impl AsyncFn(&Client, Vec<Bytes>, &mut SmallRng) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let bar = progress::bar(what, count);
    let batch_keys = (BATCH_BYTES / plan.item_bytes_max()).clamp(1, BATCH_KEYS);
    let mut numbers = numbers.peekable();
    let done = crate::cli::block_on(async {
        let client = plan.builder.clone().build()?;
        let (client, call, bar) = (&client, &call, &bar);
        let batches = std::iter::from_fn(|| {
            let mut random = SmallRng::seed_from_u64(*numbers.peek()?);
            let keys: Vec<Bytes> = numbers.by_ref().take(batch_keys).map(|number| plan.key(number)).collect();
            Some(async move {
                let count = keys.len() as u64;
                call(client, keys, &mut random).await?;
                bar.inc(count);
                Ok::<_, CliError>(())
            })
        });
        let mut batches = stream::iter(batches).buffer_unordered(BATCHES_IN_FLIGHT);
        while let Some(done) = batches.next().await {
            done?;
        }
        Ok(())
    });
    bar.finish_and_clear();
    done
}
