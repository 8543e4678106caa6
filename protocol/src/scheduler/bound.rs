//! Jobs of which only one device may have anything: guarded products, and their shares.

use super::*;

impl<P> Effect<P> {
    /// Whether it is only for people, or makes a matrix of the result.
    pub fn is_told(&self) -> bool {
        matches!(
            self,
            Effect::Changed | Effect::News | Effect::Moment(_) | Effect::Backups(_)
        )
    }
}

impl<P> Scheduler<P> {
    pub(super) fn may_have_any(&self, device: DeviceId) -> bool {
        match self.bound {
            Bound::Anyone => true,
            Bound::Nobody => false,
            Bound::Only(only) => only == device,
        }
    }

    /// Gives it to one device, which takes part as soon as it can be reached, and takes it from whom had it.
    pub fn bind(&mut self, device: DeviceId, now: Instant) {
        if let Bound::Only(before) = self.bound
            && before != device
        {
            self.leave(before, false, now);
        }
        self.bound = Bound::Only(device);
        self.moved = now;
    }

    /// Takes it from whom has it, who must not get it again.
    pub(super) fn unbind(&mut self, now: Instant) {
        if let Bound::Only(device) = std::mem::replace(&mut self.bound, Bound::Nobody) {
            self.leave(device, false, now);
        }
    }

    /// Whether somebody who may compute it can be reached.
    pub fn has_worker(&self) -> bool {
        !self.workers.is_empty()
    }

    /// Whether a tile of it is durable.
    pub fn has_tile(&self, tile: u32) -> bool {
        self.tiles.get(tile as usize) == Some(&Tile::Done)
    }

    /// Whether all tiles are durable.
    pub fn is_complete(&self) -> bool {
        self.done == self.tiles.len() as u64
    }

    /// A tile that was put together from what other devices returned, all of it checked.
    pub fn deliver(&mut self, tile: u32, payload: P, payload_bytes: u64) {
        let open = matches!(
            self.tiles.get(tile as usize),
            Some(Tile::Pending | Tile::Elsewhere | Tile::Leased)
        );
        if !open || self.has_ended() {
            return;
        }
        assert_eq!(payload_bytes, self.header.tile_bytes(tile), "of this tile");
        self.unassign(tile);
        let lease = LeaseId(self.next_lease);
        self.next_lease = self.next_lease.wrapping_add(1);
        let nothing = Span(0);
        let computed = Computed {
            lease,
            device: self.me,
            work: Work {
                kernel: nothing,
                transfer: nothing,
                busy: nothing,
            },
            source: None,
        };
        self.persist(tile, computed, None, payload);
    }

    /// Others work for it: it is running, and should take so long.
    pub fn run(&mut self, predicted: f64, now: Instant) {
        if self.state == JobState::Queued {
            self.state = JobState::Running;
        }
        let seconds = (now - self.started).as_secs_f64() + predicted;
        self.predicted = seconds.is_finite().then_some(seconds);
        self.urge();
    }

    /// Something that its status tells has changed elsewhere.
    pub fn nudge(&mut self) {
        self.changed.note();
        self.news.note();
    }

    /// Something for its timeline.
    pub fn happened(&mut self, event: Happening, device: DeviceId, name: &str, now: Instant) {
        self.log.moment(event, device, name, None, now);
        self.nudge();
    }

    /// A share is of no use as a matrix: its tiles are put together with those of others.
    pub(super) fn finish_if_complete(&mut self) {
        if self.is_complete() && self.header.share.is_none() {
            self.effects.push_back(Effect::Finish);
        }
    }
}
