//! The clocks of a device: a monotonic one that runs at its own rate, and a wall clock that people
//! and time servers move.

use gemmesh_protocol::time::{Instant, WallTime};

/// How a device sees time. Simulated time is in microseconds, and everybody else's.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    since: u64,
    local: u64,
    /// Microseconds of this clock in a second.
    rate: u64,
    /// Milliseconds that the wall clock is ahead.
    pub wall_offset: i64,
}

/// Milliseconds since 1970 when a simulation begins.
const EPOCH_MS: i64 = 1_700_000_000_000;
const SECOND: u64 = 1_000_000;

impl Clock {
    /// A true clock that reads `local` now.
    pub fn new(now: u64, local: u64) -> Self {
        Self {
            since: now,
            local,
            rate: SECOND,
            wall_offset: 0,
        }
    }

    /// What the monotonic clock reads.
    pub fn instant(&self, now: u64) -> Instant {
        Instant(self.local + (now - self.since) * self.rate / SECOND)
    }

    /// The first moment at which it reads `at` or more.
    pub fn when(&self, at: Instant) -> u64 {
        let ahead = at.0.saturating_sub(self.local);
        self.since.saturating_add(
            (u128::from(ahead) * u128::from(SECOND)).div_ceil(u128::from(self.rate)) as u64,
        )
    }

    /// Runs at another rate from now on.
    pub fn set_rate(&mut self, now: u64, rate: u64) {
        self.local = self.instant(now).0;
        self.since = now;
        self.rate = rate;
    }

    /// Jumps ahead, as when the device slept and the process did not notice.
    pub fn jump(&mut self, now: u64, by: u64) {
        self.local = self.instant(now).0 + by;
        self.since = now;
    }

    /// What the wall clock reads.
    pub fn wall(&self, now: u64) -> WallTime {
        WallTime((EPOCH_MS + (now / 1_000) as i64 + self.wall_offset).max(0) as u64)
    }
}
