//! From a result to a tile that is done: accepted once, verified, durable.

use super::*;

impl<P> Scheduler<P> {
    /// A tile was computed.
    #[allow(clippy::too_many_arguments)]
    pub fn handle_result(
        &mut self,
        from: DeviceId,
        id: LeaseId,
        tile: u32,
        work: Work,
        payload: P,
        payload_bytes: u64,
        now: Instant,
    ) {
        let job = self.header.job;
        if self.has_ended() {
            self.send(from, Message::Closed { job });
            return;
        }
        let fits = |lease: &&Lease| lease.device == from && lease.tile == tile;
        let Some(lease) = self.leases.get(&id).filter(fits) else {
            // Taken back meanwhile; if the tile is accepted this is a late double.
            if self.workers.contains_key(&from) {
                let state = self.tiles.get(tile as usize);
                let accepted = matches!(state, Some(Tile::Persisting | Tile::Done));
                self.recomputed += u64::from(accepted);
                self.verdict(from, id, tile, true, false);
            }
            return;
        };
        let took = (now - lease.granted).0;
        let expired = lease.expired;
        if let Some(helper) = self.workers.get_mut(&from) {
            helper.returned += 1;
            helper.latency = Some(helper.latency.map_or(took, |mean| (3 * mean + took) / 4));
        }
        self.take_lease(id);
        self.moved = now;
        match self.tiles[tile as usize] {
            Tile::Pending | Tile::Leased => {}
            Tile::Verifying | Tile::Persisting | Tile::Done => {
                self.recomputed += 1;
                self.verdict(from, id, tile, true, false);
                return;
            }
        }
        if payload_bytes != self.header.tile_bytes(tile) {
            self.reopen(tile);
            self.quarantine(from, id, tile, now);
            return;
        }
        if expired || self.tiles[tile as usize] == Tile::Pending {
            self.unassign(tile);
        }
        let computed = Computed {
            lease: id,
            device: from,
            work,
        };
        if from == self.me {
            self.persist(tile, computed, payload);
        } else {
            self.tiles[tile as usize] = Tile::Verifying;
            self.verifying.insert(tile, computed);
            self.effects.push_back(Effect::Verify(tile, id, payload));
        }
    }

    /// A tile of another device was checked.
    pub fn handle_verified(
        &mut self,
        tile: u32,
        lease: LeaseId,
        checked: Checked,
        payload: P,
        now: Instant,
    ) {
        if self.has_ended() {
            return;
        }
        let expected = self.verifying.get(&tile);
        if expected.is_none_or(|computed| computed.lease != lease) {
            return;
        }
        let computed = self.verifying.remove(&tile).expect("found above");
        match checked {
            Checked::Right => self.persist(tile, computed, payload),
            Checked::Wrong => {
                self.reopen(tile);
                self.quarantine(computed.device, lease, tile, now);
            }
            Checked::Replaced(work) => {
                self.verdict(computed.device, lease, tile, true, false);
                let (device, lease) = (self.me, computed.lease);
                let own = Computed {
                    lease,
                    device,
                    work,
                };
                self.persist(tile, own, payload);
            }
        }
    }

    /// A tile is durable: it is done.
    pub fn handle_persisted(&mut self, tile: u32, now: Instant) {
        let Some(computed) = self.persisting.remove(&tile) else {
            return;
        };
        if self.has_ended() {
            return;
        }
        let Computed {
            lease,
            device,
            work,
        } = computed;
        self.tiles[tile as usize] = Tile::Done;
        self.done += 1;
        self.moved = now;
        // Nobody has more busy time than there was time.
        let busy = work.busy.min(now - self.started).max(Span(1));
        let work = Work { busy, ..work };
        self.progress.count(&self.header, tile, device, work);
        self.failures.remove(&tile);
        self.verdict(device, lease, tile, true, true);
        self.changed.note();
        self.news.note();
        if self.done == self.tiles.len() as u64 {
            self.effects.push_back(Effect::Finish);
        }
    }

    pub(super) fn persist(&mut self, tile: u32, computed: Computed, payload: P) {
        let device = computed.device;
        self.tiles[tile as usize] = Tile::Persisting;
        // The tile is decided: whoever else computes it may stop.
        let doubles = self.leases.iter().filter(|(_, lease)| lease.tile == tile);
        let doubles: Vec<(LeaseId, DeviceId)> =
            doubles.map(|(id, lease)| (*id, lease.device)).collect();
        for (id, other) in doubles {
            self.take_lease(id);
            self.verdict(other, id, tile, true, false);
        }
        let first = self.recorded.insert(device);
        let contributor = first.then(|| self.progress.record(device).cloned());
        let done = DoneTile {
            tile,
            device,
            work: computed.work,
        };
        self.persisting.insert(tile, computed);
        let contributor = contributor.flatten().map(Box::new);
        self.effects
            .push_back(Effect::Persist(done, contributor, payload));
    }

    pub(super) fn quarantine(&mut self, device: DeviceId, lease: LeaseId, tile: u32, now: Instant) {
        self.verdict(device, lease, tile, false, false);
        self.count_failure(tile, device, FAILURES_MAX, now);
        self.effects.push_back(Effect::Quarantined(device, tile));
    }

    pub(super) fn verdict(
        &mut self,
        to: DeviceId,
        lease: LeaseId,
        tile: u32,
        valid: bool,
        accepted: bool,
    ) {
        let body = Message::Verdict {
            job: self.header.job,
            lease,
            tile,
            valid,
            accepted,
        };
        self.send(to, body);
    }
}
