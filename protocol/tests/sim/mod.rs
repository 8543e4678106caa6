//! A mesh in one thread: real engines, the real codec, a virtual clock, network and shell.
//! Everything follows from the seed; the trace hash says whether two runs were the same.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use gemmesh_protocol::codec;
use gemmesh_protocol::engine::Engine;
use gemmesh_protocol::id::{BlockId, DeviceId, JobId, MatrixId};
use gemmesh_protocol::io::{Checked, Config, Door, Input, LinkId, Output, SlabTask};
use gemmesh_protocol::job::{JobHeader, KernelClass};
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::message::{DeviceRecord, Header, Message, Refusal};
use gemmesh_protocol::page::PageEngine;
use gemmesh_protocol::plan;
use gemmesh_protocol::prng::Prng;
use gemmesh_protocol::status::{DeviceKind, DeviceState, JobState, JobStatus};
use gemmesh_protocol::time::{Instant, Span, WallTime};

pub const F64: ElementType = ElementType {
    dtype: Dtype::F64,
    limbs: 1,
};

/// Stands for bytes: a few real ones, and the length that they stand for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Payload {
    pub data: Vec<u8>,
    pub len: u64,
}

#[derive(Debug)]
enum Machine {
    Node(Box<Engine<Payload>>),
    Page(Box<PageEngine<Payload>>),
}

impl Machine {
    fn handle(&mut self, input: Input<Payload>, now: Instant) {
        match self {
            Machine::Node(engine) => engine.handle(input, now),
            Machine::Page(page) => page.handle(input, now),
        }
    }

    fn poll_output(&mut self) -> Option<Output<Payload>> {
        match self {
            Machine::Node(engine) => engine.poll_output(),
            Machine::Page(page) => page.poll_output(),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Machine::Node(engine) => engine.poll_timeout(),
            Machine::Page(page) => page.poll_timeout(),
        }
    }
}

/// How a device is.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    pub slots: u32,
    /// What it says of its speed: all slots together.
    pub mflops: f64,
    /// How fast it is, of what it says.
    pub truth: f64,
    /// It returns wrong tiles.
    pub liar: bool,
    /// One of so many slabs fails (0: none).
    pub fails: u64,
    pub cache_bytes: u64,
    pub mesh: &'static str,
    /// The id of this host instead of one of its own.
    pub twin: Option<usize>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            slots: 2,
            mflops: 4_000.0,
            truth: 1.0,
            liar: false,
            fails: 0,
            cache_bytes: 64 << 20,
            mesh: "sim",
            twin: None,
        }
    }
}

#[derive(Debug)]
pub struct Host {
    machine: Machine,
    spec: Spec,
    pub device: DeviceId,
    address: String,
    pub alive: bool,
    cache: BTreeSet<BlockId>,
    /// Generation and task of what each slot computes.
    slots: BTreeMap<u32, (u64, SlabTask)>,
    started: BTreeMap<u32, SlabTask>,
}

#[derive(Debug)]
struct Connection {
    ends: [(usize, LinkId); 2],
    /// When the last frame sent by each end arrives.
    busy_until: [u64; 2],
    up: bool,
}

#[derive(Debug)]
enum Event {
    Input(usize, Box<Input<Payload>>),
    Connect {
        from: usize,
        address: String,
    },
    Arrive {
        connection: usize,
        end: usize,
        frame: Vec<u8>,
        len: u64,
    },
    Closed {
        connection: usize,
        end: usize,
    },
    Slab {
        host: usize,
        slot: u32,
        generation: u64,
    },
}

/// What the oracle knows of a job.
#[derive(Debug)]
pub struct Job {
    pub header: JobHeader,
    pub host: usize,
    persisted: BTreeSet<u32>,
    pub ended: Option<JobStatus>,
    pub submitted: u64,
    pub seconds: f64,
}

#[derive(Debug)]
pub struct Sim {
    pub now: u64,
    pub prng: Prng,
    pub hosts: Vec<Host>,
    connections: Vec<Connection>,
    by_link: BTreeMap<(usize, LinkId), (usize, usize)>,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    links: u64,
    pub jobs: BTreeMap<JobId, Job>,
    hasher: DefaultHasher,
    pub latency: Span,
    pub bytes_per_us: u64,
    pub quarantined: Vec<DeviceId>,
    /// Pairs of hosts that can not connect any more.
    pub walls: BTreeSet<(usize, usize)>,
    pub bad_blocks: u64,
    /// How attempts to join ended.
    pub joined: Vec<(usize, Result<DeviceId, Refusal>)>,
    pub verbose: bool,
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        Self {
            now: 1_000_000,
            prng: Prng::new(seed),
            hosts: Vec::new(),
            connections: Vec::new(),
            by_link: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            links: 0,
            jobs: BTreeMap::new(),
            hasher: DefaultHasher::new(),
            latency: Span(500),
            bytes_per_us: 100,
            quarantined: Vec::new(),
            walls: BTreeSet::new(),
            bad_blocks: 0,
            joined: Vec::new(),
            verbose: std::env::var_os("GEMMESH_SIM_TRACE").is_some(),
        }
    }

    pub fn trace(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn add_node(&mut self, spec: Spec) -> usize {
        let record = self.record(DeviceKind::Native, spec);
        self.add(record, spec, None)
    }

    pub fn add_page(&mut self, spec: Spec, node: usize) -> usize {
        let record = self.record(DeviceKind::Browser, spec);
        let address = self.hosts[node].address.clone();
        self.add(record, spec, Some(address))
    }

    fn record(&mut self, kind: DeviceKind, spec: Spec) -> DeviceRecord {
        let n = self.hosts.len() as u8;
        let mut id = [0; 32];
        id[0] = self.prng.next_u64() as u8;
        id[1] = n;
        let addresses = match kind {
            DeviceKind::Native => vec![format!("10.0.0.{n}:8080")],
            DeviceKind::Browser => Vec::new(),
        };
        DeviceRecord {
            device: spec
                .twin
                .map_or(DeviceId(id), |twin| self.hosts[twin].device),
            incarnation: u64::from(n) + self.now,
            version: 1,
            name: format!("device {n}"),
            kind,
            addresses,
            via: None,
            slots: spec.slots,
            classes: vec![KernelClass::Any, KernelClass::Separate, KernelClass::Exact],
            mflops: spec.mflops,
            state: DeviceState::Ready,
            since: WallTime(self.now),
            user_agent: "simulated".to_owned(),
        }
    }

    fn add(&mut self, record: DeviceRecord, spec: Spec, node: Option<String>) -> usize {
        let config = Config {
            record: record.clone(),
            mesh: spec.mesh.to_owned(),
            seed: self.prng.next_u64(),
            cache_bytes: spec.cache_bytes,
            devices_max: 64,
        };
        let now = Instant(self.now);
        let machine = match node {
            None => Machine::Node(Box::new(Engine::new(config, now))),
            Some(node) => Machine::Page(Box::new(PageEngine::new(config, node, now))),
        };
        let host = self.hosts.len();
        self.hosts.push(Host {
            machine,
            spec,
            device: record.device,
            address: record.addresses.first().cloned().unwrap_or_default(),
            alive: true,
            cache: BTreeSet::new(),
            slots: BTreeMap::new(),
            started: BTreeMap::new(),
        });
        self.drain(host);
        host
    }

    pub fn engine(&self, host: usize) -> &Engine<Payload> {
        match &self.hosts[host].machine {
            Machine::Node(engine) => engine,
            Machine::Page(_) => panic!("host {host} is a page"),
        }
    }

    pub fn page(&self, host: usize) -> &PageEngine<Payload> {
        match &self.hosts[host].machine {
            Machine::Page(page) => page,
            Machine::Node(_) => panic!("host {host} is a node"),
        }
    }

    pub fn hint(&mut self, from: usize, to: usize, keep: bool) {
        let address = self.hosts[to].address.clone();
        let device = (!keep).then_some(self.hosts[to].device);
        let hint = Input::Hint {
            address,
            device,
            keep,
        };
        self.input(from, hint);
    }

    pub fn submit(&mut self, host: usize, m: u64, k: u64, n: u64) -> JobId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.prng.next_u64().to_le_bytes());
        let job = JobId(id);
        let a = manifest(&format!("{job} A"), m, k);
        let b = manifest(&format!("{job} B"), k, n);
        let slots = self.hosts.iter().map(|host| host.spec.slots).sum();
        let header = JobHeader {
            job,
            name: "simulated".to_owned(),
            class: KernelClass::Any,
            tiling: plan::tiling(&a, &b, F64, slots),
            a,
            b,
            element: F64,
        };
        self.jobs.insert(
            job,
            Job {
                header: header.clone(),
                host,
                persisted: BTreeSet::new(),
                ended: None,
                submitted: self.now,
                seconds: 0.0,
            },
        );
        let submitted = WallTime(self.now / 1_000);
        let header = Box::new(header);
        self.input(host, Input::Submit { header, submitted });
        job
    }

    /// Gives an input at once.
    pub fn input(&mut self, host: usize, input: Input<Payload>) {
        if self.hosts[host].alive {
            self.hosts[host].machine.handle(input, Instant(self.now));
            self.drain(host);
        }
    }

    /// The process dies: its sockets are closed by the system.
    pub fn kill(&mut self, host: usize) {
        self.hosts[host].alive = false;
        let of: Vec<(usize, usize)> = self
            .by_link
            .iter()
            .filter(|((h, _), _)| *h == host)
            .map(|(_, place)| *place)
            .collect();
        for (connection, end) in of {
            self.hang_up(connection, end);
        }
    }

    /// The device sleeps: nothing comes from it any more, not even the end of its sockets.
    pub fn vanish(&mut self, host: usize) {
        self.hosts[host].alive = false;
    }

    /// The device wakes up: its timers run again, its sockets are dead.
    pub fn wake(&mut self, host: usize) {
        self.hosts[host].alive = true;
        self.input(host, Input::Tick);
    }

    /// Connections that are up.
    pub fn connections_up(&self) -> usize {
        self.connections.iter().filter(|c| c.up).count()
    }

    /// Cuts one random connection; both sides notice.
    pub fn cut_one(&mut self) {
        let up: Vec<usize> = (0..self.connections.len())
            .filter(|&c| self.connections[c].up)
            .collect();
        if let Some(&connection) = up.get(self.prng.below(up.len().max(1) as u64) as usize) {
            self.connections[connection].up = false;
            for end in 0..2 {
                self.at(Span(100), Event::Closed { connection, end });
            }
        }
    }

    /// Runs until `done` or the time limit; says whether it was `done`.
    pub fn run(&mut self, limit: Span, done: impl Fn(&Sim) -> bool) -> bool {
        let end = self.now + limit.0;
        while !done(self) {
            let next = self.queue.first_key_value().map(|(key, _)| key.0);
            let timeout = (0..self.hosts.len())
                .filter(|&host| self.hosts[host].alive)
                .filter_map(|host| Some((self.hosts[host].machine.poll_timeout()?.0, host)))
                .min();
            let due = match (next, timeout) {
                (None, None) => return false,
                (Some(next), Some((at, _))) => next.min(at),
                (next, timeout) => next.or(timeout.map(|t| t.0)).expect("one is there"),
            };
            if due > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(due);
            if next.is_some_and(|next| next <= self.now) {
                let (_, event) = self.queue.pop_first().expect("looked at above");
                self.event(event);
            } else {
                let (_, host) = timeout.expect("due came from it");
                self.input(host, Input::Tick);
                // A machine that wants to be woken in the past would spin for ever in a real loop.
                let again = self.hosts[host].machine.poll_timeout();
                assert!(
                    again.is_none_or(|at| at.0 > self.now),
                    "host {host} wants to be woken at {again:?}, and it is {}",
                    self.now
                );
            }
        }
        true
    }

    pub fn all_ended(&self) -> bool {
        self.jobs
            .values()
            .all(|job| job.ended.is_some() || !self.hosts[job.host].alive)
    }

    // -- inside --

    fn at(&mut self, delay: Span, event: Event) {
        self.sequence += 1;
        self.queue
            .insert((self.now + delay.0, self.sequence), event);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Input(host, input) => self.input(host, *input),
            Event::Connect { from, address } => self.connect(from, address),
            Event::Arrive {
                connection,
                end,
                frame,
                len,
            } => {
                let (host, link) = self.connections[connection].ends[end];
                if !self.by_link.contains_key(&(host, link)) {
                    return;
                }
                let (header, start) = codec::decode(&frame).expect("engines speak the protocol");
                let payload = Payload {
                    data: frame[start..].to_vec(),
                    len,
                };
                let payload_bytes = len;
                let input = Input::Frame {
                    link,
                    header,
                    payload,
                    payload_bytes,
                };
                self.input(host, input);
            }
            Event::Closed { connection, end } => {
                let place = self.connections[connection].ends[end];
                if self.by_link.remove(&place).is_some() {
                    self.input(place.0, Input::LinkDown { link: place.1 });
                }
            }
            Event::Slab {
                host,
                slot,
                generation,
            } => {
                let running = self.hosts[host].slots.get(&slot);
                if running.is_none_or(|(current, _)| *current != generation) {
                    return;
                }
                let (_, task) = self.hosts[host].slots.remove(&slot).expect("looked at");
                let fails = self.hosts[host].spec.fails;
                if fails > 0 && self.prng.below(fails) == 0 {
                    self.hosts[host].started.remove(&slot);
                    self.input(host, Input::SlotFailed { slot });
                    return;
                }
                let job = &self.jobs[&task.job];
                let result = task.last.then(|| {
                    // A coordinator does not lie to itself.
                    let lie = self.hosts[host].spec.liar && job.host != host;
                    let mut data = task.job.0.to_vec();
                    data.extend_from_slice(&task.grant.tile.to_le_bytes());
                    data.push(u8::from(!lie));
                    let len = job.header.tile_bytes(task.grant.tile);
                    (Payload { data, len }, len)
                });
                let kernel = self.duration(host, &task);
                let done = Input::SlabDone {
                    slot,
                    kernel,
                    result,
                };
                self.input(host, done);
            }
        }
    }

    fn connect(&mut self, from: usize, address: String) {
        let alive = |host: &Host| host.alive && host.address == address && !address.is_empty();
        let to = self.hosts.iter().position(alive);
        let to = to.filter(|&to| !self.walls.contains(&(from, to)));
        let Some(to) = to else {
            self.input(from, Input::DialFailed { address });
            return;
        };
        let door = match self.hosts[from].machine {
            Machine::Node(_) => Door::Mesh,
            Machine::Page(_) => Door::Page,
        };
        let ends = [self.link(from), self.link(to)];
        let connection = self.connections.len();
        self.connections.push(Connection {
            ends,
            busy_until: [0; 2],
            up: true,
        });
        for (end, place) in ends.into_iter().enumerate() {
            self.by_link.insert(place, (connection, end));
            let dialled = (end == 0).then(|| address.clone());
            let up = Input::LinkUp {
                link: place.1,
                door,
                dialled,
            };
            self.input(place.0, up);
        }
    }

    fn link(&mut self, host: usize) -> (usize, LinkId) {
        self.links += 1;
        (host, LinkId(self.links))
    }

    /// One end closes: it hears so at once, the other after all that was sent.
    fn hang_up(&mut self, connection: usize, end: usize) {
        let place = self.connections[connection].ends[end];
        if self.by_link.remove(&place).is_some() {
            self.at(
                Span(0),
                Event::Input(place.0, Box::new(Input::LinkDown { link: place.1 })),
            );
        }
        if self.connections[connection].up {
            self.connections[connection].up = false;
            let arrived = self.connections[connection].busy_until[end].saturating_sub(self.now);
            let delay = Span(arrived.max(self.latency.0));
            let end = 1 - end;
            self.at(delay, Event::Closed { connection, end });
        }
    }

    fn duration(&self, host: usize, task: &SlabTask) -> Span {
        let spec = self.hosts[host].spec;
        let shape = task.shape;
        let operations = 2 * shape.rows * shape.cols * (task.to - task.from);
        let per_us = spec.mflops * spec.truth / f64::from(spec.slots);
        Span((operations as f64 / per_us) as u64 + 1)
    }

    fn drain(&mut self, host: usize) {
        loop {
            let output = self.hosts[host].machine.poll_output();
            let Some(output) = output else { break };
            let line = format!("{} {host} {output:?}", self.now);
            if self.verbose {
                let text: String = line.chars().take(300).collect();
                println!("{text}");
            }
            line.hash(&mut self.hasher);
            self.output(host, output);
        }
    }

    fn send(&mut self, host: usize, link: LinkId, header: &Header, payload: &Payload) {
        let Some(&(connection, end)) = self.by_link.get(&(host, link)) else {
            return;
        };
        if !self.connections[connection].up {
            return;
        }
        let frame = codec::encode(header, &payload.data);
        let size = frame.len() as u64 + payload.len;
        let jitter = self.prng.below(self.latency.0 / 4 + 1);
        let start = self.now.max(self.connections[connection].busy_until[end]);
        let sent = start + size / self.bytes_per_us;
        let arrival = (sent + self.latency.0 + jitter).max(start + 1);
        self.connections[connection].busy_until[end] = arrival - self.latency.0.min(arrival);
        // First in, first out.
        let last = &mut self.connections[connection].busy_until[end];
        *last = (*last).max(sent);
        let arrival = arrival.max(*last);
        *last = arrival;
        let delay = Span(arrival - self.now);
        let (end, len) = (1 - end, payload.len);
        let event = Event::Arrive {
            connection,
            end,
            frame,
            len,
        };
        self.at(delay, event);
    }

    fn output(&mut self, host: usize, output: Output<Payload>) {
        match output {
            Output::Send {
                link,
                header,
                payload,
            } => {
                let carries = matches!(header.body, Message::Block { .. } | Message::Result { .. });
                assert_eq!(carries, payload.is_some(), "{header:?}");
                self.send(host, link, &header, &payload.unwrap_or_default());
            }
            Output::Close { link, .. } => {
                if let Some(&(connection, end)) = self.by_link.get(&(host, link)) {
                    self.hang_up(connection, end);
                }
            }
            Output::Dial { address } => {
                let from = host;
                self.at(self.latency, Event::Connect { from, address });
            }
            Output::Serve {
                link,
                to,
                job,
                operand,
                blocks,
            } => {
                for block in blocks {
                    let manifest = self.jobs[&job].header.manifest(operand);
                    let id = manifest.blocks[block as usize];
                    let len = manifest.grid().block_bytes(u64::from(block));
                    let mut data = id.0.to_vec();
                    if self.bad_blocks > 0 && self.prng.below(self.bad_blocks) == 0 {
                        data[0] ^= 1;
                    }
                    let header = Header {
                        from: self.hosts[host].device,
                        to,
                        body: Message::Block {
                            job,
                            operand,
                            block,
                        },
                    };
                    self.send(host, link, &header, &Payload { data, len });
                }
            }
            Output::Load {
                job,
                operand,
                blocks,
            } => {
                for block in blocks {
                    let id = self.jobs[&job].header.manifest(operand).blocks[block as usize];
                    self.hosts[host].cache.insert(id);
                    let ready = Input::BlockReady {
                        job,
                        operand,
                        block,
                    };
                    self.at(Span(200), Event::Input(host, Box::new(ready)));
                }
            }
            Output::Keep {
                job,
                operand,
                block,
                id,
                payload,
            } => {
                let answer = if payload.data == id.0 {
                    self.hosts[host].cache.insert(id);
                    Input::BlockReady {
                        job,
                        operand,
                        block,
                    }
                } else {
                    Input::BlockBad {
                        job,
                        operand,
                        block,
                    }
                };
                self.at(Span(100), Event::Input(host, Box::new(answer)));
            }
            Output::Evict { id } => {
                let host = &mut self.hosts[host];
                assert!(host.cache.remove(&id), "a block is dropped twice");
                for (_, task) in host.slots.values() {
                    let used = task.a.iter().chain(&task.b).any(|(block, _)| *block == id);
                    assert!(!used, "a block is dropped while it is used");
                }
            }
            Output::Compute(task) => self.compute(host, task),
            Output::Abort { slot } => {
                assert!(self.hosts[host].slots.remove(&slot).is_some());
                self.hosts[host].started.remove(&slot);
            }
            Output::Verify {
                job,
                tile,
                lease,
                payload,
            } => {
                let checked = match payload.data.last() {
                    Some(&1) => Checked::Right,
                    _ => Checked::Wrong,
                };
                let answer = Input::Verified {
                    job,
                    tile,
                    lease,
                    checked,
                    payload,
                };
                self.at(Span(500), Event::Input(host, Box::new(answer)));
            }
            Output::Persist {
                job, done, payload, ..
            } => {
                let mut expected = job.0.to_vec();
                expected.extend_from_slice(&done.tile.to_le_bytes());
                expected.push(1);
                assert_eq!(payload.data, expected, "a wrong tile is accepted");
                let known = self.jobs.get_mut(&job).expect("a submitted job");
                assert!(known.ended.is_none(), "a tile after the end");
                assert!(
                    known.persisted.insert(done.tile),
                    "a tile is accepted twice"
                );
                let tile = done.tile;
                self.at(
                    Span(1_000),
                    Event::Input(host, Box::new(Input::Persisted { job, tile })),
                );
            }
            Output::Finish { job } => {
                let known = &self.jobs[&job];
                let tiles = known.header.tiling.len();
                assert_eq!(known.persisted.len() as u64, tiles, "every tile once");
                let result = MatrixId([7; 32]);
                self.at(
                    Span(1_000),
                    Event::Input(host, Box::new(Input::Finished { job, result })),
                );
            }
            Output::Ended { status } => {
                let now = self.now;
                let known = self.jobs.get_mut(&status.job).expect("a submitted job");
                assert!(known.ended.is_none(), "a job ends once");
                assert!(status.state.has_ended());
                if status.state == JobState::Done {
                    let operations: u64 = status.contributions.iter().map(|c| c.operations).sum();
                    assert_eq!(u128::from(operations), known.header.operations());
                    assert_eq!(status.tiles_done, status.tiles_total);
                }
                known.seconds = (now - known.submitted) as f64 / 1e6;
                known.ended = Some(*status);
            }
            Output::Quarantined { device, .. } => self.quarantined.push(device),
            Output::Joined { outcome, .. } => self.joined.push((host, outcome)),
            Output::JobChanged { .. } | Output::DevicesChanged => {}
        }
    }

    fn compute(&mut self, host: usize, task: SlabTask) {
        let state = &mut self.hosts[host];
        for (id, _) in task.a.iter().chain(&task.b) {
            assert!(
                state.cache.contains(id),
                "a slab needs a block that is not there"
            );
        }
        // The slabs of a tile come in order on one slot; the first one starts anew.
        let before = state.started.remove(&task.slot);
        assert_eq!(task.first, task.from == 0);
        if !task.first {
            let before = before.expect("a slab before this one");
            assert!(
                before.grant == task.grant && before.to == task.from,
                "{before:?} then {task:?}"
            );
        }
        if !task.last {
            state.started.insert(task.slot, task.clone());
        }
        self.sequence += 1;
        let (slot, generation) = (task.slot, self.sequence);
        let duration = self.duration(host, &task);
        let previous = self.hosts[host].slots.insert(slot, (generation, task));
        assert!(previous.is_none(), "one slab a slot");
        let event = Event::Slab {
            host,
            slot,
            generation,
        };
        self.at(duration, event);
    }
}

pub fn manifest(name: &str, rows: u64, cols: u64) -> Manifest {
    let count = Grid::new(rows, cols, F64).len();
    let block = |n| BlockId::of(format!("{name} {n}").as_bytes());
    Manifest {
        element: F64,
        bits: 0,
        rows,
        cols,
        blocks: (0..count).map(block).collect(),
    }
}
