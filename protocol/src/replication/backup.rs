//! A job on a node that does not coordinate it: what the log says, what is durable here, and
//! what is still to be copied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::election::{self, Election, Step, View};
use super::{
    CONTRIBUTOR_BYTES, Entry, Rank, Restored, StoredTile, TILES_MAX, Taken, Vote, is_near,
};
use crate::id::{BlockId, DeviceId, Epoch, MatrixId};
use crate::io::DoneTile;
use crate::job::JobHeader;
use crate::message::{DeviceRecord, Message};
use crate::progress::Progress;
use crate::status::{CONTRIBUTIONS_MAX, JobState, JobStatus, Mode, Moment, TIMELINE_MAX};
use crate::time::{Instant, Span};
use crate::timer::earliest;

/// Tiles that are fetched at a time.
const FETCHES_MAX: usize = 2;
/// What could not be had is asked for again after so long.
const RETRY: Span = Span::from_secs(1);
/// Operands smaller than this are copied at once. Larger ones wait as long as copying them takes at
/// about this pace, reading, hashing and syncing included: a job that is done sooner costs nothing,
/// and none waits longer for its copies than twice the time that they need.
const SMALL: u64 = 8 << 20;
const BYTES_PER_SECOND: u64 = 100 << 20;
/// Who did not give a tile so many times has not got it.
const DOUBTS_MAX: u32 = 5;
/// A whole result that nobody in reach gave so many times is not there.
const WHOLE_REFUSALS_MAX: u32 = 8;
/// Operands that nobody has, after so many attempts, are lost.
const REFUSALS_MAX: u32 = 8;
/// A tile that did not come by then is asked for again.
const FETCH_MAX: Span = Span::from_secs(60);
/// Nodes that are remembered as holders of one tile.
const HOLDERS_MAX: usize = 16;
/// When nobody who has the result was seen for so long, what is missing of it is computed again.
const RESULT_LOST: Span = Span::from_secs(10);
/// When those who ended the job can be asked and have not got all of its result either, for so
/// long, their disks have lost a part of it: this node has no copy to keep.
const RESULT_GIVEN_UP: Span = Span::from_secs(60);

/// What a backup asks for.
#[derive(Debug)]
pub(crate) enum Effect<P> {
    /// Say something to a node.
    Send(DeviceId, Message),
    /// As [`crate::io::Output::Record`].
    Record(Epoch, u64, Vec<Entry>),
    /// As [`crate::io::Output::CopyMatrix`].
    CopyMatrix(MatrixId, Vec<DeviceId>),
    /// As [`crate::io::Output::FetchTile`].
    FetchTile(u32, DeviceId),
    /// As [`crate::io::Output::Persist`].
    Persist(DoneTile, Option<BlockId>, P),
    /// As [`crate::io::Output::Finish`].
    Finish,
    /// The job has ended, and its part of what it left is here.
    Ended(Box<JobStatus>),
    /// As [`crate::io::Output::Claim`].
    Claim(Epoch),
    /// This node has no part in it any more; `true` when its time is over everywhere.
    Drop(bool),
    /// What people see changed.
    Changed,
}

/// What the log says of a tile.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub stored: StoredTile,
    /// Nodes that have these very bytes.
    pub holders: BTreeSet<DeviceId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    Missing { retry: Instant },
    Asked,
    There,
}

/// One job, coordinated elsewhere or by nobody.
#[derive(Debug)]
pub struct Backup<P> {
    me: DeviceId,
    taken: Taken,
    started: Instant,
    /// The highest epoch seen, and the highest that is durable here.
    epoch: Epoch,
    durable: Option<Epoch>,
    /// Entries of that epoch's log: taken in, and durable.
    received: u64,
    sequence: u64,
    backups: Vec<DeviceId>,
    contributors: BTreeMap<DeviceId, DeviceRecord>,
    recorded: BTreeMap<u32, Known>,
    /// Holders of all tiles together, at least.
    holders: u64,
    held: BTreeMap<u32, StoredTile>,
    persisting: BTreeMap<u32, DoneTile>,
    /// Tiles to fetch, and when they may be asked for again.
    wanted: BTreeMap<u32, Instant>,
    /// From whom tiles are being fetched.
    fetching: BTreeMap<u32, DeviceId>,
    /// How often a node did not give a tile that it is said to have.
    doubts: BTreeMap<(u32, DeviceId), u32>,
    /// From whom the tiles came that are being stored.
    given: BTreeMap<u32, DeviceId>,
    operands: BTreeMap<MatrixId, Copy>,
    /// How often an operand could not be had from anybody.
    refusals: u32,
    timeline: Vec<Moment>,
    ending: Option<JobStatus>,
    /// How often the whole result could not be had since this end, or another node, came.
    refused: u32,
    /// The result as a whole, where its tiles can not be put together.
    whole: Option<Copy>,
    finishing: bool,
    /// Nobody who has the result is linked since then.
    bereft: Option<Instant>,
    /// For so long that it is computed again.
    lost: bool,
    /// The coordinator was asked whether that is really the end.
    asked: bool,
    over: bool,
    linked: BTreeSet<DeviceId>,
    /// The coordinator said so on the link that it has now.
    confirmed: bool,
    /// It was told which tiles are here.
    reported: bool,
    /// It asked for all of them.
    claimed: bool,
    election: Election,
    effects: VecDeque<Effect<P>>,
}

/// What a new coordinator starts with.
#[derive(Debug)]
pub(crate) struct Legacy {
    /// Who coordinated it.
    pub before: DeviceId,
    pub taken: Taken,
    pub started: Instant,
    pub backups: Vec<DeviceId>,
    pub contributors: Vec<DeviceRecord>,
    pub recorded: BTreeMap<u32, Known>,
    pub held: BTreeMap<u32, StoredTile>,
    pub persisting: BTreeMap<u32, DoneTile>,
    pub timeline: Vec<Moment>,
}

impl<P> Backup<P> {
    /// A job that this node has just heard of from its coordinator.
    pub fn new(me: DeviceId, taken: Taken, epoch: Epoch, now: Instant) -> Self {
        let operands = [taken.header.a.id(), taken.header.b.id()];
        let missing = Copy::Missing { retry: now };
        Self {
            me,
            started: now,
            epoch,
            durable: None,
            received: 0,
            sequence: 0,
            backups: Vec::new(),
            contributors: BTreeMap::new(),
            recorded: BTreeMap::new(),
            holders: 0,
            held: BTreeMap::new(),
            persisting: BTreeMap::new(),
            wanted: BTreeMap::new(),
            fetching: BTreeMap::new(),
            doubts: BTreeMap::new(),
            given: BTreeMap::new(),
            operands: operands.into_iter().map(|id| (id, missing)).collect(),
            refusals: 0,
            timeline: Vec::new(),
            ending: None,
            refused: 0,
            whole: None,
            finishing: false,
            bereft: None,
            lost: false,
            asked: false,
            over: false,
            linked: BTreeSet::new(),
            confirmed: false,
            reported: false,
            claimed: false,
            election: Election::new(None),
            effects: VecDeque::new(),
            taken,
        }
    }

    /// A job from the disk, whoever coordinated it.
    pub fn restored(me: DeviceId, restored: Restored, now: Instant) -> Self {
        let mut backup = Self::new(me, restored.taken, restored.epoch, now);
        backup.started = Instant(now.0.saturating_sub(restored.elapsed.0));
        backup.durable = Some(restored.epoch);
        backup.received = restored.sequence;
        backup.sequence = restored.sequence;
        backup.backups = restored.backups;
        let contributors = restored.contributors.into_iter();
        backup.contributors = contributors.map(|record| (record.device, record)).collect();
        for (stored, holders) in restored.recorded {
            let holders = holders.into_iter().collect();
            let known = Known { stored, holders };
            backup.recorded.insert(known.stored.done.tile, known);
        }
        let held = restored.held.into_iter();
        backup.held = held.map(|stored| (stored.done.tile, stored)).collect();
        backup.timeline = restored.timeline;
        backup.ending = restored.ending;
        backup.election = Election::new(Some(now));
        backup.want_result(now);
        backup
    }

    /// A job that this node coordinated until it heard of a higher epoch.
    pub fn stepped_down(me: DeviceId, legacy: Legacy, epoch: Epoch, now: Instant) -> Self {
        let mut backup = Self::new(me, legacy.taken, epoch, now);
        backup.started = legacy.started;
        backup.backups = legacy.backups;
        let contributors = legacy.contributors.into_iter();
        backup.contributors = contributors.map(|record| (record.device, record)).collect();
        backup.recorded = legacy.recorded;
        backup.held = legacy.held;
        backup.persisting = legacy.persisting;
        backup.timeline = legacy.timeline;
        for copy in backup.operands.values_mut() {
            *copy = Copy::There;
        }
        backup
    }

    /// What to do next.
    pub fn poll_effect(&mut self) -> Option<Effect<P>> {
        self.effects.pop_front()
    }

    /// When to call [`Backup::handle_time`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let mut next = match (self.bereft, self.lost) {
            (Some(since), false) => Some(since + RESULT_LOST),
            (Some(since), true) if self.hears() && !self.asked => Some(since + RESULT_GIVEN_UP),
            _ => None,
        };
        if self.may_stand() {
            next = earliest(next, self.election.poll_timeout(&self.view()));
        }
        let operands = self.operands.values().filter(|_| self.needs_operands());
        for copy in operands.chain(&self.whole) {
            if let Copy::Missing { retry } = copy {
                next = earliest(next, Some(*retry));
            }
        }
        let room = self.fetching.len() < FETCHES_MAX;
        let retry = self.wanted.values().min().filter(|_| room);
        earliest(next, retry.copied())
    }

    pub fn header(&self) -> &JobHeader {
        &self.taken.header
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> u64 {
        let header = &self.taken.header;
        let blocks = header.a.blocks.len() + header.b.blocks.len();
        let ending = self.ending.as_ref().map_or(0, JobStatus::size);
        let tiles = self.recorded.len() + self.held.len();
        let contributors = self.contributors.len() as u64 * CONTRIBUTOR_BYTES;
        ending + contributors + 34 * blocks as u64 + 192 * tiles as u64 + 40 * self.holders
    }

    /// What a new coordinator continues from. Nothing is left to do here.
    pub fn into_legacy(self) -> Legacy {
        Legacy {
            before: self.coordinator(),
            taken: self.taken,
            started: self.started,
            backups: self.backups,
            contributors: self.contributors.into_values().collect(),
            recorded: self.recorded,
            held: self.held,
            persisting: self.persisting,
            timeline: self.timeline,
        }
    }

    /// The job as far as this node knows, when its coordinator can not be asked.
    pub fn status(&self, now: Instant) -> JobStatus {
        if let Some(status) = &self.ending {
            return status.clone();
        }
        let header = &self.taken.header;
        let mut progress = Progress::default();
        for record in self.contributors.values() {
            progress.know(record);
        }
        // What a coordinator has not on its own disk is not done.
        let own = self.coordinator() == self.me;
        let recorded = self.recorded.values().map(|known| &known.stored);
        let done: Vec<&StoredTile> = match own {
            true => self.held.values().collect(),
            false => recorded.collect(),
        };
        for StoredTile { done, .. } in &done {
            progress.count(header, done.tile, done.device, done.work);
        }
        let twice = |known: &&Known| !own && known.holders.len() > 1;
        let safe = self.recorded.values().filter(twice).count();
        JobStatus {
            job: header.job,
            name: header.name.clone(),
            state: match done.is_empty() {
                true => JobState::Queued,
                false => JobState::Running,
            },
            rows: header.a.rows,
            inner: header.a.cols,
            cols: header.b.cols,
            dtype: header.element.dtype,
            mode: Mode::Plain,
            tiles_total: header.tiling.len(),
            tiles_done: done.len() as u64,
            tiles_safe: safe as u64,
            tiles_recomputed: 0,
            coordinator: self.epoch.device,
            epoch: self.epoch.counter,
            safe_copies: 0,
            submitted: self.taken.submitted,
            seconds: (now - self.started).as_secs_f64(),
            predicted_seconds: None,
            bytes_sent: 0,
            bytes_floor: progress.bytes_floor(header, self.epoch.device),
            bytes_replicated: 0,
            result: None,
            error: None,
            contributions: progress.contributions(),
            backups: self.backups.clone(),
            timeline: self.timeline.clone(),
        }
    }

    fn send(&mut self, to: DeviceId, message: Message) {
        self.effects.push_back(Effect::Send(to, message));
    }

    fn coordinator(&self) -> DeviceId {
        self.epoch.device
    }

    fn hears(&self) -> bool {
        self.confirmed && self.linked.contains(&self.coordinator())
    }

    /// Whether this node could continue the job; or, if it is its own, end it with the reason that
    /// its operands are lost.
    fn able(&self) -> bool {
        let linked = |backup: &DeviceId| *backup == self.me || self.linked.contains(backup);
        let lost = self.coordinator() == self.me
            && self.refusals >= REFUSALS_MAX
            && self.backups.iter().all(linked);
        lost || self.inputs()
    }

    fn inputs(&self) -> bool {
        self.operands.values().all(|copy| *copy == Copy::There)
    }

    // -- the log --

    /// The coordinator of an epoch that is not lower than any seen sends entries.
    pub fn handle_append(
        &mut self,
        epoch: Epoch,
        elapsed: Span,
        first: u64,
        mut entries: Vec<Entry>,
        now: Instant,
    ) {
        self.follow(epoch);
        self.confirm();
        self.started = Instant(now.0.saturating_sub(elapsed.0));
        if first > self.received {
            // Something is missing: it says where to go on.
            self.acknowledge();
            return;
        }
        let known = (self.received - first).min(entries.len() as u64);
        entries.drain(..known as usize);
        for entry in &entries {
            self.apply(entry, now);
        }
        self.received += entries.len() as u64;
        if entries.is_empty() && self.durable == Some(epoch) {
            self.acknowledge();
        } else {
            self.record(entries);
        }
        self.report();
        self.want_result(now);
        self.effects.push_back(Effect::Changed);
    }

    /// Listens to this epoch from now on, if it is higher.
    fn follow(&mut self, epoch: Epoch) {
        let past = cfg!(gemmesh_bug = "listens-to-the-past") && epoch != self.epoch;
        if epoch > self.epoch || past {
            let before = self.coordinator();
            if before != epoch.device && before != self.me && self.linked.contains(&before) {
                // It may not reach the one that has taken its place.
                let (job, vote) = (self.taken.header.job, Vote::Lives { epoch });
                self.send(before, Message::Vote { job, vote });
            }
            self.epoch = epoch;
            self.received = 0;
            self.sequence = 0;
            self.confirmed = false;
            self.reported = false;
            self.claimed = false;
            self.asked = false;
        }
    }

    fn confirm(&mut self) {
        self.confirmed = true;
        self.election.settle();
    }

    fn record(&mut self, entries: Vec<Entry>) {
        let record = Effect::Record(self.epoch, self.received, entries);
        self.effects.push_back(record);
    }

    fn apply(&mut self, entry: &Entry, now: Instant) {
        match entry {
            Entry::Taken(_) => {}
            Entry::Backups(backups) => self.backups.clone_from(backups),
            Entry::Contributor(record) => {
                let known = self.contributors.contains_key(&record.device);
                if known || self.contributors.len() < CONTRIBUTIONS_MAX {
                    self.contributors.insert(record.device, (**record).clone());
                }
            }
            Entry::Done { stored, keeper } => {
                let tile = stored.done.tile;
                let known = self.recorded.entry(tile).or_insert_with(|| Known {
                    stored: stored.clone(),
                    holders: BTreeSet::new(),
                });
                if known.stored.digest != stored.digest {
                    // Other last bits, computed elsewhere: the present coordinator's count.
                    known.stored = stored.clone();
                    known.holders.clear();
                }
                self.holders += u64::from(known.holders.insert(self.epoch.device));
                if *keeper == Some(self.me) {
                    self.want(tile, now);
                }
            }
            Entry::Keep { tile, keeper } => {
                if *keeper == self.me {
                    self.want(*tile, now);
                }
            }
            Entry::Held { tile, holder } => {
                if let Some(known) = self.recorded.get_mut(tile)
                    && known.holders.len() < HOLDERS_MAX
                {
                    self.holders += u64::from(known.holders.insert(*holder));
                }
            }
            Entry::Moment(moment) => {
                if self.timeline.len() == TIMELINE_MAX {
                    self.timeline.remove(1);
                }
                self.timeline.push(moment.clone());
            }
            Entry::Ended(status) => self.end((**status).clone(), now),
        }
    }

    /// Entries are durable here.
    pub fn handle_recorded(&mut self, epoch: Epoch, sequence: u64) {
        self.durable = self.durable.max(Some(epoch));
        if epoch != self.epoch {
            return;
        }
        self.sequence = self.sequence.max(sequence.min(self.received));
        self.acknowledge();
        self.answer_claim();
    }

    fn acknowledge(&mut self) {
        let message = Message::Appended {
            job: self.taken.header.job,
            epoch: self.epoch,
            sequence: match cfg!(gemmesh_bug = "acknowledges-before-the-disk") {
                true => self.received,
                false => self.sequence,
            },
            inputs: self.inputs(),
            ended: self.over,
        };
        self.send(self.coordinator(), message);
    }

    /// The disk can not take part: somebody else should.
    pub fn handle_unable(&mut self, now: Instant) {
        if !self.hears() {
            // Nobody else may have what is here: the disk may have room again. What was on its way
            // to the disk is not there.
            self.persisting.clear();
            self.received = self.sequence;
            if self.finishing && self.whole.is_none() {
                // Of the tiles here one can not be read.
                self.whole = Some(Copy::Missing { retry: now + RETRY });
            }
            self.election.hold(now);
            return;
        }
        let coordinator = self.coordinator();
        self.decline(coordinator);
    }

    /// This node can not take part: `to` should find another.
    pub fn decline(&mut self, to: DeviceId) {
        let job = self.taken.header.job;
        self.send(to, Message::Declined { job });
        self.over = true;
        self.effects.push_back(Effect::Drop(false));
    }

    /// A new coordinator wants to know which tiles are here.
    pub fn handle_claim(&mut self, epoch: Epoch) {
        self.follow(epoch);
        self.confirm();
        self.claimed = true;
        if self.durable == Some(epoch) {
            self.answer_claim();
        } else {
            self.record(Vec::new());
        }
    }

    fn answer_claim(&mut self) {
        if self.durable == Some(self.epoch) && std::mem::take(&mut self.claimed) {
            let tiles: Vec<StoredTile> = self.held.values().cloned().collect();
            self.reported = true;
            self.tell_held(tiles, true);
        }
    }

    fn tell_held(&mut self, tiles: Vec<StoredTile>, complete: bool) {
        let (job, epoch) = (self.taken.header.job, self.epoch);
        let mut parts: Vec<Vec<StoredTile>> = tiles.chunks(TILES_MAX).map(<[_]>::to_vec).collect();
        if complete && parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len().saturating_sub(1);
        for (n, tiles) in parts.into_iter().enumerate() {
            let complete = complete && n == last;
            let message = Message::Held {
                job,
                epoch,
                tiles,
                complete,
            };
            self.send(self.coordinator(), message);
        }
    }

    /// After a link or an epoch came up: what the coordinator may not know to be here.
    fn report(&mut self) {
        if !self.reported && self.hears() && !self.claimed {
            self.reported = true;
            let me = self.me;
            let unknown = self.held.values().filter(|stored| {
                let known = self.recorded.get(&stored.done.tile);
                known.is_none_or(|known| !known.holders.contains(&me))
            });
            let unknown: Vec<StoredTile> = unknown.cloned().collect();
            self.tell_held(unknown, false);
        }
    }

    /// News of the job, told by its coordinator.
    pub fn handle_news(&mut self, status: &JobStatus, now: Instant) {
        let epoch = Epoch {
            counter: status.epoch,
            device: status.coordinator,
        };
        if !self.listens_to(epoch) || self.over {
            return;
        }
        self.follow(epoch);
        self.confirm();
        self.report();
        if status.state == JobState::Done && !self.is_backup() {
            self.over = true;
            self.effects.push_back(Effect::Drop(false));
        } else if status.state.has_ended() {
            self.end(status.clone(), now);
        }
    }

    // -- tiles --

    /// The own worker has computed a tile.
    pub fn keep(&mut self, own: &DeviceRecord, done: DoneTile, payload: P) {
        let tile = done.tile;
        self.contributors
            .entry(own.device)
            .or_insert_with(|| own.clone());
        let busy = self.persisting.contains_key(&tile) || self.held.contains_key(&tile);
        if busy || self.ending.is_some() {
            return;
        }
        self.persisting.insert(tile, done.clone());
        self.effects.push_back(Effect::Persist(done, None, payload));
    }

    /// A tile is durable here, or was not what it should be.
    pub fn handle_persisted(&mut self, tile: u32, digest: Option<BlockId>, now: Instant) {
        let Some(done) = self.persisting.remove(&tile) else {
            return;
        };
        let Some(digest) = digest else {
            if let Some(from) = self.given.remove(&tile) {
                *self.doubts.entry((tile, from)).or_default() += 1;
            }
            if let Some(at) = self.wanted.get_mut(&tile) {
                *at = now + RETRY;
            }
            return;
        };
        self.given.remove(&tile);
        let stored = StoredTile { done, digest };
        self.held.insert(tile, stored.clone());
        if self.has(tile) {
            self.wanted.remove(&tile);
        }
        if self.hears() {
            self.tell_held(vec![stored], false);
        }
        self.finish(now);
    }

    /// Whether the recorded bytes of a tile are here.
    fn has(&self, tile: u32) -> bool {
        let recorded = self.recorded.get(&tile).map(|known| known.stored.digest);
        let held = self.held.get(&tile).map(|stored| stored.digest);
        held.is_some() && recorded.is_none_or(|digest| held == Some(digest))
    }

    fn want(&mut self, tile: u32, now: Instant) {
        if !self.has(tile) {
            self.wanted.entry(tile).or_insert(now);
        }
    }

    /// Bytes of a tile from another node, or none.
    pub fn handle_fetched(&mut self, tile: u32, payload: Option<P>, now: Instant) {
        let from = self.fetching.remove(&tile);
        if self.has(tile) {
            self.wanted.remove(&tile);
            return;
        }
        let Some(known) = self.recorded.get(&tile).filter(|_| !self.over) else {
            return;
        };
        match payload {
            Some(payload) if !self.persisting.contains_key(&tile) => {
                let (done, digest) = (known.stored.done.clone(), known.stored.digest);
                self.wanted.insert(tile, now + FETCH_MAX);
                if let Some(from) = from {
                    self.given.insert(tile, from);
                }
                self.persisting.insert(tile, done.clone());
                self.effects
                    .push_back(Effect::Persist(done, Some(digest), payload));
            }
            _ => {
                if let Some(from) = from {
                    *self.doubts.entry((tile, from)).or_default() += 1;
                }
                if let Some(at) = self.wanted.get_mut(&tile) {
                    *at = now + RETRY;
                }
            }
        }
    }

    fn fetch(&mut self, now: Instant) {
        let due = self.wanted.iter().filter(|(_, at)| now >= **at);
        let due: Vec<u32> = due.map(|(tile, _)| *tile).collect();
        for tile in due {
            if self.fetching.len() >= FETCHES_MAX {
                return;
            }
            self.fetching.remove(&tile);
            let coordinator = self.coordinator();
            let holders = self.recorded.get(&tile).map(|known| &known.holders);
            let mut sources: Vec<DeviceId> = holders
                .into_iter()
                .flatten()
                .copied()
                .chain([coordinator])
                .filter(|device| *device != self.me && self.linked.contains(device))
                .collect();
            // The coordinator first, the others in turn.
            sources.sort_by_key(|device| (*device != coordinator, *device));
            sources.dedup();
            let turn = (now.0 / RETRY.0) as usize;
            let source = match sources.is_empty() {
                true => None,
                false => Some(sources[turn % sources.len()]),
            };
            let Some(source) = source else {
                self.wanted.insert(tile, now + RETRY);
                continue;
            };
            self.wanted.insert(tile, now + FETCH_MAX);
            self.fetching.insert(tile, source);
            self.effects.push_back(Effect::FetchTile(tile, source));
        }
    }

    // -- operands and result --

    /// A matrix is here now, or could not be had.
    pub fn handle_copied(&mut self, matrix: MatrixId, there: bool, now: Instant) {
        let result = self.ending.as_ref().and_then(|status| status.result);
        let copy = match there {
            true => Copy::There,
            false => Copy::Missing { retry: now + RETRY },
        };
        let known = self.operands.get_mut(&matrix);
        let known = known.or(self.whole.as_mut().filter(|_| result == Some(matrix)));
        let Some(known) = known else {
            return;
        };
        self.refusals += u32::from(!there);
        self.refused += u32::from(!there && result == Some(matrix));
        let changed = *known != copy;
        *known = copy;
        if changed && there && self.durable == Some(self.epoch) && !self.over {
            self.acknowledge();
        }
        self.finish(now);
    }

    fn copy(&mut self, now: Instant) {
        let bytes = self.taken.header.a.bytes() + self.taken.header.b.bytes();
        let mine = self.coordinator() == self.me || self.linked.is_empty();
        let wait = match bytes <= SMALL || mine {
            true => Span(0),
            false => Span(bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND),
        };
        let mut sources: Vec<DeviceId> = self.linked.iter().copied().collect();
        let coordinator = self.coordinator();
        let backups = self.backups.clone();
        sources.sort_by_key(|device| {
            let place = backups.iter().position(|backup| backup == device);
            (*device != coordinator, place.unwrap_or(usize::MAX), *device)
        });
        let needed = self.needs_operands();
        for (&matrix, copy) in &mut self.operands {
            let Copy::Missing { retry } = copy else {
                continue;
            };
            if !needed {
                break;
            }
            *retry = (*retry).max(self.started + wait);
            if now >= *retry {
                *copy = Copy::Asked;
                self.effects
                    .push_back(Effect::CopyMatrix(matrix, sources.clone()));
            }
        }
        let result = self.ending.as_ref().and_then(|status| status.result);
        if let (Some(Copy::Missing { retry }), Some(result)) = (self.whole, result)
            && now >= retry
        {
            self.whole = Some(Copy::Asked);
            self.effects.push_back(Effect::CopyMatrix(result, sources));
        }
    }

    /// Of a job that has ended only the result is copied, unless that is lost.
    fn needs_operands(&self) -> bool {
        self.ending.is_none() || self.bereft.is_some()
    }

    /// The job has ended, as somebody says who knows.
    pub fn end(&mut self, status: JobStatus, now: Instant) {
        let whole = status.state != JobState::Done || status.result.is_some();
        let known = self.ending.as_ref();
        let stands = known.is_none_or(|known| {
            status.standing() > known.standing()
                && (status.state, status.result) != (known.state, known.result)
        });
        if stands && !self.over && status.state.has_ended() && whole {
            if self.ending.replace(status).is_some() {
                // What was found of the other end's product is not of this one.
                self.whole = None;
                self.finishing = false;
                self.doubts.clear();
                self.refused = 0;
            }
            self.wanted.clear();
            self.effects.push_back(Effect::Changed);
            self.want_result(now);
        }
    }

    /// The job has ended under another coordinator, which may know nothing of the tiles here.
    pub fn end_elsewhere(&mut self, status: JobStatus, now: Instant) {
        if self.whole.is_none() {
            self.whole = Some(Copy::Missing { retry: now });
        }
        // Should the result be lost, it is that end that is gone back on.
        let epoch = Epoch {
            counter: status.epoch,
            device: status.coordinator,
        };
        if is_near(epoch.counter, self.epoch.counter) {
            self.follow(epoch);
        }
        self.end(status, now);
    }

    /// What to copy of the result of a job that is done.
    fn want_result(&mut self, now: Instant) {
        let Some(status) = self.ending.as_ref().filter(|_| !self.over) else {
            return;
        };
        if status.state == JobState::Done && self.whole.is_none() {
            let tiles = self.taken.header.tiling.len();
            if self.recorded.len() as u64 == tiles {
                let missing = self.recorded.keys().filter(|tile| !self.has(**tile));
                let missing: Vec<u32> = missing.copied().collect();
                for tile in missing {
                    self.want(tile, now);
                }
            } else {
                self.whole = Some(Copy::Missing { retry: now });
            }
        }
        self.finish(now);
    }

    /// When nothing is missing any more.
    fn finish(&mut self, now: Instant) {
        let Some(status) = self.ending.as_ref().filter(|_| !self.over) else {
            return;
        };
        if status.state != JobState::Done || self.whole == Some(Copy::There) {
            self.be_over();
            return;
        }
        let tiles = self.taken.header.tiling.len();
        let complete =
            self.whole.is_none() && self.recorded.len() as u64 == tiles && self.wanted.is_empty();
        if complete && !self.finishing {
            self.finishing = true;
            self.effects.push_back(Effect::Finish);
        }
        let gives = complete || self.has_sources();
        self.bereft = match gives {
            true => None,
            false => Some(self.bereft.unwrap_or(now)),
        };
        self.lost = self.bereft.is_some_and(|since| now >= since + RESULT_LOST);
        if self.gives_up(now) && self.hears() && !self.asked {
            self.asked = true;
            let (job, rank) = (self.taken.header.job, self.rank());
            self.send(self.coordinator(), Message::Elect { job, rank });
        }
    }

    fn gives_up(&self, now: Instant) -> bool {
        let since = self.bereft.filter(|_| !self.over);
        since.is_some_and(|since| now >= since + RESULT_GIVEN_UP)
    }

    /// After the end nothing is said any more.
    fn be_over(&mut self) {
        if let Some(status) = self.ending.clone() {
            self.over = true;
            self.acknowledge();
            self.effects.push_back(Effect::Ended(Box::new(status)));
        }
    }

    /// Whether somebody in reach is known to have all that is missing of the result.
    fn has_sources(&self) -> bool {
        let coordinator = self.coordinator();
        if self.whole.is_some() {
            return self.linked.contains(&coordinator) && self.refused < WHOLE_REFUSALS_MAX;
        }
        let gives = |tile: u32, device: &DeviceId| {
            let doubts = self.doubts.get(&(tile, *device)).copied();
            self.linked.contains(device) && doubts.unwrap_or(0) < DOUBTS_MAX
        };
        self.wanted.keys().all(|&tile| {
            let known = self.recorded.get(&tile);
            let mut holders = known.into_iter().flat_map(|known| &known.holders);
            gives(tile, &coordinator) || holders.any(|device| gives(tile, device))
        })
    }

    /// The result was put together here.
    pub fn handle_finished(&mut self, result: MatrixId, now: Instant) {
        let Some(status) = self
            .ending
            .as_ref()
            .filter(|_| self.finishing && !self.over)
        else {
            return;
        };
        if status.result == Some(result) {
            self.whole = Some(Copy::There);
        } else {
            // Not the bytes that its coordinator told of.
            self.whole = Some(Copy::Missing { retry: now });
        }
        self.finish(now);
    }

    // -- links and candidacy --

    /// The nodes that are linked now; `renewed` are those whose link is another than before.
    pub fn handle_links(
        &mut self,
        linked: &BTreeSet<DeviceId>,
        renewed: &BTreeSet<DeviceId>,
        now: Instant,
    ) {
        let coordinator = self.coordinator();
        if renewed.contains(&coordinator) || !linked.contains(&coordinator) {
            self.confirmed = false;
            self.reported = false;
            self.asked = false;
        }
        let more = linked.iter().any(|device| !self.linked.contains(device));
        self.linked.clone_from(linked);
        if more {
            self.refused = 0;
            for copy in self.operands.values_mut().chain(&mut self.whole) {
                if let Copy::Missing { retry } = copy {
                    *retry = now;
                }
            }
            for at in self.wanted.values_mut() {
                *at = now;
            }
        }
        self.handle_time(now);
    }

    fn rank(&self) -> Rank {
        let coordinator = self.coordinator();
        Rank {
            epoch: self.epoch,
            // Nobody has more of a log than who wrote it.
            sequence: match coordinator == self.me {
                true => u64::MAX,
                false => self.sequence,
            },
            place: election::place(self.me, coordinator, &self.backups),
            device: self.me,
        }
    }

    fn view(&self) -> View<'_> {
        View {
            rank: self.rank(),
            coordinator: self.coordinator(),
            backups: &self.backups,
            linked: &self.linked,
            able: self.able(),
            hears: self.hears(),
            reaches: self.linked.contains(&self.coordinator()),
        }
    }

    /// Whether the job needs a coordinator: it goes on, or its result is lost.
    fn may_stand(&self) -> bool {
        !cfg!(gemmesh_bug = "waits-for-the-dead")
            && !self.over
            && (self.ending.is_none() || self.lost)
    }

    /// Whether messages of this epoch count here: none higher was seen, nor is one on its way to
    /// the disk.
    pub fn listens_to(&self, epoch: Epoch) -> bool {
        if cfg!(gemmesh_bug = "listens-to-the-past") {
            return true;
        }
        epoch >= self.epoch && self.election.claims().is_none_or(|mine| epoch > mine)
    }

    /// Time passed.
    pub fn handle_time(&mut self, now: Instant) {
        if self.over {
            return;
        }
        self.finish(now);
        self.fetch(now);
        self.copy(now);
        if !self.may_stand() {
            return;
        }
        let view = View {
            rank: self.rank(),
            coordinator: self.coordinator(),
            backups: &self.backups,
            linked: &self.linked,
            able: self.able(),
            hears: self.hears(),
            reaches: self.linked.contains(&self.coordinator()),
        };
        match self.election.step(&view, self.epoch.counter, now) {
            Some(Step::Ask(devices)) => {
                let (job, rank) = (self.taken.header.job, self.rank());
                for device in devices {
                    self.send(device, Message::Elect { job, rank });
                }
            }
            Some(Step::Claim(epoch)) => self.effects.push_back(Effect::Claim(epoch)),
            None => {}
        }
    }

    /// Somebody else wants to continue the job.
    pub fn handle_elect(&mut self, rank: Rank, now: Instant) -> Vote {
        if let Some(status) = self.ending.as_ref().filter(|_| !self.may_stand()) {
            return Vote::Ended(Box::new(status.clone()));
        }
        if self.hears() && self.epoch >= rank.epoch && self.coordinator() != rank.device {
            return Vote::Lives { epoch: self.epoch };
        }
        let view = View {
            rank: self.rank(),
            coordinator: self.coordinator(),
            backups: &self.backups,
            linked: &self.linked,
            able: self.able(),
            hears: self.hears(),
            reaches: self.linked.contains(&self.coordinator()),
        };
        match self.election.challenge(rank, &view, now) {
            true => Vote::Higher,
            false => Vote::Yield,
        }
    }

    /// An answer to this node's candidacy.
    pub fn handle_vote(&mut self, from: DeviceId, vote: Vote, now: Instant) {
        match vote {
            Vote::Yield | Vote::Unknown => self.election.yielded(from),
            Vote::Higher => self.election.refused(now),
            Vote::Lives { epoch } => {
                if epoch < self.epoch || !is_near(epoch.counter, self.epoch.counter) {
                    self.election.yielded(from);
                } else {
                    // Its coordinator has not spoken to this node yet.
                    self.follow(epoch);
                    self.election.refused(now);
                }
            }
            Vote::Ended(status) => {
                self.election.refused(now);
                self.end_elsewhere(*status, now);
                if self.gives_up(now) {
                    self.be_over();
                }
            }
            Vote::Gone => {
                self.over = true;
                self.effects.push_back(Effect::Drop(true));
            }
        }
        self.handle_time(now);
    }

    /// Whether the epoch that is durable now is the one with which this node goes on.
    pub fn is_claiming(&self, epoch: Epoch) -> bool {
        self.election.claims() == Some(epoch)
    }

    /// Whether this node is to have a part in the job.
    fn is_backup(&self) -> bool {
        self.backups.contains(&self.me) || self.coordinator() == self.me
    }
}
