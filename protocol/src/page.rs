//! The engine of a browser page: a worker, its own node, and the coordinators it works for.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::id::{DeviceId, JobId};
use crate::io::{Config, Input, LinkId, Output};
use crate::message::{DeviceRecord, Header, Hello, Message, Refusal, VERSION};
use crate::prng::Prng;
use crate::progress;
use crate::remote::RemoteJobs;
use crate::status::{DeviceState, JobStatus};
use crate::time::{Instant, Span};
use crate::timer::{Throttle, earliest};
use crate::worker::{Effect, Worker};

/// A coordinator that could not be reached directly by then is reached through the own node.
const DIRECT_MAX: Span = Span::from_secs(3);
/// How long the relay is used before the direct way is tried again.
const RELAY_KEPT: Span = Span::from_secs(30);
/// A direct link that has had no job for so long is closed.
const DIRECT_IDLE: Span = Span::from_secs(60);
/// Dialling and the handshake with the own node, together.
const CONNECT_MAX: Span = Span::from_secs(8);
/// Signs of life: asked for this often, missed for this long.
const PING: Span = Span::from_secs(5);
const SILENCE: Span = Span::from_secs(15);
/// Back-off of dialling the own node.
const RETRY_MIN: Span = Span::from_millis(500);
const RETRY_MAX: Span = Span::from_secs(10);
/// How long a lost device is shown.
const LOST_SHOWN: Span = Span::from_secs(60);
/// Devices remembered.
const DEVICES_MAX: usize = 4_096;
/// Coordinators with a direct link at once; others are relayed.
const DIRECT_LINKS_MAX: usize = 16;
/// Announcements kept while a coordinator is dialled.
const OPENS_MAX: usize = 256;

/// How a page stands with its own node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// Dialling for the first time, or again after the link was lost.
    Connecting,
    /// A member of the mesh.
    Connected,
    /// Refused; see `refusal`.
    Refused,
}

/// The last tile that a device computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LastTile {
    /// Its job.
    pub job: JobId,
    /// The node that coordinates the job.
    pub coordinator: DeviceId,
    /// The tile's place in the job's tiling.
    pub tile: u32,
    /// Its kernel time.
    pub kernel_ms: f64,
}

/// What this page has done since it was opened. Serialises to plain JSON for the page's view.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PageContribution {
    /// How the page stands with its own node.
    pub connection: Connection,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// Its own node, once connected.
    pub node: Option<DeviceId>,
    /// Tiles computed.
    pub tiles: u64,
    /// Rows of C in those tiles, each counted once for each job.
    pub rows: u64,
    /// 2·rows·inner·cols summed over those tiles.
    pub operations: u64,
    /// Kernel time summed over slots.
    pub kernel_ms: f64,
    /// Time with at least one kernel running.
    pub busy_ms: f64,
    /// `operations` over `busy_ms`, in 10^6 per second.
    pub mflops: f64,
    /// The last tile computed.
    pub last: Option<LastTile>,
    /// Slots that compute now.
    pub active_slots: u32,
    /// All slots.
    pub slots: u32,
    /// The person paused this device.
    pub paused: bool,
}

/// A page's part of the protocol. The calling order is [`crate::engine::Engine`]'s; the inputs about
/// jobs as a coordinator (Submit, Verified, …) do not concern a page and are ignored.
///
/// Links: `Output::Dial { address }` asks for `ws://ADDRESS/ws`; answer with
/// `Input::LinkUp { dialled: Some(address), door: Door::Page, .. }` or `Input::DialFailed`.
/// `Output::Joined` tells of each attempt to become a member through the own node; a page that is
/// refused with [`Refusal::DuplicateId`] should draw another id and start a new engine.
#[derive(Debug)]
pub struct PageEngine<P> {
    record: DeviceRecord,
    mesh: String,
    address: String,
    own: Own,
    tries: u32,
    refusal: Option<Refusal>,
    links: BTreeMap<LinkId, Link>,
    coordinators: BTreeMap<DeviceId, Coordinator>,
    devices: BTreeMap<DeviceId, (DeviceRecord, Option<Instant>)>,
    jobs: RemoteJobs,
    worker: Worker<P>,
    paused: bool,
    own_news: Throttle,
    prng: Prng,
    last: Instant,
    outputs: VecDeque<Output<P>>,
}

/// The way to the own node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// Dialled again then.
    Away {
        retry: Instant,
    },
    /// Dialled; a link or a failure must come by then.
    Dialling {
        until: Instant,
    },
    /// The link is there, the Welcome must come by then.
    Greeting {
        link: LinkId,
        until: Instant,
    },
    Member {
        link: LinkId,
        node: DeviceId,
    },
    Left,
}

#[derive(Debug)]
struct Link {
    /// The coordinator at the other end; `None` for the own node.
    coordinator: Option<DeviceId>,
    welcomed: bool,
    heard: Instant,
    next_ping: Instant,
}

#[derive(Debug)]
struct Coordinator {
    way: Way,
    /// What it announced while it was dialled.
    opens: Vec<Message>,
    /// When it last had work.
    active: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// The link may be up already; the Welcome must come by then.
    Dialling {
        address: String,
        link: Option<LinkId>,
        until: Instant,
    },
    Direct {
        link: LinkId,
    },
    Relayed {
        until: Instant,
    },
}

impl<P: Clone> PageEngine<P> {
    /// A page that was just opened; `node` is the `HOST:PORT` that served it. The first output is
    /// a Dial of it.
    pub fn new(config: Config, node: String, now: Instant) -> Self {
        let record = config.record;
        let worker = Worker::new(
            record.device,
            record.slots,
            record.classes.clone(),
            config.cache_bytes,
            now,
        );
        let mut page = Self {
            paused: record.state == DeviceState::Paused,
            record,
            mesh: config.mesh,
            address: node,
            own: Own::Away { retry: now },
            tries: 0,
            refusal: None,
            links: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            devices: BTreeMap::new(),
            jobs: RemoteJobs::default(),
            worker,
            own_news: Throttle::new(Span::from_millis(500)),
            prng: Prng::new(config.seed),
            last: now,
            outputs: VecDeque::new(),
        };
        if page.paused {
            page.worker.configure(page.record.slots, true, now);
        }
        page.settle(now);
        page
    }

    /// Something happened.
    pub fn handle(&mut self, input: Input<P>, now: Instant) {
        match input {
            Input::LinkUp {
                link,
                dialled: Some(address),
                ..
            } => self.handle_link_up(link, &address, now),
            Input::LinkUp { link, .. } => {
                self.outputs.push_back(Output::Close { link, reason: None });
            }
            Input::LinkDown { link } => self.drop_link(link, now),
            Input::Frame {
                link,
                header,
                payload,
                ..
            } => self.handle_frame(link, header, payload, now),
            Input::DialFailed { address } => self.handle_dial_failed(&address, now),
            Input::BlockReady {
                job,
                operand,
                block,
            } => self.worker.handle_block_ready(job, operand, block, now),
            Input::BlockBad {
                job,
                operand,
                block,
            } => self.worker.handle_block_bad(job, operand, block, now),
            Input::SlabDone {
                slot,
                kernel,
                result,
            } => self.worker.handle_slab_done(slot, kernel, result, now),
            Input::SlotFailed { slot } => self.worker.handle_slot_failed(slot, now),
            Input::Configure {
                name,
                slots,
                paused,
                mflops,
            } => self.configure(name, slots, paused, mflops, now),
            Input::Leave => self.leave(now),
            Input::Hint { .. }
            | Input::Submit { .. }
            | Input::Restore { .. }
            | Input::Cancel { .. }
            | Input::Fail { .. }
            | Input::Forget { .. }
            | Input::Verified { .. }
            | Input::Persisted { .. }
            | Input::Finished { .. }
            | Input::Traffic { .. }
            | Input::Tick => {}
        }
        self.settle(now);
    }

    /// What to do next; `None` when all is done.
    pub fn poll_output(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    /// When to call [`PageEngine::handle`] with [`Input::Tick`] if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.own {
            Own::Away { retry } => Some(retry),
            Own::Dialling { until } | Own::Greeting { until, .. } => Some(until),
            Own::Member { .. } | Own::Left => None,
        };
        let links = self.links.values().map(|link| {
            let silence = link.heard + SILENCE;
            if link.welcomed {
                silence.min(link.next_ping)
            } else {
                silence
            }
        });
        let coordinators = self.coordinators.values().map(|c| match c.way {
            Way::Dialling { until, .. } | Way::Relayed { until } => until,
            Way::Direct { .. } => c.active + DIRECT_IDLE,
        });
        let lost = self.devices.values();
        let lost = lost.filter_map(|(_, lost)| lost.map(|at| at + LOST_SHOWN));
        let all = links.chain(coordinators).chain(lost).min();
        let worker = earliest(self.worker.poll_timeout(), self.own_news.poll_timeout());
        earliest(
            earliest(own, all),
            earliest(worker, self.jobs.poll_timeout()),
        )
    }

    /// What this page has done.
    pub fn contribution(&self, now: Instant) -> PageContribution {
        let tally = self.worker.tally();
        let busy = self.worker.busy(now);
        let ms = |span: Span| span.0 as f64 / 1e3;
        let connection = match (self.own, self.refusal) {
            (Own::Member { .. }, _) => Connection::Connected,
            (_, Some(_)) => Connection::Refused,
            _ => Connection::Connecting,
        };
        let node = match self.own {
            Own::Member { node, .. } => Some(node),
            _ => None,
        };
        PageContribution {
            connection,
            refusal: self.refusal,
            node,
            tiles: tally.tiles,
            rows: tally.rows,
            operations: tally.operations,
            kernel_ms: ms(tally.kernel),
            busy_ms: ms(busy),
            mflops: progress::mflops(tally.operations, busy),
            last: tally.last.map(|(job, coordinator, tile, kernel)| LastTile {
                job,
                coordinator,
                tile,
                kernel_ms: ms(kernel),
            }),
            active_slots: self.worker.active_slots(),
            slots: self.record.slots,
            paused: self.paused,
        }
    }

    /// The jobs of the mesh, as the own node last told, newest first.
    pub fn jobs(&self) -> Vec<JobStatus> {
        let mut jobs: Vec<JobStatus> = self.jobs.all(self.last).collect();
        jobs.sort_by_key(|status| std::cmp::Reverse((status.submitted, status.job)));
        jobs
    }

    /// The devices of the mesh, as the own node last told, this page included.
    pub fn devices(&self) -> Vec<DeviceRecord> {
        let others = self.devices.values().map(|(record, _)| record.clone());
        std::iter::once(self.record.clone()).chain(others).collect()
    }

    /// What this page says of itself.
    pub fn record(&self) -> &DeviceRecord {
        &self.record
    }

    // -- links --

    fn handle_link_up(&mut self, link: LinkId, address: &str, now: Instant) {
        let mut coordinator = None;
        if matches!(self.own, Own::Dialling { .. }) && address == self.address {
            let until = now + CONNECT_MAX;
            self.own = Own::Greeting { link, until };
        } else {
            let found = self.coordinators.iter_mut().find_map(|(id, c)| {
                let Way::Dialling {
                    address: wanted,
                    link: slot @ None,
                    ..
                } = &mut c.way
                else {
                    return None;
                };
                (wanted == address).then(|| {
                    *slot = Some(link);
                    *id
                })
            });
            if found.is_none() {
                self.outputs.push_back(Output::Close { link, reason: None });
                return;
            }
            coordinator = found;
        }
        let attach = coordinator.is_none();
        self.links.insert(
            link,
            Link {
                coordinator,
                welcomed: false,
                heard: now,
                next_ping: now + PING,
            },
        );
        let hello = Hello {
            version: VERSION,
            mesh: self.mesh.clone(),
            record: self.record.clone(),
            attach,
        };
        self.send_on(link, DeviceId([0; 32]), Message::Hello(hello), None);
    }

    fn handle_dial_failed(&mut self, address: &str, now: Instant) {
        if matches!(self.own, Own::Dialling { .. }) && address == self.address {
            self.away(now);
            return;
        }
        let of = |(id, c): (&DeviceId, &Coordinator)| match &c.way {
            Way::Dialling {
                address: dialled, ..
            } => (dialled == address).then_some(*id),
            _ => None,
        };
        let failed: Vec<DeviceId> = self.coordinators.iter().filter_map(of).collect();
        for id in failed {
            self.relay(id, now);
        }
    }

    /// The own node can not be reached now.
    fn away(&mut self, now: Instant) {
        if self.own == Own::Left {
            return;
        }
        let gap = Span(RETRY_MIN.0 << self.tries.min(5)).min(RETRY_MAX);
        self.tries += 1;
        let retry = now + self.prng.jitter(gap);
        self.own = Own::Away { retry };
        // What was relayed is cut off.
        let relayed = |(id, c): (&DeviceId, &Coordinator)| {
            matches!(c.way, Way::Relayed { .. }).then_some(*id)
        };
        let relayed: Vec<DeviceId> = self.coordinators.iter().filter_map(relayed).collect();
        for id in relayed {
            self.coordinators.remove(&id);
            self.worker.handle_coordinator_lost(id, now);
        }
        self.outputs.push_back(Output::DevicesChanged);
    }

    /// From now on a coordinator is spoken to through the own node.
    fn relay(&mut self, id: DeviceId, now: Instant) {
        let until = now + RELAY_KEPT;
        let Some(coordinator) = self.coordinators.get_mut(&id) else {
            return;
        };
        coordinator.way = Way::Relayed { until };
        coordinator.active = now;
        for open in std::mem::take(&mut coordinator.opens) {
            self.worker.handle_control(id, open, now);
        }
    }

    fn close(&mut self, link: LinkId, now: Instant) {
        self.outputs.push_back(Output::Close { link, reason: None });
        self.drop_link(link, now);
    }

    /// Books the end of a link.
    fn drop_link(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        match (link.coordinator, self.own) {
            (None, Own::Member { link, node }) if link == id => {
                self.worker.handle_coordinator_lost(node, now);
                self.tries = 0;
                self.away(now);
            }
            (None, Own::Greeting { link, .. }) if link == id => self.away(now),
            (None, _) => {}
            (Some(coordinator), _) => {
                if link.welcomed {
                    self.worker.handle_coordinator_lost(coordinator, now);
                }
                self.relay(coordinator, now);
            }
        }
    }

    // -- frames --

    fn handle_frame(&mut self, id: LinkId, header: Header, payload: P, now: Instant) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.heard = now;
        if !link.welcomed {
            match (header.body, link.coordinator) {
                (Message::Welcome(hello), coordinator)
                    if hello.version == VERSION
                        && hello.mesh == self.mesh
                        && hello.record.is_sane()
                        && hello.record.device == header.from
                        && coordinator.is_none_or(|id| id == header.from) =>
                {
                    link.welcomed = true;
                    self.handle_welcome(id, hello, now);
                }
                (Message::Refuse { reason, .. }, None) => {
                    self.refusal = Some(reason);
                    self.joined(Err(reason));
                    self.close(id, now);
                }
                _ => self.close(id, now),
            }
            return;
        }
        if header.to != self.record.device {
            return;
        }
        let direct = link.coordinator;
        if direct.is_some_and(|coordinator| coordinator != header.from) {
            return;
        }
        let from = header.from;
        match header.body {
            Message::Ping { nonce } => self.send_on(id, from, Message::Pong { nonce }, None),
            Message::Pong { .. } => {}
            Message::Bye | Message::Refuse { .. } => self.close(id, now),
            Message::Gossip { devices } if direct.is_none() => {
                for record in devices {
                    self.handle_record(record, now);
                }
                self.outputs.push_back(Output::DevicesChanged);
            }
            Message::Jobs { jobs } if direct.is_none() => {
                for job in self.jobs.put(jobs, now) {
                    self.outputs.push_back(Output::JobChanged { job });
                }
            }
            open @ Message::Open { .. } => self.handle_open(from, direct.is_some(), open, now),
            body => self.worker.handle_message(from, body, payload, now),
        }
    }

    fn handle_welcome(&mut self, id: LinkId, hello: Hello, now: Instant) {
        let device = hello.record.device;
        let link = self.links.get_mut(&id).expect("the link of the Welcome");
        let Some(coordinator) = link.coordinator else {
            self.own = Own::Member {
                link: id,
                node: device,
            };
            self.tries = 0;
            self.refusal = None;
            self.record.via = Some(device);
            self.devices.clear();
            // It may have been a coordinator with a link of its own before.
            self.devices.insert(device, (hello.record, None));
            self.joined(Ok(device));
            self.outputs.push_back(Output::DevicesChanged);
            return;
        };
        // Leases that came the other way are void: the coordinator opens anew on this link.
        self.worker.handle_coordinator_lost(coordinator, now);
        if let Some(state) = self.coordinators.get_mut(&coordinator) {
            state.way = Way::Direct { link: id };
            state.opens.clear();
            state.active = now;
        }
    }

    fn handle_record(&mut self, record: DeviceRecord, now: Instant) {
        let device = record.device;
        if !record.is_sane() {
            return;
        }
        if device == self.record.device {
            // The own node numbers the versions.
            self.record.version = self.record.version.max(record.version);
            return;
        }
        let age = |record: &DeviceRecord| (record.incarnation, record.version);
        let known = self.devices.get(&device);
        if known.is_some_and(|(known, _)| age(known) >= age(&record)) {
            return;
        }
        if known.is_none() && self.devices.len() >= DEVICES_MAX {
            return;
        }
        let lost = record.state == DeviceState::Lost;
        if lost {
            let relayed = self.coordinators.get(&device);
            if relayed.is_some_and(|c| !matches!(c.way, Way::Direct { .. })) {
                self.coordinators.remove(&device);
                self.worker.handle_coordinator_lost(device, now);
            }
        }
        self.devices.insert(device, (record, lost.then_some(now)));
    }

    fn handle_open(&mut self, from: DeviceId, direct: bool, open: Message, now: Instant) {
        let own = matches!(self.own, Own::Member { node, .. } if node == from);
        if own {
            self.worker.handle_control(from, open, now);
            return;
        }
        let Message::Open { addresses, .. } = &open else {
            return;
        };
        let address = addresses.first().filter(|address| {
            let in_use = self.coordinators.values().any(
                |c| matches!(&c.way, Way::Dialling { address: other, .. } if other == *address),
            );
            **address != self.address && !in_use
        });
        match self.coordinators.get_mut(&from) {
            Some(state) => {
                state.active = now;
                match &state.way {
                    Way::Dialling { .. } if !direct => {
                        if state.opens.len() < OPENS_MAX {
                            state.opens.push(open);
                        }
                    }
                    // While there is a direct link an announcement by the other way is stale.
                    Way::Direct { .. } if !direct => {}
                    _ => self.worker.handle_control(from, open, now),
                }
            }
            None => {
                let full = self.coordinators.len() >= DIRECT_LINKS_MAX;
                let way = match address {
                    Some(address) if !full => {
                        self.outputs.push_back(Output::Dial {
                            address: address.clone(),
                        });
                        Way::Dialling {
                            address: address.clone(),
                            link: None,
                            until: now + DIRECT_MAX,
                        }
                    }
                    _ => Way::Relayed {
                        until: now + RELAY_KEPT,
                    },
                };
                if self.coordinators.len() >= DEVICES_MAX {
                    return;
                }
                let relayed = matches!(way, Way::Relayed { .. });
                let state = Coordinator {
                    way,
                    opens: vec![open],
                    active: now,
                };
                self.coordinators.insert(from, state);
                if relayed {
                    self.relay(from, now);
                }
            }
        }
    }

    fn joined(&mut self, outcome: Result<DeviceId, Refusal>) {
        let address = self.address.clone();
        self.outputs.push_back(Output::Joined { address, outcome });
    }

    // -- the person --

    fn configure(
        &mut self,
        name: Option<String>,
        slots: Option<u32>,
        paused: Option<bool>,
        mflops: Option<f64>,
        now: Instant,
    ) {
        self.paused = paused.unwrap_or(self.paused);
        if let Some(name) = name {
            self.record.name = name;
        }
        self.record.slots = slots.unwrap_or(self.record.slots);
        self.record.mflops = mflops.unwrap_or(self.record.mflops);
        self.worker.configure(self.record.slots, self.paused, now);
        self.record.version += 1;
        self.own_news.urge();
    }

    fn leave(&mut self, now: Instant) {
        self.worker.leave(now);
        self.drain_worker();
        let links: Vec<(LinkId, DeviceId)> = self
            .links
            .iter()
            .filter(|(_, link)| link.welcomed)
            .filter_map(|(id, link)| {
                let node = match self.own {
                    Own::Member { node, .. } => Some(node),
                    _ => None,
                };
                Some((*id, link.coordinator.or(node)?))
            })
            .collect();
        for (link, to) in links {
            self.send_on(link, to, Message::Bye, None);
        }
        for link in std::mem::take(&mut self.links).into_keys() {
            self.outputs.push_back(Output::Close { link, reason: None });
        }
        self.coordinators.clear();
        self.own = Own::Left;
    }

    // -- time and effects --

    fn settle(&mut self, now: Instant) {
        self.last = now;
        let dead = self.links.iter().filter(|(_, l)| now >= l.heard + SILENCE);
        let dead: Vec<LinkId> = dead.map(|(id, _)| *id).collect();
        for id in dead {
            self.close(id, now);
        }
        self.settle_own(now);
        self.settle_coordinators(now);
        let node = match self.own {
            Own::Member { node, .. } => Some(node),
            _ => None,
        };
        let mut pings = Vec::new();
        for (id, link) in &mut self.links {
            if link.welcomed && now >= link.next_ping {
                link.next_ping = now + PING;
                pings.extend(link.coordinator.or(node).map(|to| (*id, to)));
            }
        }
        for (link, to) in pings {
            let nonce = self.prng.next_u64();
            self.send_on(link, to, Message::Ping { nonce }, None);
        }
        self.devices
            .retain(|_, (_, lost)| lost.is_none_or(|at| now < at + LOST_SHOWN));
        self.jobs.handle_time(now);
        self.worker.handle_time(now);
        self.drain_worker();
        self.tell_state(now);
    }

    fn settle_own(&mut self, now: Instant) {
        match self.own {
            Own::Away { retry } if now >= retry => {
                let until = now + CONNECT_MAX;
                self.own = Own::Dialling { until };
                let address = self.address.clone();
                self.outputs.push_back(Output::Dial { address });
            }
            Own::Dialling { until } if now >= until => self.away(now),
            Own::Greeting { link, until } if now >= until => self.close(link, now),
            _ => {}
        }
    }

    fn settle_coordinators(&mut self, now: Instant) {
        let ids: Vec<DeviceId> = self.coordinators.keys().copied().collect();
        for id in ids {
            let working = self.worker.works_for(id);
            let state = self.coordinators.get_mut(&id).expect("listed above");
            if working {
                state.active = now;
            }
            match state.way {
                Way::Dialling { until, link, .. } if now >= until => {
                    self.relay(id, now);
                    if let Some(link) = link {
                        self.links.remove(&link);
                        self.outputs.push_back(Output::Close { link, reason: None });
                    }
                }
                Way::Relayed { until } if now >= until => {
                    if working {
                        // Not in the middle of a job: the next announcement decides anew.
                        state.way = Way::Relayed {
                            until: now + RELAY_KEPT,
                        };
                    } else {
                        self.coordinators.remove(&id);
                    }
                }
                Way::Direct { link } if now >= state.active + DIRECT_IDLE => {
                    self.send_on(link, id, Message::Bye, None);
                    self.links.remove(&link);
                    self.coordinators.remove(&id);
                    self.outputs.push_back(Output::Close { link, reason: None });
                }
                _ => {}
            }
        }
    }

    /// Tells the own node and coordinators what changed about this page.
    fn tell_state(&mut self, now: Instant) {
        let state = match (self.paused, self.worker.active_slots() > 0) {
            (true, _) => DeviceState::Paused,
            (false, true) => DeviceState::Busy,
            (false, false) => DeviceState::Ready,
        };
        if self.record.state != state {
            self.record.state = state;
            self.record.version += 1;
            self.own_news.note();
        }
        if self.own_news.take(now) {
            let node = match self.own {
                Own::Member { node, .. } => Some(node),
                _ => None,
            };
            let links = self.links.iter().filter(|(_, link)| link.welcomed);
            let links: Vec<(LinkId, DeviceId)> = links
                .filter_map(|(id, link)| Some((*id, link.coordinator.or(node)?)))
                .collect();
            for (link, to) in links {
                self.send_on(link, to, Message::Record(self.record.clone()), None);
            }
        }
    }

    fn drain_worker(&mut self) {
        while let Some(effect) = self.worker.poll_effect() {
            let output = match effect {
                Effect::Send { to, body, payload } => {
                    self.send(to, body, payload.map(|(payload, _)| payload));
                    continue;
                }
                Effect::Keep {
                    job,
                    operand,
                    block,
                    id,
                    payload,
                } => Output::Keep {
                    job,
                    operand,
                    block,
                    id,
                    payload,
                },
                // Only a coordinator has blocks of its own.
                Effect::Load { .. } => continue,
                Effect::Evict(id) => Output::Evict { id },
                Effect::Compute(task) => Output::Compute(task),
                Effect::Abort(slot) => Output::Abort { slot },
            };
            self.outputs.push_back(output);
        }
    }

    fn send(&mut self, to: DeviceId, body: Message, payload: Option<P>) {
        let direct = self.coordinators.get(&to).and_then(|c| match c.way {
            Way::Direct { link } => Some(link),
            _ => None,
        });
        let own = match self.own {
            Own::Member { link, .. } => Some(link),
            _ => None,
        };
        if let Some(link) = direct.or(own) {
            self.send_on(link, to, body, payload);
        }
    }

    fn send_on(&mut self, link: LinkId, to: DeviceId, body: Message, payload: Option<P>) {
        let from = self.record.device;
        self.outputs.push_back(Output::Send {
            link,
            header: Header { from, to, body },
            payload,
        });
    }
}
