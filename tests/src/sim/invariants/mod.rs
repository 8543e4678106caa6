//! What must hold, one file each; looked at after every step.

mod accepted_once;
mod acknowledged_is_kept;
mod done_is_durable;
mod ended_stays_ended;
mod epochs_only_rise;
mod every_job_ends;
mod honest_are_not_blamed;
mod one_coordinator;
mod results_are_kept;
mod right_bytes;
mod safe_is_not_repeated;
mod safe_is_safe;
mod status_adds_up;

use std::fmt::Debug;

use gemmesh_protocol::id::{Epoch, JobId};
use gemmesh_protocol::io::{Input, Output};
use gemmesh_protocol::message::Message;
use gemmesh_protocol::status::JobStatus;

pub(super) use results_are_kept::is_kept;

use super::Sim;
use super::disk::{Applied, Write};
use super::payload::Payload;

/// What just happened, or is about to.
#[derive(Debug)]
pub enum Step<'a> {
    /// A host's engine is given an input.
    Input(usize, &'a Input<Payload>),
    /// A host's engine asks for something.
    Output(usize, &'a Output<Payload>),
    /// A host's disk wrote, or refused to.
    Written(usize, &'a Applied),
    /// A host's process is gone.
    Stopped(usize),
    /// A host's process starts.
    Started(usize),
    /// Nothing was broken for this many microseconds.
    Calm(u64),
    /// The simulation is over.
    End,
}

/// Something that holds after every step.
pub trait Invariant: Debug {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Looks at one step.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String>;
}

pub(super) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(accepted_once::AcceptedOnce::default()),
        Box::new(acknowledged_is_kept::AcknowledgedIsKept),
        Box::new(done_is_durable::DoneIsDurable),
        Box::new(ended_stays_ended::EndedStaysEnded),
        Box::new(epochs_only_rise::EpochsOnlyRise),
        Box::new(every_job_ends::EveryJobEnds),
        Box::new(honest_are_not_blamed::HonestAreNotBlamed),
        Box::new(one_coordinator::OneCoordinator),
        Box::new(results_are_kept::ResultsAreKept),
        Box::new(right_bytes::RightBytes),
        Box::new(safe_is_not_repeated::SafeIsNotRepeated::default()),
        Box::new(safe_is_safe::SafeIsSafe),
        Box::new(status_adds_up::StatusAddsUp),
    ]
}

/// The epoch under which a host coordinates a job, as it last told its disk.
fn coordinates(sim: &Sim, host: usize, job: JobId) -> Option<Epoch> {
    let state = &sim.hosts[host];
    let row = state.disk.rows.get(&job);
    let mut role = row.filter(|row| row.coordinated).map(|row| row.epoch);
    for write in state.disk.pending() {
        match write {
            Write::Claim { job: of, epoch } if *of == job => role = Some(*epoch),
            Write::Record { job: of, epoch, .. } if *of == job => {
                role = role.filter(|_| epoch.device == state.device);
            }
            _ => {}
        }
    }
    role
}

/// Statuses that a host sends of jobs which it coordinates.
fn told<'a>(sim: &Sim, step: &Step<'a>) -> Option<(usize, &'a [JobStatus])> {
    let Step::Output(host, Output::Send { header, .. }) = step else {
        return None;
    };
    let own = header.from == sim.hosts[*host].device;
    match &header.body {
        Message::Jobs { jobs } if own => Some((*host, jobs)),
        _ => None,
    }
}
