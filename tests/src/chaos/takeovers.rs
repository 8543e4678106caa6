//! How long a job was without a coordinator.
//!
//! A takeover is a moment `took_over` in the timeline of a job as its status has it in the end. The time is
//! measured *from* the beginning of the fault that took the coordinator before it away, by the clock of whoever
//! caused it (for `kill -9`, when the process was gone), *to* that moment, when the new coordinator began with a
//! durable epoch: `submitted` plus the moment's `at`. All clocks are this machine's. The fault is the latest that
//! concerned either of the two, lasted or was over for at most [`AFTER`], and can separate them; loss of 5 % can
//! not. A takeover without one, or by the node that coordinated before (it was started again), has no time. To the
//! *first lease* is measured to the first tile that the new coordinator leased, from its log, if it leased one.

use std::collections::BTreeMap;

use gemmesh_protocol::time::WallTime;
use serde_json::Value;

use super::plan::Kind;
use super::room::Episode;

/// A fault that was over for longer, in milliseconds, is not why a job was taken over.
const AFTER: u64 = 10_000;

/// What is known of the takeovers.
#[derive(Debug, Default)]
pub struct Takeovers {
    /// How many there were.
    pub count: usize,
    /// By the node that had coordinated before, after it was started again.
    pub by_itself: usize,
    /// Milliseconds from a fault to the takeover.
    pub times: Vec<u64>,
    /// The same after `kill -9` alone.
    pub after_kill: Vec<u64>,
    /// From `kill -9` to the first tile that the new coordinator leased.
    pub to_lease: Vec<u64>,
}

/// Looks through the final statuses.
pub fn find(
    jobs: &[Value],
    devices: &[String],
    episodes: &[Episode],
    first_lease: &BTreeMap<(String, u64, usize), u64>,
) -> Takeovers {
    let mut found = Takeovers::default();
    for status in jobs {
        let submitted = serde_json::from_value(status["submitted"].clone());
        let WallTime(submitted) = submitted.unwrap_or_default();
        let mut coordinator = None;
        for moment in status["timeline"].as_array().into_iter().flatten() {
            let event = moment["event"].as_str().unwrap_or_default();
            if !["taken", "took_over"].contains(&event) {
                continue;
            }
            let device = devices
                .iter()
                .position(|id| moment["device"] == id.as_str());
            let before = std::mem::replace(&mut coordinator, device);
            let (Some(now), Some(before)) = (device, before) else {
                continue;
            };
            if event != "took_over" {
                continue;
            }
            found.count += 1;
            if now == before {
                found.by_itself += 1;
                continue;
            }
            let at = submitted + (moment["at"].as_f64().unwrap_or_default() * 1e3) as u64;
            let cause = episodes.iter().filter(|episode| {
                episode.fault.concerns(before, now)
                    && episode.fault.kind != Kind::Loss5
                    && episode.began <= at
                    && at <= episode.ended + AFTER
            });
            let Some(cause) = cause.max_by_key(|episode| episode.began) else {
                continue;
            };
            let time = at - cause.began;
            found.times.push(time);
            if cause.fault.kind == Kind::Kill && cause.fault.node == before {
                found.after_kill.push(time);
                let id = status["job"].as_str().unwrap_or_default().to_owned();
                let epoch = moment["epoch"].as_u64().unwrap_or_default();
                let leased = first_lease.get(&(id, epoch, now));
                found
                    .to_lease
                    .extend(leased.and_then(|leased| leased.checked_sub(cause.began)));
            }
        }
    }
    for times in [&mut found.times, &mut found.after_kill, &mut found.to_lease] {
        times.sort_unstable();
    }
    found
}
