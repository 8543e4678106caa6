//! Slots: one slab at a time, the slabs of a tile in order on one slot.

use super::*;

impl<P: Clone> Worker<P> {
    /// A slot has computed its slab; `result` is C after the last one, with its length.
    pub fn handle_slab_done(
        &mut self,
        slot: u32,
        kernel: Span,
        result: Option<(P, u64)>,
        now: Instant,
    ) {
        // A slot that was aborted owes no answer; one that comes all the same is void.
        let Some(key) = self.stop_slot(slot, now) else {
            return;
        };
        let lease = self.leases.get_mut(&key).expect("a slot's lease is held");
        lease.kernel = Span(lease.kernel.0.saturating_add(kernel.0));
        let job = self.jobs.get_mut(&lease.job).expect("a lease has a job");
        job.busy.add(kernel, now);
        self.busy.add(kernel, now);
        let header = job.header.as_deref().expect("a lease came with a header");
        let last = lease.current.slab.to == header.a.cols;
        match result {
            None if !last => {
                let done = std::mem::replace(
                    &mut lease.current,
                    lease.ahead.take().expect("made when the slab started"),
                );
                unpin(&mut self.cache, &done);
            }
            Some((payload, bytes)) if last && bytes == header.tile_bytes(lease.grant.tile) => {
                let work = Work {
                    kernel: lease.kernel,
                    transfer: lease.transfer,
                    busy: job.busy.total,
                };
                let sent = Sent {
                    coordinator: job.coordinator,
                    tile: lease.grant.tile,
                    rect: lease.rect,
                    operations: header.tile_operations(lease.grant.tile),
                    kernel: lease.kernel,
                };
                self.books.note_sent(lease.job, lease.grant.lease, sent);
                if job.coordinator != self.me {
                    let (tile, result) = (lease.grant.tile, (payload.clone(), bytes));
                    self.unsettled
                        .put(lease.job, lease.grant.lease, tile, work, result);
                }
                self.effects.push_back(Effect::Send {
                    to: job.coordinator,
                    body: Message::Result {
                        job: lease.job,
                        epoch: job.epoch,
                        lease: lease.grant.lease,
                        tile: lease.grant.tile,
                        work,
                    },
                    payload: Some((payload, bytes)),
                });
                job.heard = now;
                self.drop_lease(key, now);
            }
            // The slot broke the rules of `Compute`: treat it as unable.
            _ => {
                let (job, grant) = (lease.job, lease.grant);
                self.drop_lease(key, now);
                self.give_back(job, vec![grant.lease], true);
            }
        }
        self.pump(now);
    }

    /// A slot could not compute: its lease goes back.
    pub fn handle_slot_failed(&mut self, slot: u32, now: Instant) {
        if let Some(key) = self.stop_slot(slot, now) {
            let (job, grant) = (self.leases[&key].job, self.leases[&key].grant);
            self.drop_lease(key, now);
            self.give_back(job, vec![grant.lease], true);
        }
        self.pump(now);
    }

    pub(super) fn start_slabs(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            if self.slots[index].running.is_some() {
                continue;
            }
            let ready = |lease: &Lease| lease.current.missing.is_empty();
            let key = self.slots[index].lease.or_else(|| {
                let free = |(key, lease): (&u64, &Lease)| {
                    (lease.slot.is_none() && ready(lease)).then_some(*key)
                };
                self.leases.iter().find_map(free)
            });
            if let Some(key) = key.filter(|key| ready(&self.leases[key])) {
                self.start_slab(index as u32, key, now);
            }
        }
    }

    pub(super) fn start_slab(&mut self, slot: u32, key: u64, now: Instant) {
        let lease = self.leases.get_mut(&key).expect("chosen from the leases");
        let job = self.jobs.get_mut(&lease.job).expect("a lease has a job");
        let header = job.header.as_deref().expect("a lease came with a header");
        let state = &mut self.slots[slot as usize];
        // What the slot waited for this slab since it could have computed it.
        let waited = (now - state.idle_since.max(lease.granted)).0;
        lease.transfer = Span(lease.transfer.0.saturating_add(waited));
        lease.slot = Some(slot);
        state.lease = Some(key);
        state.running = Some(now);
        let slab = &lease.current.slab;
        let (from, to) = (slab.from, slab.to);
        self.effects.push_back(Effect::Compute(SlabTask {
            slot,
            job: lease.job,
            epoch: job.epoch,
            grant: lease.grant,
            class: job.class,
            shape: TileShape::of(header, lease.rect),
            first: from == 0,
            last: to == header.a.cols,
            from,
            to,
            a: slab.a.clone(),
            b: slab.b.clone(),
        }));
        if to < header.a.cols {
            let next = Slab::new(header, lease.rect, to, lease.depth);
            let ahead = want(&mut self.cache, next);
            lease.ahead = Some(ahead);
        }
    }

    pub(super) fn abort_slot(&mut self, slot: u32, now: Instant) {
        if let Some(key) = self.slots[slot as usize].lease {
            let (job, grant) = (self.leases[&key].job, self.leases[&key].grant);
            self.drop_lease(key, now);
            self.give_back(job, vec![grant.lease], false);
        }
    }

    /// Books that the kernel of a slot stopped; `None` when none ran.
    pub(super) fn stop_slot(&mut self, slot: u32, now: Instant) -> Option<u64> {
        let state = self.slots.get_mut(slot as usize)?;
        state.running.take()?;
        state.idle_since = now;
        Some(state.lease.expect("what runs has a lease"))
    }
}
