//! Links to others, and this node's part in elections.

use super::*;

impl<P> Backup<P> {
    /// The nodes that are linked now; `renewed` are those whose link is another than before.
    pub fn handle_links(
        &mut self,
        linked: &BTreeSet<DeviceId>,
        renewed: &BTreeSet<DeviceId>,
        now: Instant,
    ) {
        let coordinator = self.coordinator();
        if renewed.contains(&coordinator) || !linked.contains(&coordinator) {
            self.confirmed = false;
            self.reported = false;
            self.asked = false;
        }
        let more = linked.iter().any(|device| !self.linked.contains(device));
        self.linked.clone_from(linked);
        if more {
            self.refused = 0;
            for copy in self.operands.values_mut().chain(&mut self.whole) {
                if let Copy::Missing { retry } = copy {
                    *retry = now;
                }
            }
            for at in self.wanted.values_mut() {
                *at = now;
            }
        }
        self.handle_time(now);
    }

    pub(super) fn rank(&self) -> Rank {
        let coordinator = self.coordinator();
        Rank {
            epoch: self.epoch,
            // Nobody has more of a log than who wrote it.
            sequence: match coordinator == self.me {
                true => u64::MAX,
                false => self.sequence,
            },
            place: election::place(self.me, coordinator, &self.backups),
            device: self.me,
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            rank: self.rank(),
            coordinator: self.coordinator(),
            backups: &self.backups,
            linked: &self.linked,
            able: self.able(),
            hears: self.hears(),
            reaches: self.linked.contains(&self.coordinator()),
        }
    }

    /// Whether the job needs a coordinator: it goes on, or its result is lost.
    /// The election, with what it needs to know.
    fn elect<R>(&mut self, act: impl FnOnce(&mut Election, &View<'_>) -> R) -> R {
        let mut election = std::mem::replace(&mut self.election, Election::new(None));
        let result = act(&mut election, &self.view());
        self.election = election;
        result
    }

    pub(super) fn may_stand(&self) -> bool {
        !cfg!(gemmesh_bug = "waits-for-the-dead")
            && !self.over
            && (self.ending.is_none() || self.lost)
    }

    /// Whether messages of this epoch count here: none higher was seen, nor is one on its way to
    /// the disk.
    pub fn listens_to(&self, epoch: Epoch) -> bool {
        if cfg!(gemmesh_bug = "listens-to-the-past") {
            return true;
        }
        epoch >= self.epoch && self.election.claims().is_none_or(|mine| epoch > mine)
    }

    /// Time passed.
    pub fn handle_time(&mut self, now: Instant) {
        if self.over {
            return;
        }
        self.finish(now);
        self.fetch(now);
        self.copy(now);
        if !self.may_stand() {
            return;
        }
        let counter = self.epoch.counter;
        match self.elect(|election, view| election.step(view, counter, now)) {
            Some(Step::Ask(devices)) => {
                let (job, rank) = (self.taken.header.job, self.rank());
                for device in devices {
                    self.send(device, Message::Elect { job, rank });
                }
            }
            Some(Step::Claim(epoch)) => self.effects.push_back(Effect::Claim(epoch)),
            None => {}
        }
    }

    /// Somebody else wants to continue the job.
    pub fn handle_elect(&mut self, rank: Rank, now: Instant) -> Vote {
        if let Some(status) = self.ending.as_ref().filter(|_| !self.may_stand()) {
            return Vote::Ended(Box::new(status.clone()));
        }
        if self.hears() && self.epoch >= rank.epoch && self.coordinator() != rank.device {
            return Vote::Lives { epoch: self.epoch };
        }
        match self.elect(|election, view| election.challenge(rank, view, now)) {
            true => Vote::Higher,
            false => Vote::Yield,
        }
    }

    /// An answer to this node's candidacy.
    pub fn handle_vote(&mut self, from: DeviceId, vote: Vote, now: Instant) {
        match vote {
            Vote::Yield | Vote::Unknown => self.election.yielded(from),
            Vote::Higher => self.election.refused(now),
            Vote::Lives { epoch } => {
                if epoch < self.epoch || !is_near(epoch.counter, self.epoch.counter) {
                    self.election.yielded(from);
                } else {
                    // Its coordinator has not spoken to this node yet.
                    self.follow(epoch);
                    self.election.refused(now);
                }
            }
            Vote::Ended(status) => {
                self.election.refused(now);
                if self.is_better_than_lost(&status) {
                    self.adopt(*status, now);
                } else {
                    self.end_elsewhere(*status, now);
                }
                if self.gives_up(now) {
                    self.be_over();
                }
            }
            Vote::Gone => {
                self.over = true;
                self.effects.push_back(Effect::Drop(true));
            }
        }
        self.handle_time(now);
    }

    /// Whether the epoch that is durable now is the one with which this node goes on.
    pub fn is_claiming(&self, epoch: Epoch) -> bool {
        self.election.claims() == Some(epoch)
    }

    /// Whether this node is to have a part in the job.
    pub(super) fn is_backup(&self) -> bool {
        self.backups.contains(&self.me) || self.coordinator() == self.me
    }
}
