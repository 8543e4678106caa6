//! What nodes say to a page.

use super::*;

impl<P: Clone> PageEngine<P> {
    pub(super) fn handle_frame(&mut self, id: LinkId, header: Header, payload: P, now: Instant) {
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
                (Message::Refuse { reason, .. }, None) => self.handle_refuse(id, reason, now),
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
            Message::Ping { nonce, .. } => self.send_on(id, from, Message::Pong { nonce }, None),
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

    pub(super) fn handle_welcome(&mut self, id: LinkId, hello: Hello, now: Instant) {
        let link = self.links.get_mut(&id).expect("the link of the Welcome");
        let Some(coordinator) = link.coordinator else {
            self.handle_own_welcome(id, hello, now);
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

    /// A member through this node from now on.
    fn handle_own_welcome(&mut self, id: LinkId, hello: Hello, now: Instant) {
        let device = hello.record.device;
        if matches!(self.back, Back::Greeting { link, .. } if link == id) {
            // The node that served the page is back: goodbye to the one that stood in for it.
            if let Own::Member { link, node } = self.own {
                self.send_on(link, node, Message::Bye, None);
                self.links.remove(&link);
                self.outputs.push_back(Output::Close { link, reason: None });
                self.cut_off(node, now);
            }
            self.address = self.nodes.home().to_owned();
        }
        self.own = Own::Member {
            link: id,
            node: device,
        };
        if self.address == self.nodes.home() {
            self.home = Some(device);
        }
        self.back = match self.has_moved() {
            true => Back::Wait {
                until: now + self.prng.jitter(HOME_AGAIN),
            },
            false => Back::No,
        };
        self.tries = 0;
        self.refusal = None;
        self.nodes.note_joined(&self.address);
        self.nodes.note(&hello.record, false);
        self.record.via = Some(device);
        // It may have been a coordinator with a link of its own before; it opens its jobs anew on
        // this one.
        if let Some(coordinator) = self.coordinators.remove(&device) {
            let link = match coordinator.way {
                Way::Dialling { link, .. } => link,
                Way::Direct { link } => Some(link),
                Way::Relayed { .. } => None,
            };
            if let Some(link) = link {
                self.links.remove(&link);
                self.outputs.push_back(Output::Close { link, reason: None });
            }
            self.worker.handle_coordinator_lost(device, now);
        }
        self.devices.clear();
        self.devices.insert(device, (hello.record, None));
        self.joined(Ok(device));
        self.outputs.push_back(Output::DevicesChanged);
    }

    /// A node refuses this page. What another page with the same id, or the node that served this
    /// one, says is for the person to see: nobody else is asked then.
    fn handle_refuse(&mut self, id: LinkId, reason: Refusal, now: Instant) {
        if matches!(self.back, Back::Greeting { link, .. } if link == id) {
            self.close(id, now);
            return;
        }
        if reason == Refusal::DuplicateId || self.address == self.nodes.home() {
            self.refusal = Some(reason);
            self.nodes.end_round();
        }
        self.joined(Err(reason));
        self.close(id, now);
    }

    pub(super) fn handle_record(&mut self, record: DeviceRecord, now: Instant) {
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
        if record.kind == DeviceKind::Native {
            self.nodes.note(&record, lost);
        }
        if lost {
            let relayed = self.coordinators.get(&device);
            if relayed.is_some_and(|c| !matches!(c.way, Way::Direct { .. })) {
                self.coordinators.remove(&device);
                self.worker.handle_coordinator_lost(device, now);
            }
        }
        self.devices.insert(device, (record, lost.then_some(now)));
    }

    pub(super) fn handle_open(
        &mut self,
        from: DeviceId,
        direct: bool,
        open: Message,
        now: Instant,
    ) {
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

    pub(super) fn joined(&mut self, outcome: Result<DeviceId, Refusal>) {
        let address = self.address.clone();
        self.outputs.push_back(Output::Joined { address, outcome });
    }
}
