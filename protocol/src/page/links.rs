//! The ways to the own node and to coordinators.

use super::*;

impl<P: Clone> PageEngine<P> {
    pub(super) fn handle_link_up(&mut self, link: LinkId, address: &str, now: Instant) {
        let mut coordinator = None;
        if matches!(self.own, Own::Dialling { .. }) && address == self.address {
            let until = now + CONNECT_MAX;
            self.own = Own::Greeting { link, until };
        } else if matches!(self.back, Back::Dialling { .. }) && address == self.nodes.home() {
            let until = now + CONNECT_MAX;
            self.back = Back::Greeting { link, until };
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
            self.try_next(now);
            return;
        }
        if matches!(self.back, Back::Dialling { .. }) && address == self.nodes.home() {
            self.back_later(now);
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

    /// The own node can not be reached now: the next one of this round, or a pause.
    fn try_next(&mut self, now: Instant) {
        if self.own == Own::Left {
            return;
        }
        self.nodes.note_failed(&self.address);
        match self.nodes.next() {
            Some(address) => self.dial_own(address, now),
            None => {
                let gap = Span(RETRY_MIN.0 << self.tries.min(5)).min(RETRY_MAX);
                self.tries += 1;
                let retry = now + self.prng.jitter(gap);
                self.own = Own::Away { retry };
            }
        }
        self.outputs.push_back(Output::DevicesChanged);
    }

    fn dial_own(&mut self, address: String, now: Instant) {
        let until = now + CONNECT_MAX;
        self.own = Own::Dialling { until };
        self.address.clone_from(&address);
        self.outputs.push_back(Output::Dial { address });
    }

    /// Nothing comes or goes through the own node any more. What runs goes on; who coordinates it
    /// says Open when there is a way again.
    pub(super) fn cut_off(&mut self, node: DeviceId, now: Instant) {
        self.worker.handle_coordinator_lost(node, now);
        let relayed = |(id, c): (&DeviceId, &Coordinator)| {
            matches!(c.way, Way::Relayed { .. }).then_some(*id)
        };
        let relayed: Vec<DeviceId> = self.coordinators.iter().filter_map(relayed).collect();
        for id in relayed {
            self.coordinators.remove(&id);
            self.worker.handle_coordinator_lost(id, now);
        }
    }

    /// Whether the own node, once there, is not the one that served the page.
    pub(super) fn has_moved(&self) -> bool {
        let known = matches!(self.own, Own::Member { node, .. } if self.home == Some(node));
        self.address != self.nodes.home() && !known
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
                self.cut_off(node, now);
                self.forget_back();
                self.tries = 0;
                // At once, but not all pages of this node in the same moment.
                let retry = now + self.prng.jitter(RETRY_FIRST);
                self.own = Own::Away { retry };
                self.outputs.push_back(Output::DevicesChanged);
            }
            (None, Own::Greeting { link, .. }) if link == id => self.try_next(now),
            (None, _) if matches!(self.back, Back::Greeting { link, .. } if link == id) => {
                self.back_later(now);
            }
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
                let (devices, coordinators) = (&self.devices, &self.coordinators);
                let pages = |node| {
                    let records = devices.values().map(|(record, _)| record);
                    records.filter(|record| record.via == Some(node)).count()
                };
                let linked = |node| {
                    let coordinator = coordinators.get(&node);
                    coordinator.is_some_and(|c| matches!(c.way, Way::Direct { .. }))
                };
                self.nodes.begin_round(self.record.device, pages, linked);
                let first = self.nodes.next();
                self.dial_own(first.expect("the node that served the page"), now);
            }
            Own::Dialling { until } if now >= until => self.try_next(now),
            Own::Greeting { link, until } if now >= until => self.close(link, now),
            _ => {}
        }
    }

    /// A page that has moved looks for the node that served it, when that costs no work.
    pub(super) fn settle_back(&mut self, now: Instant) {
        match self.back {
            Back::Wait { until } if now >= until => {
                if self.worker.active_slots() > 0 {
                    let until = now + HOME_AGAIN_BUSY;
                    self.back = Back::Wait { until };
                    return;
                }
                let until = now + CONNECT_MAX;
                self.back = Back::Dialling { until };
                let address = self.nodes.home().to_owned();
                self.outputs.push_back(Output::Dial { address });
            }
            Back::Dialling { until } if now >= until => self.back_later(now),
            Back::Greeting { link, until } if now >= until => self.close(link, now),
            _ => {}
        }
    }

    fn back_later(&mut self, now: Instant) {
        let until = now + self.prng.jitter(HOME_AGAIN);
        self.back = Back::Wait { until };
    }

    /// The own node is sought anew anyway, the one that served the page first.
    fn forget_back(&mut self) {
        if let Back::Greeting { link, .. } = self.back {
            self.links.remove(&link);
            self.outputs.push_back(Output::Close { link, reason: None });
        }
        self.back = Back::No;
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
