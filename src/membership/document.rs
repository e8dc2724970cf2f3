//! The document: who is a member, in which order documents follow each other, and which rings there were before.
//!
//! It is JSON, so that an operator can read it where it lies:
//!
//! ```text
//!   { "format": 1,
//!     "epoch": 1764567890123,           its place in the order of documents: the time when it was written, in ms, or higher
//!     "ring_epoch": 1764567880000,      the first document that had this ring
//!     "points_per_weight": 4000,
//!     "members": [ { "id": "larder-0", "incarnation": "00c0ffee00c0ffee", "weight": 1, "zone": "a",
//!                    "addresses": ["tcp://10.0.0.1:7400"], "state": "SERVING" } ],
//!     "past": [ { "since": …, "until": …, "points_per_weight": 4000, "members": [ ["larder-0", "00c0…", 1] ] } ] }
//! ```
//!
//! Invariants, of every document that can be had: members are in the order of their ids, which are unique; no incarnation
//! is 0; their ring can be made; of `past` the newest comes first, and each ends before the next newer one begins.

use serde::{Deserialize, Serialize};

use crate::ring::{RingConfig, RingError, RingMember};

/// Who is a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its place in the order of documents; of two the higher one is the newer. 0: nothing was written yet.
    pub epoch: u64,
    /// The epoch of the first document that had the same ring, and so all between.
    pub ring_epoch: u64,
    /// Points on the ring for each 1 of weight.
    pub points_per_weight: u32,
    /// By their ids. None: the last one has left.
    pub members: Vec<Member>,
    /// The rings before this one, the newest first, up to [`PAST_MAX`].
    #[serde(default)]
    pub past: Vec<PastRing>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id, 1 B to 255 B, which decides its points on the ring.
    pub id: String,
    /// Which life of it this is. Never 0.
    #[serde(with = "hexadecimal")]
    pub incarnation: u64,
    /// How large its share is beside others', 1 to 1,000.
    pub weight: u32,
    /// Where it stands, as the operator wrote it, up to 255 B. It moves no key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The URLs of its data listeners, the preferred one first, up to 16.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether it serves.
    #[serde(flatten)]
    pub state: MemberState,
}

/// Whether a member serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MemberState {
    /// It is expected to answer.
    Serving,
    /// It restarts, and its place is held until then, in ms since 1970-01-01 UTC.
    Restarting {
        /// When it counts as absent, if it has not come back.
        until_unix_ms: u64,
    },
}

/// A ring that there was, over the documents in a row that had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastRing {
    /// The epoch of the first document that had it.
    pub since: u64,
    /// The epoch of the last one.
    pub until: u64,
    /// Points for each 1 of weight.
    pub points_per_weight: u32,
    /// Its members, by their ids.
    pub members: Vec<PastMember>,
}

/// A member of a ring that there was: id, incarnation, weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastMember(pub String, #[serde(with = "hexadecimal")] pub u64, pub u32);

/// One thing that a new document changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This member comes. An earlier incarnation of its id goes.
    Join(Member),
    /// This incarnation has other facts: weight, zone, addresses, state. It is no member any more: nothing.
    Update(Member),
    /// This incarnation goes. It is no member any more: nothing.
    Leave {
        /// Whose.
        id: String,
        /// Which.
        incarnation: u64,
    },
    /// Each 1 of weight has this number of points.
    Points(u32),
}

/// Bytes that are no document, or not one of this version's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadDocument {
    /// They are no JSON, or lack a field.
    #[error("it is no membership document: {0}")]
    Malformed(#[source] serde_json::Error),
    /// A later version of Larder has written it.
    #[error(
        "it is of format {format}, and this version reads {FORMAT}: upgrade this node before the others write it"
    )]
    LaterFormat {
        /// What it says.
        format: u32,
    },
    /// Its members make no ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// What it says cannot be so.
    #[error("{problem}")]
    Impossible {
        /// What.
        problem: String,
    },
}

/// The format that is written, and the latest that is read.
const FORMAT: u32 = 1;
/// The most rings that are remembered.
pub const PAST_MAX: usize = 16;
/// The most that they may take, as JSON in bytes: a ConfigMap has 1 MiB in all, and etcd takes 1.5 MiB in a request.
const PAST_BYTES_MAX: usize = 256 << 10;
/// The most that a member takes there beside its id, about.
const PAST_MEMBER_BYTES: usize = 80;
const ZONE_BYTES_MAX: usize = 255;
/// The most addresses of a member.
pub const ADDRESSES_MAX: usize = 16;

/// A document as it lies in a store.
#[derive(Serialize, Deserialize)]
struct Written<D> {
    format: u32,
    #[serde(flatten)]
    document: D,
}

impl Document {
    /// The document before the first, of no members.
    #[must_use]
    pub fn empty(points_per_weight: u32) -> Self {
        Self { epoch: 0, ring_epoch: 0, points_per_weight, members: Vec::new(), past: Vec::new() }
    }

    /// The document that has these changes, in their order, and a higher epoch than this one and than `known`, which is the
    /// highest that the writer has heard of; where that is another one, the rings between are not known, and are not
    /// remembered. `None`: they change nothing.
    ///
    /// # Errors
    /// [`BadDocument`]: what came of it would break what every document keeps to.
    pub fn changed(
        &self,
        changes: &[Change],
        known: u64,
        now_unix_ms: u64,
    ) -> Result<Option<Self>, BadDocument> {
        let mut next = self.clone();
        changes.iter().for_each(|change| next.apply(change));
        next.members.sort_by(|one, other| one.id.cmp(&other.id));
        if (&next.members, next.points_per_weight) == (&self.members, self.points_per_weight) {
            return Ok(None);
        }
        next.follow(self, known, now_unix_ms)?;
        Ok(Some(next))
    }

    /// The same members under a higher epoch: for a store that has lost this document, or was given back an older one.
    ///
    /// # Errors
    /// See [`Document::changed`].
    pub fn renewed(&self, known: u64, now_unix_ms: u64) -> Result<Self, BadDocument> {
        let mut next = self.clone();
        next.follow(self, known, now_unix_ms)?;
        Ok(next)
    }

    /// Gives it its place after another one.
    fn follow(&mut self, before: &Self, known: u64, now_unix_ms: u64) -> Result<(), BadDocument> {
        self.epoch = before.epoch.max(known).saturating_add(1).max(now_unix_ms);
        if self.epoch == u64::MAX {
            return Err(impossible("the order of documents has come to its end: there is no higher epoch"));
        }
        if before.epoch == 0 || known > before.epoch {
            // Which rings there were in documents that the writer has not seen is not known.
            self.ring_epoch = self.epoch;
            self.past.clear();
        } else if !self.has_ring_of(before) {
            self.ring_epoch = self.epoch;
            self.past.insert(0, before.as_past());
            self.trim_past();
        }
        self.check()
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Join(member) => {
                self.members.retain(|other| other.id != member.id);
                self.members.push(member.clone());
            }
            Change::Update(member) => {
                let is_it =
                    |other: &&mut Member| (&other.id, other.incarnation) == (&member.id, member.incarnation);
                if let Some(known) = self.members.iter_mut().find(is_it) {
                    known.clone_from(member);
                }
            }
            Change::Leave { id, incarnation } => {
                self.members.retain(|other| (&other.id, other.incarnation) != (id, *incarnation));
            }
            Change::Points(points) => self.points_per_weight = *points,
        }
    }

    /// The member of this id.
    #[must_use]
    pub fn member(&self, id: &str) -> Option<&Member> {
        let at = self.members.binary_search_by(|member| member.id.as_str().cmp(id)).ok()?;
        self.members.get(at)
    }

    /// The member that this incarnation of this id is. `None`: it is none, or another incarnation is.
    #[must_use]
    pub fn member_of(&self, id: &str, incarnation: u64) -> Option<&Member> {
        self.member(id).filter(|member| member.incarnation == incarnation)
    }

    /// What decides the ring of its members.
    ///
    /// # Errors
    /// [`RingError::NoMember`]: the last one has left.
    pub fn ring(&self) -> Result<RingConfig, RingError> {
        let members = self.members.iter().map(|member| (&member.id, member.weight));
        ring(members, self.points_per_weight)
    }

    /// The rings that there were after the document of this epoch, and before this document, the newest first. `None`: they
    /// are not remembered, or there was no such document.
    #[must_use]
    pub fn rings_since(&self, epoch: u64) -> Option<&[PastRing]> {
        if (self.ring_epoch..=self.epoch).contains(&epoch) {
            return Some(&[]);
        }
        let had = self.past.iter().position(|ring| (ring.since..=ring.until).contains(&epoch))?;
        Some(&self.past[..had])
    }

    /// Whether owners, and the incarnations that they are, are the same in both.
    fn has_ring_of(&self, other: &Self) -> bool {
        self.points_per_weight == other.points_per_weight && self.short().eq(other.short())
    }

    fn short(&self) -> impl Iterator<Item = PastMember> {
        self.members.iter().map(|member| PastMember(member.id.clone(), member.incarnation, member.weight))
    }

    fn as_past(&self) -> PastRing {
        PastRing {
            since: self.ring_epoch,
            until: self.epoch,
            points_per_weight: self.points_per_weight,
            members: self.short().collect(),
        }
    }

    /// Forgets the oldest rings that are too many, or for which there is no room.
    fn trim_past(&mut self) {
        let bytes = |ring: &PastRing| {
            ring.members.iter().map(|PastMember(id, ..)| id.len() + PAST_MEMBER_BYTES).sum::<usize>()
        };
        let mut all = 0;
        let kept = self.past.iter().take(PAST_MAX).take_while(|ring| {
            all += bytes(ring);
            all <= PAST_BYTES_MAX
        });
        self.past.truncate(kept.count());
    }

    /// The document as it lies in a store.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(&Written { format: FORMAT, document: self })
            .expect("numbers, texts and lists are JSON");
        json.push(b'\n');
        json
    }

    /// The document that lies in a store.
    ///
    /// # Errors
    /// [`BadDocument`], which says what it is instead.
    pub fn from_json(json: &[u8]) -> Result<Self, BadDocument> {
        #[derive(Deserialize)]
        struct Nothing {}
        let format = serde_json::from_slice::<Written<Nothing>>(json).map_err(BadDocument::Malformed)?.format;
        if format > FORMAT {
            return Err(BadDocument::LaterFormat { format });
        }
        let written: Written<Self> = serde_json::from_slice(json).map_err(BadDocument::Malformed)?;
        let mut document = written.document;
        document.members.sort_by(|one, other| one.id.cmp(&other.id));
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), BadDocument> {
        if self.epoch == 0 || !(1..=self.epoch).contains(&self.ring_epoch) {
            return Err(impossible(format!(
                "its epoch {} and the epoch {} of its ring are in no order",
                self.epoch, self.ring_epoch
            )));
        }
        for member in &self.members {
            member.check()?;
        }
        match self.ring() {
            Ok(_) | Err(RingError::NoMember) => {}
            Err(error) => return Err(error.into()),
        }
        let mut newer = self.ring_epoch;
        for ring in &self.past {
            if ring.since == 0 || ring.since > ring.until || ring.until >= newer {
                return Err(impossible(format!(
                    "a past ring of the epochs {} to {} does not come before epoch {newer}",
                    ring.since, ring.until
                )));
            }
            newer = ring.since;
        }
        Ok(())
    }
}

impl PastRing {
    /// What decided it.
    ///
    /// # Errors
    /// [`RingError`]: it had no member, or its record is damaged.
    pub fn ring(&self) -> Result<RingConfig, RingError> {
        ring(self.members.iter().map(|PastMember(id, _, weight)| (id, *weight)), self.points_per_weight)
    }
}

impl Member {
    fn check(&self) -> Result<(), BadDocument> {
        let Self { id, incarnation, zone, addresses, .. } = self;
        if *incarnation == 0 {
            return Err(impossible(format!("the member {id:?} has the incarnation 0, which is none")));
        }
        if zone.len() > ZONE_BYTES_MAX {
            let bytes = zone.len();
            return Err(impossible(format!(
                "the zone of {id:?} has {bytes} B, and {ZONE_BYTES_MAX} B at most"
            )));
        }
        if addresses.len() > ADDRESSES_MAX {
            let count = addresses.len();
            return Err(impossible(format!("{id:?} has {count} addresses, and {ADDRESSES_MAX} at most")));
        }
        for address in addresses {
            address
                .parse::<crate::endpoint::Endpoint>()
                .map_err(|bad| impossible(format!("the address {address:?} of {id:?} {bad}")))?;
        }
        Ok(())
    }
}

fn ring<'m>(
    members: impl Iterator<Item = (&'m String, u32)>,
    points_per_weight: u32,
) -> Result<RingConfig, RingError> {
    RingConfig::new(members.map(|(id, weight)| RingMember { id: id.clone(), weight }), points_per_weight)
}

fn impossible(problem: impl Into<String>) -> BadDocument {
    BadDocument::Impossible { problem: problem.into() }
}

/// A number of 64 bits as 16 hexadecimal digits: as a number of JSON many programs would round it.
pub(super) mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::membership) fn serialize<S: Serializer>(
        number: &u64,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:016x}"))
    }

    pub(in crate::membership) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u64, D::Error> {
        let digits = std::borrow::Cow::<str>::deserialize(deserializer)?;
        read(&digits).ok_or_else(|| D::Error::custom(format_args!("{digits:?} is not 16 hexadecimal digits")))
    }

    /// The number that is written so; `None`: none is.
    pub(in crate::membership) fn read(digits: &str) -> Option<u64> {
        let is_one = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| is_one)
    }
}

#[cfg(test)]
mod tests;
