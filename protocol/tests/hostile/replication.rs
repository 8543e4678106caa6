//! What they say of logs, elections and ends: whose part it is to say so, and whose it is not.

use gemmesh_protocol::id::{BlockId, Epoch, JobId, LeaseId, MatrixId};
use gemmesh_protocol::io::DoneTile;
use gemmesh_protocol::message::{Grant, Message, Work};
use gemmesh_protocol::replication::{
    COUNTER_JUMP_MAX, COUNTER_MAX, Entry, Rank, StoredTile, Taken, Vote,
};
use gemmesh_protocol::status::{Happening, JobState, JobStatus, Moment};
use gemmesh_protocol::time::{Span, WallTime};

use crate::cast::{DEVICES, id};
use crate::run::Run;

impl Run {
    /// A message of replication or election. Most could be right somewhere, some make no sense.
    pub fn word_of_replication(&mut self, device: usize) -> Message {
        let job = self.one(&self.jobs.clone());
        let epoch = self.epoch(device);
        match self.pick(10) {
            0 => Message::Elect {
                job,
                rank: Rank {
                    epoch: self.epoch(DEVICES),
                    sequence: self.number(),
                    place: self.number() as u8,
                    device: epoch.device,
                },
            },
            1 => Message::Claim { job, epoch },
            2 => Message::Vote {
                job,
                vote: self.a_vote(job, device),
            },
            3 => {
                let count = self.pick(4);
                Message::Held {
                    job,
                    epoch: self.epoch(0),
                    tiles: (0..count).map(|_| self.stored()).collect(),
                    complete: self.pick(2) == 0,
                }
            }
            4 => Message::Appended {
                job,
                epoch: self.epoch(0),
                sequence: self.number(),
                inputs: self.pick(2) == 0,
                ended: self.pick(3) == 0,
            },
            5 => Message::Declined { job },
            6 => {
                let count = self.pick(6);
                let grants = (0..count).map(|_| Grant {
                    lease: LeaseId(self.number()),
                    tile: self.number() as u32,
                    lasts: Span(self.number()),
                });
                Message::Resume {
                    job,
                    grants: grants.collect(),
                    epoch: self.epoch(0),
                }
            }
            _ => {
                let first = self.one(&[0, 0, 0, 1, 2, 3, u64::MAX]);
                let mut entries = Vec::new();
                if first == 0 && self.pick(8) > 0 {
                    entries.push(self.taken(job));
                }
                for _ in 0..self.pick(5) {
                    entries.push(self.an_entry(job, device));
                }
                Message::Append {
                    job,
                    epoch,
                    elapsed: Span(self.number()),
                    first,
                    entries,
                }
            }
        }
    }

    /// An epoch of this device mostly, or of anybody ([`DEVICES`]).
    fn epoch(&mut self, device: usize) -> Epoch {
        let anybody = self.pick(DEVICES);
        let other = device == DEVICES || self.pick(30) == 0;
        let small = self.prng.below(6);
        Epoch {
            counter: self.one(&[
                1,
                small,
                small,
                small,
                COUNTER_JUMP_MAX,
                COUNTER_MAX,
                COUNTER_MAX + 1,
                u64::MAX,
            ]),
            device: id(if other { anybody } else { device }),
        }
    }

    fn taken(&mut self, job: JobId) -> Entry {
        let known = self.headers.get(&job).cloned();
        let header = match known.filter(|_| self.pick(6) > 0) {
            Some(header) => header,
            None => self.header(job),
        };
        if header.check().is_ok() {
            self.headers.entry(job).or_insert_with(|| header.clone());
        }
        Entry::Taken(Box::new(Taken {
            header,
            submitted: WallTime(self.number()),
            token: BlockId([1; 32]),
        }))
    }

    fn stored(&mut self) -> StoredTile {
        StoredTile {
            done: DoneTile {
                tile: self.small_or_absurd(),
                device: id(self.pick(DEVICES)),
                work: Work {
                    kernel: Span(self.number()),
                    transfer: Span(self.number()),
                    busy: Span(self.number()),
                },
            },
            digest: BlockId([self.pick(3) as u8 + 3; 32]),
        }
    }

    fn small_or_absurd(&mut self) -> u32 {
        match self.pick(20) {
            0 => self.number() as u32,
            _ => self.pick(2) as u32,
        }
    }

    fn an_entry(&mut self, job: JobId, device: usize) -> Entry {
        match self.pick(40) {
            0 => self.taken(job),
            1..6 => {
                let count = self.pick(4);
                Entry::Backups((0..count).map(|_| id(self.pick(DEVICES))).collect())
            }
            6..10 => {
                let other = self.pick(DEVICES);
                Entry::Contributor(Box::new(self.record(other)))
            }
            10..24 => Entry::Done {
                stored: self.stored(),
                keeper: self.one(&[None, Some(id(0)), Some(id(device))]),
            },
            24..28 => Entry::Keep {
                tile: self.small_or_absurd(),
                keeper: id(self.pick(2)),
            },
            28..32 => Entry::Held {
                tile: self.small_or_absurd(),
                holder: id(self.pick(DEVICES)),
            },
            32..36 => Entry::Moment(Moment {
                at: self.one(&[0.0, 1.0, 2.0, f64::MAX, f64::NAN]),
                event: self.one(&[Happening::Left, Happening::TookOver]),
                device: id(device),
                name: String::new(),
                tile: None,
                epoch: self.number(),
            }),
            _ => Entry::Ended(Box::new(self.an_end(job, device))),
        }
    }

    fn a_vote(&mut self, job: JobId, device: usize) -> Vote {
        match self.pick(8) {
            0 => Vote::Yield,
            1 => Vote::Higher,
            2 => Vote::Unknown,
            3 => Vote::Gone,
            4 | 5 => Vote::Lives {
                epoch: self.epoch(DEVICES),
            },
            _ => Vote::Ended(Box::new(self.an_end(job, device))),
        }
    }

    fn an_end(&mut self, job: JobId, device: usize) -> JobStatus {
        let other = self.one(&self.jobs.clone());
        let job = if self.pick(6) == 0 { other } else { job };
        let mut status = self.status(job, device);
        status.epoch = self.epoch(device).counter;
        status.state = self.one(&[
            JobState::Done,
            JobState::Done,
            JobState::Failed,
            JobState::Cancelled,
            JobState::Running,
        ]);
        status.result = self.one(&[None, Some(MatrixId([3; 32]))]);
        status
    }
}
