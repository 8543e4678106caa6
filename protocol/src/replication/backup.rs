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
use crate::status::{CONTRIBUTIONS_MAX, JobState, JobStatus, Moment, TIMELINE_MAX};
use crate::time::{Instant, Span};
use crate::timer::earliest;

mod candidacy;
mod follow;
mod result;
mod tiles;

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
#[allow(
    clippy::large_enum_variant,
    reason = "each is carried out at once, and none is kept"
)]
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
            mode: self.header().mode(),
            sharing: None,
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
            plan: Vec::new(),
            bytes_sent: 0,
            bytes_floor: progress.bytes_floor(header, self.epoch.device),
            bytes_replicated: 0,
            result: None,
            error: None,
            contributions: progress.contributions(),
            backups: self.backups.clone(),
            timeline: self.timeline.clone(),
            part: header.batch.clone(),
            products: None,
            failed: None,
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
}
