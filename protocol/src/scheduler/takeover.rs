//! Continuing a job that another node, or this one before a restart, coordinated; and letting go
//! of it.
//!
//! Intuition: a new coordinator first asks everybody what they have, then fetches what is stored
//! elsewhere, takes over the leases of those who compute, and leases only what nobody has.

use super::*;
use crate::replication::TILES_MAX;

/// Who does not say by then which tiles it has is not waited for.
const GATHER_MAX: Span = Span::from_millis(400);
/// A tile that only nodes out of reach hold is computed again after so long.
const HOLDERS_WAIT: Span = Span::from_secs(5);
/// A node whose word for a tile was worth nothing so many times is not asked any more.
const EMPTY_WORDS_MAX: u32 = 3;
/// Tiles fetched at a time.
const FETCHES_MAX: usize = 4;

impl<P> Scheduler<P> {
    /// Goes on with what is known, under an epoch that is durable. Nothing is leased before all of
    /// `nodes` have said which tiles they have, or some time has passed.
    ///
    /// # Panics
    /// When the header does not pass its own check.
    pub fn take_over(
        me: &DeviceRecord,
        legacy: Legacy,
        epoch: Epoch,
        first_lease: u64,
        backups_max: usize,
        nodes: BTreeSet<DeviceId>,
        now: Instant,
    ) -> Self {
        let (taken, started) = (legacy.taken, legacy.started);
        let mut job = Self::begin(me, taken, epoch, first_lease, backups_max, started, now);
        // It was not short, or it would be over.
        job.alone = false;
        job.log.inherit(legacy.timeline);
        job.log.prefer(&legacy.backups, now);
        for record in &legacy.contributors {
            job.progress.know(record);
            job.recorded.insert(record.device);
            job.log.contributor(record);
        }
        let before = legacy.before;
        if before != me.device && !nodes.contains(&before) {
            let told = job.log.name_of(before).map(str::to_owned);
            let name = told.unwrap_or_else(|| job.name(before));
            job.log.moment(Happening::Left, before, &name, None, now);
        }
        job.log
            .moment(Happening::TookOver, me.device, &me.name, None, now);
        let tiles = job.tiles.len();
        for (tile, stored) in legacy.held {
            // Bytes on their way to the disk take the place of those that are there.
            if tile as usize >= tiles || legacy.persisting.contains_key(&tile) {
                continue;
            }
            job.tiles[tile as usize] = Tile::Done;
            job.unassigned.remove(&tile);
            job.done += 1;
            let device = stored.done.device;
            if job.recorded.insert(device)
                && let Some(record) = job.progress.record(device)
            {
                job.log.contributor(record);
            }
            job.book(stored, now);
        }
        for (tile, known) in legacy.recorded {
            let mut holders = known.holders;
            holders.remove(&me.device);
            let pending = job.tiles.get(tile as usize) == Some(&Tile::Pending);
            let forgets = cfg!(gemmesh_bug = "computes-safe-tiles-again");
            if pending && !holders.is_empty() && !forgets {
                let digest = Some(known.stored.digest);
                job.elsewhere(known.stored.done, digest, holders);
            }
        }
        for (tile, done) in legacy.persisting {
            if tile as usize >= tiles || job.tiles[tile as usize] == Tile::Done {
                continue;
            }
            job.unassigned.remove(&tile);
            job.sources.remove(&tile);
            job.tiles[tile as usize] = Tile::Persisting;
            let computed = Computed {
                lease: LeaseId(0),
                device: done.device,
                work: done.work,
                source: None,
            };
            job.persisting.insert(tile, computed);
        }
        if job.done > 0 {
            job.state = JobState::Running;
        }
        if !nodes.is_empty() {
            let until = now + GATHER_MAX;
            job.gathering = Some(Gathering {
                until,
                waiting: nodes,
            });
            job.log.wait();
        }
        job
    }

    /// What the next coordinator, or this node as a backup, goes on with.
    pub fn into_legacy(self) -> Legacy {
        let recorded = self.stored.values().map(|stored| {
            let tile = stored.done.tile;
            let mut holders: BTreeSet<DeviceId> = self.log.holders(tile).collect();
            holders.insert(self.me);
            (tile, stored.clone(), holders)
        });
        let elsewhere = self.sources.iter().filter_map(|(tile, source)| {
            let (done, digest) = (source.done.clone(), source.digest?);
            Some((*tile, StoredTile { done, digest }, source.holders.clone()))
        });
        let recorded = recorded.chain(elsewhere);
        let persisting = self.persisting.iter().map(|(&tile, computed)| {
            let (device, work) = (computed.device, computed.work);
            (tile, DoneTile { tile, device, work })
        });
        let contributors = self.recorded.iter();
        Legacy {
            before: self.me,
            taken: self.log.taken().clone(),
            started: self.started,
            backups: self.log.backups().to_vec(),
            contributors: contributors
                .filter_map(|device| self.progress.record(*device).cloned())
                .collect(),
            recorded: recorded
                .map(|(tile, stored, holders)| {
                    (tile, crate::replication::Known { stored, holders })
                })
                .collect(),
            held: self.stored.clone(),
            persisting: persisting.collect(),
            timeline: self.log.timeline(),
        }
    }

    /// The log, to be told to those who lack some of it after the end.
    pub fn into_log(self) -> Log {
        self.log
    }

    fn elsewhere(&mut self, done: DoneTile, digest: Option<BlockId>, holders: BTreeSet<DeviceId>) {
        let tile = done.tile;
        self.unassign(tile);
        self.tiles[tile as usize] = Tile::Elsewhere;
        let source = Source {
            done,
            digest,
            holders,
        };
        self.sources.insert(tile, source);
    }

    pub(super) fn own_name(&self) -> String {
        self.name(self.me)
    }

    pub(super) fn name(&self, device: DeviceId) -> String {
        let record = self.progress.record(device);
        record.map_or_else(|| device.short(), |record| record.name.clone())
    }

    // -- nodes --

    /// A node can be reached: it may be a backup, or hold tiles.
    pub fn node_up(&mut self, record: &DeviceRecord, now: Instant) {
        self.nodes.insert(record.device);
        self.empty_words.remove(&record.device);
        self.log.node_up(record, now);
        let epoch = self.epoch();
        if epoch.counter > 1 {
            // What it held under another coordinator it may have let go of.
            self.told.remove(&record.device);
            let job = self.header.job;
            self.send(record.device, Message::Claim { job, epoch });
        }
    }

    /// It can not be reached any more, or in another way.
    pub fn node_down(&mut self, device: DeviceId, now: Instant) {
        self.nodes.remove(&device);
        self.log.node_down(device, now);
        self.heard_all(device);
    }

    /// A backup says what it has.
    pub fn handle_appended(
        &mut self,
        from: DeviceId,
        epoch: Epoch,
        sequence: u64,
        inputs: bool,
        ended: bool,
    ) {
        self.log
            .handle_appended(from, epoch, sequence, inputs, ended);
    }

    /// A node can not be a backup.
    pub fn handle_declined(&mut self, from: DeviceId, now: Instant) {
        self.log.handle_declined(from, now);
    }

    /// A node has tiles. `record` is its own, in case it has not worked for this coordinator.
    /// `false` when there are no such tiles.
    pub fn handle_held(
        &mut self,
        record: &DeviceRecord,
        epoch: Epoch,
        tiles: Vec<StoredTile>,
        complete: bool,
    ) -> bool {
        if self.has_ended() || epoch != self.epoch() {
            return true;
        }
        let from = record.device;
        let there = |stored: &StoredTile| (stored.done.tile as usize) < self.tiles.len();
        if tiles.len() > TILES_MAX || !tiles.iter().all(there) {
            return false;
        }
        let believed = self.is_believed(from);
        for stored in tiles {
            let tile = stored.done.tile;
            self.told.entry(from).or_default().insert(tile);
            match self.tiles[tile as usize] {
                Tile::Done => self.log.held(from, tile, stored.digest),
                Tile::Elsewhere => {
                    let source = self.sources.get_mut(&tile);
                    let source = source.expect("what is elsewhere has a source");
                    if source
                        .digest
                        .map_or(believed, |digest| digest == stored.digest)
                    {
                        source.holders.insert(from);
                    }
                    // It may have other bytes by now than those that are being fetched from it.
                    let early = self.early.entry(tile).or_default();
                    early.insert(from, stored.digest);
                }
                Tile::Pending if cfg!(gemmesh_bug = "computes-safe-tiles-again") => {}
                Tile::Pending if !believed => {}
                Tile::Pending => {
                    // Nobody has checked it for this coordinator, nor does anybody vouch for who
                    // computed it: it counts for who has it.
                    self.progress.know(record);
                    let done = DoneTile {
                        device: from,
                        ..stored.done
                    };
                    self.elsewhere(done, None, BTreeSet::from([from]));
                }
                // It computed the tile, and its disk was faster.
                Tile::Leased | Tile::Verifying | Tile::Persisting => {
                    let early = self.early.entry(tile).or_default();
                    early.insert(from, stored.digest);
                }
            }
        }
        if complete {
            let told = self.told.remove(&from).unwrap_or_default();
            for (tile, source) in &mut self.sources {
                if !told.contains(tile) {
                    source.holders.remove(&from);
                }
            }
            self.heard_all(from);
        }
        true
    }

    fn heard_all(&mut self, from: DeviceId) {
        if let Some(gathering) = &mut self.gathering {
            gathering.waiting.remove(&from);
        }
    }

    /// A worker goes on with tiles that it had from another coordinator or by another link.
    pub fn handle_resume(&mut self, from: DeviceId, epoch: Epoch, grants: &[Grant], now: Instant) {
        if self.has_ended() || epoch != self.epoch() {
            return;
        }
        let Some(helper) = self.workers.get(&from) else {
            return;
        };
        let window = LEASES_PER_SLOT * u64::from(helper.record.slots);
        // Nobody has more, and each is answered.
        for grant in grants.iter().take(window as usize) {
            let pending = self.tiles.get(grant.tile as usize) == Some(&Tile::Pending);
            let fresh = !self.leases.contains_key(&grant.lease);
            let room = self.outstanding(from) < window;
            if pending && fresh && room && self.may_have(grant.tile, from) {
                self.lease(grant.lease, grant.tile, from, now);
            } else if fresh {
                self.verdict(from, grant.lease, grant.tile, true, false);
            }
        }
    }

    // -- tiles that are elsewhere --

    /// When [`Scheduler::go_on`] has something to do.
    pub(super) fn takeover_timeout(&self) -> Option<Instant> {
        let gathered = self.gathering.as_ref().map(|gathering| gathering.until);
        let wait = self.since + HOLDERS_WAIT;
        let out_of_reach = |(tile, source): (&u32, &Source)| {
            self.is_elsewhere(*tile)
                && !self.fetching.contains(tile)
                && source.holders.is_disjoint(&self.nodes)
        };
        let waits = self.sources.iter().any(out_of_reach);
        earliest(gathered, waits.then_some(wait))
    }

    /// Ends the gathering in time, fetches tiles, gives up those that nobody in reach has.
    pub(super) fn go_on(&mut self, now: Instant) {
        if self.has_ended() {
            return;
        }
        if let Some(gathering) = &self.gathering
            && (gathering.waiting.is_empty() || now >= gathering.until)
        {
            self.gathering = None;
            self.log.go_on(now);
            self.moved = now;
            self.replan(now);
            self.urge();
        }
        if self.sources.is_empty() {
            return;
        }
        let mut lost = Vec::new();
        let mut due = Vec::new();
        for (&tile, source) in &self.sources {
            if self.fetching.contains(&tile) || !self.is_elsewhere(tile) {
                continue;
            }
            let reachable = source.holders.intersection(&self.nodes).next();
            match reachable {
                Some(&holder) => due.push((tile, holder)),
                None if source.holders.is_empty() || now >= self.since + HOLDERS_WAIT => {
                    lost.push(tile);
                }
                None => {}
            }
        }
        due.truncate(FETCHES_MAX.saturating_sub(self.fetching.len()));
        for (tile, holder) in due {
            self.fetching.insert(tile);
            self.effects.push_back(Effect::FetchTile(tile, holder));
        }
        for tile in &lost {
            self.sources.remove(tile);
            self.reopen(*tile);
        }
        if !lost.is_empty() {
            self.replan(now);
        }
    }

    /// The bytes of a tile, or none.
    pub fn handle_fetched(
        &mut self,
        tile: u32,
        from: DeviceId,
        payload: Option<(P, u64)>,
        now: Instant,
    ) {
        self.fetching.remove(&tile);
        if self.has_ended() || !self.is_elsewhere(tile) {
            return;
        }
        let bytes = self.header.tile_bytes(tile);
        let source = self.sources.get_mut(&tile);
        let source = source.expect("what is elsewhere has a source");
        // It is asked once; the others remain, should these bytes be no good.
        source.holders.remove(&from);
        let digest = source.digest;
        let Some((payload, _)) = payload.filter(|(_, length)| *length == bytes) else {
            if digest.is_none() {
                self.count_empty_word(from);
            }
            self.go_on(now);
            return;
        };
        let computed = Computed {
            lease: LeaseId(0),
            device: source.done.device,
            work: source.done.work,
            source: Some(from),
        };
        if digest.is_some() {
            self.persist(tile, computed, digest, payload);
        } else {
            self.tiles[tile as usize] = Tile::Verifying;
            let lease = computed.lease;
            self.verifying.insert(tile, computed);
            self.effects.push_back(Effect::Verify(tile, lease, payload));
        }
    }

    fn is_believed(&self, node: DeviceId) -> bool {
        self.empty_words.get(&node).copied().unwrap_or(0) < EMPTY_WORDS_MAX
    }

    /// A tile that no log tells of was not where a node said that it has it.
    pub(super) fn count_empty_word(&mut self, node: DeviceId) {
        *self.empty_words.entry(node).or_default() += 1;
        if !self.is_believed(node) {
            let unchecked = self.sources.values_mut().filter(|s| s.digest.is_none());
            for source in unchecked {
                source.holders.remove(&node);
            }
        }
    }

    fn is_elsewhere(&self, tile: u32) -> bool {
        self.tiles.get(tile as usize) == Some(&Tile::Elsewhere)
    }

    /// What a node gave for a tile was no good: the next one that has it is asked.
    pub(super) fn reopen_elsewhere(&mut self, tile: u32) {
        let more = |source: &Source| !source.holders.is_empty();
        if self.sources.get(&tile).is_some_and(more) {
            self.tiles[tile as usize] = Tile::Elsewhere;
        } else {
            self.sources.remove(&tile);
            self.reopen(tile);
        }
    }

    /// What the log asks for.
    pub(super) fn tell_backups(&mut self, now: Instant) {
        self.log.handle_time(now);
        while let Some(note) = self.log.poll_note() {
            let effect = match note {
                Note::Send(to, message) => Effect::Send(to, message),
                Note::Backups(backups) => Effect::Backups(backups),
                Note::Moment(moment) => Effect::Moment(moment),
                Note::Changed => {
                    self.changed.note();
                    self.news.note();
                    continue;
                }
            };
            self.effects.push_back(effect);
        }
    }
}
