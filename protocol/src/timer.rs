//! Small helpers for time-outs.

use crate::time::{Instant, Span};

/// The earlier of two optional times.
pub fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Lets news through at once and then at most once per `gap`; what is held back comes at the end
/// of the gap.
#[derive(Debug, Clone)]
pub struct Throttle {
    gap: Span,
    open_at: Instant,
    pending: bool,
}

impl Throttle {
    /// Nothing is held back yet.
    pub fn new(gap: Span) -> Self {
        Self {
            gap,
            open_at: Instant(0),
            pending: false,
        }
    }

    /// There is news.
    pub fn note(&mut self) {
        self.pending = true;
    }

    /// There is news that can not wait.
    pub fn urge(&mut self) {
        self.pending = true;
        self.open_at = Instant(0);
    }

    /// Whether news may go out now; it counts as gone then.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.pending && now >= self.open_at;
        if due {
            self.pending = false;
            self.open_at = now + self.gap;
        }
        due
    }

    /// When to call [`Throttle::take`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.then_some(self.open_at)
    }
}
