//! The worker of a device: pulls leases, fetches blocks, hands slabs to slots, sends results.
//! The same machine runs in a node and in a page. It speaks to coordinators, its own node's
//! included, in [`Message`]s and to the shell in slabs and block ids.
//!
//! Intuition: a slot must never wait for the network if it can be helped. So the worker holds up
//! to two leases for each slot, and asks for the blocks of what comes next while it computes.

mod blocks;
mod books;
mod busy;
mod intake;
mod orphans;
mod pulls;
mod slots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cache::BlockCache;
use crate::id::{BlockId, DeviceId, Epoch, JobId, LeaseId};
use crate::io::{SlabTask, TileShape, WorkerMemory};
use crate::job::{JobHeader, KernelClass, Operand};
use crate::message::{Grant, Message, Work};
use crate::slab::{self, Place, Slab};
use crate::tile::Rect;
use crate::time::{Instant, Span};
use crate::timer::earliest;

use books::{Books, Sent};
use busy::Busy;
use intake::Intake;
use orphans::Unsettled;

/// Leases held for each slot: one computed, one whose blocks arrive meanwhile.
const LEASES_PER_SLOT: u32 = 2;
/// Blocks asked for and not there yet, in bytes: enough to fill a fast link, little enough that
/// what is needed first is not stuck behind what is needed later.
const FETCH_BYTES_MAX: u64 = 16 << 20;
/// Blocks that nobody waits for yet are asked for while less than this is on its way.
const LOOK_AHEAD_MAX: u64 = FETCH_BYTES_MAX / 2;
/// A coordinator that owes an answer and says nothing for so long gets its leases back.
const SILENCE_MAX: Span = Span::from_secs(15);
/// How often a block is fetched again when it arrives broken.
const BAD_BLOCKS_MAX: u32 = 3;
/// Jobs remembered, all together and those whose headers (large) are kept.
const JOBS_MAX: usize = 1_024;
const HEADERS_MAX: usize = 16;

/// What the worker asks for.
#[derive(Debug)]
pub enum Effect<P> {
    /// Say something to a coordinator.
    Send {
        /// To whom; may be this device.
        to: DeviceId,
        /// What.
        body: Message,
        /// The tile of a Result, with its length.
        payload: Option<(P, u64)>,
    },
    /// Put a block into the cache, as [`crate::io::Output::Keep`].
    Keep {
        /// The job.
        job: JobId,
        /// Of which factor.
        operand: Operand,
        /// Its place.
        block: u32,
        /// Its hash.
        id: BlockId,
        /// Its bytes.
        payload: P,
    },
    /// Read own blocks into the cache, as [`crate::io::Output::Load`].
    Load {
        /// The job.
        job: JobId,
        /// Of which factor.
        operand: Operand,
        /// Which.
        blocks: Vec<u32>,
    },
    /// Drop a block.
    Evict(BlockId),
    /// Compute a slab.
    Compute(SlabTask),
    /// Stop a slot.
    Abort(u32),
}

/// What this worker has done since it started.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Tiles accepted by their coordinators.
    pub tiles: u64,
    /// Rows of C in them, each once for each job.
    pub rows: u64,
    /// 2·rows·inner·cols summed over them.
    pub operations: u64,
    /// Kernel time for them, summed over slots.
    pub kernel: Span,
    /// Job, coordinator, tile and kernel time of the last one.
    pub last: Option<(JobId, DeviceId, u32, Span)>,
    /// 2·rows·inner·cols summed over all tiles computed, accepted or not.
    pub computed: u64,
}

/// The worker machine.
#[derive(Debug)]
pub struct Worker<P> {
    me: DeviceId,
    classes: Vec<KernelClass>,
    slots: Vec<Slot>,
    paused: bool,
    memory: WorkerMemory,
    cache: BlockCache,
    jobs: BTreeMap<JobId, Job>,
    /// By order of grant.
    leases: BTreeMap<u64, Lease>,
    /// Blocks asked for, not arrived.
    requests: BTreeMap<BlockId, Request>,
    requested_bytes: u64,
    intake: Intake,
    /// Blocks that the shell checks or reads; the answer names the place only.
    expected: BTreeMap<(JobId, Operand, u32), (BlockId, u64)>,
    expected_ids: BTreeSet<BlockId>,
    bad: BTreeMap<BlockId, u32>,
    /// The job that pulled last, for turns.
    turn: JobId,
    sequence: u64,
    books: Books,
    /// Results without a verdict, should their coordinator be lost.
    unsettled: Unsettled<P>,
    busy: Busy,
    effects: VecDeque<Effect<P>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    /// The lease whose C is in the slot.
    lease: Option<u64>,
    /// Since when a kernel runs.
    running: Option<Instant>,
    /// Since when none does.
    idle_since: Instant,
}

#[derive(Debug)]
struct Job {
    coordinator: DeviceId,
    epoch: Epoch,
    class: KernelClass,
    header: Option<Box<JobHeader>>,
    /// The header is what the present coordinator says.
    confirmed: bool,
    /// Leases asked for and not answered.
    pulled: u32,
    /// The coordinator has nothing until it says Open again.
    exhausted: bool,
    /// Since when the coordinator is lost: what runs goes on, for whoever takes over.
    orphaned: Option<Instant>,
    /// When the coordinator last answered, or was asked something new.
    heard: Instant,
    busy: Busy,
}

#[derive(Debug)]
struct Lease {
    job: JobId,
    grant: Grant,
    rect: Rect,
    depth: u64,
    slot: Option<u32>,
    granted: Instant,
    kernel: Span,
    transfer: Span,
    /// The slab that is computed or comes next.
    current: Wanted,
    /// The one after it, prefetched once the tile is in a slot.
    ahead: Option<Wanted>,
    /// Up to which inner index blocks were asked for.
    looked_to: u64,
}

/// A slab with the blocks that are not there yet; those that are there are pinned.
#[derive(Debug)]
struct Wanted {
    slab: Slab,
    pinned: BTreeSet<BlockId>,
    missing: BTreeMap<BlockId, Place>,
}

#[derive(Debug)]
struct Request {
    coordinator: DeviceId,
    job: JobId,
    bytes: u64,
}

impl<P: Clone> Worker<P> {
    /// An idle worker with `slots` slots.
    pub fn new(
        me: DeviceId,
        slots: u32,
        classes: Vec<KernelClass>,
        memory: WorkerMemory,
        now: Instant,
    ) -> Self {
        let slot = Slot {
            idle_since: now,
            ..Slot::default()
        };
        Self {
            me,
            classes,
            slots: vec![slot; slots as usize],
            paused: false,
            memory,
            cache: BlockCache::new(memory.cache_bytes),
            jobs: BTreeMap::new(),
            leases: BTreeMap::new(),
            requests: BTreeMap::new(),
            requested_bytes: 0,
            intake: Intake::default(),
            expected: BTreeMap::new(),
            expected_ids: BTreeSet::new(),
            bad: BTreeMap::new(),
            turn: JobId([0; 16]),
            sequence: 0,
            books: Books::default(),
            unsettled: Unsettled::new(memory.unsettled_bytes),
            busy: Busy::default(),
            effects: VecDeque::new(),
        }
    }

    /// What to do next.
    pub fn poll_effect(&mut self) -> Option<Effect<P>> {
        self.effects.pop_front()
    }

    /// When to call [`Worker::handle_time`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self
            .jobs
            .iter()
            .filter(|(job, state)| self.owes(job, state));
        let silent = waiting.map(|(_, state)| state.heard + SILENCE_MAX).min();
        earliest(silent, self.orphans_timeout())
    }

    /// What was done so far.
    pub fn tally(&self) -> &Tally {
        self.books.tally()
    }

    /// Time with at least one kernel running, since the start.
    pub fn busy(&self) -> Span {
        self.busy.total
    }

    /// Slots that compute now.
    pub fn active_slots(&self) -> u32 {
        self.slots
            .iter()
            .filter(|slot| slot.running.is_some())
            .count() as u32
    }

    /// Whether it works for a job of this coordinator, or would.
    pub fn works_for(&self, coordinator: DeviceId) -> bool {
        self.jobs.values().any(|job| job.coordinator == coordinator)
    }

    /// A coordinator says something to this worker. Messages for others are ignored.
    pub fn handle_message(&mut self, from: DeviceId, body: Message, payload: P, now: Instant) {
        if let Message::Block {
            job,
            operand,
            block,
        } = body
        {
            self.handle_block(from, job, operand, block, payload, now);
            self.pump(now);
        } else {
            self.handle_control(from, body, now);
        }
    }

    /// As [`Worker::handle_message`], for messages without a payload.
    pub fn handle_control(&mut self, from: DeviceId, body: Message, now: Instant) {
        match body {
            Message::Open {
                job, epoch, class, ..
            } => self.handle_open(from, job, epoch, class, now),
            Message::Closed { job } if self.is_coordinator(job, from) => self.drop_job(job, now),
            Message::Job(header) => self.handle_header(from, header, now),
            Message::Grants { job, epoch, grants } => {
                self.handle_grants(from, job, epoch, grants, now);
            }
            Message::Verdict {
                job,
                lease,
                accepted,
                ..
            } if self.is_coordinator(job, from) => {
                self.books.note_verdict(job, lease, accepted);
                self.unsettled.settle(job, lease);
                // Accepted from somebody else: computing it is of no use any more.
                if let Some(key) = self.find(job, lease) {
                    self.drop_lease(key, now);
                }
            }
            _ => {}
        }
        self.pump(now);
    }

    /// The person paused the device or changed the number of slots.
    pub fn configure(&mut self, slots: u32, paused: bool, now: Instant) {
        for slot in slots as usize..self.slots.len() {
            self.abort_slot(slot as u32, now);
        }
        let slot = Slot {
            idle_since: now,
            ..Slot::default()
        };
        self.slots.resize(slots as usize, slot);
        if paused || slots == 0 {
            self.return_where(|_| true, false, now);
        }
        if self.paused && !paused {
            for job in self.jobs.values_mut() {
                job.exhausted = false;
            }
        }
        self.paused = paused;
        self.pump(now);
    }

    /// Gives all leases back; nothing is pulled any more.
    pub fn leave(&mut self, now: Instant) {
        self.configure(self.slots.len() as u32, true, now);
    }

    /// Time passed.
    pub fn handle_time(&mut self, now: Instant) {
        self.drop_orphans(now);
        let silent = |(id, job): (&JobId, &Job)| {
            (self.owes(id, job) && now >= job.heard + SILENCE_MAX).then_some(*id)
        };
        let silent: Vec<JobId> = self.jobs.iter().filter_map(silent).collect();
        for id in silent {
            // What was in flight is lost (a relay lost its link, say): start over.
            self.return_where(|lease| lease.job == id, false, now);
            let job = self.jobs.get_mut(&id).expect("just found");
            job.pulled = 0;
            job.heard = now;
            let coordinator = job.coordinator;
            self.forget_requests(|request| request.coordinator == coordinator, now);
        }
        self.pump(now);
    }

    /// Whether the coordinator of a job owes an answer: to a Pull, or blocks that leases wait for.
    fn owes(&self, id: &JobId, job: &Job) -> bool {
        let waits = |lease: &Lease| lease.job == *id && !lease.current.missing.is_empty();
        let remote = job.coordinator != self.me && job.orphaned.is_none();
        remote && (job.pulled > 0 || self.leases.values().any(waits))
    }

    /// Starts whatever can start: slabs, fetches, pulls; then makes room.
    fn pump(&mut self, now: Instant) {
        self.start_slabs(now);
        self.fetch(now);
        self.pull(now);
        while let Some(id) = self.cache.evict() {
            self.effects.push_back(Effect::Evict(id));
        }
    }

    fn slab_budget(&self) -> u64 {
        let share = self.cache.bytes_max() / (3 * self.slots.len().max(1) as u64);
        let most = self.memory.slab_bytes;
        share.clamp(WorkerMemory::SLAB_BYTES_MIN.min(most), most)
    }

    fn is_coordinator(&self, job: JobId, device: DeviceId) -> bool {
        let job = self.jobs.get(&job);
        job.is_some_and(|job| job.coordinator == device)
    }

    fn find(&self, job: JobId, lease: LeaseId) -> Option<u64> {
        let is_it =
            |(key, l): (&u64, &Lease)| (l.job == job && l.grant.lease == lease).then_some(*key);
        self.leases.iter().find_map(is_it)
    }

    fn want(&mut self, slab: Slab) -> Wanted {
        want(&mut self.cache, slab)
    }

    /// Drops a job with its leases; nothing is said.
    fn drop_job(&mut self, id: JobId, now: Instant) {
        self.drop_work(id, now);
        if self.jobs.remove(&id).is_some() && self.jobs.is_empty() {
            self.bad.clear();
        }
    }

    /// Drops what is done for a job.
    fn drop_work(&mut self, id: JobId, now: Instant) {
        let keys = self.leases.iter().filter(|(_, lease)| lease.job == id);
        let keys: Vec<u64> = keys.map(|(key, _)| *key).collect();
        for key in keys {
            self.drop_lease(key, now);
        }
        // Blocks asked for in its name may never come; another job that needs them asks again.
        self.forget_requests(|request| request.job == id, now);
        for ((job, ..), (block, _)) in &self.expected {
            if *job == id {
                self.expected_ids.remove(block);
            }
        }
        self.books.forget(id);
        self.unsettled.forget(id);
    }

    fn return_where(&mut self, which: impl Fn(&Lease) -> bool, failed: bool, now: Instant) {
        let mut back: BTreeMap<JobId, Vec<LeaseId>> = BTreeMap::new();
        let keys = self.leases.iter().filter(|(_, lease)| which(lease));
        let keys: Vec<u64> = keys.map(|(key, _)| *key).collect();
        for key in keys {
            let lease = &self.leases[&key];
            back.entry(lease.job).or_default().push(lease.grant.lease);
            self.drop_lease(key, now);
        }
        for (job, leases) in back {
            self.give_back(job, leases, failed);
        }
    }

    fn give_back(&mut self, job: JobId, leases: Vec<LeaseId>, failed: bool) {
        let to = self.jobs[&job].coordinator;
        self.send_return(to, job, leases, failed);
    }

    fn send_return(&mut self, to: DeviceId, job: JobId, leases: Vec<LeaseId>, failed: bool) {
        if !leases.is_empty() {
            let body = Message::Return {
                job,
                leases,
                failed,
            };
            self.effects.push_back(Effect::Send {
                to,
                body,
                payload: None,
            });
        }
    }

    fn drop_lease(&mut self, key: u64, now: Instant) {
        if let Some(slot) = self.leases[&key].slot {
            if self.slots[slot as usize].running.is_some() {
                self.effects.push_back(Effect::Abort(slot));
                self.stop_slot(slot, now);
            }
            self.slots[slot as usize].lease = None;
        }
        let lease = self.leases.remove(&key).expect("indexed above");
        unpin(&mut self.cache, &lease.current);
        if let Some(ahead) = &lease.ahead {
            unpin(&mut self.cache, ahead);
        }
        // The window has room again, so the coordinator may have something.
        if let Some(job) = self.jobs.get_mut(&lease.job) {
            job.exhausted = false;
        }
    }
}

fn want(cache: &mut BlockCache, slab: Slab) -> Wanted {
    let (mut pinned, mut missing) = (BTreeSet::new(), BTreeMap::new());
    for (id, place) in slab.blocks() {
        if cache.contains(&id) {
            cache.pin(&id);
            pinned.insert(id);
        } else {
            missing.insert(id, place);
        }
    }
    Wanted {
        slab,
        pinned,
        missing,
    }
}

fn unpin(cache: &mut BlockCache, wanted: &Wanted) {
    for id in &wanted.pinned {
        cache.unpin(id);
    }
}
