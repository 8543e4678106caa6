//! The engine of a node: membership, the jobs it coordinates and its own worker, composed.
//!
//! The machines do not know each other. What one says to another goes through here, as the same
//! messages that travel between devices: the own worker is to the own jobs a worker like any other.

mod briefing;
mod effects;
mod guarded;
mod replication;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::holdings::Holdings;
use crate::id::{DeviceId, JobId, MatrixId};
use crate::io::{Config, Input, LinkId, Output};
use crate::job::JobHeader;
use crate::membership::{self, Fate, Membership};
use crate::message::{DeviceRecord, Header, Message};
use crate::prng::Prng;
use crate::remote::{self, RemoteJobs};
use crate::replication::{Backup, Log, Taken};
use crate::scheduler::{self, Measured, Scheduler};
use crate::speeds::{Kind, Speeds};
use crate::status::{DeviceEntry, DeviceState, JobState, JobStatus};
use crate::time::{Instant, Span};
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
    /// Jobs that other nodes, or nobody, coordinates and this one could continue.
    backups: BTreeMap<JobId, Backup<P>>,
    /// Jobs that have ended and whose end backups have not all copied.
    closing: BTreeMap<JobId, Log>,
    /// Jobs that have ended, coordinated or backed up here.
    ended: BTreeMap<JobId, JobStatus>,
    amends: BTreeMap<JobId, replication::Amendment>,
    /// Jobs whose time is over.
    forgotten: replication::Forgotten,
    backups_max: usize,
    /// Nodes that are linked.
    linked: BTreeMap<DeviceId, LinkId>,
    remote: RemoteJobs,
    speeds: Speeds,
    holdings: Holdings,
    /// Products that are shared, and their shares among the jobs.
    guarded: BTreeMap<JobId, guarded::Guarded>,
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
    pub fn new(mut config: Config, now: Instant) -> Self {
        config.record.limits = config.memory.tile_limits();
        let record = &config.record;
        let mut worker = Worker::new(
            record.device,
            record.slots,
            record.classes.clone(),
            config.memory,
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
            backups: BTreeMap::new(),
            closing: BTreeMap::new(),
            ended: BTreeMap::new(),
            amends: BTreeMap::new(),
            forgotten: replication::Forgotten::default(),
            backups_max: config.backups,
            linked: BTreeMap::new(),
            remote: RemoteJobs::default(),
            speeds: Speeds::default(),
            holdings: Holdings::default(),
            guarded: BTreeMap::new(),
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
        let jobs = earliest(jobs, self.guarded_timeout());
        let own = earliest(self.membership.poll_timeout(), self.worker.poll_timeout());
        let others = earliest(self.remote.poll_timeout(), self.replication_timeout());
        earliest(earliest(own, jobs), others)
    }

    /// The status of a job, own or of another node.
    pub fn job_status(&self, job: JobId, now: Instant) -> Option<JobStatus> {
        let own = self.jobs.get(&job);
        let own = own.filter(|job| job.header().share.is_none());
        let own = own.map(|job| self.status_of(job, now));
        own.or_else(|| self.ended.get(&job).cloned())
            .or_else(|| self.remote.status(job, now))
            .or_else(|| self.backups.get(&job).map(|backup| backup.status(now)))
    }

    /// The status of every job known, own and of other nodes, newest first.
    pub fn jobs(&self, now: Instant) -> Vec<JobStatus> {
        let running = self.running(now);
        let mut jobs: Vec<JobStatus> = running.chain(self.ended.values().cloned()).collect();
        let own = |job: JobId| self.coordinates(job);
        jobs.extend(self.remote.all(now).filter(|status| !own(status.job)));
        let silent = |job: &JobId| self.remote.status(*job, now).is_none();
        let backups = self.backups.iter().filter(|(job, _)| silent(job));
        jobs.extend(backups.map(|(_, backup)| backup.status(now)));
        jobs.sort_by_key(|status| std::cmp::Reverse((status.submitted, status.job)));
        jobs
    }

    /// Those that this node coordinates, shares not counted.
    fn running(&self, now: Instant) -> impl Iterator<Item = JobStatus> {
        let jobs = self.jobs.values();
        let jobs = jobs.filter(|job| job.header().share.is_none());
        jobs.map(move |job| self.status_of(job, now))
    }

    /// Those that this node coordinates or coordinated: for others it does not speak.
    fn own_jobs(&self, now: Instant) -> Vec<JobStatus> {
        let running = self.running(now);
        let ended = self
            .ended
            .values()
            .filter(|status| status.coordinator == self.me());
        running.chain(ended.cloned()).collect()
    }

    /// Whether this node coordinates the job, or has its end.
    pub fn coordinates(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job) || self.ended.contains_key(&job)
    }

    /// Whether somebody has a lease of a job that runs here.
    pub fn has_leases(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(Scheduler::has_leases)
    }

    /// The header of a job that runs here; `None` once it has ended.
    pub fn header(&self, job: JobId) -> Option<&JobHeader> {
        self.jobs.get(&job).map(Scheduler::header)
    }

    /// Bytes a second between this node and the devices to which it was measured, also of those that are
    /// gone; for people.
    pub fn links(&self) -> impl Iterator<Item = (DeviceId, f64)> {
        self.speeds.links()
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
            Input::Submit { taken } => self.take_job(*taken, now),
            Input::Restore(restored) => self.restore(*restored, now),
            Input::Expired { jobs } => {
                for job in jobs {
                    self.forgotten.insert(job);
                }
            }
            Input::Claimed { job, epoch } => self.handle_claimed(job, epoch, now),
            Input::Recorded {
                job,
                epoch,
                sequence,
            } => self.with_backup(job, |backup| backup.handle_recorded(epoch, sequence)),
            Input::MatrixCopied { job, matrix, there } => {
                self.handle_copied(job, matrix, there, now);
            }
            Input::TileFetched {
                job,
                tile,
                from,
                payload,
            } => {
                if self.jobs.contains_key(&job) {
                    self.with_job(job, |job| job.handle_fetched(tile, from, payload, now));
                } else {
                    let payload = payload.map(|(payload, _)| payload);
                    self.with_backup(job, |backup| backup.handle_fetched(tile, payload, now));
                }
            }
            Input::Encoded {
                job,
                shares,
                seconds,
            } => self.handle_encoded(job, shares, seconds, now),
            Input::Decoded {
                job,
                tile,
                tiles,
                seconds,
            } => self.handle_decoded(job, tile, tiles, seconds, now),
            Input::Cancel { job } => self.with_job(job, |job| job.cancel(now)),
            Input::Fail { job, reason } => {
                self.with_job(job, |job| job.fail(reason, now));
                self.with_backup(job, |backup| backup.handle_unable(now));
            }
            Input::Forget { job } => self.forget(job, now),
            Input::Verified {
                job,
                tile,
                lease,
                checked,
                payload,
            } => self.with_job(job, |job| {
                job.handle_verified(tile, lease, checked, payload, now);
            }),
            Input::Persisted { job, tile, digest } => {
                self.with_job(job, |job| job.handle_persisted(tile, digest, now));
                self.put_together(job, tile);
                self.with_backup(job, |backup| backup.handle_persisted(tile, digest, now));
            }
            Input::Finished { job, result } => {
                self.with_job(job, |job| job.handle_finished(result, now));
                self.with_backup(job, |backup| backup.handle_finished(result, now));
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
            Input::Moved { addresses } => {
                for job in self.jobs.values_mut() {
                    job.handle_moved(&addresses);
                }
                let change = |record: &mut DeviceRecord| record.addresses = addresses;
                self.membership.change_record(true, change);
            }
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
                } else if !self.backups.contains_key(&job) {
                    // It has ended, or this node was restarted without it.
                    self.send(from, Message::Closed { job }, None);
                }
                // Else another node coordinates it now, and says so.
            }
            Message::Jobs { jobs } => {
                let known = jobs.clone();
                match self.remote.handle_news(from, jobs, now) {
                    Ok(changed) => {
                        for status in &known {
                            self.compare_news(from, status, now);
                        }
                        for job in changed {
                            self.pass_on(job, now);
                        }
                    }
                    Err(remote::Invalid) => self.membership.fault(link, now),
                }
            }
            Message::Append { .. }
            | Message::Appended { .. }
            | Message::Declined { .. }
            | Message::Held { .. }
            | Message::Claim { .. }
            | Message::Elect { .. }
            | Message::Vote { .. } => {
                // Pages have no part in this, nor do relays.
                if self.linked.get(&from) == Some(&link)
                    && !self.deliver_replication(from, body, now)
                {
                    self.membership.fault(link, now);
                }
            }
            Message::Resume { .. } => {
                self.deliver_replication(from, body, now);
            }
            // Who offers work of a job that is over, or under an epoch of the past, hears so instead.
            Message::Open { job, epoch, .. } if self.knows_better(from, job, epoch) => {}
            _ => self.worker.handle_message(from, body, payload, now),
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
                link,
            } => {
                if let Some(rate) = link {
                    self.speeds.learn_link(from, rate as f64, now);
                    self.measure(from, now);
                }
                self.with_job(job, |job| job.handle_fetch(from, operand, blocks));
            }
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

    fn with_backup(&mut self, job: JobId, change: impl FnOnce(&mut Backup<P>)) {
        if let Some(backup) = self.backups.get_mut(&job) {
            change(backup);
        }
    }

    fn take_job(&mut self, taken: Taken, now: Instant) {
        let id = taken.header.job;
        if self.coordinates(id) || self.backups.contains_key(&id) {
            return;
        }
        // Half the range is left for counting up.
        let first_lease = self.prng.next_u64() >> 1;
        let own = self.membership.record().clone();
        let mut job = Scheduler::new(&own, taken, first_lease, self.backups_max, now);
        for device in self.linked.keys() {
            if let Some(record) = self.membership.record_of(*device) {
                job.node_up(record, now);
            }
        }
        self.worker.handle_own_header(job.header(), now);
        self.brief(&mut job, now);
        job.stay_home_if_short(&own);
        job.start(self.workforce(), now);
        self.jobs.insert(id, job);
        self.share_out(id, now);
    }

    fn forget(&mut self, job: JobId, now: Instant) {
        self.with_job(job, |job| job.cancel(now));
        self.drain_job(job, now);
        self.ended.remove(&job);
        self.backups.remove(&job);
        self.closing.remove(&job);
        self.amends.remove(&job);
        self.forgotten.insert(job);
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
        self.measure_record(&own, now);
        let others: Vec<DeviceRecord> = self.reached.values().map(|(_, r)| r.clone()).collect();
        for job in self.jobs.values_mut() {
            job.join(own.clone(), now);
            // A short job that the own slots can not do is for everybody.
            for record in &others {
                let may = job.header().share.is_none();
                if may && !self.quarantined.contains(&record.device) {
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
}
