//! A tile of a job is accepted once by each coordinator: later results are dropped.

use std::collections::{BTreeMap, BTreeSet};

use gemmesh_protocol::id::{Epoch, JobId};
use gemmesh_protocol::io::Output;

use super::super::Sim;
use super::super::disk::Write;
use super::{Invariant, Step, coordinates};

/// See the module.
#[derive(Debug, Default)]
pub struct AcceptedOnce {
    /// Tiles being written or durable, for each coordinator.
    accepted: BTreeMap<(usize, JobId, Epoch), BTreeSet<u32>>,
}

impl Invariant for AcceptedOnce {
    fn name(&self) -> &'static str {
        "a tile is accepted once"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        match step {
            Step::Output(host, Output::Persist { job, done, .. }) => {
                if let Some(epoch) = coordinates(sim, *host, *job) {
                    let accepted = self.accepted.entry((*host, *job, epoch)).or_default();
                    if !accepted.insert(done.tile) {
                        let name = sim.job_name(*job);
                        return Err(format!(
                            "n{host} accepts tile {} of {name} again",
                            done.tile
                        ));
                    }
                }
            }
            Step::Written(host, applied) if !applied.durable => {
                if let Write::Tile { job, done, .. } = &applied.write {
                    for (_, accepted) in self
                        .accepted
                        .range_mut((*host, *job, LOWEST)..)
                        .take_while(|((of, id, _), _)| (of, id) == (host, job))
                    {
                        accepted.remove(&done.tile);
                    }
                }
            }
            // What was not durable is gone, and may come again.
            Step::Stopped(host) => self.accepted.retain(|(of, _, _), _| of != host),
            _ => {}
        }
        Ok(())
    }
}

const LOWEST: Epoch = Epoch {
    counter: 0,
    device: gemmesh_protocol::id::DeviceId([0; 32]),
};
