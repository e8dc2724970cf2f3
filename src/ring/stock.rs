//! Rings that gRPC's ring_hash policy has as well, so that stock clients land on the owner.
//!
//! The policy is told how many points there are in all, and gives each member its share of them by adding up floating-point numbers (gRFC
//! A42, "Ring construction"). For some numbers of members and points a rounded sum gives one member a point more or fewer; so the sum
//! is made here as it is made there.

use std::net::SocketAddr;

/// The most points of a member.
const POINTS_OF_MEMBER_MAX: u32 = 400;
/// The most points that gRPC's clients make in all, unless they are told otherwise.
const POINTS_MAX: u32 = 4_096;

/// The `min_ring_size` and `max_ring_size` with which each of `members` equal members has `points` points; `None`: no sizes give
/// that.
pub(super) fn sizes(members: usize, points: u32) -> Option<(u32, u32)> {
    let members = u32::try_from(members).ok()?;
    let all = points.checked_mul(members).filter(|all| (1..=POINTS_MAX).contains(all))?;
    (points <= POINTS_OF_MEMBER_MAX && are_equal(members, points, (all, POINTS_MAX)))
        .then_some((all, POINTS_MAX))
}

/// Whether gRPC's clients make exactly this number of points of each member.
fn are_equal(members: u32, points: u32, (min, max): (u32, u32)) -> bool {
    let share = 1.0 / f64::from(members);
    let scale = ((share * f64::from(min)).ceil() / share).min(f64::from(max));
    let (mut made, mut target) = (0_u32, 0.0);
    (0..members).all(|_| {
        let before = made;
        target += scale * share;
        while f64::from(made) < target {
            made += 1;
        }
        made - before == points
    })
}

/// Whether an id is an address as gRPC's clients write it, which is what they hash.
pub(super) fn is_address(id: &str) -> bool {
    id.parse::<SocketAddr>().is_ok_and(|address| address.to_string() == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_given_where_the_sum_of_grpc_comes_to_equal_members_and_nowhere_else() {
        assert_eq!(sizes(3, 400), Some((1_200, 4_096)));
        assert_eq!(sizes(1, 400), Some((400, 4_096)));
        assert_eq!((sizes(3, 401), sizes(0, 5), sizes(3, 0), sizes(11, 400)), (None, None, None, None));
        let mut uneven = Vec::new();
        for members in 1..=POINTS_MAX {
            for points in 1..=(POINTS_MAX / members).min(POINTS_OF_MEMBER_MAX) {
                if sizes(members as usize, points).is_none() {
                    uneven.push((members, points));
                }
            }
        }
        // The numbers are those of 64-bit floating point everywhere.
        assert!(uneven.iter().all(|(members, _)| *members > 12), "{uneven:?}");
        assert_eq!(uneven.len(), 390);
    }

    #[test]
    fn an_address_is_one_as_it_is_connected_to() {
        assert!(["10.0.0.1:7070", "[::1]:7070"].into_iter().all(is_address));
        assert!(
            !["host:7070", "10.0.0.1", "[0:0::1]:7070", "010.0.0.1:7070", "10.0.0.1:07070"]
                .into_iter()
                .any(is_address)
        );
    }
}
