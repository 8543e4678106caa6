//! Which tile a device gets next: of its own share, of nobody's, of somebody slower.

use super::planning::Port;
use super::*;

impl<P> Scheduler<P> {
    /// The tile that a device should compute next, if any.
    pub(super) fn choose(&self, device: DeviceId, now: Instant) -> Option<u32> {
        if self.gathering.is_some() {
            return None;
        }
        let helper = &self.workers[&device];
        self.nearest(helper, &helper.share, device)
            .or_else(|| self.nearest(helper, &self.unassigned, device))
            .or_else(|| self.steal(device, now))
            .or_else(|| self.double(device, now))
    }

    /// Of `tiles`, the one that needs the fewest panels that the device does not have; of these one that makes its
    /// region squarer, so that the panels which are there make as many tiles possible as they can.
    pub(super) fn nearest(
        &self,
        helper: &Helper,
        tiles: &BTreeSet<u32>,
        device: DeviceId,
    ) -> Option<u32> {
        let new_panels = |&tile: &u32| {
            let (row, col) = self.place(tile);
            let new = [!helper.rows.contains(&row), !helper.cols.contains(&col)].map(usize::from);
            let sides = [helper.rows.len() + new[0], helper.cols.len() + new[1]];
            (new[0] + new[1], sides[0].abs_diff(sides[1]))
        };
        let overdue = self.overdue(device);
        let mut allowed = tiles
            .iter()
            .copied()
            .filter(|&tile| self.may_have(tile, device) && !overdue.contains(&tile));
        let scanned = allowed.by_ref().take(SCAN_MAX);
        scanned.min_by_key(new_panels)
    }

    /// A pending tile of the share that would be finished last, if this device would be earlier.
    pub(super) fn steal(&self, thief: DeviceId, now: Instant) -> Option<u32> {
        let helper = &self.workers[&thief];
        // At least so long for one more tile after those that it holds.
        let soonest = self.finish(thief, 1);
        let port = self.port();
        let victims = self.workers.iter().filter_map(|(&id, victim)| {
            if id == thief || victim.share.is_empty() {
                return None;
            }
            let theirs = self.finish_share(id, port, now);
            (theirs > soonest).then_some((theirs, id))
        });
        let mut victims: Vec<(u64, DeviceId)> = victims.collect();
        victims.sort_unstable_by(|a, b| b.cmp(a));
        victims.into_iter().find_map(|(theirs, id)| {
            let tile = self.nearest(helper, &self.workers[&id].share, thief)?;
            let mine = self.finish_with(thief, tile, port);
            (theirs > mine + mine / 8).then_some(tile)
        })
    }

    /// When nothing is pending: a tile that another device should have returned, or will return
    /// later than this one could.
    pub(super) fn double(&self, device: DeviceId, now: Instant) -> Option<u32> {
        let nothing_pending =
            self.unassigned.is_empty() && self.workers.values().all(|w| w.share.is_empty());
        if !nothing_pending {
            return None;
        }
        let overdue = self.overdue(device);
        let port = self.port();
        let of = |(due, lease): (Instant, &Lease)| {
            let may = lease.device != device
                && !overdue.contains(&lease.tile)
                && self.tiles[lease.tile as usize] == Tile::Leased
                && self.may_have(lease.tile, device);
            let mine = || Span(self.finish_with(device, lease.tile, port));
            let late = || now > due + self.grace(lease.device) || due > now + Span(2 * mine().0);
            (may && late()).then_some((due, lease.tile))
        };
        let mut candidates: Vec<(Instant, u32)> =
            self.due(port).into_iter().filter_map(of).collect();
        // What would come last is worth most.
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        let on = |tile: u32| {
            let leases = self.leases.values();
            leases.filter(move |lease| lease.tile == tile && !lease.expired)
        };
        let single = |tile: u32| on(tile).count() == 1;
        candidates
            .into_iter()
            .map(|(_, tile)| tile)
            .find(|&tile| single(tile))
    }

    /// Tiles whose leases a device has let expire: it may still return them, so it does not get
    /// them again.
    pub(super) fn overdue(&self, device: DeviceId) -> BTreeSet<u32> {
        let of = |lease: &&Lease| lease.expired && lease.device == device;
        self.leases.values().filter(of).map(|l| l.tile).collect()
    }

    /// When the leases that have not expired should have their results: devices compute theirs in the order of
    /// grant, as many at a time as they have slots.
    fn due(&self, port: Port) -> Vec<(Instant, &Lease)> {
        let live = self.leases.iter().filter(|(_, lease)| !lease.expired);
        let mut leases: Vec<(DeviceId, Instant, LeaseId, &Lease)> = live
            .map(|(id, lease)| (lease.device, lease.granted, *id, lease))
            .collect();
        leases.sort_unstable_by_key(|&(device, granted, id, _)| (device, granted, id));
        let mut before = (self.me, 0);
        let due = |(device, granted, _, lease)| {
            before = (device, if before.0 == device { before.1 + 1 } else { 1 });
            let Some(helper) = self.workers.get(&device) else {
                return (granted + GRACE_MIN, lease);
            };
            let rounds = (before.1 as u64).div_ceil(u64::from(helper.record.slots.max(1)));
            let kernel = self.slot_time(device).0.saturating_mul(rounds);
            let link = if device == self.me {
                0
            } else {
                port.carries(0.0)
            };
            let since = helper.last_return.unwrap_or(granted).max(granted);
            (since + Span(kernel.max(link)), lease)
        };
        leases.into_iter().map(due).collect()
    }

    pub(super) fn grace(&self, device: DeviceId) -> Span {
        GRACE_MIN.max(Span(2 * self.slot_time(device).0))
    }

    pub(super) fn outstanding(&self, device: DeviceId) -> u64 {
        self.workers.get(&device).map_or(0, |helper| helper.held)
    }

    pub(super) fn place(&self, tile: u32) -> (u64, u64) {
        let cols = self.header.tiling.grid_cols();
        (u64::from(tile) / cols, u64::from(tile) % cols)
    }
}
