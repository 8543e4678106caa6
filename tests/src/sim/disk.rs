//! A node's disk: what was written is durable some time later, in order; a crash loses the rest.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gemmesh_protocol::id::{BlockId, DeviceId, Epoch, JobId, MatrixId};
use gemmesh_protocol::io::{DoneTile, Input};
use gemmesh_protocol::message::DeviceRecord;
use gemmesh_protocol::prng::Prng;
use gemmesh_protocol::replication::{Entry, Restored, StoredTile, Taken};
use gemmesh_protocol::status::{JobStatus, Moment};
use gemmesh_protocol::time::{Span, WallTime};

use super::payload::{Payload, Tile};

/// What is written at once.
#[derive(Debug, Clone)]
pub enum Write {
    /// A submission: the job and its operands.
    Take(Box<Taken>),
    /// As [`gemmesh_protocol::io::Output::Persist`].
    Tile {
        /// The job.
        job: JobId,
        /// The record.
        done: DoneTile,
        /// Who computed it, the first time.
        contributor: Option<Box<DeviceRecord>>,
        /// The hash that it must have.
        expected: Option<BlockId>,
        /// The bytes.
        bytes: Tile,
    },
    /// As [`gemmesh_protocol::io::Output::Record`].
    Record {
        /// The job.
        job: JobId,
        /// The epoch of the log.
        epoch: Epoch,
        /// The position with these.
        sequence: u64,
        /// What they say.
        entries: Vec<Entry>,
    },
    /// As [`gemmesh_protocol::io::Output::Claim`].
    Claim {
        /// The job.
        job: JobId,
        /// The epoch.
        epoch: Epoch,
    },
    /// As [`gemmesh_protocol::io::Output::Backups`].
    Backups {
        /// The job.
        job: JobId,
        /// The list.
        backups: Vec<DeviceId>,
    },
    /// As [`gemmesh_protocol::io::Output::Moment`].
    Moment {
        /// The job.
        job: JobId,
        /// What.
        moment: Moment,
    },
    /// An operand, or a result as a whole, that was copied from another node.
    Matrix {
        /// The job that needs it.
        job: JobId,
        /// Which.
        matrix: MatrixId,
        /// The tiles of which a result is made.
        tiles: Option<BTreeMap<u32, Held>>,
    },
    /// As [`gemmesh_protocol::io::Output::Finish`].
    Finish {
        /// The job.
        job: JobId,
    },
    /// As [`gemmesh_protocol::io::Output::Ended`].
    Ended {
        /// How.
        status: Box<JobStatus>,
    },
    /// As [`gemmesh_protocol::io::Output::Drop`].
    Drop {
        /// The job.
        job: JobId,
    },
    /// Its time is over: only the tombstone stays.
    Forget {
        /// The job.
        job: JobId,
    },
}

impl Write {
    /// The job that it is about.
    pub fn job(&self) -> JobId {
        match self {
            Write::Take(taken) => taken.header.job,
            Write::Ended { status } => status.job,
            Write::Tile { job, .. }
            | Write::Record { job, .. }
            | Write::Claim { job, .. }
            | Write::Backups { job, .. }
            | Write::Moment { job, .. }
            | Write::Matrix { job, .. }
            | Write::Finish { job }
            | Write::Drop { job }
            | Write::Forget { job } => *job,
        }
    }
}

/// A tile on the disk.
#[derive(Debug, Clone)]
pub struct Held {
    /// The record, with the hash that the bytes had.
    pub stored: StoredTile,
    /// The bytes.
    pub bytes: Tile,
    /// They can not be read any more.
    pub bad: bool,
}

/// What a disk knows of a job.
#[derive(Debug, Clone)]
pub struct Row {
    /// The job.
    pub taken: Taken,
    /// This node coordinates it.
    pub coordinated: bool,
    /// The highest epoch seen.
    pub epoch: Epoch,
    /// Entries of its log.
    pub sequence: u64,
    /// Its backups.
    pub backups: Vec<DeviceId>,
    /// Who computed tiles.
    pub contributors: BTreeMap<DeviceId, DeviceRecord>,
    /// What the logs say of tiles.
    pub recorded: BTreeMap<u32, (StoredTile, BTreeSet<DeviceId>)>,
    /// Tiles that are here.
    pub held: BTreeMap<u32, Held>,
    /// Tiles that were here, until the job ended without a result.
    pub removed: BTreeSet<u32>,
    /// What happened.
    pub timeline: Vec<Moment>,
    /// The log says that it has ended so.
    pub ending: Option<JobStatus>,
    /// It has ended.
    pub ended: Option<JobStatus>,
    /// The product is a matrix here.
    pub result: Option<MatrixId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Disk {
    /// Jobs.
    pub rows: BTreeMap<JobId, Row>,
    /// Operands, and whether they can be read.
    pub matrices: BTreeMap<MatrixId, bool>,
    /// Jobs whose time was over.
    pub tombstones: BTreeSet<JobId>,
    /// What was here once, and whether the operands were: others may not know yet that it is gone.
    pub dropped: BTreeMap<JobId, (Row, bool)>,
    /// Nothing more fits.
    pub full: bool,
    /// Microseconds that a write takes, at least.
    pub slow: u64,
    pending: VecDeque<(u64, Write)>,
    /// Restarts and crashes, for the trace.
    pub lost_writes: u64,
}

/// What became of a write.
#[derive(Debug)]
pub struct Applied {
    /// The write.
    pub write: Write,
    /// What the engine is told.
    pub answer: Option<Input<Payload>>,
    /// It is on the disk.
    pub durable: bool,
}

impl Disk {
    /// Begins a write; says when it is durable if nothing happens.
    pub fn write(&mut self, write: Write, now: u64, prng: &mut Prng) -> u64 {
        let bytes = match &write {
            Write::Tile { bytes, .. } => bytes.len,
            _ => 0,
        };
        let time = 200 + self.slow + prng.below(1_500 + self.slow) + bytes / 400;
        let free = self.pending.back().map_or(now, |(at, _)| *at);
        let at = free.max(now) + time;
        self.pending.push_back((at, write));
        at
    }

    /// Writes that are not durable yet.
    pub fn pending(&self) -> impl Iterator<Item = &Write> {
        self.pending.iter().map(|(_, write)| write)
    }

    /// The oldest write becomes durable, or is refused.
    pub fn complete(&mut self, me: DeviceId) -> Option<Applied> {
        let (_, write) = self.pending.pop_front()?;
        let frees = matches!(
            write,
            Write::Drop { .. } | Write::Forget { .. } | Write::Ended { .. }
        );
        if self.full && !frees {
            let (job, reason) = (write.job(), "no space left on the disk".to_owned());
            let answer = match &write {
                Write::Take(_) | Write::Backups { .. } | Write::Moment { .. } => None,
                Write::Matrix { matrix, .. } => Some(Input::MatrixCopied {
                    job,
                    matrix: *matrix,
                    there: false,
                }),
                _ => Some(Input::Fail { job, reason }),
            };
            return Some(Applied {
                write,
                answer,
                durable: false,
            });
        }
        let (answer, durable) = self.apply(&write, me);
        Some(Applied {
            write,
            answer,
            durable,
        })
    }

    /// The process is gone: of what was being written, some made it.
    pub fn crash(&mut self, me: DeviceId, prng: &mut Prng) -> Vec<Applied> {
        let kept = prng.below(self.pending.len() as u64 + 1);
        let mut applied = Vec::new();
        for _ in 0..kept {
            applied.extend(self.complete(me));
        }
        self.lost_writes += self.pending.len() as u64;
        self.pending.clear();
        applied
    }

    fn apply(&mut self, write: &Write, me: DeviceId) -> (Option<Input<Payload>>, bool) {
        match write {
            Write::Take(taken) => {
                let header = &taken.header;
                for manifest in [&header.a, &header.b] {
                    self.matrices.insert(manifest.id(), true);
                }
                let epoch = Epoch {
                    counter: 1,
                    device: me,
                };
                let mut row = Row::new((**taken).clone(), epoch);
                row.coordinated = true;
                self.rows.insert(header.job, row);
                let taken = taken.clone();
                (Some(Input::Submit { taken }), true)
            }
            Write::Tile {
                job,
                done,
                contributor,
                expected,
                bytes,
            } => {
                let Some(row) = self.rows.get_mut(job) else {
                    return (None, false);
                };
                let (job, tile) = (*job, done.tile);
                let found = bytes.digest();
                if expected.is_some_and(|expected| expected != found) {
                    let digest = None;
                    return (Some(Input::Persisted { job, tile, digest }), false);
                }
                if let Some(record) = contributor {
                    row.contributors.insert(record.device, (**record).clone());
                }
                let held = Held {
                    stored: StoredTile {
                        done: done.clone(),
                        digest: found,
                    },
                    bytes: *bytes,
                    bad: false,
                };
                // Without an expectation, bytes that are here already stay.
                let stays = expected.is_none() && row.held.get(&tile).is_some_and(|held| !held.bad);
                if !stays {
                    row.held.insert(tile, held);
                }
                let digest = Some(row.held[&tile].stored.digest);
                (Some(Input::Persisted { job, tile, digest }), true)
            }
            Write::Record {
                job,
                epoch,
                sequence,
                entries,
            } => {
                if let Some(Entry::Taken(taken)) = entries.first() {
                    let row = || Row::new((**taken).clone(), *epoch);
                    self.rows.entry(*job).or_insert_with(row);
                }
                let Some(row) = self.rows.get_mut(job) else {
                    return (None, false);
                };
                let first = sequence - entries.len() as u64;
                let here = match row.epoch.cmp(epoch) {
                    Ordering::Less => 0,
                    Ordering::Equal => row.sequence,
                    Ordering::Greater => u64::MAX,
                };
                if first > here {
                    let reason = "entries of the log before these are missing".to_owned();
                    return (Some(Input::Fail { job: *job, reason }), false);
                }
                if *epoch > row.epoch {
                    (row.epoch, row.sequence) = (*epoch, *sequence);
                } else {
                    row.sequence = row.sequence.max(*sequence);
                }
                row.coordinated &= epoch.device == me;
                entries.iter().for_each(|entry| row.note(entry, *epoch));
                let (job, epoch, sequence) = (*job, *epoch, *sequence);
                let recorded = Input::Recorded {
                    job,
                    epoch,
                    sequence,
                };
                (Some(recorded), true)
            }
            Write::Claim { job, epoch } => {
                let Some(row) = self.rows.get_mut(job) else {
                    return (None, false);
                };
                (row.epoch, row.sequence, row.coordinated) = (*epoch, 0, true);
                let (job, epoch) = (*job, *epoch);
                (Some(Input::Claimed { job, epoch }), true)
            }
            Write::Backups { job, backups } => {
                if let Some(row) = self.rows.get_mut(job) {
                    row.backups.clone_from(backups);
                }
                (None, true)
            }
            Write::Moment { job, moment } => {
                if let Some(row) = self.rows.get_mut(job) {
                    row.timeline.push(moment.clone());
                }
                (None, true)
            }
            Write::Matrix { job, matrix, tiles } => {
                match (tiles, self.rows.get_mut(job)) {
                    (None, _) => {
                        self.matrices.insert(*matrix, true);
                    }
                    (Some(tiles), Some(row)) => {
                        row.held.clone_from(tiles);
                        row.result = Some(*matrix);
                    }
                    (Some(_), None) => return (None, false),
                }
                let copied = Input::MatrixCopied {
                    job: *job,
                    matrix: *matrix,
                    there: true,
                };
                (Some(copied), true)
            }
            Write::Finish { job } => {
                let job = *job;
                let Some(row) = self.rows.get_mut(&job) else {
                    return (None, false);
                };
                let tiles = row.taken.header.tiling.len();
                let readable = row.held.values().filter(|held| !held.bad).count() as u64;
                if readable < tiles {
                    let reason = "a tile on the disk can not be read".to_owned();
                    return (Some(Input::Fail { job, reason }), false);
                }
                let result = row.product();
                row.result = Some(result);
                (Some(Input::Finished { job, result }), true)
            }
            Write::Ended { status } => {
                if let Some(row) = self.rows.get_mut(&status.job) {
                    if status.result.is_none() {
                        // Others may not know yet.
                        let tiles = std::mem::take(&mut row.held);
                        row.removed.extend(tiles.keys());
                    }
                    row.ended = Some((**status).clone());
                }
                (None, true)
            }
            Write::Drop { job } => {
                self.remove(*job);
                (None, true)
            }
            Write::Forget { job } => {
                self.remove(*job);
                self.tombstones.insert(*job);
                (None, true)
            }
        }
    }

    fn remove(&mut self, job: JobId) {
        let operands = self.has_operands(job);
        let Some(row) = self.rows.remove(&job) else {
            return;
        };
        for manifest in [&row.taken.header.a, &row.taken.header.b] {
            let id = manifest.id();
            let used = self.rows.values().any(|row| {
                let header = &row.taken.header;
                header.a.id() == id || header.b.id() == id
            });
            if !used {
                self.matrices.remove(&id);
            }
        }
        match self.dropped.get_mut(&job) {
            None => {
                self.dropped.insert(job, (row, operands));
            }
            Some((before, all)) => {
                *all |= operands;
                before.held.extend(row.held);
                before.recorded.extend(row.recorded);
            }
        }
    }

    /// Whether both operands of a job are here, rotten or not.
    pub fn has_operands(&self, job: JobId) -> bool {
        self.rows.get(&job).is_some_and(|row| {
            let header = &row.taken.header;
            let there = |id| self.matrices.contains_key(&id);
            there(header.a.id()) && there(header.b.id())
        })
    }

    /// Whether both operands of a job are here and can be read.
    pub fn can_continue(&self, job: JobId) -> bool {
        self.has_operands(job) && {
            let header = &self.rows[&job].taken.header;
            self.matrices[&header.a.id()] && self.matrices[&header.b.id()]
        }
    }

    /// What an engine is given when it starts, at this wall time.
    pub fn restore(&self, wall: WallTime) -> Vec<Input<Payload>> {
        let mut inputs = Vec::new();
        if !self.tombstones.is_empty() {
            let jobs = self.tombstones.iter().copied().collect();
            inputs.push(Input::Expired { jobs });
        }
        for row in self.rows.values() {
            let elapsed = Span(wall.0.saturating_sub(row.taken.submitted.0) * 1_000);
            let recorded = row.recorded.values();
            inputs.push(Input::Restore(Box::new(Restored {
                taken: row.taken.clone(),
                elapsed,
                epoch: row.epoch,
                sequence: if row.coordinated { 0 } else { row.sequence },
                backups: row.backups.clone(),
                contributors: row.contributors.values().cloned().collect(),
                recorded: recorded
                    .map(|(stored, holders)| (stored.clone(), holders.iter().copied().collect()))
                    .collect(),
                held: row.held.values().map(|held| held.stored.clone()).collect(),
                timeline: row.timeline.clone(),
                ending: row.ending.clone(),
                ended: row.ended.clone(),
            })));
        }
        inputs
    }
}

impl Row {
    fn new(taken: Taken, epoch: Epoch) -> Self {
        Self {
            taken,
            coordinated: false,
            epoch,
            sequence: 0,
            backups: Vec::new(),
            contributors: BTreeMap::new(),
            recorded: BTreeMap::new(),
            held: BTreeMap::new(),
            removed: BTreeSet::new(),
            timeline: Vec::new(),
            ending: None,
            ended: None,
            result: None,
        }
    }

    fn note(&mut self, entry: &Entry, epoch: Epoch) {
        match entry {
            Entry::Taken(_) | Entry::Keep { .. } => {}
            Entry::Backups(backups) => self.backups.clone_from(backups),
            Entry::Contributor(record) => {
                self.contributors.insert(record.device, (**record).clone());
            }
            Entry::Done { stored, .. } => {
                // The latest epoch's word counts.
                let tile = stored.done.tile;
                let known = self.recorded.entry(tile);
                let known = known.or_insert_with(|| (stored.clone(), BTreeSet::new()));
                if known.0.digest != stored.digest {
                    *known = (stored.clone(), BTreeSet::new());
                }
                known.1.insert(epoch.device);
            }
            Entry::Held { tile, holder } => {
                if let Some((_, holders)) = self.recorded.get_mut(tile) {
                    holders.insert(*holder);
                }
            }
            Entry::Moment(moment) => self.timeline.push(moment.clone()),
            Entry::Ended(status) => self.ending = Some((**status).clone()),
        }
    }

    /// The id of the matrix that the tiles make.
    fn product(&self) -> MatrixId {
        let mut id = [0; 32];
        id[..16].copy_from_slice(&self.taken.header.job.0);
        let mut sum = 0_u64;
        for held in self.held.values() {
            let part = u64::from(held.stored.done.tile) << 32 | u64::from(held.bytes.variant);
            sum = sum.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part;
        }
        id[16..24].copy_from_slice(&sum.to_le_bytes());
        MatrixId(id)
    }

    /// Whether every tile is here and right.
    pub fn is_whole(&self) -> bool {
        let header = &self.taken.header;
        (0..header.tiling.len() as u32).all(|tile| {
            self.held.get(&tile).is_some_and(|held| {
                !held.bad && held.bytes.is_right(header.job, tile, header.class)
            })
        })
    }
}
