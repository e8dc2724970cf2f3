//! Jobs that may block, on as few threads as they need.
//!
//! The jobs stand in one queue, and a thread that comes does them one behind the other. One that takes a job and leaves
//! others behind calls another thread, which takes its time to come: jobs that are quick are done by then, and where each
//! blocks there is soon a thread for each. What was done is told of when a thread comes or finds nothing more to do, so
//! that much of it is taken together. While something is in the queue a thread is on its way: neither that nor what was
//! done waits for a job that blocks.
//!
//! Jobs that no thread has taken end with the pool.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::thread;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;

/// A job under a number of its own.
struct Job<D> {
    number: u64,
    run: Box<dyn FnOnce() -> D + Send>,
}

/// Threads that do jobs, each of which comes to a `D`.
pub(super) struct BlockingPool<D> {
    shared: Arc<Mutex<Shared<D>>>,
    /// Taken from the threads, and by nobody yet.
    back: VecDeque<thread::Result<D>>,
    /// How many jobs are not taken back.
    out: usize,
}

struct Shared<D> {
    queue: VecDeque<Job<D>>,
    /// A thread was called and has not come.
    is_coming: bool,
    done: VecDeque<thread::Result<D>>,
    /// Who is told of what is done.
    waker: Option<Waker>,
}

impl<D> Default for Shared<D> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), is_coming: false, done: VecDeque::new(), waker: None }
    }
}

impl<D> Default for BlockingPool<D> {
    fn default() -> Self {
        Self { shared: Arc::default(), back: VecDeque::new(), out: 0 }
    }
}

impl<D: Send + 'static> BlockingPool<D> {
    /// Puts a job into the queue. Where no thread is at work, it waits for [`Self::call`].
    pub(super) fn push(&mut self, number: u64, run: impl FnOnce() -> D + Send + 'static) {
        self.out += 1;
        self.shared.lock().queue.push_back(Job { number, run: Box::new(run) });
    }

    /// Calls a thread, if there is something to do and none is on its way.
    pub(super) fn call(&self) {
        let calls = self.shared.lock().calls();
        if calls {
            call(Arc::downgrade(&self.shared));
        }
    }

    /// Takes a job back that no thread has taken; whether it was there.
    pub(super) fn withdraw(&mut self, number: u64) -> bool {
        let mut shared = self.shared.lock();
        let Some(at) = shared.queue.iter().position(|job| job.number == number) else { return false };
        shared.queue.remove(at);
        self.out -= 1;
        true
    }

    /// What a job came to; `None`: none has come back, and the task is woken when one does. The panic of a job goes on
    /// here.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Option<D> {
        if self.back.is_empty() && self.out > 0 {
            let mut shared = self.shared.lock();
            std::mem::swap(&mut self.back, &mut shared.done);
            if self.back.is_empty() {
                shared.waker = Some(cx.waker().clone());
            }
        }
        let done = self.back.pop_front()?;
        self.out -= 1;
        Some(done.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// How many jobs are not taken back.
    pub(super) fn len(&self) -> usize {
        self.out
    }
}

impl<D> Shared<D> {
    /// Whether a thread has to be called; who asks does that.
    fn calls(&mut self) -> bool {
        let calls = !self.is_coming && !self.queue.is_empty();
        self.is_coming |= calls;
        calls
    }

    /// The next job of a thread that has come, or has done one.
    fn next(&mut self, done: Option<thread::Result<D>>) -> Next<D> {
        let has_come = done.is_none();
        if has_come {
            self.is_coming = false;
        }
        self.done.extend(done);
        let job = self.queue.pop_front();
        let tells = (has_come || job.is_none()) && !self.done.is_empty();
        let waker = if tells { self.waker.take() } else { None };
        Next { job, calls: self.calls(), waker }
    }
}

/// What a thread is to do next.
struct Next<D> {
    job: Option<Job<D>>,
    /// It calls another.
    calls: bool,
    /// It wakes this.
    waker: Option<Waker>,
}

fn call<D: Send + 'static>(shared: Weak<Mutex<Shared<D>>>) {
    spawn_blocking(move || work(&shared));
}

/// What a thread does until nothing is left, or the pool is gone.
fn work<D: Send + 'static>(shared: &Weak<Mutex<Shared<D>>>) {
    let mut done = None;
    while let Some(pool) = shared.upgrade() {
        let next = pool.lock().next(done);
        drop(pool);
        if let Some(waker) = next.waker {
            waker.wake();
        }
        if next.calls {
            call(Weak::clone(shared));
        }
        let Some(job) = next.job else { return };
        done = Some(catch_unwind(AssertUnwindSafe(job.run)));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc::{self, RecvError};
    use std::task::Poll;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// What a thread takes next: a job, whether it calls another thread, and whether it tells of what was done.
    fn takes(shared: &mut Shared<u64>, done: Option<u64>) -> (Option<u64>, bool, bool) {
        shared.waker = Some(Waker::noop().clone());
        let next = shared.next(done.map(Ok));
        (next.job.map(|job| job.number), next.calls, next.waker.is_some())
    }

    /// A queue of so many jobs, with a thread that was called.
    fn queue(jobs: u64) -> Shared<u64> {
        let queue = (0..jobs).map(|number| Job { number, run: Box::new(move || number) }).collect();
        let mut shared = Shared { queue, ..Shared::default() };
        assert!(shared.calls() && !shared.calls(), "one is on its way at a time");
        shared
    }

    #[test]
    fn quick_jobs_share_a_thread_and_are_told_of_together() {
        let mut shared = queue(16);
        assert_eq!(takes(&mut shared, None), (Some(0), true, false));
        for number in 0..15 {
            assert_eq!(takes(&mut shared, Some(number)), (Some(number + 1), false, false));
        }
        assert_eq!(takes(&mut shared, Some(15)), (None, false, true));
        assert_eq!(shared.done.drain(..).count(), 16);
        // The one that the first called.
        assert_eq!(takes(&mut shared, None), (None, false, false));
        assert!(!shared.calls(), "there is nothing to do");
    }

    #[test]
    fn a_job_that_blocks_holds_up_neither_what_is_behind_it_nor_what_was_done() {
        let mut shared = queue(4);
        assert_eq!(takes(&mut shared, None), (Some(0), true, false));
        assert_eq!(takes(&mut shared, None), (Some(1), true, false));
        assert_eq!(takes(&mut shared, Some(0)), (Some(2), false, false));
        assert_eq!(takes(&mut shared, None), (Some(3), false, true));
        shared.queue.push_back(Job { number: 4, run: Box::new(|| 4) });
        assert!(shared.calls(), "all that came are at work");
    }

    /// A runtime with one thread for jobs that block.
    fn runtime() -> Runtime {
        Builder::new_current_thread().max_blocking_threads(1).build().unwrap()
    }

    async fn back(pool: &mut BlockingPool<u64>) -> u64 {
        poll_fn(|cx| pool.poll(cx).map_or(Poll::Pending, Poll::Ready)).await
    }

    /// A job that says that it was begun, and goes on when it is told to.
    fn held() -> (impl FnOnce() -> u64 + Send + 'static, mpsc::Receiver<()>, mpsc::Sender<u64>) {
        let ((begin, begun), (let_go, wait)) = (mpsc::channel(), mpsc::channel());
        let job = move || {
            begin.send(()).unwrap();
            wait.recv().unwrap()
        };
        (job, begun, let_go)
    }

    #[test]
    fn a_job_is_taken_back_unless_it_was_begun() {
        runtime().block_on(async {
            let mut pool = BlockingPool::default();
            let (job, begun, let_go) = held();
            pool.push(1, job);
            pool.push(2, || unreachable!("it was taken back"));
            pool.push(3, || 3);
            pool.call();
            begun.recv().unwrap();
            assert!(pool.withdraw(2) && !pool.withdraw(2) && !pool.withdraw(1));
            assert_eq!(pool.len(), 2);
            let_go.send(1).unwrap();
            assert_eq!((back(&mut pool).await, back(&mut pool).await, pool.len()), (1, 3, 0));
        });
    }

    #[test]
    fn jobs_that_were_not_begun_end_with_the_crew() {
        runtime().block_on(async {
            let mut pool = BlockingPool::default();
            let (job, begun, let_go) = held();
            let (run, was_run) = mpsc::channel();
            pool.push(1, job);
            pool.push(2, move || {
                run.send(()).unwrap();
                2
            });
            pool.call();
            begun.recv().unwrap();
            drop(pool);
            assert_eq!(was_run.recv(), Err(RecvError));
            let_go.send(1).unwrap();
        });
    }

    #[test]
    #[should_panic(expected = "as it must")]
    fn a_job_that_panics_does_so_where_it_is_taken_back() {
        runtime().block_on(async {
            let mut pool = BlockingPool::default();
            pool.push(1, || panic!("as it must"));
            pool.call();
            back(&mut pool).await;
        });
    }
}
