//! One job on its coordinator: which tile is where, who may have the next one, when it has ended.
//!
//! Intuition: workers pull, a plan says what they get. Each device first takes the tiles that its
//! measured speed entitles it to, side by side so that panels are reused. Who has none left takes
//! over what others would finish too late: first tiles nobody has started, then doubles of tiles
//! that are overdue. So nobody waits long for a helper that is slow or gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::{DeviceId, Epoch, LeaseId, MatrixId};
use crate::io::DoneTile;
use crate::job::{JobHeader, Operand};
use crate::message::{DeviceRecord, Grant, Message, Work};
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
/// Blocks in one Fetch.
const FETCH_BLOCKS_MAX: usize = 65_536;

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
        let predicted = plan::predict(header.operations(), me.mflops);
        let short = predicted.is_some_and(|seconds| seconds < ALONE_MAX.as_secs_f64());
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
            progress: Progress::default(),
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
        let speed: f64 = self.workers.values().map(|w| speed(&w.record)).sum();
        self.predicted = plan::predict(self.header.operations(), speed);
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
        let stall = Some(self.moved + STALL_MAX);
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

    /// A device hands leases back.
    pub fn handle_return(
        &mut self,
        from: DeviceId,
        leases: &[LeaseId],
        failed: bool,
        now: Instant,
    ) {
        for id in leases {
            if self
                .leases
                .get(id)
                .is_some_and(|lease| lease.device == from)
            {
                let tile = self.end_lease(*id);
                if failed {
                    let weight = if from == self.me { 1 } else { FAILURES_MAX };
                    self.count_failure(tile, from, weight, now);
                }
            }
        }
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

    /// A tile was computed.
    #[allow(clippy::too_many_arguments)]
    pub fn handle_result(
        &mut self,
        from: DeviceId,
        id: LeaseId,
        tile: u32,
        work: Work,
        payload: P,
        payload_bytes: u64,
        now: Instant,
    ) {
        let job = self.header.job;
        if self.has_ended() {
            self.send(from, Message::Closed { job });
            return;
        }
        let fits = |lease: &&Lease| lease.device == from && lease.tile == tile;
        let Some(lease) = self.leases.get(&id).filter(fits) else {
            // Taken back meanwhile; if the tile is accepted this is a late double.
            if self.workers.contains_key(&from) {
                let state = self.tiles.get(tile as usize);
                let accepted = matches!(state, Some(Tile::Persisting | Tile::Done));
                self.recomputed += u64::from(accepted);
                self.verdict(from, id, tile, true, false);
            }
            return;
        };
        let took = (now - lease.granted).0;
        let expired = lease.expired;
        if let Some(helper) = self.workers.get_mut(&from) {
            helper.returned += 1;
            helper.latency = Some(helper.latency.map_or(took, |mean| (3 * mean + took) / 4));
        }
        self.take_lease(id);
        self.moved = now;
        match self.tiles[tile as usize] {
            Tile::Pending | Tile::Leased => {}
            Tile::Verifying | Tile::Persisting | Tile::Done => {
                self.recomputed += 1;
                self.verdict(from, id, tile, true, false);
                return;
            }
        }
        if payload_bytes != self.header.tile_bytes(tile) {
            self.reopen(tile);
            self.quarantine(from, id, tile, now);
            return;
        }
        if expired || self.tiles[tile as usize] == Tile::Pending {
            self.unassign(tile);
        }
        let computed = Computed {
            lease: id,
            device: from,
            work,
        };
        if from == self.me {
            self.persist(tile, computed, payload);
        } else {
            self.tiles[tile as usize] = Tile::Verifying;
            self.verifying.insert(tile, computed);
            self.effects.push_back(Effect::Verify(tile, id, payload));
        }
    }

    /// A tile of another device was checked.
    pub fn handle_verified(
        &mut self,
        tile: u32,
        lease: LeaseId,
        valid: bool,
        payload: P,
        now: Instant,
    ) {
        if self.has_ended() {
            return;
        }
        let expected = self.verifying.get(&tile);
        if expected.is_none_or(|computed| computed.lease != lease) {
            return;
        }
        let computed = self.verifying.remove(&tile).expect("found above");
        if valid {
            self.persist(tile, computed, payload);
        } else {
            self.reopen(tile);
            self.quarantine(computed.device, lease, tile, now);
        }
    }

    /// A tile is durable: it is done.
    pub fn handle_persisted(&mut self, tile: u32, now: Instant) {
        let Some(computed) = self.persisting.remove(&tile) else {
            return;
        };
        if self.has_ended() {
            return;
        }
        let Computed {
            lease,
            device,
            work,
        } = computed;
        self.tiles[tile as usize] = Tile::Done;
        self.done += 1;
        self.moved = now;
        // Nobody has more busy time than there was time.
        let busy = work.busy.min(now - self.started).max(Span(1));
        let work = Work { busy, ..work };
        self.progress.count(&self.header, tile, device, work);
        self.failures.remove(&tile);
        self.verdict(device, lease, tile, true, true);
        self.changed.note();
        self.news.note();
        if self.done == self.tiles.len() as u64 {
            self.effects.push_back(Effect::Finish);
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

    // -- tiles and leases --

    fn persist(&mut self, tile: u32, computed: Computed, payload: P) {
        let device = computed.device;
        self.tiles[tile as usize] = Tile::Persisting;
        // The tile is decided: whoever else computes it may stop.
        let doubles = self.leases.iter().filter(|(_, lease)| lease.tile == tile);
        let doubles: Vec<(LeaseId, DeviceId)> =
            doubles.map(|(id, lease)| (*id, lease.device)).collect();
        for (id, other) in doubles {
            self.take_lease(id);
            self.verdict(other, id, tile, true, false);
        }
        let first = self.recorded.insert(device);
        let contributor = first.then(|| self.progress.record(device).cloned());
        let done = DoneTile {
            tile,
            device,
            work: computed.work,
        };
        self.persisting.insert(tile, computed);
        let contributor = contributor.flatten().map(Box::new);
        self.effects
            .push_back(Effect::Persist(done, contributor, payload));
    }

    fn quarantine(&mut self, device: DeviceId, lease: LeaseId, tile: u32, now: Instant) {
        self.verdict(device, lease, tile, false, false);
        self.count_failure(tile, device, FAILURES_MAX, now);
        self.effects.push_back(Effect::Quarantined(device, tile));
    }

    fn take_lease(&mut self, id: LeaseId) -> Lease {
        let lease = self.leases.remove(&id).expect("a lease that is held");
        if let Some(helper) = self.workers.get_mut(&lease.device) {
            helper.held -= u64::from(!lease.expired);
        }
        lease
    }

    /// Ends a lease without a result; the tile goes back if nobody else computes it.
    fn end_lease(&mut self, id: LeaseId) -> u32 {
        let lease = self.take_lease(id);
        if self.tiles[lease.tile as usize] == Tile::Leased {
            self.reopen(lease.tile);
        }
        lease.tile
    }

    /// A tile that is not accepted: leased if somebody computes it, else pending.
    fn reopen(&mut self, tile: u32) {
        let state = &mut self.tiles[tile as usize];
        let mut leases = self.leases.values();
        if leases.any(|lease| lease.tile == tile && !lease.expired) {
            *state = Tile::Leased;
        } else if *state != Tile::Pending {
            *state = Tile::Pending;
            self.unassigned.insert(tile);
        }
    }

    /// Takes a pending tile out of whichever share it is in.
    fn unassign(&mut self, tile: u32) {
        if !self.unassigned.remove(&tile) {
            let _ = self.workers.values_mut().any(|w| w.share.remove(&tile));
        }
    }

    /// A device failed a tile, or went away with it. Devices may do so for many reasons; a tile
    /// that does it to several is kept to the own slots, and when those fail too the job fails.
    fn count_failure(&mut self, tile: u32, device: DeviceId, weight: usize, now: Instant) {
        if self.has_ended() {
            return;
        }
        *self
            .failures
            .entry(tile)
            .or_default()
            .entry(device)
            .or_default() += weight;
        let failures = &self.failures[&tile];
        let own = failures.get(&self.me).copied().unwrap_or(0);
        let own_works = self.workers.contains_key(&self.me);
        let others = failures.len() - usize::from(failures.contains_key(&self.me));
        if own >= FAILURES_MAX || (!own_works && others >= FAILURES_MAX) {
            let devices = failures.len();
            let reason = format!(
                "tile {tile} could not be computed: {devices} devices failed it or went away with it"
            );
            self.fail(reason, now);
        }
    }

    fn may_have(&self, tile: u32, device: DeviceId) -> bool {
        let Some(failures) = self.failures.get(&tile) else {
            return true;
        };
        let count = failures.get(&device).copied().unwrap_or(0);
        let own_only = failures.len() >= FAILURES_MAX && self.workers.contains_key(&self.me);
        count < FAILURES_MAX && (!own_only || device == self.me)
    }

    fn grant(&mut self, tile: u32, device: DeviceId, now: Instant) -> Grant {
        if self.state == JobState::Queued {
            self.state = JobState::Running;
            self.urge();
        }
        self.unassign(tile);
        self.tiles[tile as usize] = Tile::Leased;
        let lease = LeaseId(self.next_lease);
        self.next_lease = self.next_lease.wrapping_add(1);
        let slot_time = self.slot_time(device, now);
        let (row, col) = self.place(tile);
        let helper = self.workers.get_mut(&device).expect("grants go to workers");
        helper.rows.insert(row);
        helper.cols.insert(col);
        helper.first_grant.get_or_insert(now);
        helper.held += 1;
        let expected = helper.latency.unwrap_or(2 * slot_time.0);
        let least = match helper.record.kind {
            DeviceKind::Browser if helper.returned > 0 => LEASE_MIN_BROWSER,
            _ => LEASE_MIN_NATIVE,
        };
        let lasts = Span(expected.saturating_mul(4)).max(least);
        self.leases.insert(
            lease,
            Lease {
                tile,
                device,
                granted: now,
                lasts,
                deadline: now + lasts,
                extensions: 0,
                expired: false,
            },
        );
        self.moved = now;
        Grant { lease, tile, lasts }
    }

    /// The tile that a device should compute next, if any.
    fn choose(&self, device: DeviceId, now: Instant) -> Option<u32> {
        let helper = &self.workers[&device];
        self.nearest(helper, &helper.share, device)
            .or_else(|| self.nearest(helper, &self.unassigned, device))
            .or_else(|| self.steal(device, now))
            .or_else(|| self.double(device, now))
    }

    /// Of `tiles`, the one that needs the fewest panels that the device does not have.
    fn nearest(&self, helper: &Helper, tiles: &BTreeSet<u32>, device: DeviceId) -> Option<u32> {
        let new_panels = |&tile: &u32| {
            let (row, col) = self.place(tile);
            u8::from(!helper.rows.contains(&row)) + u8::from(!helper.cols.contains(&col))
        };
        let overdue = self.overdue(device);
        let mut allowed = tiles
            .iter()
            .copied()
            .filter(|&tile| self.may_have(tile, device) && !overdue.contains(&tile));
        let scanned = allowed.by_ref().take(SCAN_MAX);
        scanned.min_by_key(new_panels)
    }

    /// A pending tile of the share that would be finished last, if this device would be earlier.
    fn steal(&self, thief: DeviceId, now: Instant) -> Option<u32> {
        let helper = &self.workers[&thief];
        // Time for one more tile after those that it holds.
        let mine = self.finish(thief, 1, now);
        let victims = self.workers.iter().filter_map(|(&id, victim)| {
            if id == thief || victim.share.is_empty() {
                return None;
            }
            let theirs = if victim.returned > 0 {
                self.finish(id, victim.share.len() as u64, now)
            } else if now < victim.opened + self.grace(id, now) {
                return None;
            } else {
                u64::MAX
            };
            (theirs > mine).then_some((theirs, id))
        });
        let mut victims: Vec<(u64, DeviceId)> = victims.collect();
        victims.sort_unstable_by(|a, b| b.cmp(a));
        victims
            .into_iter()
            .find_map(|(_, id)| self.nearest(helper, &self.workers[&id].share, thief))
    }

    /// When nothing is pending: a tile that another device should have returned, or will return
    /// later than this one could.
    fn double(&self, device: DeviceId, now: Instant) -> Option<u32> {
        let nothing_pending =
            self.unassigned.is_empty() && self.workers.values().all(|w| w.share.is_empty());
        if !nothing_pending {
            return None;
        }
        let mine = self.finish(device, 1, now);
        let late = |lease: &Lease| {
            let expected = self.expected(lease.device, now);
            let elapsed = (now - lease.granted).0;
            elapsed > 2 * expected || expected.saturating_sub(elapsed) > 2 * mine
        };
        let overdue = self.overdue(device);
        let mut candidates: Vec<(Instant, u32)> = self
            .leases
            .values()
            .filter(|lease| {
                lease.device != device
                    && !lease.expired
                    && !overdue.contains(&lease.tile)
                    && self.tiles[lease.tile as usize] == Tile::Leased
                    && self.may_have(lease.tile, device)
                    && late(lease)
            })
            .map(|lease| (lease.granted, lease.tile))
            .collect();
        candidates.sort_unstable();
        let on = |tile: u32| {
            let leases = self.leases.values();
            leases.filter(move |lease| lease.tile == tile && !lease.expired)
        };
        let single = |tile: u32| on(tile).count() == 1;
        candidates
            .into_iter()
            .map(|(_, tile)| tile)
            .find(|&tile| single(tile))
    }

    /// Tiles whose leases a device has let expire: it may still return them, so it does not get
    /// them again.
    fn overdue(&self, device: DeviceId) -> BTreeSet<u32> {
        let of = |lease: &&Lease| lease.expired && lease.device == device;
        self.leases.values().filter(of).map(|l| l.tile).collect()
    }

    // -- pace --

    /// Tiles a second: what was observed once every slot has returned one, else what its
    /// measured speed promises.
    fn rate(&self, device: DeviceId, now: Instant) -> f64 {
        let helper = &self.workers[&device];
        let planned = speed(&helper.record) * 1e6 / self.mean_tile_operations();
        match helper.first_grant {
            Some(first) if helper.returned >= u64::from(helper.record.slots) => {
                let seconds = (now - first).as_secs_f64().max(1e-3);
                helper.returned as f64 / seconds
            }
            Some(first) if helper.returned > 0 => {
                let seconds = (now - first).as_secs_f64().max(1e-3);
                planned.min((helper.returned + u64::from(helper.record.slots)) as f64 / seconds)
            }
            _ => planned,
        }
    }

    /// Microseconds until a device has finished what it holds and `more` tiles.
    fn finish(&self, device: DeviceId, more: u64, now: Instant) -> u64 {
        let slots = f64::from(self.workers[&device].record.slots);
        let tiles = (self.outstanding(device) + more) as f64;
        let seconds = tiles.max(slots) / self.rate(device, now);
        (seconds * 1e6).min(1e15) as u64
    }

    /// How long one tile takes in one slot.
    fn slot_time(&self, device: DeviceId, now: Instant) -> Span {
        let slots = f64::from(self.workers[&device].record.slots);
        Span((slots / self.rate(device, now) * 1e6).min(1e15) as u64)
    }

    /// Microseconds that a lease of this device takes from grant to result.
    fn expected(&self, device: DeviceId, now: Instant) -> u64 {
        let observed = self.workers.get(&device).and_then(|helper| helper.latency);
        let guess = || {
            let known = self.workers.contains_key(&device);
            let slot = if known {
                self.slot_time(device, now).0
            } else {
                0
            };
            2 * slot + GRACE_MIN.0
        };
        observed.unwrap_or_else(guess)
    }

    fn grace(&self, device: DeviceId, now: Instant) -> Span {
        GRACE_MIN.max(Span(2 * self.slot_time(device, now).0))
    }

    fn outstanding(&self, device: DeviceId) -> u64 {
        self.workers.get(&device).map_or(0, |helper| helper.held)
    }

    fn mean_tile_operations(&self) -> f64 {
        self.header.operations() as f64 / self.tiles.len() as f64
    }

    fn place(&self, tile: u32) -> (u64, u64) {
        let cols = self.header.tiling.grid_cols();
        (u64::from(tile) / cols, u64::from(tile) % cols)
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

    /// Ends leases that are over, offers work to devices that want some, notices a stall.
    fn check(&mut self, now: Instant) {
        if self.has_ended() {
            return;
        }
        self.expire(now);
        if self.has_ended() {
            return;
        }
        if now >= self.moved + STALL_MAX && self.verifying.is_empty() && self.persisting.is_empty()
        {
            let reason = "no device took or returned a tile for ten minutes".to_owned();
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

    fn expire(&mut self, now: Instant) {
        let over = |(id, lease): (&LeaseId, &Lease)| {
            (!lease.expired && now >= lease.deadline).then_some(*id)
        };
        let over: Vec<LeaseId> = self.leases.iter().filter_map(over).collect();
        for id in over {
            // The job may have failed because of an earlier one.
            let Some(lease) = self.leases.get_mut(&id) else {
                return;
            };
            let (device, tile) = (lease.device, lease.tile);
            let helper = self.workers.get(&device);
            let native = helper.is_some_and(|h| h.record.kind == DeviceKind::Native);
            if native && lease.extensions < EXTENSIONS_MAX {
                // Its link lives, so it computes.
                lease.extensions += 1;
                lease.deadline = now + lease.lasts;
                continue;
            }
            lease.expired = true;
            if let Some(helper) = self.workers.get_mut(&device) {
                helper.held -= 1;
            }
            if self.tiles[tile as usize] == Tile::Leased {
                self.reopen(tile);
            }
            self.count_failure(tile, device, 1, now);
        }
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

    fn verdict(&mut self, to: DeviceId, lease: LeaseId, tile: u32, valid: bool, accepted: bool) {
        let body = Message::Verdict {
            job: self.header.job,
            lease,
            tile,
            valid,
            accepted,
        };
        self.send(to, body);
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

/// A speed to plan with: a device that did not measure itself counts as very slow.
fn speed(record: &DeviceRecord) -> f64 {
    if record.mflops.is_finite() {
        record.mflops.max(1.0)
    } else {
        1.0
    }
}
