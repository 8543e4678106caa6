//! For how long at least one kernel ran.

use std::collections::VecDeque;

use crate::time::{Instant, Span};

/// How many separate stretches of kernel time are remembered; later ones can overlap no others.
const STRETCHES_MAX: usize = 64;

/// How long at least one kernel ran: the union of the intervals of all slots. An interval ends
/// when its answer arrives and is as long as the kernel says, so what a slot spends on copies and
/// messages does not count.
#[derive(Debug, Default, Clone)]
pub(super) struct Busy {
    /// Disjoint, ascending, the latest last.
    stretches: VecDeque<(u64, u64)>,
    pub total: Span,
}

impl Busy {
    pub fn add(&mut self, kernel: Span, now: Instant) {
        let from = now.0.saturating_sub(kernel.0);
        let (mut start, mut fresh) = (from, now.0 - from);
        while let Some(&(earlier, end)) = self.stretches.back() {
            if end < from {
                break;
            }
            fresh -= end - earlier.max(from);
            start = start.min(earlier);
            self.stretches.pop_back();
        }
        self.stretches.push_back((start, now.0));
        if self.stretches.len() > STRETCHES_MAX {
            self.stretches.pop_front();
        }
        self.total = Span(self.total.0.saturating_add(fresh));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_the_union_of_kernel_intervals() {
        // (end, length): apart, overlapping, inside, spanning everything before.
        check(&[(10, 5), (20, 5)], 10);
        check(&[(10, 8), (12, 8)], 10);
        check(&[(10, 10), (12, 1)], 11);
        check(&[(10, 2), (20, 2), (30, 2), (31, 31)], 31);
        check(&[(10, 10), (10, 10)], 10);
    }

    fn check(intervals: &[(u64, u64)], union: u64) {
        let mut busy = Busy::default();
        for &(end, length) in intervals {
            busy.add(Span(length), Instant(end));
        }
        assert_eq!(busy.total, Span(union), "{intervals:?}");
    }
}
