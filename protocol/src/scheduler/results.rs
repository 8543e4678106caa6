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
            self.handle_stray(from, id, tile, work, payload, payload_bytes, now);
            return;
        };
        let took = (now - lease.granted).0;
        let operations = self.header.tile_operations(tile);
        if let Some(helper) = self.workers.get_mut(&from) {
            helper.returned += 1;
            helper.kernel = Span(helper.kernel.0.saturating_add(work.kernel.0));
            helper.operations = helper.operations.saturating_add(operations);
            helper.last_return = Some(now);
            helper.latency = Some(helper.latency.map_or(took, |mean| (3 * mean + took) / 4));
        }
        self.take_lease(id);
        if self.workers.contains_key(&from) {
            self.note_kernel(from, now);
        }
        self.moved = now;
        match self.tiles[tile as usize] {
            Tile::Pending | Tile::Elsewhere | Tile::Leased => {}
            Tile::Verifying | Tile::Persisting | Tile::Done => {
                self.recomputed += 1;
                self.verdict(from, id, tile, true, false);
                return;
            }
        }
        let computed = Computed {
            lease: id,
            device: from,
            work,
            source: None,
        };
        self.take_in(tile, computed, payload, payload_bytes, now);
    }

    /// A result that no lease of this coordinator is for: taken back meanwhile, or granted by the
    /// coordinator before. It counts like any other if nobody else was faster.
    #[allow(clippy::too_many_arguments)]
    fn handle_stray(
        &mut self,
        from: DeviceId,
        id: LeaseId,
        tile: u32,
        work: Work,
        payload: P,
        payload_bytes: u64,
        now: Instant,
    ) {
        if !self.workers.contains_key(&from) || tile as usize >= self.tiles.len() {
            return;
        }
        let ours = self
            .leases
            .get(&id)
            .is_some_and(|lease| lease.device != from);
        match self.tiles[tile as usize] {
            Tile::Done if cfg!(gemmesh_bug = "accepts-a-done-tile") => {
                let (device, source) = (from, None);
                let lease = id;
                let computed = Computed {
                    lease,
                    device,
                    work,
                    source,
                };
                self.take_in(tile, computed, payload, payload_bytes, now);
            }
            Tile::Pending | Tile::Elsewhere | Tile::Leased if !ours => {
                let computed = Computed {
                    lease: id,
                    device: from,
                    work,
                    source: None,
                };
                self.take_in(tile, computed, payload, payload_bytes, now);
            }
            state => {
                // The same result twice is no waste; another's is.
                let by = self.stored.get(&tile).map(|stored| stored.done.device);
                let accepted = matches!(state, Tile::Persisting | Tile::Done);
                self.recomputed += u64::from(accepted && by != Some(from));
                if cfg!(gemmesh_bug = "blames-who-is-late") {
                    self.effects.push_back(Effect::Quarantined(from, tile));
                }
                self.verdict(from, id, tile, true, false);
            }
        }
    }

    /// A result for a tile that is not decided yet.
    fn take_in(
        &mut self,
        tile: u32,
        computed: Computed,
        payload: P,
        payload_bytes: u64,
        now: Instant,
    ) {
        if payload_bytes != self.header.tile_bytes(tile) {
            self.reopen_elsewhere(tile);
            self.quarantine(computed.device, computed.lease, tile, now);
            return;
        }
        self.unassign(tile);
        if computed.device == self.me || cfg!(gemmesh_bug = "believes-workers") {
            self.persist(tile, computed, None, payload);
        } else {
            self.tiles[tile as usize] = Tile::Verifying;
            let lease = computed.lease;
            self.verifying.insert(tile, computed);
            self.effects.push_back(Effect::Verify(tile, lease, payload));
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
            Checked::Right => self.persist(tile, computed, None, payload),
            // Whoever kept it may have a bad disk; it did not compute it for this coordinator.
            Checked::Wrong if computed.source.is_some() => {
                computed
                    .source
                    .into_iter()
                    .for_each(|node| self.count_empty_word(node));
                self.reopen_elsewhere(tile);
            }
            Checked::Wrong => {
                self.reopen_elsewhere(tile);
                self.quarantine(computed.device, lease, tile, now);
            }
            Checked::Replaced(work) => {
                self.verdict(computed.device, lease, tile, true, false);
                let (device, lease) = (self.me, computed.lease);
                let own = Computed {
                    lease,
                    device,
                    work,
                    source: None,
                };
                self.persist(tile, own, None, payload);
            }
        }
    }

    /// A tile is durable: it is done. Without a hash it was not what it should be.
    pub fn handle_persisted(&mut self, tile: u32, digest: Option<BlockId>, now: Instant) {
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
            source,
        } = computed;
        let Some(digest) = digest else {
            self.reopen_elsewhere(tile);
            return;
        };
        self.sources.remove(&tile);
        self.tiles[tile as usize] = Tile::Done;
        self.done += 1;
        self.moved = now;
        // Nobody has more busy time than there was time.
        let busy = work.busy.min(now - self.started).max(Span(1));
        let work = Work { busy, ..work };
        self.book(
            StoredTile {
                done: DoneTile { tile, device, work },
                digest,
            },
            now,
        );
        let early = self.early.remove(&tile).unwrap_or_default();
        if let Some(source) = source.filter(|source| !early.contains_key(source)) {
            self.log.held(source, tile, digest);
        }
        for (holder, held) in early {
            self.log.held(holder, tile, held);
        }
        self.failures.remove(&tile);
        self.kills.remove(&tile);
        self.lost_by.remove(&tile);
        self.verdict(device, lease, tile, true, true);
        self.changed.note();
        self.news.note();
        self.finish_if_complete();
    }

    /// Writes down a tile that is durable here.
    pub(super) fn book(&mut self, stored: StoredTile, now: Instant) {
        let DoneTile { tile, device, work } = stored.done;
        self.progress.count(&self.header, tile, device, work);
        self.stored.insert(tile, stored.clone());
        self.log.done(stored, self.header.tile_bytes(tile), now);
    }

    pub(super) fn persist(
        &mut self,
        tile: u32,
        computed: Computed,
        expected: Option<BlockId>,
        payload: P,
    ) {
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
        if let Some(Some(record)) = &contributor {
            self.log.contributor(record);
        }
        let done = DoneTile {
            tile,
            device,
            work: computed.work,
        };
        self.persisting.insert(tile, computed);
        let contributor = contributor.flatten().map(Box::new);
        self.effects
            .push_back(Effect::Persist(done, contributor, expected, payload));
    }

    pub(super) fn quarantine(&mut self, device: DeviceId, lease: LeaseId, tile: u32, now: Instant) {
        self.verdict(device, lease, tile, false, false);
        self.count_failure(tile, device, FAILURES_MAX, now);
        let name = self.name(device);
        let liar = Happening::Quarantined;
        self.log.moment(liar, device, &name, Some(tile), now);
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
