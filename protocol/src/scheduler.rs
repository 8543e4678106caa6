//! One job on its coordinator: which tile is where, who may have the next one, when it has ended.
//!
//! Intuition: workers pull, a plan says what they get. Each device first takes the tiles that its
//! measured speed entitles it to, side by side so that panels are reused. Who has none left takes
//! over what others would finish too late: first tiles nobody has started, then doubles of tiles
//! that are overdue. So nobody waits long for a helper that is slow or gone.

mod bound;
mod choice;
mod leases;
mod planning;
mod results;
mod takeover;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::forecast::{self, Capacity, Forecast, Limit, Shape};
use crate::id::{BlockId, DeviceId, Epoch, LeaseId, MatrixId};
use crate::io::{Checked, DoneTile};
use crate::job::{JobHeader, Operand};
use crate::message::{DeviceRecord, FETCH_BLOCKS_MAX, Grant, Message, Work};
use crate::progress::Progress;
use crate::replication::{Legacy, Log, Note, StoredTile, Taken};
use crate::share;
use crate::status::{DeviceKind, DeviceState, Happening, JobState, JobStatus, Moment, Planned};
use crate::tile::Rect;
use crate::time::{Instant, Span, WallTime};
use crate::timer::{Throttle, earliest};

pub use planning::{Measured, hindrance, is_able, is_short, mean_slot_speed, planned};

/// Leases that a device holds at most, for each of its slots.
const LEASES_PER_SLOT: u64 = 2;
/// How long a device may return nothing before its tiles may be taken over, at least.
const GRACE_MIN: Span = Span::from_millis(150);
/// A lease lasts at least this long: native devices say when they go, pages vanish.
const LEASE_MIN_NATIVE: Span = Span::from_secs(10);
const LEASE_MIN_BROWSER: Span = Span::from_secs(5);
/// How often the lease of a native device whose link lives is prolonged.
const EXTENSIONS_MAX: u32 = 20;
/// Devices that a tile may be lost with, or times that one device may fail it.
const FAILURES_MAX: usize = 3;
/// A job that nobody can work for ends after so long.
const STALL_MAX: Span = Span::from_secs(600);
/// The device of a share that does nothing for so long loses it.
const SHARE_STALL_MAX: Span = Span::from_secs(30);
/// How often idle devices are looked after while a job runs.
const CHECK_MIN: Span = Span::from_millis(25);
const CHECK_MAX: Span = Span::from_millis(500);
/// Moments of a job that tell which tile was given to another device: there is more to tell.
const REASSIGNED_MAX: usize = 16;
/// How many pending tiles of a share are compared to find the next one.
const SCAN_MAX: usize = 1_024;

/// What a job asks for.
#[derive(Debug)]
pub enum Effect<P> {
    /// Say something to a device; may be this one.
    Send(DeviceId, Message),
    /// Send blocks to a device.
    Serve(DeviceId, Operand, Vec<u32>),
    /// As [`crate::io::Output::Verify`].
    Verify(u32, LeaseId, P),
    /// As [`crate::io::Output::Persist`].
    Persist(DoneTile, Option<Box<DeviceRecord>>, Option<BlockId>, P),
    /// As [`crate::io::Output::FetchTile`].
    FetchTile(u32, DeviceId),
    /// As [`crate::io::Output::Backups`].
    Backups(Vec<DeviceId>),
    /// As [`crate::io::Output::Moment`].
    Moment(Moment),
    /// As [`crate::io::Output::Finish`].
    Finish,
    /// The last thing a job says.
    Ended,
    /// A device returned a wrong tile.
    Quarantined(DeviceId, u32),
    /// The status changed: for this node.
    Changed,
    /// The status changed: for other nodes.
    News,
}

/// One job.
#[derive(Debug)]
pub struct Scheduler<P> {
    me: DeviceId,
    header: JobHeader,
    /// The ids of A and B.
    operands: [MatrixId; 2],
    shape: Shape,
    log: Log,
    addresses: Vec<String>,
    submitted: WallTime,
    started: Instant,
    ended: Option<Instant>,
    state: JobState,
    result: Option<MatrixId>,
    error: Option<String>,
    predicted: Option<f64>,
    bytes_sent: u64,
    recomputed: u64,
    done: u64,
    /// Who may have any of it.
    bound: Bound,
    /// Only the own slots work: the job is too short for others.
    alone: bool,
    tiles: Vec<Tile>,
    leases: BTreeMap<LeaseId, Lease>,
    workers: BTreeMap<DeviceId, Helper>,
    measured: BTreeMap<DeviceId, Measured>,
    /// For people: the last one that shared out a good part of the job.
    plan: Forecast,
    /// When the last plan was made, and how many seconds it gave all devices.
    planned: (Instant, f64),
    /// Devices that no plan counts on, and why; at most as many as people are told of.
    left_out: BTreeMap<DeviceId, Planned>,
    /// Pending tiles of nobody's share.
    unassigned: BTreeSet<u32>,
    verifying: BTreeMap<u32, Computed>,
    persisting: BTreeMap<u32, Computed>,
    failures: BTreeMap<u32, BTreeMap<DeviceId, usize>>,
    /// Devices that went away while they computed a tile, and have not come back as they were.
    kills: BTreeMap<u32, BTreeMap<DeviceId, Kill>>,
    /// Who had the lease of a tile that is free again, for the timeline.
    lost_by: BTreeMap<u32, DeviceId>,
    reassigned: usize,
    /// Tiles that are durable here.
    stored: BTreeMap<u32, StoredTile>,
    /// Tiles that other nodes have and this one has not.
    sources: BTreeMap<u32, Source>,
    fetching: BTreeSet<u32>,
    /// How often a node did not have what only its word says that it has.
    empty_words: BTreeMap<DeviceId, u32>,
    /// Who said that it has a tile before the tile was durable here.
    early: BTreeMap<u32, BTreeMap<DeviceId, BlockId>>,
    /// What nodes said so far that they have, until they have said all.
    told: BTreeMap<DeviceId, BTreeSet<u32>>,
    /// Nodes that are linked.
    nodes: BTreeSet<DeviceId>,
    /// Who has not said yet which tiles it has: until then nothing is leased.
    gathering: Option<Gathering>,
    /// When this node began to coordinate the job.
    since: Instant,
    /// Devices that are with the job on disk.
    recorded: BTreeSet<DeviceId>,
    progress: Progress,
    next_lease: u64,
    next_check: Option<Instant>,
    /// When a tile or a device last came or went.
    moved: Instant,
    changed: Throttle,
    news: Throttle,
    effects: VecDeque<Effect<P>>,
}

/// Who may have any of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Whoever can be reached.
    Anyone,
    /// Nobody, until it is given to somebody.
    Nobody,
    /// One device.
    Only(DeviceId),
}

/// A device went away while it computed a tile.
#[derive(Debug, Clone, Copy)]
struct Kill {
    incarnation: u64,
    at: Instant,
}

/// Where a tile stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tile {
    Pending,
    /// Durable on another node.
    Elsewhere,
    Leased,
    Verifying,
    Persisting,
    Done,
}

#[derive(Debug)]
struct Lease {
    tile: u32,
    device: DeviceId,
    granted: Instant,
    lasts: Span,
    deadline: Instant,
    extensions: u32,
    /// Past its deadline: the tile is pending again, but its result is still welcome.
    expired: bool,
}

#[derive(Debug)]
struct Computed {
    lease: LeaseId,
    device: DeviceId,
    work: Work,
    /// The node that it was fetched from.
    source: Option<DeviceId>,
}

/// Where a tile can be had.
#[derive(Debug)]
struct Source {
    done: DoneTile,
    /// Its hash, where the coordinator before had checked it.
    digest: Option<BlockId>,
    holders: BTreeSet<DeviceId>,
}

#[derive(Debug)]
struct Gathering {
    until: Instant,
    waiting: BTreeSet<DeviceId>,
}

#[derive(Debug)]
struct Helper {
    record: DeviceRecord,
    /// Pending tiles of its share.
    share: BTreeSet<u32>,
    /// Rows and columns of the tile grid whose panels it has.
    rows: BTreeSet<u64>,
    cols: BTreeSet<u64>,
    last_return: Option<Instant>,
    /// Leases it holds that have not expired.
    held: u64,
    returned: u64,
    /// Mean time from grant to result, in microseconds.
    latency: Option<u64>,
    /// Its last Pull was not satisfied.
    hungry: bool,
    /// 2·rows·inner·cols summed over the tiles that it returned, and the kernel time for them, summed over slots.
    operations: u64,
    kernel: Span,
    /// Bytes a second that the plan expects between it and this node.
    planned_link: f64,
    /// Operations a second that the plan expects of it.
    planned_kernel: f64,
    /// What it had returned when the plan was made.
    returned_before: u64,
    /// Bytes that a tile costs on that link, as the plan has it.
    tile_bytes: f64,
}

impl<P> Scheduler<P> {
    /// A job that was just taken. `first_lease` must be random: leases of another coordinator must
    /// not be mistaken for own ones.
    ///
    /// # Panics
    /// When the header does not pass its own check.
    pub fn new(
        me: &DeviceRecord,
        taken: Taken,
        first_lease: u64,
        backups_max: usize,
        now: Instant,
    ) -> Self {
        let epoch = Epoch {
            counter: 1,
            device: me.device,
        };
        let mut job = Self::begin(me, taken, epoch, first_lease, backups_max, now, now);
        job.log
            .moment(Happening::Taken, me.device, &me.name, None, now);
        job
    }

    fn begin(
        me: &DeviceRecord,
        taken: Taken,
        epoch: Epoch,
        first_lease: u64,
        backups_max: usize,
        started: Instant,
        now: Instant,
    ) -> Self {
        let header = taken.header.clone();
        // A guarded product is on its coordinator alone, and a share is worth nothing without it.
        let backups_max = if header.is_bound() { 0 } else { backups_max };
        header.check().expect("a job is checked when it is taken");
        let tiles = vec![Tile::Pending; header.tiling.len() as usize];
        let mut progress = Progress::default();
        // It may compute a tile in a check although it takes no leases.
        progress.know(me);
        Self {
            me: me.device,
            addresses: me.addresses.clone(),
            submitted: taken.submitted,
            log: Log::new(me, epoch, taken, backups_max, started, now),
            started,
            ended: None,
            state: JobState::Queued,
            result: None,
            error: None,
            predicted: None,
            bytes_sent: 0,
            recomputed: 0,
            done: 0,
            bound: match header.is_bound() {
                true => Bound::Nobody,
                false => Bound::Anyone,
            },
            alone: false,
            unassigned: (0..tiles.len() as u32).collect(),
            tiles,
            leases: BTreeMap::new(),
            workers: BTreeMap::new(),
            measured: BTreeMap::new(),
            plan: Forecast::default(),
            planned: (now, f64::INFINITY),
            left_out: BTreeMap::new(),
            verifying: BTreeMap::new(),
            persisting: BTreeMap::new(),
            failures: BTreeMap::new(),
            kills: BTreeMap::new(),
            lost_by: BTreeMap::new(),
            reassigned: 0,
            stored: BTreeMap::new(),
            sources: BTreeMap::new(),
            fetching: BTreeSet::new(),
            empty_words: BTreeMap::new(),
            early: BTreeMap::new(),
            told: BTreeMap::new(),
            nodes: BTreeSet::new(),
            gathering: None,
            since: now,
            recorded: BTreeSet::new(),
            progress,
            next_lease: first_lease,
            next_check: None,
            moved: now,
            changed: Throttle::new(Span::from_millis(50)),
            news: Throttle::new(Span::from_millis(250)),
            effects: VecDeque::new(),
            shape: Shape::of(&header),
            operands: [header.a.id(), header.b.id()],
            header,
        }
    }

    /// Announces the job to everybody at once, after construction.
    pub fn start(&mut self, workers: Vec<DeviceRecord>, now: Instant) {
        for record in workers {
            self.enrol(record, now);
        }
        self.urge();
        self.finish_if_complete();
        let seconds = (now - self.started).as_secs_f64() + self.replan(now);
        self.predicted = seconds.is_finite().then_some(seconds);
        let devices: Vec<DeviceId> = self.workers.keys().copied().collect();
        for device in devices {
            self.open(device);
        }
    }

    /// What to do next.
    pub fn poll_effect(&mut self) -> Option<Effect<P>> {
        self.effects.pop_front()
    }

    /// When to call [`Scheduler::handle_time`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let throttles = earliest(self.changed.poll_timeout(), self.news.poll_timeout());
        if self.state.has_ended() {
            return throttles;
        }
        let live = self.leases.values().filter(|lease| !lease.expired);
        let deadline = live.map(|lease| lease.deadline).min();
        let own = earliest(self.stalls_at(), self.takeover_timeout());
        earliest(
            earliest(earliest(throttles, deadline), self.log.poll_timeout()),
            earliest(self.next_check, own),
        )
    }

    /// Under which it is coordinated here.
    pub fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    /// What the job is.
    pub fn header(&self) -> &JobHeader {
        &self.header
    }

    /// Which matrix a factor is.
    pub fn operand(&self, operand: Operand) -> MatrixId {
        self.operands[operand as usize]
    }

    /// Whether a tile of it is leased.
    pub fn has_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.state.has_ended()
    }

    /// How it stands.
    pub fn status(&self, now: Instant) -> JobStatus {
        let header = &self.header;
        JobStatus {
            job: header.job,
            name: header.name.clone(),
            state: self.state,
            rows: header.a.rows,
            inner: header.a.cols,
            cols: header.b.cols,
            dtype: header.element.dtype,
            mode: header.mode(),
            sharing: None,
            tiles_total: self.tiles.len() as u64,
            tiles_done: self.done,
            tiles_safe: self.log.safe(),
            tiles_recomputed: self.recomputed,
            coordinator: self.me,
            epoch: self.epoch().counter,
            safe_copies: self.log.safe_copies(),
            submitted: self.submitted,
            seconds: (self.ended.unwrap_or(now) - self.started).as_secs_f64(),
            predicted_seconds: self.predicted,
            plan: self.planned(),
            bytes_sent: self.bytes_sent,
            bytes_floor: self.progress.bytes_floor(header, self.me),
            bytes_replicated: self.log.bytes(),
            result: self.result,
            error: self.error.clone(),
            contributions: self.progress.contributions(),
            backups: self.log.backups().to_vec(),
            timeline: self.log.timeline(),
            part: header.batch.clone(),
            products: None,
            failed: None,
        }
    }

    /// A device can be reached, or says something new of itself.
    pub fn join(&mut self, record: DeviceRecord, now: Instant) {
        let device = record.device;
        if self.has_ended() {
            return;
        }
        self.forgive(device, record.incarnation);
        if record.state == DeviceState::Paused || record.slots == 0 {
            // Nobody else was told of a short job: whoever joins from now on is.
            self.alone &= device != self.me;
            self.leave(device, false, now);
            return;
        }
        if let Some(helper) = self.workers.get_mut(&device) {
            let again =
                helper.record.slots != record.slots || helper.record.mflops != record.mflops;
            self.progress.know(&record);
            helper.record = record;
            if again {
                self.replan(now);
            }
            return;
        }
        let name = record.name.clone();
        if self.enrol(record, now) {
            self.log.moment(Happening::Joined, device, &name, None, now);
            self.replan(now);
            self.open(device);
        }
    }

    /// A device can not be reached any more, was paused, or must not work for this node; `died`
    /// when it did not say so.
    pub fn leave(&mut self, device: DeviceId, died: bool, now: Instant) {
        self.left_out.remove(&device);
        let Some(helper) = self.workers.remove(&device) else {
            return;
        };
        self.unassigned.extend(helper.share);
        if self.has_ended() {
            return;
        }
        let name = &helper.record.name;
        self.log.moment(Happening::Left, device, name, None, now);
        let of = |(id, lease): (&LeaseId, &Lease)| {
            (lease.device == device).then_some((lease.granted, *id))
        };
        let mut leases: Vec<(Instant, LeaseId)> = self.leases.iter().filter_map(of).collect();
        leases.sort_unstable();
        for (n, (_, id)) in leases.into_iter().enumerate() {
            let tile = self.end_lease(id);
            self.lost_by.insert(tile, device);
            // The others waited for their turn.
            if died && n < helper.record.slots as usize {
                self.count_kill(tile, device, helper.record.incarnation, now);
            }
            if self.has_ended() {
                return;
            }
        }
        self.moved = now;
        self.replan(now);
    }

    /// A device asks for leases.
    pub fn handle_pull(&mut self, from: DeviceId, leases: u32, header: bool, now: Instant) {
        let job = self.header.job;
        if self.has_ended() {
            self.send(from, Message::Closed { job });
            return;
        }
        let mut grants = Vec::new();
        if let Some(helper) = self.workers.get(&from) {
            let held = self.outstanding(from);
            let window = LEASES_PER_SLOT * u64::from(helper.record.slots);
            let room = u64::from(leases).min(window.saturating_sub(held));
            for _ in 0..room {
                match self.choose(from, now) {
                    Some(tile) => grants.push(self.grant(tile, from, now)),
                    None => break,
                }
            }
            let helper = self.workers.get_mut(&from).expect("found above");
            helper.hungry = (grants.len() as u64) < u64::from(leases);
        }
        if !grants.is_empty() && header {
            self.send(from, Message::Job(Box::new(self.header.clone())));
        }
        let epoch = self.epoch();
        self.send(from, Message::Grants { job, epoch, grants });
    }

    /// A device needs blocks: it gets them while it holds a lease.
    pub fn handle_fetch(&mut self, from: DeviceId, operand: Operand, mut blocks: Vec<u32>) {
        let job = self.header.job;
        if self.has_ended() {
            self.send(from, Message::Closed { job });
            return;
        }
        let count = self.header.manifest(operand).blocks.len();
        blocks.retain(|&block| (block as usize) < count);
        blocks.truncate(FETCH_BLOCKS_MAX);
        blocks.dedup();
        let holds = self.leases.values().any(|lease| lease.device == from);
        if holds && !blocks.is_empty() {
            self.effects.push_back(Effect::Serve(from, operand, blocks));
        }
    }

    /// The result is a matrix: the job is done.
    pub fn handle_finished(&mut self, result: MatrixId, now: Instant) {
        if !self.has_ended() {
            self.result = Some(result);
            self.end(JobState::Done, now);
        }
    }

    /// Ends the job.
    pub fn cancel(&mut self, now: Instant) {
        if !self.has_ended() {
            self.end(JobState::Cancelled, now);
        }
    }

    /// Ends the job with a reason for people.
    pub fn fail(&mut self, reason: String, now: Instant) {
        if !self.has_ended() {
            self.error = Some(reason);
            self.end(JobState::Failed, now);
        }
    }

    /// Bytes of this job crossed a socket.
    pub fn handle_traffic(&mut self, bytes: u64) {
        self.bytes_sent = self.bytes_sent.saturating_add(bytes);
        self.changed.note();
    }

    /// Time passed.
    pub fn handle_time(&mut self, now: Instant) {
        self.go_on(now);
        self.check(now);
        self.tell_backups(now);
        if self.changed.take(now) {
            self.effects.push_back(Effect::Changed);
        }
        if self.news.take(now) {
            self.effects.push_back(Effect::News);
        }
    }

    // -- time --

    /// When to give up if nothing moves: only while nobody works on anything.
    fn stalls_at(&self) -> Option<Instant> {
        let share = self.header.share.is_some();
        let idle = self.bound != Bound::Nobody
            && !(share && self.workers.is_empty())
            && self.verifying.is_empty()
            && self.persisting.is_empty()
            && self.sources.is_empty()
            && self.gathering.is_none()
            && self.done < self.tiles.len() as u64
            && self.leases.values().all(|lease| lease.expired);
        idle.then(|| self.moved + if share { SHARE_STALL_MAX } else { STALL_MAX })
    }

    /// Ends leases that are over, offers work to devices that want some, notices a stall.
    fn check(&mut self, now: Instant) {
        if self.has_ended() {
            return;
        }
        self.expire(now);
        if self.stalls_at().is_some_and(|at| now >= at) {
            if self.header.share.is_some() {
                self.unbind(now);
                return;
            }
            let reason = "no device was able to take a tile for ten minutes".to_owned();
            self.fail(reason, now);
            return;
        }
        let hungry = self.workers.iter().filter(|(_, helper)| helper.hungry);
        let hungry: Vec<DeviceId> = hungry.map(|(id, _)| *id).collect();
        let mut still_hungry = false;
        for device in hungry {
            let helper = &self.workers[&device];
            let window = LEASES_PER_SLOT * u64::from(helper.record.slots);
            if self.outstanding(device) < window && self.choose(device, now).is_some() {
                self.open(device);
                let helper = self.workers.get_mut(&device).expect("listed above");
                helper.hungry = false;
            } else {
                still_hungry = true;
            }
        }
        // Whether an idle device may take over from a slow one changes with time alone.
        let open_tiles = self.done + (self.verifying.len() + self.persisting.len()) as u64;
        self.next_check = (still_hungry && open_tiles < self.tiles.len() as u64).then(|| {
            let fastest = self.workers.keys().map(|&id| self.slot_time(id)).min();
            let gap = fastest.map_or(CHECK_MAX, |span| Span(span.0 / 4));
            now + gap.clamp(CHECK_MIN, CHECK_MAX)
        });
    }

    /// This device is reached elsewhere: who is told of the job from now on is told so.
    pub fn handle_moved(&mut self, addresses: &[String]) {
        self.addresses = addresses.to_vec();
    }

    // -- telling --

    /// What tells a worker of this job.
    pub fn announcement(&self) -> Message {
        Message::Open {
            job: self.header.job,
            epoch: self.epoch(),
            class: self.header.class,
            addresses: self.addresses.clone(),
        }
    }

    fn open(&mut self, device: DeviceId) {
        let body = self.announcement();
        self.send(device, body);
    }

    fn send(&mut self, to: DeviceId, body: Message) {
        self.effects.push_back(Effect::Send(to, body));
    }

    fn urge(&mut self) {
        self.changed.urge();
        self.news.urge();
    }

    fn end(&mut self, state: JobState, now: Instant) {
        self.state = state;
        self.ended = Some(now);
        self.urge();
        let job = self.header.job;
        let devices: Vec<DeviceId> = self.workers.keys().copied().collect();
        for device in devices {
            self.send(device, Message::Closed { job });
        }
        self.leases.clear();
        self.sources.clear();
        self.gathering = None;
        let name = self.own_name();
        self.log.moment(Happening::Ended, self.me, &name, None, now);
        let status = self.status(now);
        self.log.end(status, now);
        self.effects.push_back(Effect::Ended);
    }
}
