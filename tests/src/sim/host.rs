//! A device: its engine while it runs, its disk, its clocks, its slots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gemmesh_protocol::engine::Engine;
use gemmesh_protocol::id::{BlockId, DeviceId};
use gemmesh_protocol::io::{Input, LinkId, Output, SlabTask, WorkerMemory};
use gemmesh_protocol::page::PageEngine;
use gemmesh_protocol::status::DeviceKind;
use gemmesh_protocol::time::Instant;

use super::Event;
use super::clock::Clock;
use super::disk::Disk;
use super::payload::Payload;

/// How a device is.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its slots.
    pub slots: u32,
    /// What it says of its speed: all slots together.
    pub mflops: f64,
    /// How fast it is, of what it says.
    pub truth: f64,
    /// It returns wrong tiles.
    pub liar: bool,
    /// One of so many slabs fails (0: none).
    pub fails: u64,
    /// What its worker may hold.
    pub memory: WorkerMemory,
    /// Its mesh.
    pub mesh: &'static str,
    /// The id of this host instead of one of its own.
    pub twin: Option<usize>,
    /// The protocol version that it speaks, instead of the present one.
    pub version: Option<u32>,
    /// Nodes that are to back up its jobs.
    pub backups: usize,
    /// What all of its connections share, both ways together: bytes in a microsecond, in 64ths. Nothing when
    /// only paths limit them.
    pub port: Option<u64>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            slots: 2,
            mflops: 4_000.0,
            truth: 1.0,
            liar: false,
            fails: 0,
            memory: WorkerMemory::of_cache(64 << 20),
            mesh: "sim",
            twin: None,
            version: None,
            backups: 3,
            port: None,
        }
    }
}

/// What runs on a device.
#[derive(Debug)]
pub(super) enum Machine {
    Node(Box<Engine<Payload>>),
    Page(Box<PageEngine<Payload>>),
}

impl Machine {
    pub(super) fn handle(&mut self, input: Input<Payload>, now: Instant) {
        match self {
            Machine::Node(engine) => engine.handle(input, now),
            Machine::Page(page) => page.handle(input, now),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output<Payload>> {
        match self {
            Machine::Node(engine) => engine.poll_output(),
            Machine::Page(page) => page.poll_output(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Machine::Node(engine) => engine.poll_timeout(),
            Machine::Page(page) => page.poll_timeout(),
        }
    }
}

/// Whether a device does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    On,
    /// Its process stands still; its system goes on, so that nothing that arrives is lost.
    Paused,
    /// Its process is gone; its system refuses connections.
    Down,
    /// It is dark: nobody answers.
    Off,
}

/// A device of the simulation.
#[derive(Debug)]
pub struct Host {
    pub(super) machine: Machine,
    /// How it is.
    pub spec: Spec,
    /// A node or a page.
    pub kind: DeviceKind,
    /// Its id.
    pub device: DeviceId,
    /// Where it listens; empty for a page.
    pub address: String,
    /// The node that served a page.
    pub(super) home: Option<usize>,
    /// Its process's number: what was meant for an earlier one is void.
    pub incarnation: u32,
    /// Whether it runs.
    pub power: Power,
    /// When that last changed.
    pub power_since: u64,
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// How many times slower than it should be.
    pub slowness: u64,
    pub(super) cache: BTreeSet<BlockId>,
    /// Generation and task of what each slot computes.
    pub(super) slots: BTreeMap<u32, (u64, SlabTask)>,
    pub(super) started: BTreeMap<u32, SlabTask>,
    /// Open ends of connections.
    pub(super) links: BTreeMap<LinkId, (usize, usize)>,
    /// When its port has carried what was given to it.
    pub(super) port_free: u64,
    /// Bytes that went through it.
    pub(super) port_bytes: u64,
    /// When its engine wants to be woken.
    pub(super) wake: Option<u64>,
    /// What came while it was paused.
    pub(super) backlog: VecDeque<Event>,
    /// Addresses that it was told to keep dialling; known again after a restart.
    pub(super) peers: Vec<String>,
}

impl Host {
    /// Its process runs now.
    pub fn is_on(&self) -> bool {
        self.power == Power::On
    }

    /// Its engine, when it is a node.
    ///
    /// # Panics
    /// When it is a page.
    pub fn engine(&self) -> &Engine<Payload> {
        match &self.machine {
            Machine::Node(engine) => engine,
            Machine::Page(_) => panic!("{} is a page", self.device),
        }
    }

    /// It is a node.
    pub fn is_node(&self) -> bool {
        matches!(self.machine, Machine::Node(_))
    }

    /// Jobs of which it computes a tile now.
    pub fn computes(&self) -> bool {
        !self.slots.is_empty()
    }
}
