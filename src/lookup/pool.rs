//! Jobs that may block, on as few threads as they need.
//!
//! The jobs stand in one queue, and a thread that comes does them one behind the other. One that takes a job and leaves
//! others behind spawns another thread, which takes its time to come: jobs that are quick are done by then, and where each
//! blocks there is soon a thread for each. A job that is of several parts and finds that they block leaves those that it has
//! not come to as jobs of their own. Those who wait are woken when a thread comes or finds nothing more to do, so
//! that much of what was done is taken together. While something is in the queue a thread is on its way: neither that nor
//! what was done waits for a job that blocks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;

/// What is done on a thread that may block. It must not panic.
pub(super) trait Job: Send + Sized + 'static {
    /// Does it, as far as somebody waits for it, and adds those who are to be woken; what is left for other threads.
    fn run(self, woken: &mut Vec<Waker>) -> Vec<Self>;
}

/// Threads that do jobs. Clones are the same.
pub(super) struct BlockingPool<J>(Arc<Mutex<Queue<J>>>);

struct Queue<J> {
    jobs: VecDeque<J>,
    /// A thread was spawned and has not come.
    is_coming: bool,
    /// The wakers of those that wait for what was done, and were not woken yet.
    waiting: Vec<Waker>,
}

impl<J> Clone for BlockingPool<J> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<J> Default for BlockingPool<J> {
    fn default() -> Self {
        let queue = Queue { jobs: VecDeque::new(), is_coming: false, waiting: Vec::new() };
        Self(Arc::new(Mutex::new(queue)))
    }
}

impl<J> std::fmt::Debug for BlockingPool<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockingPool")
    }
}

impl<J: Job> BlockingPool<J> {
    /// Puts a job into the queue, and spawns a thread if none is on its way. Must be called in a runtime.
    pub(super) fn push(&self, job: J) {
        let mut queue = self.0.lock();
        queue.jobs.push_back(job);
        let spawns = queue.spawns();
        drop(queue);
        if spawns {
            self.spawn();
        }
    }

    fn spawn(&self) {
        let pool = self.clone();
        spawn_blocking(move || pool.work());
    }

    /// What a thread does until nothing is left.
    fn work(&self) {
        let mut done = None;
        loop {
            let next = self.0.lock().next(done);
            next.wakes.into_iter().for_each(Waker::wake);
            if next.spawns {
                self.spawn();
            }
            let Some(job) = next.job else { return };
            let mut woken = Vec::new();
            let left = job.run(&mut woken);
            done = Some(Done { woken, left });
        }
    }
}

impl<J> Queue<J> {
    /// Whether the caller has to spawn a thread.
    fn spawns(&mut self) -> bool {
        let spawns = !self.is_coming && !self.jobs.is_empty();
        self.is_coming |= spawns;
        spawns
    }

    /// The next job of a thread that has come, or has done one.
    fn next(&mut self, done: Option<Done<J>>) -> Next<J> {
        let has_come = done.is_none();
        match done {
            None => self.is_coming = false,
            Some(done) => {
                self.waiting.extend(done.woken);
                self.jobs.extend(done.left);
            }
        }
        let job = self.jobs.pop_front();
        let wakes = if has_come || job.is_none() { std::mem::take(&mut self.waiting) } else { Vec::new() };
        Next { job, spawns: self.spawns(), wakes }
    }
}

/// What came of a job.
struct Done<J> {
    woken: Vec<Waker>,
    left: Vec<J>,
}

/// What a thread is to do next.
struct Next<J> {
    job: Option<J>,
    /// It spawns another.
    spawns: bool,
    /// It wakes these.
    wakes: Vec<Waker>,
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Number(u64);

    impl Job for Number {
        fn run(self, woken: &mut Vec<Waker>) -> Vec<Self> {
            woken.push(Waker::noop().clone());
            Vec::new()
        }
    }

    /// What a thread takes next: a job, whether it spawns another thread, and how many it wakes.
    fn takes(queue: &mut Queue<Number>, has_done: bool) -> (Option<u64>, bool, usize) {
        let done = || {
            let mut woken = Vec::new();
            let left = Number(0).run(&mut woken);
            Done { woken, left }
        };
        let next = queue.next(has_done.then(done));
        (next.job.map(|job| job.0), next.spawns, next.wakes.len())
    }

    /// A queue of a number of jobs, with a thread that was spawned.
    fn queue(jobs: u64) -> Queue<Number> {
        let jobs = (0..jobs).map(Number).collect();
        let mut queue = Queue { jobs, is_coming: false, waiting: Vec::new() };
        assert!(queue.spawns() && !queue.spawns(), "one is on its way at a time");
        queue
    }

    #[test]
    fn quick_jobs_share_a_thread_and_those_who_wait_are_woken_together() {
        let mut queue = queue(16);
        assert_eq!(takes(&mut queue, false), (Some(0), true, 0));
        for number in 0..15 {
            assert_eq!(takes(&mut queue, true), (Some(number + 1), false, 0));
        }
        assert_eq!(takes(&mut queue, true), (None, false, 16));
        // The one that the first spawned.
        assert_eq!(takes(&mut queue, false), (None, false, 0));
        assert!(!queue.spawns(), "there is nothing to do");
    }

    #[test]
    fn a_job_that_blocks_holds_up_neither_what_is_behind_it_nor_what_was_done() {
        let mut queue = queue(4);
        assert_eq!(takes(&mut queue, false), (Some(0), true, 0));
        assert_eq!(takes(&mut queue, false), (Some(1), true, 0));
        assert_eq!(takes(&mut queue, true), (Some(2), false, 0));
        assert_eq!(takes(&mut queue, false), (Some(3), false, 1));
        queue.jobs.push_back(Number(4));
        assert!(queue.spawns(), "all that came are at work");
    }

    #[test]
    fn what_a_job_leaves_is_for_this_thread_and_another() {
        let mut queue = queue(1);
        assert_eq!(takes(&mut queue, false), (Some(0), false, 0));
        let next = queue.next(Some(Done { woken: Vec::new(), left: vec![Number(1), Number(2)] }));
        assert_eq!((next.job.map(|job| job.0), next.spawns), (Some(1), true));
    }
}
