//! Which address is dialled when.

use super::*;

impl Membership {
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
        let hinted = self.dials.values().filter(|dial| dial.hinted).count();
        if hinted >= DIALS_MAX && !self.dials.contains_key(&address) {
            self.joined(&address, Err(Refusal::Full));
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
    pub(super) fn dial_ended(&mut self, address: &str, now: Instant) {
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

    pub(super) fn dial_due(&mut self, now: Instant) {
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
        let dialling = self.dials.values().filter(|dial| dial.dialled.is_some());
        let mut room = GOSSIPED_DIALS_MAX.saturating_sub(dialling.filter(|d| !d.hinted).count());
        for (id, known) in &mut self.devices {
            if known.next_dial.is_none_or(|next| now < next) {
                continue;
            }
            if linked.contains(id) || known.record.addresses.is_empty() {
                known.next_dial = None;
                continue;
            }
            if room == 0 {
                known.next_dial = Some(now + DIAL_GAP_MIN);
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
                room -= 1;
            }
        }
        for address in due {
            self.effects.push_back(Effect::Dial(address));
        }
    }
}
