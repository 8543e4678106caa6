//! Following the log: what it says is taken in, made durable and acknowledged.

use super::*;

impl<P> Backup<P> {
    /// The coordinator of an epoch that is not lower than any seen sends entries.
    pub fn handle_append(
        &mut self,
        epoch: Epoch,
        elapsed: Span,
        first: u64,
        mut entries: Vec<Entry>,
        now: Instant,
    ) {
        self.follow(epoch);
        self.confirm();
        self.started = Instant(now.0.saturating_sub(elapsed.0));
        if first > self.received {
            // Something is missing: it says where to go on.
            self.acknowledge();
            return;
        }
        let known = (self.received - first).min(entries.len() as u64);
        entries.drain(..known as usize);
        for entry in &entries {
            self.apply(entry, now);
        }
        self.received += entries.len() as u64;
        if entries.is_empty() && self.durable == Some(epoch) {
            self.acknowledge();
        } else {
            self.record(entries);
        }
        self.report();
        self.want_result(now);
        self.effects.push_back(Effect::Changed);
    }

    /// Listens to this epoch from now on, if it is higher.
    pub(super) fn follow(&mut self, epoch: Epoch) {
        let past = cfg!(gemmesh_bug = "listens-to-the-past") && epoch != self.epoch;
        if epoch > self.epoch || past {
            let before = self.coordinator();
            if before != epoch.device && before != self.me && self.linked.contains(&before) {
                // It may not reach the one that has taken its place.
                let (job, vote) = (self.taken.header.job, Vote::Lives { epoch });
                self.send(before, Message::Vote { job, vote });
            }
            self.epoch = epoch;
            self.received = 0;
            self.sequence = 0;
            self.confirmed = false;
            self.reported = false;
            self.claimed = false;
            self.asked = false;
        }
    }

    pub(super) fn confirm(&mut self) {
        self.confirmed = true;
        self.election.settle();
    }

    pub(super) fn record(&mut self, entries: Vec<Entry>) {
        let record = Effect::Record(self.epoch, self.received, entries);
        self.effects.push_back(record);
    }

    pub(super) fn apply(&mut self, entry: &Entry, now: Instant) {
        match entry {
            Entry::Taken(_) => {}
            Entry::Backups(backups) => self.backups.clone_from(backups),
            Entry::Contributor(record) => {
                let known = self.contributors.contains_key(&record.device);
                if known || self.contributors.len() < CONTRIBUTIONS_MAX {
                    self.contributors.insert(record.device, (**record).clone());
                }
            }
            Entry::Done { stored, keeper } => {
                let tile = stored.done.tile;
                let known = self.recorded.entry(tile).or_insert_with(|| Known {
                    stored: stored.clone(),
                    holders: BTreeSet::new(),
                });
                if known.stored.digest != stored.digest {
                    // Other last bits, computed elsewhere: the present coordinator's count.
                    known.stored = stored.clone();
                    known.holders.clear();
                }
                self.holders += u64::from(known.holders.insert(self.epoch.device));
                if *keeper == Some(self.me) {
                    self.want(tile, now);
                }
            }
            Entry::Keep { tile, keeper } => {
                if *keeper == self.me {
                    self.want(*tile, now);
                }
            }
            Entry::Held { tile, holder } => {
                if let Some(known) = self.recorded.get_mut(tile)
                    && known.holders.len() < HOLDERS_MAX
                {
                    self.holders += u64::from(known.holders.insert(*holder));
                }
            }
            Entry::Moment(moment) => {
                if self.timeline.len() == TIMELINE_MAX {
                    self.timeline.remove(1);
                }
                self.timeline.push(moment.clone());
            }
            Entry::Ended(status) => self.end((**status).clone(), now),
        }
    }

    /// Entries are durable here.
    pub fn handle_recorded(&mut self, epoch: Epoch, sequence: u64) {
        self.durable = self.durable.max(Some(epoch));
        if epoch != self.epoch {
            return;
        }
        self.sequence = self.sequence.max(sequence.min(self.received));
        self.acknowledge();
        self.answer_claim();
    }

    pub(super) fn acknowledge(&mut self) {
        let message = Message::Appended {
            job: self.taken.header.job,
            epoch: self.epoch,
            sequence: match cfg!(gemmesh_bug = "acknowledges-before-the-disk") {
                true => self.received,
                false => self.sequence,
            },
            inputs: self.inputs(),
            ended: self.over,
        };
        self.send(self.coordinator(), message);
    }

    /// The disk can not take part: somebody else should.
    pub fn handle_unable(&mut self, now: Instant) {
        if !self.hears() {
            // Nobody else may have what is here: the disk may have room again. What was on its way
            // to the disk is not there.
            self.persisting.clear();
            self.received = self.sequence;
            if self.finishing && self.whole.is_none() {
                // Of the tiles here one can not be read.
                self.whole = Some(Copy::Missing { retry: now + RETRY });
            }
            self.election.hold(now);
            return;
        }
        let coordinator = self.coordinator();
        self.decline(coordinator);
    }

    /// This node can not take part: `to` should find another.
    pub fn decline(&mut self, to: DeviceId) {
        let job = self.taken.header.job;
        self.send(to, Message::Declined { job });
        self.over = true;
        self.effects.push_back(Effect::Drop(false));
    }

    /// A new coordinator wants to know which tiles are here.
    pub fn handle_claim(&mut self, epoch: Epoch) {
        self.follow(epoch);
        self.confirm();
        self.claimed = true;
        if self.durable == Some(epoch) {
            self.answer_claim();
        } else {
            self.record(Vec::new());
        }
    }

    pub(super) fn answer_claim(&mut self) {
        if self.durable == Some(self.epoch) && std::mem::take(&mut self.claimed) {
            let tiles: Vec<StoredTile> = self.held.values().cloned().collect();
            self.reported = true;
            self.tell_held(tiles, true);
        }
    }

    pub(super) fn tell_held(&mut self, tiles: Vec<StoredTile>, complete: bool) {
        let (job, epoch) = (self.taken.header.job, self.epoch);
        let mut parts: Vec<Vec<StoredTile>> = tiles.chunks(TILES_MAX).map(<[_]>::to_vec).collect();
        if complete && parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len().saturating_sub(1);
        for (n, tiles) in parts.into_iter().enumerate() {
            let complete = complete && n == last;
            let message = Message::Held {
                job,
                epoch,
                tiles,
                complete,
            };
            self.send(self.coordinator(), message);
        }
    }

    /// After a link or an epoch came up: what the coordinator may not know to be here.
    pub(super) fn report(&mut self) {
        if !self.reported && self.hears() && !self.claimed {
            self.reported = true;
            let me = self.me;
            let unknown = self.held.values().filter(|stored| {
                let known = self.recorded.get(&stored.done.tile);
                known.is_none_or(|known| !known.holders.contains(&me))
            });
            let unknown: Vec<StoredTile> = unknown.cloned().collect();
            self.tell_held(unknown, false);
        }
    }

    /// News of the job, told by its coordinator.
    pub fn handle_news(&mut self, status: &JobStatus, now: Instant) {
        let epoch = Epoch {
            counter: status.epoch,
            device: status.coordinator,
        };
        if !self.listens_to(epoch) || self.over {
            return;
        }
        self.follow(epoch);
        self.confirm();
        self.report();
        if status.state == JobState::Done && !self.is_backup() {
            self.over = true;
            self.effects.push_back(Effect::Drop(false));
        } else if status.state.has_ended() {
            self.end(status.clone(), now);
        }
    }
}
