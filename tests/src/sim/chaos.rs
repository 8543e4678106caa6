//! One seed: a random mesh, random jobs, random faults; then everything is mended, and every job
//! must end as it should.

use gemmesh_protocol::id::JobId;
use gemmesh_protocol::io::WorkerMemory;
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::message::VERSION;
use gemmesh_protocol::prng::Prng;
use gemmesh_protocol::time::Span;

use super::faults::Class;
use super::invariants::{self, Step};
use super::{Power, REPLICATION, Sim, Spec};

/// How long a mesh in which nothing is broken may take to end its jobs.
const END_MAX: Span = Span::from_secs(1_200);
/// Edge of a tile: one block.
const EDGE: u64 = 256;

/// Runs one seed to its end.
///
/// # Panics
/// When an invariant does not hold.
pub fn run(seed: u64, verbose: bool) -> Sim {
    let mut sim = Sim::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x0067_656d_6d65_7368);
    sim.verbose |= verbose;
    let mut plan = Plan::draw(&mut sim);
    plan.build(&mut sim);
    for _ in 0..plan.faults {
        let gap = Span(sim.prng.below(plan.gap));
        sim.run(gap, |_| false);
        plan.strike(&mut sim);
    }
    let rest = Span(sim.prng.below(2 * plan.gap));
    sim.run(rest, |_| false);
    let dead = plan.choose_dead(&mut sim);
    sim.heal_all(&dead);
    settle(&mut sim);
    sim.observe(&Step::End);
    sim
}

/// Leaves a mended mesh alone until its jobs have ended everywhere.
fn settle(sim: &mut Sim) {
    let begin = sim.now;
    while sim.now < begin + END_MAX.0 {
        if sim.run(Span::from_millis(500), everywhere) {
            break;
        }
        let calm = Step::Calm(sim.now - begin);
        sim.observe(&calm);
    }
}

/// Every job has ended on every running node that has a part in it, and nothing is being written.
fn everywhere(sim: &Sim) -> bool {
    if !sim.all_ended() {
        return false;
    }
    let mut nodes = sim.hosts.iter().filter(|host| host.is_on());
    let quiet = nodes.all(|host| {
        let mut rows = host.disk.rows.values();
        rows.all(|row| row.ended.is_some()) && host.disk.pending().next().is_none()
    });
    let mut jobs = sim.jobs.keys();
    quiet && jobs.all(|job| invariants::is_kept(sim, *job) && agree(sim, *job))
}

/// Whether a job has ended in the same way on all nodes that run. Two sides of a partition may each
/// have ended it.
fn agree(sim: &Sim, job: JobId) -> bool {
    let on = sim.hosts.iter().filter(|host| host.is_on());
    let rows = on.filter_map(|host| host.disk.rows.get(&job));
    let mut ends = rows.filter_map(|row| Some(row.ended.as_ref()?.state));
    let first = ends.next();
    ends.all(|end| Some(end) == first)
}

/// What a seed is about.
#[derive(Debug)]
struct Plan {
    nodes: usize,
    pages: usize,
    /// What may happen, each as often as it is listed.
    classes: Vec<Class>,
    faults: u64,
    /// Microseconds between them, at most.
    gap: u64,
    jobs: u64,
    /// Faults end within so many microseconds.
    time: u64,
}

impl Plan {
    fn draw(sim: &mut Sim) -> Self {
        let crowd = sim.prng.below(4_000) == 0;
        let nodes = if crowd {
            50
        } else {
            [2, 3, 3, 3, 4, 4, 4, 5][sim.prng.below(8) as usize]
        };
        // A few kinds for each seed: many at once hide each other.
        let kinds = 1 + sim.prng.below(6);
        let classes = (0..kinds).map(|_| {
            let at = sim.prng.below(STRIKES.len() as u64) as usize;
            STRIKES[at]
        });
        let classes = classes.collect();
        if crowd {
            sim.injected(Class::Crowd);
            sim.mattered(Class::Crowd);
        }
        Self {
            nodes,
            pages: if crowd { 0 } else { sim.prng.below(3) as usize },
            classes,
            faults: if crowd { 4 } else { 2 + sim.prng.below(10) },
            gap: [400_000, 1_500_000, 4_000_000][sim.prng.below(3) as usize],
            jobs: match sim.prng.below(64) {
                0 => 8 + sim.prng.below(12),
                1..32 => 1,
                _ => 1 + sim.prng.below(3),
            },
            time: [500_000, 3_000_000, 10_000_000][sim.prng.below(3) as usize],
        }
    }

    fn build(&mut self, sim: &mut Sim) {
        let lies = self.classes.contains(&Class::Liar);
        let fails = self.classes.contains(&Class::SlotFails);
        let old = self.classes.contains(&Class::OldVersion);
        for host in 0..self.nodes + self.pages {
            let mut spec = Spec {
                slots: 1 + sim.prng.below(3) as u32,
                mflops: 50.0 * (1 + sim.prng.below(10)) as f64,
                truth: [1.0, 1.0, 0.5, 0.1][sim.prng.below(4) as usize],
                memory: memory(&mut sim.prng),
                ..Spec::default()
            };
            if lies && host > 0 && sim.prng.below(3) == 0 {
                spec.liar = true;
                sim.injected(Class::Liar);
            }
            if fails && sim.prng.below(3) == 0 {
                spec.fails = 20;
                sim.injected(Class::SlotFails);
            }
            if old && host > 0 && host + 1 == self.nodes {
                spec.version = Some(VERSION - 1);
                sim.injected(Class::OldVersion);
            }
            if host < self.nodes {
                sim.add_node(spec);
            } else {
                let node = sim.prng.below(self.nodes as u64) as usize;
                sim.add_page(spec, node);
            }
        }
        let hosts = self.nodes + self.pages;
        for from in 0..hosts {
            for to in 0..hosts {
                let latency = 100 + sim.prng.below(4_000);
                let rate = 64 * (10 + sim.prng.below(100));
                let path = sim.path(from, to);
                (path.latency, path.rate) = (latency, rate);
                if self.classes.contains(&Class::DoubleDial) {
                    path.doubles = 50;
                }
            }
        }
        if self.classes.contains(&Class::BadBlock) {
            sim.bad_blocks = 30;
            sim.injected(Class::BadBlock);
        }
        // Everybody can be found from everybody, by peers or by what mDNS said.
        for from in 1..self.nodes {
            let to = sim.prng.below(from as u64) as usize;
            sim.hint(from, to, true);
            if self.nodes < 10 {
                for to in 0..self.nodes {
                    if to != from && sim.prng.below(3) > 0 {
                        sim.hint(from, to, false);
                    }
                }
            }
        }
        let together = Span(sim.prng.below(3_000_000));
        sim.run(together, |_| false);
        for _ in 0..self.jobs {
            let node = sim.prng.below(self.nodes as u64) as usize;
            let gap = Span(sim.prng.below(300_000));
            let class = [KernelClass::Any, KernelClass::Separate, KernelClass::Exact];
            let class = class[sim.prng.below(3) as usize];
            let edge = |sim: &mut Sim| EDGE * (2 + sim.prng.below(3)) - sim.prng.below(2) * 100;
            let (rows, cols) = (edge(sim), edge(sim));
            let inner = 64 + sim.prng.below(500);
            let job = sim.submit_as(node, class, [rows, inner, cols], Some(EDGE));
            sim.jobs.get_mut(&job).expect("just made").odd = sim.prng.below(16) == 0;
            sim.run(gap, |_| false);
        }
    }

    fn any(&self, sim: &mut Sim) -> usize {
        sim.prng.below((self.nodes + self.pages) as u64) as usize
    }

    fn node(&self, sim: &mut Sim) -> usize {
        sim.prng.below(self.nodes as u64) as usize
    }

    fn pair(&self, sim: &mut Sim) -> (usize, usize) {
        let a = self.any(sim);
        let b = sim.prng.below((self.nodes + self.pages) as u64 - 1) as usize;
        (a, if b < a { b } else { b + 1 })
    }

    /// A node that coordinates something, else any.
    fn coordinator(&self, sim: &mut Sim) -> usize {
        let jobs: Vec<_> = sim.jobs.keys().copied().collect();
        let at = sim.prng.below(jobs.len() as u64) as usize;
        let found = jobs.get(at).and_then(|job| sim.coordinators(*job).next());
        found.unwrap_or_else(|| self.node(sim))
    }

    fn strike(&mut self, sim: &mut Sim) {
        let at = sim.prng.below(self.classes.len() as u64) as usize;
        let class = self.classes[at];
        let time = 1 + sim.prng.below(self.time);
        // Some come back at once, some late.
        let again = if sim.prng.below(4) == 0 {
            None
        } else {
            Some(100_000 + sim.prng.below(2 * self.time))
        };
        match class {
            Class::Loss => {
                let (a, b) = self.pair(sim);
                let loss = 1 + sim.prng.below(30);
                sim.injected(class);
                sim.disturb(a, b, loss, 0, time);
            }
            Class::Delay => {
                let (a, b) = self.pair(sim);
                let jitter = 1 + sim.prng.below(5_000_000);
                sim.injected(class);
                sim.disturb(a, b, 0, jitter, time);
            }
            Class::OneWay => {
                let (a, b) = self.pair(sim);
                sim.one_way(a, b, time);
            }
            Class::Partition => {
                let hosts = self.nodes + self.pages;
                let group: Vec<usize> = if sim.prng.below(3) == 0 {
                    vec![self.coordinator(sim)]
                } else {
                    (0..hosts).filter(|_| sim.prng.below(2) == 0).collect()
                };
                sim.partition(&group, time);
            }
            Class::Flap => {
                let (a, b) = self.pair(sim);
                let times = 1 + sim.prng.below(6) as u32;
                sim.flap(a, b, times);
            }
            Class::Clog => sim.clog_one(time),
            Class::Reset => sim.break_one(),
            Class::DeadSocket => sim.forget_one(),
            Class::Crash | Class::PowerLoss => {
                let host = self.any(sim);
                sim.crash(host, class, again);
            }
            Class::CoordinatorDies => {
                let host = self.coordinator(sim);
                sim.injected(class);
                sim.crash(host, class, again);
            }
            Class::PairDies => {
                let host = self.coordinator(sim);
                let other = self.node(sim);
                sim.injected(class);
                sim.crash(host, class, again);
                if other != host {
                    sim.crash(other, Class::PowerLoss, Some(time));
                }
            }
            Class::Blackout => sim.blackout(),
            Class::Pause => {
                let host = self.any(sim);
                let time = if sim.prng.below(4) == 0 {
                    sim.prng.below(60_000_000)
                } else {
                    time
                };
                sim.pause_for(host, time);
            }
            Class::Skew => {
                let host = self.any(sim);
                sim.skew(host, 4 * time);
            }
            Class::Jump => {
                let host = self.any(sim);
                sim.jump(host);
            }
            Class::Slow => {
                let host = self.any(sim);
                sim.slow_down(host, time);
            }
            Class::FullDisk => {
                let host = self.node(sim);
                sim.fill_disk(host, time);
            }
            Class::SlowDisk => {
                let host = self.node(sim);
                sim.slow_disk(host, time);
            }
            Class::BadTile => {
                let host = self.node(sim);
                sim.spoil_tile(host);
            }
            Class::BadMatrix => {
                let host = self.node(sim);
                sim.spoil_matrix(host);
            }
            Class::Cancel => {
                let jobs: Vec<_> = sim.jobs.keys().copied().collect();
                let at = sim.prng.below(jobs.len() as u64) as usize;
                if let Some(job) = jobs.get(at) {
                    sim.injected(class);
                    if sim.cancel(*job) {
                        sim.mattered(class);
                    }
                }
            }
            Class::Expire => {
                let host = self.node(sim);
                sim.expire(host);
            }
            Class::Leave => {
                let host = self.any(sim);
                sim.leave(host, time);
            }
            // In the mesh from the beginning, or the consequence of another fault.
            Class::DoubleDial
            | Class::Reorder
            | Class::TornWrite
            | Class::SlotFails
            | Class::Liar
            | Class::BadBlock
            | Class::Crowd
            | Class::OldVersion => {}
        }
    }

    /// Some devices that are down never come back: those without which every job can go on.
    fn choose_dead(&self, sim: &mut Sim) -> Vec<usize> {
        let down = |host: &super::Host| matches!(host.power, Power::Down | Power::Off);
        let mut dead = Vec::new();
        for host in 0..self.nodes {
            if !REPLICATION || !down(&sim.hosts[host]) || sim.prng.below(3) > 0 {
                continue;
            }
            let others = |job| {
                let mut hosts = sim.hosts.iter().enumerate();
                hosts.any(|(other, state)| {
                    other != host && !dead.contains(&other) && state.disk.can_continue(job)
                })
            };
            if sim
                .jobs
                .keys()
                .all(|job| sim.jobs[job].acknowledged.is_none() || others(*job))
            {
                dead.push(host);
            }
        }
        dead
    }
}

/// What seeds draw from; more often what takes more to survive.
const STRIKES: &[Class] = &[
    Class::Loss,
    Class::Delay,
    Class::DoubleDial,
    Class::OneWay,
    Class::Partition,
    Class::Partition,
    Class::Flap,
    Class::Clog,
    Class::Reset,
    Class::DeadSocket,
    Class::Crash,
    Class::Crash,
    Class::PowerLoss,
    Class::PowerLoss,
    Class::CoordinatorDies,
    Class::CoordinatorDies,
    Class::PairDies,
    Class::Blackout,
    Class::Pause,
    Class::Skew,
    Class::Jump,
    Class::Slow,
    Class::SlotFails,
    Class::Liar,
    Class::BadBlock,
    Class::FullDisk,
    Class::SlowDisk,
    Class::BadTile,
    Class::BadMatrix,
    Class::Cancel,
    Class::Expire,
    Class::Leave,
    Class::OldVersion,
];

/// What a worker may hold: sometimes so little that its tiles wait for each other's blocks.
fn memory(prng: &mut Prng) -> WorkerMemory {
    let (cache_bytes, window_bytes) =
        [(4 << 20, 0), (16 << 20, 3 << 20), (256 << 20, u64::MAX)][prng.below(3) as usize];
    WorkerMemory {
        window_bytes,
        ..WorkerMemory::of_cache(cache_bytes)
    }
}
