//! A mesh in one thread: the shipped engines and codec, with a virtual clock, network and disks.
//!
//! Everything follows from the seed; [`Sim::trace`] says whether two runs were the same. What the
//! engines ask for is carried out by a model of the program around them ([`shell`]), over a model
//! of the network ([`net`]) and of disks that lose what was not synced ([`disk`]). Bytes are
//! modelled by what they stand for ([`payload`]). After every step each invariant looks at it
//! ([`invariants`]).

pub mod chaos;
pub mod clock;
pub mod disk;
pub mod faults;
pub mod host;
pub mod invariants;
mod jobs;
pub mod net;
pub mod payload;
mod power;
pub mod room;
pub mod shell;
pub mod truth;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use gemmesh_protocol::engine::Engine;
use gemmesh_protocol::id::{DeviceId, JobId};
use gemmesh_protocol::io::{Config, Input};
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::message::{DeviceRecord, Refusal};
use gemmesh_protocol::page::PageEngine;
use gemmesh_protocol::prng::Prng;
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceKind, DeviceState};
use gemmesh_protocol::time::Span;

use clock::Clock;
use disk::Disk;
use faults::{Class, Heal};
use host::Machine;
pub use host::{Host, Power, Spec};
use invariants::{Invariant, Step};
pub use jobs::{F64, INT, manifest};
use net::{Connection, Item, Path};
use payload::Payload;
use truth::Truth;

/// Engines replicate jobs: a job outlives its coordinator, and the invariants about that hold.
pub const REPLICATION: bool = true;

/// What happens at a moment.
#[derive(Debug)]
pub(super) enum Event {
    /// The shell answers.
    Input {
        host: usize,
        incarnation: u32,
        input: Box<Input<Payload>>,
    },
    Connect {
        from: usize,
        incarnation: u32,
        address: String,
        again: bool,
    },
    Up {
        connection: usize,
    },
    Arrive {
        connection: usize,
        end: usize,
        item: Item,
    },
    Flush {
        connection: usize,
        to: usize,
    },
    GiveUp {
        connection: usize,
        to: usize,
        since: u64,
    },
    Slab {
        host: usize,
        incarnation: u32,
        slot: u32,
        generation: u64,
    },
    Disk {
        host: usize,
        incarnation: u32,
    },
    Ask(Box<shell::Ask>),
    Heal(Heal),
}

impl Event {
    /// The host whose process must run for it.
    fn host(&self, sim: &Sim) -> Option<usize> {
        match self {
            Event::Input { host, .. } | Event::Slab { host, .. } | Event::Disk { host, .. } => {
                Some(*host)
            }
            Event::Up { connection } => Some(sim.connections[*connection].ends[0].0),
            Event::Arrive {
                connection, end, ..
            } => Some(sim.connections[*connection].ends[*end].0),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Timed {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    /// The earliest is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// A simulation.
#[derive(Debug)]
pub struct Sim {
    /// Microseconds.
    pub now: u64,
    /// Decides everything that is left open.
    pub prng: Prng,
    /// The devices.
    pub hosts: Vec<Host>,
    by_device: BTreeMap<DeviceId, usize>,
    connections: Vec<Connection>,
    paths: Vec<Path>,
    stride: usize,
    queue: BinaryHeap<Timed>,
    sequence: u64,
    links: u64,
    /// What is known of each job, by whoever sees everything.
    pub jobs: BTreeMap<JobId, Truth>,
    hash: u64,
    /// Devices that somebody put in quarantine.
    pub quarantined: Vec<DeviceId>,
    /// Pairs of hosts that can not connect any more.
    pub walls: BTreeSet<(usize, usize)>,
    flapping: BTreeSet<(usize, usize)>,
    /// Devices that do not start again.
    buried: BTreeSet<usize>,
    /// Jobs whose coordinator died: who it was and by which fault.
    orphans: BTreeMap<JobId, (usize, Class)>,
    /// One of so many blocks arrives damaged (0: none).
    pub bad_blocks: u64,
    /// How attempts to join ended.
    pub joined: Vec<(usize, Result<DeviceId, Refusal>)>,
    /// How often each fault was injected, and how often it mattered.
    pub faults: [(u64, u64); Class::COUNT],
    /// Since when no fault is injected any more.
    pub healed: Option<u64>,
    invariants: Vec<Box<dyn Invariant>>,
    /// What happened, for people.
    pub story: Vec<String>,
    /// Prints everything that engines say.
    pub verbose: bool,
}

/// More devices than most simulations have.
const HOSTS_MAX: usize = 64;

impl Sim {
    /// An empty mesh.
    pub fn new(seed: u64) -> Self {
        Self::with_room(seed, HOSTS_MAX)
    }

    /// An empty mesh of at most so many devices.
    pub fn with_room(seed: u64, hosts_max: usize) -> Self {
        let path = Path {
            cuts: 0,
            loss: 0,
            latency: 500,
            jitter: 0,
            rate: 100 * 64,
            doubles: 0,
            since: 0,
        };
        Self {
            now: 1_000_000,
            prng: Prng::new(seed),
            hosts: Vec::new(),
            by_device: BTreeMap::new(),
            connections: Vec::new(),
            paths: vec![path; hosts_max * hosts_max],
            stride: hosts_max,
            queue: BinaryHeap::new(),
            sequence: 0,
            links: 0,
            jobs: BTreeMap::new(),
            hash: seed,
            quarantined: Vec::new(),
            walls: BTreeSet::new(),
            flapping: BTreeSet::new(),
            buried: BTreeSet::new(),
            orphans: BTreeMap::new(),
            bad_blocks: 0,
            joined: Vec::new(),
            faults: [(0, 0); Class::COUNT],
            healed: None,
            invariants: invariants::all(),
            story: Vec::new(),
            verbose: std::env::var_os("GEMMESH_SIM_TRACE").is_some(),
        }
    }

    /// From here on nobody looks whether the invariants hold: for measurements.
    pub fn unwatched(mut self) -> Self {
        self.invariants.clear();
        self
    }

    /// Equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.hash
    }

    /// Adds a node.
    pub fn add_node(&mut self, spec: Spec) -> usize {
        self.add(DeviceKind::Native, spec, None)
    }

    /// Adds a page that was opened from a node.
    pub fn add_page(&mut self, spec: Spec, node: usize) -> usize {
        self.add(DeviceKind::Browser, spec, Some(node))
    }

    fn add(&mut self, kind: DeviceKind, spec: Spec, home: Option<usize>) -> usize {
        let n = self.hosts.len();
        assert!(
            n < self.stride,
            "more devices than a simulation has room for"
        );
        let mut id = [0; 32];
        id[0] = self.prng.next_u64() as u8;
        id[1] = n as u8;
        let twin = spec.twin.map(|twin| self.hosts[twin].device);
        let device = twin.unwrap_or(DeviceId(id));
        let address = match kind {
            DeviceKind::Native => format!("10.0.0.{n}:8080"),
            DeviceKind::Browser => String::new(),
        };
        let clock = Clock::new(self.now, self.now);
        let machine = self.machine(n, kind, spec, device, &address, home, clock);
        self.by_device.entry(device).or_insert(n);
        self.hosts.push(Host {
            machine,
            spec,
            kind,
            device,
            address,
            home,
            incarnation: 0,
            power: Power::On,
            power_since: self.now,
            clock,
            disk: Disk::default(),
            slowness: 1,
            cache: BTreeSet::new(),
            slots: BTreeMap::new(),
            started: BTreeMap::new(),
            links: BTreeMap::new(),
            port_free: 0,
            port_bytes: 0,
            wake: None,
            backlog: Default::default(),
            peers: Vec::new(),
        });
        self.drain(n);
        n
    }

    /// A fresh engine for a device.
    #[expect(
        clippy::too_many_arguments,
        reason = "a host is not there yet when it is added"
    )]
    fn machine(
        &mut self,
        n: usize,
        kind: DeviceKind,
        spec: Spec,
        device: DeviceId,
        address: &str,
        home: Option<usize>,
        clock: Clock,
    ) -> Machine {
        let addresses = match kind {
            DeviceKind::Native => vec![address.to_owned()],
            DeviceKind::Browser => Vec::new(),
        };
        let record = DeviceRecord {
            device,
            incarnation: n as u64 + self.now,
            version: 1,
            name: format!("n{n}"),
            kind,
            addresses,
            via: None,
            slots: spec.slots,
            classes: vec![KernelClass::Any, KernelClass::Separate, KernelClass::Exact],
            mflops: spec.mflops,
            state: DeviceState::Ready,
            since: clock.wall(self.now),
            user_agent: "simulated".to_owned(),
            stacks: true,
            residues: true,
            limits: TileLimits::default(),
        };
        let config = Config {
            record,
            mesh: spec.mesh.to_owned(),
            seed: self.prng.next_u64(),
            memory: spec.memory,
            devices_max: self.stride,
            backups: spec.backups,
        };
        let now = clock.instant(self.now);
        match home {
            None => Machine::Node(Box::new(Engine::new(config, now))),
            Some(home) => {
                let node = self.hosts[home].address.clone();
                Machine::Page(Box::new(PageEngine::new(config, node, now)))
            }
        }
    }

    /// The engine of a node.
    ///
    /// # Panics
    /// When it is a page.
    pub fn engine(&self, host: usize) -> &Engine<Payload> {
        self.hosts[host].engine()
    }

    /// The engine of a page.
    ///
    /// # Panics
    /// When it is a node.
    pub fn page(&self, host: usize) -> &PageEngine<Payload> {
        match &self.hosts[host].machine {
            Machine::Page(page) => page,
            Machine::Node(_) => panic!("host {host} is a node"),
        }
    }

    /// The host that a device is.
    pub fn host_of(&self, device: DeviceId) -> Option<usize> {
        self.by_device.get(&device).copied()
    }

    /// Tells a node of another's address; `keep` as with `--peer`.
    pub fn hint(&mut self, from: usize, to: usize, keep: bool) {
        let address = self.hosts[to].address.clone();
        let device = (!keep).then_some(self.hosts[to].device);
        if keep && !self.hosts[from].peers.contains(&address) {
            self.hosts[from].peers.push(address.clone());
        }
        let hint = Input::Hint {
            address,
            device,
            keep,
        };
        self.deliver(from, hint);
    }

    /// Every connection that is up.
    pub fn connections_up(&self) -> usize {
        self.connections.iter().filter(|it| it.is_up()).count()
    }

    /// Cuts one random connection; both sides notice.
    pub fn cut_one(&mut self) -> Option<usize> {
        let of = self.connections.iter().enumerate();
        let up: Vec<usize> = of.filter(|(_, it)| it.is_up()).map(|(at, _)| at).collect();
        let at = self.prng.below(up.len() as u64) as usize;
        let connection = *up.get(at)?;
        self.cut(connection);
        Some(connection)
    }

    /// Runs until `done` or the time limit; says whether it was `done`.
    ///
    /// # Panics
    /// When an invariant does not hold, or an engine panics.
    pub fn run(&mut self, limit: Span, mut done: impl FnMut(&Sim) -> bool) -> bool {
        let end = self.now + limit.0;
        while !done(self) {
            let next = self.queue.peek().map(|timed| timed.at);
            let wakes = self.hosts.iter().enumerate();
            let wake = wakes
                .filter(|(_, host)| host.power == Power::On)
                .filter_map(|(at, host)| Some((host.wake?, at)))
                .min();
            let due = match (next, wake) {
                (None, None) => {
                    self.now = end;
                    return false;
                }
                (Some(next), Some((at, _))) => next.min(at),
                (next, wake) => next.or(wake.map(|wake| wake.0)).expect("one is there"),
            };
            if due > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(due);
            if next.is_some_and(|next| next <= self.now) {
                let timed = self.queue.pop().expect("looked at above");
                self.event(timed.event);
            } else {
                let (_, host) = wake.expect("due came from it");
                self.input(host, Input::Tick);
                // A machine that wants to be woken in the past would spin for ever in a real loop.
                let again = self.hosts[host].wake;
                assert!(
                    again.is_none_or(|at| at > self.now),
                    "n{host} wants to be woken at {again:?}, and it is {}",
                    self.now
                );
            }
        }
        true
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Timed {
            at: at.max(self.now),
            sequence: self.sequence,
            event,
        });
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The shell of a host answers later, if its process is still the same then.
    fn answer_after(&mut self, delay: u64, host: usize, input: Input<Payload>) {
        let incarnation = self.hosts[host].incarnation;
        let input = Box::new(input);
        let event = Event::Input {
            host,
            incarnation,
            input,
        };
        self.after(delay, event);
    }

    fn event(&mut self, event: Event) {
        if let Some(host) = event.host(self)
            && self.hosts[host].power == Power::Paused
        {
            self.mattered(Class::Pause);
            self.hosts[host].backlog.push_back(event);
            return;
        }
        match event {
            Event::Input {
                host,
                incarnation,
                input,
            } => {
                if self.hosts[host].incarnation == incarnation {
                    self.input(host, *input);
                }
            }
            Event::Connect {
                from,
                incarnation,
                address,
                again,
            } => self.connect(from, incarnation, address, again),
            Event::Up { connection } => self.up(connection),
            Event::Arrive {
                connection,
                end,
                item,
            } => self.arrive(connection, end, item),
            Event::Flush { connection, to } => self.flush(connection, to),
            Event::GiveUp {
                connection,
                to,
                since,
            } => self.give_up(connection, to, since),
            Event::Slab {
                host,
                incarnation,
                slot,
                generation,
            } => self.slab(host, incarnation, slot, generation),
            Event::Disk { host, incarnation } => self.disk_ready(host, incarnation),
            Event::Ask(ask) => self.ask(*ask),
            Event::Heal(heal) => self.heal(heal),
        }
    }

    /// Gives an input at once; to a paused process as soon as it goes on.
    pub fn deliver(&mut self, host: usize, input: Input<Payload>) {
        if self.hosts[host].power == Power::Paused {
            let incarnation = self.hosts[host].incarnation;
            let input = Box::new(input);
            self.hosts[host].backlog.push_back(Event::Input {
                host,
                incarnation,
                input,
            });
        } else {
            self.input(host, input);
        }
    }

    /// Gives an input at once.
    pub fn input(&mut self, host: usize, input: Input<Payload>) {
        if self.hosts[host].power != Power::On {
            return;
        }
        if self.verbose && !matches!(input, Input::Tick) {
            let text: String = format!("{input:?}").chars().take(300).collect();
            println!("{:>12} n{host} <- {text}", self.now);
        }
        let now = self.hosts[host].clock.instant(self.now);
        self.observe(&Step::Input(host, &input));
        self.hosts[host].machine.handle(input, now);
        self.drain(host);
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].machine.poll_output() {
            self.mix(host as u64);
            if self.verbose {
                let text: String = format!("{output:?}").chars().take(300).collect();
                println!("{:>12} n{host} -> {text}", self.now);
            }
            self.observe(&Step::Output(host, &output));
            self.output(host, output);
        }
        let host = &mut self.hosts[host];
        let wake = host.machine.poll_timeout();
        host.wake = wake.map(|at| host.clock.when(at));
    }

    /// Something for the invariants to look at.
    fn observe(&mut self, step: &Step<'_>) {
        let mut invariants = std::mem::take(&mut self.invariants);
        for invariant in &mut invariants {
            if let Err(what) = invariant.check(self, step) {
                let at = self.now as f64 / 1e6;
                panic!("{} at {at:.3} s: {what}", invariant.name());
            }
        }
        self.invariants = invariants;
    }

    /// A line for people.
    pub fn tell(&mut self, text: String) {
        if self.verbose {
            println!("{:>12} ## {text}", self.now);
        }
        self.story.push(text);
    }

    fn mix(&mut self, word: u64) {
        mix(&mut self.hash, self.now);
        mix(&mut self.hash, word);
    }
}

fn mix(hash: &mut u64, word: u64) {
    *hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
}

fn mix_bytes(hash: &mut u64, bytes: &[u8]) {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        mix(hash, u64::from_le_bytes(chunk.try_into().expect("eight")));
    }
    for byte in chunks.remainder() {
        mix(hash, u64::from(*byte));
    }
}
