//! One coordinator dies in the middle of a job.

use std::fmt;
use std::time::{Duration, Instant};

use gemmesh_tests::node::Node;
use gemmesh_tests::wait::within;
use serde_json::{Value, json};

use crate::mesh::Mesh;
use crate::product::Product;

/// How often the logs of the others, and the status before, are looked at.
const PAUSE: Duration = Duration::from_millis(2);
/// A job that was not taken over by then never is.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(60);
/// A job ends by then, or it is lost.
const JOB_LIMIT: Duration = Duration::from_secs(180);
/// What a node logs when it leases the first tile of a job that it took over.
const LEASED: &str = "the first tile is leased after the takeover";
/// Jobs that may pass the drawn moment unseen before it is said to be too short.
const ATTEMPTS: usize = 5;

/// What one kill did.
pub struct Kill {
    /// Tiles that were safe then, and all.
    safe: (u64, u64),
    /// From the kill to the first lease of another node.
    pub takeover: Option<Duration>,
    /// Safe tiles that were computed again.
    pub recomputed: u64,
    /// What is wrong with the result, or that there is none.
    pub wrong: Option<String>,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (safe, all) = self.safe;
        write!(f, "{safe} of {all} tiles safe; first tile leased after ")?;
        match self.takeover {
            Some(time) => write!(f, "{:.3} s", time.as_secs_f64())?,
            None => write!(f, "never")?,
        }
        write!(f, "; {} computed again; ", self.recomputed)?;
        match &self.wrong {
            None => write!(f, "result right"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}

/// Submits the product to a node, kills it when a `share` of the tiles is safe, looks at what comes of
/// it, and brings the node back. Each node has its turn.
///
/// # Panics
/// When the job is too short to be hit.
pub fn kill_one(mesh: &mut Mesh, number: usize, share: f64, product: &Product) -> Kill {
    let at = number % mesh.nodes.len();
    let (job, before) = (0..ATTEMPTS)
        .find_map(|_| {
            let job = product.submit(&mesh.nodes[at].api);
            await_safe(&mesh.nodes[at], &job, share).map(|status| (job, status))
        })
        .expect("a job that is long enough: take a larger edge");
    let logged: Vec<usize> = mesh.nodes.iter().map(|node| node.log().len()).collect();
    let killed = Instant::now();
    mesh.nodes[at].kill();
    let takeover = first_lease(mesh, at, &job, &logged, killed);

    let ended = mesh
        .others(at)
        .map(|node| ended(node, &job))
        .collect::<Vec<_>>();
    let recomputed = ended.iter().map(|status| repeated(status, &before));
    let recomputed = recomputed.max().unwrap_or(0);
    let lost = ended.iter().find(|status| status["state"] != "done");
    let wrong = match lost {
        Some(status) => Some(format!("it is {}: {}", status["state"], status["error"])),
        None => product.check(mesh.others(at), &job).err(),
    };
    mesh.restart(at);
    Kill {
        safe: (
            number_of(&before, "tiles_safe"),
            number_of(&before, "tiles_total"),
        ),
        takeover,
        recomputed,
        wrong,
    }
}

/// The status when a share of the tiles is safe and another node could go on; none when more than 70 %
/// are, or it has ended.
fn await_safe(node: &Node, job: &str, share: f64) -> Option<Value> {
    let moment = within(JOB_LIMIT, PAUSE, || {
        let status = node.api.job(job);
        let (safe, total) = (
            number_of(&status, "tiles_safe"),
            number_of(&status, "tiles_total"),
        );
        let part = safe as f64 / total as f64;
        if status["state"] == "done" || part > 0.7 {
            node.api.done(job);
            return Ok(None);
        }
        if part >= share && number_of(&status, "safe_copies") >= 1 {
            return Ok(Some(status));
        }
        Err(status.to_string())
    });
    moment.unwrap_or_else(|seen| panic!("too few tiles are safe after {JOB_LIMIT:?}: {seen}"))
}

/// How long after `killed` another node said that it leased a tile of the job.
fn first_lease(
    mesh: &Mesh,
    at: usize,
    job: &str,
    logged: &[usize],
    killed: Instant,
) -> Option<Duration> {
    let others = || {
        let nodes = mesh.nodes.iter().zip(logged).enumerate();
        nodes.filter(|(other, _)| *other != at)
    };
    let leased = within(TAKEOVER_LIMIT, PAUSE, || {
        let says = |(_, (node, before)): (usize, (&Node, &usize))| {
            let log = node.log();
            let mut new = log.get(*before..).unwrap_or_default().lines();
            new.any(|line| line.contains(LEASED) && line.contains(job))
        };
        let leased = others().any(says).then(|| killed.elapsed());
        leased.ok_or_else(|| "nobody leased a tile".to_owned())
    });
    leased.ok()
}

/// The last status of the job that a node has, when it has ended or is late.
fn ended(node: &Node, job: &str) -> Value {
    let ended = within(JOB_LIMIT, PAUSE, || {
        let reply = node.api.try_get(&format!("/api/jobs/{job}?wait=5"))?;
        if reply.status != 200 {
            return Err(reply.text());
        }
        let status = reply.json();
        let over = ["done", "failed", "cancelled"];
        let over = over.iter().any(|end| status["state"] == *end);
        over.then(|| status.clone()).ok_or(status.to_string())
    });
    ended.unwrap_or_else(|seen| json!({"state": "late", "error": seen}))
}

/// How many tiles that were safe `before` were computed again: as the status says, and by how many each
/// device's contribution is less than what it had done, but for those that were not safe.
fn repeated(after: &Value, before: &Value) -> u64 {
    let parts = |status: &Value| {
        status["contributions"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let now = parts(after);
    let lost = parts(before).into_iter().map(|part| {
        let same = now.iter().find(|other| other["device"] == part["device"]);
        let kept = same.map_or(0, |same| number_of(same, "tiles"));
        number_of(&part, "tiles").saturating_sub(kept)
    });
    let lost: u64 = lost.sum();
    let not_safe = number_of(before, "tiles_done") - number_of(before, "tiles_safe");
    let told = after["tiles_recomputed"].as_u64().unwrap_or(0);
    told.max(lost.saturating_sub(not_safe))
}

fn number_of(status: &Value, field: &str) -> u64 {
    let number = status[field].as_u64();
    number.unwrap_or_else(|| panic!("{field} is no number: {status:#}"))
}
