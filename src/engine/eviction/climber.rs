//! How large W-TinyLFU's window should be, found by climbing the hit ratio (Einziger, Eytan, Friedman, Manes,
//! "Adaptive Software Cache Management", Middleware 2018, section 3.2): after each sample of requests the window
//! changes by a step, further in the same direction while the hit ratio rises, back where it fell. Steps get
//! smaller; a change of the hit ratio of 5 points means another workload, and they start over.
//!
//! As in Caffeine a sample is ten requests for each entry and the first step a sixteenth of the bytes. Differs
//! from it: the first step makes the window larger; a sample has 2000 requests at least, since the hit ratio of
//! fewer is mostly chance; steps shrink by a twentieth while they go on and by a tenth where they turn, not by a
//! fiftieth; and what the hit ratio does after a step for which the window had no room is not taken for that
//! step's effect: the next one goes the other way. Else a window at its least stays there while the workload gets
//! easier by itself.

/// The first step, as a part of the bytes.
const STEP: f64 = 0.0625;
/// What is left of a step in the next that goes on …
const DECAY: f64 = 0.95;
/// … and in the next that goes back, where the best size is nearer.
const DECAY_OF_TURN: f64 = 0.90;
/// The change of the hit ratio after which steps start over.
const RESTART: f64 = 0.05;
const REQUESTS_PER_ENTRY: u64 = 10;
const REQUESTS_MIN: u64 = 2_000;

#[derive(Debug)]
pub(super) struct Climber {
    hits: u64,
    requests: u64,
    /// Of the sample before.
    hit_ratio: f64,
    /// The last one, and what is left of it for the next.
    step: f64,
    size: f64,
    /// The window could not take the last step.
    at_end: bool,
}

/// Whether a key was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Hit,
    Miss,
}

impl Climber {
    pub(super) fn new() -> Self {
        Self { hits: 0, requests: 0, hit_ratio: 0.0, step: STEP, size: STEP, at_end: false }
    }

    /// Counts a request. At the end of a sample: by which part of the bytes the window should change.
    #[inline]
    pub(super) fn requested(&mut self, request: Request, entries: usize) -> Option<f64> {
        self.requests += 1;
        self.hits += u64::from(request == Request::Hit);
        let sample = (entries as u64 * REQUESTS_PER_ENTRY).max(REQUESTS_MIN);
        (self.requests >= sample).then(|| self.climb())
    }

    /// The step that was just asked for left the window as it is: it is as small or as large as it can be.
    pub(super) fn is_at_end(&mut self) {
        self.at_end = true;
    }

    fn climb(&mut self) -> f64 {
        let hit_ratio = self.hits as f64 / self.requests as f64;
        let change = hit_ratio - self.hit_ratio;
        let goes_on = change >= 0.0 && !self.at_end;
        let step = self.size.copysign(if goes_on { self.step } else { -self.step });
        self.size = match change.abs() {
            RESTART.. => STEP,
            _ if step * self.step < 0.0 => DECAY_OF_TURN * self.size,
            _ => DECAY * self.size,
        };
        (self.step, self.at_end) = (step, false);
        (self.hit_ratio, self.hits, self.requests) = (hit_ratio, 0, 0);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample of a hundred requests with this number of hits.
    fn sample(climber: &mut Climber, hits: u64) -> f64 {
        for n in 0..REQUESTS_MIN {
            let request = if n % 100 < hits { Request::Hit } else { Request::Miss };
            if let Some(step) = climber.requested(request, 10) {
                return step;
            }
        }
        panic!("a sample has at most {REQUESTS_MIN} requests");
    }

    #[test]
    fn it_goes_on_while_the_hit_ratio_rises_and_turns_where_it_falls() {
        let mut climber = Climber::new();
        assert_eq!([50, 52, 51].map(|hits| sample(&mut climber, hits)), [STEP, STEP, -STEP * DECAY]);
        assert!(sample(&mut climber, 52) < 0.0, "down was right");
        let (shrunk, full) = (sample(&mut climber, 30), sample(&mut climber, 31));
        assert!(shrunk > 0.0 && shrunk < STEP && full == STEP, "{shrunk} {full}");
    }

    #[test]
    fn it_turns_at_the_end_although_the_hit_ratio_rises() {
        let mut climber = Climber::new();
        assert!([50, 52, 51, 52].map(|hits| sample(&mut climber, hits))[3] < 0.0);
        climber.is_at_end();
        assert!(sample(&mut climber, 53) > 0.0, "further down is nowhere");
        assert!(sample(&mut climber, 54) > 0.0, "up was right");
    }

    #[test]
    fn steps_shrink_more_where_they_turn() {
        let mut climber = Climber::new();
        assert!([50, 52, 51].map(|hits| sample(&mut climber, hits))[2] < 0.0);
        assert_eq!(sample(&mut climber, 52), -STEP * DECAY * DECAY_OF_TURN);
        assert_eq!(sample(&mut climber, 52), -STEP * DECAY * DECAY_OF_TURN * DECAY);
    }
}
