//! The disk tier as a source.

use super::{Answer, LoadTarget, Source};
use crate::clock::Throttle;
use crate::engine::Refusal;
use crate::persistence::disk::{DiskReader, TierReadError};
use crate::persistence::tier::FetchError;

impl Source for DiskReader {
    fn load(&self, target: &LoadTarget) -> Answer {
        static LOST: Throttle = Throttle::new();
        static UNREADABLE: Throttle = Throttle::new();
        static SHORTAGE: Throttle = Throttle::new();
        let Some(reader) = self.tier_reader() else { return Answer::Absent };
        match reader.fetch((target.shard, target.walk_hash), target.logged, target.namespace, &target.key) {
            Ok(Some(found)) => Answer::Found(found),
            Ok(None) => Answer::Absent,
            Err(TierReadError::Stopped(_)) => Answer::Failed(Refusal::Poisoned),
            Err(TierReadError::Fetch(error @ FetchError::Damaged { .. })) => {
                LOST.say(|left_out| tracing::error!(%error, left_out, "an entry is lost"));
                Answer::Damaged
            }
            Err(error) if error.is_passing() => {
                SHORTAGE.say(|left_out| tracing::warn!(%error, left_out, "an entry cannot be read for now"));
                Answer::Failed(Refusal::Shortage)
            }
            Err(TierReadError::Fetch(error)) => {
                UNREADABLE.say(|left_out| tracing::error!(%error, left_out, "an entry cannot be read"));
                Answer::Failed(Refusal::Unreadable)
            }
        }
    }
}
