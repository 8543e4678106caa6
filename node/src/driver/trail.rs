//! What happens to each tile of each job, one line each at level `debug`: leased, durable here, recorded here.
//! From the lines of all nodes it can be told whether a tile was computed although it was safe.

use std::collections::BTreeSet;

use gemmesh_protocol::replication::Entry;

use super::*;

/// The nodes that this one was linked with, and what was written down of logs but is not durable yet.
#[derive(Debug, Default)]
pub(super) struct Trail {
    linked: BTreeSet<DeviceId>,
    /// Of each job and end of a log: the tiles that are recorded there, and their hashes.
    writing: BTreeMap<(JobId, u64, u64), Vec<(u32, BlockId)>>,
}

fn wanted() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

impl Trail {
    /// An output is about to be carried out by the node `me`.
    pub(super) fn output(&mut self, me: DeviceId, output: &Output<Bytes>) {
        if !wanted() {
            return;
        }
        match output {
            Output::Send { header, .. } if header.from == me => {
                if let Message::Grants { job, epoch, grants } = &header.body {
                    for grant in grants {
                        leased(*job, epoch.counter, grant.tile, header.to);
                    }
                }
            }
            Output::Compute(task) if task.first && task.epoch.device == me => {
                leased(task.job, task.epoch.counter, task.grant.tile, me);
            }
            Output::Record {
                job,
                epoch,
                sequence,
                entries,
            } => {
                let tiles = entries.iter().filter_map(|entry| match entry {
                    Entry::Done { stored, .. } => Some((stored.done.tile, stored.digest)),
                    _ => None,
                });
                let tiles: Vec<_> = tiles.collect();
                if !tiles.is_empty() {
                    let end = (*job, epoch.counter, *sequence);
                    self.writing.insert(end, tiles);
                }
            }
            Output::Drop { job, .. } => {
                tracing::debug!(%job, "dropped");
                self.writing.retain(|(other, ..), _| other != job);
            }
            _ => {}
        }
    }

    /// A tile is durable here.
    pub(super) fn durable(&self, job: JobId, tile: u32, digest: BlockId) {
        tracing::debug!(%job, tile, %digest, "a tile is durable here");
    }

    /// The log of a job is durable here up to an end.
    pub(super) fn recorded(&mut self, job: JobId, epoch: u64, sequence: u64) {
        for (tile, digest) in self
            .writing
            .remove(&(job, epoch, sequence))
            .unwrap_or_default()
        {
            tracing::debug!(%job, epoch, tile, %digest, "a tile is recorded here");
        }
    }

    /// These nodes are linked.
    pub(super) fn linked(&mut self, devices: impl Iterator<Item = DeviceId>) {
        if !wanted() {
            return;
        }
        let now: BTreeSet<DeviceId> = devices.collect();
        for device in now.difference(&self.linked) {
            tracing::debug!(%device, "linked");
        }
        for device in self.linked.difference(&now) {
            tracing::debug!(%device, "not linked");
        }
        self.linked = now;
    }
}

fn leased(job: JobId, epoch: u64, tile: u32, to: DeviceId) {
    tracing::debug!(%job, epoch, tile, %to, "a tile is leased");
}
