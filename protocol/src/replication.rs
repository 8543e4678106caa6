//! How a job outlives its coordinator: its log on other nodes, and who carries on.
//!
//! Intuition: the coordinator writes down what it decides as a log and sends it to up to three
//! other nodes, the job's *backups*. What a job needs besides is content-addressed: operands,
//! tiles, the result. When the coordinator is gone, the backups agree on one of them (`election`),
//! which continues from what is recorded. An epoch names each coordinator: whoever has seen a
//! higher one does not listen to a lower one any more, so a coordinator that comes back can waste
//! work but not change anything.
//!
//! Each epoch has a log of its own, written by its coordinator alone and begun with all that it
//! knows; so a position is (epoch, number of entries), and no log is ever cut back. What the
//! entries say is only ever added: a tile that is recorded once stays so, whoever coordinates.

mod backup;
mod election;
mod log;

use serde::{Deserialize, Serialize};

use crate::batch::BatchPart;
use crate::bounded;
use crate::id::{BlockId, DeviceId, Epoch};
use crate::io::DoneTile;
use crate::job::JobHeader;
use crate::message::DeviceRecord;
use crate::status::{JobStatus, Moment};
use crate::time::{Span, WallTime};

pub(crate) use backup::{Backup, Effect, Known, Legacy};
pub(crate) use log::{Log, Note};

/// Nodes that hold what is needed to continue a job, besides its coordinator.
pub const BACKUPS_MAX: usize = 3;
/// Entries in one message.
pub const ENTRIES_MAX: usize = 256;
/// Tiles in one message.
pub const TILES_MAX: usize = 2_048;
/// Counters of epochs beyond this are nonsense: there is one for each takeover.
pub const COUNTER_MAX: u64 = 1 << 62;
/// How far a counter may be ahead of what is known of a job. Whoever says more is not believed, so
/// that nobody can put an epoch out of the others' reach: [`COUNTER_MAX`] is 2^42 messages away.
pub const COUNTER_JUMP_MAX: u64 = 1 << 20;

/// About how much a record of a device takes.
const CONTRIBUTOR_BYTES: u64 = 2_048;

/// Whether a counter can be that of a job whose highest known one is `known`.
pub(crate) fn is_near(counter: u64, known: u64) -> bool {
    counter <= known.saturating_add(COUNTER_JUMP_MAX).min(COUNTER_MAX)
}

/// What a job is, as its log begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// The job.
    pub header: JobHeader,
    /// When it was acknowledged.
    pub submitted: WallTime,
    /// The hash of the token that marks its owner.
    pub token: BlockId,
}

/// A tile that is durable on some node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredTile {
    /// The tile, who computed it, what it took.
    pub done: DoneTile,
    /// The hash of the hashes of its blocks.
    pub digest: BlockId,
}

/// One entry of a job's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The job; the first entry of each epoch.
    Taken(Box<Taken>),
    /// Its backups from now on; the first is the hot standby.
    Backups(#[serde(deserialize_with = "bounded::list::<_, _, BACKUPS_MAX>")] Vec<DeviceId>),
    /// Before a device's first tile.
    Contributor(Box<DeviceRecord>),
    /// A tile is durable on the coordinator. `keeper` should fetch a copy; without one, the node
    /// that computed it has it.
    Done {
        /// Which, and its hash.
        stored: StoredTile,
        /// Who should have a copy.
        keeper: Option<DeviceId>,
    },
    /// Another node should have a copy of a tile, because the one before is gone.
    Keep {
        /// The tile.
        tile: u32,
        /// Who.
        keeper: DeviceId,
    },
    /// A tile with the recorded hash is durable on one more node.
    Held {
        /// The tile.
        tile: u32,
        /// Where.
        holder: DeviceId,
    },
    /// Something that people want to know.
    Moment(Moment),
    /// The job has ended.
    Ended(Box<JobStatus>),
}

impl Entry {
    /// Whether it can be the entry at `place` of the log of this job.
    pub(crate) fn fits(&self, header: &JobHeader, place: u64) -> bool {
        let there = |tile: u32| u64::from(tile) < header.tiling.len();
        match self {
            Entry::Taken(taken) => place == 0 && taken.header == *header,
            Entry::Backups(backups) => {
                let mut rest = backups.iter().enumerate();
                backups.len() <= BACKUPS_MAX && rest.all(|(n, id)| !backups[..n].contains(id))
            }
            Entry::Contributor(record) => record.is_sane(),
            Entry::Done { stored, .. } => there(stored.done.tile),
            Entry::Keep { tile, .. } | Entry::Held { tile, .. } => there(*tile),
            Entry::Moment(moment) => moment.is_sane() && moment.tile.is_none_or(there),
            Entry::Ended(status) => status.is_end_of(header.job),
        }
    }

    /// About how many bytes it takes, in a message and in memory.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Entry::Taken(taken) => {
                let blocks = taken.header.a.blocks.len() + taken.header.b.blocks.len();
                let batch = taken.header.batch.as_deref().map_or(0, BatchPart::size);
                512 + 34 * blocks as u64 + batch
            }
            Entry::Contributor(_) => CONTRIBUTOR_BYTES,
            Entry::Ended(status) => status.size(),
            Entry::Done { .. } => 256,
            Entry::Backups(_) | Entry::Keep { .. } | Entry::Held { .. } | Entry::Moment(_) => 192,
        }
    }
}

/// The place of a node among those that could continue a job, highest wins: who has seen more of
/// the log, then who is earlier in the list of backups, then the larger device id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank {
    /// The highest epoch seen.
    pub epoch: Epoch,
    /// Entries of its log that are durable here.
    pub sequence: u64,
    /// [`BACKUPS_MAX`] less the place in the list of backups; 0 for who is not in it.
    pub place: u8,
    /// Who.
    pub device: DeviceId,
}

/// What a node answers to somebody who wants to continue a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vote {
    /// Go ahead.
    Yield,
    /// My rank is higher; I stand myself.
    Higher,
    /// The job has a coordinator that I hear.
    Lives {
        /// Its epoch.
        epoch: Epoch,
    },
    /// It has ended; I have the record.
    Ended(Box<JobStatus>),
    /// Its time is over.
    Gone,
    /// I never heard of it.
    Unknown,
}

/// A job from the disk, after a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// The job.
    pub taken: Taken,
    /// How long ago it was acknowledged, by the wall clock.
    pub elapsed: Span,
    /// The highest epoch seen.
    pub epoch: Epoch,
    /// Entries of that epoch's log that are durable here; 0 on its coordinator.
    pub sequence: u64,
    /// Its backups as last recorded.
    pub backups: Vec<DeviceId>,
    /// Who computed tiles.
    pub contributors: Vec<DeviceRecord>,
    /// What the log says of tiles, with the nodes that hold them.
    pub recorded: Vec<(StoredTile, Vec<DeviceId>)>,
    /// Tiles that are durable here.
    pub held: Vec<StoredTile>,
    /// What happened so far.
    pub timeline: Vec<Moment>,
    /// The log says that it has ended so; this node may still lack a part of the result.
    pub ending: Option<JobStatus>,
    /// It has ended, and what this node should have of it is here.
    pub ended: Option<JobStatus>,
}
