//! Every message of the mesh. A frame on a WebSocket is a [`Header`] and a payload (see `codec`);
//! only [`Message::Block`] and [`Message::Result`] have one.

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::id::{DeviceId, Epoch, JobId, LeaseId};
use crate::job::{JobHeader, KernelClass, Operand};
use crate::replication::{ENTRIES_MAX, Entry, Rank, StoredTile, TILES_MAX, Vote};
use crate::slab::TileLimits;
use crate::status::{DeviceKind, DeviceState, JobStatus};
use crate::time::{Span, WallTime};

/// The version of this protocol. Fields are added with defaults; a change that an older version
/// could not ignore raises it.
pub const VERSION: u32 = 2;

/// The largest speed that a device may claim: a thousand petaflops. Sums stay finite.
const MFLOPS_MAX: f64 = 1e12;
/// Addresses of one device.
pub const ADDRESSES_MAX: usize = 32;
/// Records in one Gossip.
pub const GOSSIP_MAX: usize = 512;
/// Leases in one message: more than any device holds.
pub const LEASES_MAX: usize = 16_384;
/// Blocks in one Fetch.
pub const FETCH_BLOCKS_MAX: usize = 65_536;

/// Who says what to whom. A node forwards a header that is for somebody else by one hop: to a
/// node it is linked with, or to a page that is attached to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The sender.
    pub from: DeviceId,
    /// The receiver; all zeros in the first Hello of a link, when it is not known yet.
    pub to: DeviceId,
    /// What is said.
    pub body: Message,
}

/// What a device says of itself. Owned by that device (a page's by the node it is attached to);
/// a record with a higher (incarnation, version) replaces a lower one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// The device.
    pub device: DeviceId,
    /// Unix milliseconds of its start: tells a restart from a second device with the same id.
    pub incarnation: u64,
    /// Grows with each change of this record.
    pub version: u64,
    /// A name for people.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// `HOST:PORT` where it listens, best first; empty for a page.
    #[serde(deserialize_with = "bounded::list::<_, _, ADDRESSES_MAX>")]
    pub addresses: Vec<String>,
    /// The node that a page is attached to.
    pub via: Option<DeviceId>,
    /// Its slots.
    pub slots: u32,
    /// Kernel classes that it can do.
    pub classes: Vec<KernelClass>,
    /// Measured kernel speed, all slots together.
    pub mflops: f64,
    /// What it is doing.
    pub state: DeviceState,
    /// When it joined.
    pub since: WallTime,
    /// The browser's user agent, or the program, version and system of a node.
    pub user_agent: String,
    /// It knows [`crate::stack`]s; who does not is not given any.
    #[serde(default)]
    pub stacks: bool,
    /// It knows [`crate::matrix::Dtype::Residues`], of which shares of guarded products are; who does not is
    /// given none.
    #[serde(default)]
    pub residues: bool,
    /// What it has room for; jobs with larger tiles leave it out.
    #[serde(default)]
    pub limits: TileLimits,
}

impl DeviceRecord {
    /// Whether a record that came from elsewhere is within bounds, so that keeping it, showing it
    /// and computing with it is safe.
    pub fn is_sane(&self) -> bool {
        self.name.len() <= 256
            && self.user_agent.len() <= 1_024
            && self.addresses.len() <= ADDRESSES_MAX
            && self.addresses.iter().all(|address| address.len() <= 256)
            && self.classes.len() <= 8
            && self.slots <= 4_096
            && (0.0..=MFLOPS_MAX).contains(&self.mflops)
            && self.version < u64::MAX / 2
            && self.incarnation < u64::MAX / 2
            && self.via.is_none_or(|via| via != self.device)
            && (self.kind == DeviceKind::Browser || self.via.is_none())
    }
}

/// The first message in each direction of a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The mesh: devices of another mesh are refused.
    pub mesh: String,
    /// The sender.
    pub record: DeviceRecord,
    /// A page that says so becomes a member through this node; one that does not only works for
    /// jobs that this node coordinates.
    #[serde(default)]
    pub attach: bool,
}

/// Why a link was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Another protocol version.
    Version,
    /// Another mesh.
    Mesh,
    /// A second device with the id of a connected one.
    DuplicateId,
    /// The other end is this device itself.
    Myself,
    /// There is a link already; the other one stays.
    DuplicateLink,
    /// A message that makes no sense here.
    Malformed,
    /// Too many devices.
    Full,
}

/// A tile to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The lease.
    pub lease: LeaseId,
    /// The tile's place in the job's tiling.
    pub tile: u32,
    /// How long the lease lasts from now.
    pub lasts: Span,
}

/// What computing a tile took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Work {
    /// Time inside the kernel.
    pub kernel: Span,
    /// Time from the lease until its blocks were there, less what overlapped with the kernel.
    pub transfer: Span,
    /// Time with at least one kernel of this job running on the device, since it joined the job.
    pub busy: Span,
}

/// What devices say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Opens a link, from the side that dialled.
    Hello(Hello),
    /// Accepts it.
    Welcome(Hello),
    /// Refuses or ends it; the sender closes.
    Refuse {
        /// Why.
        reason: Refusal,
        /// For people.
        text: String,
    },
    /// The sender leaves on purpose.
    Bye,
    /// Are you there?
    Ping {
        /// Comes back in the Pong.
        nonce: u64,
        /// Bytes that only take time: how long tells how fast the link is.
        #[serde(default, with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
        padding: Vec<u8>,
    },
    /// Yes.
    Pong {
        /// From the Ping.
        nonce: u64,
    },
    /// News of devices.
    Gossip {
        /// Their records.
        #[serde(deserialize_with = "bounded::list::<_, _, GOSSIP_MAX>")]
        devices: Vec<DeviceRecord>,
    },
    /// News of jobs, from their coordinator.
    Jobs {
        /// Their status.
        jobs: Vec<JobStatus>,
    },
    /// A page's or node's own record changed: renamed, paused, another number of slots.
    Record(DeviceRecord),
    /// A job has tiles to compute.
    Open {
        /// The job.
        job: JobId,
        /// Its coordinator's epoch.
        epoch: Epoch,
        /// The class that a worker must be able to do.
        class: KernelClass,
        /// Where a page can open a WebSocket to the coordinator, best first.
        #[serde(deserialize_with = "bounded::list::<_, _, ADDRESSES_MAX>")]
        addresses: Vec<String>,
    },
    /// A job has ended; its leases are void.
    Closed {
        /// The job.
        job: JobId,
    },
    /// A worker can take leases of a job.
    Pull {
        /// The job.
        job: JobId,
        /// How many.
        leases: u32,
        /// The worker does not have the job's header yet.
        header: bool,
    },
    /// The header of a job, before its first grant to a worker that asked for it.
    Job(Box<JobHeader>),
    /// Leases. An empty list means: nothing now, an Open follows when there is.
    Grants {
        /// The job.
        job: JobId,
        /// The coordinator's epoch.
        epoch: Epoch,
        /// The leases.
        #[serde(deserialize_with = "bounded::list::<_, _, LEASES_MAX>")]
        grants: Vec<Grant>,
    },
    /// Leases handed back.
    Return {
        /// The job.
        job: JobId,
        /// Which.
        #[serde(deserialize_with = "bounded::list::<_, _, LEASES_MAX>")]
        leases: Vec<LeaseId>,
        /// The device could not compute them, rather than would not.
        #[serde(default)]
        failed: bool,
    },
    /// A worker needs blocks of an operand.
    Fetch {
        /// The job.
        job: JobId,
        /// Of which factor.
        operand: Operand,
        /// Their places in the manifest, in the order they are needed.
        #[serde(deserialize_with = "bounded::list::<_, _, FETCH_BLOCKS_MAX>")]
        blocks: Vec<u32>,
        /// Bytes a second that blocks of this coordinator arrive with, once enough came to tell.
        #[serde(default)]
        link: Option<u64>,
    },
    /// A block; the payload is its bytes.
    Block {
        /// The job.
        job: JobId,
        /// Of which factor.
        operand: Operand,
        /// Its place in the manifest.
        block: u32,
    },
    /// A tile's result; the payload is the tile, row-major, little-endian.
    Result {
        /// The job.
        job: JobId,
        /// The epoch under which it was leased.
        epoch: Epoch,
        /// The lease.
        lease: LeaseId,
        /// The tile.
        tile: u32,
        /// What it took.
        work: Work,
    },
    /// A worker computes tiles of a job under leases of an earlier coordinator, or of an earlier
    /// link, and means to return them to this one.
    Resume {
        /// The job.
        job: JobId,
        /// The coordinator's epoch.
        epoch: Epoch,
        /// The leases.
        #[serde(deserialize_with = "bounded::list::<_, _, LEASES_MAX>")]
        grants: Vec<Grant>,
    },
    /// Entries of a job's log, from its coordinator to a backup; none: only to say who
    /// coordinates.
    Append {
        /// The job.
        job: JobId,
        /// The coordinator's epoch.
        epoch: Epoch,
        /// How long ago the job was acknowledged.
        elapsed: Span,
        /// The place of the first entry in the log of this epoch.
        first: u64,
        /// The entries.
        #[serde(deserialize_with = "bounded::list::<_, _, ENTRIES_MAX>")]
        entries: Vec<Entry>,
    },
    /// What a backup has: answers Append as soon as the entries are durable.
    Appended {
        /// The job.
        job: JobId,
        /// The epoch of the log.
        epoch: Epoch,
        /// Entries of it that are durable.
        sequence: u64,
        /// Both operands are durable.
        inputs: bool,
        /// The job has ended, and what it left is durable.
        ended: bool,
    },
    /// A node can not be a backup of a job.
    Declined {
        /// The job.
        job: JobId,
    },
    /// Tiles that are durable on a node, for the job's coordinator; after Claim with all it has,
    /// in several messages if need be.
    Held {
        /// The job.
        job: JobId,
        /// The coordinator's epoch.
        epoch: Epoch,
        /// The tiles.
        #[serde(deserialize_with = "bounded::list::<_, _, TILES_MAX>")]
        tiles: Vec<StoredTile>,
        /// Answers Claim, and is the last message that does.
        complete: bool,
    },
    /// A new coordinator, to every node: who holds tiles says so with Held.
    Claim {
        /// The job.
        job: JobId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A node wants to continue a job whose coordinator is gone.
    Elect {
        /// The job.
        job: JobId,
        /// The place of the sender.
        rank: Rank,
    },
    /// Answers Elect.
    Vote {
        /// The job.
        job: JobId,
        /// What the sender thinks of it.
        vote: Vote,
    },
    /// What became of a result.
    Verdict {
        /// The job.
        job: JobId,
        /// The lease.
        lease: LeaseId,
        /// The tile.
        tile: u32,
        /// Accepted, or counted as a duplicate (`true`), or refused as wrong (`false`).
        valid: bool,
        /// This very result was the one accepted.
        accepted: bool,
    },
}

impl Message {
    /// Are you there?
    pub fn ping(nonce: u64) -> Self {
        let padding = Vec::new();
        Message::Ping { nonce, padding }
    }
}
