//! The ring as a node tells of it: who is a member, and which of them owns a key.

use std::sync::{Arc, OnceLock};

use super::calls::Client;
use super::error::ClientError;
use super::pool::{Incoming, Pool};
use super::trace::Trace;
use crate::proto::v1;
use crate::ring::{Position, Ring, RingConfig, RingDigest, RingMember};
use crate::verb::Verb;

/// Who is a member of the cluster, and which keys each of them owns, as a node sees it.
#[derive(Debug)]
pub struct ClusterRing {
    /// Its place in the order of rings: of two the higher one is the newer. 0: there is no order, as of a node alone.
    pub epoch: u64,
    /// The members, by their ids.
    pub members: Vec<ClusterMember>,
    /// `min_ring_size` and `max_ring_size` of gRPC's ring_hash policy for the same ring, if it can have it.
    pub ring_hash_sizes: Option<(u32, u32)>,
    config: RingConfig,
    ring: OnceLock<Ring>,
}

/// A member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterMember {
    /// Its id.
    pub id: String,
    /// The URLs of its data listeners, the preferred one first.
    pub addresses: Vec<String>,
    /// Which life of it this is.
    pub incarnation: u64,
    /// Whether it serves.
    pub state: ClusterMemberState,
    /// How large its share is beside others'.
    pub weight: u32,
    /// Where it stands, as the operator wrote it.
    pub zone: String,
}

/// Whether a member serves, as the membership sees it. Who is well at this moment is for each client's own health checks to
/// say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClusterMemberState {
    /// It is expected to answer.
    Serving,
    /// It is on a planned restart, and its place is held.
    Restarting,
    /// It is known to be out of service.
    Down,
    /// What this library does not know.
    Other,
}

impl ClusterMemberState {
    /// Its name: `serving`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Restarting => "restarting",
            Self::Down => "down",
            Self::Other => "other",
        }
    }
}

impl std::fmt::Display for ClusterMemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ClusterRing {
    /// What decides owners, in short.
    #[must_use]
    pub fn digest(&self) -> &RingDigest {
        self.config.digest()
    }

    /// Points on the ring for each 1 of weight.
    #[must_use]
    pub fn points_per_weight(&self) -> u32 {
        self.config.points_per_weight()
    }

    /// The ring itself, which finds owners. It is made when it is first asked for, which takes some milliseconds for 40,000 points.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        self.ring.get_or_init(|| Ring::of(self.config.clone()))
    }

    /// The member that owns a key.
    #[must_use]
    pub fn owner(&self, namespace: &str, key: &[u8]) -> &ClusterMember {
        // Both are in the order of ids.
        &self.members[self.ring().owner_index(Position::of(namespace, key))]
    }
}

/// The ring of a node, each time that it is another one.
#[derive(Debug)]
pub struct RingStream {
    pool: Arc<Pool>,
    messages: Incoming<v1::WatchRingResponse>,
}

impl Client {
    /// The ring as the node sees it now. A node without a cluster has one of itself alone.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn ring(&self) -> Result<ClusterRing, ClientError> {
        let answer = self.call(v1::GetRingRequest {}).await?;
        read(answer).map_err(|problem| self.bad_answer(Verb::GetRing, &problem))
    }

    /// The ring as the node sees it now, and again each time that it changes.
    ///
    /// # Errors
    /// See [`Client::get`]; `RESOURCE_EXHAUSTED` where the node has as many watchers as it will hold.
    pub async fn watch_ring(&self) -> Result<RingStream, ClientError> {
        let timeout = self.timed_alone(Verb::WatchRing)?;
        let pool = self.node_of(None).clone();
        let trace = Trace::none(pool.url(), Verb::WatchRing);
        let messages = pool.open_within(v1::WatchRingRequest {}, timeout, &trace).await?;
        Ok(RingStream { pool, messages })
    }
}

impl RingStream {
    /// The next ring; the first one comes at once. `None`: the node has ended the stream, which it does with an error as a rule.
    ///
    /// # Errors
    /// [`ClientError`] where the stream broke, as it does when the node drains.
    pub async fn next(&mut self) -> Result<Option<ClusterRing>, ClientError> {
        let Some(message) = self.messages.next(None).await? else { return Ok(None) };
        let bad = |problem: String| self.pool.bad_answer(Verb::WatchRing.name(), problem);
        read(message.into()).map(Some).map_err(bad)
    }
}

/// Reads a ring, and sees that it is the one that the node has.
fn read(answer: v1::GetRingResponse) -> Result<ClusterRing, String> {
    let mut members: Vec<ClusterMember> = answer.members.into_iter().map(member).collect();
    members.sort_by(|one, other| one.id.cmp(&other.id));
    let placed = members.iter().map(|member| RingMember { id: member.id.clone(), weight: member.weight });
    let config = RingConfig::new(placed, answer.points_per_weight)
        .map_err(|error| format!("members that make no ring: {error}"))?;
    if config.digest().as_bytes()[..] != answer.digest[..] {
        return Err(format!(
            "a ring whose digest is {} here and another one there: its way of placing keys is not this library's; use the \
             same version of both",
            config.digest()
        ));
    }
    let sizes = (answer.ring_hash_min_size, answer.ring_hash_max_size);
    let ring_hash_sizes = (sizes != (0, 0)).then_some(sizes);
    Ok(ClusterRing { epoch: answer.epoch, members, ring_hash_sizes, config, ring: OnceLock::new() })
}

fn member(member: v1::Member) -> ClusterMember {
    let state = match member.state() {
        v1::MemberState::Serving => ClusterMemberState::Serving,
        v1::MemberState::Restarting => ClusterMemberState::Restarting,
        v1::MemberState::Down => ClusterMemberState::Down,
        v1::MemberState::Unspecified => ClusterMemberState::Other,
    };
    let v1::Member { node_id: id, addresses, incarnation, weight, zone, state: _ } = member;
    ClusterMember { id, addresses, incarnation, state, weight, zone }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ids: &[&str], digest_of: &[&str]) -> v1::GetRingResponse {
        let placed = digest_of.iter().map(|id| RingMember { id: (*id).to_owned(), weight: 2 });
        let digest = RingConfig::new(placed, 40).unwrap().digest().as_bytes().to_vec().into();
        let member =
            |id: &&str| v1::Member { node_id: (*id).to_owned(), weight: 2, state: 99, ..Default::default() };
        let members = ids.iter().map(member).collect();
        v1::GetRingResponse { epoch: 7, digest, points_per_weight: 40, members, ..Default::default() }
    }

    #[test]
    fn a_ring_is_read_in_the_order_of_ids_and_finds_owners() {
        let ring = read(answer(&["b", "a"], &["a", "b"])).unwrap();
        assert_eq!((ring.epoch, ring.ring_hash_sizes, ring.points_per_weight()), (7, None, 40));
        assert!(ring.members.iter().map(|member| &member.id).eq(["a", "b"]));
        assert_eq!(ring.members[0].state, ClusterMemberState::Other, "one that is newer than this library");
        for key in 0..100 {
            let (key, position) = (format!("{key}"), Position::of("n", format!("{key}").as_bytes()));
            assert_eq!(ring.owner("n", key.as_bytes()).id, ring.ring().owner(position).id);
        }
    }

    #[test]
    fn a_ring_that_this_library_would_place_otherwise_is_refused() {
        let said = |answer| read(answer).unwrap_err();
        assert!(said(answer(&["a"], &["b"])).contains("use the same version"));
        assert!(said(answer(&[], &["b"])).contains("no ring: a ring has one member"));
        assert!(
            said(v1::GetRingResponse { points_per_weight: 0, ..answer(&["a"], &["a"]) }).contains("no ring")
        );
    }
}
