//! Jobs and leases: announced, asked for in turns, granted.

use super::*;

impl<P: Clone> Worker<P> {
    pub(super) fn handle_open(
        &mut self,
        from: DeviceId,
        job: JobId,
        epoch: Epoch,
        class: KernelClass,
        now: Instant,
    ) {
        if epoch.device != from || !self.classes.contains(&class) {
            return;
        }
        if let Some(known) = self.jobs.get(&job) {
            if known.epoch == epoch && known.orphaned.is_none() {
                self.jobs.get_mut(&job).expect("just found").exhausted = false;
            } else if epoch >= known.epoch {
                self.redirect(job, epoch, now);
            }
            return;
        }
        if self.jobs.len() >= JOBS_MAX {
            return;
        }
        let state = Job {
            coordinator: from,
            epoch,
            class,
            header: None,
            confirmed: true,
            pulled: 0,
            exhausted: false,
            orphaned: None,
            heard: now,
            busy: Busy::default(),
        };
        self.jobs.insert(job, state);
    }

    pub(super) fn handle_header(&mut self, from: DeviceId, header: Box<JobHeader>, now: Instant) {
        let id = header.job;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let settled = job.header.is_some() && job.confirmed;
        if job.coordinator != from || settled || job.pulled == 0 {
            return;
        }
        job.heard = now;
        if header.check().is_err() || header.class != job.class {
            self.drop_job(id, now);
            return;
        }
        self.set_header(id, header, now);
    }

    /// This device coordinates the job itself and knows what it is.
    pub fn handle_own_header(&mut self, header: &JobHeader, now: Instant) {
        let known = self.jobs.get(&header.job).map(|job| job.header.is_some());
        if known == Some(true) {
            self.set_header(header.job, Box::new(header.clone()), now);
            self.pump(now);
        }
    }

    /// What was computed for another header, which somebody made up, is worth nothing.
    fn set_header(&mut self, id: JobId, header: Box<JobHeader>, now: Instant) {
        let job = self.jobs.get_mut(&id).expect("a job that is known");
        job.confirmed = true;
        if job.header.as_ref() == Some(&header) {
            return;
        }
        if job.header.replace(header).is_some() {
            self.return_where(|lease| lease.job == id, false, now);
            self.drop_work(id, now);
        }
    }

    pub(super) fn handle_grants(
        &mut self,
        from: DeviceId,
        id: JobId,
        epoch: Epoch,
        grants: Vec<Grant>,
        now: Instant,
    ) {
        let (limits, budget) = (self.memory.tile_limits(), self.slab_budget());
        let job = self
            .jobs
            .get_mut(&id)
            .filter(|job| job.coordinator == from && job.epoch == epoch && job.pulled > 0);
        let Some(job) = job else {
            // Not asked for, or of a job that was dropped: the coordinator must know.
            let leases: Vec<LeaseId> = grants.iter().map(|grant| grant.lease).collect();
            self.send_return(from, id, leases, false);
            return;
        };
        job.heard = now;
        // Fewer than asked means that there are no more for now.
        job.exhausted = (grants.len() as u64) < u64::from(job.pulled);
        let asked = std::mem::take(&mut job.pulled);
        let Some(header) = job.header.as_deref() else {
            let leases: Vec<LeaseId> = grants.iter().map(|grant| grant.lease).collect();
            self.send_return(from, id, leases, false);
            return;
        };
        let (mut unwanted, mut failed) = (Vec::new(), Vec::new());
        let mut accepted = Vec::new();
        let tiles = header.tiling.len();
        for (n, grant) in grants.into_iter().enumerate().take(4_096) {
            let known = |lease: &Lease| lease.job == id && lease.grant.lease == grant.lease;
            if self.leases.values().any(known) {
                continue;
            }
            if u64::from(grant.tile) >= tiles || self.paused || n as u64 >= u64::from(asked) {
                unwanted.push(grant.lease);
                continue;
            }
            let rect = header.tiling.rect(u64::from(grant.tile));
            if !limits.fit(header, rect) {
                failed.push(grant.lease);
                continue;
            }
            let depth = slab::depth(header, rect, budget);
            let depth = match slab::resident_bytes(header, rect, depth) > limits.resident_bytes {
                true => slab::depth(header, rect, limits.slab_bytes),
                false => depth,
            };
            accepted.push((grant, rect, depth, Slab::new(header, rect, 0, depth)));
        }
        for (grant, rect, depth, slab) in accepted {
            let current = self.want(slab);
            self.sequence += 1;
            let lease = Lease {
                job: id,
                grant,
                rect,
                depth,
                slot: None,
                granted: now,
                kernel: Span(0),
                transfer: Span(0),
                current,
                ahead: None,
                looked_to: 0,
            };
            self.leases.insert(self.sequence, lease);
        }
        self.give_back(id, unwanted, false);
        self.give_back(id, failed, true);
    }

    /// Asks coordinators for leases, in turns, while the window has room.
    pub(super) fn pull(&mut self, now: Instant) {
        if self.paused {
            return;
        }
        let window = LEASES_PER_SLOT * self.slots.len() as u32;
        let pulled: u32 = self.jobs.values().map(|job| job.pulled).sum();
        let mut room = window.saturating_sub(pulled + self.leases.len() as u32);
        let willing = |job: &Job| !job.exhausted && job.pulled == 0 && job.orphaned.is_none();
        let mut turns = self.jobs.values().filter(|job| willing(job)).count() as u32;
        while room > 0 && turns > 0 {
            let after = (
                std::ops::Bound::Excluded(self.turn),
                std::ops::Bound::Unbounded,
            );
            let next = self
                .jobs
                .range(after)
                .chain(&self.jobs)
                .find(|(_, job)| willing(job))
                .map(|(id, _)| *id)
                .expect("a turn is left");
            self.make_room_for_header(next);
            let leases = room.div_ceil(turns);
            let job = self.jobs.get_mut(&next).expect("just found");
            if job.pulled == 0 {
                job.heard = now;
            }
            job.pulled = leases;
            self.turn = next;
            self.effects.push_back(Effect::Send {
                to: job.coordinator,
                body: Message::Pull {
                    job: next,
                    leases,
                    header: job.header.is_none() || !job.confirmed,
                },
                payload: None,
            });
            room -= leases;
            turns -= 1;
        }
    }

    /// Headers are large: only those of a few jobs are kept.
    pub(super) fn make_room_for_header(&mut self, wanted_by: JobId) {
        if self.jobs[&wanted_by].header.is_some() {
            return;
        }
        let leases = &self.leases;
        let kept = self.jobs.values().filter(|job| job.header.is_some());
        if kept.count() < HEADERS_MAX {
            return;
        }
        let unused = self.jobs.iter_mut().find(|(id, job)| {
            job.header.is_some()
                && job.pulled == 0
                && leases.values().all(|lease| lease.job != **id)
        });
        if let Some((_, job)) = unused {
            job.header = None;
        }
    }
}
