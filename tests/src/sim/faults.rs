//! What can go wrong, how it begins and how it is mended; each kind is counted, and so is when it
//! mattered: a fault that never matters is a hole in the simulator.

use gemmesh_protocol::id::JobId;
use gemmesh_protocol::io::Input;
use gemmesh_protocol::time::Span;

use super::disk::Write;
use super::{Event, Power, Sim};

macro_rules! classes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Class { $($(#[doc = $doc])* $name,)* }

        impl Class {
            /// All of them.
            pub const ALL: &'static [Class] = &[$(Class::$name),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// What people read.
            pub fn name(self) -> &'static str {
                match self { $(Class::$name => $text,)* }
            }
        }
    };
}

classes! {
    /// Packets are lost. Matters: a frame had to be sent again.
    Loss = "loss",
    /// Packets take up to 5 s. Matters: a frame was delayed.
    Delay = "delay",
    /// A dial succeeds twice. Matters: always, both ends have two links.
    DoubleDial = "double dial",
    /// Frames of an old and a new link overtake each other. Matters: one did.
    Reorder = "overtaken frame",
    /// One way between two devices is cut. Matters: a frame or dial was held back.
    OneWay = "one-way partition",
    /// Two groups can not speak. Matters: a frame or dial was held back.
    Partition = "partition",
    /// A path is cut and mended again and again. Matters: a frame or dial was held back.
    Flap = "flapping",
    /// One direction of one connection is stuck. Matters: a frame was held back.
    Clog = "clogged link",
    /// A connection breaks, and both ends see it. Matters: there was one.
    Reset = "broken link",
    /// Somebody in between forgot a connection. Matters: a frame was lost in it.
    DeadSocket = "silently dead socket",
    /// A process is killed. Matters: it had a part in a job that was not over.
    Crash = "crash",
    /// The power of one device fails. Matters: it had a part in a job that was not over.
    PowerLoss = "power loss",
    /// The process died while something was written. Matters: some of it was lost.
    TornWrite = "crash while writing",
    /// The coordinator of a job dies. Matters: another node took over.
    CoordinatorDies = "coordinator dies",
    /// The coordinator and a backup die together. Matters: another node took over.
    PairDies = "coordinator and backup die",
    /// The power of the whole mesh fails. Matters: there was a job that was not over.
    Blackout = "whole-mesh power cut",
    /// A process stands still, to 60 s. Matters: something waited for it.
    Pause = "pause",
    /// A monotonic clock runs at another rate. Matters: the device had a part in a job.
    Skew = "clock skew",
    /// A monotonic or wall clock jumps. Matters: the device had a part in a job.
    Jump = "clock jump",
    /// A device is 100 times slower. Matters: it computed so.
    Slow = "slow worker",
    /// Slots fail to compute. Matters: one did.
    SlotFails = "failing slot",
    /// A device returns wrong tiles. Matters: it did.
    Liar = "liar",
    /// Blocks are damaged on the way. Matters: one was.
    BadBlock = "damaged block",
    /// A disk is full. Matters: a write was refused.
    FullDisk = "full disk",
    /// A disk is slow. Matters: the node had a part in a job.
    SlowDisk = "slow disk",
    /// A stored tile can not be read any more. Matters: somebody wanted to.
    BadTile = "corrupt tile",
    /// A stored operand can not be read any more. Matters: somebody wanted to.
    BadMatrix = "corrupt operand",
    /// Somebody cancels a job. Matters: it was not over.
    Cancel = "cancelled job",
    /// A job's time is over on a node. Matters: the node knew it.
    Expire = "expired job",
    /// A device leaves politely. Matters: it had a part in a job that was not over.
    Leave = "polite leave",
    /// Fifty nodes start at once. Matters: always.
    Crowd = "fifty nodes at once",
    /// A node speaks an older version. Matters: somebody met it.
    OldVersion = "older version",
}

/// The end of a fault.
#[derive(Debug)]
pub enum Heal {
    /// A path is whole again.
    Path(usize, usize),
    /// A path loses nothing and delays nothing any more.
    Quiet(usize, usize),
    /// A flapping path changes again, so many times more.
    Flap(usize, usize, u32),
    /// A clogged direction opens.
    Clog(usize, usize),
    /// A stopped device starts.
    Start(usize),
    /// A paused process goes on.
    Resume(usize),
    /// A slow device is fast again.
    Fast(usize),
    /// A disk has room, and is fast, again.
    Disk(usize),
    /// A clock runs as it should.
    Clock(usize),
}

impl Sim {
    /// A fault begins.
    pub fn injected(&mut self, class: Class) {
        self.faults[class as usize].0 += 1;
    }

    /// A fault made a difference.
    pub fn mattered(&mut self, class: Class) {
        self.faults[class as usize].1 += 1;
    }

    fn heal_after(&mut self, delay: u64, heal: Heal) {
        self.after(delay, Event::Heal(heal));
    }

    /// Whether a device has a part in a job that is not over.
    pub fn is_needed(&self, host: usize) -> bool {
        let state = &self.hosts[host];
        state.computes() || {
            let rows = state.disk.rows.iter();
            let mut open = rows.filter(|(_, row)| row.ended.is_none());
            open.any(|(job, _)| {
                self.jobs
                    .get(job)
                    .is_some_and(|truth| truth.ended.is_none())
            })
        }
    }

    fn matters_if_needed(&mut self, class: Class, host: usize) {
        self.injected(class);
        if self.is_needed(host) {
            self.mattered(class);
        }
    }

    /// Cuts the path from one device to another, for a while.
    pub fn cut_path(&mut self, from: usize, to: usize, time: u64) {
        self.block(from, to);
        self.heal_after(time, Heal::Path(from, to));
    }

    /// Cuts the path from one device to another.
    pub fn block(&mut self, from: usize, to: usize) {
        let now = self.now;
        let path = self.path(from, to);
        path.cuts += 1;
        path.since = now;
    }

    /// Ends a [`Sim::block`].
    pub fn unblock(&mut self, from: usize, to: usize) {
        let now = self.now;
        let path = self.path(from, to);
        path.cuts = path.cuts.saturating_sub(1);
        path.since = now;
        if path.cuts == 0 {
            self.path_healed(from, to);
        }
    }

    /// One way is cut for a while.
    pub fn one_way(&mut self, from: usize, to: usize, time: u64) {
        self.injected(Class::OneWay);
        self.tell(format!("n{from} is not heard by n{to}"));
        self.cut_path(from, to, time);
    }

    /// Two groups can not speak for a while; some paths mend earlier than others.
    pub fn partition(&mut self, group: &[usize], time: u64) {
        self.injected(Class::Partition);
        let names: Vec<String> = group.iter().map(|host| format!("n{host}")).collect();
        self.tell(format!("{} cut off from the others", names.join(", ")));
        for inside in group.iter().copied() {
            for outside in 0..self.hosts.len() {
                if !group.contains(&outside) {
                    let each = [0, 1].map(|_| time / 2 + self.prng.below(time));
                    self.cut_path(inside, outside, each[0]);
                    self.cut_path(outside, inside, each[1]);
                }
            }
        }
    }

    /// A path is cut and mended some times.
    pub fn flap(&mut self, a: usize, b: usize, times: u32) {
        self.injected(Class::Flap);
        self.tell(format!("n{a} and n{b} lose each other again and again"));
        self.flapping.insert((a.min(b), a.max(b)));
        self.heal(Heal::Flap(a, b, 2 * times));
    }

    /// Packets between two devices are lost or late for a while.
    pub fn disturb(&mut self, a: usize, b: usize, loss: u64, jitter: u64, time: u64) {
        let now = self.now;
        for (from, to) in [(a, b), (b, a)] {
            let path = self.path(from, to);
            (path.loss, path.jitter, path.since) = (loss, jitter, now);
            self.heal_after(time, Heal::Quiet(from, to));
        }
    }

    /// One direction of some connection sticks for a while.
    pub fn clog_one(&mut self, time: u64) {
        let of = self.connections.iter().enumerate();
        let up: Vec<usize> = of.filter(|(_, it)| it.is_up()).map(|(at, _)| at).collect();
        let at = self.prng.below(up.len() as u64) as usize;
        let end = self.prng.below(2) as usize;
        if let Some(&connection) = up.get(at) {
            self.injected(Class::Clog);
            self.clog(connection, end, true);
            self.heal_after(time, Heal::Clog(connection, end));
        }
    }

    /// A connection breaks visibly.
    pub fn break_one(&mut self) {
        if self.cut_one().is_some() {
            self.injected(Class::Reset);
            self.mattered(Class::Reset);
        }
    }

    /// A connection dies without a word.
    pub fn forget_one(&mut self) {
        let of = self.connections.iter().enumerate();
        let up: Vec<usize> = of.filter(|(_, it)| it.is_up()).map(|(at, _)| at).collect();
        let at = self.prng.below(up.len() as u64) as usize;
        if let Some(&connection) = up.get(at) {
            self.injected(Class::DeadSocket);
            self.connections[connection].dead = true;
        }
    }

    /// A device stops, and starts again after a while if it may.
    pub fn crash(&mut self, host: usize, class: Class, again: Option<u64>) {
        if !matches!(self.hosts[host].power, Power::On | Power::Paused) {
            return;
        }
        self.matters_if_needed(class, host);
        let dark = class != Class::Crash && self.prng.below(4) > 0;
        self.tell(format!(
            "n{host} {}",
            if dark { "loses power" } else { "is killed" }
        ));
        self.note_deaths(host, class);
        if dark {
            self.power_off(host);
        } else {
            self.kill(host);
        }
        if let Some(delay) = again {
            self.heal_after(delay, Heal::Start(host));
        }
    }

    /// Remembers whose coordinator dies, so that a takeover can be counted.
    fn note_deaths(&mut self, host: usize, class: Class) {
        let device = self.hosts[host].device;
        let of: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, truth)| truth.ended.is_none())
            .map(|(job, _)| *job)
            .filter(|job| {
                let row = self.hosts[host].disk.rows.get(job);
                row.is_some_and(|row| row.coordinated && row.epoch.device == device)
            })
            .collect();
        for job in of {
            if !matches!(class, Class::PairDies | Class::CoordinatorDies) {
                self.injected(Class::CoordinatorDies);
            }
            let class = match class {
                Class::PairDies => Class::PairDies,
                _ => Class::CoordinatorDies,
            };
            self.orphans.insert(job, (host, class));
        }
    }

    /// A node continues the job of another that died.
    pub(super) fn takeover_mattered(&mut self, job: JobId, host: usize) {
        if let Some(&(before, class)) = self.orphans.get(&job)
            && before != host
        {
            self.orphans.remove(&job);
            self.mattered(class);
        }
    }

    /// The whole mesh goes dark, and comes back.
    pub fn blackout(&mut self) {
        self.injected(Class::Blackout);
        if self.jobs.values().any(|truth| truth.ended.is_none()) {
            self.mattered(Class::Blackout);
        }
        self.tell("the power of the whole mesh fails".to_owned());
        for host in 0..self.hosts.len() {
            self.power_off(host);
            let delay = 500_000 + self.prng.below(6_000_000);
            self.heal_after(delay, Heal::Start(host));
        }
    }

    /// A device that stopped starts again.
    pub fn start(&mut self, host: usize) {
        if matches!(self.hosts[host].power, Power::Down | Power::Off) {
            self.tell(format!("n{host} starts"));
            self.restart(host);
        }
    }

    /// A process stands still for a while.
    pub fn pause_for(&mut self, host: usize, time: u64) {
        self.injected(Class::Pause);
        self.tell(format!("n{host} stands still"));
        self.pause(host);
        self.heal_after(time, Heal::Resume(host));
    }

    /// A device becomes slow for a while.
    pub fn slow_down(&mut self, host: usize, time: u64) {
        self.injected(Class::Slow);
        self.hosts[host].slowness = 100;
        self.heal_after(time, Heal::Fast(host));
    }

    /// A disk is full for a while.
    pub fn fill_disk(&mut self, host: usize, time: u64) {
        self.injected(Class::FullDisk);
        self.tell(format!("the disk of n{host} is full"));
        self.hosts[host].disk.full = true;
        self.heal_after(time, Heal::Disk(host));
    }

    /// A disk is slow for a while.
    pub fn slow_disk(&mut self, host: usize, time: u64) {
        self.matters_if_needed(Class::SlowDisk, host);
        self.hosts[host].disk.slow = 20_000 + self.prng.below(200_000);
        self.heal_after(time, Heal::Disk(host));
    }

    /// A stored tile rots.
    pub fn spoil_tile(&mut self, host: usize) {
        let rows = self.hosts[host].disk.rows.iter();
        let held = rows.flat_map(|(job, row)| row.held.keys().map(|tile| (*job, *tile)));
        let held: Vec<(JobId, u32)> = held.collect();
        let at = self.prng.below(held.len() as u64) as usize;
        if let Some(&(job, tile)) = held.get(at) {
            self.injected(Class::BadTile);
            let row = self.hosts[host].disk.rows.get_mut(&job).expect("listed");
            row.held.get_mut(&tile).expect("listed").bad = true;
            self.jobs.get_mut(&job).expect("a job").may_fail = true;
            let name = self.job_name(job);
            self.tell(format!("tile {tile} of {name} rots on n{host}"));
        }
    }

    /// A stored operand rots.
    pub fn spoil_matrix(&mut self, host: usize) {
        let ids: Vec<_> = self.hosts[host].disk.matrices.keys().copied().collect();
        let at = self.prng.below(ids.len() as u64) as usize;
        if let Some(&id) = ids.get(at) {
            self.injected(Class::BadMatrix);
            self.hosts[host].disk.matrices.insert(id, false);
            for truth in self.jobs.values_mut() {
                truth.may_fail |= truth.header.a.id() == id || truth.header.b.id() == id;
            }
            self.tell(format!("an operand rots on n{host}"));
        }
    }

    /// A clock runs up to a fifth too fast or too slow for a while.
    pub fn skew(&mut self, host: usize, time: u64) {
        self.matters_if_needed(Class::Skew, host);
        let rate = 800_000 + self.prng.below(400_000);
        let now = self.now;
        self.hosts[host].clock.set_rate(now, rate);
        self.rewake(host);
        self.heal_after(time, Heal::Clock(host));
    }

    /// A clock jumps.
    pub fn jump(&mut self, host: usize) {
        self.matters_if_needed(Class::Jump, host);
        let by = self.prng.below(120_000_000);
        if self.prng.below(2) == 0 {
            let now = self.now;
            self.hosts[host].clock.jump(now, by / 4);
            self.rewake(host);
        } else {
            let hours = self.prng.below(10 * 24) as i64 - 5 * 24;
            self.hosts[host].clock.wall_offset += hours * 3_600_000;
        }
    }

    fn rewake(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        if matches!(host.power, Power::On | Power::Paused) {
            let wake = host.machine.poll_timeout();
            host.wake = wake.map(|at| host.clock.when(at));
        }
    }

    /// A job's time is over on a node where it has ended.
    pub fn expire(&mut self, host: usize) {
        let rows = self.hosts[host].disk.rows.iter();
        let ended = rows.filter(|(_, row)| row.ended.is_some());
        let ended: Vec<JobId> = ended.map(|(job, _)| *job).collect();
        let at = self.prng.below(ended.len() as u64) as usize;
        if let Some(&job) = ended.get(at)
            && self.hosts[host].is_on()
        {
            self.injected(Class::Expire);
            self.mattered(Class::Expire);
            self.jobs.get_mut(&job).expect("a job").expired = true;
            let name = self.job_name(job);
            self.tell(format!("the time of {name} is over on n{host}"));
            self.write(host, Write::Forget { job });
            self.input(host, Input::Forget { job });
        }
    }

    /// A device leaves politely, and comes back after a while.
    pub fn leave(&mut self, host: usize, again: u64) {
        if !self.hosts[host].is_on() {
            return;
        }
        self.matters_if_needed(Class::Leave, host);
        self.tell(format!("n{host} leaves"));
        self.note_deaths(host, Class::Leave);
        self.input(host, Input::Leave);
        self.kill(host);
        self.heal_after(again, Heal::Start(host));
    }

    pub(super) fn heal(&mut self, heal: Heal) {
        let now = self.now;
        match heal {
            Heal::Path(from, to) => self.unblock(from, to),
            Heal::Quiet(from, to) => {
                let path = self.path(from, to);
                (path.loss, path.jitter, path.since) = (0, 0, now);
            }
            Heal::Flap(a, b, left) => {
                let both = [(a, b), (b, a)];
                if left == 0 || self.healed.is_some() {
                    self.flapping.remove(&(a.min(b), a.max(b)));
                    return;
                }
                for (from, to) in both {
                    if left.is_multiple_of(2) {
                        self.block(from, to);
                    } else {
                        self.unblock(from, to);
                    }
                }
                let delay = 50_000 + self.prng.below(2_000_000);
                self.heal_after(delay, Heal::Flap(a, b, left - 1));
            }
            Heal::Clog(connection, end) => self.clog(connection, end, false),
            Heal::Start(host) if self.buried.contains(&host) => {}
            Heal::Start(host) => self.start(host),
            Heal::Resume(host) => self.resume(host),
            Heal::Fast(host) => self.hosts[host].slowness = 1,
            Heal::Disk(host) => {
                self.hosts[host].disk.full = false;
                self.hosts[host].disk.slow = 0;
            }
            Heal::Clock(host) => {
                self.hosts[host].clock.set_rate(now, 1_000_000);
                self.rewake(host);
            }
        }
    }

    /// Everything is mended, in random order within some seconds; but these stay dead.
    pub fn heal_all(&mut self, dead: &[usize]) {
        self.tell("everything is mended".to_owned());
        self.buried.extend(dead);
        let within = 3_000_000;
        let hosts = self.hosts.len();
        for from in 0..hosts {
            for to in 0..hosts {
                let path = self.path_of(from, to);
                if path.cuts > 0 {
                    let delay = self.prng.below(within);
                    self.path(from, to).cuts = 1;
                    self.heal_after(delay, Heal::Path(from, to));
                }
                if path.loss + path.jitter > 0 {
                    let delay = self.prng.below(within);
                    self.heal_after(delay, Heal::Quiet(from, to));
                }
            }
        }
        for connection in 0..self.connections.len() {
            for end in 0..2 {
                let delay = self.prng.below(within);
                self.heal_after(delay, Heal::Clog(connection, end));
            }
        }
        for host in 0..hosts {
            let mends = [
                Heal::Start(host),
                Heal::Resume(host),
                Heal::Fast(host),
                Heal::Disk(host),
                Heal::Clock(host),
            ];
            for heal in mends {
                let delay = self.prng.below(within);
                self.heal_after(delay, heal);
            }
        }
        self.bad_blocks = 0;
        self.healed = Some(self.now);
        self.run(Span(within), |_| false);
        // Links that died without a word are found out; lost hints are given again.
        for from in 0..hosts {
            for to in 0..hosts {
                if from != to && self.hosts[to].is_node() && self.hosts[from].is_node() {
                    self.hint(from, to, true);
                }
            }
        }
    }
}
