//! Tiles between pending and accepted: who holds them, and what becomes of those that fail.

use super::*;

/// Devices that go away within so long have one reason in common: this node or its network.
const TOGETHER: Span = Span::from_secs(2);

/// How often something happened, counting what happened together once.
fn occasions(times: impl Iterator<Item = Instant>) -> usize {
    let mut times: Vec<Instant> = times.collect();
    times.sort_unstable();
    let mut count = 0;
    let mut since = None;
    for time in times {
        if since.is_none_or(|since| time > since + TOGETHER) {
            since = Some(time);
            count += 1;
        }
    }
    count
}

impl<P> Scheduler<P> {
    pub(super) fn grant(&mut self, tile: u32, device: DeviceId, now: Instant) -> Grant {
        if self.state == JobState::Queued {
            self.state = JobState::Running;
            self.urge();
        }
        while self.leases.contains_key(&LeaseId(self.next_lease)) {
            // Somebody resumed one under a number that was guessed.
            self.next_lease = self.next_lease.wrapping_add(1);
        }
        if let Some(before) = self.lost_by.remove(&tile)
            && before != device
            && self.reassigned < REASSIGNED_MAX
        {
            self.reassigned += 1;
            let name = self.name(before);
            self.log
                .moment(Happening::Reassigned, before, &name, Some(tile), now);
        }
        let lease = LeaseId(self.next_lease);
        self.next_lease = self.next_lease.wrapping_add(1);
        self.lease(lease, tile, device, now)
    }

    /// Books a lease, of this coordinator or of the one before.
    pub(super) fn lease(
        &mut self,
        lease: LeaseId,
        tile: u32,
        device: DeviceId,
        now: Instant,
    ) -> Grant {
        self.unassign(tile);
        self.tiles[tile as usize] = Tile::Leased;
        let slot_time = self.slot_time(device);
        let (row, col) = self.place(tile);
        let helper = self.workers.get_mut(&device).expect("grants go to workers");
        helper.rows.insert(row);
        helper.cols.insert(col);
        helper.held += 1;
        let expected = helper.latency.unwrap_or(2 * slot_time.0);
        let least = match helper.record.kind {
            DeviceKind::Browser if helper.returned > 0 => LEASE_MIN_BROWSER,
            _ => LEASE_MIN_NATIVE,
        };
        let lasts = Span(expected.saturating_mul(4)).max(least);
        self.leases.insert(
            lease,
            Lease {
                tile,
                device,
                granted: now,
                lasts,
                deadline: now + lasts,
                extensions: 0,
                expired: false,
            },
        );
        self.moved = now;
        Grant { lease, tile, lasts }
    }

    pub(super) fn take_lease(&mut self, id: LeaseId) -> Lease {
        let lease = self.leases.remove(&id).expect("a lease that is held");
        if let Some(helper) = self.workers.get_mut(&lease.device) {
            helper.held -= u64::from(!lease.expired);
        }
        lease
    }

    /// Ends a lease without a result; the tile goes back if nobody else computes it.
    pub(super) fn end_lease(&mut self, id: LeaseId) -> u32 {
        let lease = self.take_lease(id);
        if self.tiles[lease.tile as usize] == Tile::Leased {
            self.reopen(lease.tile);
        }
        lease.tile
    }

    /// A tile that is not accepted: leased if somebody computes it, else pending.
    pub(super) fn reopen(&mut self, tile: u32) {
        let state = &mut self.tiles[tile as usize];
        let mut leases = self.leases.values();
        if leases.any(|lease| lease.tile == tile && !lease.expired) {
            *state = Tile::Leased;
        } else if *state != Tile::Pending {
            *state = Tile::Pending;
            self.unassigned.insert(tile);
        }
    }

    /// Takes a pending tile out of whichever share it is in.
    pub(super) fn unassign(&mut self, tile: u32) {
        if !self.unassigned.remove(&tile) {
            let _ = self.workers.values_mut().any(|w| w.share.remove(&tile));
        }
    }

    /// A device failed a tile, or went away with it. Devices may do so for many reasons; a tile
    /// that does it to several is kept to the own slots, and when those fail too the job fails.
    pub(super) fn count_failure(
        &mut self,
        tile: u32,
        device: DeviceId,
        weight: usize,
        now: Instant,
    ) {
        if self.has_ended() {
            return;
        }
        *self
            .failures
            .entry(tile)
            .or_default()
            .entry(device)
            .or_default() += weight;
        let failures = &self.failures[&tile];
        let own = failures.get(&self.me).copied().unwrap_or(0);
        let own_works = self.workers.contains_key(&self.me);
        let others = failures.len() - usize::from(failures.contains_key(&self.me));
        if own >= FAILURES_MAX || (!own_works && others >= FAILURES_MAX) {
            let devices = failures.len();
            let reason = format!(
                "tile {tile} could not be computed: {devices} devices failed it or went away with it"
            );
            self.fail(reason, now);
        }
    }

    /// A device went away while it computed a tile, without a word. It may be the network; three of
    /// them that do not come back, one after the other, are not.
    pub(super) fn count_kill(
        &mut self,
        tile: u32,
        device: DeviceId,
        incarnation: u64,
        now: Instant,
    ) {
        if self.has_ended() {
            return;
        }
        self.kills.entry(tile).or_default().insert(
            device,
            Kill {
                incarnation,
                at: now,
            },
        );
        let kills = &self.kills[&tile];
        if occasions(kills.values().map(|kill| kill.at)) >= FAILURES_MAX {
            let names = kills.keys().map(|device| self.name(*device));
            let names = names.collect::<Vec<_>>().join(", ");
            let reason = format!("tile {tile} was being computed when {names} went away");
            self.fail(reason, now);
        }
    }

    /// A device is there again: if it never stopped, no tile killed it.
    pub(super) fn forgive(&mut self, device: DeviceId, incarnation: u64) {
        self.kills.retain(|_, kills| {
            let kill = kills.get(&device);
            if kill.is_some_and(|kill| kill.incarnation == incarnation) {
                kills.remove(&device);
            }
            !kills.is_empty()
        });
    }

    pub(super) fn may_have(&self, tile: u32, device: DeviceId) -> bool {
        let Some(failures) = self.failures.get(&tile) else {
            return true;
        };
        let count = failures.get(&device).copied().unwrap_or(0);
        let own_only = failures.len() >= FAILURES_MAX && self.workers.contains_key(&self.me);
        count < FAILURES_MAX && (!own_only || device == self.me)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let over = |(id, lease): (&LeaseId, &Lease)| {
            (!lease.expired && now >= lease.deadline).then_some(*id)
        };
        let over: Vec<LeaseId> = self.leases.iter().filter_map(over).collect();
        for id in over {
            let lease = self.leases.get_mut(&id).expect("listed above");
            let (device, tile) = (lease.device, lease.tile);
            let helper = self.workers.get(&device);
            let native = helper.is_some_and(|h| h.record.kind == DeviceKind::Native);
            if native && lease.extensions < EXTENSIONS_MAX {
                // Its link lives, so it computes.
                lease.extensions += 1;
                lease.deadline = now + lease.lasts;
                continue;
            }
            lease.expired = true;
            if let Some(helper) = self.workers.get_mut(&device) {
                helper.held -= 1;
            }
            if self.tiles[tile as usize] == Tile::Leased {
                self.reopen(tile);
            }
            self.lost_by.insert(tile, device);
        }
    }

    /// A device hands leases back.
    pub fn handle_return(
        &mut self,
        from: DeviceId,
        leases: &[LeaseId],
        failed: bool,
        now: Instant,
    ) {
        for id in leases {
            if self
                .leases
                .get(id)
                .is_some_and(|lease| lease.device == from)
            {
                let tile = self.end_lease(*id);
                if failed {
                    let weight = if from == self.me { 1 } else { FAILURES_MAX };
                    self.count_failure(tile, from, weight, now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_go_away_at_once_are_one_occasion() {
        let count = |ms: &[u64]| {
            let times = ms.iter().map(|ms| Instant(0) + Span::from_millis(*ms));
            occasions(times)
        };
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[5_000, 0, 10_000]), 3);
        // One was cut off; then this node stood still, and all links were gone when it went on.
        assert_eq!(count(&[0, 3_190, 3_198, 3_198]), 2);
        assert_eq!(count(&[0, 1_500, 3_000]), 2);
    }
}
