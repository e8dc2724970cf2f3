//! Whom to follow: what the shadows hit is weighed in two ways, of which either may call for a change.
//!
//! 1. The long run: of two candidates, how often did one hit where the other missed, older requests counting less
//!    (half after [`HALF_LIFE`] fillings of a shadow)? A lead counts if it is above its own standard deviation
//!    (McNemar's test for paired samples, 1947). It finds the small differences of steady loads.
//! 2. What it costs to stay: the work function of a metrical task system (Borodin, Linial, Saks, "An optimal
//!    on-line algorithm for metrical task system", JACM 1992). A candidate's work is its misses, but never more
//!    than the best one's plus what a change costs; the followed one is left when its work reaches that. So no
//!    past, however long, keeps a candidate in favour for longer than the price of two changes: it follows phases.
//!
//! Way 1 never calls for a candidate whose work is not below that of the followed one: what was best for long but
//! is not now must wait.

/// Candidates.
pub(super) const CANDIDATES: usize = 6;
/// Requests that are weighed together.
const BATCH: u32 = 16;
/// Fillings of a shadow after which a request counts half.
const HALF_LIFE: f32 = 50.0;
/// Fillings of a shadow before the long run says anything.
const LONG_RUN_MIN: f32 = 2.0;
/// A change costs this part of a shadow's filling in misses.
const CHANGE_COST: f32 = 0.7;
const CHANGE_COST_MIN: f32 = 50.0;
/// Half-lives are not shorter than those of a shadow of this number of entries.
const SHADOW_ENTRIES_MIN: f32 = 200.0;
/// A candidate of the long run must be ahead by this part of a change's cost at present, too.
const AHEAD_MIN: f32 = 0.05;

#[derive(Debug)]
pub(super) struct Judge {
    followed: usize,
    /// `[a][b]`: requests that a hit and b missed, decayed.
    wins: [[f32; CANDIDATES]; CANDIDATES],
    /// Misses above those of the best, at most a change's cost.
    work: [f32; CANDIDATES],
    /// Requests that were weighed, decayed.
    requests: f32,
    batch: u32,
    /// Lookups that were hits, decayed; of how many; and how many of these have come since the last decay.
    hits: [f32; CANDIDATES],
    lookups: f32,
    lookups_batch: u32,
}

impl Judge {
    pub(super) fn new(followed: usize) -> Self {
        Self {
            followed,
            wins: [[0.0; CANDIDATES]; CANDIDATES],
            work: [0.0; CANDIDATES],
            requests: 0.0,
            batch: 0,
            hits: [0.0; CANDIDATES],
            lookups: 0.0,
            lookups_batch: 0,
        }
    }

    pub(super) fn followed(&self) -> usize {
        self.followed
    }

    /// Hits by candidate, and of how many lookups; older ones count less.
    pub(super) fn seen(&self) -> ([f32; CANDIDATES], f32) {
        (self.hits, self.lookups)
    }

    /// Counts a lookup and the candidates that hit, as bits. It is for the figures alone and decides nothing.
    pub(super) fn count_lookup(&mut self, hits: u8, shadow_entries: usize) {
        self.lookups += 1.0;
        let hit = |candidate: &usize| hits >> candidate & 1 == 1;
        (0..CANDIDATES).filter(hit).for_each(|candidate| self.hits[candidate] += 1.0);
        self.lookups_batch += 1;
        if self.lookups_batch == BATCH {
            self.lookups_batch = 0;
            let keep = kept_of_batch(shadow_entries as f32);
            self.hits.iter_mut().for_each(|hits| *hits *= keep);
            self.lookups *= keep;
        }
    }

    /// A request and the candidates that hit, as bits. Says whom to follow from now on, where that changes.
    pub(super) fn weigh(&mut self, hits: u8, shadow_entries: usize) -> Option<usize> {
        self.requests += 1.0;
        let hit = |candidate: usize| hits >> candidate & 1 == 1;
        let all = (1 << CANDIDATES) - 1;
        if hits != 0 && hits != all {
            for winner in (0..CANDIDATES).filter(|candidate| hit(*candidate)) {
                for loser in (0..CANDIDATES).filter(|candidate| !hit(*candidate)) {
                    self.wins[winner][loser] += 1.0;
                }
            }
            for loser in (0..CANDIDATES).filter(|candidate| !hit(*candidate)) {
                self.work[loser] += 1.0;
            }
        }
        self.batch += 1;
        if self.batch < BATCH {
            return None;
        }
        self.batch = 0;
        self.decide(shadow_entries as f32)
    }

    fn decide(&mut self, shadow_entries: f32) -> Option<usize> {
        let change_cost = (CHANGE_COST * shadow_entries).max(CHANGE_COST_MIN);
        let keep = kept_of_batch(shadow_entries);
        self.wins.as_flattened_mut().iter_mut().for_each(|wins| *wins *= keep);
        self.requests *= keep;
        let least = self.work.iter().copied().fold(f32::INFINITY, f32::min);
        self.work.iter_mut().for_each(|work| *work = (*work - least).min(change_cost));

        let before = self.followed;
        if self.work[before] >= change_cost {
            self.followed = self.work.iter().position(|work| *work <= 0.0).unwrap_or(before);
        }
        if self.requests > LONG_RUN_MIN * shadow_entries {
            self.followed = self.long_run(change_cost);
        }
        (self.followed != before).then_some(self.followed)
    }

    /// The candidate with the largest lead that counts, or the followed one.
    fn long_run(&self, change_cost: f32) -> usize {
        let followed = self.followed;
        let mut best = (0.0, followed);
        for candidate in 0..CANDIDATES {
            let (won, lost) = (self.wins[candidate][followed], self.wins[followed][candidate]);
            let is_ahead = self.work[candidate] + AHEAD_MIN * change_cost <= self.work[followed];
            if is_ahead && won - lost > (won + lost).sqrt().max(best.0) {
                best = (won - lost, candidate);
            }
        }
        best.1
    }
}

/// What part counts still of all that was weighed before a batch.
fn kept_of_batch(shadow_entries: f32) -> f32 {
    let half_life = HALF_LIFE * shadow_entries.max(SHADOW_ENTRIES_MIN);
    (-(BATCH as f32) / half_life).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: usize = 400;

    fn requests(judge: &mut Judge, count: usize, hits: impl Fn(usize) -> u8) -> Vec<usize> {
        (0..count).filter_map(|n| judge.weigh(hits(n), ENTRIES)).collect()
    }

    #[test]
    fn a_phase_is_followed_however_long_the_one_before_was() {
        for before in [20_000, 2_000_000] {
            let mut judge = Judge::new(0);
            assert_eq!(requests(&mut judge, before, |n| if n % 2 == 0 { 0b01_0000 } else { 0 }), [4]);
            // Twice a change's cost at one miss in two requests, and a batch.
            let after = requests(&mut judge, 3 * ENTRIES, |n| if n % 2 == 0 { 0b00_0100 } else { 0 });
            assert_eq!(after, [2], "after {before}");
        }
    }

    #[test]
    fn a_small_but_steady_lead_is_found() {
        let mut judge = Judge::new(1);
        let hits = |n: usize| if n.is_multiple_of(50) { 0b00_1000 } else { 0b11_1111 };
        assert_eq!(requests(&mut judge, 3_000, hits), [3]);
        assert_eq!(judge.seen().1, 0.0, "none of them was a lookup");
        (0..3_000).for_each(|n| judge.count_lookup(hits(n), ENTRIES));
        let ([_, one, _, three, ..], lookups) = judge.seen();
        assert!(three / lookups > 0.99 && (0.975..0.985).contains(&(one / lookups)));
    }

    #[test]
    fn equal_candidates_are_not_exchanged() {
        let mut judge = Judge::new(1);
        let changes = requests(&mut judge, 100_000, |n| if n % 3 == 0 { 0b11_1111 } else { 0 });
        assert!(changes.is_empty(), "{changes:?}");
    }
}
