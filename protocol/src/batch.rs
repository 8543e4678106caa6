//! Batches: many products that were submitted together, under one name.
//!
//! A batch is no job of its own. It is cut into *parts*, each an ordinary job: small products of one
//! shape are a part together (see [`crate::stack`]), a large one is a part by itself. Each part says of
//! which batch it is and which products it has, so whoever knows the parts knows the batch, also when
//! its first coordinator is gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::id::{DeviceId, JobId};
use crate::stack::PRODUCTS_MAX;
use crate::status::{Contribution, Happening, JobState, JobStatus, Moment, TIMELINE_MAX};

/// The most parts of a batch.
pub const PARTS_MAX: u32 = 512;
/// The most runs of indices of a part.
pub const RUNS_MAX: usize = 8_192;
/// The most products of a batch that were not taken.
pub const FAILED_MAX: usize = 256;
/// The most bytes of the reason why one was not.
pub const ERROR_BYTES_MAX: usize = 1_024;

/// Consecutive products of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// A product of a batch without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedProduct {
    /// Its place in the batch, from 0.
    pub index: u32,
    /// Why.
    pub error: String,
}

/// Which products of which batch a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPart {
    /// The batch.
    pub batch: JobId,
    /// The part's number, from 0.
    pub part: u32,
    /// Parts of the batch.
    pub parts: u32,
    /// Products of the whole batch.
    pub products: u32,
    /// Which of them are in this part, in the order of its stack.
    #[serde(deserialize_with = "bounded::list::<_, _, RUNS_MAX>")]
    pub runs: Vec<Run>,
    /// Products of the batch that are in no part, because something is wrong with them; the first
    /// part says so.
    #[serde(default, deserialize_with = "bounded::list::<_, _, FAILED_MAX>")]
    pub failed: Vec<FailedProduct>,
}

impl BatchPart {
    /// Whether what came from elsewhere is within bounds.
    pub(crate) fn is_sane(&self) -> bool {
        let run = |run: &Run| {
            run.count > 0
                && (run.first.checked_add(run.count)).is_some_and(|end| end <= self.products)
        };
        let failed = |failed: &FailedProduct| {
            failed.index < self.products && failed.error.len() <= ERROR_BYTES_MAX
        };
        self.part < self.parts
            && self.parts <= PARTS_MAX
            && self.products <= PRODUCTS_MAX
            && self.runs.len() <= RUNS_MAX
            && self.failed.len() <= FAILED_MAX
            && self.runs.iter().all(run)
            && self.failed.iter().all(failed)
    }

    /// Products of this part.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }

    /// Whether it has none; no part is like that.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The place in this part's stack of a product of the batch.
    pub fn place(&self, index: u32) -> Option<u64> {
        let mut before = 0;
        for run in &self.runs {
            if index >= run.first && index - run.first < run.count {
                return Some(before + u64::from(index - run.first));
            }
            before += u64::from(run.count);
        }
        None
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> u64 {
        let failed = self.failed.iter().map(|failed| failed.error.len() + 32);
        64 + 16 * self.runs.len() as u64 + failed.sum::<usize>() as u64
    }
}

/// The id of a part, so that whoever knows the batch's can ask for it.
pub fn part_id(batch: JobId, part: u32) -> JobId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"gemmesh batch 1");
    hasher.update(&batch.0);
    hasher.update(&part.to_le_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    JobId(id)
}

/// How a batch stands, of whose parts these are known; `None` when there is none.
pub fn gather<'s>(parts: impl IntoIterator<Item = &'s JobStatus>) -> Option<JobStatus> {
    let known: BTreeMap<u32, (&BatchPart, &JobStatus)> = parts
        .into_iter()
        .filter_map(|status| {
            let part = status.part.as_deref()?;
            Some((part.part, (part, status)))
        })
        .collect();
    let (about, first) = *known.values().next()?;
    let statuses = || known.values().map(|(_, status)| *status);
    let any = |state| statuses().any(|status| status.state == state);
    // A part that nobody here knows may still run.
    let complete = known.len() as u64 == u64::from(about.parts);
    let ended = complete && statuses().all(|status| status.state.has_ended());
    let state = match ended {
        true if any(JobState::Cancelled) => JobState::Cancelled,
        true if any(JobState::Done) => JobState::Done,
        true => JobState::Failed,
        false if statuses().all(|status| status.state == JobState::Queued) => JobState::Queued,
        false => JobState::Running,
    };
    let mut failed: Vec<FailedProduct> = Vec::new();
    for (part, status) in known.values() {
        failed.extend(part.failed.iter().cloned());
        if status.state == JobState::Failed {
            let error = status.error.clone().unwrap_or_default();
            let indices = part
                .runs
                .iter()
                .flat_map(|run| run.first..run.first + run.count);
            failed.extend(indices.map(|index| FailedProduct {
                index,
                error: error.clone(),
            }));
        }
    }
    failed.sort_by_key(|failed| failed.index);
    // Who runs it: of parts that still run, the first.
    let leading = statuses().find(|status| !status.state.has_ended());
    let leading = leading.unwrap_or(first);
    let sum = |of: fn(&JobStatus) -> u64| statuses().map(of).fold(0, u64::saturating_add);
    let seconds = statuses().map(|status| status.seconds);
    let predicted = statuses().map(|status| status.predicted_seconds);
    Some(JobStatus {
        job: about.batch,
        name: first.name.clone(),
        state,
        rows: 0,
        inner: 0,
        cols: 0,
        dtype: first.dtype,
        mode: first.mode,
        sharing: None,
        tiles_total: sum(|status| status.tiles_total),
        tiles_done: sum(|status| status.tiles_done),
        tiles_safe: sum(|status| status.tiles_safe),
        tiles_recomputed: sum(|status| status.tiles_recomputed),
        coordinator: leading.coordinator,
        epoch: statuses().map(|status| status.epoch).max().unwrap_or(1),
        // Who is to go on with all of it needs each part, also those that have ended.
        safe_copies: statuses()
            .map(|status| status.safe_copies)
            .min()
            .unwrap_or(0),
        submitted: first.submitted,
        seconds: seconds.fold(0.0, f64::max),
        predicted_seconds: predicted.sum(),
        plan: Vec::new(),
        bytes_sent: sum(|status| status.bytes_sent),
        bytes_floor: sum(|status| status.bytes_floor),
        bytes_replicated: sum(|status| status.bytes_replicated),
        result: None,
        error: (state == JobState::Failed)
            .then(|| first.error.clone())
            .flatten(),
        contributions: contributions(statuses()),
        backups: leading.backups.clone(),
        timeline: timeline(statuses()),
        part: None,
        products: Some(u64::from(about.products)),
        failed: Some(failed),
    })
}

/// A list of jobs with each batch in place of its parts.
pub fn folded(jobs: Vec<JobStatus>) -> Vec<JobStatus> {
    let mut batches: BTreeMap<JobId, Vec<JobStatus>> = BTreeMap::new();
    let mut rest = Vec::new();
    for job in jobs {
        match &job.part {
            Some(part) => batches.entry(part.batch).or_default().push(job),
            None => rest.push(job),
        }
    }
    rest.extend(batches.values().filter_map(gather));
    rest
}

/// What each device did in all parts.
fn contributions<'s>(parts: impl Iterator<Item = &'s JobStatus>) -> Vec<Contribution> {
    let mut all: BTreeMap<DeviceId, (Contribution, f64)> = BTreeMap::new();
    for one in parts.flat_map(|status| &status.contributions) {
        let busy = one.operations as f64 / one.mflops.max(1e-9);
        match all.get_mut(&one.device) {
            None => {
                all.insert(one.device, (one.clone(), busy));
            }
            Some((sum, total)) => {
                sum.tiles = sum.tiles.saturating_add(one.tiles);
                sum.rows = sum.rows.saturating_add(one.rows);
                sum.operations = sum.operations.saturating_add(one.operations);
                sum.compute_ms += one.compute_ms;
                sum.transfer_ms += one.transfer_ms;
                *total += busy;
                sum.mflops = sum.operations as f64 / total.max(1e-9);
            }
        }
    }
    let mut all: Vec<Contribution> = all.into_values().map(|(one, _)| one).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.operations));
    all
}

/// What happened, once for each device that it happened to; a part that ended is no news of the batch.
fn timeline<'s>(parts: impl Iterator<Item = &'s JobStatus>) -> Vec<Moment> {
    let mut moments: Vec<&Moment> = parts.flat_map(|status| &status.timeline).collect();
    moments.sort_by(|a, b| a.at.total_cmp(&b.at));
    let last = moments
        .iter()
        .rposition(|moment| moment.event == Happening::Ended);
    let mut timeline: Vec<Moment> = Vec::new();
    for (n, moment) in moments.into_iter().enumerate() {
        let again = |known: &Moment| {
            (known.event, known.device, known.epoch) == (moment.event, moment.device, moment.epoch)
        };
        let ended = moment.event == Happening::Ended;
        if (!ended || Some(n) == last) && !timeline.iter().any(again) {
            timeline.push(moment.clone());
        }
    }
    let over = timeline.len().saturating_sub(TIMELINE_MAX);
    timeline.split_off(over)
}

/// The shape of a job; that of a batch is null in JSON, and 0 here.
pub(crate) mod shape {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes it.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
    pub fn serialize<S: Serializer>(length: &u64, to: S) -> Result<S::Ok, S::Error> {
        Some(*length).filter(|&length| length > 0).serialize(to)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.unwrap_or(0))
    }
}
