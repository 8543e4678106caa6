//! One job on its coordinator: which tile is where, who may have the next one, when it has ended.
//!
//! Intuition: workers pull, a plan says what they get. Each device first takes the tiles that its
//! measured speed entitles it to, side by side so that panels are reused. Who has none left takes
//! over what others would finish too late: first tiles nobody has started, then doubles of tiles
//! that are overdue. So nobody waits long for a helper that is slow or gone.

mod choice;
mod leases;
mod results;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::{DeviceId, Epoch, LeaseId, MatrixId};
use crate::io::{Checked, DoneTile};
use crate::job::{JobHeader, Operand};
use crate::message::{DeviceRecord, FETCH_BLOCKS_MAX, Grant, Message, Work};
use crate::plan;
use crate::progress::Progress;
use crate::share::{self, Capacity};
use crate::status::{DeviceKind, DeviceState, JobState, JobStatus, Mode};
use crate::tile::Rect;
use crate::time::{Instant, Span, WallTime};
use crate::timer::{Throttle, earliest};

/// Leases that a device holds at most, for each of its slots.
const LEASES_PER_SLOT: u64 = 2;
/// A job that the coordinator does alone in less is not worth a round trip.
const ALONE_MAX: Span = Span::from_millis(30);
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
/// How often idle devices are looked after while a job runs.
const CHECK_MIN: Span = Span::from_millis(25);
const CHECK_MAX: Span = Span::from_millis(500);
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
    Persist(DoneTile, Option<Box<DeviceRecord>>, P),
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
    epoch: Epoch,
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
    /// Only the own slots work: the job is too short for others.
    alone: bool,
    tiles: Vec<Tile>,
    leases: BTreeMap<LeaseId, Lease>,
    workers: BTreeMap<DeviceId, Helper>,
    /// Pending tiles of nobody's share.
    unassigned: BTreeSet<u32>,
    verifying: BTreeMap<u32, Computed>,
    persisting: BTreeMap<u32, Computed>,
    failures: BTreeMap<u32, BTreeMap<DeviceId, usize>>,
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

/// Where a tile stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tile {
    Pending,
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
}

#[derive(Debug)]
struct Helper {
    record: DeviceRecord,
    /// Pending tiles of its share.
    share: BTreeSet<u32>,
    /// Rows and columns of the tile grid whose panels it has.
    rows: BTreeSet<u64>,
    cols: BTreeSet<u64>,
    /// When the job was announced to it.
    opened: Instant,
    first_grant: Option<Instant>,
    /// Leases it holds that have not expired.
    held: u64,
    returned: u64,
    /// Mean time from grant to result, in microseconds.
    latency: Option<u64>,
    /// Its last Pull was not satisfied.
    hungry: bool,
}

impl<P> Scheduler<P> {
    /// A job that was just taken, or goes on `elapsed` after that. `first_lease` must be random:
    /// leases of an earlier run must not be mistaken for new ones.
    ///
    /// # Panics
    /// When the header does not pass its own check.
    pub fn new(
        me: &DeviceRecord,
        header: JobHeader,
        submitted: WallTime,
        elapsed: Span,
        first_lease: u64,
        now: Instant,
    ) -> Self {
        header.check().expect("a job is checked when it is taken");
        let tiles = vec![Tile::Pending; header.tiling.len() as usize];
        let predicted = plan::predict(&header, me.mflops);
        let short = predicted.is_some_and(|seconds| seconds < ALONE_MAX.as_secs_f64());
        let mut progress = Progress::default();
        // It may compute a tile in a check although it takes no leases.
        progress.know(me);
        Self {
            me: me.device,
            epoch: Epoch {
                counter: 1,
                device: me.device,
            },
            addresses: me.addresses.clone(),
            submitted,
            started: Instant(now.0.saturating_sub(elapsed.0)),
            ended: None,
            state: JobState::Queued,
            result: None,
            error: None,
            predicted: None,
            bytes_sent: 0,
            recomputed: 0,
            done: 0,
            alone: short && me.state != DeviceState::Paused && me.slots > 0,
            unassigned: (0..tiles.len() as u32).collect(),
            tiles,
            leases: BTreeMap::new(),
            workers: BTreeMap::new(),
            verifying: BTreeMap::new(),
            persisting: BTreeMap::new(),
            failures: BTreeMap::new(),
            recorded: BTreeSet::new(),
            progress,
            next_lease: first_lease,
            next_check: None,
            moved: now,
            changed: Throttle::new(Span::from_millis(50)),
            news: Throttle::new(Span::from_millis(250)),
            effects: VecDeque::new(),
            header,
        }
    }

    /// Books tiles that are durable already; before anything else.
    pub fn restore(&mut self, done: Vec<DoneTile>, contributors: &[DeviceRecord]) {
        for record in contributors {
            self.progress.know(record);
            self.recorded.insert(record.device);
        }
        for DoneTile { tile, device, work } in done {
            match self.tiles.get_mut(tile as usize) {
                Some(state @ Tile::Pending) => *state = Tile::Done,
                _ => continue,
            }
            self.unassigned.remove(&tile);
            self.done += 1;
            self.progress.count(&self.header, tile, device, work);
        }
        if self.done > 0 {
            self.state = JobState::Running;
        }
    }

    /// Announces the job to everybody at once, after construction.
    pub fn start(&mut self, workers: Vec<DeviceRecord>, now: Instant) {
        for record in workers {
            self.enrol(record, now);
        }
        let per_slot = self.mean_slot_speed();
        let speeds = self.workers.values().map(|w| speed(&w.record, per_slot));
        let speed: f64 = speeds.sum();
        self.predicted = plan::predict(&self.header, speed);
        self.urge();
        if self.done == self.tiles.len() as u64 {
            self.effects.push_back(Effect::Finish);
        }
        self.replan(now);
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
        let stall = self.stalls_at();
        earliest(
            earliest(throttles, deadline),
            earliest(self.next_check, stall),
        )
    }

    /// What the job is.
    pub fn header(&self) -> &JobHeader {
        &self.header
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
            mode: Mode::Plain,
            tiles_total: self.tiles.len() as u64,
            tiles_done: self.done,
            tiles_safe: 0,
            tiles_recomputed: self.recomputed,
            coordinator: self.me,
            epoch: self.epoch.counter,
            safe_copies: 0,
            submitted: self.submitted,
            seconds: (self.ended.unwrap_or(now) - self.started).as_secs_f64(),
            predicted_seconds: self.predicted,
            bytes_sent: self.bytes_sent,
            bytes_floor: self.progress.bytes_floor(header, self.me),
            bytes_replicated: 0,
            result: self.result,
            error: self.error.clone(),
            contributions: self.progress.contributions(),
        }
    }

    /// A device can be reached, or says something new of itself.
    pub fn join(&mut self, record: DeviceRecord, now: Instant) {
        let device = record.device;
        if self.has_ended() {
            return;
        }
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
        if self.enrol(record, now) {
            self.replan(now);
            self.open(device);
        }
    }

    /// A device can not be reached any more, was paused, or must not work for this node; `died`
    /// when it did not say so.
    pub fn leave(&mut self, device: DeviceId, died: bool, now: Instant) {
        let Some(helper) = self.workers.remove(&device) else {
            return;
        };
        self.unassigned.extend(helper.share);
        let of = |(id, lease): (&LeaseId, &Lease)| (lease.device == device).then_some(*id);
        let leases: Vec<LeaseId> = self.leases.iter().filter_map(of).collect();
        for id in leases {
            if self.has_ended() {
                return;
            }
            let tile = self.end_lease(id);
            if died {
                self.count_failure(tile, device, 1, now);
            }
        }
        self.moved = now;
        if !self.has_ended() {
            self.replan(now);
        }
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
        let epoch = self.epoch;
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
        self.check(now);
        if self.changed.take(now) {
            self.effects.push_back(Effect::Changed);
        }
        if self.news.take(now) {
            self.effects.push_back(Effect::News);
        }
    }

    // -- plan --

    fn enrol(&mut self, record: DeviceRecord, now: Instant) -> bool {
        let able = record.classes.contains(&self.header.class)
            && record.slots > 0
            && matches!(record.state, DeviceState::Ready | DeviceState::Busy)
            && (!self.alone || record.device == self.me);
        if able {
            self.progress.know(&record);
            let helper = Helper {
                share: BTreeSet::new(),
                rows: BTreeSet::new(),
                cols: BTreeSet::new(),
                opened: now,
                first_grant: None,
                held: 0,
                returned: 0,
                latency: None,
                hungry: false,
                record,
            };
            self.moved = now;
            self.workers.insert(helper.record.device, helper);
        }
        able
    }

    /// Shares out everything pending anew.
    fn replan(&mut self, now: Instant) {
        for helper in self.workers.values_mut() {
            self.unassigned.append(&mut helper.share);
        }
        let mut devices: Vec<Capacity> = self
            .workers
            .iter()
            .map(|(&device, helper)| Capacity {
                device,
                rate: self.rate(device, now),
                slots: helper.record.slots,
                load: self.outstanding(device),
            })
            .collect();
        if devices.is_empty() {
            return;
        }
        devices.sort_by(|a, b| b.rate.total_cmp(&a.rate));
        let mut tiles: Vec<u32> = std::mem::take(&mut self.unassigned).into_iter().collect();
        let counts = share::counts(&devices, tiles.len());
        let Rect { rows, cols, .. } = self.header.tiling.rect(0);
        let bytes = |operand| self.header.manifest(operand).element.bytes() as f64;
        let aspect = (rows as f64 * bytes(Operand::A)) / (cols as f64 * bytes(Operand::B));
        let grid_cols = self.header.tiling.grid_cols();
        let regions = share::regions(&mut tiles, grid_cols, aspect, &counts);
        for (capacity, region) in devices.iter().zip(regions) {
            let helper = self.workers.get_mut(&capacity.device);
            helper.expect("planned for workers").share = region.into_iter().collect();
        }
    }

    /// The mean speed of a slot among devices that have measured themselves.
    fn mean_slot_speed(&self) -> f64 {
        let records = self.workers.values().map(|helper| &helper.record);
        let measured = records.filter(|record| record.mflops >= 1.0);
        let (speed, slots) = measured.fold((0.0, 0.0), |(speed, slots), record| {
            (speed + record.mflops, slots + f64::from(record.slots))
        });
        if slots > 0.0 { speed / slots } else { 1_000.0 }
    }

    /// When to give up if nothing moves: only while nobody works on anything.
    fn stalls_at(&self) -> Option<Instant> {
        let idle = self.verifying.is_empty()
            && self.persisting.is_empty()
            && self.done < self.tiles.len() as u64
            && self.leases.values().all(|lease| lease.expired);
        idle.then(|| self.moved + STALL_MAX)
    }

    /// Ends leases that are over, offers work to devices that want some, notices a stall.
    fn check(&mut self, now: Instant) {
        if self.has_ended() {
            return;
        }
        self.expire(now);
        if self.stalls_at().is_some_and(|at| now >= at) {
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
            let fastest = self.workers.keys().map(|&id| self.slot_time(id, now)).min();
            let gap = fastest.map_or(CHECK_MAX, |span| Span(span.0 / 4));
            now + gap.clamp(CHECK_MIN, CHECK_MAX)
        });
    }

    // -- telling --

    fn open(&mut self, device: DeviceId) {
        let body = Message::Open {
            job: self.header.job,
            epoch: self.epoch,
            class: self.header.class,
            addresses: self.addresses.clone(),
        };
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
        self.effects.push_back(Effect::Ended);
    }
}

/// A speed to plan with. A device that has not measured itself yet is taken for an average one,
/// `per_slot` each: its own pace shows soon, and until then it must not stand idle.
fn speed(record: &DeviceRecord, per_slot: f64) -> f64 {
    if record.mflops.is_finite() && record.mflops >= 1.0 {
        record.mflops
    } else {
        per_slot * f64::from(record.slots.max(1))
    }
}
