//! The ways to the own node and to coordinators.

use super::*;

impl<P: Clone> PageEngine<P> {
    pub(super) fn handle_link_up(&mut self, link: LinkId, address: &str, now: Instant) {
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

    pub(super) fn handle_dial_failed(&mut self, address: &str, now: Instant) {
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
    pub(super) fn away(&mut self, now: Instant) {
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
    pub(super) fn relay(&mut self, id: DeviceId, now: Instant) {
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

    pub(super) fn close(&mut self, link: LinkId, now: Instant) {
        self.outputs.push_back(Output::Close { link, reason: None });
        self.drop_link(link, now);
    }

    /// Books the end of a link.
    pub(super) fn drop_link(&mut self, id: LinkId, now: Instant) {
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

    pub(super) fn settle_own(&mut self, now: Instant) {
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

    pub(super) fn settle_coordinators(&mut self, now: Instant) {
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
}
