//! Copies of operands, and of the result when the job has ended.

use super::*;

/// How often the whole of a result is asked for when its tiles can not be had.
const WHOLE_TRIES: u32 = 3;

impl<P> Backup<P> {
    /// A matrix is here now, or could not be had.
    pub fn handle_copied(&mut self, matrix: MatrixId, there: bool, now: Instant) {
        let result = self.ending.as_ref().and_then(|status| status.result);
        let copy = match there {
            true => Copy::There,
            false => Copy::Missing { retry: now + RETRY },
        };
        let known = self.operands.get_mut(&matrix);
        let known = known.or(self.whole.as_mut().filter(|_| result == Some(matrix)));
        let Some(known) = known else {
            return;
        };
        self.refusals += u32::from(!there);
        self.refused += u32::from(!there && result == Some(matrix));
        let changed = *known != copy;
        *known = copy;
        if changed && there && self.durable == Some(self.epoch) && !self.over {
            self.acknowledge();
        }
        self.finish(now);
    }

    pub(super) fn copy(&mut self, now: Instant) {
        let bytes = self.taken.header.a.bytes() + self.taken.header.b.bytes();
        let mine = self.coordinator() == self.me || self.linked.is_empty();
        let wait = match bytes <= SMALL || mine {
            true => Span(0),
            false => Span(bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND),
        };
        let mut sources: Vec<DeviceId> = self.linked.iter().copied().collect();
        let coordinator = self.coordinator();
        let backups = self.backups.clone();
        sources.sort_by_key(|device| {
            let place = backups.iter().position(|backup| backup == device);
            (*device != coordinator, place.unwrap_or(usize::MAX), *device)
        });
        let needed = self.needs_operands();
        for (&matrix, copy) in &mut self.operands {
            let Copy::Missing { retry } = copy else {
                continue;
            };
            if !needed {
                break;
            }
            *retry = (*retry).max(self.started + wait);
            if now >= *retry {
                *copy = Copy::Asked;
                self.effects
                    .push_back(Effect::CopyMatrix(matrix, sources.clone()));
            }
        }
        let result = self.ending.as_ref().and_then(|status| status.result);
        if let (Some(Copy::Missing { retry }), Some(result)) = (self.whole, result)
            && now >= retry
        {
            self.whole = Some(Copy::Asked);
            self.effects.push_back(Effect::CopyMatrix(result, sources));
        }
    }

    /// Of a job that has ended only the result is copied, unless that is lost.
    pub(super) fn needs_operands(&self) -> bool {
        self.ending.is_none() || self.bereft.is_some()
    }

    /// The job has ended, as somebody says who knows.
    pub fn end(&mut self, status: JobStatus, now: Instant) {
        let whole = status.state != JobState::Done || status.result.is_some();
        let known = self.ending.as_ref();
        let stands = known.is_none_or(|known| {
            status.standing() > known.standing()
                && (status.state, status.result) != (known.state, known.result)
        });
        if stands && !self.over && status.state.has_ended() && whole {
            if self.ending.replace(status).is_some() {
                // What was found of the other end's product is not of this one.
                self.whole = None;
                self.finishing = false;
                self.doubts.clear();
                self.refused = 0;
            }
            self.wanted.clear();
            self.effects.push_back(Effect::Changed);
            self.want_result(now);
        }
    }

    /// The job has ended under another coordinator, which may know nothing of the tiles here.
    pub fn end_elsewhere(&mut self, status: JobStatus, now: Instant) {
        if self.whole.is_none() {
            self.whole = Some(Copy::Missing { retry: now });
        }
        // Should the result be lost, it is that end that is gone back on.
        let epoch = Epoch {
            counter: status.epoch,
            device: status.coordinator,
        };
        if is_near(epoch.counter, self.epoch.counter) {
            self.follow(epoch);
        }
        self.end(status, now);
    }

    /// Whether an end of another coordinator has a result while that of the known end is lost with those who
    /// had it. Should they come back, the higher epoch's stands again.
    pub(super) fn is_better_than_lost(&self, status: &JobStatus) -> bool {
        let known = self.ending.as_ref().filter(|_| self.lost && !self.over);
        known.is_some_and(|known| {
            status.state == JobState::Done
                && status.result.is_some()
                && status.result != known.result
        })
    }

    /// Takes another end than the known one for that of the job.
    pub(super) fn adopt(&mut self, status: JobStatus, now: Instant) {
        self.ending = Some(status);
        self.whole = Some(Copy::Missing { retry: now });
        self.wanted.clear();
        self.doubts.clear();
        self.finishing = false;
        self.refused = 0;
        (self.bereft, self.lost) = (None, false);
        self.effects.push_back(Effect::Changed);
        self.finish(now);
    }

    /// What to copy of the result of a job that is done.
    pub(super) fn want_result(&mut self, now: Instant) {
        let Some(status) = self.ending.as_ref().filter(|_| !self.over) else {
            return;
        };
        if status.state == JobState::Done && self.whole.is_none() {
            let tiles = self.taken.header.tiling.len();
            if self.recorded.len() as u64 == tiles {
                let missing = self.recorded.keys().filter(|tile| !self.has(**tile));
                let missing: Vec<u32> = missing.copied().collect();
                for tile in missing {
                    self.want(tile, now);
                }
            } else {
                self.whole = Some(Copy::Missing { retry: now });
            }
        }
        self.finish(now);
    }

    /// When nothing is missing any more.
    pub(super) fn finish(&mut self, now: Instant) {
        let Some(status) = self.ending.as_ref().filter(|_| !self.over) else {
            return;
        };
        if status.state != JobState::Done || self.whole == Some(Copy::There) {
            self.be_over();
            return;
        }
        let tiles = self.taken.header.tiling.len();
        let complete =
            self.whole.is_none() && self.recorded.len() as u64 == tiles && self.wanted.is_empty();
        if complete && !self.finishing {
            self.finishing = true;
            self.effects.push_back(Effect::Finish);
        }
        if !complete && self.whole.is_none() && !self.has_sources() {
            // What is recorded here may be of a log that this end does not know: its tiles have other
            // bytes. Before the result counts as lost its coordinator is asked for the whole.
            self.whole = Some(Copy::Missing { retry: now });
            self.refused = WHOLE_REFUSALS_MAX - WHOLE_TRIES;
        }
        let gives = complete || self.has_sources();
        self.bereft = match gives {
            true => None,
            false => Some(self.bereft.unwrap_or(now)),
        };
        self.lost = self.bereft.is_some_and(|since| now >= since + RESULT_LOST);
        if self.gives_up(now) && self.hears() && !self.asked {
            self.asked = true;
            let (job, rank) = (self.taken.header.job, self.rank());
            self.send(self.coordinator(), Message::Elect { job, rank });
        }
    }

    pub(super) fn gives_up(&self, now: Instant) -> bool {
        let since = self.bereft.filter(|_| !self.over);
        since.is_some_and(|since| now >= since + RESULT_GIVEN_UP)
    }

    /// After the end nothing is said any more.
    pub(super) fn be_over(&mut self) {
        if let Some(status) = self.ending.clone() {
            self.over = true;
            self.acknowledge();
            self.effects.push_back(Effect::Ended(Box::new(status)));
        }
    }

    /// Whether somebody in reach is known to have all that is missing of the result.
    pub(super) fn has_sources(&self) -> bool {
        let coordinator = self.coordinator();
        if self.whole.is_some() {
            return self.linked.contains(&coordinator) && self.refused < WHOLE_REFUSALS_MAX;
        }
        let gives = |tile: u32, device: &DeviceId| {
            let doubts = self.doubts.get(&(tile, *device)).copied();
            self.linked.contains(device) && doubts.unwrap_or(0) < DOUBTS_MAX
        };
        self.wanted.keys().all(|&tile| {
            let known = self.recorded.get(&tile);
            let mut holders = known.into_iter().flat_map(|known| &known.holders);
            gives(tile, &coordinator) || holders.any(|device| gives(tile, device))
        })
    }

    /// The result was put together here.
    pub fn handle_finished(&mut self, result: MatrixId, now: Instant) {
        let Some(status) = self
            .ending
            .as_ref()
            .filter(|_| self.finishing && !self.over)
        else {
            return;
        };
        if status.result == Some(result) {
            self.whole = Some(Copy::There);
        } else {
            // Not the bytes that its coordinator told of.
            self.whole = Some(Copy::Missing { retry: now });
        }
        self.finish(now);
    }
}
