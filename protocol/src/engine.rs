//! The engine of a node: membership, the jobs it coordinates and its own worker, composed.
//!
//! The machines do not know each other. What one says to another goes through here, as the same
//! messages that travel between devices: the own worker is to the own jobs a worker like any other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::{DeviceId, JobId};
use crate::io::{Config, DoneTile, Input, LinkId, Output};
use crate::job::JobHeader;
use crate::membership::{self, Fate, Membership};
use crate::message::{DeviceRecord, Header, Message};
use crate::prng::Prng;
use crate::remote::{self, RemoteJobs};
use crate::scheduler::{self, Scheduler};
use crate::status::{DeviceEntry, DeviceState, JobStatus};
use crate::time::{Instant, Span, WallTime};
use crate::timer::earliest;
use crate::worker::{self, Worker};

/// A node's part of the protocol, as a function of inputs, time and seed.
///
/// Calling order: [`Engine::handle`] one input, then [`Engine::poll_output`] until it is empty, then
/// wait for the next input or until [`Engine::poll_timeout`], whichever is first (then
/// [`Input::Tick`]).
#[derive(Debug)]
pub struct Engine<P> {
    membership: Membership,
    worker: Worker<P>,
    jobs: BTreeMap<JobId, Scheduler<P>>,
    /// Own jobs that have ended.
    ended: BTreeMap<JobId, JobStatus>,
    remote: RemoteJobs,
    /// Devices that returned a wrong tile.
    quarantined: BTreeSet<DeviceId>,
    /// By which link devices were last reached, and the record that the jobs know.
    reached: BTreeMap<DeviceId, (LinkId, DeviceRecord)>,
    /// The route of own messages between the machines.
    inner: VecDeque<(Message, Option<(P, u64)>)>,
    paused: bool,
    prng: Prng,
    outputs: VecDeque<Output<P>>,
}

/// The most devices in quarantine; the list is for a mesh, not for the world.
const QUARANTINED_MAX: usize = 4_096;

impl<P: Clone> Engine<P> {
    /// A device that has just started.
    pub fn new(config: Config, now: Instant) -> Self {
        let record = &config.record;
        let mut worker = Worker::new(
            record.device,
            record.slots,
            record.classes.clone(),
            config.cache_bytes,
            now,
        );
        let paused = config.record.state == DeviceState::Paused;
        if paused {
            worker.configure(config.record.slots, true, now);
        }
        Self {
            membership: Membership::new(&config, now),
            worker,
            jobs: BTreeMap::new(),
            ended: BTreeMap::new(),
            remote: RemoteJobs::default(),
            quarantined: BTreeSet::new(),
            reached: BTreeMap::new(),
            inner: VecDeque::new(),
            paused,
            prng: Prng::new(config.seed ^ 0x006c_6561_7365),
            outputs: VecDeque::new(),
        }
    }

    /// Something happened. Cost: bounded by the size of the input and the number of devices and
    /// leases.
    pub fn handle(&mut self, input: Input<P>, now: Instant) {
        self.dispatch(input, now);
        self.settle(now);
    }

    /// What to do next; `None` when all is done.
    pub fn poll_output(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    /// When to call [`Engine::handle`] with [`Input::Tick`] if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let jobs = self.jobs.values().filter_map(Scheduler::poll_timeout).min();
        let own = earliest(self.membership.poll_timeout(), self.worker.poll_timeout());
        earliest(earliest(own, jobs), self.remote.poll_timeout())
    }

    /// The status of a job, own or of another node.
    pub fn job_status(&self, job: JobId, now: Instant) -> Option<JobStatus> {
        let own = self.jobs.get(&job).map(|job| job.status(now));
        own.or_else(|| self.ended.get(&job).cloned())
            .or_else(|| self.remote.status(job, now))
    }

    /// The status of every job known, own and of other nodes, newest first.
    pub fn jobs(&self, now: Instant) -> Vec<JobStatus> {
        let mut jobs: Vec<JobStatus> = self.own_jobs(now);
        let own = |job: JobId| self.coordinates(job);
        jobs.extend(self.remote.all(now).filter(|status| !own(status.job)));
        jobs.sort_by_key(|status| std::cmp::Reverse((status.submitted, status.job)));
        jobs
    }

    fn own_jobs(&self, now: Instant) -> Vec<JobStatus> {
        let running = self.jobs.values().map(|job| job.status(now));
        running.chain(self.ended.values().cloned()).collect()
    }

    /// Whether this node took the job.
    pub fn coordinates(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job) || self.ended.contains_key(&job)
    }

    /// The header of a job that runs here; `None` once it has ended.
    pub fn header(&self, job: JobId) -> Option<&JobHeader> {
        self.jobs.get(&job).map(Scheduler::header)
    }

    /// Every device of the mesh, this one first, lost ones for a minute.
    pub fn devices(&self) -> Vec<DeviceEntry> {
        self.membership.entries()
    }

    /// The records of the other nodes that are connected.
    pub fn peers(&self) -> impl Iterator<Item = &DeviceRecord> {
        self.membership.peers()
    }

    /// What this device says of itself.
    pub fn record(&self) -> &DeviceRecord {
        self.membership.record()
    }

    fn me(&self) -> DeviceId {
        self.membership.record().device
    }

    fn dispatch(&mut self, input: Input<P>, now: Instant) {
        match input {
            Input::LinkUp {
                link,
                door,
                dialled,
            } => self.membership.handle_link_up(link, door, dialled, now),
            Input::LinkDown { link } => self.membership.handle_link_down(link, now),
            Input::Frame {
                link,
                header,
                payload,
                payload_bytes,
            } => self.handle_frame(link, header, payload, payload_bytes, now),
            Input::Hint {
                address,
                device,
                keep,
            } => self.membership.handle_hint(address, device, keep, now),
            Input::DialFailed { address } => self.membership.handle_dial_failed(&address, now),
            Input::Submit { header, submitted } => {
                self.take_job(*header, submitted, Span(0), Vec::new(), &[], now);
            }
            Input::Restore {
                header,
                submitted,
                elapsed,
                done,
                contributors,
                ended,
            } => match ended {
                Some(status) => {
                    self.ended.insert(header.job, status);
                    self.outputs
                        .push_back(Output::JobChanged { job: header.job });
                }
                None => self.take_job(*header, submitted, elapsed, done, &contributors, now),
            },
            Input::Cancel { job } => self.with_job(job, |job| job.cancel(now)),
            Input::Fail { job, reason } => self.with_job(job, |job| job.fail(reason, now)),
            Input::Forget { job } => self.forget(job, now),
            Input::Verified {
                job,
                tile,
                lease,
                valid,
                payload,
            } => self.with_job(job, |job| {
                job.handle_verified(tile, lease, valid, payload, now);
            }),
            Input::Persisted { job, tile } => {
                self.with_job(job, |job| job.handle_persisted(tile, now));
            }
            Input::Finished { job, result } => {
                self.with_job(job, |job| job.handle_finished(result, now));
            }
            Input::Traffic { job, bytes } => self.with_job(job, |job| job.handle_traffic(bytes)),
            Input::BlockReady {
                job,
                operand,
                block,
            } => self.worker.handle_block_ready(job, operand, block, now),
            Input::BlockBad {
                job,
                operand,
                block,
            } => self.worker.handle_block_bad(job, operand, block, now),
            Input::SlabDone {
                slot,
                kernel,
                result,
            } => self.worker.handle_slab_done(slot, kernel, result, now),
            Input::SlotFailed { slot } => self.worker.handle_slot_failed(slot, now),
            Input::Configure {
                name,
                slots,
                paused,
                mflops,
            } => self.configure(name, slots, paused, mflops, now),
            Input::Leave => self.leave(now),
            Input::Tick => {}
        }
    }

    fn handle_frame(
        &mut self,
        link: LinkId,
        header: Header,
        payload: P,
        payload_bytes: u64,
        now: Instant,
    ) {
        match self.membership.handle_frame(link, &header, now) {
            Fate::Consumed => {}
            Fate::Forward(link) => {
                let carries = matches!(header.body, Message::Block { .. } | Message::Result { .. });
                self.outputs.push_back(Output::Send {
                    link,
                    header,
                    payload: carries.then_some(payload),
                });
            }
            Fate::Deliver => {
                // Routes may have changed with this very frame's link.
                self.settle_membership(now);
                let from = header.from;
                self.deliver(link, from, header.body, payload, payload_bytes, now);
            }
        }
    }

    /// A message for the machines of this device.
    fn deliver(
        &mut self,
        link: LinkId,
        from: DeviceId,
        body: Message,
        payload: P,
        payload_bytes: u64,
        now: Instant,
    ) {
        match body {
            Message::Pull { job, .. }
            | Message::Return { job, .. }
            | Message::Fetch { job, .. }
            | Message::Result { job, .. } => {
                if self.jobs.contains_key(&job) {
                    self.hand_to_job(from, body, Some((payload, payload_bytes)), now);
                } else {
                    // It has ended, or this node was restarted without it.
                    self.send(from, Message::Closed { job }, None);
                }
            }
            Message::Jobs { jobs } => match self.remote.handle_news(from, jobs, now) {
                Ok(changed) => {
                    for job in changed {
                        self.pass_on(job, now);
                    }
                }
                Err(remote::Invalid) => self.membership.fault(link, now),
            },
            _ => self.worker.handle_message(from, body, payload, now),
        }
    }

    /// News of another node's job: for this node's people and for its pages.
    fn pass_on(&mut self, job: JobId, now: Instant) {
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

    /// A worker, own or other, speaks to a job of this node.
    fn hand_to_job(
        &mut self,
        from: DeviceId,
        body: Message,
        payload: Option<(P, u64)>,
        now: Instant,
    ) {
        match body {
            Message::Pull {
                job,
                leases,
                header,
            } => self.with_job(job, |job| job.handle_pull(from, leases, header, now)),
            Message::Return {
                job,
                leases,
                failed,
            } => self.with_job(job, |job| job.handle_return(from, &leases, failed, now)),
            Message::Fetch {
                job,
                operand,
                blocks,
            } => self.with_job(job, |job| job.handle_fetch(from, operand, blocks)),
            Message::Result {
                job,
                lease,
                tile,
                work,
                ..
            } => {
                let Some((payload, bytes)) = payload else {
                    return;
                };
                self.with_job(job, |job| {
                    job.handle_result(from, lease, tile, work, payload, bytes, now);
                });
            }
            _ => {}
        }
    }

    /// Jobs that are gone need not hear anything.
    fn with_job(&mut self, job: JobId, change: impl FnOnce(&mut Scheduler<P>)) {
        if let Some(job) = self.jobs.get_mut(&job) {
            change(job);
        }
    }

    fn take_job(
        &mut self,
        header: JobHeader,
        submitted: WallTime,
        elapsed: Span,
        done: Vec<DoneTile>,
        contributors: &[DeviceRecord],
        now: Instant,
    ) {
        let id = header.job;
        if self.coordinates(id) {
            return;
        }
        // Half the range is left for counting up.
        let first_lease = self.prng.next_u64() >> 1;
        let own = self.membership.record().clone();
        let mut job = Scheduler::new(&own, header, submitted, elapsed, first_lease, now);
        job.restore(done, contributors);
        let others = self.reached.values().map(|(_, record)| record);
        let others = others.filter(|record| !self.quarantined.contains(&record.device));
        job.start(std::iter::once(own).chain(others.cloned()).collect(), now);
        self.jobs.insert(id, job);
    }

    fn forget(&mut self, job: JobId, now: Instant) {
        self.with_job(job, |job| job.cancel(now));
        self.drain_job(job, now);
        self.ended.remove(&job);
        self.remote.forget(job);
    }

    fn configure(
        &mut self,
        name: Option<String>,
        slots: Option<u32>,
        paused: Option<bool>,
        mflops: Option<f64>,
        now: Instant,
    ) {
        self.paused = paused.unwrap_or(self.paused);
        let paused = self.paused;
        self.membership.change_record(true, |record| {
            if let Some(name) = name {
                record.name = name;
            }
            record.slots = slots.unwrap_or(record.slots);
            record.mflops = mflops.unwrap_or(record.mflops);
            record.state = match (paused, record.state) {
                (true, _) => DeviceState::Paused,
                (false, DeviceState::Paused) => DeviceState::Ready,
                (false, state) => state,
            };
        });
        let slots = self.membership.record().slots;
        self.worker.configure(slots, paused, now);
        let own = self.membership.record().clone();
        let others: Vec<DeviceRecord> = self.reached.values().map(|(_, r)| r.clone()).collect();
        for job in self.jobs.values_mut() {
            job.join(own.clone(), now);
            // A short job that the own slots can not do is for everybody.
            for record in &others {
                if !self.quarantined.contains(&record.device) {
                    job.join(record.clone(), now);
                }
            }
        }
    }

    fn leave(&mut self, now: Instant) {
        self.worker.leave(now);
        // Leases go back before the goodbyes.
        self.settle(now);
        self.membership.leave();
    }

    // -- effects --

    /// Carries out what the machines ask for until none asks for more.
    fn settle(&mut self, now: Instant) {
        self.membership.handle_time(now);
        self.worker.handle_time(now);
        loop {
            self.settle_membership(now);
            let ids: Vec<JobId> = self.jobs.keys().copied().collect();
            for id in ids {
                self.with_job(id, |job| job.handle_time(now));
                self.drain_job(id, now);
            }
            self.drain_worker();
            let mut quiet = true;
            while let Some((body, payload)) = self.inner.pop_front() {
                quiet = false;
                self.deliver_inner(body, payload, now);
                self.drain_worker();
            }
            if quiet {
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
    fn deliver_inner(&mut self, body: Message, payload: Option<(P, u64)>, now: Instant) {
        let me = self.me();
        match body {
            Message::Pull { job, .. }
            | Message::Return { job, .. }
            | Message::Fetch { job, .. }
            | Message::Result { job, .. } => {
                if self.jobs.contains_key(&job) {
                    self.hand_to_job(me, body, payload, now);
                    self.drain_job(job, now);
                } else {
                    self.inner.push_back((Message::Closed { job }, None));
                }
            }
            body => self.worker.handle_control(me, body, now),
        }
    }

    fn settle_membership(&mut self, now: Instant) {
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
                        let jobs = jobs.to_vec();
                        self.send_on(link, device, Message::Jobs { jobs }, None);
                    }
                }
                membership::Effect::Changed => changed = true,
            }
        }
        if changed {
            self.outputs.push_back(Output::DevicesChanged);
            self.update_routes(now);
        }
    }

    /// Tells jobs and worker who came, went, or is reached another way: what was in flight on the
    /// old way is lost.
    fn update_routes(&mut self, now: Instant) {
        let reachable = self.membership.reachable();
        let before = std::mem::take(&mut self.reached);
        for (device, (link, record)) in &before {
            let same = reachable
                .get(device)
                .is_some_and(|(l, r)| l == link && r.incarnation == record.incarnation);
            if !same {
                let gone = !reachable.contains_key(device);
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
            if !self.quarantined.contains(&record.device) {
                for job in self.jobs.values_mut() {
                    job.join(record.clone(), now);
                }
            }
        }
    }

    fn drain_worker(&mut self) {
        while let Some(effect) = self.worker.poll_effect() {
            let output = match effect {
                worker::Effect::Send { to, body, payload } => {
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

    fn drain_job(&mut self, id: JobId, now: Instant) {
        let mut ended = None;
        while let Some(effect) = self.jobs.get_mut(&id).and_then(Scheduler::poll_effect) {
            match effect {
                scheduler::Effect::Send(to, body) => self.send(to, body, None),
                scheduler::Effect::Serve(to, operand, blocks) => {
                    if let Some(link) = self.membership.route(to) {
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
                scheduler::Effect::Persist(done, contributor, payload) => {
                    self.outputs.push_back(Output::Persist {
                        job: id,
                        done,
                        contributor,
                        payload,
                    });
                }
                scheduler::Effect::Finish => self.outputs.push_back(Output::Finish { job: id }),
                scheduler::Effect::Ended => ended = Some(self.jobs[&id].status(now)),
                scheduler::Effect::Quarantined(device, tile) => {
                    self.quarantine(device, id, tile, now);
                }
                scheduler::Effect::Changed => {
                    self.outputs.push_back(Output::JobChanged { job: id });
                }
                scheduler::Effect::News => self.tell(self.jobs[&id].status(now)),
            }
        }
        if let Some(status) = ended {
            self.jobs.remove(&id);
            self.tell(status.clone());
            self.outputs.push_back(Output::Ended {
                status: Box::new(status.clone()),
            });
            self.outputs.push_back(Output::JobChanged { job: id });
            self.ended.insert(id, status);
        }
    }

    fn quarantine(&mut self, device: DeviceId, job: JobId, tile: u32, now: Instant) {
        if self.quarantined.len() < QUARANTINED_MAX {
            self.quarantined.insert(device);
        }
        for job in self.jobs.values_mut() {
            job.leave(device, false, now);
        }
        self.outputs
            .push_back(Output::Quarantined { device, job, tile });
    }

    /// Sends the news of an own job to nodes and attached pages.
    fn tell(&mut self, status: JobStatus) {
        let audience: Vec<(LinkId, DeviceId)> = self.membership.audience().collect();
        for (link, device) in audience {
            let jobs = vec![status.clone()];
            self.send_on(link, device, Message::Jobs { jobs }, None);
        }
    }

    fn send(&mut self, to: DeviceId, body: Message, payload: Option<(P, u64)>) {
        if to == self.me() {
            self.inner.push_back((body, payload));
        } else if let Some(link) = self.membership.route(to) {
            // To somebody who can not be reached nothing is said: whoever waits for it learns
            // from the loss of the route.
            self.send_on(link, to, body, payload.map(|(payload, _)| payload));
        }
    }

    fn send_on(&mut self, link: LinkId, to: DeviceId, body: Message, payload: Option<P>) {
        let from = self.me();
        self.outputs.push_back(Output::Send {
            link,
            header: Header { from, to, body },
            payload,
        });
    }
}
