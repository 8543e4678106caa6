//! When the mesh was whole for a while, a job has one coordinator.

use super::super::Sim;
use super::{Invariant, Step};

/// How long the mesh may take to agree.
const SETTLED: u64 = 60_000_000;

/// See the module.
#[derive(Debug)]
pub struct OneCoordinator;

impl Invariant for OneCoordinator {
    fn name(&self) -> &'static str {
        "one coordinator"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        let Step::Calm(time) = step else {
            return Ok(());
        };
        for (job, truth) in &sim.jobs {
            let hosts: Vec<usize> = sim.coordinators(*job).collect();
            if hosts.len() > 1 && *time > SETTLED {
                return Err(format!("{} is coordinated by {hosts:?}", truth.name));
            }
        }
        Ok(())
    }
}
