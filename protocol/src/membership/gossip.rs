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

    /// Takes records that came by `source`, from the device `teller`; `None` for what this node
    /// says itself.
    pub(super) fn merge(
        &mut self,
        records: &[DeviceRecord],
        teller: Option<(LinkId, DeviceId)>,
        now: Instant,
    ) {
        let mut news = Vec::new();
        for record in records {
            let first_hand = teller.is_none_or(|(_, device)| device == record.device);
            if self.merge_one(record, first_hand, now) {
                news.push(record.clone());
            }
        }
        if !news.is_empty() {
            self.flood(&news, teller.map(|(link, _)| link));
            self.effects.push_back(Effect::Changed);
        }
    }

    /// Whether the record is news to pass on. What a device says of itself on its own link counts,
    /// whatever was said of it before; what others say of it counts while it has no link.
    fn merge_one(&mut self, record: &DeviceRecord, first_hand: bool, now: Instant) -> bool {
        let me = self.record.device;
        let age = |record: &DeviceRecord| (record.incarnation, record.version);
        if !first_hand && record.version.max(record.incarnation) > HEARSAY_MAX {
            return false;
        }
        if record.device == me {
            // Somebody lost sight of this device, or knows a later version than this one.
            if record.incarnation == self.record.incarnation && record.version > self.record.version
            {
                self.record.version = record.version.saturating_add(1);
                self.own_news.urge();
            }
            return false;
        }
        let attached = self.is_attached(record.device);
        let lost = record.state == DeviceState::Lost;
        let link = self.link_of(record.device);
        let linked = link.is_some();
        let room = self.devices.contains_key(&record.device) || self.make_room(first_hand);
        let mut news = true;
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
            Some(known) if first_hand && linked => {
                // Others may have told it first. The link is news to this node all the same: what
                // was noted while there was none is over.
                news = *record != known.record || known.lost.is_some();
                known.record = record.clone();
                known.lost = None;
            }
            // An id is of a node or of a page, for ever.
            Some(known) if known.record.kind != record.kind => return false,
            Some(known) if age(record) > age(&known.record) => {
                let newer_life = record.incarnation > known.record.incarnation;
                if attached && lost {
                    // Of a page that is attached here this node speaks.
                    known.record.incarnation = record.incarnation;
                    known.record.version = record.version.saturating_add(1);
                    let contradiction = known.record.clone();
                    self.flood(&[contradiction], None);
                    return false;
                }
                if let Some(link) = link.filter(|_| attached || newer_life) {
                    // It may have moved. If not, its answer to this says so.
                    self.probe(link, now);
                }
                if let Some(link) = link.filter(|_| !attached) {
                    // A neighbour speaks for itself: it hears what is said of it, and nobody else.
                    let devices = vec![record.clone()];
                    self.send(link, record.device, Message::Gossip { devices });
                    return false;
                }
                let known = self.devices.get_mut(&record.device).expect("found above");
                if newer_life {
                    // Its old addresses were dialled in vain; these were not.
                    known.tries = 0;
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
        news
    }

    /// Whether a page is a member through this node.
    fn is_attached(&self, page: DeviceId) -> bool {
        self.pages().any(|(_, device)| device == page)
    }

    /// A page that answered is attached here, although another node says that it moved there.
    /// At most once a second: when it plays both sides they would contradict each other for ever.
    pub(super) fn reclaim(&mut self, id: LinkId, now: Instant) {
        let me = self.record.device;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let Some(peer) = link.peer.as_ref().filter(|p| p.role == Role::Attached) else {
            return;
        };
        let Some(known) = self.devices.get(&peer.record.device) else {
            return;
        };
        if known.record.via == Some(me) || link.next_reclaim.is_some_and(|next| now < next) {
            return;
        }
        link.next_reclaim = Some(now + RECLAIM_GAP);
        let mut record = peer.record.clone();
        record.incarnation = known.record.incarnation;
        record.version = known.record.version.saturating_add(1);
        self.merge(&[record], None, now);
    }

    /// Makes room for a device by dropping one that is lost, or, for one that is `here`, one that
    /// is known from hearsay alone.
    fn make_room(&mut self, here: bool) -> bool {
        if self.devices.len() < self.devices_max {
            return true;
        }
        let gone = self.droppable(here);
        gone.is_some_and(|id| self.devices.remove(&id).is_some())
    }

    /// See [`Self::make_room`].
    pub(super) fn droppable(&self, here: bool) -> Option<DeviceId> {
        let lost = self.devices.iter().find(|(_, known)| known.lost.is_some());
        let lost = lost.map(|(id, _)| *id);
        lost.or_else(|| {
            let mut devices = self.devices.keys().filter(|_| here);
            devices.find(|id| self.link_of(**id).is_none()).copied()
        })
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
