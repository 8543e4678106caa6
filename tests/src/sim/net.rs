//! The network: connections with the manners of TCP over paths that are slow, lossy or cut.
//!
//! Frames of one connection arrive in order or not at all; a lost one is sent again, so loss is
//! delay, and whatever is behind it waits. What a cut path holds back arrives when it heals, unless
//! an end gave up first. Frames of different connections overtake each other.

use std::collections::VecDeque;

use gemmesh_protocol::codec;
use gemmesh_protocol::io::{Door, Input, LinkId};
use gemmesh_protocol::message::{Header, Message, VERSION};
use gemmesh_protocol::time::Span;

use super::faults::Class;
use super::host::Power;
use super::payload::{Payload, WRONG};
use super::{Event, Sim, mix_bytes};

/// How long a system sends again what is not acknowledged.
const GIVE_UP: Span = Span::from_secs(20);
/// The first repetition of what was lost.
const REPEAT: u64 = 200_000;
/// What is sent without an acknowledgement.
const WINDOW: u64 = 256 << 10;
/// Bytes that travel as one packet.
const PACKET: u64 = 1_460;
/// Frames that a shell queues for one link before it drops it.
const QUEUE_MAX: usize = 4_096;

/// The way from one device to another.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// How many faults cut it now.
    pub cuts: u32,
    /// Of 100 frames, how many are lost.
    pub loss: u64,
    /// Microseconds from end to end.
    pub latency: u64,
    /// Up to so many more, drawn for each frame.
    pub jitter: u64,
    /// Bytes in a microsecond, in 64ths.
    pub rate: u64,
    /// Of 100 dials, how many succeed twice.
    pub doubles: u64,
    /// When a fault last changed it.
    pub since: u64,
}

/// What travels on a connection.
#[derive(Debug)]
pub enum Item {
    /// A frame, and the bytes that it stands for.
    Frame(Vec<u8>),
    /// The other end has closed.
    Closed,
}

/// One direction of a connection, named by its receiving end.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// When the sender has sent what it has.
    free: u64,
    /// When the last item arrives.
    last: u64,
    /// What waits for the path to heal.
    stalled: VecDeque<Item>,
    /// When the first of them was sent.
    stalled_at: u64,
    /// Bytes sent while no acknowledgement could come back.
    unacknowledged: u64,
    /// A fault of this direction alone.
    clogged: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: [(usize, u32, LinkId); 2],
    pub(super) open: [bool; 2],
    pub(super) directions: [Direction; 2],
    /// Somebody between the ends forgot it.
    pub(super) dead: bool,
    pub(super) opened: u64,
    door: Door,
    address: String,
}

impl Connection {
    /// Both ends believe in it, and it works.
    pub(super) fn is_up(&self) -> bool {
        self.open == [true; 2] && !self.dead
    }
}

impl Sim {
    /// The path between two hosts.
    pub fn path(&mut self, from: usize, to: usize) -> &mut Path {
        let at = from * self.stride + to;
        &mut self.paths[at]
    }

    pub(super) fn path_of(&self, from: usize, to: usize) -> Path {
        self.paths[from * self.stride + to]
    }

    /// Every path takes so long from now on.
    pub fn set_latency(&mut self, latency: Span) {
        for path in &mut self.paths {
            path.latency = latency.0;
        }
    }

    /// Whether what one host sends reaches the other now.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        self.path_of(from, to).cuts == 0 && self.hosts[to].power != Power::Off
    }

    /// Since when two hosts have had a good connection over undisturbed paths.
    pub fn linked_since(&self, a: usize, b: usize) -> Option<u64> {
        let of = self.hosts[a].links.values();
        let good = of.filter_map(|(connection, end)| {
            let it = &self.connections[*connection];
            let other = &it.ends[1 - end];
            let clear = !it.directions[0].clogged && !it.directions[1].clogged;
            let current = other.0 == b && other.1 == self.hosts[b].incarnation;
            (it.is_up() && clear && current).then_some(it.opened)
        });
        let opened = good.min()?;
        let paths = [self.path_of(a, b), self.path_of(b, a)];
        if paths.iter().any(|path| path.cuts > 0) {
            return None;
        }
        paths.iter().map(|path| path.since).chain([opened]).max()
    }

    // -- connecting --

    pub(super) fn dial(&mut self, from: usize, address: String) {
        let incarnation = self.hosts[from].incarnation;
        let delay = self.hop(from, from);
        let event = Event::Connect {
            from,
            incarnation,
            address,
            again: false,
        };
        self.after(delay, event);
    }

    /// Microseconds that one small packet takes.
    fn hop(&mut self, from: usize, to: usize) -> u64 {
        let path = self.path_of(from, to);
        let mut time = path.latency + self.prng.below(path.jitter.max(path.latency / 4) + 1);
        let mut repeat = REPEAT;
        while path.loss > 0 && self.prng.below(100) < path.loss && repeat < 64 * REPEAT {
            self.mattered(Class::Loss);
            time += repeat;
            repeat *= 2;
        }
        if path.jitter > 0 {
            self.mattered(Class::Delay);
        }
        time
    }

    pub(super) fn connect(&mut self, from: usize, incarnation: u32, address: String, again: bool) {
        if self.hosts[from].incarnation != incarnation {
            return;
        }
        let listens = |host: &super::Host| host.address == address && !address.is_empty();
        let to = self.hosts.iter().position(listens);
        let to = to.filter(|&to| !self.walls.contains(&(from, to)));
        let cut = to.is_some_and(|to| {
            let dark = matches!(self.hosts[to].power, Power::Off);
            let cut = self.path_of(from, to).cuts + self.path_of(to, from).cuts > 0;
            if cut {
                self.cut_mattered(from, to);
            }
            dark || cut
        });
        let refused = to.is_none_or(|to| matches!(self.hosts[to].power, Power::Down));
        if cut || refused {
            if !again {
                let wait = if cut {
                    3_000_000 + self.prng.below(2_000_000)
                } else {
                    1_000
                };
                self.answer_after(wait, from, Input::DialFailed { address });
            }
            return;
        }
        let to = to.expect("a host that listens");
        let door = if self.hosts[from].is_node() {
            Door::Mesh
        } else {
            Door::Page
        };
        if !again && self.prng.below(100) < self.path_of(from, to).doubles {
            self.injected(Class::DoubleDial);
            self.mattered(Class::DoubleDial);
            let delay = self.prng.below(1_000_000);
            let event = Event::Connect {
                from,
                incarnation,
                address: address.clone(),
                again: true,
            };
            self.after(delay, event);
        }
        let back = self.hop(to, from);
        let connection = self.connections.len();
        let ends = [from, to].map(|host| {
            self.links += 1;
            (host, self.hosts[host].incarnation, LinkId(self.links))
        });
        let mut directions = [Direction::default(), Direction::default()];
        directions[0].last = self.now + back;
        self.connections.push(Connection {
            ends,
            open: [false, true],
            directions,
            dead: false,
            opened: self.now,
            door,
            address,
        });
        self.hosts[to].links.insert(ends[1].2, (connection, 1));
        self.after(back, Event::Up { connection });
        let up = Input::LinkUp {
            link: ends[1].2,
            door,
            dialled: None,
        };
        self.deliver(to, up);
    }

    /// The side that dialled hears that it is connected.
    pub(super) fn up(&mut self, connection: usize) {
        let it = &mut self.connections[connection];
        let (host, incarnation, link) = it.ends[0];
        if self.hosts[host].incarnation != incarnation {
            self.reset(connection, 0);
            return;
        }
        it.open[0] = true;
        let up = Input::LinkUp {
            link,
            door: it.door,
            dialled: Some(it.address.clone()),
        };
        self.hosts[host].links.insert(link, (connection, 0));
        self.input(host, up);
    }

    // -- sending --

    pub(super) fn send(&mut self, host: usize, link: LinkId, mut header: Header, payload: Payload) {
        let Some(&(connection, end)) = self.hosts[host].links.get(&link) else {
            return;
        };
        let mut payload = payload;
        let other = self.connections[connection].ends[1 - end].0;
        match &mut header.body {
            Message::Hello(hello) | Message::Welcome(hello) => {
                // What the other does not speak is told apart by both.
                let spoken = [host, other].map(|h| self.hosts[h].spec.version.unwrap_or(VERSION));
                if spoken[0] != spoken[1] {
                    hello.version = VERSION - 1;
                    self.mattered(Class::OldVersion);
                }
            }
            Message::Result { .. } => {
                let lies = self.hosts[host].spec.liar && header.from == self.hosts[host].device;
                if let Payload::Tile(tile) = &mut payload
                    && lies
                {
                    tile.variant = WRONG + host as u32;
                    self.mattered(Class::Liar);
                }
            }
            _ => {}
        }
        let frame = codec::encode(&header, &payload.to_bytes());
        mix_bytes(&mut self.hash, &frame);
        let size = frame.len() as u64 + payload.len();
        self.transmit(connection, 1 - end, Item::Frame(frame), size);
    }

    /// Sends an item to the end `to` of a connection.
    fn transmit(&mut self, connection: usize, to: usize, item: Item, size: u64) {
        let it = &mut self.connections[connection];
        if it.dead {
            self.mattered(Class::DeadSocket);
            return;
        }
        let (sender, receiver) = (it.ends[1 - to].0, it.ends[to].0);
        let (path, back) = (
            self.path_of(sender, receiver),
            self.path_of(receiver, sender),
        );
        let direction = &mut self.connections[connection].directions[to];
        if back.cuts > 0 {
            direction.unacknowledged += size;
        } else {
            direction.unacknowledged = 0;
        }
        let held = path.cuts > 0 || direction.clogged || direction.unacknowledged > WINDOW;
        if held || !direction.stalled.is_empty() {
            if direction.stalled.is_empty() {
                direction.stalled_at = self.now;
                let since = self.now;
                let event = Event::GiveUp {
                    connection,
                    to,
                    since,
                };
                self.after(GIVE_UP.0, event);
            }
            let direction = &mut self.connections[connection].directions[to];
            let clogged = direction.clogged;
            direction.stalled.push_back(item);
            if direction.stalled.len() > QUEUE_MAX {
                self.reset(connection, 1 - to);
            }
            if clogged {
                self.mattered(Class::Clog);
            }
            if path.cuts + back.cuts > 0 {
                self.cut_mattered(sender, receiver);
            }
            return;
        }
        self.fly(connection, to, item, size);
    }

    /// Nothing holds an item back: it arrives in its turn.
    fn fly(&mut self, connection: usize, to: usize, item: Item, size: u64) {
        let ends = self.connections[connection].ends;
        let (sender, receiver) = (ends[1 - to].0, ends[to].0);
        let path = self.path_of(sender, receiver);
        let hop = self.hop(sender, receiver);
        let now = self.now;
        let direction = &mut self.connections[connection].directions[to];
        // Losses make a bulk transfer slower as a whole.
        let time = size * 64 / path.rate * (100 + 3 * path.loss) / 100;
        direction.free = direction.free.max(now) + time;
        let through = self.through_ports([sender, receiver], size);
        let direction = &mut self.connections[connection].directions[to];
        direction.free = direction.free.max(through);
        let arrival = (direction.free + hop).max(direction.last);
        direction.last = arrival;
        let end = to;
        let event = Event::Arrive {
            connection,
            end,
            item,
        };
        self.at(arrival, event);
    }

    /// When the ports of both ends have carried so many bytes, if they have any. Small packets find their way
    /// between the large ones of other connections.
    fn through_ports(&mut self, ends: [usize; 2], size: u64) -> u64 {
        let mut end = 0;
        for host in ends {
            let host = &mut self.hosts[host];
            host.port_bytes += size;
            if let Some(rate) = host.spec.port.filter(|_| size > PACKET) {
                host.port_free = host.port_free.max(self.now) + size * 64 / rate;
                end = end.max(host.port_free);
            }
        }
        end
    }

    /// What a path or a clogged connection held back goes on.
    pub(super) fn flush(&mut self, connection: usize, to: usize) {
        let it = &self.connections[connection];
        let (sender, receiver) = (it.ends[1 - to].0, it.ends[to].0);
        let cut = self.path_of(sender, receiver).cuts + self.path_of(receiver, sender).cuts > 0;
        if cut || it.directions[to].clogged || it.dead {
            return;
        }
        self.connections[connection].directions[to].unacknowledged = 0;
        let items = std::mem::take(&mut self.connections[connection].directions[to].stalled);
        for item in items {
            let size = match &item {
                Item::Frame(frame) => frame.len() as u64,
                Item::Closed => 40,
            };
            self.fly(connection, to, item, size);
        }
    }

    /// A path is whole again: its connections notice at their next repetition.
    pub(super) fn path_healed(&mut self, a: usize, b: usize) {
        let of = self.connections.iter().enumerate();
        let between = of.filter(|(_, it)| {
            let (x, y) = (it.ends[0].0, it.ends[1].0);
            (x, y) == (a, b) || (x, y) == (b, a)
        });
        let stalled: Vec<(usize, usize)> = between
            .flat_map(|(at, it)| [0, 1].map(|end| (at, end, it.directions[end].stalled.is_empty())))
            .filter(|(_, _, empty)| !empty)
            .map(|(at, end, _)| (at, end))
            .collect();
        for (connection, to) in stalled {
            let delay = REPEAT + self.prng.below(8 * REPEAT);
            self.after(delay, Event::Flush { connection, to });
        }
    }

    /// Clogs one direction of one connection, or opens it.
    pub(super) fn clog(&mut self, connection: usize, to: usize, clogged: bool) {
        self.connections[connection].directions[to].clogged = clogged;
        if !clogged {
            self.flush(connection, to);
        }
    }

    pub(super) fn give_up(&mut self, connection: usize, to: usize, since: u64) {
        let direction = &self.connections[connection].directions[to];
        if !direction.stalled.is_empty() && direction.stalled_at == since {
            self.reset(connection, 1 - to);
        }
    }

    // -- ending --

    /// One end is gone from its host without a word of its own, and hears so.
    fn reset(&mut self, connection: usize, end: usize) {
        let it = &mut self.connections[connection];
        it.directions[1 - end].stalled.clear();
        let (host, incarnation, link) = it.ends[end];
        let was_open = std::mem::replace(&mut it.open[end], false);
        if was_open && self.hosts[host].incarnation == incarnation {
            self.hosts[host].links.remove(&link);
            self.answer_after(0, host, Input::LinkDown { link });
        }
        self.transmit(connection, 1 - end, Item::Closed, 40);
    }

    /// One end closes: it hears so at once, the other after all that was sent.
    pub(super) fn hang_up(&mut self, connection: usize, end: usize) {
        let (host, _, link) = self.connections[connection].ends[end];
        if self.hosts[host].links.remove(&link).is_none() {
            return;
        }
        self.connections[connection].open[end] = false;
        self.answer_after(0, host, Input::LinkDown { link });
        self.transmit(connection, 1 - end, Item::Closed, 40);
    }

    /// The system closes what a dead process had open; or, when the power fails, nobody does.
    pub(super) fn drop_links(&mut self, host: usize, said: bool) {
        for (connection, end) in std::mem::take(&mut self.hosts[host].links).into_values() {
            self.connections[connection].open[end] = false;
            if said {
                self.transmit(connection, 1 - end, Item::Closed, 40);
            }
        }
    }

    /// Both ends of a connection see it break.
    pub(super) fn cut(&mut self, connection: usize) {
        for end in 0..2 {
            let (host, _, link) = self.connections[connection].ends[end];
            self.connections[connection].open[end] = false;
            if self.hosts[host].links.remove(&link).is_some() {
                self.answer_after(100, host, Input::LinkDown { link });
            }
        }
    }

    pub(super) fn arrive(&mut self, connection: usize, end: usize, item: Item) {
        let it = &mut self.connections[connection];
        let (host, incarnation, link) = it.ends[end];
        if it.dead || self.hosts[host].power == Power::Off {
            return;
        }
        if !it.open[end] || self.hosts[host].incarnation != incarnation {
            // A system answers what belongs to no connection with a reset.
            if matches!(item, Item::Frame(_)) && it.open[1 - end] {
                self.mattered_if_old(connection);
                self.transmit(connection, 1 - end, Item::Closed, 40);
            }
            return;
        }
        match item {
            Item::Closed => {
                it.open[end] = false;
                self.hosts[host].links.remove(&link);
                self.input(host, Input::LinkDown { link });
            }
            Item::Frame(frame) => {
                self.mattered_if_old(connection);
                let (header, start) = codec::decode(&frame).expect("engines speak the protocol");
                let payload = Payload::from_bytes(&frame[start..]);
                let input = Input::Frame {
                    link,
                    header,
                    payload,
                    payload_bytes: payload.len(),
                };
                self.input(host, input);
            }
        }
    }

    /// A frame of a connection arrives although there is a later one between the same devices.
    fn mattered_if_old(&mut self, connection: usize) {
        let it = &self.connections[connection];
        let (host, other) = (it.ends[0].0, it.ends[1].0);
        let newer = self.hosts[host]
            .links
            .values()
            .any(|(at, end)| *at > connection && self.connections[*at].ends[1 - end].0 == other);
        if newer {
            self.injected(Class::Reorder);
            self.mattered(Class::Reorder);
        }
    }

    fn cut_mattered(&mut self, a: usize, b: usize) {
        let both = self.path_of(a, b).cuts > 0 && self.path_of(b, a).cuts > 0;
        if self.flapping.contains(&(a.min(b), a.max(b))) {
            self.mattered(Class::Flap);
        } else if both {
            self.mattered(Class::Partition);
        } else {
            self.mattered(Class::OneWay);
        }
    }
}
