//! A safe tile is never computed again while one of its holders lives and can be reached.

use std::collections::{BTreeMap, BTreeSet};

use gemmesh_protocol::id::{JobId, LeaseId};
use gemmesh_protocol::io::Output;
use gemmesh_protocol::message::{Grant, Message};

use super::super::disk::Write;
use super::super::{REPLICATION, Sim};
use super::{Invariant, Step};

/// See the module.
#[derive(Debug, Default)]
pub struct SafeIsNotRepeated {
    /// When each coordinator's claim was durable, and the tiles that its log had then.
    claims: BTreeMap<(usize, JobId), (u64, BTreeSet<u32>)>,
    /// When each node last made a tile durable.
    written: BTreeMap<(usize, JobId, u32), u64>,
    /// Own leases that were looked at.
    seen: BTreeSet<(usize, LeaseId)>,
}

/// How long word of a tile may take to its coordinator on a link that nothing is wrong with.
const WORD: u64 = 500_000;

impl Invariant for SafeIsNotRepeated {
    fn name(&self) -> &'static str {
        "safe tiles are not computed again"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        match step {
            Step::Written(host, applied) if applied.durable => {
                match &applied.write {
                    Write::Claim { job, .. } => {
                        let row = &sim.hosts[*host].disk.rows[job];
                        let recorded = row.recorded.keys().copied().collect();
                        self.claims.insert((*host, *job), (sim.now, recorded));
                    }
                    Write::Tile { job, done, .. } => {
                        self.written.insert((*host, *job, done.tile), sim.now);
                    }
                    _ => {}
                }
                Ok(())
            }
            Step::Output(host, Output::Send { header, .. }) => match &header.body {
                Message::Grants { job, grants, .. } if header.from == sim.hosts[*host].device => {
                    let mut grants = grants.iter();
                    grants.try_for_each(|grant| self.granted(sim, *host, *job, grant))
                }
                _ => Ok(()),
            },
            Step::Output(host, Output::Compute(task)) => {
                let own = task.epoch.device == sim.hosts[*host].device;
                if task.first && own && self.seen.insert((*host, task.grant.lease)) {
                    return self.granted(sim, *host, task.job, &task.grant);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl SafeIsNotRepeated {
    fn granted(&self, sim: &Sim, host: usize, job: JobId, grant: &Grant) -> Result<(), String> {
        let me = &sim.hosts[host];
        let Some(row) = me.disk.rows.get(&job) else {
            return Ok(());
        };
        let tile = grant.tile;
        let name = sim.job_name(job);
        let recorded = row.recorded.get(&tile).map(|(stored, _)| stored.digest);
        if let Some(held) = row.held.get(&tile) {
            // What differs from the record, or can not be read, does not count.
            let counts = recorded.is_none_or(|digest| digest == held.stored.digest);
            let first = row.epoch.counter == 1;
            if counts && !held.bad && (first || recorded.is_some()) {
                return Err(format!(
                    "n{host} leases tile {tile} of {name}, which it has"
                ));
            }
        }
        let Some((claimed, log)) = self.claims.get(&(host, job)).filter(|_| REPLICATION) else {
            return Ok(());
        };
        if !log.contains(&tile) {
            return Ok(());
        }
        for (other, state) in sim.hosts.iter().enumerate() {
            let held = state
                .disk
                .rows
                .get(&job)
                .and_then(|row| row.held.get(&tile));
            let has = held.is_some_and(|held| !held.bad && Some(held.stored.digest) == recorded);
            // Word of what it has just computed itself is still on its way.
            let own = held.is_some_and(|held| held.stored.done.device == state.device);
            let written = self.written.get(&(other, job, tile));
            let told = !own || written.is_none_or(|at| at + WORD < sim.now);
            // It was there all the time, well before the new coordinator looked for tiles.
            let there = state.is_on() && state.power_since + 2_000_000 < *claimed;
            let near = sim.linked_since(host, other);
            let near = near.is_some_and(|since| since + 2_000_000 < *claimed);
            let clear = [(host, other), (other, host)].iter().all(|(a, b)| {
                let path = sim.path_of(*a, *b);
                path.loss == 0 && path.jitter == 0
            });
            let honest = !state.spec.liar && !state.disk.full && state.slowness == 1;
            if other != host && has && told && there && near && clear && honest {
                return Err(format!(
                    "n{host} leases tile {tile} of {name}, which n{other} has"
                ));
            }
        }
        Ok(())
    }
}
