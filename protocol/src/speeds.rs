//! How fast devices and links are: what jobs showed, else what devices say of themselves.

use std::collections::BTreeMap;

use crate::id::DeviceId;
use crate::job::{JobHeader, KernelClass};
use crate::matrix::Dtype;
use crate::message::DeviceRecord;
use crate::plan;
use crate::status::JobStatus;
use crate::time::{Instant, Span};

/// A link that nobody has measured yet: Ethernet of 1 Gbit/s.
const LINK_GUESS: f64 = 1e8;
/// Links are not believed to be slower or faster than this, in bytes a second.
const LINK_MIN: f64 = 1e3;
const LINK_MAX: f64 = 1e11;
/// How much a new figure of a link counts: its blocks come in bursts.
const NEW: f64 = 0.3;
/// Who was sent blocks within this shares the link with those who are sent some now.
const RECENT: Span = Span::from_secs(1);
/// Of devices that share a link, one has at most so many times as much as another, on average.
const UNFAIR: f64 = 2.0;
/// What is remembered at most.
const ENTRIES_MAX: usize = 4_096;
/// A device's part in a job says something about its speed when its kernels ran for so many seconds.
const BUSY_MIN: f64 = 0.02;

/// What kinds of product differ in speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    dtype: Dtype,
    class: KernelClass,
    /// [`plan::passes`]: exact products of wider integers take longer.
    passes: u16,
}

impl Kind {
    /// Of a job.
    pub fn of(header: &JobHeader) -> Self {
        Self {
            dtype: header.element.dtype,
            class: header.class,
            passes: plan::passes(header) as u16,
        }
    }

    /// Of shares of a guarded product modulo so many primes.
    pub fn of_shares(primes: u16) -> Self {
        Self {
            dtype: Dtype::Residues,
            class: KernelClass::Exact,
            passes: primes,
        }
    }

    /// How fast it goes next to an f64 product of class `any`, as long as nobody has seen it: vectors
    /// hold twice as many f32, and two roundings take two instructions.
    fn factor(self) -> f64 {
        match (self.dtype, self.class) {
            (Dtype::Int | Dtype::Residues, _) => 1.0 / f64::from(self.passes.max(1)),
            (Dtype::F32, KernelClass::Separate) => 1.1,
            (Dtype::F32, _) => 2.0,
            (Dtype::F64, KernelClass::Separate) => 0.55,
            (Dtype::F64, _) => 1.0,
        }
    }
}

/// The books of a node.
#[derive(Debug, Default)]
pub struct Speeds {
    /// Operations a second, all slots together, for each slot.
    kernels: BTreeMap<(DeviceId, Kind), f64>,
    /// Bytes a second between this node and others.
    links: BTreeMap<DeviceId, f64>,
    /// When and how fast blocks last went to each device.
    recent: BTreeMap<DeviceId, (Instant, f64)>,
}

impl Speeds {
    /// Operations a second that a device does of a kind of product; `None` when nobody knows.
    pub fn kernel(&self, record: &DeviceRecord, kind: Kind) -> Option<f64> {
        let slots = f64::from(record.slots.max(1));
        let seen = self.kernels.get(&(record.device, kind));
        let said = record.mflops.is_finite() && record.mflops >= 1.0;
        seen.map(|per_slot| per_slot * slots)
            .or_else(|| said.then_some(record.mflops * 1e6 * kind.factor()))
    }

    /// Bytes a second between this node and a device, which may be reached by way of a node.
    pub fn link(&self, device: DeviceId, via: Option<DeviceId>) -> f64 {
        let known = |device: &DeviceId| self.links.get(device).copied();
        let way = || via.and_then(|via| known(&via));
        known(&device).or_else(way).unwrap_or(LINK_GUESS)
    }

    /// Bytes a second between this node and the devices to which it was measured.
    pub fn links(&self) -> impl Iterator<Item = (DeviceId, f64)> {
        self.links.iter().map(|(device, rate)| (*device, *rate))
    }

    /// A link that has just opened was measured.
    pub fn set_link(&mut self, device: DeviceId, rate: f64) {
        make_room(&mut self.links, &device);
        self.links.insert(device, believable(rate));
    }

    /// Blocks went over a link at this rate, of late. What others had in the same time it could have carried, too:
    /// all may share what this node's own link carries.
    pub fn learn_link(&mut self, device: DeviceId, rate: f64, now: Instant) {
        let rate = believable(rate);
        make_room(&mut self.links, &device);
        self.recent.retain(|_, (at, _)| now <= *at + RECENT);
        make_room(&mut self.recent, &device);
        self.recent.insert(device, (now, rate));
        let all: f64 = self.recent.values().map(|(_, rate)| rate).sum();
        let most = all.min(UNFAIR * rate * self.recent.len() as f64);
        let mean = self.links.entry(device).or_insert(rate);
        *mean += NEW * (mean.clamp(rate, most.max(rate)) - *mean);
    }

    /// A job has ended: what its devices did shows how fast they are. What is new counts half.
    pub fn learn(&mut self, kind: Kind, status: &JobStatus) {
        for part in &status.contributions {
            let rate = part.mflops * 1e6;
            let busy = part.operations as f64 / rate;
            let slots = f64::from(part.slots.max(1));
            // Fewer tiles than that may have kept only some of the slots busy.
            let enough = part.tiles >= 2 * u64::from(part.slots) && busy >= BUSY_MIN;
            if enough && rate.is_finite() {
                let key = (part.device, kind);
                make_room(&mut self.kernels, &key);
                let mean = self.kernels.entry(key).or_insert(rate / slots);
                *mean = 0.5 * (*mean + rate / slots);
            }
        }
    }
}

fn believable(rate: f64) -> f64 {
    rate.clamp(LINK_MIN, LINK_MAX)
}

fn make_room<K: Ord + Copy, V>(entries: &mut BTreeMap<K, V>, wanted: &K) {
    if entries.len() >= ENTRIES_MAX && !entries.contains_key(wanted) {
        entries.pop_first();
    }
}
