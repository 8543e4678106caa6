//! When nothing is broken any more, every acknowledged job ends as it should: done, unless somebody
//! cancelled it or a disk had trouble.

use gemmesh_protocol::status::JobState;

use super::super::disk::Row;
use super::super::{Host, REPLICATION, Sim};
use super::{Invariant, Step};

/// See the module.
#[derive(Debug)]
pub struct EveryJobEnds;

impl Invariant for EveryJobEnds {
    fn name(&self) -> &'static str {
        "every job ends"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        if !matches!(step, Step::End) {
            return Ok(());
        }
        for (job, truth) in &sim.jobs {
            let gone = !REPLICATION && !sim.hosts[truth.host].is_on();
            if truth.acknowledged.is_none() || gone || truth.expired {
                continue;
            }
            let rows: Vec<Option<&Row>> = (sim.hosts.iter())
                .map(|host| host.disk.rows.get(job))
                .collect();
            let ends: Vec<Option<JobState>> = rows
                .iter()
                .map(|row| Some((*row)?.ended.as_ref()?.state))
                .collect();
            let on = sim.hosts.iter().zip(&ends).filter(|(host, _)| host.is_on());
            let live: Vec<JobState> = on.filter_map(|(_, end)| *end).collect();
            let Some(&state) = live.first() else {
                return Err(format!(
                    "{} has not ended: {}",
                    truth.name,
                    standing(sim, truth)
                ));
            };
            if live.iter().any(|other| *other != state) {
                return Err(format!("{} ended in different ways: {ends:?}", truth.name));
            }
            let unended = |(host, row): (&Host, &Option<&Row>)| {
                host.is_on() && row.is_some_and(|row| row.ended.is_none())
            };
            if let Some(host) = sim.hosts.iter().zip(&rows).position(unended) {
                return Err(format!(
                    "n{host} does not know that {} has ended: {}",
                    truth.name,
                    standing(sim, truth)
                ));
            }
            let fits = match state {
                JobState::Done => true,
                JobState::Cancelled => truth.cancelled,
                JobState::Failed => truth.may_fail || lost_by_many(sim, job),
                JobState::Queued | JobState::Running => false,
            };
            if !fits {
                return Err(format!(
                    "{} is {state:?}: {}",
                    truth.name,
                    standing(sim, truth)
                ));
            }
        }
        Ok(())
    }
}

/// A tile that devices die of, or fail, again and again is a reason to give up.
fn lost_by_many(sim: &Sim, job: &gemmesh_protocol::id::JobId) -> bool {
    let rows = sim.hosts.iter().filter_map(|host| host.disk.rows.get(job));
    let mut errors = rows.filter_map(|row| row.ended.as_ref()?.error.clone());
    errors.any(|error| error.contains("tile"))
}

fn standing(sim: &Sim, truth: &super::super::truth::Truth) -> String {
    let job = truth.header.job;
    let of = |(at, host): (usize, &Host)| {
        let row = host.disk.rows.get(&job)?;
        let role = if row.coordinated {
            "coordinator"
        } else {
            "backup"
        };
        let end = row
            .ended
            .as_ref()
            .map(|status| (status.state, status.error.clone()));
        Some(format!(
            "n{at} ({:?}) {role} epoch {} with {} tiles, ended {end:?}",
            host.power,
            row.epoch.counter,
            row.held.len(),
        ))
    };
    let hosts: Vec<String> = sim.hosts.iter().enumerate().filter_map(of).collect();
    hosts.join("; ")
}
