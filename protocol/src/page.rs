//! The engine of a browser page: a worker, its own node, and the coordinators it works for.

use std::collections::VecDeque;

use serde::Serialize;

use crate::id::{DeviceId, JobId};
use crate::io::{Config, Input, Output};
use crate::message::{DeviceRecord, Refusal};
use crate::status::JobStatus;
use crate::time::Instant;

/// How a page stands with its own node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// Dialling for the first time, or again after the link was lost.
    Connecting,
    /// A member of the mesh.
    Connected,
    /// Refused; see `refusal`.
    Refused,
}

/// The last tile that a device computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LastTile {
    /// Its job.
    pub job: JobId,
    /// The node that coordinates the job.
    pub coordinator: DeviceId,
    /// The tile's place in the job's tiling.
    pub tile: u32,
    /// Its kernel time.
    pub kernel_ms: f64,
}

/// What this page has done since it was opened. Serialises to plain JSON for the page's view.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PageContribution {
    /// How the page stands with its own node.
    pub connection: Connection,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// Its own node, once connected.
    pub node: Option<DeviceId>,
    /// Tiles computed.
    pub tiles: u64,
    /// Rows of C in those tiles, each counted once for each job.
    pub rows: u64,
    /// 2·rows·inner·cols summed over those tiles.
    pub operations: u64,
    /// Kernel time summed over slots.
    pub kernel_ms: f64,
    /// Time with at least one kernel running.
    pub busy_ms: f64,
    /// `operations` over `busy_ms`, in 10^6 per second.
    pub mflops: f64,
    /// The last tile computed.
    pub last: Option<LastTile>,
    /// Slots that compute now.
    pub active_slots: u32,
    /// All slots.
    pub slots: u32,
    /// The person paused this device.
    pub paused: bool,
}

/// A page's part of the protocol. The calling order is [`crate::engine::Engine`]'s; the inputs about
/// jobs as a coordinator (Submit, Verified, …) do not concern a page and are ignored.
///
/// Links: `Output::Dial { address }` asks for `ws://ADDRESS/ws`; answer with
/// `Input::LinkUp { dialled: Some(address), door: Door::Page, .. }` or `Input::DialFailed`.
#[derive(Debug)]
pub struct PageEngine<P> {
    record: DeviceRecord,
    outputs: VecDeque<Output<P>>,
}

impl<P: Clone> PageEngine<P> {
    /// A page that was just opened; `node` is the `HOST:PORT` that served it. The first output is
    /// a Dial of it.
    pub fn new(config: Config, node: String, _now: Instant) -> Self {
        Self {
            record: config.record,
            outputs: VecDeque::from([Output::Dial { address: node }]),
        }
    }

    /// Something happened.
    pub fn handle(&mut self, _input: Input<P>, _now: Instant) {}

    /// What to do next; `None` when all is done.
    pub fn poll_output(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    /// When to call [`PageEngine::handle`] with [`Input::Tick`] if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What this page has done.
    pub fn contribution(&self, _now: Instant) -> PageContribution {
        PageContribution {
            connection: Connection::Connecting,
            refusal: None,
            node: None,
            tiles: 0,
            rows: 0,
            operations: 0,
            kernel_ms: 0.0,
            busy_ms: 0.0,
            mflops: 0.0,
            last: None,
            active_slots: 0,
            slots: self.record.slots,
            paused: false,
        }
    }

    /// The jobs of the mesh, as the own node last told, newest first.
    pub fn jobs(&self) -> Vec<JobStatus> {
        Vec::new()
    }

    /// The devices of the mesh, as the own node last told, this page included.
    pub fn devices(&self) -> Vec<DeviceRecord> {
        vec![self.record.clone()]
    }

    /// What this page says of itself.
    pub fn record(&self) -> &DeviceRecord {
        &self.record
    }
}
