//! Jobs beyond their coordinator: what backups, candidates and coordinators say to each other, and
//! a job's way from one role to another.

use super::*;
use crate::id::Epoch;
use crate::job::JobHeader;
use crate::replication::{
    Backup, COUNTER_MAX, ENTRIES_MAX, Effect, Entry, Log, Note, Rank, Restored, Vote, is_near,
};

/// Jobs of other nodes that this one backs up, at most.
const BACKUPS_OF_OTHERS_MAX: usize = 1_024;
/// What these take in memory, about; and those of them that have ended.
const BACKUP_BYTES_MAX: u64 = 512 << 20;
const ENDED_OF_OTHERS_MAX: usize = 65_536;
const ENDED_BYTES_MAX: u64 = 256 << 20;
/// The part of each of these that is for the jobs of one node: the others keep room.
const SHARE_OF_ONE: (u64, u64) = (3, 4);
/// Jobs whose time is over that are remembered, so that nobody brings them back.
const FORGOTTEN_MAX: usize = 65_536;
/// Ended jobs that are copied at a time, and those that wait for it.
const CLOSING_MAX: usize = 16;
const CLOSING_WAITING_MAX: usize = 4_096;

/// How long until the product of an end that stands is asked for again.
const AMEND_RETRY: Span = Span::from_secs(2);
/// Whose disk does not give the product after so many attempts has lost it; it still is how the job
/// ended.
const AMEND_ATTEMPTS_MAX: u32 = 30;
/// Who could not be reached at so many attempts is gone for good with it, and others know that end.
const AMEND_AWAY_MAX: u32 = 90;

/// An end that stands instead of the one that is recorded here, as soon as its product is here.
#[derive(Debug)]
pub(super) struct Amendment {
    status: JobStatus,
    retry: Option<Instant>,
    attempts: u32,
    /// Attempts at which its coordinator could not be reached.
    away: u32,
}

/// How much of a bound is for one node.
fn share(bound: u64) -> u64 {
    let (part, of) = SHARE_OF_ONE;
    bound / of * part
}

/// Whether a log may begin with this.
fn is_right(header: &JobHeader, job: JobId) -> bool {
    header.job == job && header.check().is_ok() && header.name.len() <= 4_096
}

/// Jobs that are over here, for good.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    jobs: BTreeSet<JobId>,
    order: VecDeque<JobId>,
}

impl Forgotten {
    pub fn insert(&mut self, job: JobId) {
        if self.jobs.insert(job) {
            self.order.push_back(job);
        }
        while self.order.len() > FORGOTTEN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.jobs.remove(&oldest);
            }
        }
    }

    pub fn contains(&self, job: JobId) -> bool {
        !cfg!(gemmesh_bug = "forgets-what-expired") && self.jobs.contains(&job)
    }
}

impl<P: Clone> Engine<P> {
    /// A job from the disk, whatever part this node had in it.
    pub(super) fn restore(&mut self, restored: Restored, now: Instant) {
        let job = restored.taken.header.job;
        if restored.taken.header.share.is_some() {
            // Who saw it is not known any more: its product is shared anew.
            self.drop_share(job);
            return;
        }
        if self.knows(job) {
            return;
        }
        if let Some(status) = restored.ended.clone() {
            // Those who should have the result may not have got it before this node stopped.
            if status.coordinator == self.me() && status.state == JobState::Done {
                let own = self.membership.record().clone();
                let log = Log::of_ended(&own, &restored, &status, self.backups_max, now);
                self.close(job, log, now);
            }
            self.ended.insert(job, status);
        } else {
            let mut backup = Backup::restored(self.me(), restored, now);
            backup.handle_links(&self.linked_nodes(), &BTreeSet::new(), now);
            self.backups.insert(job, backup);
        }
        self.outputs.push_back(Output::JobChanged { job });
    }

    /// Whether this node has a part in the job.
    fn knows(&self, job: JobId) -> bool {
        self.coordinates(job) || self.backups.contains_key(&job)
    }

    pub(super) fn linked_nodes(&self) -> BTreeSet<DeviceId> {
        self.linked.keys().copied().collect()
    }

    /// Tells jobs which nodes came, went, or are reached another way.
    pub(super) fn update_links(&mut self, now: Instant) {
        let linked: BTreeMap<DeviceId, LinkId> = self.membership.node_links().collect();
        if linked == self.linked {
            return;
        }
        let before = std::mem::replace(&mut self.linked, linked);
        let renewed: BTreeSet<DeviceId> = self
            .linked
            .iter()
            .filter(|(device, link)| before.get(device).is_some_and(|old| old != *link))
            .map(|(device, _)| *device)
            .collect();
        let down: Vec<DeviceId> = before
            .keys()
            .filter(|device| renewed.contains(device) || !self.linked.contains_key(device))
            .copied()
            .collect();
        let up: Vec<DeviceRecord> = self
            .linked
            .keys()
            .filter(|device| renewed.contains(device) || !before.contains_key(device))
            .filter_map(|device| self.membership.record_of(*device).cloned())
            .collect();
        for job in self.jobs.values_mut() {
            for device in &down {
                job.node_down(*device, now);
            }
            for record in &up {
                job.node_up(record, now);
            }
        }
        for log in self.closing.values_mut() {
            for device in &down {
                log.node_down(*device, now);
            }
            for record in &up {
                log.node_up(record, now);
            }
        }
        let nodes = self.linked_nodes();
        for backup in self.backups.values_mut() {
            backup.handle_links(&nodes, &renewed, now);
        }
    }

    // -- messages --

    /// `false` when the sender broke the rules.
    pub(super) fn deliver_replication(
        &mut self,
        from: DeviceId,
        body: Message,
        now: Instant,
    ) -> bool {
        let job = match &body {
            Message::Append { job, .. }
            | Message::Appended { job, .. }
            | Message::Declined { job }
            | Message::Held { job, .. }
            | Message::Claim { job, .. }
            | Message::Elect { job, .. }
            | Message::Vote { job, .. }
            | Message::Resume { job, .. } => *job,
            _ => return true,
        };
        if self.is_guarded_here(job) && !matches!(body, Message::Resume { .. }) {
            // It has no other coordinator, ever.
            return true;
        }
        match body {
            Message::Append {
                epoch,
                elapsed,
                first,
                entries,
                ..
            } => {
                if epoch.device != from || epoch.counter > COUNTER_MAX {
                    return false;
                }
                if entries.len() > ENTRIES_MAX || first > u64::MAX / 2 {
                    return false;
                }
                return self.handle_append(job, epoch, elapsed, first, entries, now);
            }
            Message::Appended {
                epoch,
                sequence,
                inputs,
                ended,
                ..
            } => {
                if let Some(log) = self.closing.get_mut(&job) {
                    log.handle_appended(from, epoch, sequence, inputs, ended);
                }
                self.with_job(job, |job| {
                    job.handle_appended(from, epoch, sequence, inputs, ended);
                });
            }
            Message::Declined { .. } => {
                if let Some(log) = self.closing.get_mut(&job) {
                    log.handle_declined(from, now);
                }
                self.with_job(job, |job| job.handle_declined(from, now));
            }
            Message::Held {
                epoch,
                tiles,
                complete,
                ..
            } => {
                if let (Some(record), Some(scheduler)) =
                    (self.membership.record_of(from), self.jobs.get_mut(&job))
                {
                    return scheduler.handle_held(record, epoch, tiles, complete);
                }
            }
            Message::Claim { epoch, .. } => {
                if epoch.device != from || epoch.counter > COUNTER_MAX {
                    return false;
                }
                self.handle_claim(from, job, epoch, now);
            }
            Message::Elect { rank, .. } => {
                if rank.device != from || rank.epoch.counter > COUNTER_MAX {
                    return false;
                }
                let vote = self.vote(job, rank, now);
                self.send(from, Message::Vote { job, vote }, None);
            }
            Message::Vote { vote, .. } => {
                let sane = match &vote {
                    Vote::Ended(status) => status.is_end_of(job),
                    Vote::Lives { epoch } => epoch.counter <= COUNTER_MAX,
                    Vote::Yield | Vote::Higher | Vote::Gone | Vote::Unknown => true,
                };
                if !sane {
                    return false;
                }
                self.handle_vote(from, job, vote, now);
            }
            Message::Resume { epoch, grants, .. } => {
                self.with_job(job, |job| job.handle_resume(from, epoch, &grants, now));
            }
            _ => {}
        }
        true
    }

    /// What a node gets to hear that speaks of a job which is over here; `false` when it is not.
    fn answer_over(&mut self, to: DeviceId, job: JobId) -> bool {
        let Some(vote) = self.vote_over(job) else {
            return false;
        };
        self.send(to, Message::Vote { job, vote }, None);
        true
    }

    fn vote_over(&self, job: JobId) -> Option<Vote> {
        match self.ended.get(&job) {
            Some(status) => Some(Vote::Ended(Box::new(status.clone()))),
            None => self.forgotten.contains(job).then_some(Vote::Gone),
        }
    }

    /// The end of a job in which this node has no part, if it came under a higher epoch than this:
    /// who speaks under this one has slept through it. Under a higher one a job that is done may
    /// go on, because its result is lost.
    fn vote_ended_elsewhere(&self, job: JobId, epoch: Epoch) -> Option<Vote> {
        let later = |status: &&JobStatus| {
            let end = (status.epoch, status.coordinator);
            end > (epoch.counter, epoch.device)
        };
        let status = self.remote.ended(job).filter(later);
        let status = status.filter(|_| !self.knows(job));
        Some(Vote::Ended(Box::new(status?.clone())))
    }

    fn handle_append(
        &mut self,
        job: JobId,
        epoch: Epoch,
        elapsed: Span,
        first: u64,
        entries: Vec<Entry>,
        now: Instant,
    ) -> bool {
        let from = epoch.device;
        if self.answer_over(from, job) {
            let message = Message::Appended {
                job,
                epoch,
                sequence: u64::MAX,
                inputs: false,
                ended: true,
            };
            self.send(from, message, None);
            return true;
        }
        let own = self.jobs.get(&job).map(Scheduler::header);
        let known = own.or_else(|| self.backups.get(&job).map(Backup::header));
        let is_new = known.is_none();
        let told = match entries.first() {
            Some(Entry::Taken(taken)) if first == 0 => Some(&taken.header),
            _ => None,
        };
        if let Some(header) = known.or(told) {
            let mut entries = entries.iter().zip(first..);
            let right = !is_new || is_right(header, job);
            if !right || !entries.all(|(entry, place)| entry.fits(header, place)) {
                return false;
            }
        }
        if !self.gives_way(from, job, epoch, now) {
            return true;
        }
        if let Some(vote) = self.vote_ended_elsewhere(job, epoch) {
            self.send(from, Message::Vote { job, vote }, None);
            return true;
        }
        if is_new && told.is_none() {
            // This node has lost what it had: from the beginning, please.
            let message = Message::Appended {
                job,
                epoch,
                sequence: 0,
                inputs: false,
                ended: false,
            };
            self.send(from, message, None);
            return true;
        }
        let bytes = entries.iter().map(Entry::size).sum();
        if !self.has_room(from, bytes) || (is_new && !self.has_room_for_end(from)) {
            match self.backups.get_mut(&job) {
                Some(backup) => backup.decline(from),
                None => self.send(from, Message::Declined { job }, None),
            }
            return true;
        }
        if let Some(Entry::Taken(taken)) = entries.first().filter(|_| is_new) {
            let mut backup = Backup::new(self.me(), (**taken).clone(), epoch, now);
            backup.handle_links(&self.linked_nodes(), &BTreeSet::new(), now);
            self.backups.insert(job, backup);
        }
        let backup = self.backups.get_mut(&job).expect("there or just made");
        backup.handle_append(epoch, elapsed, first, entries, now);
        true
    }

    /// Whether the jobs that this node backs up may take so many bytes more, for this coordinator.
    fn has_room(&self, coordinator: DeviceId, bytes: u64) -> bool {
        let (mut all, mut its) = (bytes, bytes);
        for backup in self.backups.values() {
            all += backup.bytes();
            if backup.epoch().device == coordinator {
                its += backup.bytes();
            }
        }
        all <= BACKUP_BYTES_MAX && its <= share(BACKUP_BYTES_MAX)
    }

    /// Whether one job more of this coordinator may be backed up here, and end.
    fn has_room_for_end(&self, coordinator: DeviceId) -> bool {
        let me = self.me();
        let of_it = |backup: &&Backup<P>| backup.epoch().device == coordinator;
        let backed_up = self.backups.values().filter(of_it).count() as u64;
        let (mut jobs, mut of_one, mut bytes, mut bytes_of_one) = (0, 0, 0, 0);
        for status in self.ended.values().filter(|s| s.coordinator != me) {
            jobs += 1;
            bytes += status.size();
            if status.coordinator == coordinator {
                of_one += 1;
                bytes_of_one += status.size();
            }
        }
        self.backups.len() < BACKUPS_OF_OTHERS_MAX
            && backed_up < share(BACKUPS_OF_OTHERS_MAX as u64)
            && jobs < ENDED_OF_OTHERS_MAX
            && of_one < share(ENDED_OF_OTHERS_MAX as u64)
            && bytes < ENDED_BYTES_MAX
            && bytes_of_one < share(ENDED_BYTES_MAX)
    }

    /// The highest counter of a job's epochs that is known here.
    fn known_counter(&self, job: JobId) -> u64 {
        let own = self.jobs.get(&job).map(|job| job.epoch().counter);
        let backup = || self.backups.get(&job).map(|backup| backup.epoch().counter);
        own.or_else(backup).unwrap_or(0)
    }

    /// Whether the job is over or has a higher epoch; then whoever spoke of this one is told.
    pub(super) fn knows_better(&mut self, from: DeviceId, job: JobId, epoch: Epoch) -> bool {
        if self.answer_over(from, job) {
            return true;
        }
        let own = self.jobs.get(&job).map(Scheduler::epoch);
        let Some(higher) = own.or_else(|| self.backups.get(&job).map(Backup::epoch)) else {
            return false;
        };
        if higher <= epoch || cfg!(gemmesh_bug = "listens-to-the-past") {
            return false;
        }
        let vote = Vote::Lives { epoch: higher };
        self.send(from, Message::Vote { job, vote }, None);
        true
    }

    /// Makes way for a higher epoch; `false` when this node does not listen to this one.
    fn gives_way(&mut self, from: DeviceId, job: JobId, epoch: Epoch, now: Instant) -> bool {
        let near = is_near(epoch.counter, self.known_counter(job));
        if !near || self.knows_better(from, job, epoch) {
            return false;
        }
        if let Some(own) = self.jobs.get(&job).map(Scheduler::epoch) {
            if epoch == own || cfg!(gemmesh_bug = "never-steps-down") {
                return false;
            }
            self.step_down(job, epoch, now);
        }
        let backup = self.backups.get(&job);
        backup.is_none_or(|backup| backup.listens_to(epoch))
    }

    fn handle_claim(&mut self, from: DeviceId, job: JobId, epoch: Epoch, now: Instant) {
        if !self.gives_way(from, job, epoch, now) {
            return;
        }
        if let Some(backup) = self.backups.get_mut(&job) {
            backup.handle_claim(epoch);
            return;
        }
        if let Some(vote) = self.vote_ended_elsewhere(job, epoch) {
            self.send(from, Message::Vote { job, vote }, None);
        }
        let message = Message::Held {
            job,
            epoch,
            tiles: Vec::new(),
            complete: true,
        };
        self.send(from, message, None);
    }

    fn vote(&mut self, job: JobId, rank: Rank, now: Instant) -> Vote {
        if let Some(vote) = self.vote_over(job) {
            return vote;
        }
        if let Some(vote) = self.vote_ended_elsewhere(job, rank.epoch) {
            return vote;
        }
        let near = is_near(rank.epoch.counter, self.known_counter(job));
        if let Some(own) = self.jobs.get(&job).map(Scheduler::epoch) {
            if own >= rank.epoch || !near {
                return Vote::Lives { epoch: own };
            }
            self.step_down(job, rank.epoch, now);
        }
        match self.backups.get_mut(&job) {
            Some(backup) if near => backup.handle_elect(rank, now),
            _ => Vote::Unknown,
        }
    }

    fn handle_vote(&mut self, from: DeviceId, job: JobId, vote: Vote, now: Instant) {
        if let Some(backup) = self.backups.get_mut(&job) {
            backup.handle_vote(from, vote, now);
            return;
        }
        if let Vote::Ended(status) = &vote
            && self.ended.contains_key(&job)
        {
            self.amend(from, status, now);
            return;
        }
        // It follows somebody who does not know yet that the job has ended, or has forgotten to say so.
        if let Vote::Lives { .. } = &vote
            && self.answer_over(from, job)
        {
            return;
        }
        let Some(scheduler) = self.jobs.get_mut(&job) else {
            return;
        };
        match vote {
            // Whoever saw it end has told somebody: it has ended.
            Vote::Ended(status) => match status.state {
                JobState::Done => {
                    let epoch = scheduler.epoch();
                    // Who follows this node hears nothing of the job from it any more.
                    for device in self.linked_nodes() {
                        if device != from {
                            let vote = Vote::Ended(status.clone());
                            self.send(device, Message::Vote { job, vote }, None);
                        }
                    }
                    self.step_down(job, epoch, now);
                    if let Some(backup) = self.backups.get_mut(&job) {
                        backup.end_elsewhere(*status, now);
                    }
                }
                JobState::Cancelled => scheduler.cancel(now),
                // Here it may yet be done.
                JobState::Failed if status.epoch < scheduler.epoch().counter => {}
                JobState::Failed => {
                    let reason = status.error.unwrap_or_default();
                    scheduler.fail(reason, now);
                }
                JobState::Queued | JobState::Running => {}
            },
            Vote::Lives { epoch } if epoch > scheduler.epoch() => {
                if is_near(epoch.counter, scheduler.epoch().counter) {
                    self.step_down(job, epoch, now);
                } else {
                    // It follows whom nobody else believes.
                    scheduler.handle_declined(from, now);
                }
            }
            Vote::Gone => {
                self.forget(job, now);
                let for_good = true;
                self.outputs.push_back(Output::Drop { job, for_good });
            }
            _ => {}
        }
    }

    /// News of a job from its coordinator, which may be one that this node coordinates or backs up
    /// itself.
    pub(super) fn compare_news(&mut self, from: DeviceId, status: &JobStatus, now: Instant) {
        let job = status.job;
        if self.is_guarded_here(job) {
            return;
        }
        let epoch = Epoch {
            counter: status.epoch,
            device: status.coordinator,
        };
        if self.ended.contains_key(&job) {
            if status.state.has_ended() {
                self.amend(from, status, now);
            } else {
                self.answer_over(from, job);
            }
            return;
        }
        if !status.state.has_ended() && self.answer_over(from, job) {
            return;
        }
        if self.knows(job)
            && !self.ended.contains_key(&job)
            && self.gives_way(from, job, epoch, now)
            && let Some(backup) = self.backups.get_mut(&job)
        {
            backup.handle_news(status, now);
        }
    }

    // -- ends that differ --

    /// A job ended twice, on two sides of a partition: both sides come to the same end. Cancelling
    /// was a person's wish; a product is better than none; else the higher epoch stands.
    fn amend(&mut self, from: DeviceId, status: &JobStatus, now: Instant) {
        let Some(own) = self.ended.get_mut(&status.job) else {
            return;
        };
        if (own.epoch, own.coordinator, own.state)
            == (status.epoch, status.coordinator, status.state)
        {
            // Copying goes on after the end.
            own.safe_copies = status.safe_copies;
            own.tiles_safe = own.tiles_safe.max(status.tiles_safe);
            own.bytes_replicated = status.bytes_replicated;
            self.outputs
                .push_back(Output::JobChanged { job: status.job });
            return;
        }
        if status.standing() <= own.standing()
            || own.result == status.result && own.state == status.state
        {
            if status.standing() < own.standing() && own.state != status.state {
                let vote = Vote::Ended(Box::new(own.clone()));
                let job = status.job;
                self.send(from, Message::Vote { job, vote }, None);
            }
            return;
        }
        match status.result.filter(|_| status.state == JobState::Done) {
            // The product first.
            Some(_) => {
                let known = self.amends.get(&status.job);
                if known.is_some_and(|known| known.status.standing() >= status.standing()) {
                    return;
                }
                let amendment = Amendment {
                    status: status.clone(),
                    retry: Some(now),
                    attempts: 0,
                    away: 0,
                };
                self.amends.insert(status.job, amendment);
            }
            None => self.replace_end(status.clone()),
        }
    }

    fn replace_end(&mut self, status: JobStatus) {
        let job = status.job;
        self.closing.remove(&job);
        // Who heard of the other end from here hears of this one, too.
        for device in self.linked_nodes() {
            let vote = Vote::Ended(Box::new(status.clone()));
            self.send(device, Message::Vote { job, vote }, None);
        }
        self.ended.insert(job, status.clone());
        self.outputs.push_back(Output::Ended {
            status: Box::new(status),
        });
        self.outputs.push_back(Output::JobChanged { job });
    }

    /// A matrix is here, or could not be had.
    pub(super) fn handle_copied(
        &mut self,
        job: JobId,
        matrix: MatrixId,
        there: bool,
        now: Instant,
    ) {
        if let Some(amendment) = self.amends.get_mut(&job)
            && amendment.status.result == Some(matrix)
        {
            let from = amendment.status.coordinator;
            let asked = self.linked.contains_key(&from);
            amendment.attempts += u32::from(asked);
            amendment.away += u32::from(!asked);
            let hope = amendment.attempts < AMEND_ATTEMPTS_MAX && amendment.away < AMEND_AWAY_MAX;
            if !there && hope {
                amendment.retry = Some(now + AMEND_RETRY);
            } else if let Some(amendment) = self.amends.remove(&job) {
                self.replace_end(amendment.status);
            }
        }
        self.with_backup(job, |backup| backup.handle_copied(matrix, there, now));
    }

    /// Fetches the products of ends that stand instead of own ones.
    pub(super) fn drain_amends(&mut self, now: Instant) {
        for (&job, amendment) in &mut self.amends {
            let due = amendment.retry.is_some_and(|at| now >= at);
            if let Some(matrix) = amendment.status.result.filter(|_| due) {
                amendment.retry = None;
                let first = amendment.status.coordinator;
                let others = self
                    .linked
                    .keys()
                    .copied()
                    .filter(|device| *device != first);
                let from = std::iter::once(first).chain(others).collect();
                self.outputs
                    .push_back(Output::CopyMatrix { job, matrix, from });
            }
        }
    }

    // -- from one role to another --

    /// Somebody has a higher epoch: this node is a backup from now on.
    fn step_down(&mut self, job: JobId, epoch: Epoch, now: Instant) {
        self.drain_job(job, now);
        let Some(scheduler) = self.jobs.remove(&job) else {
            return;
        };
        let mut backup = Backup::stepped_down(self.me(), scheduler.into_legacy(), epoch, now);
        backup.handle_links(&self.linked_nodes(), &BTreeSet::new(), now);
        self.backups.insert(job, backup);
        self.worker.handle_stepped_down(job, now);
        self.outputs.push_back(Output::JobChanged { job });
    }

    /// The epoch is durable: this node coordinates the job.
    pub(super) fn handle_claimed(&mut self, job: JobId, epoch: Epoch, now: Instant) {
        self.drain_backup(job, now);
        let claims = |backup: &Backup<P>| backup.is_claiming(epoch);
        if !self.backups.get(&job).is_some_and(claims) {
            return;
        }
        let backup = self.backups.remove(&job).expect("just looked at");
        let first_lease = self.prng.next_u64() >> 1;
        let own = self.membership.record().clone();
        let nodes = self.linked_nodes();
        let mut scheduler = Scheduler::take_over(
            &own,
            backup.into_legacy(),
            epoch,
            first_lease,
            self.backups_max,
            nodes.clone(),
            now,
        );
        self.remote.forget(job);
        self.worker.handle_own_header(scheduler.header(), now);
        for device in nodes {
            if let Some(record) = self.membership.record_of(device) {
                scheduler.node_up(record, now);
            }
        }
        self.brief(&mut scheduler, now);
        scheduler.start(self.workforce(), now);
        self.jobs.insert(job, scheduler);
        self.share_out(job, now);
        self.outputs.push_back(Output::JobChanged { job });
    }

    /// This device and those that may work for it.
    pub(super) fn workforce(&self) -> Vec<DeviceRecord> {
        let own = self.membership.record().clone();
        let others = self.reached.values().map(|(_, record)| record);
        let others = others.filter(|record| !self.quarantined.contains(&record.device));
        std::iter::once(own).chain(others.cloned()).collect()
    }

    // -- effects --

    pub(super) fn drain_backups(&mut self, now: Instant) {
        let ids: Vec<JobId> = self.backups.keys().copied().collect();
        for job in ids {
            self.drain_backup(job, now);
        }
    }

    pub(super) fn drain_backup(&mut self, job: JobId, now: Instant) {
        if let Some(backup) = self.backups.get_mut(&job) {
            backup.handle_time(now);
        }
        while let Some(effect) = self.backups.get_mut(&job).and_then(Backup::poll_effect) {
            let output = match effect {
                Effect::Send(to, message) => {
                    self.send_to_node(to, message);
                    continue;
                }
                Effect::Record(epoch, sequence, entries) => Output::Record {
                    job,
                    epoch,
                    sequence,
                    entries,
                },
                Effect::CopyMatrix(matrix, from) => Output::CopyMatrix { job, matrix, from },
                Effect::FetchTile(tile, from) => Output::FetchTile { job, tile, from },
                Effect::Persist(done, expected, payload) => {
                    // The log tells of the others.
                    let own = self.membership.record();
                    let contributor = (done.device == own.device).then(|| Box::new(own.clone()));
                    Output::Persist {
                        job,
                        done,
                        contributor,
                        expected,
                        payload,
                    }
                }
                Effect::Finish => Output::Finish { job },
                Effect::Claim(epoch) => {
                    let header = Box::new(self.backups[&job].header().clone());
                    Output::Claim { header, epoch }
                }
                Effect::Changed => Output::JobChanged { job },
                Effect::Ended(status) => {
                    self.backups.remove(&job);
                    self.ended.insert(job, (*status).clone());
                    self.outputs.push_back(Output::Ended { status });
                    Output::JobChanged { job }
                }
                Effect::Drop(for_good) => {
                    self.backups.remove(&job);
                    if for_good {
                        self.forgotten.insert(job);
                        self.remote.forget(job);
                    }
                    self.outputs.push_back(Output::JobChanged { job });
                    Output::Drop { job, for_good }
                }
            };
            self.outputs.push_back(output);
        }
    }

    /// What concerns only nodes goes to nodes: a backup that coordinates by its own word says
    /// nothing to itself.
    fn send_to_node(&mut self, to: DeviceId, message: Message) {
        if to != self.me() {
            self.send(to, message, None);
        }
    }

    /// Tells backups the end of jobs, a few at a time.
    pub(super) fn drain_closing(&mut self, now: Instant) {
        let ids: Vec<JobId> = self.closing_now().map(|(job, _)| *job).collect();
        for job in ids {
            let log = self.closing.get_mut(&job).expect("just listed");
            log.handle_time(now);
            let mut changed = false;
            let mut messages = Vec::new();
            while let Some(note) = log.poll_note() {
                match note {
                    Note::Send(to, message) => messages.push((to, message)),
                    Note::Changed => changed = true,
                    Note::Backups(_) | Note::Moment(_) => {}
                }
            }
            let (copies, bytes, settled) = (log.safe_copies(), log.bytes(), log.is_settled());
            for (to, message) in messages {
                self.send(to, message, None);
            }
            if let Some(status) = self.ended.get_mut(&job).filter(|_| changed) {
                status.safe_copies = copies;
                status.bytes_replicated = bytes;
                if copies > 0 && status.state == JobState::Done {
                    // Who has the result has all of it.
                    status.tiles_safe = status.tiles_total;
                }
                self.outputs.push_back(Output::JobChanged { job });
            }
            if settled {
                self.closing.remove(&job);
                if let Some(status) = self.ended.get(&job).cloned() {
                    self.tell(status);
                }
            }
        }
    }

    /// The end of a job is told to its backups from now on.
    pub(super) fn close(&mut self, job: JobId, mut log: Log, now: Instant) {
        for device in self.linked.keys() {
            if let Some(record) = self.membership.record_of(*device) {
                log.node_up(record, now);
            }
        }
        if self.closing.len() >= CLOSING_WAITING_MAX {
            self.closing.pop_first();
        }
        self.closing.insert(job, log);
    }

    fn closing_now(&self) -> impl Iterator<Item = (&JobId, &Log)> {
        // A lone node may have thousands, and nobody to tell.
        let lone = self.linked.is_empty() && self.backups_max > 0;
        let logs = (!lone).then_some(&self.closing).into_iter().flatten();
        let heard = logs.filter(|(_, log)| log.has_audience() || log.is_settled());
        heard.take(CLOSING_MAX)
    }

    /// When the engine must be woken for one of these.
    pub(super) fn replication_timeout(&self) -> Option<Instant> {
        let backups = self.backups.values().filter_map(Backup::poll_timeout).min();
        let closing = self.closing_now().filter_map(|(_, log)| log.poll_timeout());
        let amends = self.amends.values().filter_map(|amendment| amendment.retry);
        earliest(earliest(backups, closing.min()), amends.min())
    }
}
