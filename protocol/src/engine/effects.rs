//! What the machines ask for, carried out: sent, handed to the shell, or to another machine.

use super::*;
use crate::io::DoneTile;
use crate::status::Happening;

impl<P: Clone> Engine<P> {
    /// Carries out what the machines ask for until none asks for more.
    pub(super) fn settle(&mut self, now: Instant) {
        self.membership.handle_time(now);
        self.worker.handle_time(now);
        loop {
            self.settle_membership(now);
            self.watch_guarded(now);
            let ids: Vec<JobId> = self.jobs.keys().copied().collect();
            for id in ids {
                self.with_job(id, |job| job.handle_time(now));
                self.drain_job(id, now);
            }
            self.drain_backups(now);
            self.drain_closing(now);
            self.drain_amends(now);
            self.drain_worker();
            let mut quiet = true;
            while let Some((body, payload)) = self.inner.pop_front() {
                quiet = false;
                self.deliver_inner(body, payload, now);
                self.drain_worker();
            }
            // What the worker computed may be for them.
            self.drain_backups(now);
            if quiet && self.inner.is_empty() {
                break;
            }
        }
        self.remote.handle_time(now);
        let busy = self.worker.active_slots() > 0;
        let state = match (self.paused, busy) {
            (true, _) => DeviceState::Paused,
            (false, true) => DeviceState::Busy,
            (false, false) => DeviceState::Ready,
        };
        self.membership
            .change_record(false, |record| record.state = state);
        self.membership.tell_news(now);
        self.settle_membership(now);
    }

    /// A message from this device to itself.
    pub(super) fn deliver_inner(&mut self, body: Message, payload: Option<(P, u64)>, now: Instant) {
        let me = self.me();
        match body {
            Message::Pull { job, .. }
            | Message::Return { job, .. }
            | Message::Fetch { job, .. }
            | Message::Result { job, .. } => {
                if self.jobs.contains_key(&job) {
                    self.hand_to_job(me, body, payload, now);
                    self.drain_job(job, now);
                } else if !self.backups.contains_key(&job) {
                    self.inner.push_back((Message::Closed { job }, None));
                }
            }
            Message::Resume { .. } => {
                self.deliver_replication(me, body, now);
            }
            body => self.worker.handle_control(me, body, now),
        }
    }

    pub(super) fn settle_membership(&mut self, now: Instant) {
        let mut changed = false;
        while let Some(effect) = self.membership.poll_effect() {
            match effect {
                membership::Effect::Send(link, header) => self.outputs.push_back(Output::Send {
                    link,
                    header: *header,
                    payload: None,
                }),
                membership::Effect::Close(link, reason) => {
                    // What the worker and the jobs hold is settled before frames of a new link.
                    self.outputs.push_back(Output::Close { link, reason });
                }
                membership::Effect::Dial(address) => {
                    self.outputs.push_back(Output::Dial { address });
                }
                membership::Effect::Joined(address, outcome) => {
                    self.outputs.push_back(Output::Joined { address, outcome });
                }
                membership::Effect::Welcomed(link, device) => {
                    // A page has no other source, so it is told of all jobs.
                    let page = self.membership.record_of(device);
                    let page = page.is_some_and(|record| record.via.is_some());
                    let jobs = if page {
                        self.jobs(now)
                    } else {
                        self.own_jobs(now)
                    };
                    for jobs in jobs.chunks(remote::NEWS_MAX) {
                        let jobs = jobs.iter().cloned().map(guarded::for_others).collect();
                        self.send_on(link, device, Message::Jobs { jobs }, None);
                    }
                }
                membership::Effect::Rate(device, rate) => {
                    self.speeds.set_link(device, rate);
                    self.measure(device, now);
                }
                membership::Effect::Changed => changed = true,
            }
        }
        if changed {
            self.outputs.push_back(Output::DevicesChanged);
            self.update_links(now);
            self.update_routes(now);
        }
    }

    /// Tells jobs and worker who came, went, or is reached another way: what was in flight on the
    /// old way is lost.
    pub(super) fn update_routes(&mut self, now: Instant) {
        let reachable = self.membership.reachable();
        let before = std::mem::take(&mut self.reached);
        for (device, (link, record)) in &before {
            let same = reachable
                .get(device)
                .is_some_and(|(l, r)| l == link && r.incarnation == record.incarnation);
            if !same {
                let gone = !reachable.contains_key(device);
                self.holdings.forget(*device);
                let died = gone && !self.membership.left_on_purpose(*device);
                for job in self.jobs.values_mut() {
                    job.leave(*device, died, now);
                }
                self.worker.handle_coordinator_lost(*device, now);
                if gone {
                    self.remote.handle_lost(*device, now);
                }
            }
        }
        let joined: Vec<DeviceRecord> = reachable
            .iter()
            .filter(|(device, (link, record))| {
                before
                    .get(device)
                    .is_none_or(|(l, r)| l != link || r != record)
            })
            .map(|(_, (_, record))| record.clone())
            .collect();
        self.reached = reachable;
        for record in joined {
            self.measure_record(&record, now);
            if !self.quarantined.contains(&record.device) {
                let direct = self.is_direct(record.device);
                for job in self.jobs.values_mut() {
                    if direct || job.header().share.is_none() {
                        job.join(record.clone(), now);
                    }
                }
            }
        }
    }

    pub(super) fn drain_worker(&mut self) {
        while let Some(effect) = self.worker.poll_effect() {
            let output = match effect {
                worker::Effect::Send { to, body, payload } => {
                    self.keep_result(to, &body, payload.as_ref());
                    self.send(to, body, payload);
                    continue;
                }
                worker::Effect::Keep {
                    job,
                    operand,
                    block,
                    id,
                    payload,
                } => Output::Keep {
                    job,
                    operand,
                    block,
                    id,
                    payload,
                },
                worker::Effect::Load {
                    job,
                    operand,
                    blocks,
                } => Output::Load {
                    job,
                    operand,
                    blocks,
                },
                worker::Effect::Evict(id) => Output::Evict { id },
                worker::Effect::Compute(task) => Output::Compute(task),
                worker::Effect::Abort(slot) => Output::Abort { slot },
            };
            self.outputs.push_back(output);
        }
    }

    /// A backup has what its own worker computes: nobody needs to copy it.
    fn keep_result(&mut self, to: DeviceId, body: &Message, payload: Option<&(P, u64)>) {
        let Message::Result {
            job, tile, work, ..
        } = body
        else {
            return;
        };
        let own = self.membership.record().clone();
        let device = own.device;
        if let (Some(backup), Some((payload, _))) = (self.backups.get_mut(job), payload)
            && to != device
        {
            let (tile, work) = (*tile, *work);
            backup.keep(&own, DoneTile { tile, device, work }, payload.clone());
        }
    }

    pub(super) fn drain_job(&mut self, id: JobId, now: Instant) {
        let mut ended = None;
        let share = self.jobs.get(&id).and_then(|job| job.header().share);
        while let Some(effect) = self.jobs.get_mut(&id).and_then(Scheduler::poll_effect) {
            match effect {
                effect if share.is_some() && effect.is_told() => {
                    // People hear of the product alone.
                    let product = share.map(|share| share.product);
                    product
                        .into_iter()
                        .for_each(|job| self.with_job(job, Scheduler::nudge));
                }
                scheduler::Effect::Ended if share.is_some() => {
                    self.jobs.remove(&id);
                    self.drop_share(id);
                }
                scheduler::Effect::Send(to, body) => self.send(to, body, None),
                scheduler::Effect::Serve(to, operand, blocks) => {
                    if let Some(link) = self.membership.route(to) {
                        self.book_sent(id, to, operand, &blocks);
                        self.outputs.push_back(Output::Serve {
                            link,
                            to,
                            job: id,
                            operand,
                            blocks,
                        });
                    }
                }
                scheduler::Effect::Verify(tile, lease, payload) => {
                    self.outputs.push_back(Output::Verify {
                        job: id,
                        tile,
                        lease,
                        payload,
                    });
                }
                scheduler::Effect::Persist(done, contributor, expected, payload) => {
                    self.outputs.push_back(Output::Persist {
                        job: id,
                        done,
                        contributor,
                        expected,
                        payload,
                    });
                }
                scheduler::Effect::FetchTile(tile, from) => {
                    self.outputs.push_back(Output::FetchTile {
                        job: id,
                        tile,
                        from,
                    });
                }
                scheduler::Effect::Backups(backups) => {
                    self.outputs.push_back(Output::Backups { job: id, backups });
                }
                scheduler::Effect::Moment(moment) => {
                    self.outputs.push_back(Output::Moment { job: id, moment });
                }
                scheduler::Effect::Finish => self.outputs.push_back(Output::Finish { job: id }),
                scheduler::Effect::Ended => ended = Some(self.status_of(&self.jobs[&id], now)),
                scheduler::Effect::Quarantined(device, tile) => {
                    self.quarantine(device, id, tile, now);
                }
                scheduler::Effect::Changed => {
                    self.outputs.push_back(Output::JobChanged { job: id });
                }
                scheduler::Effect::News => self.tell(self.status_of(&self.jobs[&id], now)),
            }
        }
        if let Some(status) = ended {
            self.end_shares(id, now);
            self.guarded.remove(&id);
            if let Some(job) = self.jobs.remove(&id) {
                self.speeds.learn(Kind::of(job.header()), &status);
                self.close(id, job.into_log(), now);
            }
            self.tell(status.clone());
            self.outputs.push_back(Output::Ended {
                status: Box::new(status.clone()),
            });
            self.outputs.push_back(Output::JobChanged { job: id });
            self.ended.insert(id, status);
        }
    }

    pub(super) fn quarantine(&mut self, device: DeviceId, job: JobId, tile: u32, now: Instant) {
        if self.quarantined.len() < QUARANTINED_MAX {
            self.quarantined.insert(device);
        }
        for job in self.jobs.values_mut() {
            job.leave(device, false, now);
        }
        let share = self.jobs.get(&job).and_then(|job| job.header().share);
        if let Some(share) = share {
            let name = self.name_of(device);
            self.with_job(share.product, |product| {
                product.happened(Happening::Quarantined, device, &name, now);
            });
        }
        self.outputs
            .push_back(Output::Quarantined { device, job, tile });
    }

    /// Sends the news of an own job to nodes and attached pages.
    pub(super) fn tell(&mut self, status: JobStatus) {
        let status = guarded::for_others(status);
        let audience: Vec<(LinkId, DeviceId)> = self.membership.audience().collect();
        for (link, device) in audience {
            let jobs = vec![status.clone()];
            self.send_on(link, device, Message::Jobs { jobs }, None);
        }
    }

    /// News of another node's job: for this node's people and for its pages.
    pub(super) fn pass_on(&mut self, job: JobId, now: Instant) {
        if self.coordinates(job) {
            return;
        }
        self.outputs.push_back(Output::JobChanged { job });
        let Some(status) = self.remote.status(job, now) else {
            return;
        };
        let pages: Vec<(LinkId, DeviceId)> = self.membership.pages().collect();
        for (link, page) in pages {
            let jobs = vec![status.clone()];
            self.send_on(link, page, Message::Jobs { jobs }, None);
        }
    }

    pub(super) fn send(&mut self, to: DeviceId, body: Message, payload: Option<(P, u64)>) {
        if to == self.me() {
            self.inner.push_back((body, payload));
        } else if let Some(link) = self.membership.route(to) {
            // To somebody who can not be reached nothing is said: whoever waits for it learns
            // from the loss of the route.
            self.send_on(link, to, body, payload.map(|(payload, _)| payload));
        }
    }

    pub(super) fn send_on(
        &mut self,
        link: LinkId,
        to: DeviceId,
        body: Message,
        payload: Option<P>,
    ) {
        let from = self.me();
        self.outputs.push_back(Output::Send {
            link,
            header: Header { from, to, body },
            payload,
        });
    }
}
