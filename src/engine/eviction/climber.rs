//! How large W-TinyLFU's window should be, found by climbing the hit ratio (Einziger, Eytan, Friedman, Manes,
//! "Adaptive Software Cache Management", Middleware 2018, section 3.2): after each sample of requests the window
//! changes by a step, further in the same direction while the hit ratio rises, back where it fell. Steps get
//! smaller; a change of the hit ratio of 5 points means another workload, and they start over.
//!
//! As in Caffeine a sample is ten requests for each entry and the first step a sixteenth of the bytes. Differs
//! from it: the first step makes the window larger; a sample has 2000 requests at least, since the hit ratio of
//! fewer is mostly chance; steps shrink by a twentieth and not by a fiftieth.

/// The first step, as a part of the bytes.
const STEP: f64 = 0.0625;
/// What is left of a step in the next.
const DECAY: f64 = 0.95;
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
    step: f64,
}

/// Whether a key was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Hit,
    Miss,
}

impl Climber {
    pub(super) fn new() -> Self {
        Self { hits: 0, requests: 0, hit_ratio: 0.0, step: STEP }
    }

    /// Counts a request. At the end of a sample: by which part of the bytes the window should change.
    #[inline]
    pub(super) fn requested(&mut self, request: Request, entries: usize) -> Option<f64> {
        self.requests += 1;
        self.hits += u64::from(request == Request::Hit);
        let sample = (entries as u64 * REQUESTS_PER_ENTRY).max(REQUESTS_MIN);
        (self.requests >= sample).then(|| self.climb())
    }

    fn climb(&mut self) -> f64 {
        let hit_ratio = self.hits as f64 / self.requests as f64;
        let change = hit_ratio - self.hit_ratio;
        let step = if change >= 0.0 { self.step } else { -self.step };
        self.step = if change.abs() >= RESTART { STEP.copysign(step) } else { DECAY * step };
        (self.hit_ratio, self.hits, self.requests) = (hit_ratio, 0, 0);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample with so many hits in a hundred requests.
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
}
