//! What people and programs are told: the status of a job, the devices of the mesh.
//! The JSON form of these types is the contract of `GET /api/jobs` and `GET /api/nodes`.

use serde::{Deserialize, Serialize};

use crate::batch::{self, BatchPart, FailedProduct};
use crate::forecast::{Limit, Share};
use crate::id::{DeviceId, JobId, MatrixId};
use crate::matrix::Dtype;
use crate::replication::{BACKUPS_MAX, COUNTER_MAX};
use crate::slab::TileLimits;
use crate::time::WallTime;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Accepted, nothing leased yet.
    Queued,
    /// Tiles are being computed.
    Running,
    /// The result is there.
    Done,
    /// Ended without a result; `error` says why.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl JobState {
    /// Done, failed or cancelled.
    pub fn has_ended(self) -> bool {
        matches!(
            self,
            JobState::Done | JobState::Failed | JobState::Cancelled
        )
    }
}

/// How the operands travel to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As they are.
    #[default]
    Plain,
    /// Two shares with opposite masks: each device alone learns nothing.
    Masked,
    /// Shares of which so many devices as asked for together learn nothing.
    Private,
}

/// One device's part in one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Its slots.
    pub slots: u32,
    /// Tiles accepted from it.
    pub tiles: u64,
    /// Distinct rows of C in those tiles.
    pub rows: u64,
    /// 2·rows·inner·cols summed over those tiles.
    pub operations: u64,
    /// Kernel time summed over slots.
    pub compute_ms: f64,
    /// Time that tiles waited for blocks, summed over slots.
    pub transfer_ms: f64,
    /// `operations` over the time with at least one kernel running, in 10^6 per second.
    pub mflops: f64,
    /// The browser's user agent, or the program, version and system of a node.
    pub user_agent: String,
}

/// One device in the plan of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Tiles that it should compute; 0: it is left out.
    pub tiles: u64,
    /// Bytes between the coordinator and it.
    pub bytes: u64,
    /// When it should have returned them; if it is left out, when it would have returned one.
    pub seconds: f64,
    /// What its time goes into.
    pub limit: Limit,
}

impl Planned {
    /// What a plan says of a device.
    pub fn of(share: &Share, name: String) -> Self {
        Self {
            device: share.device,
            name,
            tiles: share.tiles,
            bytes: share.bytes as u64,
            seconds: share.seconds.min(1e12),
            limit: share.limit,
        }
    }

    /// A device that no plan counts on.
    pub fn left_out(device: DeviceId, name: String, limit: Limit) -> Self {
        Self {
            device,
            name,
            tiles: 0,
            bytes: 0,
            seconds: 0.0,
            limit,
        }
    }

    fn is_sane(&self) -> bool {
        self.name.len() <= 256 && self.seconds.is_finite()
    }
}

/// What would become of a job if it were submitted now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outlook {
    /// Rows of C.
    pub rows: u64,
    /// The inner dimension.
    pub inner: u64,
    /// Columns of C.
    pub cols: u64,
    /// The element type.
    pub dtype: Dtype,
    /// Tiles that C is cut into.
    pub tiles: u64,
    /// Rows of a full tile.
    pub tile_rows: u64,
    /// Columns of a full tile.
    pub tile_cols: u64,
    /// Until the last tile is there; `None` if nobody can compute it now.
    pub predicted_seconds: Option<f64>,
    /// The same if the coordinator worked alone; `None` if it does not compute.
    pub alone_seconds: Option<f64>,
    /// Bytes between the coordinator and all others.
    pub bytes: u64,
    /// Who would do how much, and who would be left out. Most tiles first.
    pub plan: Vec<Planned>,
    /// How it would be shared, if it is guarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Box<Sharing>>,
}

/// How a guarded product is shared, and what that costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sharing {
    /// The scheme and its parts, in words.
    pub scheme: String,
    /// T: so many devices that put together what they see learn nothing.
    pub colluders: u32,
    /// S: so many devices may fail or lie, and nothing has to be done again.
    pub spares: u32,
    /// Shares, each for a device of its own.
    pub shares: u32,
    /// R: answers that give the product.
    pub answers: u32,
    /// Primes modulo which each share is computed.
    pub primes: u32,
    /// Bits that are kept of a float, relative to the largest of its row of A or column of B; none for integers.
    pub bits_kept: Option<u32>,
    /// Operations of all shares over those of the plain product: N/(K·p·L).
    pub compute_factor: f64,
    /// Bytes of all shares and of R answers over those of A, B and C.
    pub traffic_factor: f64,
    /// What the coordinator has spent on making shares.
    pub encode_seconds: f64,
    /// What it has spent on putting answers together.
    pub decode_seconds: f64,
    /// How long it would take alone, as far as known.
    pub alone_seconds: Option<f64>,
    /// Shares were of no use any more, because too few devices were left: the coordinator does the rest by itself.
    pub alone: bool,
    /// Who learns what.
    pub reveals: String,
}

impl Sharing {
    fn is_sane(&self) -> bool {
        let numbers = [
            self.compute_factor,
            self.traffic_factor,
            self.encode_seconds,
            self.decode_seconds,
            self.alone_seconds.unwrap_or(0.0),
        ];
        self.scheme.len() <= 256
            && self.reveals.len() <= 512
            && numbers.iter().all(|number| number.is_finite())
    }
}

/// The status of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The job.
    pub job: JobId,
    /// A name for people; may be empty.
    pub name: String,
    /// Where it stands.
    pub state: JobState,
    /// Rows of A and of C; 0 for a batch, as the other two.
    #[serde(with = "batch::shape")]
    pub rows: u64,
    /// Columns of A, rows of B.
    #[serde(with = "batch::shape")]
    pub inner: u64,
    /// Columns of B and of C.
    #[serde(with = "batch::shape")]
    pub cols: u64,
    /// Element type.
    pub dtype: Dtype,
    /// How operands travel.
    pub mode: Mode,
    /// Tiles of C.
    pub tiles_total: u64,
    /// Tiles durable on the coordinator.
    pub tiles_done: u64,
    /// Done tiles that are also durable on one more node, as every backup in reach has recorded.
    pub tiles_safe: u64,
    /// Tiles computed again although their first result was valid.
    pub tiles_recomputed: u64,
    /// The node that runs it; when it has ended, the one that ran it then.
    pub coordinator: DeviceId,
    /// The counter of the coordinator's epoch: 1, and one or more higher after each takeover.
    pub epoch: u64,
    /// How many backups in reach could continue it alone; when it has ended, how many have what it
    /// left.
    pub safe_copies: u8,
    /// When it was acknowledged.
    pub submitted: WallTime,
    /// From then to now, or to its end.
    pub seconds: f64,
    /// What was predicted when it was taken.
    pub predicted_seconds: Option<f64>,
    /// Who should do how much, and who is left out: the last plan for a good part of the job.
    #[serde(default)]
    pub plan: Vec<Planned>,
    /// Bytes of blocks and results that crossed the network.
    pub bytes_sent: u64,
    /// The least that the devices' shares need: b·n²·(2·Σ√x + 1 − x₀) in the square case.
    pub bytes_floor: u64,
    /// Bytes copied to backups.
    pub bytes_replicated: u64,
    /// The product, once done.
    pub result: Option<MatrixId>,
    /// Why it failed.
    pub error: Option<String>,
    /// Who computed what.
    pub contributions: Vec<Contribution>,
    /// The nodes that hold what is needed to continue it, the hot standby first.
    #[serde(default)]
    pub backups: Vec<DeviceId>,
    /// What happened to it, oldest first; the last [`TIMELINE_MAX`] moments.
    #[serde(default)]
    pub timeline: Vec<Moment>,
    /// How a guarded product is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Box<Sharing>>,
    /// Of which batch it is a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Box<BatchPart>>,
    /// Products, if it is a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<u64>,
    /// The products of a batch that have no result, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Vec<FailedProduct>>,
}

impl JobStatus {
    /// Whether a status that came from elsewhere is within bounds.
    pub(crate) fn is_sane(&self) -> bool {
        let texts = |part: &Contribution| {
            let numbers = [part.compute_ms, part.transfer_ms, part.mflops];
            part.name.len() <= 256
                && part.user_agent.len() <= 1_024
                && numbers.iter().all(|number| number.is_finite())
        };
        let error = self.error.as_ref();
        self.name.len() <= 4_096
            && self.epoch <= COUNTER_MAX
            && self.backups.len() <= BACKUPS_MAX
            && self.timeline.len() <= TIMELINE_MAX
            && self.timeline.iter().all(Moment::is_sane)
            && error.is_none_or(|error| error.len() <= 4_096)
            && self.contributions.len() <= CONTRIBUTIONS_MAX
            && self.contributions.iter().all(texts)
            && self.part.as_deref().is_none_or(BatchPart::is_sane)
            && self.sharing.as_deref().is_none_or(Sharing::is_sane)
            // A batch is put together by whoever is asked for it.
            && self.products.is_none()
            && self.failed.is_none()
            && self.seconds.is_finite()
            && self.predicted_seconds.is_none_or(f64::is_finite)
            && self.plan.len() <= PLANNED_MAX
            && self.plan.iter().all(Planned::is_sane)
    }

    /// Whether what came from elsewhere can be how this job ended.
    pub(crate) fn is_end_of(&self, job: JobId) -> bool {
        self.job == job && self.state.has_ended() && self.is_sane()
    }

    /// Of two ends of a job, on two sides of a partition, the one with the higher standing counts:
    /// cancelling was a person's wish; a product is better than none; else the higher epoch.
    pub(crate) fn standing(&self) -> (u8, u64, DeviceId) {
        let state = match self.state {
            JobState::Cancelled => 3,
            JobState::Done => 2,
            JobState::Failed => 1,
            JobState::Queued | JobState::Running => 0,
        };
        (state, self.epoch, self.coordinator)
    }

    /// About how many bytes it takes, in a message and in memory.
    pub(crate) fn size(&self) -> u64 {
        let part = self.part.as_deref().map_or(0, BatchPart::size);
        let lines = (self.timeline.len() + self.plan.len()) as u64;
        1_024 + 1_024 * self.contributions.len() as u64 + 256 * lines + part
    }
}

/// Devices of a plan that are told of.
pub(crate) const PLANNED_MAX: usize = 32;
/// Devices that are told of with one job.
pub(crate) const CONTRIBUTIONS_MAX: usize = 4_096;
/// Moments remembered of one job.
pub const TIMELINE_MAX: usize = 64;

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds after it was acknowledged.
    pub at: f64,
    /// What.
    pub event: Happening,
    /// The device that it is about.
    pub device: DeviceId,
    /// How that device is called.
    pub name: String,
    /// The tile that it is about.
    #[serde(default)]
    pub tile: Option<u32>,
    /// The counter of the epoch then.
    pub epoch: u64,
}

impl Moment {
    /// Whether one that came from elsewhere is within bounds.
    pub(crate) fn is_sane(&self) -> bool {
        self.name.len() <= 256 && self.at.is_finite()
    }
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// The device took it.
    Taken,
    /// The device began to work for it.
    Joined,
    /// The device went away.
    Left,
    /// The device continues it after its coordinator was gone.
    TookOver,
    /// The device became a backup.
    BackedUp,
    /// A tile that was leased to the device is given to another.
    Reassigned,
    /// The device returned a wrong tile.
    Quarantined,
    /// It ended; the device coordinated it then.
    Ended,
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The native program.
    Native,
    /// A page in a browser.
    Browser,
}

/// What a device is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// Would compute.
    Ready,
    /// Computes.
    Busy,
    /// Its person paused it.
    Paused,
    /// Not heard of; its leases are back.
    Lost,
}

/// A device as `GET /api/nodes` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// `HOST:PORT` of a node; for a page, of the node it is attached to.
    pub address: String,
    /// Its slots.
    pub slots: u32,
    /// Kernel speed measured when it joined, all slots together.
    pub mflops: f64,
    /// What it is doing.
    pub state: DeviceState,
    /// When it joined.
    pub since: WallTime,
    /// The largest tile that it has room for, in bytes; a matter of the node alone.
    #[serde(skip, default = "any_tile")]
    pub tile_bytes: u64,
}

fn any_tile() -> u64 {
    TileLimits::default().tile_bytes
}
