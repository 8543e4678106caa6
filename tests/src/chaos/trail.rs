//! What the logs of the nodes say of tiles: whether a safe one was computed again, and when a new
//! coordinator leased its first.
//!
//! Each node writes a line when it coordinates a job under a new epoch, when it leases a tile (to itself or
//! to another), when a tile is durable on its disk, when an entry of another's log about a tile is durable
//! there, and when another node is linked or not any more.
//!
//! A lease of tile T of a job by node X under an epoch is counted as *a safe tile computed again* when either
//!
//! - T is durable at X, and is what X's copy of the log says T is; or
//! - X took the job over, and before it did so T was recorded on X's disk, and another node H had those very
//!   bytes on its disk, and X and H were linked from [`SETTLED`] before the takeover until the lease, and no
//!   fault concerned the pair in all that time.
//!
//! So what a node can not know (behind a partition, without the log) or could not get in time (loss, a pause)
//! is not counted: two coordinators on two sides of a partition may compute the same tile. Whether the lease
//! brought a result does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gemmesh_protocol::time::WallTime;
use serde_json::Value;

use super::room::{Episode, NAMES};

/// Milliseconds that two nodes were linked and undisturbed before a takeover, for it to count that one could
/// have asked the other.
pub const SETTLED: u64 = 2_000;

/// What the logs say.
#[derive(Debug, Default)]
pub struct Findings {
    /// Safe tiles that were computed again.
    pub repeated: Vec<String>,
    /// Tiles that were recorded where a job was taken over, summed over takeovers.
    pub inherited: u64,
    /// When the coordinator of an epoch leased its first tile: by job, epoch and node.
    pub first_lease: BTreeMap<(String, u64, usize), u64>,
    /// Lines that say that a part of the program panicked.
    pub panics: Vec<String>,
}

type Job = String;

/// When something began and when it ended.
#[derive(Debug, Clone, Copy)]
struct Spell {
    from: u64,
    to: u64,
}

/// One node's disk and links over time.
#[derive(Debug, Default)]
struct Past {
    /// Which bytes of a tile are durable, from when to when.
    durable: BTreeMap<(Job, u64), Vec<(String, Spell)>>,
    linked: BTreeMap<usize, Vec<Spell>>,
}

/// A lease that another node's past has to be looked at for.
struct Doubt {
    by: usize,
    job: Job,
    epoch: u64,
    tile: u64,
    digest: String,
    claimed: u64,
    leased: u64,
}

/// Reads the logs of all nodes; `devices` are their ids.
///
/// # Panics
/// When a log can not be read.
pub fn read(logs: &[impl AsRef<Path>], devices: &[String], episodes: &[Episode]) -> Findings {
    let mut findings = Findings::default();
    let mut doubts = Vec::new();
    let pasts: Vec<Past> = logs
        .iter()
        .enumerate()
        .map(|(node, log)| {
            let text = std::fs::read_to_string(log).expect("the log of a node");
            one(node, &text, devices, &mut findings, &mut doubts)
        })
        .collect();
    for doubt in doubts {
        let holder = (0..pasts.len()).find(|&other| {
            other != doubt.by
                && had(&pasts, other, &doubt)
                && reached(&pasts, other, &doubt, episodes)
        });
        if let Some(holder) = holder {
            let (by, holder) = (NAMES[doubt.by], NAMES[holder]);
            findings.repeated.push(format!(
                "{by} leases tile {} of job {} in epoch {} at {}, which {holder} has",
                doubt.tile,
                doubt.job,
                doubt.epoch,
                WallTime(doubt.leased),
            ));
        }
    }
    findings
}

fn had(pasts: &[Past], other: usize, doubt: &Doubt) -> bool {
    let spells = pasts[other].durable.get(&(doubt.job.clone(), doubt.tile));
    spells.into_iter().flatten().any(|(digest, spell)| {
        *digest == doubt.digest && spell.from < doubt.claimed && doubt.leased < spell.to
    })
}

fn reached(pasts: &[Past], other: usize, doubt: &Doubt, episodes: &[Episode]) -> bool {
    let begin = doubt.claimed.saturating_sub(SETTLED);
    let linked = |a: usize, b: usize| {
        let spells = pasts[a].linked.get(&b).into_iter().flatten();
        spells
            .into_iter()
            .any(|spell| spell.from < begin && doubt.leased < spell.to)
    };
    let disturbed = episodes.iter().any(|episode| {
        episode.fault.concerns(doubt.by, other)
            && episode.began < doubt.leased
            // A node that was started or woke up needs a moment.
            && begin < episode.ended + SETTLED
    });
    linked(doubt.by, other) && linked(other, doubt.by) && !disturbed
}

fn one(
    node: usize,
    text: &str,
    devices: &[String],
    findings: &mut Findings,
    doubts: &mut Vec<Doubt>,
) -> Past {
    let mut past = Past::default();
    // What the log of a job says here of a tile, and what was so when this node took the job over.
    let mut recorded: BTreeMap<Job, BTreeMap<u64, String>> = BTreeMap::new();
    let mut claims: BTreeMap<(Job, u64), (u64, BTreeMap<u64, String>)> = BTreeMap::new();
    let mut suspected: BTreeSet<(Job, u64, u64)> = BTreeSet::new();
    for line in text.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            // A panic is text; the last line of a killed node may be cut short.
            if line.contains("panicked") {
                findings.panics.push(format!("{}: {line}", NAMES[node]));
            }
            continue;
        };
        let fields = &line["fields"];
        let Ok(WallTime(at)) = serde_json::from_value(line["timestamp"].clone()) else {
            continue;
        };
        let job = fields["job"].as_str().unwrap_or_default().to_owned();
        let text_of = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        let (tile, epoch) = (fields["tile"].as_u64(), fields["epoch"].as_u64());
        let device = devices
            .iter()
            .position(|id| fields["device"] == id.as_str());
        match (fields["message"].as_str().unwrap_or_default(), tile, epoch) {
            ("ready", ..) => {
                // Started again: no link is left.
                for spells in past.linked.values_mut() {
                    close(spells.last_mut(), at);
                }
            }
            ("linked", ..) => {
                if let Some(device) = device {
                    let spell = Spell {
                        from: at,
                        to: u64::MAX,
                    };
                    past.linked.entry(device).or_default().push(spell);
                }
            }
            ("not linked", ..) => {
                let spells = device.and_then(|device| past.linked.get_mut(&device));
                close(spells.and_then(|spells| spells.last_mut()), at);
            }
            ("a tile is durable here", Some(tile), _) => {
                let spells = past.durable.entry((job, tile)).or_default();
                close(spells.last_mut().map(|(_, spell)| spell), at);
                let spell = Spell {
                    from: at,
                    to: u64::MAX,
                };
                spells.push((text_of("digest"), spell));
            }
            ("a tile is recorded here", Some(tile), Some(_)) => {
                recorded
                    .entry(job)
                    .or_default()
                    .insert(tile, text_of("digest"));
            }
            ("dropped", ..) => {
                recorded.remove(&job);
                for ((_, _), spells) in past.durable.iter_mut().filter(|((of, _), _)| *of == job) {
                    close(spells.last_mut().map(|(_, spell)| spell), at);
                }
            }
            ("this node coordinates the job", _, Some(epoch)) => {
                let known = recorded.get(&job).cloned().unwrap_or_default();
                findings.inherited += known.len() as u64;
                claims.insert((job, epoch), (at, known));
            }
            ("a tile is leased", Some(tile), Some(epoch)) => {
                let first = findings.first_lease.entry((job.clone(), epoch, node));
                first.or_insert(at);
                let claim = claims.get(&(job.clone(), epoch));
                let digest = claim.and_then(|(_, known)| known.get(&tile));
                let own = past.durable.get(&(job.clone(), tile));
                let own = own.and_then(|spells| spells.last());
                let own = own.filter(|(_, spell)| spell.to == u64::MAX);
                let counts = |(own, _): &&(String, Spell)| match digest {
                    Some(digest) => own == digest,
                    // Bytes of an epoch whose log is not here may not be those that count.
                    None => claim.is_none(),
                };
                if own.filter(counts).is_some() {
                    if suspected.insert((job.clone(), epoch, tile)) {
                        findings.repeated.push(format!(
                            "{} leases tile {tile} of job {job} in epoch {epoch} at {}, which it has",
                            NAMES[node],
                            WallTime(at),
                        ));
                    }
                } else if let (Some((claimed, _)), Some(digest)) = (claim, digest)
                    && suspected.insert((job.clone(), epoch, tile))
                {
                    doubts.push(Doubt {
                        by: node,
                        job,
                        epoch,
                        tile,
                        digest: digest.clone(),
                        claimed: *claimed,
                        leased: at,
                    });
                }
            }
            _ => {}
        }
    }
    past
}

fn close(spell: Option<&mut Spell>, at: u64) {
    if let Some(spell) = spell {
        spell.to = spell.to.min(at);
    }
}
