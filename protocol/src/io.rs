//! What goes into an [`crate::engine::Engine`] and what comes out of it: closed enums, all data.
//!
//! `P` is the payload of a frame, which the engine moves and never looks at: shared bytes in the
//! node, a handle in a page, nothing in a simulation.

use serde::{Deserialize, Serialize};

use crate::coded::Sharing;
use crate::id::{BlockId, DeviceId, Epoch, JobId, LeaseId, MatrixId};
use crate::job::{JobHeader, KernelClass, Operand};
use crate::matrix::{ElementType, Part};
use crate::message::{DeviceRecord, Grant, Header, Refusal, Work};
use crate::replication::{Entry, Restored, Taken};
use crate::slab::TileLimits;
use crate::status::{JobStatus, Moment};
use crate::tile::Rect;
use crate::time::Span;

/// One connection, numbered by the shell; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What may be at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `/mesh`: another node.
    Mesh,
    /// `/ws`: a page.
    Page,
}

/// What an engine is told when it is made.
#[derive(Debug, Clone)]
pub struct Config {
    /// This device. `version` and `state` are kept by the engine from here on.
    pub record: DeviceRecord,
    /// The mesh: devices of another one are refused.
    pub mesh: String,
    /// Seeds jitter and ids of leases; nothing secret depends on it.
    pub seed: u64,
    /// What the worker may hold.
    pub memory: WorkerMemory,
    /// The most devices that are remembered.
    pub devices_max: usize,
    /// Nodes that are to hold what is needed to continue a job of this one, at most
    /// [`crate::replication::BACKUPS_MAX`].
    pub backups: usize,
}

/// What a worker may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerMemory {
    /// Blocks that are kept for later.
    pub cache_bytes: u64,
    /// Blocks that one slab may need.
    pub resident_bytes: u64,
    /// Blocks in use and on their way for all tiles; one tile at a time may need more than this.
    pub window_bytes: u64,
    /// The panels of a slab at most, so that computing starts early.
    pub slab_bytes: u64,
    /// The largest tile.
    pub tile_bytes: u64,
    /// Results kept until their coordinator has judged them.
    pub unsettled_bytes: u64,
}

impl WorkerMemory {
    const SLAB_BYTES_MAX: u64 = 4 << 20;
    /// A slab's panels are no smaller than this for want of cache: more slabs would cost more than they spare.
    pub(crate) const SLAB_BYTES_MIN: u64 = 1 << 20;
    /// What a slab may always keep present, however small the cache.
    const RESIDENT_BYTES_MIN: u64 = 64 << 20;
    const UNSETTLED_BYTES_MAX: u64 = 64 << 20;

    /// That of a worker of which only the cache is bounded.
    pub fn of_cache(cache_bytes: u64) -> Self {
        Self {
            cache_bytes,
            resident_bytes: cache_bytes.max(Self::RESIDENT_BYTES_MIN),
            window_bytes: u64::MAX,
            slab_bytes: Self::SLAB_BYTES_MAX,
            tile_bytes: u64::MAX,
            unsettled_bytes: Self::UNSETTLED_BYTES_MAX,
        }
    }

    /// What others have to know of it.
    pub fn tile_limits(&self) -> TileLimits {
        TileLimits {
            tile_bytes: self.tile_bytes,
            slab_bytes: self.slab_bytes.min(Self::SLAB_BYTES_MIN),
            resident_bytes: self.resident_bytes,
        }
    }
}

/// One computed tile, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoneTile {
    /// The tile.
    pub tile: u32,
    /// Who computed it.
    pub device: DeviceId,
    /// What it took.
    pub work: Work,
}

/// What the check of another device's tile found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// It is the product.
    Right,
    /// It is not the product: no honest device returns it.
    Wrong,
    /// Only computing it could tell (operands with infinities, sums beyond the range), and it was
    /// not what this node computed: nobody is blamed, and this node's own tile counts.
    Replaced(Work),
}

/// Something happened.
// Frames are most of what there is, and no input is kept: a box would be one more allocation for each.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "most inputs are frames, and each lives for one call"
)]
pub enum Input<P> {
    /// A WebSocket opened. `dialled` is the address that was asked for when this side dialled.
    LinkUp {
        /// Its number.
        link: LinkId,
        /// What may be at the other end.
        door: Door,
        /// The `HOST:PORT` dialled; `None` when the other side did.
        dialled: Option<String>,
    },
    /// A WebSocket is gone, whoever closed it.
    LinkDown {
        /// Its number.
        link: LinkId,
    },
    /// A frame arrived.
    Frame {
        /// From where.
        link: LinkId,
        /// Its header.
        header: Header,
        /// Its payload.
        payload: P,
        /// The payload's length in bytes.
        payload_bytes: u64,
    },
    /// An address worth dialling: from mDNS, `--peer` or a registration. A hint, not a member.
    Hint {
        /// `HOST:PORT`.
        address: String,
        /// Who is said to be there.
        device: Option<DeviceId>,
        /// Keep trying for ever (`--peer`, registered) instead of a few times.
        keep: bool,
    },
    /// Dialling failed.
    DialFailed {
        /// `HOST:PORT`.
        address: String,
    },
    /// A job was taken: it, its operands and its empty result are durable here.
    Submit {
        /// The job.
        taken: Box<Taken>,
    },
    /// A job from the disk, coordinated here or not: goes on after a restart.
    Restore(Box<Restored>),
    /// Jobs that were here and whose time is over, from the disk: they do not come back.
    Expired {
        /// Which.
        jobs: Vec<JobId>,
    },
    /// Somebody cancels a job.
    Cancel {
        /// The job.
        job: JobId,
    },
    /// A job can not go on here (disk full, operand corrupt): it fails, or if another node
    /// coordinates it, this one is no backup of it any more.
    Fail {
        /// The job.
        job: JobId,
        /// Why, for people.
        reason: String,
    },
    /// A job's time is over: forget it.
    Forget {
        /// The job.
        job: JobId,
    },
    /// Answer to [`Output::Verify`].
    Verified {
        /// The job.
        job: JobId,
        /// The tile.
        tile: u32,
        /// The lease under which it came.
        lease: LeaseId,
        /// What was found.
        checked: Checked,
        /// The tile: the result again, or what this node computed in its place.
        payload: P,
    },
    /// Answer to [`Output::Persist`]: the tile and its record are durable, or it has not the hash
    /// that it should have.
    Persisted {
        /// The job.
        job: JobId,
        /// The tile.
        tile: u32,
        /// The hash of the hashes of its blocks; `None` when the bytes were refused.
        digest: Option<BlockId>,
    },
    /// Answer to [`Output::Claim`]: the epoch is durable.
    Claimed {
        /// The job.
        job: JobId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Answer to [`Output::Record`]: the entries are durable.
    Recorded {
        /// The job.
        job: JobId,
        /// The epoch of the log.
        epoch: Epoch,
        /// How many of its entries are durable now.
        sequence: u64,
    },
    /// Answer to [`Output::CopyMatrix`]: the matrix is durable here, or nobody could give it.
    MatrixCopied {
        /// The job.
        job: JobId,
        /// Which.
        matrix: MatrixId,
        /// It is here.
        there: bool,
    },
    /// Answer to [`Output::FetchTile`].
    TileFetched {
        /// The job.
        job: JobId,
        /// The tile.
        tile: u32,
        /// Who was asked.
        from: DeviceId,
        /// Its bytes, row-major, with their length; `None` when it could not be had.
        payload: Option<(P, u64)>,
    },
    /// Answer to [`Output::Finish`]: the result is a matrix.
    Finished {
        /// The job.
        job: JobId,
        /// The product.
        result: MatrixId,
    },
    /// Answer to [`Output::Encode`]: the shares are matrices here, and so are the empty results of their jobs.
    Encoded {
        /// The product.
        job: JobId,
        /// The job of each share, in order.
        shares: Vec<Taken>,
        /// What it took, in seconds.
        seconds: f64,
    },
    /// Answer to [`Output::Decode`].
    Decoded {
        /// The product.
        job: JobId,
        /// The tile of the shares.
        tile: u32,
        /// The tiles of the product that come from it, with their bytes and their number.
        tiles: Vec<(u32, P, u64)>,
        /// What it took, in seconds.
        seconds: f64,
    },
    /// Bytes of blocks or results of a job crossed a socket.
    Traffic {
        /// The job.
        job: JobId,
        /// How many.
        bytes: u64,
    },
    /// A block that this device's worker needs is in the shell's cache, its hash checked.
    BlockReady {
        /// The job for which it was fetched.
        job: JobId,
        /// Of which factor.
        operand: Operand,
        /// Its place in the manifest.
        block: u32,
    },
    /// A block that arrived has the wrong hash, or could not be read here.
    BlockBad {
        /// The job for which it was fetched.
        job: JobId,
        /// Of which factor.
        operand: Operand,
        /// Its place in the manifest.
        block: u32,
    },
    /// Answer to [`Output::Compute`]; its blocks stay in the cache until then.
    SlabDone {
        /// Which slot.
        slot: u32,
        /// Time inside the kernel.
        kernel: Span,
        /// C, after the last slab.
        result: Option<(P, u64)>,
    },
    /// A slot could not compute (out of memory): its lease goes back.
    SlotFailed {
        /// Which slot.
        slot: u32,
    },
    /// The person changed the name, the number of slots, or paused this device.
    Configure {
        /// A new name.
        name: Option<String>,
        /// Another number of slots.
        slots: Option<u32>,
        /// Pause or go on.
        paused: Option<bool>,
        /// Another measured speed.
        mflops: Option<f64>,
    },
    /// This device is reached elsewhere from now on, as when its network came up or changed.
    Moved {
        /// `HOST:PORT`, best first.
        addresses: Vec<String>,
    },
    /// This device leaves: leases go back, goodbyes are said.
    Leave,
    /// Time passed; answer to `poll_timeout`.
    Tick,
}

/// Something to do.
#[derive(Debug, Clone)]
pub enum Output<P> {
    /// Send a frame. Links are bounded: the shell drops a link that can not keep up.
    Send {
        /// Where.
        link: LinkId,
        /// The header.
        header: Header,
        /// The payload, for a forwarded Block or Result and for an own Result.
        payload: Option<P>,
    },
    /// Close a link, after what was sent on it.
    Close {
        /// Which.
        link: LinkId,
        /// Why, when it is the other side's fault.
        reason: Option<Refusal>,
    },
    /// Open a link.
    Dial {
        /// `HOST:PORT`.
        address: String,
    },
    /// Read blocks of a job's operand and send each as a Block frame, at the link's pace.
    /// They are addressed to `to`, by way of `link`.
    Serve {
        /// Where.
        link: LinkId,
        /// Who asked.
        to: DeviceId,
        /// The job.
        job: JobId,
        /// Of which factor.
        operand: Operand,
        /// Which blocks.
        blocks: Vec<u32>,
    },
    /// Read blocks of an operand of a job that this node coordinates into the cache, for the own
    /// worker; each answers with [`Input::BlockReady`] or [`Input::BlockBad`], even when the job
    /// has ended meanwhile.
    Load {
        /// The job.
        job: JobId,
        /// Of which factor.
        operand: Operand,
        /// Which blocks.
        blocks: Vec<u32>,
    },
    /// A block arrived for the worker: check that it hashes to `id`, keep it in the cache, answer
    /// with [`Input::BlockReady`] or [`Input::BlockBad`].
    Keep {
        /// The job.
        job: JobId,
        /// Of which factor.
        operand: Operand,
        /// Its place in the manifest.
        block: u32,
        /// What it must hash to.
        id: BlockId,
        /// Its bytes.
        payload: P,
    },
    /// Drop a block from the cache.
    Evict {
        /// Which.
        id: BlockId,
    },
    /// Compute one slab of a tile on a slot: C += A·B over inner indices `from..to`.
    Compute(SlabTask),
    /// Make shares of the factors of a guarded product, with masks that are used for nothing else; answer with
    /// [`Input::Encoded`].
    Encode {
        /// The product.
        job: JobId,
        /// How it is shared.
        sharing: Box<Sharing>,
    },
    /// Put a tile of a guarded product together; answer with [`Input::Decoded`].
    Decode {
        /// The product.
        job: JobId,
        /// The tile of the shares.
        tile: u32,
        /// Whose answers count, by the number of their share, and the jobs that have them.
        answers: Vec<(u16, JobId)>,
    },
    /// Stop what a slot computes; no answer is expected and none must come.
    Abort {
        /// Which.
        slot: u32,
    },
    /// Check a tile that another device computed; answer with [`Input::Verified`].
    Verify {
        /// The job.
        job: JobId,
        /// The tile.
        tile: u32,
        /// The lease under which it came.
        lease: LeaseId,
        /// The tile's bytes.
        payload: P,
    },
    /// Make a tile durable, then its record; answer with [`Input::Persisted`].
    Persist {
        /// The job.
        job: JobId,
        /// What to record.
        done: DoneTile,
        /// Set with the device's first tile of this job: keep it with the job.
        contributor: Option<Box<DeviceRecord>>,
        /// The hash that it must have: other bytes are refused, and replace other bytes that are
        /// here. `None`: whatever it is; bytes that are here already stay.
        expected: Option<BlockId>,
        /// The tile's bytes.
        payload: P,
    },
    /// Make entries of a job's log durable, which another node coordinates (or, with no entries,
    /// the epoch alone); the first entry of a job that is not known is [`Entry::Taken`]. Answer
    /// with [`Input::Recorded`], or [`Input::Fail`].
    Record {
        /// The job.
        job: JobId,
        /// The epoch of the log.
        epoch: Epoch,
        /// How many of its entries are durable with these.
        sequence: u64,
        /// What they say, in order. An entry may come again.
        entries: Vec<Entry>,
    },
    /// This node coordinates the job from now on: make the epoch durable; answer with
    /// [`Input::Claimed`].
    Claim {
        /// The job.
        header: Box<JobHeader>,
        /// The epoch.
        epoch: Epoch,
    },
    /// The job's backups changed: keep the list with the job. No answer.
    Backups {
        /// The job.
        job: JobId,
        /// The list.
        backups: Vec<DeviceId>,
    },
    /// Something that people want to know of a job happened: keep it with the job. No answer.
    Moment {
        /// The job.
        job: JobId,
        /// What.
        moment: Moment,
    },
    /// Fetch a matrix from one of these nodes, unless it is here; answer with
    /// [`Input::MatrixCopied`]. It stays as long as the job needs it.
    CopyMatrix {
        /// The job.
        job: JobId,
        /// Which.
        matrix: MatrixId,
        /// Who may have it, best first.
        from: Vec<DeviceId>,
    },
    /// Fetch the bytes of a tile that is durable on another node; answer with
    /// [`Input::TileFetched`].
    FetchTile {
        /// The job.
        job: JobId,
        /// The tile.
        tile: u32,
        /// Who has it.
        from: DeviceId,
    },
    /// This node has no part in the job any more: remove what it has of it. No answer.
    Drop {
        /// The job.
        job: JobId,
        /// Its time is over: it comes in [`Input::Expired`] after a restart.
        for_good: bool,
    },
    /// All tiles are durable: make the result a matrix; answer with [`Input::Finished`].
    Finish {
        /// The job.
        job: JobId,
    },
    /// A job has ended: record its last status, let go of its scratch space.
    Ended {
        /// How.
        status: Box<JobStatus>,
    },
    /// The status of a job changed, own or from another node.
    JobChanged {
        /// The job.
        job: JobId,
    },
    /// The devices of the mesh changed.
    DevicesChanged,
    /// A device returned a wrong tile: it gets no more leases from this node. For the log.
    Quarantined {
        /// Which.
        device: DeviceId,
        /// The job.
        job: JobId,
        /// The tile.
        tile: u32,
    },
    /// Whether an address that was hinted at became a link to a member (answers a registration).
    Joined {
        /// `HOST:PORT` that was dialled.
        address: String,
        /// Who is there, or why it is no member.
        outcome: Result<DeviceId, Refusal>,
    },
}

/// One slab of a tile for one slot.
#[derive(Debug, Clone, PartialEq)]
pub struct SlabTask {
    /// The slot.
    pub slot: u32,
    /// The job.
    pub job: JobId,
    /// The coordinator's epoch.
    pub epoch: Epoch,
    /// The lease and tile.
    pub grant: Grant,
    /// How elements are computed.
    pub class: KernelClass,
    /// Form and size of the tile.
    pub shape: TileShape,
    /// The first slab of the tile: start C at zero.
    pub first: bool,
    /// The last slab of the tile: hand C back.
    pub last: bool,
    /// Inner indices of this slab, `from..to`.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// The parts of blocks that make the slab of A (tile rows × slab depth), with their ids.
    pub a: Vec<(BlockId, Part)>,
    /// The parts of blocks that make the slab of B (slab depth × tile columns), with their ids.
    pub b: Vec<(BlockId, Part)>,
}

/// Form and size of a tile's product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileShape {
    /// Rows of the tile.
    pub rows: u64,
    /// Columns of the tile.
    pub cols: u64,
    /// Length of the inner dimension, all slabs together.
    pub inner: u64,
    /// An element of A.
    pub a: ElementType,
    /// Bit length of the largest magnitude in A (`int`).
    pub a_bits: u32,
    /// An element of B.
    pub b: ElementType,
    /// Bit length of the largest magnitude in B (`int`).
    pub b_bits: u32,
    /// An element of C.
    pub c: ElementType,
    /// The products that its rows belong to, when the job is a stack.
    pub stack: Option<crate::stack::Span>,
}

impl TileShape {
    /// That of the tile `rect` of a job.
    pub fn of(header: &JobHeader, rect: Rect) -> Self {
        Self {
            rows: rect.rows,
            cols: rect.cols,
            inner: header.a.cols,
            a: header.a.element,
            a_bits: header.a.bits,
            b: header.b.element,
            b_bits: header.b.bits,
            c: header.element,
            stack: header.span(rect),
        }
    }
}
