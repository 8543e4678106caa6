//! The engine of a node: membership, the jobs it coordinates and its own worker, composed.

use std::collections::VecDeque;

use crate::id::JobId;
use crate::io::{Config, Input, Output};
use crate::job::JobHeader;
use crate::message::DeviceRecord;
use crate::status::{DeviceEntry, JobStatus};
use crate::time::Instant;

/// A node's part of the protocol, as a function of inputs, time and seed.
///
/// Calling order: [`Engine::handle`] one input, then [`Engine::poll_output`] until it is empty, then
/// wait for the next input or until [`Engine::poll_timeout`], whichever is first (then
/// [`Input::Tick`]).
#[derive(Debug)]
pub struct Engine<P> {
    record: DeviceRecord,
    outputs: VecDeque<Output<P>>,
}

impl<P: Clone> Engine<P> {
    /// A device that has just started.
    pub fn new(config: Config, _now: Instant) -> Self {
        Self {
            record: config.record,
            outputs: VecDeque::new(),
        }
    }

    /// Something happened.
    pub fn handle(&mut self, _input: Input<P>, _now: Instant) {}

    /// What to do next; `None` when all is done.
    pub fn poll_output(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    /// When to call [`Engine::handle`] with [`Input::Tick`] if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The status of a job, own or of another node.
    pub fn job_status(&self, _job: JobId, _now: Instant) -> Option<JobStatus> {
        None
    }

    /// The status of every job known, own and of other nodes, newest first.
    pub fn jobs(&self, _now: Instant) -> Vec<JobStatus> {
        Vec::new()
    }

    /// Whether this node took the job.
    pub fn coordinates(&self, _job: JobId) -> bool {
        false
    }

    /// The header of a job that runs here; `None` once it has ended.
    pub fn header(&self, _job: JobId) -> Option<&JobHeader> {
        None
    }

    /// Every device of the mesh, this one first, lost ones for a minute.
    pub fn devices(&self) -> Vec<DeviceEntry> {
        Vec::new()
    }

    /// The records of the other nodes that are connected.
    pub fn peers(&self) -> impl Iterator<Item = &DeviceRecord> {
        std::iter::empty()
    }

    /// What this device says of itself.
    pub fn record(&self) -> &DeviceRecord {
        &self.record
    }
}
