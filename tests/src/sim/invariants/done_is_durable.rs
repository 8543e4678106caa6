//! A tile is done, for whoever hears of it, only when its bytes are durable on the coordinator.

use gemmesh_protocol::io::Output;
use gemmesh_protocol::message::Message;
use gemmesh_protocol::replication::Entry;

use super::super::Sim;
use super::{Invariant, Step, told};

/// See the module.
#[derive(Debug)]
pub struct DoneIsDurable;

impl Invariant for DoneIsDurable {
    fn name(&self) -> &'static str {
        "done is durable"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        if let Some((host, jobs)) = told(sim, step) {
            for status in jobs {
                // The counts of ended jobs stay as they were, also when their tiles are removed.
                let row = sim.hosts[host].disk.rows.get(&status.job);
                let own = status.coordinator == sim.hosts[host].device;
                let Some(row) = row.filter(|_| own && !status.state.has_ended()) else {
                    continue;
                };
                let held = row.held.len() as u64;
                if status.tiles_done > held {
                    let (name, done) = (sim.job_name(status.job), status.tiles_done);
                    return Err(format!(
                        "n{host} says {done} tiles of {name}, and has {held}"
                    ));
                }
            }
        }
        let Step::Output(host, Output::Send { header, .. }) = step else {
            return Ok(());
        };
        if header.from != sim.hosts[*host].device {
            return Ok(());
        }
        let rows = &sim.hosts[*host].disk.rows;
        match &header.body {
            Message::Append { job, entries, .. } => {
                for entry in entries {
                    let Entry::Done { stored, .. } = entry else {
                        continue;
                    };
                    let tile = stored.done.tile;
                    let row = rows.get(job);
                    // Of a job that failed the tiles are removed.
                    if row.is_some_and(|row| row.ended.is_some()) {
                        continue;
                    }
                    let held = row.and_then(|row| row.held.get(&tile));
                    if held.is_none_or(|held| held.stored.digest != stored.digest) {
                        let name = sim.job_name(*job);
                        return Err(format!("n{host} records tile {tile} of {name} too early"));
                    }
                }
            }
            Message::Verdict {
                job,
                tile,
                accepted: true,
                ..
            } => {
                let held = rows.get(job).is_some_and(|row| row.held.contains_key(tile));
                let name = sim.job_name(*job);
                if !held && rows.contains_key(job) {
                    return Err(format!("n{host} confirms tile {tile} of {name} too early"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
