//! Who has persisted a higher epoch does not act on a lower one, and an epoch is persisted before
//! its coordinator uses it.

use gemmesh_protocol::io::Output;
use gemmesh_protocol::message::Message;

use super::super::Sim;
use super::super::disk::Write;
use super::{Invariant, Step};

/// See the module.
#[derive(Debug)]
pub struct EpochsOnlyRise;

impl Invariant for EpochsOnlyRise {
    fn name(&self) -> &'static str {
        "epochs only rise"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        let Step::Output(host, output) = step else {
            return Ok(());
        };
        let me = &sim.hosts[*host];
        match output {
            Output::Send { header, .. } if header.from == me.device => {
                let (job, epoch) = match &header.body {
                    Message::Open { job, epoch, .. }
                    | Message::Grants { job, epoch, .. }
                    | Message::Append { job, epoch, .. } => (job, epoch),
                    // Others are told of a higher epoch, whoever has it.
                    Message::Claim { job, epoch } if epoch.device == me.device => (job, epoch),
                    _ => return Ok(()),
                };
                let name = sim.job_name(*job);
                if epoch.device != me.device {
                    return Err(format!("n{host} coordinates {name} as another"));
                }
                match me.disk.rows.get(job) {
                    Some(row) if row.epoch != *epoch => Err(format!(
                        "n{host} acts for {name} as epoch {}, and has persisted {} of {}",
                        epoch.counter,
                        row.epoch.counter,
                        if row.epoch.device == me.device {
                            "its own"
                        } else {
                            "another"
                        },
                    )),
                    None if !me.disk.tombstones.contains(job) => {
                        Err(format!("n{host} acts for {name}, which it does not have"))
                    }
                    _ => Ok(()),
                }
            }
            Output::Claim { header, epoch } => {
                let row = me.disk.rows.get(&header.job);
                let name = sim.job_name(header.job);
                if row.is_some_and(|row| *epoch <= row.epoch) || epoch.device != me.device {
                    return Err(format!(
                        "n{host} claims {name} with an epoch that is not higher"
                    ));
                }
                Ok(())
            }
            Output::Record { job, epoch, .. } => {
                let row = me.disk.rows.get(job).map(|row| row.epoch);
                // Who has dropped a job begins anew with it.
                let dropped = |write: &Write| matches!(write, Write::Drop { .. });
                let mut writes = me.disk.pending();
                if writes.any(|write| write.job() == *job && dropped(write)) {
                    return Ok(());
                }
                let pending = me.disk.pending().filter_map(|write| match write {
                    Write::Record { job: of, epoch, .. } | Write::Claim { job: of, epoch }
                        if of == job =>
                    {
                        Some(*epoch)
                    }
                    _ => None,
                });
                match row.into_iter().chain(pending).max() {
                    Some(seen) if *epoch < seen => {
                        let name = sim.job_name(*job);
                        Err(format!("n{host} records a log of {name} that is over"))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
