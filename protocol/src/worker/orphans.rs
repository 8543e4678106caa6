//! Jobs whose coordinator is lost. What is computed goes on for a while, and results that nobody
//! has judged are kept: whoever takes the job over gets both, so that nothing is computed twice.

use super::*;

/// How long a job without a coordinator is worth a slot.
const ORPHAN_MAX: Span = Span::from_secs(10);
/// Results kept until their coordinator has judged them.
const UNSETTLED_MAX: usize = 64;

/// Results on their way.
#[derive(Debug)]
pub(super) struct Unsettled<P> {
    results: BTreeMap<(JobId, LeaseId), Unjudged<P>>,
    order: VecDeque<(JobId, LeaseId)>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Unjudged<P> {
    tile: u32,
    work: Work,
    payload: P,
    bytes: u64,
}

impl<P> Unsettled<P> {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            results: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub fn put(
        &mut self,
        job: JobId,
        lease: LeaseId,
        tile: u32,
        work: Work,
        (payload, bytes): (P, u64),
    ) {
        let unjudged = Unjudged {
            tile,
            work,
            payload,
            bytes,
        };
        self.bytes += bytes;
        self.order.push_back((job, lease));
        if let Some(before) = self.results.insert((job, lease), unjudged) {
            self.bytes -= before.bytes;
        }
        while self.results.len() > UNSETTLED_MAX || self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.remove(oldest);
        }
        // What was judged leaves its place behind.
        if self.order.len() > 4 * UNSETTLED_MAX {
            let results = &self.results;
            self.order.retain(|key| results.contains_key(key));
        }
    }

    pub fn settle(&mut self, job: JobId, lease: LeaseId) {
        self.remove((job, lease));
    }

    pub fn forget(&mut self, job: JobId) {
        let of: Vec<(JobId, LeaseId)> = self
            .results
            .keys()
            .filter(|(of, _)| *of == job)
            .copied()
            .collect();
        for key in of {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: (JobId, LeaseId)) {
        if let Some(unjudged) = self.results.remove(&key) {
            self.bytes -= unjudged.bytes;
        }
    }
}

impl<P: Clone> Worker<P> {
    /// A coordinator is gone, or is reached another way: what it had sent is lost. Tiles that are
    /// being computed go on; it, or who takes over, says Open.
    pub fn handle_coordinator_lost(&mut self, coordinator: DeviceId, now: Instant) {
        let gone = |(id, job): (&JobId, &Job)| (job.coordinator == coordinator).then_some(*id);
        let lost: Vec<JobId> = self.jobs.iter().filter_map(gone).collect();
        for id in lost {
            self.orphan(id, now);
        }
        self.forget_requests(|request| request.coordinator == coordinator, now);
        self.pump(now);
    }

    /// This device does not coordinate the job any more; it knows of nobody who does.
    pub fn handle_stepped_down(&mut self, job: JobId, now: Instant) {
        if self.jobs.contains_key(&job) {
            self.orphan(job, now);
            self.pump(now);
        }
    }

    fn orphan(&mut self, id: JobId, now: Instant) {
        let job = self.jobs.get_mut(&id).expect("a job that is known");
        job.pulled = 0;
        job.exhausted = false;
        job.orphaned.get_or_insert(now);
        let waits = |lease: &Lease| lease.job == id && lease.slot.is_none();
        let waiting = self.leases.iter().filter(|(_, lease)| waits(lease));
        let waiting: Vec<u64> = waiting.map(|(key, _)| *key).collect();
        for key in waiting {
            self.drop_lease(key, now);
        }
        let works = self.leases.values().any(|lease| lease.job == id);
        if !works && !self.unsettled.results.keys().any(|(of, _)| *of == id) {
            self.drop_job(id, now);
        }
    }

    /// A job has another coordinator, or its own again: it gets what was meant for the one before.
    pub(super) fn redirect(&mut self, id: JobId, epoch: Epoch, now: Instant) {
        let job = self.jobs.get_mut(&id).expect("a job that is known");
        let before = job.coordinator;
        job.coordinator = epoch.device;
        job.epoch = epoch;
        job.pulled = 0;
        job.exhausted = false;
        job.orphaned = None;
        job.heard = now;
        if before != epoch.device {
            job.confirmed = job.header.is_none();
            self.forget_requests(|request| request.job == id, now);
        }
        let leases = self.leases.values().filter(|lease| lease.job == id);
        let grants: Vec<Grant> = leases.map(|lease| lease.grant).collect();
        if !grants.is_empty() {
            let body = Message::Resume {
                job: id,
                epoch,
                grants,
            };
            self.effects.push_back(Effect::Send {
                to: epoch.device,
                body,
                payload: None,
            });
        }
        for ((job, lease), unjudged) in &self.unsettled.results {
            if *job == id {
                self.effects.push_back(Effect::Send {
                    to: epoch.device,
                    body: Message::Result {
                        job: id,
                        epoch,
                        lease: *lease,
                        tile: unjudged.tile,
                        work: unjudged.work,
                    },
                    payload: Some((unjudged.payload.clone(), unjudged.bytes)),
                });
            }
        }
    }

    pub(super) fn orphans_timeout(&self) -> Option<Instant> {
        let orphans = self.jobs.values().filter_map(|job| job.orphaned);
        orphans.map(|since| since + ORPHAN_MAX).min()
    }

    pub(super) fn drop_orphans(&mut self, now: Instant) {
        let over = |job: &Job| job.orphaned.is_some_and(|at| now >= at + ORPHAN_MAX);
        let over: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| over(job))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.drop_job(id, now);
        }
    }
}
