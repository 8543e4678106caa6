//! What they say of devices, leases and results.

use gemmesh_protocol::forecast::Limit;
use gemmesh_protocol::id::{BlockId, Epoch, JobId, LeaseId};
use gemmesh_protocol::job::{JobHeader, KernelClass, Operand};
use gemmesh_protocol::matrix::{Dtype, ElementType};
use gemmesh_protocol::message::{DeviceRecord, Grant, Hello, Message, Refusal, VERSION, Work};
use gemmesh_protocol::plan;
use gemmesh_protocol::status::{DeviceKind, DeviceState, JobState, JobStatus, Mode, Planned};
use gemmesh_protocol::tile::Tiling;
use gemmesh_protocol::time::{Span, WallTime};

use crate::cast::{DEVICES, F64, id, manifest, record};
use crate::run::Run;

impl Run {
    pub fn honest_header(&mut self, job: JobId) -> JobHeader {
        let mut edge = || 1 + self.prng.below(700);
        let (m, k, n) = (edge(), edge(), edge());
        let (a, b) = (manifest("a", m, k), manifest("b", k, n));
        JobHeader {
            job,
            name: String::new(),
            class: KernelClass::Any,
            tiling: plan::tiling(&a, &b, F64, 4),
            a,
            b,
            element: F64,
            stack: 1,
            batch: None,
            guard: None,
            share: None,
        }
    }

    pub fn header(&mut self, job: JobId) -> JobHeader {
        let mut header = self.honest_header(job);
        let number = self.number();
        match self.pick(14) {
            0 => header.a.rows = number,
            1 => header.b.cols = number,
            2 => header.tiling.rows = number,
            3 => header.tiling.tile_rows = number,
            4 => header.tiling.tile_cols = number,
            5 => {
                header.tiling = Tiling {
                    tile_rows: 1,
                    tile_cols: 1,
                    ..header.tiling
                }
            }
            6 => header.a.blocks.clear(),
            7 => {
                header.element = ElementType {
                    dtype: Dtype::Int,
                    limbs: number as u16,
                }
            }
            8 => {
                // Equal blocks have equal hashes, in both factors.
                let same = BlockId([9; 32]);
                header.a.blocks.fill(same);
                header.b.blocks.fill(same);
            }
            _ => {}
        }
        header
    }

    pub fn message(&mut self, device: usize) -> Message {
        let job = self.one(&self.jobs.clone());
        let lease = self.one(&self.leases.clone());
        let operand = self.one(&[Operand::A, Operand::B]);
        let block = self.number() as u32;
        let tile = self.number() as u32;
        let epoch = Epoch {
            counter: 1,
            device: id(device),
        };
        let hello = Hello {
            version: VERSION + u32::from(self.pick(20) == 0),
            mesh: self.one(&["m", "m", "m", "m", "x"]).to_owned(),
            record: self.record(device),
            attach: self.pick(2) == 0,
        };
        let granted = self.grants.iter().rev().find(|(to, ..)| *to == device);
        if let Some(&(_, job, grant)) = granted.filter(|_| self.now.is_multiple_of(3)) {
            self.grants.retain(|(_, _, other)| *other != grant);
            return Message::Result {
                job,
                epoch: Epoch {
                    counter: 1,
                    device: id(0),
                },
                lease: grant.lease,
                tile: grant.tile,
                work: Work::default(),
            };
        }
        if device < 3 && self.pick(3) == 0 || self.pick(40) == 0 {
            return self.word_of_replication(device);
        }
        // What makes no sense at all ends the link, so it is rare.
        let kind = match self.pick(8) {
            0 => self.pick(20),
            1..4 => self.one(&[6, 7, 8, 9, 10]),
            _ => 9 + self.pick(11),
        };
        match kind {
            0 | 1 => Message::Hello(hello),
            2 | 3 => Message::Welcome(hello),
            4 => Message::Refuse {
                reason: self.one(&[Refusal::DuplicateId, Refusal::DuplicateLink, Refusal::Full]),
                text: String::new(),
            },
            5 => self.one(&[0, 1, 2]).pipe(|n| match n {
                0 => Message::Bye,
                1 => Message::Ping {
                    nonce: self.number(),
                    padding: vec![0; self.pick(3) * 40_000],
                },
                _ => Message::Pong { nonce: 1 },
            }),
            6 => {
                let count = self.pick(4);
                let devices = (0..count).map(|_| {
                    let device = self.pick(DEVICES);
                    self.record(device)
                });
                Message::Gossip {
                    devices: devices.collect(),
                }
            }
            7 => Message::Jobs {
                jobs: vec![self.status(job, device)],
            },
            8 => Message::Record(self.record(device)),
            9 => Message::Open {
                job,
                epoch,
                class: self.one(&[KernelClass::Any, KernelClass::Fused]),
                addresses: vec![format!("n{device}:8080")],
            },
            10 => Message::Closed { job },
            11 | 12 => Message::Pull {
                job,
                leases: self.number() as u32,
                header: self.pick(2) == 0,
            },
            13 => Message::Job(Box::new(self.header(job))),
            14 => {
                let count = self.pick(5);
                let grants = (0..count).map(|_| Grant {
                    lease: LeaseId(self.number()),
                    tile: self.number() as u32,
                    lasts: Span(self.number()),
                });
                Message::Grants {
                    job,
                    epoch,
                    grants: grants.collect(),
                }
            }
            15 => Message::Return {
                job,
                leases: vec![lease, lease],
                failed: self.pick(2) == 0,
            },
            16 => Message::Fetch {
                job,
                operand,
                blocks: vec![block, block, 0],
                link: (self.pick(2) == 0).then(|| self.number()),
            },
            17 => Message::Block {
                job,
                operand,
                block,
            },
            18 => Message::Result {
                job,
                epoch,
                lease,
                tile,
                work: Work {
                    kernel: Span(self.number()),
                    transfer: Span(self.number()),
                    busy: Span(self.number()),
                },
            },
            _ => Message::Verdict {
                job,
                lease,
                tile,
                valid: true,
                accepted: false,
            },
        }
    }

    pub fn record(&mut self, device: usize) -> DeviceRecord {
        let mut record = record(device);
        if self.pick(4) > 0 {
            record.version = self.prng.below(9);
            record.slots = self.prng.below(4) as u32;
            record.via = (device >= 3 && self.pick(2) == 0).then(|| id(device - 2));
            return record;
        }
        record.incarnation = self.one(&[1, 1, 1, 2, u64::MAX]);
        record.version = self.number();
        record.slots = self.number() as u32;
        record.mflops = self.one(&[0.0, 1.0, 1e300, f64::NAN, -1.0, f64::INFINITY]);
        record.kind = self.one(&[record.kind, record.kind, DeviceKind::Native]);
        let via = self.pick(DEVICES);
        record.via = self.one(&[None, None, Some(id(via))]);
        record.state = self.one(&[
            DeviceState::Ready,
            DeviceState::Busy,
            DeviceState::Paused,
            DeviceState::Lost,
        ]);
        record
    }

    pub fn status(&mut self, job: JobId, device: usize) -> JobStatus {
        JobStatus {
            job,
            name: String::new(),
            state: self.one(&[JobState::Running, JobState::Done]),
            rows: self.number(),
            inner: self.number(),
            cols: self.number(),
            dtype: Dtype::F64,
            mode: Mode::Plain,
            sharing: None,
            tiles_total: self.number(),
            tiles_done: self.number(),
            tiles_safe: 0,
            tiles_recomputed: 0,
            coordinator: id(device),
            epoch: 1,
            safe_copies: 0,
            submitted: WallTime(self.number()),
            seconds: self.one(&[0.0, 1.0, f64::NAN]),
            predicted_seconds: None,
            plan: vec![
                Planned {
                    device: id(device),
                    name: "n".repeat(self.one(&[1, 257])),
                    tiles: self.number(),
                    bytes: self.number(),
                    seconds: self.one(&[0.0, 1.0, f64::INFINITY]),
                    limit: Limit::Link,
                };
                self.one(&[0, 1, 33])
            ],
            bytes_sent: self.number(),
            bytes_floor: self.number(),
            bytes_replicated: 0,
            result: None,
            error: None,
            contributions: Vec::new(),
            backups: Vec::new(),
            timeline: Vec::new(),
            part: None,
            products: None,
            failed: None,
        }
    }
}

trait Pipe: Sized {
    fn pipe<T>(self, then: impl FnOnce(Self) -> T) -> T {
        then(self)
    }
}

impl Pipe for i32 {}
