//! What a peer may say, and what becomes of it.

use super::*;

impl Membership {
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
            | Message::Resume { .. }
            | Message::Result { .. } => Fate::Deliver,
            Message::Jobs { .. }
            | Message::Append { .. }
            | Message::Appended { .. }
            | Message::Declined { .. }
            | Message::Held { .. }
            | Message::Claim { .. }
            | Message::Elect { .. }
            | Message::Vote { .. }
                if role == Role::Node && own =>
            {
                Fate::Deliver
            }
            Message::Ping { nonce, .. } if own => {
                self.send(id, device, Message::Pong { nonce: *nonce });
                Fate::Consumed
            }
            Message::Pong { nonce } if own => {
                self.gauge_pong(id, device, *nonce, now);
                self.reclaim(id, now);
                Fate::Consumed
            }
            Message::Gossip { devices } if role == Role::Node && own => {
                if devices.len() > GOSSIP_MAX || !devices.iter().all(DeviceRecord::is_sane) {
                    self.fault(id, now);
                } else {
                    self.merge(devices, Some((id, device)), now);
                }
                Fate::Consumed
            }
            Message::Record(record) if own => {
                let kind = match role {
                    Role::Node => DeviceKind::Native,
                    Role::Attached | Role::Guest => DeviceKind::Browser,
                };
                if !record.is_sane()
                    || record.device != device
                    || record.kind != kind
                    || record.version > AGE_MAX
                {
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

    pub(super) fn is_page_of(&self, page: DeviceId, node: DeviceId) -> bool {
        let known = self.devices.get(&page);
        known.is_some_and(|known| known.record.via == Some(node))
    }

    pub(super) fn forward(&mut self, id: LinkId, header: &Header, now: Instant) -> Fate {
        let may = matches!(
            header.body,
            Message::Open { .. }
                | Message::Closed { .. }
                | Message::Pull { .. }
                | Message::Resume { .. }
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

    pub(super) fn handle_record(
        &mut self,
        id: LinkId,
        role: Role,
        record: &DeviceRecord,
        now: Instant,
    ) {
        if role == Role::Node {
            self.merge(std::slice::from_ref(record), Some((id, record.device)), now);
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
            self.merge(&[record], None, now);
        } else {
            peer.record = record;
        }
        self.effects.push_back(Effect::Changed);
    }
}
