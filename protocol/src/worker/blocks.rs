//! Blocks: asked for in the order of need, within a window; kept by the shell.

use super::*;

/// A block to ask for: for which job, where it is, its bytes.
type Ask = (JobId, BlockId, Place, u64);

impl<P: Clone> Worker<P> {
    pub(super) fn handle_block(
        &mut self,
        from: DeviceId,
        id: JobId,
        operand: Operand,
        block: u32,
        payload: P,
        now: Instant,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(header) = job.header.as_deref().filter(|_| job.coordinator == from) else {
            return;
        };
        let manifest = header.manifest(operand);
        let Some(&hash) = manifest.blocks.get(block as usize) else {
            return;
        };
        job.heard = now;
        // Only what was asked for is taken in, so that nobody fills the cache.
        let asked = self
            .requests
            .get(&hash)
            .is_some_and(|r| r.coordinator == from);
        if !asked {
            return;
        }
        let bytes = self.forget_request(&hash, true, now);
        self.expect(id, operand, block, hash, bytes);
        self.effects.push_back(Effect::Keep {
            job: id,
            operand,
            block,
            id: hash,
            payload,
        });
    }

    /// The shell has a block, its hash checked.
    pub fn handle_block_ready(&mut self, job: JobId, operand: Operand, block: u32, now: Instant) {
        if let Some((id, bytes)) = self.expected.remove(&(job, operand, block)) {
            self.expected_ids.remove(&id);
            self.bad.remove(&id);
            self.cache.insert(id, bytes);
            let cache = &mut self.cache;
            for lease in self.leases.values_mut() {
                for wanted in std::iter::once(&mut lease.current).chain(&mut lease.ahead) {
                    if wanted.missing.remove(&id).is_some() {
                        cache.pin(&id);
                        wanted.pinned.insert(id);
                    }
                }
            }
            if let Some(job) = self.jobs.get_mut(&job) {
                job.heard = now;
            }
        }
        self.pump(now);
    }

    /// A block is broken: it is asked for again, and after that the leases that need it go back.
    pub fn handle_block_bad(&mut self, job: JobId, operand: Operand, block: u32, now: Instant) {
        if let Some((id, _)) = self.expected.remove(&(job, operand, block)) {
            self.expected_ids.remove(&id);
            let times = self.bad.entry(id).or_default();
            *times += 1;
            if *times >= BAD_BLOCKS_MAX {
                self.bad.remove(&id);
                let needs = |lease: &Lease| {
                    let ahead = lease.ahead.as_ref();
                    lease.current.missing.contains_key(&id)
                        || ahead.is_some_and(|wanted| wanted.missing.contains_key(&id))
                };
                self.return_where(needs, true, now);
            }
        }
        self.pump(now);
    }

    /// Asks for missing blocks: first what slots wait for, then first slabs of the next tiles,
    /// then what comes after in tiles that are computed. Blocks in use and on their way stay within the
    /// window; what does not fit waits until others are done, but for the oldest tile, which always gets
    /// what it needs.
    pub(super) fn fetch(&mut self, now: Instant) {
        if self.requested_bytes >= FETCH_BYTES_MAX {
            return;
        }
        let served = |lease: &&Lease| self.jobs[&lease.job].orphaned.is_none();
        let in_slot = self.leases.values().filter(|lease| lease.slot.is_some());
        let in_slot = in_slot.filter(served);
        let waiting = self.leases.values().filter(|lease| lease.slot.is_none());
        let waiting = waiting.filter(served);
        let oldest = in_slot.clone().chain(waiting.clone()).next();
        let oldest = oldest.map(|lease| lease.grant.lease);
        let order = in_slot
            .clone()
            .chain(waiting)
            .map(|lease| (lease, &lease.current, Some(lease.grant.lease) == oldest))
            .chain(in_slot.filter_map(|lease| Some((lease, lease.ahead.as_ref()?, false))));
        let coming: u64 = self.expected.values().map(|(_, bytes)| bytes).sum();
        let mut used = self.cache.pinned() + self.requested_bytes + coming;
        let mut asks: Vec<Ask> = Vec::new();
        let mut chosen = BTreeSet::new();
        let mut bytes = self.requested_bytes;
        'all: for (lease, wanted, must) in order {
            let job = lease.job;
            let header = self.jobs[&job].header.as_deref();
            let header = header.expect("a lease came with a header");
            for (id, place) in &wanted.missing {
                let under_way = self.requests.contains_key(id) || self.expected_ids.contains(id);
                if under_way || chosen.contains(id) {
                    continue;
                }
                let size = header
                    .manifest(place.0)
                    .grid()
                    .block_bytes(u64::from(place.1));
                if !must && used.saturating_add(size) > self.memory.window_bytes {
                    break 'all;
                }
                chosen.insert(*id);
                asks.push((job, *id, *place, size));
                bytes += size;
                used += size;
                if bytes >= FETCH_BYTES_MAX {
                    break 'all;
                }
            }
        }
        if bytes < LOOK_AHEAD_MAX {
            let room = self.memory.window_bytes.saturating_sub(used);
            asks.extend(self.look_ahead(&chosen, (LOOK_AHEAD_MAX - bytes).min(room)));
        }
        let mut messages: BTreeMap<(JobId, Operand), Vec<u32>> = BTreeMap::new();
        for (job, id, (operand, block), bytes) in asks {
            let state = self.jobs.get_mut(&job).expect("a lease has a job");
            if !self
                .requests
                .values()
                .any(|r| r.coordinator == state.coordinator)
            {
                state.heard = now;
            }
            messages.entry((job, operand)).or_default().push(block);
            if state.coordinator == self.me {
                self.expect(job, operand, block, id, bytes);
                continue;
            }
            let coordinator = state.coordinator;
            self.requested_bytes += bytes;
            self.intake.asked(coordinator, bytes, now);
            let request = Request {
                coordinator,
                job,
                bytes,
            };
            self.requests.insert(id, request);
        }
        for ((job, operand), mut blocks) in messages {
            blocks.sort_unstable();
            let to = self.jobs[&job].coordinator;
            self.effects.push_back(if to == self.me {
                Effect::Load {
                    job,
                    operand,
                    blocks,
                }
            } else {
                let body = Message::Fetch {
                    job,
                    operand,
                    blocks,
                    link: self.intake.rate(to, now),
                };
                Effect::Send {
                    to,
                    body,
                    payload: None,
                }
            });
        }
    }

    /// Blocks of later slabs, at most so many bytes: a link that has nothing more urgent to carry fetches what
    /// will be needed, so that tiles whose panels are there pay for those that lack theirs. Only where the
    /// panels of all leases fit into half of the cache: what is fetched early must not push out what is used.
    fn look_ahead(&mut self, chosen: &BTreeSet<BlockId>, mut room: u64) -> Vec<Ask> {
        let mut asks = Vec::new();
        let mut asked = BTreeSet::new();
        let count = self.leases.len() as u64;
        for lease in self.leases.values_mut() {
            let job = &self.jobs[&lease.job];
            if job.coordinator == self.me || job.orphaned.is_some() {
                continue;
            }
            let header = job.header.as_deref();
            let header = header.expect("a lease came with a header");
            let inner = header.a.cols;
            let panels = slab::resident_bytes(header, lease.rect, inner);
            if header.stack > 1 || panels.saturating_mul(count) > self.memory.cache_bytes / 2 {
                continue;
            }
            let planned = lease.ahead.as_ref().unwrap_or(&lease.current).slab.to;
            lease.looked_to = lease.looked_to.max(planned);
            while lease.looked_to < inner {
                let slab = Slab::new(header, lease.rect, lease.looked_to, lease.depth);
                for (id, place) in slab.blocks() {
                    let there = self.cache.contains(&id)
                        || self.requests.contains_key(&id)
                        || self.expected_ids.contains(&id)
                        || chosen.contains(&id)
                        || asked.contains(&id);
                    if there {
                        continue;
                    }
                    let grid = header.manifest(place.0).grid();
                    let size = grid.block_bytes(u64::from(place.1));
                    if size > room {
                        return asks;
                    }
                    room -= size;
                    asked.insert(id);
                    asks.push((lease.job, id, place, size));
                }
                lease.looked_to = slab.to;
            }
        }
        asks
    }

    pub(super) fn expect(
        &mut self,
        job: JobId,
        operand: Operand,
        block: u32,
        id: BlockId,
        bytes: u64,
    ) {
        self.expected.insert((job, operand, block), (id, bytes));
        self.expected_ids.insert(id);
    }

    /// A block is not waited for any more, because it arrived or because it will not. Its bytes.
    fn forget_request(&mut self, id: &BlockId, arrived: bool, now: Instant) -> u64 {
        let Some(request) = self.requests.remove(id) else {
            return 0;
        };
        let (coordinator, bytes) = (request.coordinator, request.bytes);
        self.intake.settled(coordinator, bytes, arrived, now);
        self.requested_bytes -= bytes;
        bytes
    }

    pub(super) fn forget_requests(&mut self, which: impl Fn(&Request) -> bool, now: Instant) {
        let of = |(id, request): (&BlockId, &Request)| which(request).then_some(*id);
        let ids: Vec<BlockId> = self.requests.iter().filter_map(of).collect();
        for id in ids {
            self.forget_request(&id, false, now);
        }
    }
}
