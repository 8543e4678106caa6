//! The page's side of the protocol as data in and data out: frames, timer ticks and results of
//! slabs go in, [`Action`]s come out. Bulk bytes stay with the caller: a payload is a number here,
//! given back by [`Action::Release`] when nothing needs it any more.

use std::cell::RefCell;
use std::rc::Rc;

use gemmesh_protocol::codec::{self, FrameError};
use gemmesh_protocol::id::{BlockId, DeviceId};
use gemmesh_protocol::io::{Config, Door, Input, LinkId, Output, SlabTask, WorkerMemory};
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::matrix::Part;
use gemmesh_protocol::message::{DeviceRecord, Header, Message};
use gemmesh_protocol::page::{PageContribution, PageEngine};
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceEntry, DeviceKind, DeviceState, JobStatus};
use gemmesh_protocol::time::{Instant, Span, WallTime};
use serde::Serialize;

use crate::task::TaskSpec;

/// The most devices that a page remembers.
const DEVICES_MAX: usize = 2_000;

/// What a page says of itself when it starts.
#[derive(Debug, Clone)]
pub struct Start {
    /// The node that served the page, `HOST:PORT`.
    pub node: String,
    /// Other nodes, from an earlier session of the page: [`Session::nodes`].
    pub others: Vec<String>,
    /// Its mesh.
    pub mesh: String,
    /// Unix milliseconds when the page was opened; the same for all sessions of one page, so that
    /// a node knows its return from a second page with the same id.
    pub time: u64,
    /// Its name.
    pub name: String,
    /// Compute workers.
    pub slots: u32,
    /// Measured kernel speed, all compute workers together.
    pub mflops: f64,
    /// The kernel rounds once for each multiply-add.
    pub fuses: bool,
    /// The browser's user agent.
    pub user_agent: String,
    /// Bytes of blocks that the page may keep.
    pub cache_bytes: u64,
    /// The person paused this device.
    pub paused: bool,
}

/// Something for the page to do, in order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Action {
    /// Open a WebSocket to `ws://ADDRESS/ws`, then `link_up` or `dial_failed`.
    Dial {
        /// `HOST:PORT`.
        address: String,
    },
    /// Send the header's bytes, directly followed by the payload's if there is one, as one message.
    Send {
        /// Where.
        link: u64,
        /// The frame up to its payload.
        #[serde(skip)]
        header: Vec<u8>,
        /// The payload.
        payload: Option<u32>,
    },
    /// Close a link.
    Close {
        /// Which.
        link: u64,
        /// Why, when it is the other side's fault.
        reason: Option<String>,
    },
    /// The frame just given has a payload, known by this number from here on.
    Payload {
        /// Its number.
        payload: u32,
        /// Where it starts in the frame; it reaches to the end.
        offset: usize,
    },
    /// The payload is a block whose hash was checked: keep it in the cache.
    Keep {
        /// Its number.
        payload: u32,
        /// The block's id.
        block: String,
    },
    /// Drop a block from the cache.
    Evict {
        /// The block's id.
        block: String,
    },
    /// Nothing needs this payload any more.
    Release {
        /// Its number.
        payload: u32,
    },
    /// Compute a slab.
    Compute(Box<Slab>),
    /// Stop what a slot computes.
    Abort {
        /// Which.
        slot: u32,
    },
    /// The status of a job changed.
    Job(Box<JobStatus>),
    /// The devices of the mesh changed.
    Devices,
}

/// A slab for a compute worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slab {
    /// The slot.
    pub slot: u32,
    /// The tile's place in the job's tiling.
    pub tile: u32,
    /// The job.
    pub job: String,
    /// The tile.
    pub spec: TaskSpec,
    /// The first slab of the tile.
    pub first: bool,
    /// The last slab of the tile.
    pub last: bool,
    /// Inner indices in this slab.
    pub depth: u64,
    /// Parts of A.
    pub a: Vec<SlabPart>,
    /// Parts of B.
    pub b: Vec<SlabPart>,
}

/// A part of a block that goes into a slab.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlabPart {
    /// The block's id: its key in the cache.
    pub block: String,
    /// Where its elements go.
    pub part: Part,
}

/// A payload that lives outside; the last clone to go reports its number as released.
#[derive(Debug, Clone)]
struct Payload {
    token: Rc<Token>,
    bytes: usize,
    /// The hash of a block's bytes.
    block: Option<BlockId>,
}

#[derive(Debug)]
struct Token {
    number: u32,
    released: Rc<RefCell<Vec<u32>>>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.released.borrow_mut().push(self.number);
    }
}

/// The protocol of one page.
///
/// Each call but the constructor ends with [`Session::actions`]: drain them, in order, before the
/// next call.
#[derive(Debug)]
pub struct Session {
    engine: PageEngine<Option<Payload>>,
    released: Rc<RefCell<Vec<u32>>>,
    payloads: u32,
    actions: Vec<Action>,
}

impl Session {
    /// A page whose id is the BLAKE3 hash of 32 random bytes.
    pub fn new(seed: &[u8; 32], start: Start, now: Instant) -> Self {
        let id = DeviceId(*blake3::hash(seed).as_bytes());
        let mut classes = vec![KernelClass::Any, KernelClass::Separate, KernelClass::Exact];
        if start.fuses {
            classes.push(KernelClass::Fused);
        }
        let record = DeviceRecord {
            device: id,
            incarnation: start.time,
            version: 1,
            name: start.name,
            kind: DeviceKind::Browser,
            addresses: Vec::new(),
            via: None,
            slots: start.slots,
            classes,
            mflops: start.mflops,
            state: if start.paused {
                DeviceState::Paused
            } else {
                DeviceState::Ready
            },
            since: WallTime(start.time),
            user_agent: start.user_agent,
            stacks: true,
            residues: true,
            limits: TileLimits::default(),
        };
        let config = Config {
            record,
            mesh: start.mesh,
            seed: u64::from_le_bytes(seed[..8].try_into().expect("eight bytes")) ^ start.time,
            memory: WorkerMemory::of_cache(start.cache_bytes),
            devices_max: DEVICES_MAX,
            backups: 0,
        };
        let mut session = Self {
            engine: PageEngine::new(config, start.node, now),
            released: Rc::default(),
            payloads: 0,
            actions: Vec::new(),
        };
        session.drain(now);
        for address in start.others {
            let (device, keep) = (None, false);
            let hint = Input::Hint {
                address,
                device,
                keep,
            };
            session.handle(hint, now);
        }
        session
    }

    /// This device's id.
    pub fn device(&self) -> DeviceId {
        self.engine.record().device
    }

    /// A WebSocket that was dialled is open.
    pub fn link_up(&mut self, link: u64, address: String, now: Instant) {
        let input = Input::LinkUp {
            link: LinkId(link),
            door: Door::Page,
            dialled: Some(address),
        };
        self.handle(input, now);
    }

    /// A WebSocket is gone.
    pub fn link_down(&mut self, link: u64, now: Instant) {
        self.handle(Input::LinkDown { link: LinkId(link) }, now);
    }

    /// A WebSocket could not be opened.
    pub fn dial_failed(&mut self, address: String, now: Instant) {
        self.handle(Input::DialFailed { address }, now);
    }

    /// A binary message arrived. Cost: one pass over it, to hash a block.
    ///
    /// # Errors
    /// [`FrameError`]: the other side does not speak this protocol; close the link.
    pub fn frame(&mut self, link: u64, bytes: &[u8], now: Instant) -> Result<(), FrameError> {
        let (header, offset) = codec::decode(bytes)?;
        let bulk = &bytes[offset..];
        let payload = (!bulk.is_empty()).then(|| {
            let is_block = matches!(header.body, Message::Block { .. });
            self.payload(bulk.len(), is_block.then(|| BlockId::of(bulk)))
        });
        if let Some(payload) = &payload {
            self.actions.push(Action::Payload {
                payload: payload.token.number,
                offset,
            });
        }
        let input = Input::Frame {
            link: LinkId(link),
            header,
            payload,
            payload_bytes: bulk.len() as u64,
        };
        self.handle(input, now);
        Ok(())
    }

    /// A slot finished a slab in `kernel`. For the last slab of a tile, C is `bytes` long and the
    /// returned number stands for it: the caller keeps C under that number until its release.
    pub fn slab_done(
        &mut self,
        slot: u32,
        kernel: Span,
        bytes: Option<usize>,
        now: Instant,
    ) -> Option<u32> {
        let payload = bytes.map(|bytes| self.payload(bytes, None));
        let number = payload.as_ref().map(|payload| payload.token.number);
        let input = Input::SlabDone {
            slot,
            kernel,
            result: payload.map(|payload| {
                let bytes = payload.bytes as u64;
                (Some(payload), bytes)
            }),
        };
        self.handle(input, now);
        number
    }

    /// A slot could not compute.
    pub fn slot_failed(&mut self, slot: u32, now: Instant) {
        self.handle(Input::SlotFailed { slot }, now);
    }

    /// The person changed something.
    pub fn configure(
        &mut self,
        name: Option<String>,
        slots: Option<u32>,
        paused: Option<bool>,
        now: Instant,
    ) {
        let input = Input::Configure {
            name,
            slots,
            paused,
            mflops: None,
        };
        self.handle(input, now);
    }

    /// The page goes: leases back, goodbye.
    pub fn leave(&mut self, now: Instant) {
        self.handle(Input::Leave, now);
    }

    /// Time passed.
    pub fn tick(&mut self, now: Instant) {
        self.handle(Input::Tick, now);
    }

    /// When to [`Session::tick`] if nothing happens before.
    pub fn timeout(&self) -> Option<Instant> {
        self.engine.poll_timeout()
    }

    /// What to do next, in order.
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// What this page has computed and how it stands with its node.
    pub fn contribution(&self) -> PageContribution {
        self.engine.contribution()
    }

    /// When the page tries again to reach a node, while it waits for that.
    pub fn retry(&self) -> Option<Instant> {
        self.engine.retry()
    }

    /// Addresses of nodes beside the one that served the page, for a later session.
    pub fn nodes(&self) -> Vec<String> {
        self.engine.nodes().map(str::to_owned).collect()
    }

    /// The devices of the mesh in the form of `GET /api/nodes`.
    pub fn devices(&self) -> Vec<DeviceEntry> {
        let records = self.engine.devices();
        let address = |record: &DeviceRecord| {
            let node = match record.via {
                Some(via) => records.iter().find(|other| other.device == via),
                None => Some(record),
            };
            node.and_then(|node| node.addresses.first().cloned())
                .unwrap_or_default()
        };
        let entry = |record: &DeviceRecord| DeviceEntry {
            device: record.device,
            name: record.name.clone(),
            kind: record.kind,
            address: address(record),
            slots: record.slots,
            mflops: record.mflops,
            state: record.state,
            since: record.since,
            tile_bytes: record.limits.tile_bytes,
        };
        records.iter().map(entry).collect()
    }

    fn payload(&mut self, bytes: usize, block: Option<BlockId>) -> Payload {
        self.payloads = self.payloads.wrapping_add(1);
        Payload {
            token: Rc::new(Token {
                number: self.payloads,
                released: Rc::clone(&self.released),
            }),
            bytes,
            block,
        }
    }

    fn handle(&mut self, input: Input<Option<Payload>>, now: Instant) {
        self.engine.handle(input, now);
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.engine.poll_output() {
            self.output(output, now);
        }
        let released = std::mem::take(&mut *self.released.borrow_mut());
        let release = |payload| Action::Release { payload };
        self.actions.extend(released.into_iter().map(release));
    }

    fn output(&mut self, output: Output<Option<Payload>>, now: Instant) {
        match output {
            Output::Send {
                link,
                header,
                payload,
            } => self.send(link, &header, payload.flatten()),
            Output::Close { link, reason } => self.actions.push(Action::Close {
                link: link.0,
                reason: reason.map(|reason| format!("{reason:?}")),
            }),
            Output::Dial { address } => self.actions.push(Action::Dial { address }),
            Output::Keep {
                job,
                operand,
                block,
                id,
                payload,
            } => {
                let valid = payload.filter(|payload| payload.block == Some(id));
                let answer = match valid {
                    Some(payload) => {
                        self.actions.push(Action::Keep {
                            payload: payload.token.number,
                            block: id.to_string(),
                        });
                        Input::BlockReady {
                            job,
                            operand,
                            block,
                        }
                    }
                    None => Input::BlockBad {
                        job,
                        operand,
                        block,
                    },
                };
                // The engine's remaining outputs follow in the caller's loop.
                self.engine.handle(answer, now);
            }
            Output::Evict { id } => self.actions.push(Action::Evict {
                block: id.to_string(),
            }),
            Output::Compute(task) => self.actions.push(Action::Compute(Box::new(slab(task)))),
            Output::Abort { slot } => self.actions.push(Action::Abort { slot }),
            Output::JobChanged { job } => {
                let status = self.engine.job(job);
                self.actions
                    .extend(status.map(|status| Action::Job(Box::new(status))));
            }
            Output::DevicesChanged => self.actions.push(Action::Devices),
            // A page coordinates nothing and stores nothing: these do not come.
            Output::Serve { .. }
            | Output::Encode { .. }
            | Output::Decode { .. }
            | Output::Load { .. }
            | Output::Verify { .. }
            | Output::Persist { .. }
            | Output::Record { .. }
            | Output::Claim { .. }
            | Output::Backups { .. }
            | Output::Moment { .. }
            | Output::CopyMatrix { .. }
            | Output::FetchTile { .. }
            | Output::Drop { .. }
            | Output::Finish { .. }
            | Output::Ended { .. }
            | Output::Quarantined { .. }
            | Output::Joined { .. } => {}
        }
    }

    fn send(&mut self, link: LinkId, header: &Header, payload: Option<Payload>) {
        let bytes = payload.as_ref().map_or(0, |payload| payload.bytes);
        self.actions.push(Action::Send {
            link: link.0,
            header: codec::encode_header(header, bytes),
            payload: payload.map(|payload| payload.token.number),
        });
    }
}

fn slab(task: SlabTask) -> Slab {
    let parts = |parts: Vec<(BlockId, Part)>| {
        let part = |(block, part): (BlockId, Part)| SlabPart {
            block: block.to_string(),
            part,
        };
        parts.into_iter().map(part).collect()
    };
    Slab {
        slot: task.slot,
        tile: task.grant.tile,
        job: task.job.to_string(),
        spec: TaskSpec::new(task.class, &task.shape),
        first: task.first,
        last: task.last,
        depth: task.to - task.from,
        a: parts(task.a),
        b: parts(task.b),
    }
}
