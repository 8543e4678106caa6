//! Who is there: links, the handshake, gossip of device records, dialling, signs of life.
//!
//! Intuition: a record belongs to its device (a page's to the node it is attached to), and the
//! highest (incarnation, version) wins, so news can flood in any order. Whoever loses a link says
//! so in the other's name with a higher version; who is alive after all contradicts with a higher
//! one still (as in SWIM: Das, Gupta, Motivala 2002, section 4.2).

use std::collections::{BTreeMap, VecDeque};

use crate::id::DeviceId;
use crate::io::{Config, Door, LinkId};
use crate::message::{DeviceRecord, Header, Hello, Message, Refusal, VERSION};
use crate::prng::Prng;
use crate::status::{DeviceEntry, DeviceKind, DeviceState};
use crate::time::{Instant, Span};
use crate::timer::{Throttle, earliest};

/// The first frame must be there by then.
const HANDSHAKE_MAX: Span = Span::from_secs(5);
/// Signs of life are asked for this often, and missed for this long before a link counts as dead.
/// Pages sleep and share slow radios.
const PING_NODE: Span = Span::from_secs(1);
const PING_PAGE: Span = Span::from_secs(5);
const SILENCE_NODE: Span = Span::from_secs(5);
const SILENCE_PAGE: Span = Span::from_secs(15);
/// When another device claims the same id or link, the present one has this long to show itself.
const PROBE_MAX: Span = Span::from_secs(2);
/// A node that was itself suspended does not hold the others' silence against them.
const STALL: Span = Span::from_secs(2);
/// How long a lost device is shown.
const LOST_SHOWN: Span = Span::from_secs(60);
/// The device with the larger id waits so long for the other to dial.
const DIAL_DELAY: Span = Span::from_millis(1_500);
/// Back-off of dialling: doubled from the first to the second, with jitter.
const DIAL_GAP_MIN: Span = Span::from_millis(400);
const DIAL_GAP_MAX: Span = Span::from_secs(20);
/// Attempts at an address that nobody asked to keep.
const DIAL_TRIES: u32 = 6;
/// A dial that the shell never answers counts as failed.
const DIAL_ANSWER_MAX: Span = Span::from_secs(10);
/// Addresses remembered besides those of devices.
const DIALS_MAX: usize = 256;
/// Records in one Gossip.
const GOSSIP_MAX: usize = 512;

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
        // A page that is only a guest has its life elsewhere; a second link keeps a peer.
        if peer.role != Role::Guest && self.link_of(device).is_none() {
            self.lose(device, on_purpose, now);
        }
    }

    /// Marks a device, and the pages attached to it, as lost and says so.
    fn lose(&mut self, device: DeviceId, on_purpose: bool, now: Instant) {
        let mut news = Vec::new();
        for (id, known) in &mut self.devices {
            let concerned = *id == device || known.record.via == Some(device);
            if !concerned || known.lost.is_some() {
                continue;
            }
            known.lost = Some(Lost {
                at: now,
                on_purpose,
            });
            known.record.state = DeviceState::Lost;
            known.record.version += 1;
            if *id == device && known.record.kind == DeviceKind::Native && !on_purpose {
                known.unlinked = Some(now);
                known.tries = 0;
                let delay = if self.record.device < device {
                    Span(0)
                } else {
                    DIAL_DELAY
                };
                known.next_dial = Some(now + delay + self.prng.jitter(DIAL_GAP_MIN));
            }
            news.push(known.record.clone());
        }
        self.flood(&news, None);
        self.effects.push_back(Effect::Changed);
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

    // -- frames --

    /// A frame arrived. Only what [`Fate`] says is left to do.
    pub fn handle_frame(&mut self, id: LinkId, header: &Header, now: Instant) -> Fate {
        let Some(link) = self.links.get_mut(&id) else {
            return Fate::Consumed;
        };
        link.heard = now;
        link.probe = None;
        let Some(peer) = &link.peer else {
            self.handle_first(id, header, now);
            return Fate::Consumed;
        };
        let (role, device) = (peer.role, peer.record.device);
        let own = header.from == device;
        if !own && !self.is_page_of(header.from, device) {
            // A page that has just moved or left is no fault of the node that forwards.
            let known = self.devices.get(&header.from);
            let native = known.is_some_and(|known| known.record.kind == DeviceKind::Native);
            if native || role != Role::Node || header.from == self.record.device {
                self.fault(id, now);
            }
            return Fate::Consumed;
        }
        if header.to != self.record.device {
            return self.forward(id, header, now);
        }
        match &header.body {
            Message::Open { .. }
            | Message::Closed { .. }
            | Message::Job(_)
            | Message::Grants { .. }
            | Message::Block { .. }
            | Message::Verdict { .. }
                if role == Role::Node =>
            {
                Fate::Deliver
            }
            Message::Pull { .. }
            | Message::Return { .. }
            | Message::Fetch { .. }
            | Message::Result { .. } => Fate::Deliver,
            Message::Jobs { .. } if role == Role::Node && own => Fate::Deliver,
            Message::Ping { nonce } if own => {
                self.send(id, device, Message::Pong { nonce: *nonce });
                Fate::Consumed
            }
            Message::Pong { .. } if own => Fate::Consumed,
            Message::Gossip { devices } if role == Role::Node && own => {
                if devices.len() > GOSSIP_MAX || !devices.iter().all(DeviceRecord::is_sane) {
                    self.fault(id, now);
                } else {
                    self.merge(devices, Some(id), now);
                }
                Fate::Consumed
            }
            Message::Record(record) if own => {
                if !record.is_sane() || record.device != device {
                    self.fault(id, now);
                } else {
                    self.handle_record(id, role, record, now);
                }
                Fate::Consumed
            }
            Message::Bye if own => {
                if let Some(link) = self.links.remove(&id) {
                    self.effects.push_back(Effect::Close(id, None));
                    self.after_link(link, true, now);
                }
                Fate::Consumed
            }
            Message::Refuse { .. } if own => {
                self.close(id, None, now);
                Fate::Consumed
            }
            _ => {
                self.fault(id, now);
                Fate::Consumed
            }
        }
    }

    fn is_page_of(&self, page: DeviceId, node: DeviceId) -> bool {
        let known = self.devices.get(&page);
        known.is_some_and(|known| known.record.via == Some(node))
    }

    fn forward(&mut self, id: LinkId, header: &Header, now: Instant) -> Fate {
        let may = matches!(
            header.body,
            Message::Open { .. }
                | Message::Closed { .. }
                | Message::Pull { .. }
                | Message::Job(_)
                | Message::Grants { .. }
                | Message::Return { .. }
                | Message::Fetch { .. }
                | Message::Block { .. }
                | Message::Result { .. }
                | Message::Verdict { .. }
        );
        if !may {
            self.fault(id, now);
            return Fate::Consumed;
        }
        // One hop: to a direct neighbour, never back.
        let target = self.link_of(header.to).filter(|target| *target != id);
        target.map_or(Fate::Consumed, Fate::Forward)
    }

    fn handle_record(&mut self, id: LinkId, role: Role, record: &DeviceRecord, now: Instant) {
        if role == Role::Node {
            self.merge(std::slice::from_ref(record), Some(id), now);
            return;
        }
        let me = self.record.device;
        let link = self.links.get_mut(&id).expect("the link it came from");
        let peer = link.peer.as_mut().expect("an open link");
        let mut record = record.clone();
        record.incarnation = peer.record.incarnation;
        record.kind = DeviceKind::Browser;
        record.addresses.clear();
        record.via = peer.record.via;
        if role == Role::Attached {
            record.via = Some(me);
            let known = self.devices.get(&record.device);
            let known = known.map_or(0, |known| known.record.version);
            record.version = record.version.max(known.saturating_add(1));
            peer.record = record.clone();
            self.adopt(record, now);
        } else {
            peer.record = record;
        }
        self.effects.push_back(Effect::Changed);
    }

    // -- handshake --

    fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            mesh: self.mesh.clone(),
            record: self.record.clone(),
            attach: false,
        }
    }

    fn handle_first(&mut self, id: LinkId, header: &Header, now: Instant) {
        let dialled = self.links[&id].dialled.clone();
        match (&header.body, dialled) {
            (Message::Hello(hello), None) => self.handle_hello(id, header.from, hello, now),
            (Message::Welcome(hello), Some(address)) => {
                self.handle_welcome(id, header.from, hello, &address, now);
            }
            (Message::Refuse { reason, .. }, Some(address)) => {
                self.handle_refuse(id, header.from, *reason, &address, now);
            }
            _ => self.fault(id, now),
        }
    }

    /// What speaks against a device that introduces itself.
    fn objection(&self, id: LinkId, from: DeviceId, hello: &Hello) -> Option<Refusal> {
        let record = &hello.record;
        let kind = match self.links[&id].door {
            Door::Mesh => DeviceKind::Native,
            Door::Page => DeviceKind::Browser,
        };
        if hello.version != VERSION {
            return Some(Refusal::Version);
        }
        if hello.mesh != self.mesh {
            return Some(Refusal::Mesh);
        }
        if record.device == self.record.device {
            return Some(Refusal::Myself);
        }
        if !record.is_sane() || from != record.device || record.kind != kind {
            return Some(Refusal::Malformed);
        }
        let full = self.devices.len() >= self.devices_max
            && self.devices.values().all(|known| known.lost.is_none());
        (full && !self.devices.contains_key(&record.device)).then_some(Refusal::Full)
    }

    /// The open link to this device, and the incarnation at its other end.
    fn present(&self, device: DeviceId) -> Option<(LinkId, u64, bool)> {
        let link = self.link_of(device)?;
        let peer = self.links[&link].peer.as_ref().expect("an open link");
        let mine = self.links[&link].dialled.is_some();
        Some((link, peer.record.incarnation, mine))
    }

    fn handle_hello(&mut self, id: LinkId, from: DeviceId, hello: &Hello, now: Instant) {
        if let Some(reason) = self.objection(id, from, hello) {
            self.refuse(id, from, reason, now);
            return;
        }
        let device = hello.record.device;
        let role = match (self.links[&id].door, hello.attach) {
            (Door::Mesh, _) => Role::Node,
            (Door::Page, true) => Role::Attached,
            (Door::Page, false) => Role::Guest,
        };
        if let Some((present, incarnation, mine)) = self.present(device) {
            if incarnation != hello.record.incarnation {
                // The first one stays, if it is still there.
                self.probe(present, now);
                self.refuse(id, from, Refusal::DuplicateId, now);
                return;
            }
            // Both dialled: the link dialled by the smaller id stays. The same side dialled
            // again: a page knows that its old link is dead; a node may not have known yet whom
            // it would find.
            let newer_stays = match role {
                Role::Node if mine => device < self.record.device,
                Role::Node => false,
                Role::Attached | Role::Guest => true,
            };
            if !newer_stays {
                self.probe(present, now);
                self.refuse(id, from, Refusal::DuplicateLink, now);
                return;
            }
            self.open(id, role, hello, now);
            self.refuse(present, device, Refusal::DuplicateLink, now);
        } else {
            self.open(id, role, hello, now);
        }
        self.greet(id, device);
    }

    fn handle_welcome(
        &mut self,
        id: LinkId,
        from: DeviceId,
        hello: &Hello,
        address: &str,
        now: Instant,
    ) {
        if let Some(reason) = self.objection(id, from, hello) {
            self.joined(address, Err(reason));
            self.refuse(id, from, reason, now);
            return;
        }
        let device = hello.record.device;
        if let Some(dial) = self.dials.get_mut(address) {
            dial.device = Some(device);
            dial.tries = 0;
        }
        if let Some((present, incarnation, mine)) = self.present(device) {
            // The other side has welcomed this link. If it dialled the present one too, both
            // sides keep the one dialled by the smaller id; else it has let go of the present one.
            if incarnation == hello.record.incarnation && !mine && device < self.record.device {
                self.joined(address, Ok(device));
                self.refuse(id, from, Refusal::DuplicateLink, now);
                return;
            }
            self.open(id, Role::Node, hello, now);
            self.refuse(present, device, Refusal::DuplicateLink, now);
        } else {
            self.open(id, Role::Node, hello, now);
        }
        self.greet(id, device);
        self.joined(address, Ok(device));
    }

    fn handle_refuse(
        &mut self,
        id: LinkId,
        from: DeviceId,
        reason: Refusal,
        address: &str,
        now: Instant,
    ) {
        let outcome = match reason {
            Refusal::DuplicateLink => Ok(from),
            other => Err(other),
        };
        if let (Some(dial), Refusal::DuplicateLink) = (self.dials.get_mut(address), reason) {
            dial.device = Some(from);
        }
        self.joined(address, outcome);
        if reason == Refusal::Myself {
            self.dials.remove(address);
        }
        self.close(id, None, now);
    }

    fn joined(&mut self, address: &str, outcome: Result<DeviceId, Refusal>) {
        self.effects
            .push_back(Effect::Joined(address.to_owned(), outcome));
    }

    fn probe(&mut self, id: LinkId, now: Instant) {
        let nonce = self.prng.next_u64();
        if let Some(link) = self.links.get_mut(&id) {
            let Some(peer) = &link.peer else { return };
            let to = peer.record.device;
            link.probe.get_or_insert(now + PROBE_MAX);
            self.send(id, to, Message::Ping { nonce });
        }
    }

    /// Makes a link count.
    fn open(&mut self, id: LinkId, role: Role, hello: &Hello, now: Instant) {
        let device = hello.record.device;
        let mut record = hello.record.clone();
        if record.state == DeviceState::Lost {
            record.state = DeviceState::Ready;
        }
        if role == Role::Attached {
            record.via = Some(self.record.device);
        }
        if role != Role::Guest {
            // First-hand news beats what others said of it in this life.
            let known = self.devices.get(&record.device);
            let known = known.filter(|known| known.record.incarnation >= record.incarnation);
            if let Some(known) = known.filter(|known| known.record.version >= record.version) {
                if known.lost.is_some() || role == Role::Attached {
                    record.version = known.record.version.saturating_add(1);
                } else {
                    record.version = known.record.version;
                }
            }
        }
        let link = self.links.get_mut(&id).expect("the link of the Hello");
        link.next_ping = now;
        link.heard = now;
        link.peer = Some(Peer {
            role,
            record: record.clone(),
        });
        // Welcome comes before all else on the link.
        if link.dialled.is_none() {
            let hello = Message::Welcome(self.hello());
            self.send(id, device, hello);
        }
        if role != Role::Guest {
            self.merge(&[record], Some(id), now);
        }
        self.effects.push_back(Effect::Changed);
    }

    /// Says who else is there.
    fn greet(&mut self, id: LinkId, device: DeviceId) {
        let role = self.links[&id].peer.as_ref().expect("just opened").role;
        if role == Role::Guest {
            return;
        }
        let mut records: Vec<DeviceRecord> =
            self.devices.values().map(|k| k.record.clone()).collect();
        records.push(self.record.clone());
        for chunk in records.chunks(GOSSIP_MAX) {
            let devices = chunk.to_vec();
            self.send(id, device, Message::Gossip { devices });
        }
        self.effects.push_back(Effect::Welcomed(id, device));
    }

    // -- gossip --

    /// Takes a record that is known to be right, and passes it on.
    fn adopt(&mut self, record: DeviceRecord, now: Instant) {
        self.merge(&[record], None, now);
    }

    fn merge(&mut self, records: &[DeviceRecord], source: Option<LinkId>, now: Instant) {
        let mut news = Vec::new();
        for record in records {
            if self.merge_one(record, now) {
                news.push(record.clone());
            }
        }
        if !news.is_empty() {
            self.flood(&news, source);
            self.effects.push_back(Effect::Changed);
        }
    }

    /// Whether the record is news to pass on.
    fn merge_one(&mut self, record: &DeviceRecord, now: Instant) -> bool {
        let me = self.record.device;
        let age = |record: &DeviceRecord| (record.incarnation, record.version);
        if record.device == me {
            // Somebody lost sight of this device, or knows a later version than this one.
            if record.incarnation == self.record.incarnation && record.version > self.record.version
            {
                self.record.version = record.version.saturating_add(1);
                self.own_news.urge();
            }
            return false;
        }
        let attached = self.links.values().any(|link| {
            let peer = link.peer.as_ref();
            peer.is_some_and(|p| p.record.device == record.device && p.role == Role::Attached)
        });
        let lost = record.state == DeviceState::Lost;
        let linked = self.link_of(record.device).is_some();
        let room = self.devices.len() < self.devices_max || self.forget_a_lost_one();
        match self.devices.get_mut(&record.device) {
            None => {
                // A device that was lost before it was known is nobody, and so is a page that is
                // said to be attached here and is not.
                if lost || !room || (record.via == Some(me) && !attached) {
                    return false;
                }
                self.devices.insert(
                    record.device,
                    Known {
                        record: record.clone(),
                        lost: None,
                        unlinked: None,
                        next_dial: None,
                        tries: 0,
                    },
                );
            }
            Some(known) if age(record) > age(&known.record) => {
                if attached && record.via != Some(me) && known.record.via == Some(me) {
                    // A page that is attached here: this node speaks for it.
                    known.record.incarnation = record.incarnation.max(known.record.incarnation);
                    known.record.version = record.version.saturating_add(1);
                    let contradiction = known.record.clone();
                    self.flood(&[contradiction], None);
                    return false;
                }
                if lost && attached {
                    known.record.version = record.version.saturating_add(1);
                    let contradiction = known.record.clone();
                    self.flood(&[contradiction], None);
                    return false;
                }
                known.record = record.clone();
                known.lost = match (lost, known.lost) {
                    (false, _) => None,
                    (true, before) => before.or(Some(Lost {
                        at: now,
                        on_purpose: false,
                    })),
                };
            }
            Some(_) => return false,
        }
        let known = self.devices.get_mut(&record.device).expect("just put");
        if lost && linked {
            // Somebody else lost its link; this node's works. The device will contradict.
            known.lost = None;
        }
        if linked {
            known.unlinked = None;
            known.next_dial = None;
            known.tries = 0;
        } else if record.kind == DeviceKind::Native && !lost && known.next_dial.is_none() {
            known.unlinked.get_or_insert(now);
            let delay = if me < record.device {
                Span(0)
            } else {
                DIAL_DELAY + self.prng.jitter(DIAL_GAP_MIN)
            };
            known.next_dial = Some(now + delay);
        }
        true
    }

    fn forget_a_lost_one(&mut self) -> bool {
        let lost = self.devices.iter().find(|(_, known)| known.lost.is_some());
        let lost = lost.map(|(id, _)| *id);
        lost.is_some_and(|id| self.devices.remove(&id).is_some())
    }

    fn flood(&mut self, news: &[DeviceRecord], source: Option<LinkId>) {
        if news.is_empty() {
            return;
        }
        let audience: Vec<(LinkId, DeviceId)> = self.audience().collect();
        for (link, device) in audience {
            if Some(link) != source {
                for chunk in news.chunks(GOSSIP_MAX) {
                    let devices = chunk.to_vec();
                    self.send(link, device, Message::Gossip { devices });
                }
            }
        }
    }

    // -- dialling --

    /// An address worth dialling.
    pub fn handle_hint(
        &mut self,
        address: String,
        device: Option<DeviceId>,
        keep: bool,
        now: Instant,
    ) {
        if device == Some(self.record.device) || address.len() > 256 {
            return;
        }
        let linked = device.filter(|&device| self.link_of(device).is_some());
        if let (Some(device), false) = (linked, keep) {
            self.joined(&address, Ok(device));
            return;
        }
        let at_capacity = self.dials.len() >= DIALS_MAX && !self.dials.contains_key(&address);
        if at_capacity && !keep {
            return;
        }
        // Both sides of a discovery see each other: the smaller id dials first.
        let wait = !keep && device.is_some_and(|device| device < self.record.device);
        let delay = if wait {
            DIAL_DELAY + self.prng.jitter(DIAL_GAP_MIN)
        } else {
            Span(0)
        };
        let dial = self.dials.entry(address.clone()).or_insert(Dial {
            device,
            keep,
            hinted: true,
            tries: 0,
            next: None,
            dialled: None,
        });
        dial.keep |= keep;
        dial.hinted = true;
        dial.device = device.or(dial.device);
        let there = dial.device.filter(|&device| {
            let peers = self.links.values().filter_map(|link| link.peer.as_ref());
            peers.into_iter().any(|peer| peer.record.device == device)
        });
        if let Some(device) = there {
            self.joined(&address, Ok(device));
        } else if dial.dialled.is_none() {
            let at = now + delay;
            dial.next = Some(dial.next.map_or(at, |next| next.min(at)));
        }
        self.dial_due(now);
    }

    /// Dialling failed.
    pub fn handle_dial_failed(&mut self, address: &str, now: Instant) {
        self.dial_ended(address, now);
    }

    /// A dial or the link that came of it ended: again later, or not.
    fn dial_ended(&mut self, address: &str, now: Instant) {
        let Some(dial) = self.dials.get_mut(address) else {
            return;
        };
        dial.dialled = None;
        dial.tries += 1;
        let again = dial.keep || (dial.hinted && dial.tries < DIAL_TRIES);
        if again {
            let gap = backoff(dial.tries);
            dial.next = Some(now + self.prng.jitter(gap));
        } else {
            self.dials.remove(address);
        }
    }

    fn dial_due(&mut self, now: Instant) {
        let linked: Vec<DeviceId> = self.nodes().map(|(_, device)| device).collect();
        let mut due = Vec::new();
        self.dials.retain(|address, dial| {
            if dial.dialled.is_some_and(|at| now >= at + DIAL_ANSWER_MAX) {
                dial.dialled = None;
                dial.tries += 1;
                dial.next = Some(now + backoff(dial.tries));
            }
            if dial.next.is_none_or(|next| now < next) {
                return true;
            }
            if dial.device.is_some_and(|device| linked.contains(&device)) {
                // There is a link by other means. A kept address is looked at again later.
                dial.next = Some(now + DIAL_GAP_MAX);
                return dial.keep;
            }
            dial.next = None;
            dial.dialled = Some(now);
            due.push(address.clone());
            true
        });
        for (id, known) in &mut self.devices {
            if known.next_dial.is_none_or(|next| now < next) {
                continue;
            }
            if linked.contains(id) || known.record.addresses.is_empty() {
                known.next_dial = None;
                continue;
            }
            let addresses = &known.record.addresses;
            let address = addresses[known.tries as usize % addresses.len()].clone();
            known.tries += 1;
            known.next_dial = Some(now + self.prng.jitter(backoff(known.tries)) + DIAL_GAP_MIN);
            let dial = self.dials.entry(address.clone()).or_insert(Dial {
                device: None,
                keep: false,
                hinted: false,
                tries: 0,
                next: None,
                dialled: None,
            });
            if dial.dialled.is_none() && dial.next.is_none_or(|_| !dial.hinted) {
                dial.dialled = Some(now);
                due.push(address);
            }
        }
        for address in due {
            self.effects.push_back(Effect::Dial(address));
        }
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
            self.send(id, to, Message::Ping { nonce });
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
