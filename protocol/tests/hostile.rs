//! Peers that say anything at any time: an engine may drop them, and must not panic, spin or grow
//! without a bound.

use std::collections::BTreeMap;

use gemmesh_protocol::engine::Engine;
use gemmesh_protocol::id::{BlockId, DeviceId, Epoch, JobId, LeaseId};
use gemmesh_protocol::io::{Checked, Config, Door, Input, LinkId, Output};
use gemmesh_protocol::job::{JobHeader, KernelClass, Operand};
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::message::{
    DeviceRecord, Grant, Header, Hello, Message, Refusal, VERSION, Work,
};
use gemmesh_protocol::page::PageEngine;
use gemmesh_protocol::plan;
use gemmesh_protocol::prng::Prng;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::status::{DeviceKind, DeviceState, JobState, JobStatus, Mode};
use gemmesh_protocol::tile::Tiling;
use gemmesh_protocol::time::{Instant, Span, WallTime};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_peer_can_make_a_node_panic(seed in any::<u64>()) {
        let mut run = Run::new(seed);
        let config = run.config(0, DeviceKind::Native);
        let mut engine = Engine::new(config, Instant(run.now));
        run.drive(&mut |input, now, outputs| {
            engine.handle(input, now);
            while let Some(output) = engine.poll_output() {
                outputs.push(output);
            }
            let _ = engine.poll_timeout();
            let _ = (engine.jobs(now), engine.devices());
        });
    }

    #[test]
    fn no_node_can_make_a_page_panic(seed in any::<u64>()) {
        let mut run = Run::new(seed);
        let config = run.config(0, DeviceKind::Browser);
        let mut page = PageEngine::new(config, "n0:8080".to_owned(), Instant(run.now));
        run.drive(&mut |input, now, outputs| {
            page.handle(input, now);
            while let Some(output) = page.poll_output() {
                outputs.push(output);
            }
            let _ = page.poll_timeout();
            let _ = (page.jobs(), page.devices(), page.contribution());
        });
    }
}

/// The shell and everybody else, seen from one engine.
struct Run {
    prng: Prng,
    now: u64,
    links: Vec<(LinkId, usize)>,
    next_link: u64,
    jobs: Vec<JobId>,
    leases: Vec<LeaseId>,
    /// What the engine granted to whom.
    grants: Vec<(usize, JobId, Grant)>,
    /// Honest frames to come first, so that the handshake is often passed.
    polite: Vec<Input<Payload>>,
    headers: BTreeMap<JobId, JobHeader>,
    outputs_seen: usize,
}

/// Devices in play; the first is the engine itself.
const DEVICES: usize = 5;
const STEPS: usize = 120;

type Handle<'a> = &'a mut dyn FnMut(Input<Payload>, Instant, &mut Vec<Output<Payload>>);

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            prng: Prng::new(seed),
            now: 1_000_000,
            links: Vec::new(),
            next_link: 0,
            jobs: vec![JobId([1; 16]), JobId([2; 16])],
            leases: vec![LeaseId(0), LeaseId(u64::MAX)],
            grants: Vec::new(),
            polite: Vec::new(),
            headers: BTreeMap::new(),
            outputs_seen: 0,
        }
    }

    fn config(&mut self, device: usize, kind: DeviceKind) -> Config {
        let mut record = record(device);
        record.kind = kind;
        Config {
            record,
            mesh: "m".to_owned(),
            seed: self.prng.next_u64(),
            cache_bytes: 1 << 20,
            devices_max: 4,
            backups: 3,
        }
    }

    fn drive(&mut self, handle: Handle<'_>) {
        let mut outputs = Vec::new();
        handle(Input::Tick, Instant(self.now), &mut outputs);
        for _ in 0..STEPS {
            self.now += [0, 10, 1_001, 1_000, 300_000, 300_001, 6_000_000][self.pick(7)];
            let mut inputs: Vec<Input<Payload>> = outputs
                .drain(..)
                .flat_map(|output| self.answer(output))
                .collect();
            inputs.append(&mut self.polite);
            inputs.push(self.input());
            inputs.append(&mut self.polite);
            for input in inputs {
                handle(input, Instant(self.now), &mut outputs);
            }
            // One input causes few outputs: nothing multiplies.
            assert!(outputs.len() < 2_000, "{} outputs", outputs.len());
            self.outputs_seen += outputs.len();
        }
    }

    fn pick(&mut self, below: usize) -> usize {
        self.prng.below(below as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.pick(of.len())]
    }

    fn number(&mut self) -> u64 {
        let small = self.prng.below(6);
        self.one(&[
            small,
            small,
            small,
            1 << 20,
            u64::from(u32::MAX),
            u64::MAX / 2,
            u64::MAX,
        ])
    }

    /// What an honest shell answers.
    fn answer(&mut self, output: Output<Payload>) -> Vec<Input<Payload>> {
        match output {
            Output::Send { header, .. } => {
                if let Message::Grants { job, grants, .. } = header.body {
                    self.leases.extend(grants.iter().map(|grant| grant.lease));
                    let to = usize::from(header.to.0[0]) - 1;
                    self.grants
                        .extend(grants.into_iter().map(|grant| (to, job, grant)));
                }
                Vec::new()
            }
            Output::Close { link, .. } => {
                self.links.retain(|(id, _)| *id != link);
                vec![Input::LinkDown { link }]
            }
            Output::Dial { address } => {
                if self.pick(3) == 0 {
                    return vec![Input::DialFailed { address }];
                }
                let device = self.pick(DEVICES);
                vec![self.link_up(device, Some(address))]
            }
            Output::Keep {
                job,
                operand,
                block,
                ..
            } if self.pick(4) == 0 => vec![Input::BlockBad {
                job,
                operand,
                block,
            }],
            Output::Keep {
                job,
                operand,
                block,
                ..
            } => vec![Input::BlockReady {
                job,
                operand,
                block,
            }],
            Output::Load {
                job,
                operand,
                blocks,
            } => {
                let ready = |block| Input::BlockReady {
                    job,
                    operand,
                    block,
                };
                blocks.into_iter().map(ready).collect()
            }
            Output::Compute(task) => {
                let bytes = task.shape.rows * task.shape.cols * task.shape.c.bytes();
                let result = task.last.then(|| (payload(bytes), bytes));
                vec![Input::SlabDone {
                    slot: task.slot,
                    kernel: Span(1_000),
                    result,
                }]
            }
            Output::Verify {
                job,
                tile,
                lease,
                payload,
            } => vec![Input::Verified {
                job,
                tile,
                lease,
                checked: self.one(&[
                    Checked::Right,
                    Checked::Wrong,
                    Checked::Replaced(Work::default()),
                ]),
                payload,
            }],
            Output::Persist { job, done, .. } => vec![Input::Persisted {
                job,
                tile: done.tile,
                digest: self.one(&[Some(BlockId([4; 32])), None]),
            }],
            Output::Record {
                job,
                epoch,
                sequence,
                ..
            } => vec![Input::Recorded {
                job,
                epoch,
                sequence,
            }],
            Output::Claim { header, epoch } => vec![Input::Claimed {
                job: header.job,
                epoch,
            }],
            Output::CopyMatrix { job, matrix, .. } => vec![Input::MatrixCopied {
                job,
                matrix,
                there: self.one(&[true, false]),
            }],
            Output::FetchTile { job, tile, from } => vec![Input::TileFetched {
                job,
                tile,
                from,
                payload: self.one(&[Some((payload(8), 8)), None]),
            }],
            Output::Finish { job } => vec![Input::Finished {
                job,
                result: gemmesh_protocol::id::MatrixId([3; 32]),
            }],
            _ => Vec::new(),
        }
    }

    fn link_up(&mut self, device: usize, dialled: Option<String>) -> Input<Payload> {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        self.links.push((link, device));
        if self.pick(5) > 0 {
            let hello = Hello {
                version: VERSION,
                mesh: "m".to_owned(),
                record: record(device),
                attach: self.pick(2) == 0,
            };
            let body = match dialled {
                None => Message::Hello(hello),
                Some(_) => Message::Welcome(hello),
            };
            let header = Header {
                from: id(device),
                to: id(0),
                body,
            };
            self.polite.push(Input::Frame {
                link,
                header,
                payload: payload(0),
                payload_bytes: 0,
            });
        }
        let door = match record(device).kind {
            DeviceKind::Native => Door::Mesh,
            DeviceKind::Browser => Door::Page,
        };
        Input::LinkUp {
            link,
            door,
            dialled,
        }
    }

    fn input(&mut self) -> Input<Payload> {
        match self.pick(24) {
            0 => {
                let device = self.pick(DEVICES);
                self.link_up(device, None)
            }
            1 if !self.links.is_empty() => {
                let at = self.pick(self.links.len());
                let (link, _) = self.links.remove(at);
                Input::LinkDown { link }
            }
            2 => {
                let job = self.one(&self.jobs.clone());
                let header = self.honest_header(job);
                self.headers.insert(job, header.clone());
                let taken = Box::new(Taken {
                    header,
                    submitted: WallTime(0),
                    token: BlockId([0; 32]),
                });
                Input::Submit { taken }
            }
            3 => Input::Configure {
                name: None,
                slots: Some(self.pick(4) as u32),
                paused: self.one(&[None, Some(true), Some(false), Some(false)]),
                mflops: None,
            },
            4 => Input::Tick,
            5 => Input::Hint {
                address: format!("n{}:8080", self.pick(DEVICES)),
                device: None,
                keep: self.pick(2) == 0,
            },
            _ if self.links.is_empty() => {
                let device = self.pick(DEVICES);
                self.link_up(device, None)
            }
            _ => {
                let (link, device) = self.one(&self.links.clone());
                let from = if self.pick(30) == 0 {
                    self.pick(DEVICES)
                } else {
                    device
                };
                let to = if self.pick(30) == 0 {
                    self.pick(DEVICES)
                } else {
                    0
                };
                let body = self.message(device);
                let bytes = match &body {
                    Message::Result { job, tile, .. } => self.result_bytes(*job, *tile),
                    _ => 1,
                };
                Input::Frame {
                    link,
                    header: Header {
                        from: id(from),
                        to: id(to),
                        body,
                    },
                    payload: payload(bytes),
                    payload_bytes: bytes,
                }
            }
        }
    }

    fn result_bytes(&mut self, job: JobId, tile: u32) -> u64 {
        let header = self.headers.get(&job);
        let header = header.filter(|header| u64::from(tile) < header.tiling.len());
        let right = header.map_or(1, |header| header.tile_bytes(tile));
        self.one(&[right, right, right, 7])
    }

    fn honest_header(&mut self, job: JobId) -> JobHeader {
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
        }
    }

    fn header(&mut self, job: JobId) -> JobHeader {
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

    fn message(&mut self, device: usize) -> Message {
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
                1 => Message::Ping { nonce: 1 },
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

    fn record(&mut self, device: usize) -> DeviceRecord {
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

    fn status(&mut self, job: JobId, device: usize) -> JobStatus {
        JobStatus {
            job,
            name: String::new(),
            state: self.one(&[JobState::Running, JobState::Done]),
            rows: self.number(),
            inner: self.number(),
            cols: self.number(),
            dtype: Dtype::F64,
            mode: Mode::Plain,
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
            bytes_sent: self.number(),
            bytes_floor: self.number(),
            bytes_replicated: 0,
            result: None,
            error: None,
            contributions: Vec::new(),
            backups: Vec::new(),
            timeline: Vec::new(),
        }
    }
}

trait Pipe: Sized {
    fn pipe<T>(self, then: impl FnOnce(Self) -> T) -> T {
        then(self)
    }
}

impl Pipe for i32 {}

fn id(device: usize) -> DeviceId {
    DeviceId([device as u8 + 1; 32])
}

/// Devices 3 and 4 are pages.
fn record(device: usize) -> DeviceRecord {
    let page = device >= 3;
    DeviceRecord {
        device: id(device),
        incarnation: 1,
        version: 1,
        name: format!("n{device}"),
        kind: if page {
            DeviceKind::Browser
        } else {
            DeviceKind::Native
        },
        addresses: if page {
            Vec::new()
        } else {
            vec![format!("n{device}:8080")]
        },
        via: None,
        slots: 2,
        classes: vec![KernelClass::Any],
        mflops: 1_000.0,
        state: DeviceState::Ready,
        since: WallTime(0),
        user_agent: String::new(),
    }
}

/// Stands for bytes: how many.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Payload {
    len: u64,
}

fn payload(len: u64) -> Payload {
    Payload { len }
}

const F64: ElementType = ElementType {
    dtype: Dtype::F64,
    limbs: 1,
};

fn manifest(name: &str, rows: u64, cols: u64) -> Manifest {
    let count = Grid::new(rows, cols, F64).len();
    let block = |n| BlockId::of(format!("{name} {n}").as_bytes());
    Manifest {
        element: F64,
        bits: 0,
        rows,
        cols,
        blocks: (0..count).map(block).collect(),
    }
}
