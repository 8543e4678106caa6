//! How fast a link is: measured once when it opens, before anybody plans with it.
//!
//! A small Ping takes as long as the way there and back; a padded one in addition as long as its
//! bytes take. Workers measure on while they fetch blocks (`worker/intake.rs`); this is the first guess.

use super::*;

/// Padding of the large Ping: ten milliseconds of a slow Wi-Fi. More would be more exact, but every
/// pair of nodes does this when they meet.
const PADDING: usize = 64 << 10;
/// How often, and the median counts: who has just started is busy with other things, and what a buffer on
/// the way takes in looks faster than the link is.
const ROUNDS: usize = 3;
/// Shorter differences say nothing: so little fits into a buffer on the way. A faster link (more than
/// 1 Gbit/s) shows when blocks go over it.
const SPAN_MIN: Span = Span(524);

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gauge {
    /// The small Ping was sent.
    Small { nonce: u64, sent: Instant },
    /// The large one was.
    Large {
        nonce: u64,
        sent: Instant,
        round: Span,
    },
    /// Nothing is being measured.
    Done,
}

impl Membership {
    /// Measures the link to a node, once more. Pages are busiest when they have just opened, and what
    /// is measured then says little: of them only blocks on their way tell.
    pub(super) fn gauge(&mut self, id: LinkId, to: DeviceId, now: Instant) {
        let nonce = self.prng.next_u64();
        let link = self.links.get_mut(&id).expect("a link that is open");
        if link.door == Door::Page || link.gauged.len() == ROUNDS {
            return;
        }
        link.gauge = Gauge::Small { nonce, sent: now };
        self.send(id, to, Message::ping(nonce));
    }

    /// A Pong arrived.
    pub(super) fn gauge_pong(&mut self, id: LinkId, from: DeviceId, pong: u64, now: Instant) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        match link.gauge {
            Gauge::Small { nonce, sent } if nonce == pong => {
                let nonce = self.prng.next_u64();
                link.gauge = Gauge::Large {
                    nonce,
                    sent: now,
                    round: now - sent,
                };
                let padding = vec![0; PADDING];
                self.send(id, from, Message::Ping { nonce, padding });
            }
            Gauge::Large { nonce, sent, round } if nonce == pong => {
                link.gauge = Gauge::Done;
                let span = Span((now - sent).0.saturating_sub(round.0)).max(SPAN_MIN);
                let rate = PADDING as f64 / span.as_secs_f64();
                link.gauged.push(rate);
                link.gauged.sort_by(f64::total_cmp);
                if link.gauged.len() == ROUNDS {
                    let median = link.gauged[ROUNDS / 2];
                    self.effects.push_back(Effect::Rate(from, median));
                }
                self.gauge(id, from, now);
            }
            _ => {}
        }
    }
}
