//! The shell and everybody else, seen from one engine.

use std::collections::BTreeMap;

use gemmesh_protocol::id::{BlockId, JobId, LeaseId, MatrixId};
use gemmesh_protocol::io::{Checked, Config, Door, Input, LinkId, Output, WorkerMemory};
use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::message::{Grant, Header, Hello, Message, VERSION, Work};
use gemmesh_protocol::prng::Prng;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::status::DeviceKind;
use gemmesh_protocol::time::{Instant, Span, WallTime};

use crate::cast::{DEVICES, Payload, id, payload, record};

/// The shell and everybody else, seen from one engine.
pub struct Run {
    pub prng: Prng,
    pub now: u64,
    links: Vec<(LinkId, usize)>,
    next_link: u64,
    pub jobs: Vec<JobId>,
    pub leases: Vec<LeaseId>,
    /// What the engine granted to whom.
    pub grants: Vec<(usize, JobId, Grant)>,
    /// Honest frames to come first, so that the handshake is often passed.
    polite: Vec<Input<Payload>>,
    pub headers: BTreeMap<JobId, JobHeader>,
    outputs_seen: usize,
}

const STEPS: usize = 120;

type Handle<'a> = &'a mut dyn FnMut(Input<Payload>, Instant, &mut Vec<Output<Payload>>);

impl Run {
    pub fn new(seed: u64) -> Self {
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

    pub fn config(&mut self, device: usize, kind: DeviceKind) -> Config {
        let mut record = record(device);
        record.kind = kind;
        Config {
            record,
            mesh: "m".to_owned(),
            seed: self.prng.next_u64(),
            memory: WorkerMemory::of_cache(1 << 20),
            devices_max: 4,
            backups: 3,
        }
    }

    pub fn drive(&mut self, handle: Handle<'_>) {
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

    pub fn pick(&mut self, below: usize) -> usize {
        self.prng.below(below as u64) as usize
    }

    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.pick(of.len())]
    }

    pub fn number(&mut self) -> u64 {
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
                result: MatrixId([3; 32]),
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
}
