//! What a coordinator says of its job makes sense.

use gemmesh_protocol::status::JobState;

use super::super::Sim;
use super::{Invariant, Step, told};

/// See the module.
#[derive(Debug)]
pub struct StatusAddsUp;

impl Invariant for StatusAddsUp {
    fn name(&self) -> &'static str {
        "the status adds up"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        let Some((host, jobs)) = told(sim, step) else {
            return Ok(());
        };
        for status in jobs {
            let (done, total) = (status.tiles_done, status.tiles_total);
            let name = sim.job_name(status.job);
            if done > total || status.tiles_safe > done {
                let safe = status.tiles_safe;
                return Err(format!(
                    "n{host} says {safe} of {done} of {total} tiles of {name}"
                ));
            }
            if status.state == JobState::Done {
                let parts = status.contributions.iter();
                let operations: u64 = parts.map(|part| part.operations).sum();
                let wanted = sim.jobs[&status.job].header.operations();
                if done != total || u128::from(operations) != wanted {
                    return Err(format!(
                        "n{host} says {name} is done, with {done} of {total} tiles and \
                         {operations} of {wanted} operations"
                    ));
                }
                if status.result.is_none() {
                    return Err(format!("n{host} says {name} is done, without a result"));
                }
            }
        }
        Ok(())
    }
}
