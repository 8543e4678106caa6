//! Hello, Welcome, Refuse: which link counts, and who is at its end.

use super::*;

impl Membership {
    pub(super) fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            mesh: self.mesh.clone(),
            record: self.record.clone(),
            attach: false,
        }
    }

    pub(super) fn handle_first(&mut self, id: LinkId, header: &Header, now: Instant) {
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
    pub(super) fn objection(&self, id: LinkId, from: DeviceId, hello: &Hello) -> Option<Refusal> {
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
        if record.version.max(record.incarnation) > AGE_MAX {
            return Some(Refusal::Malformed);
        }
        let full = self.devices.len() >= self.devices_max && self.droppable(true).is_none();
        (full && !self.devices.contains_key(&record.device)).then_some(Refusal::Full)
    }

    /// The open link to this device, and the incarnation at its other end.
    pub(super) fn present(&self, device: DeviceId) -> Option<(LinkId, u64, bool)> {
        let link = self.link_of(device)?;
        let peer = self.links[&link].peer.as_ref().expect("an open link");
        let mine = self.links[&link].dialled.is_some();
        Some((link, peer.record.incarnation, mine))
    }

    pub(super) fn handle_hello(&mut self, id: LinkId, from: DeviceId, hello: &Hello, now: Instant) {
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

    pub(super) fn handle_welcome(
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

    pub(super) fn handle_refuse(
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

    pub(super) fn joined(&mut self, address: &str, outcome: Result<DeviceId, Refusal>) {
        self.effects
            .push_back(Effect::Joined(address.to_owned(), outcome));
    }

    pub(super) fn probe(&mut self, id: LinkId, now: Instant) {
        let nonce = self.prng.next_u64();
        if let Some(link) = self.links.get_mut(&id) {
            let Some(peer) = &link.peer else { return };
            let to = peer.record.device;
            link.probe.get_or_insert(now + PROBE_MAX);
            self.send(id, to, Message::ping(nonce));
        }
    }

    /// Makes a link count.
    pub(super) fn open(&mut self, id: LinkId, role: Role, hello: &Hello, now: Instant) {
        let device = hello.record.device;
        let mut record = hello.record.clone();
        if record.state == DeviceState::Lost {
            record.state = DeviceState::Ready;
        }
        if role != Role::Node {
            record.addresses.clear();
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
            self.merge(&[record], Some((id, device)), now);
        }
        self.effects.push_back(Effect::Changed);
        self.gauge(id, device, now);
    }

    /// Says who else is there.
    pub(super) fn greet(&mut self, id: LinkId, device: DeviceId) {
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
}
