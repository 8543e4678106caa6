//! Who takes part, how fast each is believed to be, and which tiles each should take first.

use super::*;
use crate::matrix::Dtype;
use crate::status::PLANNED_MAX;

/// A job that the coordinator does alone in less is not worth a round trip.
const ALONE_MAX: Span = Span::from_millis(30);
/// A link counts as another one when it is faster or slower than planned by this factor.
const LINK_CHANGE: f64 = 1.5;
/// A plan for less than this part of the tiles, one in so many, tells people nothing.
const TOLD_PART: usize = 4;
/// Operations a second of a slot that nobody knows anything about.
const SLOT_GUESS: f64 = 1e9;

/// What is known of a device's speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Operations of this kind of product a second, all slots together, as far as known.
    pub kernel: Option<f64>,
    /// Bytes a second between the coordinator and the device.
    pub link: f64,
    /// Which part of A and of B it has.
    pub held: [f64; 2],
}

/// Whether a device can compute tiles of a job now, as far as it has room for them.
pub fn is_able(record: &DeviceRecord, header: &JobHeader) -> bool {
    record.classes.contains(&header.class)
        && (record.stacks || header.stack == 1)
        && (record.residues || header.element.dtype != Dtype::Residues)
        && record.slots > 0
        && matches!(record.state, DeviceState::Ready | DeviceState::Busy)
}

/// Why a device that is able is left out of a job whatever the plan; `alone` as [`is_short`] says.
pub fn hindrance(record: &DeviceRecord, header: &JobHeader, alone: bool) -> Option<Limit> {
    let fits = record.limits.fit(header, header.tiling.rect(0));
    match alone {
        _ if !fits => Some(Limit::Memory),
        true => Some(Limit::Start),
        false => None,
    }
}

/// Whether the own slots have done a job before others have heard of it.
pub fn is_short(header: &JobHeader, me: &DeviceRecord, measured: &Measured) -> bool {
    let able = me.state != DeviceState::Paused && me.slots > 0;
    let short = |rate: f64| header.operations() as f64 / rate < ALONE_MAX.as_secs_f64();
    able && measured.kernel.is_some_and(short)
}

/// What a plan says, for people: those with most tiles first, then who is left out.
pub fn planned(plan: &Forecast, name: impl Fn(DeviceId) -> String) -> Vec<Planned> {
    let mut shares: Vec<&forecast::Share> = plan.shares.iter().collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.tiles));
    shares.truncate(PLANNED_MAX);
    let planned = |share: &&forecast::Share| Planned::of(share, name(share.device));
    shares.iter().map(planned).collect()
}

/// The mean speed of a slot among devices of which something is known: speed and slots of each.
pub fn mean_slot_speed(known: impl Iterator<Item = (f64, u32)>) -> f64 {
    let (speed, slots) = known.fold((0.0, 0.0), |sum, one| {
        (sum.0 + one.0, sum.1 + f64::from(one.1))
    });
    if slots > 0.0 {
        speed / slots
    } else {
        SLOT_GUESS
    }
}

impl<P> Scheduler<P> {
    /// What is known of a device's speed, before it joins or at any time after.
    pub fn measure(&mut self, device: DeviceId, measured: Measured, now: Instant) {
        self.measured.insert(device, measured);
        let Some(helper) = self.workers.get(&device) else {
            return;
        };
        let change = measured.link / helper.planned_link;
        if device != self.me && !(1.0 / LINK_CHANGE..LINK_CHANGE).contains(&change) {
            self.replan(now);
        }
    }

    /// Before it starts: if the own slots have done it before others have heard of it, they do it.
    pub fn stay_home_if_short(&mut self, me: &DeviceRecord) {
        let measured = self.measured.get(&me.device);
        self.alone = measured.is_some_and(|measured| is_short(&self.header, me, measured));
    }

    pub(super) fn enrol(&mut self, record: DeviceRecord, now: Instant) -> bool {
        let alone = self.alone && record.device != self.me;
        if !self.may_have_any(record.device) || !is_able(&record, &self.header) {
            return false;
        }
        if let Some(limit) = hindrance(&record, &self.header, alone) {
            if self.left_out.len() < PLANNED_MAX {
                let left_out = Planned::left_out(record.device, record.name, limit);
                self.left_out.insert(record.device, left_out);
            }
            return false;
        }
        self.left_out.remove(&record.device);
        self.progress.know(&record);
        let helper = Helper {
            share: BTreeSet::new(),
            rows: BTreeSet::new(),
            cols: BTreeSet::new(),
            opened: now,
            first_grant: None,
            last_return: None,
            held: 0,
            returned: 0,
            latency: None,
            hungry: false,
            planned_link: f64::INFINITY,
            tile_bytes: 0.0,
            record,
        };
        self.moved = now;
        self.workers.insert(helper.record.device, helper);
        true
    }

    /// Shares out everything pending anew. Seconds until all of it should be there.
    pub(super) fn replan(&mut self, now: Instant) -> f64 {
        for helper in self.workers.values_mut() {
            self.unassigned.append(&mut helper.share);
        }
        if self.workers.is_empty() {
            return f64::INFINITY;
        }
        let mut tiles: Vec<u32> = std::mem::take(&mut self.unassigned).into_iter().collect();
        let devices = self.capacities(now);
        let plan = forecast::forecast(&self.shape, tiles.len() as u64, &devices);
        for (capacity, share) in devices.iter().zip(&plan.shares) {
            let helper = self.workers.get_mut(&capacity.device);
            let helper = helper.expect("planned for workers");
            helper.planned_link = capacity.link.unwrap_or(f64::INFINITY);
            helper.tile_bytes = if share.tiles > 0 {
                share.bytes / share.tiles as f64
            } else {
                self.shape.bytes(1, capacity.held)
            };
        }
        let Rect { rows, cols, .. } = self.header.tiling.rect(0);
        let bytes = |operand| self.header.manifest(operand).element.bytes() as f64;
        let aspect = (rows as f64 * bytes(Operand::A)) / (cols as f64 * bytes(Operand::B));
        let grid_cols = self.header.tiling.grid_cols();
        let telling = TOLD_PART * tiles.len() >= self.tiles.len();
        let counts: Vec<usize> = plan.shares.iter().map(|s| s.tiles as usize).collect();
        let regions = share::regions(&mut tiles, grid_cols, aspect, &counts);
        for (capacity, region) in devices.iter().zip(regions) {
            let helper = self.workers.get_mut(&capacity.device);
            helper.expect("planned for workers").share = region.into_iter().collect();
        }
        let seconds = plan.seconds;
        if telling {
            self.plan = plan;
        }
        seconds
    }

    /// What a forecast needs to know of the workers, the fastest first.
    fn capacities(&self, now: Instant) -> Vec<Capacity> {
        let tiling = &self.header.tiling;
        let (rows, cols) = (tiling.grid_rows() as f64, tiling.grid_cols() as f64);
        let capacity = |(&device, helper): (&DeviceId, &Helper)| {
            let [a, b] = self.measured.get(&device).map_or([0.0; 2], |m| m.held);
            // What it was sent in this job is on its way at least.
            let (rows, cols) = (
                helper.rows.len() as f64 / rows,
                helper.cols.len() as f64 / cols,
            );
            Capacity {
                device,
                rate: self.kernel(device, now),
                slots: helper.record.slots,
                load: self.outstanding(device),
                link: (device != self.me).then(|| self.link(device)),
                held: [a.max(rows), b.max(cols)],
            }
        };
        let mut devices: Vec<Capacity> = self.workers.iter().map(capacity).collect();
        devices.sort_by(|a, b| b.rate.total_cmp(&a.rate));
        devices
    }

    /// The plan, for people.
    pub(super) fn planned(&self) -> Vec<Planned> {
        let mut planned = planned(&self.plan, |device| self.name(device));
        planned.extend(self.left_out.values().cloned());
        planned.truncate(PLANNED_MAX);
        planned
    }

    /// Operations a second, all slots together: what was observed in this job once every slot has
    /// returned a tile, else what is known from before or said. A device of which nothing is known is
    /// taken for an average one: its own pace shows soon, and until then it must not stand idle.
    fn kernel(&self, device: DeviceId, now: Instant) -> f64 {
        self.observed(device, now)
            .map(|tiles| tiles * self.tile_operations())
            .or_else(|| self.measured.get(&device).and_then(|m| m.kernel))
            .filter(|rate| rate.is_finite() && *rate > 0.0)
            .unwrap_or_else(|| {
                let slots = self.workers[&device].record.slots;
                self.mean_slot_speed() * f64::from(slots.max(1))
            })
    }

    fn link(&self, device: DeviceId) -> f64 {
        if device == self.me {
            return f64::INFINITY;
        }
        self.measured.get(&device).map_or(f64::INFINITY, |m| m.link)
    }

    fn mean_slot_speed(&self) -> f64 {
        mean_slot_speed(self.workers.values().filter_map(|helper| {
            let rate = self.measured.get(&helper.record.device)?.kernel?;
            Some((rate, helper.record.slots))
        }))
    }

    /// Tiles a second that a device has returned, once every slot of it has returned one.
    fn observed(&self, device: DeviceId, now: Instant) -> Option<f64> {
        let helper = self.workers.get(&device)?;
        let first = helper.first_grant?;
        let last = helper.last_return?;
        let (slots, returned) = (u64::from(helper.record.slots), helper.returned);
        // Up to the last tile: those that are computed now are no part of what it has returned. But
        // who is late for the next ones is not as fast as it was.
        let span = last - first;
        let late = Span(2 * slots * (span.0 / returned.max(1)));
        let span = if now > last + late { now - first } else { span };
        (returned >= slots).then(|| returned as f64 / span.as_secs_f64().max(1e-3))
    }

    /// Tiles a second, all slots together: what was observed, else what kernel and link promise, and
    /// not more than a device that is late with its first tiles can have.
    pub(super) fn rate(&self, device: DeviceId, now: Instant) -> f64 {
        if let Some(observed) = self.observed(device, now) {
            return observed;
        }
        let helper = &self.workers[&device];
        let kernel = self.kernel(device, now) / self.tile_operations();
        let planned = kernel.min(self.link(device) / helper.tile_bytes.max(1.0));
        match helper.first_grant {
            Some(first) if helper.returned > 0 => {
                let seconds = (now - first).as_secs_f64().max(1e-3);
                planned.min((helper.returned + u64::from(helper.record.slots)) as f64 / seconds)
            }
            _ => planned,
        }
    }

    /// Microseconds until a device has finished what it holds and `more` tiles.
    pub(super) fn finish(&self, device: DeviceId, more: u64, now: Instant) -> u64 {
        let slots = f64::from(self.workers[&device].record.slots);
        let tiles = (self.outstanding(device) + more) as f64;
        let seconds = tiles.max(slots) / self.rate(device, now);
        (seconds * 1e6).min(1e15) as u64
    }

    /// Microseconds until a device has finished what it holds and `tile`, whose panels may have to be
    /// sent first.
    pub(super) fn finish_with(&self, device: DeviceId, tile: u32, now: Instant) -> u64 {
        let kernel = self.finish(device, 1, now);
        let link = self.link(device);
        if !link.is_finite() {
            return kernel;
        }
        let helper = &self.workers[&device];
        let (row, col) = self.place(tile);
        let [a, b] = self.measured.get(&device).map_or([0.0; 2], |m| m.held);
        let lacks = [
            if helper.rows.contains(&row) {
                0.0
            } else {
                1.0 - a
            },
            if helper.cols.contains(&col) {
                0.0
            } else {
                1.0 - b
            },
        ];
        let before = self.outstanding(device) as f64 * helper.tile_bytes;
        let bytes = before + self.shape.tile_bytes(lacks);
        kernel.max((bytes / link * 1e6).min(1e15) as u64)
    }

    /// How long one tile takes in one slot.
    pub(super) fn slot_time(&self, device: DeviceId, now: Instant) -> Span {
        let slots = f64::from(self.workers[&device].record.slots);
        Span((slots / self.rate(device, now) * 1e6).min(1e15) as u64)
    }

    fn tile_operations(&self) -> f64 {
        self.header.operations() as f64 / self.tiles.len() as f64
    }
}
