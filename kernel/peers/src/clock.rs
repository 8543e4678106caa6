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

/// The best seconds of each runner; see [`turns`].
pub fn race(runners: &mut [&mut dyn Runner], budget: Duration) -> Vec<f64> {
    let best = |turns: Vec<f64>| turns.into_iter().fold(f64::INFINITY, f64::min);
    turns(runners, budget).into_iter().map(best).collect()
}

/// The middle one of some numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The seconds of each runner's turns, over at least three rounds and about `budget` for each. A round goes
/// through the runners in order.
pub fn turns(runners: &mut [&mut dyn Runner], budget: Duration) -> Vec<Vec<f64>> {
    // The first turn also warms caches, allocates workspaces and brings the clock frequency up.
    let times: Vec<u32> = runners
        .iter_mut()
        .map(|runner| {
            runner.turn(1);
            let once = runner.turn(1);
            (TURN / once.max(1e-9)).ceil().clamp(1.0, 1e6) as u32
        })
        .collect();
    let mut turns = vec![Vec::new(); runners.len()];
    let (start, limit) = (Instant::now(), budget * runners.len() as u32);
    let mut rounds = 0;
    while rounds < 3 || start.elapsed() < limit {
        for ((runner, &times), turns) in runners.iter_mut().zip(&times).zip(&mut turns) {
            // What ran before has left its data in the caches; a long turn does not notice.
            if times > 1 {
                runner.turn(1);
            }
            turns.push(runner.turn(times));
        }
        rounds += 1;
    }
    turns
}
