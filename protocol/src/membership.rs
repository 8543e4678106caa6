//! Who is there: links, the handshake, gossip of device records, dialling, signs of life.
//!
//! Intuition: a record belongs to its device (a page's to the node it is attached to), and the
//! highest (incarnation, version) wins, so news can flood in any order. Whoever loses a link says
//! so in the other's name with a higher version; who is alive after all contradicts with a higher
//! one still (as in SWIM: Das, Gupta, Motivala 2002, section 4.2).

mod dial;
mod frames;
mod gauge;
mod gossip;
mod handshake;

use std::collections::{BTreeMap, VecDeque};

use crate::id::DeviceId;
use crate::io::{Config, Door, LinkId};
use crate::message::{DeviceRecord, GOSSIP_MAX, Header, Hello, Message, Refusal, VERSION};
use crate::prng::Prng;
use crate::status::{DeviceEntry, DeviceKind, DeviceState};
use crate::time::{Instant, Span};
use crate::timer::{Throttle, earliest};

use gauge::Gauge;

/// The first frame must be there by then.
const HANDSHAKE_MAX: Span = Span::from_secs(5);
/// Signs of life are asked for this often, and missed for this long before a link counts as dead.
/// Pages sleep and share slow radios.
const PING_NODE: Span = Span::from_millis(400);
const PING_PAGE: Span = Span::from_secs(5);
const SILENCE_NODE: Span = Span::from_millis(1_800);
const SILENCE_PAGE: Span = Span::from_secs(15);
/// When another device claims the same id or link, the present one has this long to show itself.
const PROBE_MAX: Span = Span::from_secs(2);
/// A node that was itself suspended does not hold the others' silence against them.
const STALL: Span = Span::from_secs(1);
/// How long a lost device is shown.
const LOST_SHOWN: Span = Span::from_secs(60);
/// The device with the larger id waits so long for the other to dial.
const DIAL_DELAY: Span = Span::from_millis(1_500);
/// Back-off of dialling: doubled from the first to the second, with jitter.
const DIAL_GAP_MIN: Span = Span::from_millis(400);
const DIAL_GAP_MAX: Span = Span::from_secs(5);
/// Attempts at an address that nobody asked to keep.
const DIAL_TRIES: u32 = 6;
/// A dial that the shell never answers counts as failed.
const DIAL_ANSWER_MAX: Span = Span::from_secs(10);
/// Addresses remembered besides those of devices.
const DIALS_MAX: usize = 256;
/// Dials of addresses that were only gossiped, at the same time: nobody can make this mesh knock
/// at somebody's doors faster than that.
const GOSSIPED_DIALS_MAX: usize = 16;
/// Versions and incarnations that a device may have. The bound of [`DeviceRecord::is_sane`] is
/// twice as high, so whoever counts on from here still makes sense to others.
const AGE_MAX: u64 = u64::MAX / 4;
/// And those that others may tell of, so that a device which contradicts keeps to its bound.
const HEARSAY_MAX: u64 = AGE_MAX / 2;
/// How often a page is claimed back from another node.
const RECLAIM_GAP: Span = Span::from_secs(1);

/// What membership asks for.
#[derive(Debug)]
pub enum Effect {
    /// Send a frame without payload.
    Send(LinkId, Box<Header>),
    /// Close a link.
    Close(LinkId, Option<Refusal>),
    /// Open a link.
    Dial(String),
    /// As [`crate::io::Output::Joined`].
    Joined(String, Result<DeviceId, Refusal>),
    /// A node or an attached page was welcomed: it wants to know the jobs.
    Welcomed(LinkId, DeviceId),
    /// A link to a device was measured: bytes a second.
    Rate(DeviceId, f64),
    /// Records or routes changed.
    Changed,
}

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// Dealt with, or void.
    Consumed,
    /// For the machines of this device.
    Deliver,
    /// For another device, by way of this link.
    Forward(LinkId),
}

/// Who is at the other end of an open link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Node,
    /// A page that is a member through this node.
    Attached,
    /// A page that only works for jobs of this node.
    Guest,
}

#[derive(Debug)]
struct Peer {
    role: Role,
    /// As last told; for nodes and attached pages the gossiped one counts.
    record: DeviceRecord,
}

#[derive(Debug)]
struct Link {
    door: Door,
    dialled: Option<String>,
    opened: Instant,
    heard: Instant,
    next_ping: Instant,
    /// It must be heard of by then.
    probe: Option<Instant>,
    /// Not before this a page is claimed back from another node.
    next_reclaim: Option<Instant>,
    /// How fast it is: what is being measured, and what was.
    gauge: Gauge,
    gauged: Vec<f64>,
    peer: Option<Peer>,
}

impl Link {
    fn silence_max(&self) -> Span {
        match self.door {
            Door::Mesh => SILENCE_NODE,
            Door::Page => SILENCE_PAGE,
        }
    }

    /// When it counts as dead if nothing is heard.
    fn deadline(&self) -> Instant {
        let silence = match self.peer {
            None => return self.opened + HANDSHAKE_MAX,
            Some(_) => self.heard + self.silence_max(),
        };
        self.probe.map_or(silence, |probe| probe.min(silence))
    }
}

#[derive(Debug)]
struct Known {
    record: DeviceRecord,
    lost: Option<Lost>,
    /// Since when a node has no link to this one.
    unlinked: Option<Instant>,
    next_dial: Option<Instant>,
    tries: u32,
}

#[derive(Debug, Clone, Copy)]
struct Lost {
    at: Instant,
    on_purpose: bool,
}

/// An address that was hinted at or is dialled.
#[derive(Debug)]
struct Dial {
    device: Option<DeviceId>,
    keep: bool,
    hinted: bool,
    tries: u32,
    /// When to dial; `None` while it is dialled or linked.
    next: Option<Instant>,
    dialled: Option<Instant>,
}

/// The membership machine of a node.
#[derive(Debug)]
pub struct Membership {
    record: DeviceRecord,
    mesh: String,
    devices_max: usize,
    prng: Prng,
    links: BTreeMap<LinkId, Link>,
    devices: BTreeMap<DeviceId, Known>,
    dials: BTreeMap<String, Dial>,
    own_news: Throttle,
    last: Instant,
    effects: VecDeque<Effect>,
}

impl Membership {
    /// A device that has just started.
    pub fn new(config: &Config, now: Instant) -> Self {
        Self {
            record: config.record.clone(),
            mesh: config.mesh.clone(),
            devices_max: config.devices_max.max(1),
            prng: Prng::new(config.seed),
            links: BTreeMap::new(),
            devices: BTreeMap::new(),
            dials: BTreeMap::new(),
            own_news: Throttle::new(Span::from_millis(500)),
            last: now,
            effects: VecDeque::new(),
        }
    }

    /// What to do next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call [`Membership::handle_time`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let links = self.links.values().map(|link| match link.peer {
            Some(_) => link.deadline().min(link.next_ping),
            None => link.deadline(),
        });
        let dials = self.dials.values().filter_map(|dial| {
            let answer = dial.dialled.map(|at| at + DIAL_ANSWER_MAX);
            earliest(dial.next, answer)
        });
        let known = self.devices.values().filter_map(|known| {
            let gone = known.lost.map(|lost| lost.at + LOST_SHOWN);
            let unreachable = known.unlinked.map(|since| since + LOST_SHOWN);
            earliest(known.next_dial, earliest(gone, unreachable))
        });
        let all = links.chain(dials).chain(known).min();
        earliest(all, self.own_news.poll_timeout())
    }

    /// This device's record.
    pub fn record(&self) -> &DeviceRecord {
        &self.record
    }

    /// Changes this device's record; `urgent` when people wait to see it.
    pub fn change_record(&mut self, urgent: bool, change: impl FnOnce(&mut DeviceRecord)) {
        let mut record = self.record.clone();
        change(&mut record);
        if record != self.record {
            record.version += 1;
            self.record = record;
            if urgent {
                self.own_news.urge();
            } else {
                self.own_news.note();
            }
            self.effects.push_back(Effect::Changed);
        }
    }

    /// The link by which a device is reached: its own, else that of the node it is attached to.
    pub fn route(&self, device: DeviceId) -> Option<LinkId> {
        self.link_of(device).or_else(|| {
            let known = self.devices.get(&device)?;
            let via = known.record.via.filter(|_| known.lost.is_none())?;
            self.link_of(via)
        })
    }

    /// Whether this node is directly linked with a node or a page.
    pub fn link_of(&self, device: DeviceId) -> Option<LinkId> {
        let mut links = self.links.iter();
        let is_it = |(id, link): (&LinkId, &Link)| {
            let peer = link.peer.as_ref()?;
            (peer.record.device == device).then_some(*id)
        };
        links.find_map(is_it)
    }

    /// What a device says of itself: gossiped, else as it introduced itself.
    pub fn record_of(&self, device: DeviceId) -> Option<&DeviceRecord> {
        let known = self
            .devices
            .get(&device)
            .filter(|known| known.lost.is_none());
        known.map(|known| &known.record).or_else(|| {
            let mut peers = self.links.values().filter_map(|link| link.peer.as_ref());
            peers
                .find(|peer| peer.record.device == device)
                .map(|peer| &peer.record)
        })
    }

    /// Every device that can be reached, with its route.
    pub fn reachable(&self) -> BTreeMap<DeviceId, (LinkId, DeviceRecord)> {
        let mut direct = BTreeMap::new();
        for (id, link) in &self.links {
            if let Some(peer) = &link.peer {
                direct.insert(peer.record.device, (*id, &peer.record));
            }
        }
        let mut reachable = BTreeMap::new();
        for (device, known) in &self.devices {
            if known.lost.is_some() {
                continue;
            }
            let via = known.record.via.and_then(|via| direct.get(&via));
            if let Some((link, _)) = direct.get(device).or(via) {
                reachable.insert(*device, (*link, known.record.clone()));
            }
        }
        for (device, (link, record)) in direct {
            reachable
                .entry(device)
                .or_insert_with(|| (link, record.clone()));
        }
        reachable
    }

    /// Whether a device that is gone said so.
    pub fn left_on_purpose(&self, device: DeviceId) -> bool {
        let lost = self.devices.get(&device).and_then(|known| known.lost);
        lost.is_some_and(|lost| lost.on_purpose)
    }

    /// Nodes that are linked.
    pub fn peers(&self) -> impl Iterator<Item = &DeviceRecord> {
        self.nodes()
            .filter_map(|(_, device)| self.record_of(device))
    }

    /// Links to nodes and to attached pages: those who are told the news.
    pub fn audience(&self) -> impl Iterator<Item = (LinkId, DeviceId)> {
        self.links.iter().filter_map(|(id, link)| {
            let peer = link.peer.as_ref().filter(|peer| peer.role != Role::Guest)?;
            Some((*id, peer.record.device))
        })
    }

    /// Links to attached pages.
    pub fn pages(&self) -> impl Iterator<Item = (LinkId, DeviceId)> {
        self.links.iter().filter_map(|(id, link)| {
            let peer = link.peer.as_ref();
            let page = peer.filter(|peer| peer.role == Role::Attached)?;
            Some((*id, page.record.device))
        })
    }

    /// Nodes that are linked, with their links.
    pub fn node_links(&self) -> impl Iterator<Item = (DeviceId, LinkId)> {
        self.nodes().map(|(link, device)| (device, link))
    }

    fn nodes(&self) -> impl Iterator<Item = (LinkId, DeviceId)> {
        self.links.iter().filter_map(|(id, link)| {
            let peer = link.peer.as_ref().filter(|peer| peer.role == Role::Node)?;
            Some((*id, peer.record.device))
        })
    }

    /// Every device of the mesh as people see it, this one first.
    pub fn entries(&self) -> Vec<DeviceEntry> {
        let address = |record: &DeviceRecord| {
            let node = match record.via {
                Some(via) if via == self.record.device => Some(&self.record),
                Some(via) => self.devices.get(&via).map(|known| &known.record),
                None => Some(record),
            };
            let address = node.and_then(|node| node.addresses.first());
            address.cloned().unwrap_or_default()
        };
        let entry = |record: &DeviceRecord, state| DeviceEntry {
            device: record.device,
            name: record.name.clone(),
            kind: record.kind,
            address: address(record),
            slots: record.slots,
            mflops: record.mflops,
            state,
            since: record.since,
            tile_bytes: record.limits.tile_bytes,
        };
        let others = self.devices.values().map(|known| {
            let state = if self.is_lost(known) {
                DeviceState::Lost
            } else {
                known.record.state
            };
            entry(&known.record, state)
        });
        std::iter::once(entry(&self.record, self.record.state))
            .chain(others)
            .collect()
    }

    fn is_lost(&self, known: &Known) -> bool {
        let host_lost = known.record.via.is_some_and(|via| {
            let host = self.devices.get(&via);
            via != self.record.device && host.is_none_or(|host| host.lost.is_some())
        });
        known.lost.is_some() || host_lost || known.tries >= 3
    }

    // -- links --

    /// A WebSocket opened.
    pub fn handle_link_up(
        &mut self,
        id: LinkId,
        door: Door,
        dialled: Option<String>,
        now: Instant,
    ) {
        if let Some(address) = &dialled {
            if let Some(dial) = self.dials.get_mut(address) {
                dial.dialled = None;
                dial.next = None;
            }
            let hello = Message::Hello(self.hello());
            self.send(id, DeviceId([0; 32]), hello);
        }
        let link = Link {
            door,
            dialled,
            opened: now,
            heard: now,
            next_ping: now,
            probe: None,
            next_reclaim: None,
            gauge: Gauge::Done,
            gauged: Vec::new(),
            peer: None,
        };
        self.links.insert(id, link);
    }

    /// A WebSocket is gone.
    pub fn handle_link_down(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        self.after_link(link, false, now);
    }

    /// Books the end of a link that was just taken out.
    fn after_link(&mut self, link: Link, on_purpose: bool, now: Instant) {
        if let Some(address) = &link.dialled {
            self.dial_ended(address, now);
        }
        let Some(peer) = link.peer else {
            return;
        };
        self.effects.push_back(Effect::Changed);
        let device = peer.record.device;
        // A page that is only a guest, or has moved, has its life elsewhere; a second link keeps a
        // peer.
        let here = match peer.role {
            Role::Node => true,
            Role::Attached => self.is_page_of(device, self.record.device),
            Role::Guest => false,
        };
        if here && self.link_of(device).is_none() {
            self.lose(device, on_purpose, now);
        }
    }

    /// Ends a link from this side.
    fn close(&mut self, id: LinkId, reason: Option<Refusal>, now: Instant) {
        if let Some(link) = self.links.remove(&id) {
            self.effects.push_back(Effect::Close(id, reason));
            self.after_link(link, false, now);
        }
    }

    fn refuse(&mut self, id: LinkId, to: DeviceId, reason: Refusal, now: Instant) {
        let text = match reason {
            Refusal::Version => format!("this mesh speaks version {VERSION} of the protocol"),
            Refusal::Mesh => "this node belongs to another mesh".to_owned(),
            Refusal::DuplicateId => "a device with this id is connected".to_owned(),
            Refusal::Myself => "this is the device itself".to_owned(),
            Refusal::DuplicateLink => "there is a link already".to_owned(),
            Refusal::Malformed => "a message made no sense".to_owned(),
            Refusal::Full => "the mesh is full".to_owned(),
        };
        self.send(id, to, Message::Refuse { reason, text });
        self.close(id, Some(reason), now);
    }

    /// Drops a peer that broke the rules.
    pub fn fault(&mut self, id: LinkId, now: Instant) {
        let peer = self.links.get(&id).and_then(|link| link.peer.as_ref());
        let to = peer.map_or(DeviceId([0; 32]), |peer| peer.record.device);
        self.refuse(id, to, Refusal::Malformed, now);
    }

    // -- time --

    /// Time passed; called after every input too.
    pub fn handle_time(&mut self, now: Instant) {
        if now - self.last > STALL {
            for link in self.links.values_mut() {
                let grace = Span(link.silence_max().0 - STALL.0);
                let heard = Instant(now.0.saturating_sub(grace.0));
                link.heard = link.heard.max(heard);
            }
        }
        self.last = now;
        let dead = self.links.iter().filter(|(_, link)| now >= link.deadline());
        let dead: Vec<LinkId> = dead.map(|(id, _)| *id).collect();
        for id in dead {
            self.close(id, None, now);
        }
        let mut pings = Vec::new();
        for (id, link) in &mut self.links {
            if let Some(peer) = link.peer.as_ref().filter(|_| now >= link.next_ping) {
                let gap = match link.door {
                    Door::Mesh => PING_NODE,
                    Door::Page => PING_PAGE,
                };
                link.next_ping = now + gap;
                pings.push((*id, peer.record.device));
            }
        }
        for (id, to) in pings {
            let nonce = self.prng.next_u64();
            self.send(id, to, Message::ping(nonce));
        }
        let before = self.devices.len();
        self.devices.retain(|_, known| {
            let shown = |since: Instant| now < since + LOST_SHOWN;
            known.lost.is_none_or(|lost| shown(lost.at)) && known.unlinked.is_none_or(shown)
        });
        if self.devices.len() < before {
            self.effects.push_back(Effect::Changed);
        }
        self.dial_due(now);
    }

    /// Tells others what changed about this device, at its pace.
    pub fn tell_news(&mut self, now: Instant) {
        if self.own_news.take(now) {
            let record = self.record.clone();
            self.flood(&[record], None);
        }
    }

    /// Says goodbye to everybody.
    pub fn leave(&mut self) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            let peer = self.links[&id].peer.as_ref().map(|p| p.record.device);
            if let Some(to) = peer {
                self.send(id, to, Message::Bye);
            }
            self.effects.push_back(Effect::Close(id, None));
        }
        self.links.clear();
        self.dials.clear();
        self.devices.clear();
    }

    fn send(&mut self, link: LinkId, to: DeviceId, body: Message) {
        let from = self.record.device;
        let header = Header { from, to, body };
        self.effects.push_back(Effect::Send(link, Box::new(header)));
    }
}

fn backoff(tries: u32) -> Span {
    Span(DIAL_GAP_MIN.0 << tries.min(6)).min(DIAL_GAP_MAX)
}
