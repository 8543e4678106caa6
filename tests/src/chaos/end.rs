//! After the faults: every acknowledged job is done at every node, with the right result.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cases::Cases;
use super::load::Accepted;
use super::room::NAMES;
use crate::node::Api;
use crate::wait::within;

/// Once everything is mended and nobody submits any more, all jobs have ended within this.
const END_LIMIT: Duration = Duration::from_secs(300);
/// One question.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Between two questions that had no answer.
const PAUSE: Duration = Duration::from_millis(100);

/// How the jobs ended.
#[derive(Debug, Default)]
pub struct Ends {
    /// The status of each job that is done at all nodes, in the order of acknowledgement.
    pub done: Vec<Value>,
    /// Jobs that are not, and how they stand where.
    pub lost: Vec<String>,
    /// Jobs with a wrong result, or one that is missing somewhere, and where.
    pub wrong: Vec<String>,
}

/// Asks the nodes `nodes` for each job and each result.
pub fn judge(
    accepted: &[Accepted],
    cases: &Cases,
    apis: &[Api],
    nodes: &[usize],
    progress: impl Fn(usize),
) -> Ends {
    let deadline = Instant::now() + END_LIMIT;
    let mut ends = Ends::default();
    for (at, job) in accepted.iter().enumerate() {
        progress(at);
        let statuses = everywhere(nodes, |node| await_done(&apis[node], &job.job, deadline));
        let failures: Vec<String> = nodes
            .iter()
            .zip(&statuses)
            .filter_map(|(node, status)| {
                let why = status.as_ref().err()?;
                Some(format!("at {}: {why}", NAMES[*node]))
            })
            .collect();
        let id = &job.job;
        if !failures.is_empty() {
            ends.lost.push(format!("job {id}, {}", failures.join("; ")));
            continue;
        }
        if let Some(fault) = result_fault(job, cases, apis, nodes, deadline) {
            ends.wrong
                .push(format!("job {id} ({:?}): {fault}", job.product.class));
        }
        let first = statuses.into_iter().flatten().next();
        ends.done.extend(first);
    }
    ends
}

/// The status of a job that is done.
fn await_done(api: &Api, job: &str, deadline: Instant) -> Result<Value, String> {
    let path = format!("/api/jobs/{job}?wait=10");
    let ended = within(left(deadline), PAUSE, || {
        let reply = api.within(ANSWER_LIMIT).try_get(&path)?;
        if reply.status != 200 {
            return Err(reply.text());
        }
        let status = reply.json();
        match status["state"].as_str() {
            Some("done") => Ok(Ok(status)),
            Some("failed" | "cancelled") => Ok(Err(status.to_string())),
            _ => Err(status.to_string()),
        }
    });
    ended.flatten()
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn result_fault(
    job: &Accepted,
    cases: &Cases,
    apis: &[Api],
    nodes: &[usize],
    deadline: Instant,
) -> Option<String> {
    let path = format!(
        "/api/jobs/{}/result?format={}",
        job.job,
        Cases::format(job.product)
    );
    let results = everywhere(nodes, |node| {
        within(left(deadline), PAUSE, || {
            let reply = apis[node].within(ANSWER_LIMIT).try_get(&path)?;
            let here = reply.status == 200;
            here.then(|| reply.body.clone()).ok_or_else(|| reply.text())
        })
    });
    for (node, result) in nodes.iter().zip(&results) {
        if let Err(why) = result {
            return Some(format!("no result at {}: {why}", NAMES[*node]));
        }
    }
    let results: BTreeSet<Vec<u8>> = results.into_iter().flatten().collect();
    if results.len() != 1 {
        return Some(format!("{} different results", results.len()));
    }
    results
        .iter()
        .find_map(|result| cases.fault(job.product, result))
}

/// The same at all these nodes at once, in their order.
fn everywhere<T: Send>(nodes: &[usize], ask: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .map(|&node| {
                scope.spawn({
                    let ask = &ask;
                    move || ask(node)
                })
            })
            .collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined
            .map(|answer| answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
