//! What a coordinator accepts is the product; so is what is there of a job that is done.

use gemmesh_protocol::status::JobState;

use super::super::Sim;
use super::super::disk::Write;
use super::{Invariant, Step, coordinates};

/// See the module.
#[derive(Debug)]
pub struct RightBytes;

impl Invariant for RightBytes {
    fn name(&self) -> &'static str {
        "accepted bytes are right"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        let Step::Written(host, applied) = step else {
            return Ok(());
        };
        let job = applied.write.job();
        let truth = &sim.jobs[&job];
        let class = truth.header.class;
        match &applied.write {
            Write::Tile { done, bytes, .. } if applied.durable => {
                let right = bytes.is_right(job, done.tile, class);
                if !right && coordinates(sim, *host, job).is_some() {
                    let (tile, name) = (done.tile, &truth.name);
                    return Err(format!("n{host} accepts a wrong tile {tile} of {name}"));
                }
            }
            Write::Ended { status } if status.state == JobState::Done => {
                let row = sim.hosts[*host].disk.rows.get(&job);
                let wrong = row.into_iter().flat_map(|row| &row.held);
                let mut wrong =
                    wrong.filter(|(tile, held)| !held.bytes.is_right(job, **tile, class));
                if let Some((tile, _)) = wrong.next() {
                    let name = &truth.name;
                    return Err(format!("n{host} ends {name} with a wrong tile {tile}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
