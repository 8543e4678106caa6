//! Paired runs: all runners take turns, so that whatever disturbs the machine disturbs all of them, and
//! the best turn of each counts.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// One thing that is timed.
pub trait Runner {
    /// Does its work this many times and returns the seconds of the thread's CPU clock that one took.
    fn turn(&mut self, times: u32) -> f64;
}

/// A closure of this process.
pub struct Here<F>(pub F);

impl<F: FnMut()> Runner for Here<F> {
    fn turn(&mut self, times: u32) -> f64 {
        let start = cpu_seconds();
        (0..times).for_each(|_| (self.0)());
        (cpu_seconds() - start) / f64::from(times)
    }
}

/// CPU time of this thread: what other processes took from it does not count.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Turns at least this long, so that the clock's steps do not show.
const TURN: f64 = 0.004;

/// The best seconds of each runner over at least three rounds of turns and about `budget` for each.
pub fn race(runners: &mut [&mut dyn Runner], budget: Duration) -> Vec<f64> {
    // The first turn also warms caches, allocates workspaces and brings the clock frequency up.
    let times: Vec<u32> = runners
        .iter_mut()
        .map(|runner| {
            runner.turn(1);
            let once = runner.turn(1);
            (TURN / once.max(1e-9)).ceil().clamp(1.0, 1e6) as u32
        })
        .collect();
    let mut best = vec![f64::INFINITY; runners.len()];
    let (start, limit) = (Instant::now(), budget * runners.len() as u32);
    let mut rounds = 0;
    while rounds < 3 || start.elapsed() < limit {
        for ((runner, &times), best) in runners.iter_mut().zip(&times).zip(&mut best) {
            *best = best.min(runner.turn(times));
        }
        rounds += 1;
    }
    best
}
