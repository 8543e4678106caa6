//! The books of a worker: what it sent, and what became of it. A tile counts once its coordinator
//! says that it was accepted, as it does in the job's own figures; a tile that somebody else
//! delivered first is not in them.

use std::collections::{BTreeMap, BTreeSet};

use super::Tally;
use crate::id::{DeviceId, JobId, LeaseId};
use crate::tile::Rect;
use crate::time::Span;

/// Results without a verdict that are remembered; a coordinator that owes more is not to be trusted.
const SENT_MAX: usize = 4_096;

/// A result on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub coordinator: DeviceId,
    pub tile: u32,
    pub rect: Rect,
    pub operations: u64,
    pub kernel: Span,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    sent: BTreeMap<(JobId, LeaseId), Sent>,
    /// First rows of the accepted tiles of the jobs that go on.
    rows: BTreeSet<(JobId, u64)>,
    tally: Tally,
}

impl Books {
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    pub fn note_sent(&mut self, job: JobId, lease: LeaseId, sent: Sent) {
        self.tally.computed = self.tally.computed.saturating_add(sent.operations);
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_first();
        }
        self.sent.insert((job, lease), sent);
    }

    /// The first verdict on a result settles it.
    pub fn note_verdict(&mut self, job: JobId, lease: LeaseId, accepted: bool) {
        let Some(sent) = self.sent.remove(&(job, lease)) else {
            return;
        };
        if !accepted {
            return;
        }
        let tally = &mut self.tally;
        tally.tiles += 1;
        tally.operations = tally.operations.saturating_add(sent.operations);
        tally.kernel = Span(tally.kernel.0.saturating_add(sent.kernel.0));
        tally.last = Some((job, sent.coordinator, sent.tile, sent.kernel));
        if self.rows.insert((job, sent.rect.row)) {
            tally.rows += sent.rect.rows;
        }
    }

    /// The job is over, or its coordinator gone: nothing more is heard of it.
    pub fn forget(&mut self, job: JobId) {
        self.sent.retain(|(of, _), _| *of != job);
        self.rows.retain(|(of, _)| *of != job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId([1; 16]);

    fn sent(row: u64) -> Sent {
        Sent {
            coordinator: DeviceId([2; 32]),
            tile: 3,
            rect: Rect {
                row,
                rows: 4,
                col: 0,
                cols: 5,
            },
            operations: 6,
            kernel: Span(7),
        }
    }

    #[test]
    fn only_what_was_accepted_counts_and_once() {
        let mut books = Books::default();
        for lease in 0..4 {
            books.note_sent(JOB, LeaseId(lease), sent(lease / 2 * 4));
        }
        assert_eq!(books.tally().tiles, 0);
        for (lease, accepted) in [
            (0, true),
            (0, true),
            (1, true),
            (2, false),
            (2, true),
            (9, true),
        ] {
            books.note_verdict(JOB, LeaseId(lease), accepted);
        }
        let tally = books.tally();
        assert_eq!((tally.tiles, tally.rows), (2, 4));
        assert_eq!((tally.operations, tally.computed), (12, 24));
        assert_eq!(tally.kernel, Span(14));
        books.forget(JOB);
        books.note_verdict(JOB, LeaseId(3), true);
        assert_eq!(books.tally().tiles, 2);
    }

    #[test]
    fn verdicts_that_never_come_take_no_memory() {
        let mut books = Books::default();
        for lease in 0..2 * SENT_MAX as u64 {
            books.note_sent(JOB, LeaseId(lease), sent(0));
        }
        assert_eq!(books.sent.len(), SENT_MAX);
    }
}
