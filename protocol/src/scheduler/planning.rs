//! Who takes part, how fast each is believed to be, and which tiles each should take first.

use super::*;
use crate::matrix::Dtype;
use crate::status::PLANNED_MAX;

/// A job that the coordinator does alone in less is not worth a round trip.
const ALONE_MAX: Span = Span::from_millis(30);
/// A link or a kernel counts as another one when it is faster or slower than planned by this factor.
const CHANGE: f64 = 1.5;
/// What is measured goes up and down: no plan for its sake more often than this.
const REPLAN_GAP: Span = Span::from_secs(1);
/// A plan for less than this part of the tiles, one in so many, tells people nothing.
const TOLD_PART: usize = 4;
/// Who seems to need so many times as long as planned is late.
const LATE: f64 = 1.4;
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

/// The coordinator's own link, which all others wait for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Port {
    /// Bytes that it has to carry.
    bytes: f64,
    /// Bytes a second that it can.
    rate: f64,
}

impl Port {
    /// Microseconds until it has carried all that, and `more` bytes.
    pub(super) fn carries(self, more: f64) -> u64 {
        micros((self.bytes + more) / self.rate)
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).clamp(0.0, 1e15) as u64
}

impl<P> Scheduler<P> {
    /// What is known of a device's speed, before it joins or at any time after.
    pub fn measure(&mut self, device: DeviceId, measured: Measured, now: Instant) {
        self.measured.insert(device, measured);
        let Some(helper) = self.workers.get(&device) else {
            return;
        };
        let change = measured.link / helper.planned_link;
        // Links that are shared seem slow: one that does its part in time is not.
        let matters = change > 1.0 || self.lateness(device, now) > LATE;
        if device != self.me && matters {
            self.replan_if(change, now);
        }
    }

    /// A device has returned a tile: its kernels may be faster or slower than planned.
    pub(super) fn note_kernel(&mut self, device: DeviceId, now: Instant) {
        let planned = self.workers[&device].planned_kernel;
        self.replan_if(self.kernel(device) / planned, now);
    }

    /// Makes a new plan when something is so many times as fast as in the present one.
    fn replan_if(&mut self, change: f64, now: Instant) {
        let other = !(1.0 / CHANGE..CHANGE).contains(&change);
        if other && now >= self.planned.0 + REPLAN_GAP {
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
            last_return: None,
            held: 0,
            returned: 0,
            latency: None,
            hungry: false,
            operations: 0,
            kernel: Span(0),
            planned_link: f64::INFINITY,
            planned_kernel: f64::INFINITY,
            returned_before: 0,
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
        let devices = self.capacities();
        let plan = forecast::forecast(&self.shape, tiles.len() as u64, &devices);
        for (capacity, share) in devices.iter().zip(&plan.shares) {
            let helper = self.workers.get_mut(&capacity.device);
            let helper = helper.expect("planned for workers");
            helper.planned_link = capacity.link.unwrap_or(f64::INFINITY);
            helper.planned_kernel = capacity.rate;
            helper.returned_before = helper.returned;
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
        self.planned = (now, seconds);
        if telling {
            self.plan = plan;
        }
        seconds
    }

    /// What a forecast needs to know of the workers, the fastest first.
    fn capacities(&self) -> Vec<Capacity> {
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
                rate: self.kernel(device),
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

    /// Operations a second, all slots together: what its kernels needed for the tiles of this job once every
    /// slot has returned one, else what is known from before or said. A device of which nothing is known is
    /// taken for an average one: its own pace shows soon, and until then it must not stand idle.
    fn kernel(&self, device: DeviceId) -> f64 {
        let helper = &self.workers[&device];
        let slots = f64::from(helper.record.slots.max(1));
        let seen = slots * helper.operations as f64 / helper.kernel.as_secs_f64();
        let enough = helper.returned >= u64::from(helper.record.slots);
        let seen = Some(seen).filter(|_| enough);
        seen.or_else(|| self.measured.get(&device).and_then(|m| m.kernel))
            .filter(|rate| rate.is_finite() && *rate > 0.0)
            .unwrap_or_else(|| self.mean_slot_speed() * slots)
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

    /// Microseconds until a device has finished what it holds and `more` tiles, if it need not wait for panels.
    pub(super) fn finish(&self, device: DeviceId, more: u64) -> u64 {
        let slots = f64::from(self.workers[&device].record.slots);
        let tiles = (self.outstanding(device) + more) as f64;
        micros(tiles.max(slots) * self.tile_operations() / self.kernel(device))
    }

    /// Microseconds until a device has finished what it holds and its share: as its kernels and the rest of what this
    /// node's link has to carry need while it keeps up with the plan.
    pub(super) fn finish_share(&self, device: DeviceId, port: Port, now: Instant) -> u64 {
        let share = self.workers[&device].share.len() as u64;
        let link = if device == self.me {
            0
        } else {
            port.carries(0.0)
        };
        let planned = self.finish(device, share).max(link);
        let (since, seconds) = self.planned;
        let lateness = self.lateness(device, now);
        if lateness < LATE {
            return planned;
        }
        planned.max(micros(lateness * seconds - (now - since).as_secs_f64()))
    }

    /// In how many times the planned time a device will have returned its share, by what it has returned so far. What
    /// arrives makes tiles possible with the square of the time (see [`forecast`]), so who has returned r of N tiles
    /// after a time t has all of them after t·√(N/r).
    fn lateness(&self, device: DeviceId, now: Instant) -> f64 {
        let helper = &self.workers[&device];
        let (since, seconds) = self.planned;
        let start = (self.slot_time(device) + GRACE_MIN).as_secs_f64();
        let elapsed = (now - since).as_secs_f64() - start;
        // What it holds may be about to come.
        let soon = helper.returned - helper.returned_before + helper.held.max(1);
        let all = soon + helper.share.len() as u64;
        (start + elapsed * (all as f64 / soon as f64).sqrt()) / seconds
    }

    /// Microseconds until a device has finished what it holds and `tile`, whose panels may have to be sent first:
    /// after all that others wait for.
    pub(super) fn finish_with(&self, device: DeviceId, tile: u32, port: Port) -> u64 {
        let kernel = self.finish(device, 1);
        let bytes = self.tile_bytes(device, tile);
        if bytes == 0.0 {
            return kernel;
        }
        let before = self.outstanding(device) as f64 * self.workers[&device].tile_bytes;
        let own = micros((before + bytes) / self.link(device));
        kernel.max(own).max(port.carries(bytes))
    }

    /// Bytes that a tile costs at a device: those of its panels that it lacks, and the tile.
    fn tile_bytes(&self, device: DeviceId, tile: u32) -> f64 {
        if device == self.me {
            return 0.0;
        }
        let helper = &self.workers[&device];
        let (row, col) = self.place(tile);
        let [a, b] = self.measured.get(&device).map_or([0.0; 2], |m| m.held);
        let lacks = |there: bool, part: f64| if there { 0.0 } else { 1.0 - part };
        self.shape.tile_bytes([
            lacks(helper.rows.contains(&row), a),
            lacks(helper.cols.contains(&col), b),
        ])
    }

    /// What this node's own link has to carry for what others hold and for their shares. It is as fast as the
    /// fastest link to anybody.
    pub(super) fn port(&self) -> Port {
        let mut port = Port {
            bytes: 0.0,
            rate: 0.0,
        };
        for (id, helper) in self.workers.iter().filter(|(id, _)| **id != self.me) {
            // What is held is half there, on average.
            let tiles = helper.share.len() as f64 + 0.5 * helper.held as f64;
            port.bytes += tiles * helper.tile_bytes;
            port.rate = port.rate.max(self.link(*id));
        }
        port
    }

    /// How long one tile takes in one slot.
    pub(super) fn slot_time(&self, device: DeviceId) -> Span {
        let slots = f64::from(self.workers[&device].record.slots);
        Span(micros(slots * self.tile_operations() / self.kernel(device)))
    }

    fn tile_operations(&self) -> f64 {
        self.header.operations() as f64 / self.tiles.len() as f64
    }
}
