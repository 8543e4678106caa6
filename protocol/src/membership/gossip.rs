//! Records of devices: who is believed, what is passed on.

use super::*;

impl Membership {
    /// Marks a device, and the pages attached to it, as lost and says so.
    pub(super) fn lose(&mut self, device: DeviceId, on_purpose: bool, now: Instant) {
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

    pub(super) fn merge(&mut self, records: &[DeviceRecord], source: Option<LinkId>, now: Instant) {
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
    pub(super) fn merge_one(&mut self, record: &DeviceRecord, now: Instant) -> bool {
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

    pub(super) fn forget_a_lost_one(&mut self) -> bool {
        let lost = self.devices.iter().find(|(_, known)| known.lost.is_some());
        let lost = lost.map(|(id, _)| *id);
        lost.is_some_and(|id| self.devices.remove(&id).is_some())
    }

    pub(super) fn flood(&mut self, news: &[DeviceRecord], source: Option<LinkId>) {
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
}
