//! Tiles that this node keeps: its own worker's, and copies of others'.

use super::*;

impl<P> Backup<P> {
    /// The own worker has computed a tile.
    pub fn keep(&mut self, own: &DeviceRecord, done: DoneTile, payload: P) {
        let tile = done.tile;
        self.contributors
            .entry(own.device)
            .or_insert_with(|| own.clone());
        let busy = self.persisting.contains_key(&tile) || self.held.contains_key(&tile);
        if busy || self.ending.is_some() {
            return;
        }
        self.persisting.insert(tile, done.clone());
        self.effects.push_back(Effect::Persist(done, None, payload));
    }

    /// A tile is durable here, or was not what it should be.
    pub fn handle_persisted(&mut self, tile: u32, digest: Option<BlockId>, now: Instant) {
        let Some(done) = self.persisting.remove(&tile) else {
            return;
        };
        let Some(digest) = digest else {
            if let Some(from) = self.given.remove(&tile) {
                *self.doubts.entry((tile, from)).or_default() += 1;
            }
            if let Some(at) = self.wanted.get_mut(&tile) {
                *at = now + RETRY;
            }
            return;
        };
        self.given.remove(&tile);
        let stored = StoredTile { done, digest };
        self.held.insert(tile, stored.clone());
        if self.has(tile) {
            self.wanted.remove(&tile);
        }
        if self.hears() {
            self.tell_held(vec![stored], false);
        }
        self.finish(now);
    }

    /// Whether the recorded bytes of a tile are here.
    pub(super) fn has(&self, tile: u32) -> bool {
        let recorded = self.recorded.get(&tile).map(|known| known.stored.digest);
        let held = self.held.get(&tile).map(|stored| stored.digest);
        held.is_some() && recorded.is_none_or(|digest| held == Some(digest))
    }

    pub(super) fn want(&mut self, tile: u32, now: Instant) {
        if !self.has(tile) {
            self.wanted.entry(tile).or_insert(now);
        }
    }

    /// Bytes of a tile from another node, or none.
    pub fn handle_fetched(&mut self, tile: u32, payload: Option<P>, now: Instant) {
        let from = self.fetching.remove(&tile);
        if self.has(tile) {
            self.wanted.remove(&tile);
            return;
        }
        let Some(known) = self.recorded.get(&tile).filter(|_| !self.over) else {
            return;
        };
        match payload {
            Some(payload) if !self.persisting.contains_key(&tile) => {
                let (done, digest) = (known.stored.done.clone(), known.stored.digest);
                self.wanted.insert(tile, now + FETCH_MAX);
                if let Some(from) = from {
                    self.given.insert(tile, from);
                }
                self.persisting.insert(tile, done.clone());
                self.effects
                    .push_back(Effect::Persist(done, Some(digest), payload));
            }
            _ => {
                if let Some(from) = from {
                    *self.doubts.entry((tile, from)).or_default() += 1;
                }
                if let Some(at) = self.wanted.get_mut(&tile) {
                    *at = now + RETRY;
                }
            }
        }
    }

    pub(super) fn fetch(&mut self, now: Instant) {
        let due = self.wanted.iter().filter(|(_, at)| now >= **at);
        let due: Vec<u32> = due.map(|(tile, _)| *tile).collect();
        for tile in due {
            if self.fetching.len() >= FETCHES_MAX {
                return;
            }
            self.fetching.remove(&tile);
            let coordinator = self.coordinator();
            let holders = self.recorded.get(&tile).map(|known| &known.holders);
            let mut sources: Vec<DeviceId> = holders
                .into_iter()
                .flatten()
                .copied()
                .chain([coordinator])
                .filter(|device| *device != self.me && self.linked.contains(device))
                .collect();
            // The coordinator first, the others in turn.
            sources.sort_by_key(|device| (*device != coordinator, *device));
            sources.dedup();
            let turn = (now.0 / RETRY.0) as usize;
            let source = match sources.is_empty() {
                true => None,
                false => Some(sources[turn % sources.len()]),
            };
            let Some(source) = source else {
                self.wanted.insert(tile, now + RETRY);
                continue;
            };
            self.wanted.insert(tile, now + FETCH_MAX);
            self.fetching.insert(tile, source);
            self.effects.push_back(Effect::FetchTile(tile, source));
        }
    }
}
