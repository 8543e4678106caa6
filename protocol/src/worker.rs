//! The worker of a device: pulls leases, fetches blocks, hands slabs to slots, sends results.
//! The same machine runs in a node and in a page. It speaks to coordinators, its own node's
//! included, in [`Message`]s and to the shell in slabs and block ids.
//!
//! Intuition: a slot must never wait for the network if it can be helped. So the worker holds up
//! to two leases for each slot, and asks for the blocks of what comes next while it computes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cache::BlockCache;
use crate::id::{BlockId, DeviceId, Epoch, JobId, LeaseId};
use crate::io::{SlabTask, TileShape};
use crate::job::{JobHeader, KernelClass, Operand};
use crate::message::{Grant, Message, Work};
use crate::slab::{self, Place, Slab};
use crate::tile::Rect;
use crate::time::{Instant, Span};

/// Leases held for each slot: one computed, one whose blocks arrive meanwhile.
const LEASES_PER_SLOT: u32 = 2;
/// Blocks asked for and not there yet, in bytes: enough to fill a fast link, little enough that
/// what is needed first is not stuck behind what is needed later.
const FETCH_BYTES_MAX: u64 = 16 << 20;
/// A slab's panels take at most this, so that computing starts early.
const SLAB_BYTES_MAX: u64 = 4 << 20;
/// See [`SLAB_BYTES_MAX`]: below this, more slabs cost more than they spare.
const SLAB_BYTES_MIN: u64 = 1 << 20;
/// What a slab may always keep present, however small the cache.
const RESIDENT_BYTES_MIN: u64 = 64 << 20;
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
    /// Tiles computed.
    pub tiles: u64,
    /// Rows of C in them, each once for each job.
    pub rows: u64,
    /// 2·rows·inner·cols summed.
    pub operations: u64,
    /// Kernel time summed over slots.
    pub kernel: Span,
    /// Job, coordinator, tile and kernel time of the last one.
    pub last: Option<(JobId, DeviceId, u32, Span)>,
}

/// The worker machine.
#[derive(Debug)]
pub struct Worker<P> {
    me: DeviceId,
    classes: Vec<KernelClass>,
    slots: Vec<Slot>,
    paused: bool,
    cache: BlockCache,
    jobs: BTreeMap<JobId, Job>,
    /// By order of grant.
    leases: BTreeMap<u64, Lease>,
    /// Blocks asked for, not arrived.
    requests: BTreeMap<BlockId, Request>,
    requested_bytes: u64,
    /// Blocks that the shell checks or reads; the answer names the place only.
    expected: BTreeMap<(JobId, Operand, u32), (BlockId, u64)>,
    expected_ids: BTreeSet<BlockId>,
    bad: BTreeMap<BlockId, u32>,
    /// The job that pulled last, for turns.
    turn: JobId,
    sequence: u64,
    tally: Tally,
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
    /// Leases asked for and not answered.
    pulled: u32,
    /// The coordinator has nothing until it says Open again.
    exhausted: bool,
    /// When the coordinator last answered, or was asked something new.
    heard: Instant,
    busy: Busy,
    rows_seen: BTreeSet<u64>,
}

/// The union of intervals in which at least one kernel runs.
#[derive(Debug, Default, Clone, Copy)]
struct Busy {
    running: u32,
    since: Instant,
    total: Span,
}

impl Busy {
    fn start(&mut self, now: Instant) {
        if self.running == 0 {
            self.since = now;
        }
        self.running += 1;
    }

    fn stop(&mut self, now: Instant) {
        self.running -= 1;
        if self.running == 0 {
            self.total = Span(self.total.0.saturating_add((now - self.since).0));
        }
    }

    fn total(&self, now: Instant) -> Span {
        let open = if self.running > 0 {
            (now - self.since).0
        } else {
            0
        };
        Span(self.total.0.saturating_add(open))
    }
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

impl<P> Worker<P> {
    /// An idle worker with `slots` slots.
    pub fn new(
        me: DeviceId,
        slots: u32,
        classes: Vec<KernelClass>,
        cache_bytes: u64,
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
            cache: BlockCache::new(cache_bytes),
            jobs: BTreeMap::new(),
            leases: BTreeMap::new(),
            requests: BTreeMap::new(),
            requested_bytes: 0,
            expected: BTreeMap::new(),
            expected_ids: BTreeSet::new(),
            bad: BTreeMap::new(),
            turn: JobId([0; 16]),
            sequence: 0,
            tally: Tally::default(),
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
        waiting.map(|(_, state)| state.heard + SILENCE_MAX).min()
    }

    /// What was done so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Time with at least one kernel running, since the start.
    pub fn busy(&self, now: Instant) -> Span {
        self.busy.total(now)
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
            // The tile was accepted from somebody else: computing it is of no use any more.
            Message::Verdict { job, lease, .. } if self.is_coordinator(job, from) => {
                if let Some(key) = self.find(job, lease) {
                    self.drop_lease(key, now);
                }
            }
            _ => {}
        }
        self.pump(now);
    }

    fn handle_open(
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
        if let Some(known) = self.jobs.get_mut(&job) {
            if known.coordinator == from {
                known.exhausted = false;
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
            pulled: 0,
            exhausted: false,
            heard: now,
            busy: Busy::default(),
            rows_seen: BTreeSet::new(),
        };
        self.jobs.insert(job, state);
    }

    fn handle_header(&mut self, from: DeviceId, header: Box<JobHeader>, now: Instant) {
        let id = header.job;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.coordinator != from || job.header.is_some() || job.pulled == 0 {
            return;
        }
        job.heard = now;
        if header.check().is_err() || header.class != job.class {
            self.drop_job(id, now);
            return;
        }
        job.header = Some(header);
    }

    fn handle_grants(
        &mut self,
        from: DeviceId,
        id: JobId,
        epoch: Epoch,
        grants: Vec<Grant>,
        now: Instant,
    ) {
        let budget = self.slab_budget();
        let resident_max = self.cache.bytes_max().max(RESIDENT_BYTES_MIN);
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
            let depth = slab::depth(header, rect, budget);
            if slab::resident_bytes(header, rect, depth) > resident_max {
                failed.push(grant.lease);
                continue;
            }
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
            };
            self.leases.insert(self.sequence, lease);
        }
        self.give_back(id, unwanted, false);
        self.give_back(id, failed, true);
    }

    fn handle_block(
        &mut self,
        from: DeviceId,
        id: JobId,
        operand: Operand,
        block: u32,
        payload: P,
        now: Instant,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(header) = job.header.as_deref().filter(|_| job.coordinator == from) else {
            return;
        };
        let manifest = header.manifest(operand);
        let Some(&hash) = manifest.blocks.get(block as usize) else {
            return;
        };
        job.heard = now;
        // Only what was asked for is taken in, so that nobody fills the cache.
        let asked = self
            .requests
            .get(&hash)
            .is_some_and(|r| r.coordinator == from);
        if !asked {
            return;
        }
        let bytes = self.forget_request(&hash);
        self.expect(id, operand, block, hash, bytes);
        self.effects.push_back(Effect::Keep {
            job: id,
            operand,
            block,
            id: hash,
            payload,
        });
    }

    /// The shell has a block, its hash checked.
    pub fn handle_block_ready(&mut self, job: JobId, operand: Operand, block: u32, now: Instant) {
        if let Some((id, bytes)) = self.expected.remove(&(job, operand, block)) {
            self.expected_ids.remove(&id);
            self.bad.remove(&id);
            self.cache.insert(id, bytes);
            let cache = &mut self.cache;
            for lease in self.leases.values_mut() {
                for wanted in std::iter::once(&mut lease.current).chain(&mut lease.ahead) {
                    if wanted.missing.remove(&id).is_some() {
                        cache.pin(&id);
                        wanted.pinned.insert(id);
                    }
                }
            }
            if let Some(job) = self.jobs.get_mut(&job) {
                job.heard = now;
            }
        }
        self.pump(now);
    }

    /// A block is broken: it is asked for again, and after that the leases that need it go back.
    pub fn handle_block_bad(&mut self, job: JobId, operand: Operand, block: u32, now: Instant) {
        if let Some((id, _)) = self.expected.remove(&(job, operand, block)) {
            self.expected_ids.remove(&id);
            let times = self.bad.entry(id).or_default();
            *times += 1;
            if *times >= BAD_BLOCKS_MAX {
                self.bad.remove(&id);
                let needs = |lease: &Lease| {
                    let ahead = lease.ahead.as_ref();
                    lease.current.missing.contains_key(&id)
                        || ahead.is_some_and(|wanted| wanted.missing.contains_key(&id))
                };
                self.return_where(needs, true, now);
            }
        }
        self.pump(now);
    }

    /// A slot has computed its slab; `result` is C after the last one, with its length.
    pub fn handle_slab_done(
        &mut self,
        slot: u32,
        kernel: Span,
        result: Option<(P, u64)>,
        now: Instant,
    ) {
        // A slot that was aborted owes no answer; one that comes all the same is void.
        let Some(key) = self.stop_slot(slot, now) else {
            return;
        };
        let lease = self.leases.get_mut(&key).expect("a slot's lease is held");
        lease.kernel = Span(lease.kernel.0.saturating_add(kernel.0));
        let job = self.jobs.get_mut(&lease.job).expect("a lease has a job");
        let header = job.header.as_deref().expect("a lease came with a header");
        let last = lease.current.slab.to == header.a.cols;
        match result {
            None if !last => {
                let done = std::mem::replace(
                    &mut lease.current,
                    lease.ahead.take().expect("made when the slab started"),
                );
                unpin(&mut self.cache, &done);
            }
            Some((payload, bytes)) if last && bytes == header.tile_bytes(lease.grant.tile) => {
                let work = Work {
                    kernel: lease.kernel,
                    transfer: lease.transfer,
                    busy: job.busy.total(now),
                };
                self.tally.tiles += 1;
                self.tally.operations = self
                    .tally
                    .operations
                    .saturating_add(header.tile_operations(lease.grant.tile));
                self.tally.kernel = Span(self.tally.kernel.0.saturating_add(lease.kernel.0));
                let place = (lease.job, job.coordinator, lease.grant.tile, lease.kernel);
                self.tally.last = Some(place);
                if job.rows_seen.insert(lease.rect.row) {
                    self.tally.rows += lease.rect.rows;
                }
                self.effects.push_back(Effect::Send {
                    to: job.coordinator,
                    body: Message::Result {
                        job: lease.job,
                        epoch: job.epoch,
                        lease: lease.grant.lease,
                        tile: lease.grant.tile,
                        work,
                    },
                    payload: Some((payload, bytes)),
                });
                job.heard = now;
                self.drop_lease(key, now);
            }
            // The slot broke the rules of `Compute`: treat it as unable.
            _ => {
                let (job, grant) = (lease.job, lease.grant);
                self.drop_lease(key, now);
                self.give_back(job, vec![grant.lease], true);
            }
        }
        self.pump(now);
    }

    /// A slot could not compute: its lease goes back.
    pub fn handle_slot_failed(&mut self, slot: u32, now: Instant) {
        if let Some(key) = self.stop_slot(slot, now) {
            let (job, grant) = (self.leases[&key].job, self.leases[&key].grant);
            self.drop_lease(key, now);
            self.give_back(job, vec![grant.lease], true);
        }
        self.pump(now);
    }

    /// A coordinator is gone: its jobs are dropped. It says Open when it is back.
    pub fn handle_coordinator_lost(&mut self, coordinator: DeviceId, now: Instant) {
        let gone = |(id, job): (&JobId, &Job)| (job.coordinator == coordinator).then_some(*id);
        let lost: Vec<JobId> = self.jobs.iter().filter_map(gone).collect();
        for job in lost {
            self.drop_job(job, now);
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
            self.forget_requests(|request| request.coordinator == coordinator);
        }
        self.pump(now);
    }

    /// Whether the coordinator of a job owes an answer: to a Pull, or blocks that leases wait for.
    fn owes(&self, id: &JobId, job: &Job) -> bool {
        let waits = |lease: &Lease| lease.job == *id && !lease.current.missing.is_empty();
        let remote = job.coordinator != self.me;
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

    fn start_slabs(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            if self.slots[index].running.is_some() {
                continue;
            }
            let ready = |lease: &Lease| lease.current.missing.is_empty();
            let key = self.slots[index].lease.or_else(|| {
                let free = |(key, lease): (&u64, &Lease)| {
                    (lease.slot.is_none() && ready(lease)).then_some(*key)
                };
                self.leases.iter().find_map(free)
            });
            if let Some(key) = key.filter(|key| ready(&self.leases[key])) {
                self.start_slab(index as u32, key, now);
            }
        }
    }

    fn start_slab(&mut self, slot: u32, key: u64, now: Instant) {
        let lease = self.leases.get_mut(&key).expect("chosen from the leases");
        let job = self.jobs.get_mut(&lease.job).expect("a lease has a job");
        let header = job.header.as_deref().expect("a lease came with a header");
        let state = &mut self.slots[slot as usize];
        // What the slot waited for this slab since it could have computed it.
        let waited = (now - state.idle_since.max(lease.granted)).0;
        lease.transfer = Span(lease.transfer.0.saturating_add(waited));
        lease.slot = Some(slot);
        state.lease = Some(key);
        state.running = Some(now);
        job.busy.start(now);
        self.busy.start(now);
        let slab = &lease.current.slab;
        let (from, to) = (slab.from, slab.to);
        self.effects.push_back(Effect::Compute(SlabTask {
            slot,
            job: lease.job,
            epoch: job.epoch,
            grant: lease.grant,
            class: job.class,
            shape: TileShape {
                rows: lease.rect.rows,
                cols: lease.rect.cols,
                inner: header.a.cols,
                a: header.a.element,
                a_bits: header.a.bits,
                b: header.b.element,
                b_bits: header.b.bits,
                c: header.element,
            },
            first: from == 0,
            last: to == header.a.cols,
            from,
            to,
            a: slab.a.clone(),
            b: slab.b.clone(),
        }));
        if to < header.a.cols {
            let next = Slab::new(header, lease.rect, to, lease.depth);
            let ahead = want(&mut self.cache, next);
            lease.ahead = Some(ahead);
        }
    }

    /// Asks for missing blocks: first what slots wait for, then first slabs of the next tiles,
    /// then what comes after in tiles that are computed.
    fn fetch(&mut self, now: Instant) {
        if self.requested_bytes >= FETCH_BYTES_MAX {
            return;
        }
        let in_slot = self.leases.values().filter(|lease| lease.slot.is_some());
        let waiting = self.leases.values().filter(|lease| lease.slot.is_none());
        let order = in_slot
            .clone()
            .map(|lease| (lease.job, &lease.current))
            .chain(waiting.map(|lease| (lease.job, &lease.current)))
            .chain(in_slot.filter_map(|lease| Some((lease.job, lease.ahead.as_ref()?))));
        let mut asks: Vec<(JobId, BlockId, Place, u64)> = Vec::new();
        let mut chosen = BTreeSet::new();
        let mut bytes = self.requested_bytes;
        'all: for (job, wanted) in order {
            let header = self.jobs[&job].header.as_deref();
            let header = header.expect("a lease came with a header");
            for (id, place) in &wanted.missing {
                let under_way = self.requests.contains_key(id) || self.expected_ids.contains(id);
                if under_way || !chosen.insert(*id) {
                    continue;
                }
                let size = header
                    .manifest(place.0)
                    .grid()
                    .block_bytes(u64::from(place.1));
                asks.push((job, *id, *place, size));
                bytes += size;
                if bytes >= FETCH_BYTES_MAX {
                    break 'all;
                }
            }
        }
        let mut messages: BTreeMap<(JobId, Operand), Vec<u32>> = BTreeMap::new();
        for (job, id, (operand, block), bytes) in asks {
            let state = self.jobs.get_mut(&job).expect("a lease has a job");
            if !self
                .requests
                .values()
                .any(|r| r.coordinator == state.coordinator)
            {
                state.heard = now;
            }
            messages.entry((job, operand)).or_default().push(block);
            if state.coordinator == self.me {
                self.expect(job, operand, block, id, bytes);
                continue;
            }
            let coordinator = state.coordinator;
            self.requested_bytes += bytes;
            let request = Request {
                coordinator,
                job,
                bytes,
            };
            self.requests.insert(id, request);
        }
        for ((job, operand), mut blocks) in messages {
            blocks.sort_unstable();
            let to = self.jobs[&job].coordinator;
            self.effects.push_back(if to == self.me {
                Effect::Load {
                    job,
                    operand,
                    blocks,
                }
            } else {
                let body = Message::Fetch {
                    job,
                    operand,
                    blocks,
                };
                Effect::Send {
                    to,
                    body,
                    payload: None,
                }
            });
        }
    }

    /// Asks coordinators for leases, in turns, while the window has room.
    fn pull(&mut self, now: Instant) {
        if self.paused {
            return;
        }
        let window = LEASES_PER_SLOT * self.slots.len() as u32;
        let pulled: u32 = self.jobs.values().map(|job| job.pulled).sum();
        let mut room = window.saturating_sub(pulled + self.leases.len() as u32);
        let willing = |job: &Job| !job.exhausted && job.pulled == 0;
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
                    header: job.header.is_none(),
                },
                payload: None,
            });
            room -= leases;
            turns -= 1;
        }
    }

    /// Headers are large: only those of a few jobs are kept.
    fn make_room_for_header(&mut self, wanted_by: JobId) {
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

    fn slab_budget(&self) -> u64 {
        let share = self.cache.bytes_max() / (3 * self.slots.len().max(1) as u64);
        share.clamp(SLAB_BYTES_MIN, SLAB_BYTES_MAX)
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

    fn expect(&mut self, job: JobId, operand: Operand, block: u32, id: BlockId, bytes: u64) {
        self.expected.insert((job, operand, block), (id, bytes));
        self.expected_ids.insert(id);
    }

    fn forget_request(&mut self, id: &BlockId) -> u64 {
        let bytes = self.requests.remove(id).map_or(0, |request| request.bytes);
        self.requested_bytes -= bytes;
        bytes
    }

    fn forget_requests(&mut self, which: impl Fn(&Request) -> bool) {
        let of = |(id, request): (&BlockId, &Request)| which(request).then_some(*id);
        let ids: Vec<BlockId> = self.requests.iter().filter_map(of).collect();
        for id in ids {
            self.forget_request(&id);
        }
    }

    /// Drops a job with its leases; nothing is said.
    fn drop_job(&mut self, id: JobId, now: Instant) {
        let keys = self.leases.iter().filter(|(_, lease)| lease.job == id);
        let keys: Vec<u64> = keys.map(|(key, _)| *key).collect();
        for key in keys {
            self.drop_lease(key, now);
        }
        // Blocks asked for in its name may never come; another job that needs them asks again.
        self.forget_requests(|request| request.job == id);
        if self.jobs.remove(&id).is_some() && self.jobs.is_empty() {
            self.bad.clear();
        }
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

    fn abort_slot(&mut self, slot: u32, now: Instant) {
        if let Some(key) = self.slots[slot as usize].lease {
            let (job, grant) = (self.leases[&key].job, self.leases[&key].grant);
            self.drop_lease(key, now);
            self.give_back(job, vec![grant.lease], false);
        }
    }

    /// Books that the kernel of a slot stopped; `None` when none ran.
    fn stop_slot(&mut self, slot: u32, now: Instant) -> Option<u64> {
        let state = self.slots.get_mut(slot as usize)?;
        state.running.take()?;
        state.idle_since = now;
        self.busy.stop(now);
        let key = state.lease.expect("what runs has a lease");
        let job = self.leases[&key].job;
        let job = self.jobs.get_mut(&job).expect("a lease has a job");
        job.busy.stop(now);
        Some(key)
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
