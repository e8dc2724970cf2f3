//! The consistent-hash ring: which member owns a key.
//!
//! ```text
//!  id, weight ──▶ points: XXH64 of "{id}_0", "{id}_1", …       position ──▶ index ──▶ first point ≥ it ──▶ member
//!  namespace, key ──▶ XXH64 ──▶ 16 hexadecimal digits ──▶ XXH64 ──▶ position
//! ```
//!
//! A member has as many points as its weight says, and owns what lies between each of them and the point before it. A
//! member that comes or goes so moves its own share of the keys, and no others. Points and positions are those of
//! gRPC's ring_hash policy (gRFC A42), so that stock gRPC clients can land on the owner too.
//!
//! It is pure: it knows nothing of who is well, of epochs, or of how a member is reached. Whoever has the same members
//! has the same owners, which [`Ring::digest`] tells. tests/vectors/ring.json has rings with their keys' owners for
//! other languages.

mod digest;
mod index;
mod position;
mod stock;

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use hashring::HashRing;
use xxhash_rust::xxh64::xxh64;

pub use digest::RingDigest;
use index::Index;
pub use position::Position;

/// A member of a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingMember {
    /// Its id, 1 B to 255 B, which decides its points.
    pub id: String,
    /// How large its share is beside others', 1 to 1,000.
    pub weight: u32,
}

/// What decides a ring: its members and their points, before any point is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingConfig {
    /// By their ids.
    members: Box<[RingMember]>,
    points_per_weight: u32,
    digest: RingDigest,
}

/// Which member owns a key.
pub struct Ring {
    config: RingConfig,
    points: HashRing<VirtualNode, AsItIs>,
    index: Index,
}

/// Members that make no ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// There are none.
    #[error("a ring has one member at least, and there is none")]
    NoMember,
    /// There are more than it can count.
    #[error("{members} members are more than a ring has, {MEMBERS_MAX} at most")]
    TooManyMembers {
        /// How many there are.
        members: usize,
    },
    /// An id is empty or too long.
    #[error("{id:?} is no member's id: it has 1 B to {ID_BYTES_MAX} B")]
    BadId {
        /// The id.
        id: String,
    },
    /// Two have one id.
    #[error("two members have the id {id:?}: give each an id of its own (--node-id)")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// A weight is out of bounds.
    #[error("the weight {weight} of {id:?} is not 1 to {WEIGHT_MAX}")]
    BadWeight {
        /// Whose it is.
        id: String,
        /// The weight.
        weight: u32,
    },
    /// All together have too many points, or none.
    #[error(
        "{points} points in all (each member's weight × {points_per_weight}) are not 1 to {POINTS_MAX}: choose another \
         number of points for a weight (--ring-points)"
    )]
    BadPoints {
        /// How many they would have.
        points: u64,
        /// Points for each 1 of weight.
        points_per_weight: u32,
    },
}

/// The most members.
pub const MEMBERS_MAX: usize = 65_535;
/// The longest id, in bytes.
pub const ID_BYTES_MAX: usize = 255;
/// The largest weight.
pub const WEIGHT_MAX: u32 = 1_000;
/// The most points of all members together.
pub const POINTS_MAX: u64 = 1 << 24;
/// Points for each 1 of weight, where nothing else is said. Of ten equal members none then owns more than 1.05 times
/// its share, in 95 of 100 rings.
pub const POINTS_PER_WEIGHT: u32 = 4_000;

/// A point, which is its own hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct VirtualNode {
    point: u64,
    member: u16,
}

impl RingConfig {
    /// What decides the ring of these members, in whatever order they come.
    ///
    /// # Errors
    /// [`RingError`]: an id or a weight is out of its bounds, an id is there twice, or there are no members or too many
    /// points.
    pub fn new(
        members: impl IntoIterator<Item = RingMember>,
        points_per_weight: u32,
    ) -> Result<Self, RingError> {
        let mut members: Box<[RingMember]> = members.into_iter().collect();
        members.sort_by(|one, other| one.id.cmp(&other.id));
        check(&members, points_per_weight)?;
        let digest = RingDigest::new(&members, points_per_weight);
        Ok(Self { members, points_per_weight, digest })
    }

    /// All members, by their ids.
    #[must_use]
    pub fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// Points for each 1 of weight.
    #[must_use]
    pub fn points_per_weight(&self) -> u32 {
        self.points_per_weight
    }

    /// What decides owners, in short: rings with the same have the same owner for every key.
    #[must_use]
    pub fn digest(&self) -> &RingDigest {
        &self.digest
    }

    /// The `min_ring_size` and `max_ring_size` with which gRPC's ring_hash policy has the same ring; `None`: none have.
    /// It needs members of equal weight whose ids are IP:PORT, as its clients hash their addresses, and few enough
    /// points.
    #[must_use]
    pub fn stock_sizes(&self) -> Option<(u32, u32)> {
        let weight = self.members[0].weight;
        let are_alike =
            self.members.iter().all(|member| member.weight == weight && stock::is_address(&member.id));
        let points = self.points_per_weight.checked_mul(weight).filter(|_| are_alike)?;
        stock::sizes(self.members.len(), points)
    }
}

impl Ring {
    /// The ring of these members, in whatever order they come. Takes some milliseconds for 40,000 points.
    ///
    /// # Errors
    /// [`RingError`]: an id or a weight is out of its bounds, an id is there twice, or there are no members or too many
    /// points.
    pub fn new(
        members: impl IntoIterator<Item = RingMember>,
        points_per_weight: u32,
    ) -> Result<Self, RingError> {
        Ok(Self::of(RingConfig::new(members, points_per_weight)?))
    }

    /// The ring of this configuration. Takes some milliseconds for 40,000 points.
    #[must_use]
    pub fn of(config: RingConfig) -> Self {
        let mut points = HashRing::with_hasher(AsItIs::default());
        points.batch_add(virtual_nodes(&config));
        let index = Index::new(points.len(), |position| *first_at_or_after(&points, position));
        Self { config, points, index }
    }

    /// What decides it.
    #[must_use]
    pub fn config(&self) -> &RingConfig {
        &self.config
    }

    /// The member that owns what lies there: the one of the first point at or after it, or of the first of all.
    #[inline]
    #[must_use]
    pub fn owner(&self, position: Position) -> &RingMember {
        &self.members()[self.owner_index(position)]
    }

    /// Its place in [`Self::members`].
    #[inline]
    #[must_use]
    pub fn owner_index(&self, position: Position) -> usize {
        let owner = self.index.owner(position.0);
        usize::from(owner.unwrap_or_else(|| first_at_or_after(&self.points, position.0).member))
    }

    /// All members, by their ids.
    #[must_use]
    pub fn members(&self) -> &[RingMember] {
        &self.config.members
    }

    /// Points for each 1 of weight.
    #[must_use]
    pub fn points_per_weight(&self) -> u32 {
        self.config.points_per_weight
    }

    /// What decides owners, in short: rings with the same have the same owner for every key.
    #[must_use]
    pub fn digest(&self) -> &RingDigest {
        &self.config.digest
    }

    /// The share of all keys that each member owns, 0 to 1, in the members' order. Takes as long as making the ring.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        let nodes = virtual_nodes(&self.config);
        let mut owned = vec![0_u128; self.members().len()];
        let mut before = nodes.last().map_or(0, |last| last.point);
        for VirtualNode { point, member } in &nodes {
            // The first one's stretch goes over the end. A single point has all of it.
            let stretch = u128::from(point.wrapping_sub(before));
            owned[usize::from(*member)] += if nodes.len() == 1 { 1 << 64 } else { stretch };
            before = *point;
        }
        owned.into_iter().map(|owned| owned as f64 / 2_f64.powi(64)).collect()
    }
}

fn check(members: &[RingMember], points_per_weight: u32) -> Result<(), RingError> {
    match members.len() {
        0 => return Err(RingError::NoMember),
        1..=MEMBERS_MAX => {}
        members => return Err(RingError::TooManyMembers { members }),
    }
    for RingMember { id, weight } in members {
        if !(1..=ID_BYTES_MAX).contains(&id.len()) {
            return Err(RingError::BadId { id: id.clone() });
        }
        if !(1..=WEIGHT_MAX).contains(weight) {
            return Err(RingError::BadWeight { id: id.clone(), weight: *weight });
        }
    }
    if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(RingError::DuplicateId { id: pair[0].id.clone() });
    }
    let weights: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let points = weights * u64::from(points_per_weight);
    if (1..=POINTS_MAX).contains(&points) {
        Ok(())
    } else {
        Err(RingError::BadPoints { points, points_per_weight })
    }
}

/// The point that decides.
fn first_at_or_after(points: &HashRing<VirtualNode, AsItIs>, position: u64) -> &VirtualNode {
    points.get(&position).expect("a ring has a point")
}

/// All points, in their order. Of two members with one point the first by id has it.
fn virtual_nodes(config: &RingConfig) -> Vec<VirtualNode> {
    let mut name = Vec::new();
    let mut nodes = Vec::new();
    for (RingMember { id, weight }, member) in config.members.iter().zip(0..) {
        name.clear();
        name.extend_from_slice(id.as_bytes());
        name.push(b'_');
        let id_bytes = name.len();
        for number in 0..config.points_per_weight * weight {
            name.truncate(id_bytes);
            let _ = std::io::Write::write_fmt(&mut name, format_args!("{number}"));
            nodes.push(VirtualNode { point: xxh64(&name, 0), member });
        }
    }
    nodes.sort_by_key(|node| (node.point, node.member));
    nodes.dedup_by_key(|node| node.point);
    nodes
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ring = f.debug_struct("Ring");
        ring.field("config", &self.config).finish_non_exhaustive()
    }
}

impl Hash for VirtualNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.point);
    }
}

/// Hashes what is its own hash.
type AsItIs = BuildHasherDefault<Written>;

/// The hash that was written.
#[derive(Debug, Default)]
struct Written(u64);

impl Hasher for Written {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("points are written whole");
    }
}

#[cfg(test)]
mod tests;
