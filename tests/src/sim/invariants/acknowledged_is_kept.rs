//! A submission that was acknowledged is on some disk until it has ended.

use super::super::Sim;
use super::super::disk::Write;
use super::{Invariant, Step};

/// See the module.
#[derive(Debug)]
pub struct AcknowledgedIsKept;

impl Invariant for AcknowledgedIsKept {
    fn name(&self) -> &'static str {
        "an acknowledged job is kept"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        let Step::Written(host, applied) = step else {
            return Ok(());
        };
        let (Write::Drop { job } | Write::Forget { job }) = &applied.write else {
            return Ok(());
        };
        let truth = &sim.jobs[job];
        let kept = sim
            .hosts
            .iter()
            .any(|host| host.disk.rows.contains_key(job));
        if truth.acknowledged.is_some() && truth.ended.is_none() && !kept {
            return Err(format!("n{host} drops the last copy of {}", truth.name));
        }
        Ok(())
    }
}
