//! The engine of a browser page: a worker, its own node, and the coordinators it works for.
//!
//! The own node is the one that the page is attached to: first the one that served it, and when that
//! is gone another one of the mesh (`nodes`), until the first is back. What the page computes goes on
//! meanwhile.

mod frames;
mod links;
mod nodes;

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::id::{DeviceId, JobId};
use crate::io::{Config, Input, LinkId, Output};
use crate::message::{DeviceRecord, Header, Hello, Message, Refusal, VERSION};
use crate::prng::Prng;
use crate::progress;
use crate::remote::RemoteJobs;
use crate::status::{DeviceKind, DeviceState, JobStatus};
use crate::time::{Instant, Span};
use crate::timer::{Throttle, earliest};
use crate::worker::{Effect, Worker};

use nodes::Nodes;

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
/// The first round of dialling nodes after a link was lost, the node that served the page first.
const RETRY_FIRST: Span = Span::from_millis(100);
/// Back-off between two rounds.
const RETRY_MIN: Span = Span::from_millis(500);
const RETRY_MAX: Span = Span::from_secs(10);
/// A page that has moved looks so often whether the node that served it is back, once nothing is
/// computed.
const HOME_AGAIN: Span = Span::from_secs(30);
const HOME_AGAIN_BUSY: Span = Span::from_secs(5);
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
    /// That is not the node that served the page, which is gone.
    pub moved: bool,
    /// Tiles that coordinators accepted; a tile that somebody else delivered first is not among them.
    pub tiles: u64,
    /// Rows of C in those tiles, each counted once for each job.
    pub rows: u64,
    /// 2·rows·inner·cols summed over those tiles.
    pub operations: u64,
    /// The same for all tiles computed, accepted or not.
    pub computed: u64,
    /// Kernel time for the tiles accepted, summed over slots.
    pub kernel_ms: f64,
    /// Time with at least one kernel running.
    pub busy_ms: f64,
    /// `computed` over `busy_ms`, in 10^6 per second.
    pub mflops: f64,
    /// The last tile accepted.
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
/// `Input::Hint` tells of further nodes, beside those that the mesh tells of.
/// `Output::Joined` tells of each attempt to become a member through the own node; a page that is
/// refused with [`Refusal::DuplicateId`] should draw another id and start a new engine.
#[derive(Debug)]
pub struct PageEngine<P> {
    record: DeviceRecord,
    mesh: String,
    nodes: Nodes,
    /// Where the own node is, or is dialled.
    address: String,
    own: Own,
    /// The node that served the page, once it was there.
    home: Option<DeviceId>,
    /// The way back to it.
    back: Back,
    /// Rounds of dialling in vain.
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

/// The way back to the node that served the page, while this page is a member through another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// It is there, or the own node is sought anyway.
    No,
    /// Dialled then.
    Wait { until: Instant },
    /// Dialled; a link or a failure must come by then.
    Dialling { until: Instant },
    /// The link is there, the Welcome must come by then.
    Greeting { link: LinkId, until: Instant },
}

#[derive(Debug)]
struct Link {
    /// The coordinator at the other end; `None` for the own node, or one that may become it.
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
            config.memory,
            now,
        );
        let mut page = Self {
            paused: record.state == DeviceState::Paused,
            record,
            mesh: config.mesh,
            address: node.clone(),
            nodes: Nodes::new(node),
            own: Own::Away { retry: now },
            home: None,
            back: Back::No,
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
            Input::Hint { address, .. } => self.nodes.hint(address),
            Input::Submit { .. }
            | Input::Restore(_)
            | Input::Expired { .. }
            | Input::Claimed { .. }
            | Input::Recorded { .. }
            | Input::MatrixCopied { .. }
            | Input::TileFetched { .. }
            | Input::Cancel { .. }
            | Input::Fail { .. }
            | Input::Forget { .. }
            | Input::Verified { .. }
            | Input::Persisted { .. }
            | Input::Finished { .. }
            | Input::Traffic { .. }
            | Input::Moved { .. }
            | Input::Encoded { .. }
            | Input::Decoded { .. }
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
        let back = match self.back {
            Back::Wait { until } | Back::Dialling { until } | Back::Greeting { until, .. } => {
                Some(until)
            }
            Back::No => None,
        };
        let own = earliest(own, back);
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
    pub fn contribution(&self) -> PageContribution {
        let tally = self.worker.tally();
        let busy = self.worker.busy();
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
            moved: node.is_some() && self.has_moved(),
            tiles: tally.tiles,
            rows: tally.rows,
            operations: tally.operations,
            computed: tally.computed,
            kernel_ms: ms(tally.kernel),
            busy_ms: ms(busy),
            mflops: progress::mflops(tally.computed, busy),
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

    /// The status of a job, as the own node last told.
    pub fn job(&self, job: JobId) -> Option<JobStatus> {
        self.jobs.status(job, self.last)
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

    /// When its node is dialled again; `None` while there is nothing to wait for.
    pub fn retry(&self) -> Option<Instant> {
        match self.own {
            Own::Away { retry } => Some(retry),
            _ => None,
        }
    }

    /// Addresses of nodes, beside the one that served the page: hints for a later engine.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.addresses()
    }

    /// What this page says of itself.
    pub fn record(&self) -> &DeviceRecord {
        &self.record
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
        self.back = Back::No;
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
        self.settle_back(now);
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
            self.send_on(link, to, Message::ping(nonce), None);
        }
        self.devices
            .retain(|_, (_, lost)| lost.is_none_or(|at| now < at + LOST_SHOWN));
        self.jobs.handle_time(now);
        self.worker.handle_time(now);
        self.drain_worker();
        self.tell_state(now);
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
