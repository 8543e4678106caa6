//! What other nodes say of their jobs.

use std::collections::BTreeMap;

use crate::id::{DeviceId, JobId};
use crate::status::{JobState, JobStatus};
use crate::time::{Instant, Span};

/// Statuses in one message.
pub const NEWS_MAX: usize = 256;
/// Jobs remembered, and those of one coordinator: the others keep room.
const JOBS_MAX: usize = 4_096;
/// See [`JOBS_MAX`].
const JOBS_OF_ONE_MAX: usize = 1_024;
/// Contributions remembered in all of them, and in those of one coordinator.
const PARTS_MAX: usize = 32_768;
/// See [`PARTS_MAX`].
const PARTS_OF_ONE_MAX: usize = 8_192;
/// How long the job of a coordinator that is gone is remembered.
const KEPT: Span = Span::from_secs(2 * 3_600);
/// How long an ended job is remembered, at most: its coordinator forgets it too.
const KEPT_ENDED: Span = Span::from_secs(24 * 3_600);

/// News that breaks the rules.
#[derive(Debug)]
pub struct Invalid;

/// The jobs of other nodes.
#[derive(Debug, Default)]
pub struct RemoteJobs {
    jobs: BTreeMap<JobId, Told>,
}

#[derive(Debug)]
struct Told {
    status: JobStatus,
    at: Instant,
    forget_at: Instant,
    lost: bool,
}

impl RemoteJobs {
    /// A coordinator tells of its jobs; gives those that changed.
    ///
    /// # Errors
    /// When it speaks of another's jobs, or without bounds.
    pub fn handle_news(
        &mut self,
        from: DeviceId,
        jobs: Vec<JobStatus>,
        now: Instant,
    ) -> Result<Vec<JobId>, Invalid> {
        if jobs.len() > NEWS_MAX {
            return Err(Invalid);
        }
        if !jobs
            .iter()
            .all(|job| job.coordinator == from && job.is_sane())
        {
            return Err(Invalid);
        }
        Ok(self.put(jobs, now))
    }

    /// Takes statuses from a trusted source (a page's own node); gives those that changed.
    pub fn put(&mut self, jobs: Vec<JobStatus>, now: Instant) -> Vec<JobId> {
        let mut changed = Vec::new();
        for status in jobs {
            let job = status.job;
            let known = self.jobs.get(&job);
            let stolen = known.is_some_and(|told| {
                let (new, old) = (&status, &told.status);
                let (new_epoch, old_epoch) =
                    ((new.epoch, new.coordinator), (old.epoch, old.coordinator));
                new_epoch < old_epoch
                    || (old.state.has_ended() && (new_epoch == old_epoch || !new.state.has_ended()))
            });
            if stolen {
                continue;
            }
            self.jobs.remove(&job);
            if !self.make_room(&status) {
                continue;
            }
            let told = Told {
                status,
                at: now,
                forget_at: now + KEPT_ENDED,
                lost: false,
            };
            self.jobs.insert(job, told);
            changed.push(job);
        }
        changed
    }

    /// Makes room for a status: first among the jobs of the same coordinator, then among all.
    fn make_room(&mut self, status: &JobStatus) -> bool {
        let of_one = Some(status.coordinator);
        self.drop_until(of_one, status, JOBS_OF_ONE_MAX, PARTS_OF_ONE_MAX)
            && self.drop_until(None, status, JOBS_MAX, PARTS_MAX)
    }

    /// Drops the jobs that ended or were lost first, those of `coordinator` or any, until there is
    /// room for one more.
    fn drop_until(
        &mut self,
        coordinator: Option<DeviceId>,
        status: &JobStatus,
        jobs_max: usize,
        parts_max: usize,
    ) -> bool {
        let of = |told: &Told| coordinator.is_none_or(|id| told.status.coordinator == id);
        loop {
            let (mut jobs, mut parts) = (1, status.contributions.len());
            for told in self.jobs.values().filter(|told| of(told)) {
                jobs += 1;
                parts += told.status.contributions.len();
            }
            if jobs <= jobs_max && parts <= parts_max {
                return true;
            }
            let over = |told: &Told| told.lost || told.status.state.has_ended();
            let droppable = self
                .jobs
                .iter()
                .filter(|(_, told)| of(told) && over(told))
                .min_by_key(|(_, told)| told.at)
                .map(|(job, _)| *job);
            if droppable.is_none_or(|job| self.jobs.remove(&job).is_none()) {
                return false;
            }
        }
    }

    /// A coordinator is gone: its jobs stay as they were last seen, for a while.
    pub fn handle_lost(&mut self, coordinator: DeviceId, now: Instant) {
        let of = |told: &&mut Told| told.status.coordinator == coordinator && !told.lost;
        for told in self.jobs.values_mut().filter(of) {
            told.lost = true;
            told.forget_at = told.forget_at.min(now + KEPT);
            told.status.seconds += running_since(told, now);
            told.at = now;
        }
    }

    /// Drops what is too old.
    pub fn handle_time(&mut self, now: Instant) {
        self.jobs.retain(|_, told| now < told.forget_at);
    }

    /// When to call [`RemoteJobs::handle_time`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.jobs.values().map(|told| told.forget_at).min()
    }

    /// Forgets a job.
    pub fn forget(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// The status of a job as of now.
    pub fn status(&self, job: JobId, now: Instant) -> Option<JobStatus> {
        self.jobs.get(&job).map(|told| current(told, now))
    }

    /// How a job ended, as its coordinator told.
    pub fn ended(&self, job: JobId) -> Option<&JobStatus> {
        let status = self.jobs.get(&job).map(|told| &told.status);
        status.filter(|status| status.state.has_ended())
    }

    /// All statuses as of now.
    pub fn all(&self, now: Instant) -> impl Iterator<Item = JobStatus> {
        self.jobs.values().map(move |told| current(told, now))
    }
}

fn current(told: &Told, now: Instant) -> JobStatus {
    let mut status = told.status.clone();
    status.seconds += running_since(told, now);
    status
}

fn running_since(told: &Told, now: Instant) -> f64 {
    let running = matches!(told.status.state, JobState::Queued | JobState::Running);
    if running && !told.lost {
        (now - told.at).as_secs_f64()
    } else {
        0.0
    }
}
