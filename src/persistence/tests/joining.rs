//! Snapshots that are asked for while one is being taken.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use super::rehearsing::Moving;
use super::*;

#[test]
fn whoever_asks_for_a_snapshot_while_one_is_taken_is_answered_with_that() {
    let stand = Stand::new();
    stand.set("k", "v");
    stand.disk.stop().unwrap();
    // The snapshot lists the files for its tail: there it is held up.
    let (armed, let_go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let held = Arc::new(AtomicU64::new(0));
    let (is_armed, is_let_go, is_held) = (Arc::clone(&armed), Arc::clone(&let_go), Arc::clone(&held));
    let moving = Moving::new(
        &stand,
        Box::new(move |_| {
            while is_armed.load(Ordering::SeqCst) && !is_let_go.load(Ordering::SeqCst) {
                is_held.store(1, Ordering::SeqCst);
                std::thread::yield_now();
            }
        }),
    );
    let clock = Arc::new(SystemClock::new());
    let engine = Arc::new(Engine::new(&EngineConfig::default(), clock.now()));
    let (disk, _) =
        Disk::open(Arc::new(moving), engine, clock, config(), &RecoveryProgress::default()).unwrap();
    armed.store(true, Ordering::SeqCst);
    let positions: Vec<u64> = std::thread::scope(|scope| {
        let first = scope.spawn(|| disk.snapshot().unwrap());
        while held.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let (tell, told) = mpsc::channel();
        let others: Vec<_> = (0..3)
            .map(|_| {
                let tell = tell.clone();
                let disk = &disk;
                scope.spawn(move || {
                    tell.send(rustix::thread::gettid()).unwrap();
                    disk.snapshot().unwrap()
                })
            })
            .collect();
        for thread in told.iter().take(3) {
            while !sleeps(thread.as_raw_nonzero().get()) {
                std::thread::yield_now();
            }
        }
        let_go.store(true, Ordering::SeqCst);
        let taken = others.into_iter().chain([first]).map(|thread| thread.join().unwrap().number);
        taken.collect()
    });
    assert_eq!(positions, vec![positions[0]; 4]);
    assert_eq!((disk.history().taken(), disk.snapshots().len()), (1, 1));
    disk.snapshot().unwrap();
    assert_eq!(disk.history().taken(), 2, "a later one takes another");
}

/// Whether a thread of this process waits for something.
fn sleeps(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().trim_start().starts_with('S')
}
