//! How fast blocks arrive: what a coordinator plans with.

use std::collections::BTreeMap;

use crate::id::DeviceId;
use crate::time::{Instant, Span};

/// Less says little about a link.
const BYTES_MIN: u64 = 1 << 19;
/// Coordinators whose links are remembered.
const LINKS_MAX: usize = 256;

/// What came from each coordinator, and how long something was owed.
#[derive(Debug, Default)]
pub(super) struct Intake {
    links: BTreeMap<DeviceId, Meter>,
}

#[derive(Debug, Default)]
struct Meter {
    /// Since when blocks are owed.
    since: Option<Instant>,
    /// Bytes asked for that are not there.
    owed: u64,
    bytes: u64,
    span: Span,
}

impl Intake {
    /// Blocks were asked for.
    pub fn asked(&mut self, coordinator: DeviceId, bytes: u64, now: Instant) {
        if !self.links.contains_key(&coordinator) && self.links.len() >= LINKS_MAX {
            self.links.retain(|_, meter| meter.owed > 0);
        }
        let meter = self.links.entry(coordinator).or_default();
        meter.owed += bytes;
        meter.since.get_or_insert(now);
    }

    /// A block that was asked for is there, or nobody waits for it any more.
    pub fn settled(&mut self, coordinator: DeviceId, bytes: u64, arrived: bool, now: Instant) {
        let Some(meter) = self.links.get_mut(&coordinator) else {
            return;
        };
        meter.owed = meter.owed.saturating_sub(bytes);
        meter.bytes += if arrived { bytes } else { 0 };
        if meter.owed == 0
            && let Some(since) = meter.since.take()
        {
            meter.span = meter.span + (now - since);
        }
    }

    /// Bytes a second from a coordinator, when enough came since the last time to tell.
    pub fn rate(&mut self, coordinator: DeviceId, now: Instant) -> Option<u64> {
        let meter = self.links.get_mut(&coordinator)?;
        if meter.bytes < BYTES_MIN {
            return None;
        }
        let running = meter.since.map_or(Span(0), |since| now - since);
        let seconds = (meter.span + running).as_secs_f64().max(1e-4);
        let rate = meter.bytes as f64 / seconds;
        meter.bytes = 0;
        meter.span = Span(0);
        meter.since = meter.since.map(|_| now);
        Some(rate as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: DeviceId = DeviceId([1; 32]);

    #[test]
    fn time_counts_only_while_something_is_owed() {
        let mut intake = Intake::default();
        intake.asked(NODE, 2 << 20, Instant(0));
        intake.settled(NODE, 2 << 20, true, Instant(1_000_000));
        assert_eq!(intake.rate(NODE, Instant(9_000_000)), Some(2 << 20));
        assert_eq!(intake.rate(NODE, Instant(9_000_000)), None, "told already");
        // An idle link is not a slow one.
        intake.asked(NODE, 4 << 20, Instant(60_000_000));
        intake.settled(NODE, 4 << 20, true, Instant(61_000_000));
        assert_eq!(intake.rate(NODE, Instant(61_000_000)), Some(4 << 20));
    }

    #[test]
    fn little_says_nothing_and_what_never_came_does_not_count() {
        let mut intake = Intake::default();
        intake.asked(NODE, 1 << 18, Instant(0));
        intake.settled(NODE, 1 << 18, true, Instant(10));
        assert_eq!(intake.rate(NODE, Instant(10)), None);
        intake.asked(NODE, 8 << 20, Instant(10));
        intake.settled(NODE, 8 << 20, false, Instant(20));
        assert_eq!(intake.rate(NODE, Instant(20)), None);
        assert_eq!(intake.rate(DeviceId([2; 32]), Instant(20)), None);
    }
}
