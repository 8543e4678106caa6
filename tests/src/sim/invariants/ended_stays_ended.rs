//! A job that has ended on a node stays ended there; one whose time is over does not come back.

use gemmesh_protocol::io::Output;
use gemmesh_protocol::message::Message;

use super::super::Sim;
use super::{Invariant, Step};

/// See the module.
#[derive(Debug)]
pub struct EndedStaysEnded;

impl Invariant for EndedStaysEnded {
    fn name(&self) -> &'static str {
        "ended stays ended"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        let Step::Output(host, output) = step else {
            return Ok(());
        };
        let (job, what) = match output {
            Output::Claim { header, .. } => (header.job, "claims"),
            Output::Persist { job, .. } => (*job, "accepts a tile of"),
            Output::Finish { job } => (*job, "finishes"),
            Output::CopyMatrix { job, .. } => (*job, "copies a matrix of"),
            Output::Record { job, .. } => (*job, "records"),
            Output::Send { header, .. } if header.from == sim.hosts[*host].device => {
                match &header.body {
                    Message::Grants { job, grants, .. } if !grants.is_empty() => {
                        (*job, "leases tiles of")
                    }
                    _ => return Ok(()),
                }
            }
            _ => return Ok(()),
        };
        let disk = &sim.hosts[*host].disk;
        let name = sim.job_name(job);
        if disk.tombstones.contains(&job) {
            return Err(format!("n{host} {what} {name}, whose time is over"));
        }
        let ended = disk.rows.get(&job).and_then(|row| row.ended.as_ref());
        match (ended, output) {
            // A later epoch may say how it ended, and what is missing of a result be copied.
            (None, _) | (Some(_), Output::Record { .. } | Output::CopyMatrix { .. }) => Ok(()),
            (Some(status), _) => Err(format!(
                "n{host} {what} {name}, which is {:?}",
                status.state
            )),
        }
    }
}
