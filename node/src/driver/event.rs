//! What the event loop is told.

use bytes::Bytes;
use gemmesh_protocol::coded::Refusal;
use gemmesh_protocol::id::{BlockId, DeviceId, Epoch, JobId, LeaseId, MatrixId};
use gemmesh_protocol::io::{Checked, Door, LinkId};
use gemmesh_protocol::job::{JobHeader, Operand};
use gemmesh_protocol::message::Header;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::status::Outlook;
use tokio::sync::oneshot;

use crate::guarded::{Encoded, Tiles};
use crate::link::LinkQueue;

/// What the loop is told.
pub(crate) enum Event {
    /// A WebSocket opened.
    LinkUp {
        link: LinkId,
        door: Door,
        dialled: Option<String>,
        queue: LinkQueue,
    },
    /// A WebSocket is gone.
    LinkDown { link: LinkId },
    /// A frame arrived.
    Frame {
        link: LinkId,
        header: Box<Header>,
        payload: Bytes,
    },
    /// Bytes of a job's blocks were sent.
    Traffic { job: JobId, bytes: u64 },
    /// An address worth dialling.
    Hint {
        address: String,
        device: Option<DeviceId>,
        keep: bool,
    },
    /// Dialling failed.
    DialFailed { address: String, reason: String },
    /// A person registers a node.
    Register {
        address: String,
        reply: oneshot::Sender<Result<DeviceId, String>>,
    },
    /// A durable job.
    Submit {
        taken: Box<Taken>,
        reply: oneshot::Sender<()>,
    },
    /// What would become of a job?
    Explain {
        header: Box<JobHeader>,
        reply: oneshot::Sender<Outlook>,
    },
    /// A person cancels a job.
    Cancel {
        job: JobId,
        reply: oneshot::Sender<()>,
    },
    /// Jobs whose time is over.
    Forget { jobs: Vec<JobId> },
    /// What would become of a guarded product? Too few devices are a refusal.
    ExplainGuarded {
        header: Box<JobHeader>,
        reply: oneshot::Sender<Result<Outlook, Refusal>>,
    },
    /// Shares of a guarded product were made.
    Encoded { job: JobId, encoded: Encoded },
    /// Tiles of a guarded product were put together.
    Decoded {
        job: JobId,
        tile: u32,
        tiles: Tiles,
        seconds: f64,
    },
    /// A tile was checked.
    Verified {
        job: JobId,
        tile: u32,
        lease: LeaseId,
        checked: Checked,
        payload: Bytes,
    },
    /// A tile is durable, or was refused.
    Persisted {
        job: JobId,
        tile: u32,
        digest: Option<BlockId>,
    },
    /// Entries of a job's log are durable.
    Logged {
        job: JobId,
        epoch: Epoch,
        sequence: u64,
    },
    /// This node may coordinate a job from now on.
    Claimed { job: JobId, epoch: Epoch },
    /// A copy of a matrix is here, or could not be had.
    MatrixCopied {
        job: JobId,
        matrix: MatrixId,
        there: bool,
    },
    /// A tile from another node.
    TileFetched {
        job: JobId,
        tile: u32,
        from: DeviceId,
        payload: Option<Bytes>,
    },
    /// A result became a matrix.
    Finished { job: JobId, result: MatrixId },
    /// How a job ended is durable.
    Recorded { job: JobId },
    /// The disk failed a job.
    StoreFailed { job: JobId, reason: String },
    /// A block for the own worker was read or checked; `None` when it is bad.
    Block {
        job: JobId,
        operand: Operand,
        block: u32,
        id: BlockId,
        bytes: Option<Bytes>,
    },
    /// This node is reached elsewhere.
    Moved { addresses: Vec<String> },
    /// This node stops; answered when goodbyes are queued.
    Leave { reply: oneshot::Sender<()> },
}
