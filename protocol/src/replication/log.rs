//! The coordinator's side: the log of one job, how far each backup has it, who holds which tile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{BACKUPS_MAX, ENTRIES_MAX, Entry, Restored, StoredTile, Taken};
use crate::id::{BlockId, DeviceId, Epoch, JobId};
use crate::message::{DeviceRecord, Message};
use crate::status::{Happening, JobStatus, Moment, TIMELINE_MAX};
use crate::time::{Instant, Span};
use crate::timer::earliest;

/// A job that is over sooner is told of when it is over: copying must not slow down what is short.
const QUIET: Span = Span::from_millis(50);
/// A backup that is gone for so long is replaced, and what it held is copied elsewhere.
const REPLACE_AFTER: Span = Span::from_secs(5);
/// A backup that has computed a tile, or should fetch one, has so long before another is asked.
const KEEP_AFTER: Span = Span::from_secs(15);
/// Comings and goings that backups are told of, beyond which they are only in the timeline here.
const MOMENTS_MAX: usize = 4_096;
/// What one message may carry, roughly; headers of large jobs go alone.
const MESSAGE_BYTES: u64 = 256 << 10;

/// What the log asks for.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "most notes are messages")]
pub(crate) enum Note {
    /// Say something to a backup.
    Send(DeviceId, Message),
    /// As [`crate::io::Output::Backups`].
    Backups(Vec<DeviceId>),
    /// As [`crate::io::Output::Moment`].
    Moment(Moment),
    /// Figures that people see changed.
    Changed,
}

/// The log of one job in one epoch.
#[derive(Debug)]
pub(crate) struct Log {
    job: JobId,
    me: DeviceId,
    epoch: Epoch,
    started: Instant,
    /// When the first entry may leave.
    opens: Instant,
    max: usize,
    entries: Vec<Entry>,
    backups: Vec<DeviceId>,
    /// Nodes that are linked, whether backups or not, by name.
    nodes: BTreeMap<DeviceId, String>,
    declined: BTreeSet<DeviceId>,
    followers: BTreeMap<DeviceId, Follower>,
    copies: BTreeMap<u32, Copies>,
    /// Who should have a copy of a tile and has not said that it does, and since when.
    keepers: BTreeMap<u32, (DeviceId, Instant)>,
    /// Tiles that two nodes have, by the place of the entry that says so, until the backups have it.
    unsafe_yet: VecDeque<(u64, u32)>,
    safe: BTreeSet<u32>,
    timeline: VecDeque<Moment>,
    /// Moments in the log.
    moments: usize,
    ended: bool,
    /// Who has which tile is not known yet.
    waits: bool,
    input_bytes: u64,
    bytes: u64,
    notes: VecDeque<Note>,
}

#[derive(Debug, Default)]
struct Follower {
    linked: bool,
    lost: Option<Instant>,
    /// Lost for so long that what it held is copied elsewhere.
    dead: bool,
    /// Nothing was sent since it was linked.
    greet: bool,
    sent: u64,
    acked: u64,
    inputs: bool,
    ended: bool,
    /// Tiles that it should have and has not said that it has.
    owed: usize,
}

/// Where a tile is besides here.
#[derive(Debug)]
struct Copies {
    digest: BlockId,
    bytes: u64,
    holders: BTreeSet<DeviceId>,
}

impl Log {
    pub fn new(
        me: &DeviceRecord,
        epoch: Epoch,
        taken: Taken,
        max: usize,
        started: Instant,
        now: Instant,
    ) -> Self {
        let header = &taken.header;
        Self {
            job: header.job,
            me: me.device,
            epoch,
            started,
            // Who takes over, or goes on, tells at once.
            opens: if now > started || epoch.counter > 1 {
                now
            } else {
                now + QUIET
            },
            max: max.min(BACKUPS_MAX),
            input_bytes: header.a.bytes() + header.b.bytes(),
            entries: vec![Entry::Taken(Box::new(taken))],
            backups: Vec::new(),
            nodes: BTreeMap::new(),
            declined: BTreeSet::new(),
            followers: BTreeMap::new(),
            copies: BTreeMap::new(),
            keepers: BTreeMap::new(),
            unsafe_yet: VecDeque::new(),
            safe: BTreeSet::new(),
            timeline: VecDeque::new(),
            moments: 0,
            ended: false,
            waits: false,
            bytes: 0,
            notes: VecDeque::new(),
        }
    }

    /// A job that had ended before this node was restarted.
    pub fn of_ended(
        me: &DeviceRecord,
        restored: &Restored,
        status: &JobStatus,
        max: usize,
        now: Instant,
    ) -> Self {
        let epoch = restored.epoch;
        let mut log = Self::new(me, epoch, restored.taken.clone(), max, now, now);
        log.prefer(&restored.backups, now);
        for stored in &restored.held {
            let keeper = None;
            log.entries.push(Entry::Done {
                stored: stored.clone(),
                keeper,
            });
        }
        log.end(status.clone(), now);
        log
    }

    /// What to do next.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// When to call [`Log::handle_time`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.followers.values().any(|f| f.linked && self.owes(f));
        let opens = waits.then_some(self.opens);
        let lost = self.followers.values().filter(|f| !f.dead);
        let lost = lost
            .filter_map(|f| f.lost)
            .map(|at| at + REPLACE_AFTER)
            .min();
        let keepers = self.keepers.values();
        let kept = keepers.map(|(_, since)| *since + KEEP_AFTER).min();
        earliest(opens, earliest(lost, kept))
    }

    fn owes(&self, follower: &Follower) -> bool {
        follower.greet || follower.sent < self.entries.len() as u64
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How the job began.
    pub fn taken(&self) -> &Taken {
        match &self.entries[0] {
            Entry::Taken(taken) => taken,
            _ => unreachable!("a log begins with it"),
        }
    }

    pub fn backups(&self) -> &[DeviceId] {
        &self.backups
    }

    pub fn timeline(&self) -> Vec<Moment> {
        self.timeline.iter().cloned().collect()
    }

    /// How a device was called when something happened to it.
    pub fn name_of(&self, device: DeviceId) -> Option<&str> {
        let mut moments = self.timeline.iter().rev();
        let moment = moments.find(|moment| moment.device == device);
        moment.map(|moment| moment.name.as_str())
    }

    /// Bytes of operands and tiles that were copied to backups.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tiles that another node has, as the backups know.
    pub fn safe(&self) -> u64 {
        self.safe.len() as u64
    }

    /// Backups that could continue the job alone; when it has ended: that have what it left.
    pub fn safe_copies(&self) -> u8 {
        let able = |f: &&Follower| match self.ended {
            true => f.linked && f.ended,
            false => f.linked && f.inputs && f.acked > 0,
        };
        self.followers.values().filter(able).count() as u8
    }

    /// Whether every backup that lives has what an ended job left, and there is one.
    pub fn is_settled(&self) -> bool {
        let mut live = self.followers.values().filter(|f| f.linked).peekable();
        let one = cfg!(gemmesh_bug = "keeps-results-to-itself");
        self.ended && (one || self.max == 0 || (live.peek().is_some() && live.all(|f| f.ended)))
    }

    /// Whether there is anybody to tell, or who may come to be.
    pub fn has_audience(&self) -> bool {
        self.followers.values().any(|f| f.linked) || self.spare().is_some()
    }

    /// A node that could be a backup and is none.
    fn spare(&self) -> Option<(&DeviceId, &String)> {
        self.nodes.iter().find(|(device, _)| {
            !self.followers.contains_key(device) && !self.declined.contains(device)
        })
    }

    // -- what is written --

    /// Takes over what was known before: moments are not told again.
    pub fn inherit(&mut self, timeline: Vec<Moment>) {
        for moment in timeline {
            self.entries.push(Entry::Moment(moment.clone()));
            self.timeline.push_back(moment);
        }
    }

    /// The list of backups of the epoch before: the same nodes first.
    pub fn prefer(&mut self, backups: &[DeviceId], now: Instant) {
        for &device in backups {
            let new = device != self.me && !self.followers.contains_key(&device);
            if new && self.backups.len() < self.max {
                self.backups.push(device);
                let lost = Some(now);
                let follower = Follower {
                    lost,
                    ..Follower::default()
                };
                self.followers.insert(device, follower);
            }
        }
        if !self.backups.is_empty() {
            self.tell_backups();
        }
    }

    pub fn moment(
        &mut self,
        event: Happening,
        device: DeviceId,
        name: &str,
        tile: Option<u32>,
        now: Instant,
    ) {
        let moment = Moment {
            at: (now - self.started).as_secs_f64(),
            event,
            device,
            name: name.to_owned(),
            tile,
            epoch: self.epoch.counter,
        };
        // Who comes and goes all the time must not make the log grow without end.
        let passing = matches!(event, Happening::Joined | Happening::Left);
        if !passing || self.moments < MOMENTS_MAX {
            self.moments += 1;
            self.entries.push(Entry::Moment(moment.clone()));
        }
        if self.timeline.len() == TIMELINE_MAX {
            // How it began stays.
            self.timeline.remove(1);
        }
        self.timeline.push_back(moment.clone());
        self.notes.push_back(Note::Moment(moment));
    }

    /// A device is going to have a tile to its name.
    pub fn contributor(&mut self, record: &DeviceRecord) {
        self.entries
            .push(Entry::Contributor(Box::new(record.clone())));
    }

    /// A tile is durable here. Known holders are those that said so before.
    pub fn done(&mut self, stored: StoredTile, bytes: u64, now: Instant) {
        let tile = stored.done.tile;
        let by = stored.done.device;
        let computed = self.followers.get(&by).is_some_and(|f| f.linked);
        let keeper = if computed {
            Some(by)
        } else {
            self.least_burdened()
        };
        let digest = stored.digest;
        let named = keeper.filter(|_| !computed);
        self.entries.push(Entry::Done {
            stored,
            keeper: named,
        });
        let holders = BTreeSet::new();
        self.copies.insert(
            tile,
            Copies {
                digest,
                bytes,
                holders,
            },
        );
        if let Some(keeper) = keeper {
            self.owe(tile, keeper, now);
        }
    }

    /// Another node says that it has a tile.
    pub fn held(&mut self, holder: DeviceId, tile: u32, digest: BlockId) {
        let Some(copies) = self.copies.get_mut(&tile) else {
            return;
        };
        // Who declined has let go of what it had.
        let gone = holder == self.me || self.declined.contains(&holder);
        let other = copies.digest != digest && !cfg!(gemmesh_bug = "counts-other-bytes-as-copies");
        if gone || other || !copies.holders.insert(holder) {
            return;
        }
        self.bytes = self.bytes.saturating_add(copies.bytes);
        if let Some((keeper, _)) = self.keepers.remove(&tile)
            && let Some(follower) = self.followers.get_mut(&keeper)
        {
            follower.owed = follower.owed.saturating_sub(1);
        }
        self.entries.push(Entry::Held { tile, holder });
        if !self.safe.contains(&tile) {
            self.unsafe_yet.push_back((self.entries.len() as u64, tile));
        }
    }

    /// Nodes that hold a tile.
    pub fn holders(&self, tile: u32) -> impl Iterator<Item = DeviceId> {
        let copies = self.copies.get(&tile);
        copies
            .into_iter()
            .flat_map(|copies| copies.holders.iter().copied())
    }

    /// The job has ended.
    pub fn end(&mut self, status: JobStatus, now: Instant) {
        self.ended = true;
        self.opens = self.opens.min(now);
        self.entries.push(Entry::Ended(Box::new(status)));
        // Who has the result has every tile of it.
        self.keepers.clear();
    }

    fn owe(&mut self, tile: u32, keeper: DeviceId, now: Instant) {
        self.keepers.insert(tile, (keeper, now));
        if let Some(follower) = self.followers.get_mut(&keeper) {
            follower.owed += 1;
        }
    }

    fn least_burdened(&self) -> Option<DeviceId> {
        let live = self.followers.iter().filter(|(_, f)| f.linked);
        live.min_by_key(|(id, f)| (f.owed, **id)).map(|(id, _)| *id)
    }

    // -- who follows --

    /// A node can be reached.
    pub fn node_up(&mut self, record: &DeviceRecord, now: Instant) {
        let device = record.device;
        // An older node would take the job for what it is not.
        let able = record.stacks || self.taken().header.stack == 1;
        if device == self.me || !able {
            return;
        }
        self.nodes.insert(device, record.name.clone());
        if let Some(follower) = self.followers.get_mut(&device).filter(|f| !f.linked) {
            // It says how much of this it still has.
            follower.linked = true;
            follower.lost = None;
            follower.dead = false;
            follower.greet = true;
            follower.sent = follower.acked;
        }
        self.fill(now);
        self.spread(now);
    }

    /// A node can not be reached any more, or is reached another way: what was sent may be lost.
    pub fn node_down(&mut self, device: DeviceId, now: Instant) {
        self.nodes.remove(&device);
        if let Some(follower) = self.followers.get_mut(&device) {
            follower.linked = false;
            follower.lost.get_or_insert(now);
            follower.owed = 0;
        }
        self.declined.remove(&device);
        self.keepers.retain(|_, (keeper, _)| *keeper != device);
        self.fill(now);
        self.spread(now);
        self.settle_safe();
    }

    /// Takes nodes as backups while there is room; an ended job keeps those that it has.
    fn fill(&mut self, now: Instant) {
        let mut changed = false;
        while let Some((&device, name)) = self.spare() {
            let name = name.clone();
            // A dead one makes room only for one that lives.
            if self.backups.len() >= self.max {
                let dead = |device: &DeviceId| self.followers[device].dead;
                let Some(place) = self.backups.iter().position(dead) else {
                    break;
                };
                let gone = self.backups.remove(place);
                self.followers.remove(&gone);
                self.forget_holder(gone);
            }
            self.backups.push(device);
            let follower = Follower {
                linked: true,
                greet: true,
                ..Follower::default()
            };
            self.followers.insert(device, follower);
            if !self.ended {
                self.moment(Happening::BackedUp, device, &name, None, now);
            }
            changed = true;
        }
        if changed {
            self.tell_backups();
        }
    }

    fn tell_backups(&mut self) {
        self.entries.push(Entry::Backups(self.backups.clone()));
        self.notes.push_back(Note::Backups(self.backups.clone()));
        self.notes.push_back(Note::Changed);
    }

    fn forget_holder(&mut self, device: DeviceId) {
        for (tile, copies) in &mut self.copies {
            if copies.holders.remove(&device) && copies.holders.is_empty() {
                self.safe.remove(tile);
            }
        }
    }

    /// Nobody is asked to keep a tile before everybody has said what is there.
    pub fn wait(&mut self) {
        self.waits = true;
    }

    /// Everybody has.
    pub fn go_on(&mut self, now: Instant) {
        self.waits = false;
        self.spread(now);
    }

    /// Names a keeper for tiles that only this node has.
    fn spread(&mut self, now: Instant) {
        if self.ended || self.waits {
            return;
        }
        let keepers = &self.keepers;
        let lonely = self
            .copies
            .iter()
            .filter(|(tile, copies)| copies.holders.is_empty() && !keepers.contains_key(tile));
        let lonely: Vec<u32> = lonely.map(|(tile, _)| *tile).collect();
        for tile in lonely {
            let Some(keeper) = self.least_burdened() else {
                return;
            };
            self.owe(tile, keeper, now);
            self.entries.push(Entry::Keep { tile, keeper });
        }
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
        let Some(follower) = self.followers.get_mut(&from).filter(|f| f.linked) else {
            return;
        };
        if inputs && !follower.inputs {
            self.bytes = self.bytes.saturating_add(self.input_bytes);
        }
        if inputs != follower.inputs || ended != follower.ended {
            self.notes.push_back(Note::Changed);
        }
        follower.inputs = inputs;
        follower.ended = ended;
        let sequence = match epoch == self.epoch {
            true => sequence.min(self.entries.len() as u64),
            false => 0,
        };
        if sequence < follower.acked {
            // It lost some: a disk from before.
            follower.sent = sequence;
        }
        follower.acked = sequence;
        self.settle_safe();
    }

    /// A node can not be a backup.
    pub fn handle_declined(&mut self, from: DeviceId, now: Instant) {
        if self.followers.remove(&from).is_none() {
            return;
        }
        self.declined.insert(from);
        self.backups.retain(|device| *device != from);
        self.forget_holder(from);
        self.keepers.retain(|_, (keeper, _)| *keeper != from);
        self.tell_backups();
        self.fill(now);
        self.spread(now);
    }

    /// Counts tiles as safe that the live backups know to be held twice.
    fn settle_safe(&mut self) {
        let live = self.followers.values().filter(|f| f.linked);
        let known = live.map(|f| f.acked).min().unwrap_or(0);
        while let Some(&(entry, tile)) = self.unsafe_yet.front() {
            if entry > known {
                return;
            }
            self.unsafe_yet.pop_front();
            if self
                .copies
                .get(&tile)
                .is_some_and(|c| !c.holders.is_empty())
                && self.safe.insert(tile)
            {
                self.notes.push_back(Note::Changed);
            }
        }
    }

    /// Time passed, or entries were written: what backups do not have yet goes out.
    pub fn handle_time(&mut self, now: Instant) {
        let mut dead = Vec::new();
        for (&device, follower) in &mut self.followers {
            let due = follower.lost.is_some_and(|at| now >= at + REPLACE_AFTER);
            if due && !follower.dead {
                follower.dead = true;
                dead.push(device);
            }
        }
        for &device in &dead {
            self.forget_holder(device);
        }
        let before = self.keepers.len();
        self.keepers
            .retain(|_, (_, since)| now < *since + KEEP_AFTER);
        if !dead.is_empty() {
            self.fill(now);
        }
        if !dead.is_empty() || self.keepers.len() < before {
            self.spread(now);
        }
        if now < self.opens {
            return;
        }
        let total = self.entries.len() as u64;
        for (&device, follower) in &mut self.followers {
            while follower.linked && (follower.greet || follower.sent < total) {
                follower.greet = false;
                let first = follower.sent;
                let mut bytes = 0;
                let rest = self.entries[first as usize..].iter().take(ENTRIES_MAX);
                let entries: Vec<Entry> = rest
                    .take_while(|entry| {
                        let fits = bytes < MESSAGE_BYTES;
                        bytes += entry.size();
                        fits
                    })
                    .cloned()
                    .collect();
                follower.sent += entries.len() as u64;
                let append = Message::Append {
                    job: self.job,
                    epoch: self.epoch,
                    elapsed: now - self.started,
                    first,
                    entries,
                };
                self.notes.push_back(Note::Send(device, append));
            }
        }
    }
}
