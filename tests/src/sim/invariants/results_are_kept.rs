//! A job is done when its result can be read from the coordinator's disk; and in the end from the
//! disks of its backups, too.

use gemmesh_protocol::id::JobId;
use gemmesh_protocol::status::JobState;

use super::super::disk::Write;
use super::super::{Host, REPLICATION, Sim};
use super::{Invariant, Step};

/// See the module.
#[derive(Debug)]
pub struct ResultsAreKept;

impl Invariant for ResultsAreKept {
    fn name(&self) -> &'static str {
        "results are kept"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        match step {
            Step::Written(host, applied) => {
                let Write::Ended { status } = &applied.write else {
                    return Ok(());
                };
                let row = sim.hosts[*host].disk.rows.get(&status.job);
                let truth = &sim.jobs[&status.job];
                let missing = row.is_some_and(|row| row.result.is_none());
                if status.state == JobState::Done && missing && !truth.may_fail {
                    return Err(format!("n{host} has not the result of {}", truth.name));
                }
            }
            Step::End => {
                for (job, truth) in &sim.jobs {
                    if !is_kept(sim, *job) {
                        return Err(format!("only one node has the result of {}", truth.name));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether the result of a job that is done is on two nodes, where there are two.
pub(in super::super) fn is_kept(sim: &Sim, job: JobId) -> bool {
    let truth = &sim.jobs[&job];
    let of = sim.hosts.iter().filter_map(|host| host.disk.rows.get(&job));
    let done = of.filter(|row| {
        let ended = row.ended.as_ref();
        ended.is_some_and(|status| status.state == JobState::Done)
    });
    let count = done.clone().count();
    let whole = done.filter(|row| row.is_whole()).count();
    // Who speaks another version is alone with what it has.
    let version = sim.hosts[truth.host].spec.version;
    let speaks = |host: &&Host| host.is_on() && host.is_node() && host.spec.version == version;
    let wanted = sim.hosts.iter().filter(speaks).count().min(2);
    !REPLICATION || count == 0 || whole >= wanted || truth.may_fail || truth.expired
}
