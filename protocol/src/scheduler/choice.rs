//! Which tile a device gets next: of its own share, of nobody's, of somebody slower.

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

    /// Of `tiles`, the one that needs the fewest panels that the device does not have.
    pub(super) fn nearest(
        &self,
        helper: &Helper,
        tiles: &BTreeSet<u32>,
        device: DeviceId,
    ) -> Option<u32> {
        let new_panels = |&tile: &u32| {
            let (row, col) = self.place(tile);
            u8::from(!helper.rows.contains(&row)) + u8::from(!helper.cols.contains(&col))
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
        let soonest = self.finish(thief, 1, now);
        let victims = self.workers.iter().filter_map(|(&id, victim)| {
            if id == thief || victim.share.is_empty() {
                return None;
            }
            let theirs = if victim.returned > 0 {
                self.finish(id, victim.share.len() as u64, now)
            } else if now < victim.opened + self.grace(id, now) {
                return None;
            } else {
                u64::MAX
            };
            (theirs > soonest).then_some((theirs, id))
        });
        let mut victims: Vec<(u64, DeviceId)> = victims.collect();
        victims.sort_unstable_by(|a, b| b.cmp(a));
        victims.into_iter().find_map(|(theirs, id)| {
            let tile = self.nearest(helper, &self.workers[&id].share, thief)?;
            (theirs > self.finish_with(thief, tile, now)).then_some(tile)
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
        let late = |lease: &Lease| {
            let mine = self.finish_with(device, lease.tile, now);
            let expected = self.expected(lease.device, now);
            let elapsed = (now - lease.granted).0;
            elapsed > 2 * expected || expected.saturating_sub(elapsed) > 2 * mine
        };
        let overdue = self.overdue(device);
        let mut candidates: Vec<(Instant, u32)> = self
            .leases
            .values()
            .filter(|lease| {
                lease.device != device
                    && !lease.expired
                    && !overdue.contains(&lease.tile)
                    && self.tiles[lease.tile as usize] == Tile::Leased
                    && self.may_have(lease.tile, device)
                    && late(lease)
            })
            .map(|lease| (lease.granted, lease.tile))
            .collect();
        candidates.sort_unstable();
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

    /// Microseconds that a lease of this device takes from grant to result.
    pub(super) fn expected(&self, device: DeviceId, now: Instant) -> u64 {
        let observed = self.workers.get(&device).and_then(|helper| helper.latency);
        let guess = || {
            let known = self.workers.contains_key(&device);
            let slot = if known {
                self.slot_time(device, now).0
            } else {
                0
            };
            2 * slot + GRACE_MIN.0
        };
        observed.unwrap_or_else(guess)
    }

    pub(super) fn grace(&self, device: DeviceId, now: Instant) -> Span {
        GRACE_MIN.max(Span(2 * self.slot_time(device, now).0))
    }

    pub(super) fn outstanding(&self, device: DeviceId) -> u64 {
        self.workers.get(&device).map_or(0, |helper| helper.held)
    }

    pub(super) fn place(&self, tile: u32) -> (u64, u64) {
        let cols = self.header.tiling.grid_cols();
        (u64::from(tile) / cols, u64::from(tile) % cols)
    }
}
