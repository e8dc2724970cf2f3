//! What a lane does with its batch and its slots, without a connection.

use prost::Message;

use super::slots::Slot;
use super::*;
use crate::client::codec::Get;
use crate::clock::monotonic;

struct Stand {
    state: State,
    choice: Arc<Choice>,
}

impl Stand {
    fn new() -> Self {
        let choice = Arc::new(Choice::new(1));
        let mut state = State::new(choice.clone(), Standing::Open);
        state.commands_max = 3;
        Self { state, choice }
    }

    /// A call of this key that is written.
    fn write(&mut self, key: &str, deadline: Instant) -> u32 {
        self.choice.begin(0, None);
        let slot = Slot {
            deadline,
            waker: None,
            outcome: None,
            stage: Stage::Written(self.state.batch_number),
            hash: 0,
            is_abandoned: false,
        };
        let id = self.state.slots.take(slot);
        let get = Get { namespace: "", key: key.as_bytes(), metadata_only: false };
        self.state.write(CommandHead { id: id.into(), ..CommandHead::default() }, &get);
        self.state.next_deadline =
            self.state.next_deadline.map_or(Some(deadline), |next| Some(next.min(deadline)));
        id
    }

    /// The messages of the batch, as ids.
    fn sent(&mut self) -> Vec<Vec<u64>> {
        let batch = self.state.take_batch();
        let (mut messages, mut rest) = (Vec::new(), &batch[..]);
        while let Some((message, after)) = frame::split(rest) {
            let message = v1::PipelineRequest::decode(message).unwrap();
            messages.push(message.commands.iter().map(|command| command.id).collect());
            rest = after;
        }
        assert!(rest.is_empty());
        messages
    }

    fn outcome(&mut self, id: u32) -> Option<Result<Reply, Failure>> {
        self.state.slots.of_call(id).outcome.take()
    }
}

fn replies(ids: &[u64]) -> Bytes {
    let reply = |id: &u64| v1::PipelineReply {
        id: *id,
        result: Some(v1::pipeline_reply::Result::Get(v1::GetResponse::default())),
        ..v1::PipelineReply::default()
    };
    v1::PipelineResponse { replies: ids.iter().map(reply).collect() }.encode_to_vec().into()
}

#[test]
fn a_batch_is_cut_into_messages_that_the_node_takes() {
    let (mut stand, later) = (Stand::new(), monotonic() + Duration::from_secs(9));
    let ids: Vec<u32> = (0..7).map(|nth| stand.write(&nth.to_string(), later)).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(stand.sent(), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    stand.state.message_bytes_max = 1;
    stand.write("a", later);
    stand.write("b", later);
    assert_eq!(stand.sent(), [[7], [8]]);
    assert!(stand.sent().is_empty());
}

#[test]
fn what_nobody_wants_any_more_is_not_sent() {
    let (mut stand, now) = (Stand::new(), monotonic());
    let later = now + Duration::from_secs(9);
    let ids: Vec<u32> =
        (0..6).map(|nth| stand.write(&nth.to_string(), if nth == 5 { now } else { later })).collect();
    for id in &ids[..3] {
        stand.state.slots.of_call(*id).is_abandoned = true;
        stand.state.dead_in_batch += 1;
    }
    let mut woken = Vec::new();
    stand.state.expire(now, &mut woken);
    assert!(matches!(stand.outcome(5), Some(Err(Failure::Deadline(Phase::Queue)))));
    // That the outcome was taken is the caller's end of it.
    stand.state.slots.of_call(5).is_abandoned = true;
    assert_eq!(stand.sent(), [[3, 4]]);
    assert_eq!(stand.state.outstanding, 2);
    assert_eq!(stand.write("again", later), 5, "their slots are free");
}

#[test]
fn a_slot_is_taken_again_when_its_reply_has_come_and_its_caller_is_gone() {
    let (mut stand, later) = (Stand::new(), monotonic() + Duration::from_secs(9));
    for key in ["a", "b", "c"] {
        stand.write(key, later);
    }
    stand.sent();
    stand.state.slots.of_call(0).is_abandoned = true;
    stand.state.slots.free_if_over(0);
    assert_eq!(stand.write("d", later), 3, "a reply to 0 may still come");
    let (mut message, mut left, mut woken) = (replies(&[0, 1, 77, 2]), 2, Vec::new());
    stand.state.answer(&mut message, &mut left, &mut woken).unwrap();
    assert!(matches!(stand.outcome(1), Some(Ok(_))) && stand.outcome(2).is_none(), "two at a time");
    left = 9;
    stand.state.answer(&mut message, &mut left, &mut woken).unwrap();
    assert!(message.is_empty() && matches!(stand.outcome(2), Some(Ok(_))));
    assert_eq!(stand.write("e", later), 0);
    // One that nobody waits for, and one that is not sent yet, are nobody's.
    stand.state.answer(&mut replies(&[1, 1]), &mut left, &mut woken).unwrap();
    assert_eq!(stand.state.outstanding, 2);
}

#[test]
fn a_stream_that_breaks_fails_what_was_sent_and_keeps_the_rest() {
    let (mut stand, later) = (Stand::new(), monotonic() + Duration::from_secs(9));
    let sent = stand.write("a", later);
    stand.sent();
    let kept = stand.write("b", later);
    let (fault, mut woken) = (Arc::new(Fault::closed()), Vec::new());
    stand.state.broke(&fault, &mut woken);
    assert!(matches!(stand.outcome(sent), Some(Err(Failure::Broken(_)))));
    assert!(stand.outcome(kept).is_none());
    assert_eq!(stand.sent(), [[u64::from(kept)]]);
    let unsent = stand.write("c", later);
    stand.state.broke(&fault, &mut woken);
    stand.state.fail_unsent(&fault, &mut woken);
    assert!(matches!(stand.outcome(kept), Some(Err(Failure::Broken(_)))));
    assert!(matches!(stand.outcome(unsent), Some(Err(Failure::Out(_)))));
    assert_eq!((stand.state.outstanding, stand.sent().len()), (0, 0));
}

#[test]
fn room_is_given_first_come_first_served_and_kept_for_who_was_told() {
    let (mut stand, later) = (Stand::new(), monotonic() + Duration::from_secs(9));
    stand.state.batch.resize(BATCH_BYTES_MAX - 100, 0);
    let queued = |stand: &mut Stand, bytes| {
        stand.choice.begin(0, None);
        let slot = Slot {
            deadline: later,
            waker: None,
            outcome: None,
            stage: Stage::Queued(bytes),
            hash: 0,
            is_abandoned: false,
        };
        let id = stand.state.slots.take(slot);
        stand.state.queue.push_back(id);
        id
    };
    let (long, short) = (queued(&mut stand, 1_000), queued(&mut stand, 10));
    let mut woken = Vec::new();
    stand.state.grant(&mut woken);
    assert_eq!(stand.state.slots.of_call(short).stage, Stage::Queued(10), "it came second");
    stand.state.batch.clear();
    stand.state.grant(&mut woken);
    assert_eq!(stand.state.slots.of_call(long).stage, Stage::Granted(1_000));
    assert_eq!((stand.state.granted_bytes, stand.state.queue.len()), (1_010, 0));
    assert!(!stand.state.has_room(BATCH_BYTES_MAX - 1_000), "it is kept for them");
}
