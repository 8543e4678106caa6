//! One node, and what the others say to it.

use gemmesh_protocol::engine::Engine;
use gemmesh_protocol::id::DeviceId;
use gemmesh_protocol::io::{Config, Door, Input, LinkId, Output, WorkerMemory};
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::message::{DeviceRecord, Header, Hello, Message, VERSION};
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceEntry, DeviceKind, DeviceState};
use gemmesh_protocol::time::{Instant, WallTime};

pub const ME: u8 = 5;
pub const HONEST: u8 = 1;
pub const LIAR: u8 = 9;
pub const NODE: DeviceKind = DeviceKind::Native;
pub const PAGE: DeviceKind = DeviceKind::Browser;
pub const DEVICES_MAX: usize = 1_024;

pub struct Node {
    pub engine: Engine<()>,
    pub me: u8,
    pub now: Instant,
}

impl Node {
    pub fn new(me: u8) -> Self {
        let config = Config {
            record: record(me, NODE),
            mesh: "m".to_owned(),
            seed: 7,
            memory: WorkerMemory::of_cache(1 << 20),
            devices_max: DEVICES_MAX,
            backups: 3,
        };
        let now = Instant(1_000_000);
        let engine = Engine::new(config, now);
        Self { engine, me, now }
    }

    /// The disk is fast: what is recorded is durable at once.
    pub fn input(&mut self, input: Input<()>) -> Vec<Output<()>> {
        self.engine.handle(input, self.now);
        let mut outputs = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            if let Output::Record {
                job,
                epoch,
                sequence,
                ..
            } = output
            {
                let recorded = Input::Recorded {
                    job,
                    epoch,
                    sequence,
                };
                self.engine.handle(recorded, self.now);
            }
            outputs.push(output);
        }
        outputs
    }

    pub fn link_up(&mut self, link: u64, door: Door) -> Vec<Output<()>> {
        let (link, dialled) = (LinkId(link), None);
        self.input(Input::LinkUp {
            link,
            door,
            dialled,
        })
    }

    pub fn join(
        &mut self,
        link: u64,
        device: u8,
        kind: DeviceKind,
        attach: bool,
    ) -> Vec<Output<()>> {
        let door = match kind {
            DeviceKind::Native => Door::Mesh,
            DeviceKind::Browser => Door::Page,
        };
        let mut said = self.link_up(link, door);
        let hello = hello(record(device, kind), attach);
        said.extend(self.frame(link, device, Message::Hello(hello)));
        said
    }

    pub fn frame(&mut self, link: u64, from: u8, body: Message) -> Vec<Output<()>> {
        let (from, to) = (DeviceId([from; 32]), DeviceId([self.me; 32]));
        self.input(Input::Frame {
            link: LinkId(link),
            header: Header { from, to, body },
            payload: (),
            payload_bytes: 0,
        })
    }

    pub fn gossip(&mut self, link: u64, from: u8, devices: Vec<DeviceRecord>) -> Vec<Output<()>> {
        self.frame(link, from, Message::Gossip { devices })
    }

    pub fn entry(&self, device: u8) -> Option<DeviceEntry> {
        let id = DeviceId([device; 32]);
        let mut devices = self.engine.devices().into_iter();
        devices.find(|entry| entry.device == id)
    }
}

pub fn hello(record: DeviceRecord, attach: bool) -> Hello {
    Hello {
        version: VERSION,
        mesh: "m".to_owned(),
        record,
        attach,
    }
}

pub fn record(device: u8, kind: DeviceKind) -> DeviceRecord {
    DeviceRecord {
        device: DeviceId([device; 32]),
        incarnation: 1,
        version: 1,
        name: format!("n{device}"),
        kind,
        addresses: match kind {
            DeviceKind::Native => vec![format!("192.0.2.{device}:80")],
            DeviceKind::Browser => Vec::new(),
        },
        via: None,
        slots: 2,
        classes: vec![KernelClass::Any],
        mflops: 1_000.0,
        state: DeviceState::Ready,
        since: WallTime(0),
        user_agent: String::new(),
        stacks: true,
        residues: true,
        limits: TileLimits::default(),
    }
}
