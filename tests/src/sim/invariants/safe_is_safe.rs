//! A tile is called safe only when it is durable on two nodes and recorded on a backup; a backup is
//! counted only when it has what it needs to continue.

use gemmesh_protocol::id::JobId;

use super::super::disk::Row;
use super::super::{Host, Sim};
use super::{Invariant, Step, told};

/// See the module.
#[derive(Debug)]
pub struct SafeIsSafe;

impl Invariant for SafeIsSafe {
    fn name(&self) -> &'static str {
        "safe is safe"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        let Some((host, jobs)) = told(sim, step) else {
            return Ok(());
        };
        for status in jobs {
            let job = status.job;
            let counts = status.tiles_safe + u64::from(status.safe_copies);
            if counts == 0 || status.coordinator != sim.hosts[host].device {
                continue;
            }
            let rows = || sim.hosts.iter().filter_map(|host| host.disk.rows.get(&job));
            let Some(own) = sim.hosts[host].disk.rows.get(&job) else {
                continue;
            };
            // A coordinator of the past does not know better.
            let highest = rows().map(|row| row.epoch).max();
            if status.state.has_ended() || highest != Some(own.epoch) {
                continue;
            }
            let others: Vec<_> = sim
                .hosts
                .iter()
                .filter(|other| other.device != sim.hosts[host].device)
                .collect();
            let safe = own.held.iter().filter(|(tile, held)| {
                let of = || others.iter().filter_map(|other| part(other, job));
                let holds = |row: &Row| {
                    let theirs = row.held.get(tile);
                    theirs.is_some_and(|theirs| theirs.stored.digest == held.stored.digest)
                        || row.removed.contains(tile)
                        // Where the job has ended its tiles are let go of; word of it is under way.
                        || row.ended.is_some()
                };
                of().any(holds) && of().any(|row| row.recorded.contains_key(tile))
            });
            let (safe, name) = (safe.count() as u64, sim.job_name(job));
            if status.tiles_safe > safe {
                return Err(format!(
                    "n{host} calls {} tiles of {name} safe, and {safe} are",
                    status.tiles_safe
                ));
            }
            let able = others.iter().filter(|other| {
                let gone = other.disk.dropped.get(&job).is_some_and(|gone| gone.1);
                gone || other.disk.has_operands(job)
            });
            let able = able.count();
            if usize::from(status.safe_copies) > able {
                return Err(format!(
                    "n{host} counts {} backups of {name}, and {able} could continue it",
                    status.safe_copies
                ));
            }
        }
        Ok(())
    }
}

/// What a node has of a job, or had when others last heard of it.
fn part(host: &Host, job: JobId) -> Option<&Row> {
    let row = host.disk.rows.get(&job);
    row.or_else(|| host.disk.dropped.get(&job).map(|gone| &gone.0))
}
