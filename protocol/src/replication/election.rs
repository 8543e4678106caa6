//! Who continues a job whose coordinator is gone: the bully algorithm (Garcia-Molina 1982, section
//! III) among the nodes that have the job's log.
//!
//! Intuition: whoever misses the coordinator asks everybody it can reach. Who has seen more of the
//! log, or stands earlier in the list of backups, takes over the candidacy; who still hears the
//! coordinator says so; the rest yield. With all answers in, or after a short while, the candidate
//! makes a higher epoch durable and coordinates. Who is right does not depend on anybody's
//! answers: two winners have different epochs, and the higher one stands.

use std::collections::BTreeSet;

use super::{BACKUPS_MAX, Rank};
use crate::id::{DeviceId, Epoch};
use crate::time::{Instant, Span};

/// Who does not answer by then does not count.
const ANSWER_MAX: Span = Span::from_millis(400);
/// Each place further down the list waits so much longer: the hot standby goes first.
const PLACE_GAP: Span = Span::from_millis(250);
/// Who is not a backup any more stands only when no backup did.
const STRANGER_DELAY: Span = Span::from_secs(10);
/// After a restart the others get so long to be found.
const RESTART_DELAY: Span = Span::from_secs(3);
/// A coordinator that was restarted has so long to say that it goes on.
const CONFIRM_MAX: Span = Span::from_secs(6);
/// Who yielded waits so long for the winner.
const YIELD_DELAY: Span = Span::from_millis(1_500);
/// After somebody said that the coordinator lives, or that its own rank is higher.
const AGAIN_DELAY: Span = Span::from_millis(500);

/// After the disk refused what must be durable first.
const DISK_DELAY: Span = Span::from_secs(5);

/// Where the candidacy of this node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Not before this, if the coordinator is missed.
    Idle { not_before: Instant },
    /// Asked; who has not answered.
    Asking {
        until: Instant,
        waiting: BTreeSet<DeviceId>,
    },
    /// Won: the epoch is on its way to the disk.
    Claiming { epoch: Epoch },
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask these.
    Ask(Vec<DeviceId>),
    /// Make this epoch durable.
    Claim(Epoch),
}

#[derive(Debug)]
pub(super) struct Election {
    phase: Phase,
    /// Since when the coordinator is missed, and since when it is linked but silent about the job.
    missed: Option<Instant>,
    /// This node has just been started.
    restarted: Option<Instant>,
}

/// What the election needs to know of the job.
pub(super) struct View<'a> {
    pub rank: Rank,
    /// Who coordinates as far as is known.
    pub coordinator: DeviceId,
    pub backups: &'a [DeviceId],
    pub linked: &'a BTreeSet<DeviceId>,
    /// This node could continue the job.
    pub able: bool,
    /// The coordinator is linked and says that it coordinates.
    pub hears: bool,
    /// The coordinator is linked.
    pub reaches: bool,
}

impl Election {
    pub fn new(restarted: Option<Instant>) -> Self {
        let phase = Phase::Idle {
            not_before: Instant(0),
        };
        Self {
            phase,
            missed: restarted,
            restarted,
        }
    }

    /// A coordinator speaks: no candidacy any more.
    pub fn settle(&mut self) {
        self.phase = Phase::Idle {
            not_before: Instant(0),
        };
        self.missed = None;
        self.restarted = None;
    }

    /// The epoch that is on its way to the disk.
    pub fn claims(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Claiming { epoch } => Some(epoch),
            _ => None,
        }
    }

    /// Whether this node is a candidate.
    pub fn stands(&self) -> bool {
        !matches!(self.phase, Phase::Idle { .. })
    }

    /// When [`Election::step`] may have something to do.
    pub fn poll_timeout(&self, view: &View<'_>) -> Option<Instant> {
        match &self.phase {
            Phase::Claiming { .. } => None,
            Phase::Asking { until, .. } => Some(*until),
            Phase::Idle { not_before } => {
                let missed = self.missed.filter(|_| view.able)?;
                Some(self.due(missed, view).max(*not_before))
            }
        }
    }

    fn due(&self, missed: Instant, view: &View<'_>) -> Instant {
        let me = view.rank.device;
        let place = view.backups.iter().position(|device| *device == me);
        let all_here = || {
            view.backups
                .iter()
                .all(|b| *b == me || view.linked.contains(b))
        };
        let patience = match place {
            // Its own job: nobody else can have gone on if nobody else had it.
            _ if view.coordinator == me && all_here() => return missed,
            _ if view.coordinator == me => Span(0),
            Some(place) => Span(PLACE_GAP.0 * place as u64),
            None => STRANGER_DELAY,
        };
        let after = missed + patience;
        match self.restarted {
            Some(at) => after.max(at + RESTART_DELAY + patience),
            None if view.reaches => after + CONFIRM_MAX,
            None => after,
        }
    }

    /// Time passed, or links came and went.
    pub fn step(&mut self, view: &View<'_>, seen: u64, now: Instant) -> Option<Step> {
        if view.hears {
            if self.missed.is_some() {
                self.settle();
            }
            return None;
        }
        let missed = *self.missed.get_or_insert(now);
        match &mut self.phase {
            Phase::Claiming { .. } => None,
            Phase::Idle { not_before } => {
                let not_before = *not_before;
                if !view.able || now < self.due(missed, view).max(not_before) {
                    return None;
                }
                self.ask(view, seen, now)
            }
            Phase::Asking { until, waiting } => {
                waiting.retain(|device| view.linked.contains(device));
                let over = waiting.is_empty() || now >= *until;
                over.then(|| self.win(view, seen))
            }
        }
    }

    fn ask(&mut self, view: &View<'_>, seen: u64, now: Instant) -> Option<Step> {
        let waiting = view.linked.clone();
        if waiting.is_empty() {
            return Some(self.win(view, seen));
        }
        let asked = waiting.iter().copied().collect();
        self.phase = Phase::Asking {
            until: now + ANSWER_MAX,
            waiting,
        };
        Some(Step::Ask(asked))
    }

    fn win(&mut self, view: &View<'_>, seen: u64) -> Step {
        let epoch = Epoch {
            counter: seen + 1,
            device: view.rank.device,
        };
        self.phase = Phase::Claiming { epoch };
        Step::Claim(epoch)
    }

    /// Somebody else stands: whether this node's own rank is higher. If so it stands as well.
    pub fn challenge(&mut self, rank: Rank, view: &View<'_>, now: Instant) -> bool {
        if matches!(self.phase, Phase::Claiming { .. }) {
            return true;
        }
        if view.able && view.rank > rank {
            if !self.stands() {
                // At the next step.
                self.missed = Some(Instant(0));
                self.restarted = None;
                self.phase = Phase::Idle { not_before: now };
            }
            return true;
        }
        self.phase = Phase::Idle {
            not_before: now + YIELD_DELAY,
        };
        false
    }

    /// Somebody has nothing against it.
    pub fn yielded(&mut self, from: DeviceId) {
        if let Phase::Asking { waiting, .. } = &mut self.phase {
            waiting.remove(&from);
        }
    }

    /// The disk refused: later again.
    pub fn hold(&mut self, now: Instant) {
        self.phase = Phase::Idle {
            not_before: now + DISK_DELAY,
        };
    }

    /// Somebody knows better.
    pub fn refused(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Asking { .. }) {
            self.phase = Phase::Idle {
                not_before: now + AGAIN_DELAY,
            };
        }
    }
}

/// The place of a node in [`Rank::place`].
pub(super) fn place(device: DeviceId, coordinator: DeviceId, backups: &[DeviceId]) -> u8 {
    let top = BACKUPS_MAX as u8 + 1;
    if device == coordinator {
        return top;
    }
    let place = backups.iter().position(|backup| *backup == device);
    place.map_or(0, |place| top.saturating_sub(1 + place as u8))
}
