//! Who should compute how much of a product, how long that takes and what it sends: the plan.
//!
//! Intuition: given a time T, each device can do so many tiles in it, limited by its kernel, by its
//! link and by what the coordinator can send to all of them. The shortest T in which all tiles get
//! done is the forecast. Who can not return a single tile within it is left out, because waiting for
//! it would delay the rest.
//!
//! A near-square region of `c` tiles needs about `√c` panels of A and of B, so bytes grow with the
//! square root of a share, and a share that is too small for its bytes is not worth sending
//! (Beaumont, Boudet, Rastello, Robert: "Matrix multiplication on heterogeneous platforms", TPDS 12,
//! 2001, section 4; no closed form of linear divisible loads applies, as "Non-linear divisible loads:
//! there is no free lunch", IPDPS 2013, shows).

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;
use crate::job::JobHeader;

/// From an announcement to the first fetched byte, beyond what the bytes take.
const START_SECONDS: f64 = 0.002;
/// Bytes of the first slab, which a device waits for before it can compute.
const FIRST_SLAB_BYTES: f64 = (4 << 20) as f64;
/// What either end spends on a byte that crosses the link, in seconds of one of its slots: reading,
/// framing, copying, hashing.
const SERVING_SECONDS: f64 = 0.7e-9;
/// What checking a tile of another device costs, in the time that computing it takes here.
const CHECKING: f64 = 0.04;
/// Helpers that spare less than this part of the time are not worth their risk and their bytes.
const GAIN_MIN: f64 = 0.03;
/// From the last tile to a job that is done: the file and the job are made durable.
const SETTLING_SECONDS: f64 = 0.004;
/// Which parts of the time the coordinator's link may be busy, the first with which all can be done is taken: the
/// sooner all panels are there, the less do kernels wait; the longer it takes, the more can be sent.
const PARTS: [f64; 12] = [
    0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79, 0.75, 0.7, 0.6, 0.4, 0.2,
];
/// Steps of the bisection: beyond these T changes by less than 2⁻²⁰ of itself.
const STEPS: usize = 24;

/// What the forecast needs to know of a device.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// The device.
    pub device: DeviceId,
    /// Operations of this product a second (2·rows·inner·cols), all slots together; positive.
    pub rate: f64,
    /// Its slots, at least one.
    pub slots: u32,
    /// Tiles that it has to finish first.
    pub load: u64,
    /// Bytes a second between it and the coordinator; `None` is the coordinator itself.
    pub link: Option<f64>,
    /// Which part of A and of B it has already, between 0 and 1.
    pub held: [f64; 2],
}

/// The sizes that a forecast works with.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Elements: rows of C, inner dimension, columns of C.
    m: f64,
    k: f64,
    n: f64,
    /// Bytes of an element of A, B, C.
    a: f64,
    b: f64,
    c: f64,
    tile_rows: f64,
    tile_cols: f64,
    /// Rows of one product of a stack; those of C if it is none.
    each: f64,
    /// Operations of a mean tile.
    tile_operations: f64,
    tile_bytes: f64,
}

impl Shape {
    /// Of a job.
    pub fn of(header: &JobHeader) -> Self {
        let (m, k, n) = (header.a.rows, header.a.cols, header.b.cols);
        let tiles = header.tiling.len() as f64;
        let (m, k, n) = (m as f64, k as f64, n as f64);
        let c = header.element.bytes() as f64;
        Self {
            m,
            k,
            n,
            each: m / f64::from(header.stack.max(1)),
            a: header.a.element.bytes() as f64,
            b: header.b.element.bytes() as f64,
            c,
            tile_rows: (header.tiling.tile_rows as f64).min(m),
            tile_cols: (header.tiling.tile_cols as f64).min(n),
            tile_operations: header.operations() as f64 / tiles,
            tile_bytes: m * n * c / tiles,
        }
    }

    /// Bytes of the panels of A and B that a compact region of `tiles` tiles needs, less the part
    /// that is `held`, and of the tiles themselves: h·k·a + w·k·b + h·w·c for h·w elements, least for
    /// h·a = w·b within C.
    /// See [`crate::plan::bytes_floor`].
    pub fn bytes(&self, tiles: u64, held: [f64; 2]) -> f64 {
        if tiles == 0 {
            return 0.0;
        }
        let area = (tiles as f64 * self.tile_bytes / self.c).min(self.m * self.n);
        let [a, b] = held.map(|part| 1.0 - part.clamp(0.0, 1.0));
        if self.each < self.m {
            // Products of a stack share nothing.
            let products = (area / (self.each * self.n)).max(1.0);
            let one = self.each * self.k * self.a * a + self.k * self.n * self.b * b;
            return products * one + area * self.c;
        }
        let h = (area * self.b / self.a).sqrt().clamp(area / self.n, self.m);
        let h = h.max(self.tile_rows.min(self.m));
        let w = (area / h).max(self.tile_cols.min(self.n));
        h * self.k * self.a * a + w * self.k * self.b * b + area * self.c
    }
}

impl Shape {
    /// Bytes of one tile with these parts of its panels.
    pub fn tile_bytes(&self, lacks: [f64; 2]) -> f64 {
        let a = self.tile_rows * self.k * self.a * lacks[0];
        let b = self.tile_cols * self.k * self.b * lacks[1];
        a + b + self.tile_bytes
    }
}

/// What one device is planned to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The device.
    pub device: DeviceId,
    /// Tiles.
    pub tiles: u64,
    /// Bytes to it and from it.
    pub bytes: f64,
    /// When it has returned them; for a device without tiles when it would have returned one.
    pub seconds: f64,
    /// What its time is mostly spent on.
    pub limit: Limit,
}

/// What limits a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Its kernel.
    Kernel,
    /// Its link to the coordinator.
    Link,
    /// Its memory: it has no room for a tile.
    Memory,
    /// Time: the coordinator has done the job before others have heard of it.
    Start,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forecast {
    /// One for each device, in the order given.
    pub shares: Vec<Share>,
    /// Until the last tile is there.
    pub seconds: f64,
    /// The same if the coordinator worked alone; infinite if it has no slots.
    pub alone: f64,
}

impl Forecast {
    /// Bytes between the coordinator and all others.
    pub fn bytes(&self) -> f64 {
        self.shares.iter().map(|share| share.bytes).sum()
    }
}

/// Plans `tiles` tiles of a product for `devices`, of which at most one is the coordinator (its
/// `link` is `None`), so that the last ends as early as possible. Helpers that together would spare
/// less than 3 % of the time get nothing. Without a device there are no shares and no end.
/// Cost: O(devices · log² tiles) and a sort.
pub fn forecast(shape: &Shape, tiles: u64, devices: &[Capacity]) -> Forecast {
    let model = Model::new(shape, tiles, devices);
    let own = model.own;
    let alone = own.map_or(f64::INFINITY, |own| model.own_seconds(own, tiles, 0.0, 0));
    if devices.is_empty() {
        let (shares, seconds) = (Vec::new(), f64::INFINITY);
        return Forecast {
            shares,
            seconds,
            alone,
        };
    }
    let (mut low, mut high) = (0.0, model.upper());
    // Helpers before the best one may take bytes from the port that it needs.
    for _ in 0..STEPS {
        if model.within(high).is_some() {
            break;
        }
        high *= 2.0;
    }
    for _ in 0..STEPS {
        let middle = 0.5 * (low + high);
        if model.within(middle).is_some() {
            high = middle;
        } else {
            low = middle;
        }
    }
    let (seconds, found) = if alone * (1.0 - GAIN_MIN) <= high {
        (alone, model.by_one(own.expect("alone is finite")))
    } else {
        // Without a plan somebody has to, however long it takes.
        let found = model.within(high);
        (
            high,
            found.unwrap_or_else(|| model.by_one(own.unwrap_or(0))),
        )
    };
    let shares = devices
        .iter()
        .zip(found.counts.iter().zip(&found.ends))
        .enumerate()
        .map(|(i, (device, (&count, &end)))| {
            let planned = count.max(1);
            let waits = model.link_seconds(i, planned) > model.kernel_seconds(i, planned);
            let limit = if waits { Limit::Link } else { Limit::Kernel };
            let bytes = if device.link.is_some() {
                model.bytes(i, count)
            } else {
                0.0
            };
            Share {
                device: device.device,
                tiles: count,
                bytes,
                seconds: end,
                limit,
            }
        });
    Forecast {
        shares: shares.collect(),
        seconds: seconds + SETTLING_SECONDS,
        alone: alone + SETTLING_SECONDS,
    }
}

struct Model<'a> {
    shape: &'a Shape,
    tiles: u64,
    devices: &'a [Capacity],
    own: Option<usize>,
    /// All others, the most useful first: fast links, then fast kernels.
    helpers: Vec<usize>,
    /// Bytes a second that leave the coordinator at most: it is behind a link, too, and the fastest
    /// that anybody has to it is the best guess of that.
    port: f64,
}

impl<'a> Model<'a> {
    fn new(shape: &'a Shape, tiles: u64, devices: &'a [Capacity]) -> Self {
        let own = devices.iter().position(|device| device.link.is_none());
        let mut helpers: Vec<usize> = (0..devices.len()).filter(|&i| Some(i) != own).collect();
        // A link is as good as another unless it is much better.
        let class = |i: usize| devices[i].link.unwrap_or(f64::INFINITY).log2().floor();
        helpers.sort_by(|&x, &y| {
            let links = class(y).total_cmp(&class(x));
            links.then(devices[y].rate.total_cmp(&devices[x].rate))
        });
        let port = devices
            .iter()
            .filter_map(|device| device.link)
            .fold(0.0, f64::max);
        Self {
            shape,
            tiles,
            devices,
            own,
            helpers,
            port,
        }
    }

    /// Kernel time for `count` tiles after those that it has: slots work in rounds.
    fn kernel_seconds(&self, i: usize, count: u64) -> f64 {
        let device = &self.devices[i];
        let slots = u64::from(device.slots.max(1));
        let rounds = (device.load + count).div_ceil(slots);
        (rounds * slots) as f64 * self.shape.tile_operations / device.rate
    }

    fn bytes(&self, i: usize, count: u64) -> f64 {
        self.shape.bytes(count, self.devices[i].held)
    }

    fn panel_bytes(&self, i: usize, count: u64) -> f64 {
        self.bytes(i, count) - count as f64 * self.shape.tile_bytes
    }

    fn link_seconds(&self, i: usize, count: u64) -> f64 {
        let device = &self.devices[i];
        self.bytes(i, count) / device.link.unwrap_or(f64::INFINITY)
    }

    /// When another device has returned `count` tiles whose panels come for `arriving` seconds, or longer if its
    /// link is slow. Its kernel and its link work at the same time; it waits for its first slab at least, and its
    /// last tile travels alone.
    fn seconds(&self, i: usize, count: u64, arriving: f64) -> f64 {
        if count == 0 {
            return 0.0;
        }
        let link = self.devices[i].link.unwrap_or(f64::INFINITY);
        let first = self.panel_bytes(i, 1).min(FIRST_SLAB_BYTES);
        let kernel = self.kernel_seconds(i, count);
        let waiting = waiting(kernel, arriving.max(self.panel_bytes(i, count) / link));
        let overlapped = (waiting.max(first / link) + kernel).max(self.link_seconds(i, count));
        START_SECONDS + overlapped + self.shape.tile_bytes / link
    }

    /// When the coordinator has done `count` tiles itself, while it sends and takes `served` bytes
    /// and checks `remote` tiles.
    fn own_seconds(&self, own: usize, count: u64, served: f64, remote: u64) -> f64 {
        let device = &self.devices[own];
        let checking = remote as f64 * CHECKING * self.shape.tile_operations / device.rate;
        let serving = served * SERVING_SECONDS / f64::from(device.slots.max(1));
        let kernel = if count == 0 {
            0.0
        } else {
            self.kernel_seconds(own, count)
        };
        kernel + serving + checking
    }

    /// A time that is surely enough.
    fn upper(&self) -> f64 {
        let alone = |i: usize| match self.devices[i].link {
            None => self.own_seconds(i, self.tiles, 0.0, 0),
            Some(_) => self
                .seconds(i, self.tiles, 0.0)
                .max(self.bytes(i, self.tiles) / self.port),
        };
        let times = (0..self.devices.len()).map(alone);
        times.fold(f64::INFINITY, f64::min) * 1.01 + 1e-6
    }

    /// How many tiles the coordinator can do in `time` besides serving `served` bytes and checking
    /// `remote` tiles: [`Model::own_seconds`] the other way round.
    fn own_count(&self, time: f64, served: f64, remote: u64) -> u64 {
        let Some(own) = self.own else { return 0 };
        let device = &self.devices[own];
        let slots = u64::from(device.slots.max(1));
        let round = slots as f64 * self.shape.tile_operations / device.rate;
        let rounds = (time - self.own_seconds(own, 0, served, remote)) / round;
        let tiles = (rounds.max(0.0) as u64).saturating_mul(slots);
        tiles.saturating_sub(device.load).min(self.tiles)
    }

    /// One device does it all.
    fn by_one(&self, one: usize) -> Found {
        let mut counts = vec![0; self.devices.len()];
        counts[one] = self.tiles;
        let end = |(i, count): (usize, &u64)| match self.devices[i].link {
            None => self.own_seconds(i, (*count).max(1), 0.0, 0),
            Some(_) => self.seconds(i, (*count).max(1), 0.0),
        };
        let ends = counts.iter().enumerate().map(end).collect();
        Found { counts, ends }
    }

    /// The tiles of each device, and when it has returned them, if all can be done in `time`.
    fn within(&self, time: f64) -> Option<Found> {
        PARTS
            .iter()
            .find_map(|part| self.within_arriving(time, part * time))
    }

    /// The same if all panels have been sent after `arriving` seconds. Each helper gets as few tiles as the
    /// coordinator and those before it leave, because sending is what costs. All have an equal part of the link as
    /// long as they need it: who needs less has all of it before.
    fn within_arriving(&self, time: f64, arriving: f64) -> Option<Found> {
        let mut counts = vec![0; self.devices.len()];
        let mut ends = vec![0.0; self.devices.len()];
        let (mut left, mut sent, mut panels, mut remote) = (self.tiles, 0.0, 0.0, 0);
        for (before, &i) in self.helpers.iter().enumerate() {
            let end = |count| {
                let own = self.panel_bytes(i, count);
                let others = (panels - before as f64 * own).max(0.0);
                self.seconds(i, count, arriving - others / self.port)
            };
            let fits = |count| {
                sent + self.bytes(i, count) <= self.port * time
                    && panels + self.panel_bytes(i, count) <= self.port * arriving
                    && end(count) <= time
            };
            let lacks = |count| {
                let served = sent + self.bytes(i, count);
                self.own_count(time, served, remote + count) + count < left
            };
            let able = most(left, fits);
            let count = if lacks(0) {
                (most(left, lacks) + 1).min(able)
            } else {
                0
            };
            ends[i] = end(count.max(1));
            counts[i] = count;
            left -= count;
            remote += count;
            sent += self.bytes(i, count);
            panels += self.panel_bytes(i, count);
        }
        if let Some(own) = self.own {
            counts[own] = self.own_count(time, sent, remote).min(left);
            ends[own] = self.own_seconds(own, counts[own].max(1), sent, remote);
            left -= counts[own];
        }
        (left == 0).then_some(Found { counts, ends })
    }
}

/// Tiles of each device, and when it has returned them: one if it has none.
struct Found {
    counts: Vec<u64>,
    ends: Vec<f64>,
}

/// How long the kernels of a device wait, that need `kernel` seconds, while its panels arrive for `link` seconds at an
/// even pace. With a part τ of the panels of a square of tiles it can do τ² of the tiles, so after τ·link at least
/// (1 − τ²)·kernel is left: the largest sum over τ in [0, 1] is the least time.
fn waiting(kernel: f64, link: f64) -> f64 {
    if link >= 2.0 * kernel {
        link - kernel
    } else {
        link * link / (4.0 * kernel)
    }
}

/// The largest of 0..=`limit` for which `fits`, which holds up to some number; 0 always does.
fn most(limit: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, limit);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{BlockId, JobId};
    use crate::job::KernelClass;
    use crate::matrix::{Dtype, ElementType, Grid, Manifest};

    const GIGABIT: f64 = 117e6;

    #[test]
    fn twins_share_and_say_when_they_are_done() {
        let (shape, tiles) = square(4_096, 2);
        let devices = [own(5e10, 1), other(1, 5e10, 1, 2e9)];
        let plan = forecast(&shape, tiles, &devices);
        let counts: Vec<u64> = plan.shares.iter().map(|share| share.tiles).collect();
        assert_eq!(counts.iter().sum::<u64>(), tiles);
        assert!(counts[0].abs_diff(counts[1]) <= 2, "{counts:?}");
        let half = 2.0 * 4_096f64.powi(3) / 1e11;
        assert!(
            (half..1.25 * half).contains(&plan.seconds),
            "{}",
            plan.seconds
        );
        assert!((plan.alone - SETTLING_SECONDS - 2.0 * half).abs() < 1e-9 * half);
    }

    #[test]
    fn a_link_that_is_too_slow_is_left_out_and_the_plan_says_so() {
        let (shape, tiles) = square(2_048, 2);
        let devices = [own(5e10, 1), other(1, 5e10, 1, 2.5e6)];
        let plan = forecast(&shape, tiles, &devices);
        assert_eq!((plan.shares[0].tiles, plan.shares[1].tiles), (tiles, 0));
        assert_eq!(plan.shares[1].limit, Limit::Link);
        assert!(plan.shares[1].seconds > 1.0, "{plan:?}");
        assert_eq!(plan.seconds, plan.alone);
        // A larger product on a better link is worth it.
        let (shape, tiles) = square(8_192, 2);
        let devices = [own(5e10, 1), other(1, 5e10, 1, GIGABIT)];
        let plan = forecast(&shape, tiles, &devices);
        assert!(plan.shares[1].tiles > 0);
        assert!(plan.seconds < 0.8 * plan.alone, "{plan:?}");
    }

    #[test]
    fn a_device_that_is_too_slow_for_one_tile_is_left_out() {
        let (shape, tiles) = square(4_096, 2);
        let devices = [own(5e10, 1), other(1, 5e8, 1, 2e9), other(2, 4e10, 1, 2e9)];
        let plan = forecast(&shape, tiles, &devices);
        assert_eq!(
            (plan.shares[1].tiles, plan.shares[1].limit),
            (0, Limit::Kernel)
        );
        assert!(plan.shares[2].tiles > 0);
        assert!(plan.shares[1].seconds > plan.seconds);
    }

    #[test]
    fn a_coordinator_without_slots_sends_everything_away() {
        let (shape, tiles) = square(1_024, 4);
        let plan = forecast(
            &shape,
            tiles,
            &[other(1, 1e9, 2, 1e6), other(2, 3e9, 2, 1e6)],
        );
        assert_eq!(
            plan.shares.iter().map(|share| share.tiles).sum::<u64>(),
            tiles
        );
        assert!(plan.alone.is_infinite());
        assert!(forecast(&shape, tiles, &[]).seconds.is_infinite());
    }

    #[test]
    fn what_is_held_is_not_sent_and_products_of_a_stack_share_nothing() {
        let (shape, tiles) = square(2_048, 2);
        let (panel, tile) = (512.0 * 2_048.0 * 8.0, 512.0 * 512.0 * 8.0);
        assert_eq!(shape.tile_bytes([1.0, 1.0]), 2.0 * panel + tile);
        assert_eq!(shape.tile_bytes([0.0, 0.0]), tile);
        assert_eq!(shape.bytes(1, [0.0; 2]), 2.0 * panel + tile);
        assert_eq!(shape.bytes(4, [0.0; 2]), 4.0 * panel + 4.0 * tile);
        assert_eq!(shape.bytes(tiles, [1.0; 2]), 2_048.0 * 2_048.0 * 8.0);
        let stack = Shape {
            each: 512.0,
            ..shape
        };
        // 512 rows of A and of C, all of B.
        let product = 2.0 * panel + 2_048.0 * 2_048.0 * 8.0;
        assert_eq!(stack.bytes(tiles, [0.0; 2]), 4.0 * product);
    }

    /// Against what no plan can beat: all kernels at full speed, or all bytes of the fewest panels
    /// through one port, for the best set of devices.
    #[test]
    fn plans_are_near_the_bound_for_2_to_200_devices_with_speeds_50_to_1() {
        let mut random = crate::prng::Prng::new(7);
        let mut worst = 0f64;
        for devices in [2u64, 3, 5, 8, 12, 20, 50, 100, 200] {
            for n in [4_096u64, 8_192, 16_384] {
                let slots = devices as u32;
                let (shape, tiles) = square(n, slots);
                let mut speed = || 1e9 * 50f64.powf(random.below(1_000) as f64 / 1_000.0);
                let mut mesh = vec![own(speed(), 1)];
                mesh.extend((1..devices).map(|id| other(id as u8, speed(), 1, GIGABIT)));
                let plan = forecast(&shape, tiles, &mesh);
                let bound = bound(n as f64, &mesh);
                worst = worst.max(plan.seconds / bound);
                println!(
                    "{devices:4} devices, n = {n:6}: {:.3} of the bound",
                    plan.seconds / bound
                );
            }
        }
        assert!(worst <= 1.25, "{worst}");
    }

    proptest! {
        #[test]
        fn every_tile_is_planned_and_nothing_is_slower_than_alone(
            n in 64u64..9_000, slots in 1u32..9, speeds in prop::collection::vec((1e7..1e11, 1u32..9, 1e4..1e10), 0..12),
        ) {
            let (shape, tiles) = square(n, slots);
            let helper = |(id, &(rate, slots, link)): (usize, &(f64, u32, f64))| {
                other(id as u8 + 1, rate, slots, link)
            };
            let mut mesh = vec![own(2e10, slots)];
            mesh.extend(speeds.iter().enumerate().map(helper));
            let plan = forecast(&shape, tiles, &mesh);
            prop_assert_eq!(plan.shares.iter().map(|share| share.tiles).sum::<u64>(), tiles);
            prop_assert!(plan.seconds <= plan.alone);
            for share in plan.shares.iter().filter(|share| share.tiles > 0) {
                prop_assert!(share.seconds <= plan.seconds * 1.000_001 + 1e-9, "{:?}", plan);
            }
            let remote: f64 = mesh.iter().zip(&plan.shares).filter(|(d, _)| d.link.is_some()).map(|(_, s)| s.bytes).sum();
            prop_assert_eq!(remote, plan.bytes());
        }

        #[test]
        fn every_tile_is_planned_whatever_devices_have_to_do_and_hold(
            n in 64u64..5_000,
            has_own in any::<bool>(),
            devices in prop::collection::vec(
                (3.0..12.0, 1u32..9, 3.0..14.0, 0u64..40, 0.0..=1.0, 0.0..=1.0), 1..12,
            ),
        ) {
            let (shape, tiles) = square(n, 4);
            let device = |(id, &(rate, slots, link, load, a, b)): (usize, &(f64, u32, f64, u64, f64, f64))| {
                // Unknown links count as infinitely fast.
                let link = if link > 12.0 { f64::INFINITY } else { 10f64.powf(link) };
                let device = other(id as u8, 10f64.powf(rate), slots, link);
                Capacity { load, held: [a, b], ..device }
            };
            let mut mesh: Vec<Capacity> = devices.iter().enumerate().map(device).collect();
            if has_own {
                mesh[0].link = None;
            }
            let plan = forecast(&shape, tiles, &mesh);
            prop_assert_eq!(plan.shares.iter().map(|share| share.tiles).sum::<u64>(), tiles);
            prop_assert!(plan.seconds > 0.0);
        }
    }

    /// The least over sets of the fastest devices of max(2n³/Σs, V/W).
    fn bound(n: f64, mesh: &[Capacity]) -> f64 {
        let mut speeds: Vec<f64> = mesh[1..].iter().map(|device| device.rate).collect();
        speeds.sort_by(|a, b| b.total_cmp(a));
        let time = |helpers: usize| {
            let sum = mesh[0].rate + speeds[..helpers].iter().sum::<f64>();
            let own = mesh[0].rate / sum;
            let roots: f64 = speeds[..helpers].iter().map(|s| (s / sum).sqrt()).sum();
            let bytes = 8.0 * n * n * (2.0 * roots + 1.0 - own);
            (2.0 * n.powi(3) / sum).max(if helpers == 0 { 0.0 } else { bytes / GIGABIT })
        };
        (0..=speeds.len()).map(time).fold(f64::INFINITY, f64::min)
    }

    fn own(rate: f64, slots: u32) -> Capacity {
        let link = None;
        Capacity {
            link,
            ..other(0, rate, slots, 1.0)
        }
    }

    fn other(id: u8, rate: f64, slots: u32, link: f64) -> Capacity {
        let (device, link) = (DeviceId([id; 32]), Some(link));
        Capacity {
            device,
            rate,
            slots,
            load: 0,
            link,
            held: [0.0; 2],
        }
    }

    fn square(n: u64, slots: u32) -> (Shape, u64) {
        let element = ElementType {
            dtype: Dtype::F64,
            limbs: 1,
        };
        let manifest = Manifest {
            element,
            bits: 0,
            rows: n,
            cols: n,
            blocks: vec![BlockId([0; 32]); Grid::new(n, n, element).len() as usize],
        };
        let header = JobHeader {
            job: JobId([0; 16]),
            name: String::new(),
            class: KernelClass::Any,
            tiling: crate::plan::tiling(&manifest, &manifest, element, slots),
            a: manifest.clone(),
            b: manifest,
            element,
            stack: 1,
            batch: None,
            guard: None,
            share: None,
        };
        (Shape::of(&header), header.tiling.len())
    }
}
