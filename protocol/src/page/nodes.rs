//! The nodes that a page could be attached to, and which of them it tries next.
//!
//! Intuition: the node that served the page comes first, since only there the page's other requests
//! go. The others follow as *rounds*: each address once, the likeliest first, no pause between two of
//! them; only after a round in vain the page waits, longer each time. Pages that lose the same node
//! go to different ones.

use std::collections::VecDeque;

use crate::id::DeviceId;
use crate::message::DeviceRecord;

/// Addresses remembered.
const ADDRESSES_MAX: usize = 256;
/// Addresses of one node that are worth trying.
const OF_ONE_MAX: usize = 4;
/// Addresses in one round, besides that of the node that served the page.
const ROUND_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Nodes {
    home: String,
    /// A list, since it is short and what searches trees is much to download.
    known: Vec<Known>,
    /// Where this page was a member last.
    last: Option<String>,
    round: VecDeque<String>,
}

#[derive(Debug)]
struct Known {
    address: String,
    /// Unknown for an address that came without a record.
    device: Option<DeviceId>,
    /// Its place among the addresses of the node, best first.
    place: usize,
    /// The mesh says that the node is gone.
    lost: bool,
    /// Tries in vain since it was last heard of.
    failed: u32,
}

impl Nodes {
    /// Only the node that served the page is known.
    pub fn new(home: String) -> Self {
        Self {
            home,
            known: Vec::new(),
            last: None,
            round: VecDeque::new(),
        }
    }

    /// The node that served the page.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// All addresses, that of the node that served the page apart.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let others = self.known.iter().map(|known| known.address.as_str());
        others.filter(|address| *address != self.home)
    }

    /// Where a node listens, from the mesh.
    pub fn note(&mut self, record: &DeviceRecord, lost: bool) {
        let device = Some(record.device);
        let before = self.known.iter().find(|known| known.device == device);
        let failed = before.map_or(0, |known| if lost { known.failed } else { 0 });
        if !lost {
            self.known.retain(|known| known.device != device);
        }
        let addresses = record.addresses.iter().take(OF_ONE_MAX);
        for (place, address) in addresses.enumerate() {
            self.put(Known {
                address: address.clone(),
                device,
                place,
                lost,
                failed,
            });
        }
    }

    /// An address from elsewhere that may be a node's.
    pub fn hint(&mut self, address: String) {
        if self.find(&address).is_none() {
            self.put(Known {
                address,
                device: None,
                place: 0,
                lost: false,
                failed: 0,
            });
        }
    }

    fn find(&mut self, address: &str) -> Option<&mut Known> {
        let mut known = self.known.iter_mut();
        known.find(|known| known.address == address)
    }

    fn put(&mut self, known: Known) {
        if let Some(before) = self.find(&known.address) {
            *before = known;
            return;
        }
        if self.known.len() >= ADDRESSES_MAX {
            let worth = |known: &Known| (known.lost, known.failed, known.place);
            let all = self.known.iter().enumerate();
            if let Some((worst, _)) = all.max_by_key(|(_, known)| worth(known)) {
                self.known.swap_remove(worst);
            }
        }
        self.known.push(known);
    }

    /// A try in vain.
    pub fn note_failed(&mut self, address: &str) {
        if let Some(known) = self.find(address) {
            known.failed = known.failed.saturating_add(1);
        }
    }

    /// A member through this address.
    pub fn note_joined(&mut self, address: &str) {
        if let Some(known) = self.find(address) {
            (known.failed, known.lost) = (0, false);
        }
        self.last = Some(address.to_owned());
        self.round.clear();
    }

    /// Starts a round, the first one after a link was lost with the node at its other end. `pages`
    /// tells how many pages a node has, `linked` whether this page has a link to it already, which
    /// proves that it can be reached.
    pub fn begin_round(
        &mut self,
        me: DeviceId,
        pages: impl Fn(DeviceId) -> usize,
        linked: impl Fn(DeviceId) -> bool,
    ) {
        let distance = |device: DeviceId| {
            let mut distance = device.0;
            for (byte, mine) in distance.iter_mut().zip(me.0) {
                *byte ^= mine;
            }
            distance
        };
        let rank = |known: &Known| {
            let device = known.device.unwrap_or(me);
            (
                known.lost,
                known.failed,
                known.place,
                !linked(device),
                pages(device),
                distance(device),
            )
        };
        self.round.clear();
        self.round.extend(self.last.take());
        if !self.round.contains(&self.home) {
            self.round.push_back(self.home.clone());
        }
        // Few are taken, so they are looked for rather than all sorted.
        let most = self.round.len() + ROUND_MAX;
        while self.round.len() < most {
            let left = self.known.iter();
            let left = left.filter(|known| !self.round.contains(&known.address));
            let Some(best) = left.min_by_key(|known| rank(known)) else {
                break;
            };
            self.round.push_back(best.address.clone());
        }
    }

    /// What to try next in this round.
    pub fn next(&mut self) -> Option<String> {
        self.round.pop_front()
    }

    /// Nothing more is tried in this round.
    pub fn end_round(&mut self) {
        self.round.clear();
    }
}
