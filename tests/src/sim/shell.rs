//! The program around an engine: carries out what it asks for.

use std::collections::BTreeMap;

use gemmesh_protocol::id::{DeviceId, JobId, MatrixId};
use gemmesh_protocol::io::{Checked, Input, Output, SlabTask};
use gemmesh_protocol::job::{KernelClass, Operand};
use gemmesh_protocol::message::{Header, Message, Work};
use gemmesh_protocol::status::JobState;
use gemmesh_protocol::time::Span;

use super::disk::{Applied, Held, Write};
use super::faults::Class;
use super::payload::{Payload, Tile, WRONG};
use super::{Event, Power, Sim, mix};

/// One question over a connection of its own: a matrix or a tile that another node has.
#[derive(Debug)]
pub struct Ask {
    host: usize,
    incarnation: u32,
    job: JobId,
    what: Wanted,
    /// Who is asked now, then who is asked next.
    from: Vec<DeviceId>,
    /// The other's answer, once it is on its way.
    answer: Option<Found>,
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Matrix(MatrixId),
    Tile(u32),
}

#[derive(Debug, Clone)]
enum Found {
    Nothing,
    Operand,
    Result(BTreeMap<u32, Held>),
    Tile(Tile),
}

/// How long a shell waits for an answer.
const ASK_MAX: u64 = 5_000_000;

impl Sim {
    pub(super) fn output(&mut self, host: usize, output: Output<Payload>) {
        match output {
            Output::Send {
                link,
                header,
                payload,
            } => {
                let carries = matches!(header.body, Message::Block { .. } | Message::Result { .. });
                assert_eq!(carries, payload.is_some(), "{header:?}");
                self.send(host, link, header, payload.unwrap_or_default());
            }
            Output::Close { link, .. } => {
                if let Some(&(connection, end)) = self.hosts[host].links.get(&link) {
                    self.hang_up(connection, end);
                }
            }
            Output::Dial { address } => self.dial(host, address),
            Output::Serve {
                link,
                to,
                job,
                operand,
                blocks,
            } => {
                for block in blocks {
                    let header = Header {
                        from: self.hosts[host].device,
                        to,
                        body: Message::Block {
                            job,
                            operand,
                            block,
                        },
                    };
                    let Some(payload) = self.read_block(host, job, operand, block, true) else {
                        break;
                    };
                    self.send(host, link, header, payload);
                }
            }
            Output::Load {
                job,
                operand,
                blocks,
            } => {
                for block in blocks {
                    let answer = match self.read_block(host, job, operand, block, false) {
                        Some(Payload::Block { id, .. }) => {
                            self.hosts[host].cache.insert(id);
                            Input::BlockReady {
                                job,
                                operand,
                                block,
                            }
                        }
                        _ => Input::BlockBad {
                            job,
                            operand,
                            block,
                        },
                    };
                    self.answer_after(200, host, answer);
                }
            }
            Output::Keep {
                job,
                operand,
                block,
                id: wanted,
                payload,
            } => {
                let good = matches!(payload, Payload::Block { id, .. } if id == wanted);
                let answer = if good {
                    self.hosts[host].cache.insert(wanted);
                    Input::BlockReady {
                        job,
                        operand,
                        block,
                    }
                } else {
                    Input::BlockBad {
                        job,
                        operand,
                        block,
                    }
                };
                self.answer_after(100, host, answer);
            }
            Output::Evict { id } => {
                let host = &mut self.hosts[host];
                assert!(host.cache.remove(&id), "a block is dropped twice");
                for (_, task) in host.slots.values() {
                    let used = task.a.iter().chain(&task.b).any(|(block, _)| *block == id);
                    assert!(!used, "a block is dropped while it is used");
                }
            }
            Output::Compute(task) => self.compute(host, task),
            Output::Abort { slot } => {
                assert!(self.hosts[host].slots.remove(&slot).is_some());
                self.hosts[host].started.remove(&slot);
            }
            Output::Verify {
                job,
                tile,
                lease,
                payload,
            } => {
                let class = self.jobs[&job].header.class;
                let found = payload.tile().expect("a result is a tile");
                let right = found.is_right(job, tile, class);
                let mut payload = payload;
                // Some products only computing them again can tell; the own bits count then.
                let odd = class == KernelClass::Any && self.jobs[&job].odd;
                let checked = if odd && found.variant != host as u32 {
                    payload = Payload::Tile(Tile {
                        job,
                        tile,
                        variant: host as u32,
                        len: self.jobs[&job].header.tile_bytes(tile),
                    });
                    Checked::Replaced(Work::default())
                } else if right {
                    Checked::Right
                } else {
                    Checked::Wrong
                };
                let answer = Input::Verified {
                    job,
                    tile,
                    lease,
                    checked,
                    payload,
                };
                let time = 500 * self.hosts[host].slowness;
                self.answer_after(time, host, answer);
            }
            Output::Persist {
                job,
                done,
                contributor,
                expected,
                payload,
            } => {
                mix(&mut self.hash, u64::from(done.tile));
                let bytes = payload.tile().expect("what is persisted is a tile");
                let write = Write::Tile {
                    job,
                    done,
                    contributor,
                    expected,
                    bytes,
                };
                self.write(host, write);
            }
            Output::Record {
                job,
                epoch,
                sequence,
                entries,
            } => {
                let write = Write::Record {
                    job,
                    epoch,
                    sequence,
                    entries,
                };
                self.write(host, write);
            }
            Output::Claim { header, epoch } => {
                let job = header.job;
                let name = self.job_name(job);
                self.tell(format!("n{host} claims {name} as epoch {}", epoch.counter));
                self.takeover_mattered(job, host);
                self.write(host, Write::Claim { job, epoch });
            }
            Output::Backups { job, backups } => self.write(host, Write::Backups { job, backups }),
            Output::Moment { job, moment } => self.write(host, Write::Moment { job, moment }),
            Output::CopyMatrix { job, matrix, from } => {
                let disk = &self.hosts[host].disk;
                let row = disk.rows.get(&job);
                let result = row.is_some_and(|row| row.result == Some(matrix));
                if disk.matrices.get(&matrix) == Some(&true) || result {
                    let there = true;
                    let copied = Input::MatrixCopied { job, matrix, there };
                    self.answer_after(100, host, copied);
                } else {
                    self.begin_ask(host, job, Wanted::Matrix(matrix), from);
                }
            }
            Output::FetchTile { job, tile, from } => {
                self.begin_ask(host, job, Wanted::Tile(tile), vec![from]);
            }
            Output::Drop { job, for_good } => {
                let name = self.job_name(job);
                self.tell(format!("n{host} drops {name}"));
                self.write(
                    host,
                    match for_good {
                        true => Write::Forget { job },
                        false => Write::Drop { job },
                    },
                );
            }
            Output::Finish { job } => self.write(host, Write::Finish { job }),
            Output::Ended { status } => {
                assert!(status.state.has_ended());
                let now = self.now;
                let name = self.job_name(status.job);
                self.tell(format!(
                    "n{host}: {name} is {}{}",
                    format!("{:?}", status.state).to_lowercase(),
                    status
                        .error
                        .as_ref()
                        .map_or(String::new(), |error| format!(": {error}")),
                ));
                let truth = self.jobs.get_mut(&status.job).expect("a submitted job");
                if truth.ended.is_none() {
                    truth.seconds = (now - truth.submitted) as f64 / 1e6;
                    truth.ended = Some((*status).clone());
                }
                if status.state == JobState::Done {
                    assert_eq!(status.tiles_done, status.tiles_total);
                }
                self.write(host, Write::Ended { status });
            }
            Output::Quarantined { device, .. } => self.quarantined.push(device),
            Output::Encode { .. } | Output::Decode { .. } => {
                unreachable!("no guarded product is submitted")
            }
            Output::Joined { outcome, .. } => self.joined.push((host, outcome)),
            Output::JobChanged { .. } | Output::DevicesChanged => {}
        }
    }

    /// A block of an operand from the disk, maybe damaged on the way out.
    fn read_block(
        &mut self,
        host: usize,
        job: JobId,
        operand: Operand,
        block: u32,
        travels: bool,
    ) -> Option<Payload> {
        let manifest = self.jobs[&job].header.manifest(operand);
        let mut id = manifest.blocks[block as usize];
        let len = manifest.grid().block_bytes(u64::from(block));
        let matrix = manifest.id();
        match self.hosts[host].disk.matrices.get(&matrix) {
            Some(true) => {}
            Some(false) => {
                self.mattered(Class::BadMatrix);
                let reason = "an operand on the disk can not be read".to_owned();
                self.answer_after(100, host, Input::Fail { job, reason });
                return None;
            }
            None => return None,
        }
        if travels && self.bad_blocks > 0 && self.prng.below(self.bad_blocks) == 0 {
            self.mattered(Class::BadBlock);
            id.0[0] ^= 1;
        }
        Some(Payload::Block { id, len })
    }

    pub(super) fn write_refused(&mut self, host: usize, applied: &Applied) {
        let job = applied.write.job();
        match &applied.answer {
            Some(Input::Fail { reason, .. }) => {
                let name = self.job_name(job);
                self.tell(format!("n{host} can not write for {name}: {reason}"));
                if let Some(truth) = self.jobs.get_mut(&job) {
                    truth.may_fail = true;
                }
                self.mattered(if self.hosts[host].disk.full {
                    Class::FullDisk
                } else {
                    Class::BadTile
                });
            }
            Some(Input::Persisted { .. }) => self.mattered(Class::BadTile),
            _ => {}
        }
    }

    // -- questions --

    fn begin_ask(&mut self, host: usize, job: JobId, what: Wanted, mut from: Vec<DeviceId>) {
        from.reverse();
        let incarnation = self.hosts[host].incarnation;
        let ask = Ask {
            host,
            incarnation,
            job,
            what,
            from,
            answer: None,
        };
        self.ask_next(ask);
    }

    /// Asks the next, or tells the engine that nobody has it.
    fn ask_next(&mut self, ask: Ask) {
        let me = ask.host;
        let Some(&from) = ask.from.last() else {
            let answer = self.not_found(&ask, self.hosts[me].device);
            self.answer_after(100, me, answer);
            return;
        };
        let to = self.host_of(from).filter(|to| *to != me);
        let open = to.is_some_and(|to| self.reaches(me, to) && self.reaches(to, me));
        let delay = match to {
            _ if !open => ASK_MAX / 2 + self.prng.below(ASK_MAX / 2),
            Some(to) => 2 * self.path_of(me, to).latency + self.path_of(me, to).jitter,
            None => 0,
        };
        self.after(delay, Event::Ask(Box::new(ask)));
    }

    fn not_found(&self, ask: &Ask, from: DeviceId) -> Input<Payload> {
        let job = ask.job;
        match ask.what {
            Wanted::Matrix(matrix) => Input::MatrixCopied {
                job,
                matrix,
                there: false,
            },
            Wanted::Tile(tile) => Input::TileFetched {
                job,
                tile,
                from,
                payload: None,
            },
        }
    }

    /// A question arrives at the other node, or its answer here.
    pub(super) fn ask(&mut self, mut ask: Ask) {
        let me = ask.host;
        if self.hosts[me].incarnation != ask.incarnation {
            return;
        }
        let from = *ask.from.last().expect("somebody was asked");
        let to = self.host_of(from).filter(|to| *to != me);
        let open = to.is_some_and(|to| self.reaches(me, to) && self.reaches(to, me));
        match ask.answer {
            None => {
                let found = match to {
                    Some(to) if open && self.hosts[to].power == Power::On => {
                        self.look_up(to, ask.job, ask.what)
                    }
                    _ => Found::Nothing,
                };
                let bytes = match &found {
                    Found::Nothing => 0,
                    Found::Operand | Found::Result(_) => 1 << 20,
                    Found::Tile(tile) => tile.len,
                };
                let delay = to.map_or(0, |to| {
                    let path = self.path_of(to, me);
                    path.latency + bytes * 64 / path.rate * (100 + 3 * path.loss) / 100
                });
                ask.answer = Some(found);
                self.after(delay, Event::Ask(Box::new(ask)));
            }
            Some(ref found) if open && !matches!(found, Found::Nothing) => {
                let job = ask.job;
                match (ask.what, found) {
                    (Wanted::Matrix(matrix), found) => {
                        if self.hosts[me].power == Power::On {
                            let tiles = match found {
                                Found::Result(tiles) => Some(tiles.clone()),
                                _ => None,
                            };
                            self.write(me, Write::Matrix { job, matrix, tiles });
                        } else {
                            self.answer_after(0, me, self.not_found(&ask, from));
                        }
                    }
                    (Wanted::Tile(tile), &Found::Tile(bytes)) => {
                        let payload = Some((Payload::Tile(bytes), bytes.len));
                        let fetched = Input::TileFetched {
                            job,
                            tile,
                            from,
                            payload,
                        };
                        self.answer_after(0, me, fetched);
                    }
                    (Wanted::Tile(_), _) => unreachable!("a tile was asked for"),
                }
            }
            Some(_) => {
                ask.answer = None;
                if matches!(ask.what, Wanted::Tile(_)) {
                    let answer = self.not_found(&ask, from);
                    self.answer_after(100, me, answer);
                } else {
                    ask.from.pop();
                    self.ask_next(ask);
                }
            }
        }
    }

    fn look_up(&mut self, host: usize, job: JobId, what: Wanted) -> Found {
        match what {
            Wanted::Matrix(matrix) => match self.hosts[host].disk.matrices.get(&matrix) {
                Some(true) => Found::Operand,
                Some(false) => {
                    self.mattered(Class::BadMatrix);
                    Found::Nothing
                }
                None => {
                    let row = self.hosts[host].disk.rows.get(&job);
                    let row = row.filter(|row| row.result == Some(matrix));
                    let row = row.filter(|row| row.held.values().all(|held| !held.bad));
                    row.map_or(Found::Nothing, |row| Found::Result(row.held.clone()))
                }
            },
            Wanted::Tile(tile) => {
                let row = self.hosts[host].disk.rows.get(&job);
                let held = row.and_then(|row| row.held.get(&tile)).cloned();
                let coordinated = row.is_some_and(|row| row.coordinated);
                let Some(held) = held else {
                    return Found::Nothing;
                };
                let mut bytes = held.bytes;
                // A coordinator does not lie about its own job: nobody could tell what is true.
                let lies = self.hosts[host].spec.liar && !coordinated;
                if held.bad {
                    self.mattered(Class::BadTile);
                    // Its own checksum tells, mostly.
                    if self.prng.below(4) > 0 {
                        return Found::Nothing;
                    }
                    bytes.variant = WRONG + 1_000 + host as u32;
                } else if lies {
                    self.mattered(Class::Liar);
                    bytes.variant = WRONG + 2_000 + host as u32;
                }
                Found::Tile(bytes)
            }
        }
    }

    // -- slots --

    fn compute(&mut self, host: usize, task: SlabTask) {
        let state = &mut self.hosts[host];
        for (id, _) in task.a.iter().chain(&task.b) {
            assert!(
                state.cache.contains(id),
                "a slab needs a block that is not there"
            );
        }
        // The slabs of a tile come in order on one slot; the first one starts anew.
        let before = state.started.remove(&task.slot);
        assert_eq!(task.first, task.from == 0);
        if !task.first {
            let before = before.expect("a slab before this one");
            assert!(
                before.grant == task.grant && before.to == task.from,
                "{before:?} then {task:?}"
            );
        }
        if !task.last {
            state.started.insert(task.slot, task.clone());
        }
        self.sequence += 1;
        let (slot, generation) = (task.slot, self.sequence);
        let duration = self.duration(host, &task).0 * self.hosts[host].slowness;
        if self.hosts[host].slowness > 1 {
            self.mattered(Class::Slow);
        }
        let previous = self.hosts[host].slots.insert(slot, (generation, task));
        assert!(previous.is_none(), "one slab a slot");
        let incarnation = self.hosts[host].incarnation;
        let event = Event::Slab {
            host,
            incarnation,
            slot,
            generation,
        };
        self.after(duration, event);
    }

    fn duration(&self, host: usize, task: &SlabTask) -> Span {
        let spec = self.hosts[host].spec;
        let shape = task.shape;
        let operations = 2 * shape.rows * shape.cols * (task.to - task.from);
        let per_us = spec.mflops * spec.truth / f64::from(spec.slots);
        Span((operations as f64 / per_us) as u64 + 1)
    }

    pub(super) fn slab(&mut self, host: usize, incarnation: u32, slot: u32, generation: u64) {
        let running = self.hosts[host].slots.get(&slot);
        let current = running.is_some_and(|(current, _)| *current == generation);
        if !current || self.hosts[host].incarnation != incarnation {
            return;
        }
        let (_, task) = self.hosts[host].slots.remove(&slot).expect("looked at");
        let fails = self.hosts[host].spec.fails;
        if fails > 0 && self.prng.below(fails) == 0 {
            self.hosts[host].started.remove(&slot);
            self.mattered(Class::SlotFails);
            self.input(host, Input::SlotFailed { slot });
            return;
        }
        let result = task.last.then(|| {
            let (job, tile) = (task.job, task.grant.tile);
            let len = self.jobs[&job].header.tile_bytes(tile);
            // Rounding differs between devices where the class allows it.
            let any = task.class == KernelClass::Any;
            let variant = if any { host as u32 } else { 0 };
            let bytes = Tile {
                job,
                tile,
                variant,
                len,
            };
            (Payload::Tile(bytes), len)
        });
        let kernel = self.duration(host, &task);
        let done = Input::SlabDone {
            slot,
            kernel,
            result,
        };
        self.input(host, done);
    }
}
