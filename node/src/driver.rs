//! The event loop: the sole user of the engine. Every event ends in one `handle`; after it every
//! output is carried out before the next event is looked at. Nothing here waits: what takes time
//! runs in a task of its own and comes back as an event.

mod copies;
mod event;
mod inputs;
mod outputs;
mod publish;
mod trail;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use gemmesh_protocol::engine::Engine;
use gemmesh_protocol::id::{BlockId, DeviceId, JobId, LeaseId, MatrixId};
use gemmesh_protocol::io::{Checked, Input, LinkId, Output};
use gemmesh_protocol::job::{JobHeader, Operand};
use gemmesh_protocol::message::Message;
use gemmesh_protocol::replication::Restored;
use tokio::sync::{mpsc, oneshot};

use crate::app::{App, View, refusal_text};
use crate::compute::{SlabOutcome, Slots};
use crate::guarded;
use crate::link::LinkQueue;
use crate::os;
use crate::verify::{Checks, Verifier};

use copies::Copies;
pub(crate) use event::Event;
use trail::Trail;

/// Events waiting for the loop. Readers of links wait when it is full, which slows their peers.
pub(crate) const EVENTS_MAX: usize = 1_024;

/// A job that this node coordinates, as the shell needs it.
#[derive(Clone)]
pub(crate) struct Job {
    header: Arc<JobHeader>,
    a: MatrixId,
    b: MatrixId,
    verifier: Option<Arc<Verifier>>,
    /// Set while a guarded product is shared.
    shared: Option<Arc<guarded::Shared>>,
    backups: Vec<DeviceId>,
}

impl Job {
    pub(crate) fn new(header: Arc<JobHeader>) -> Self {
        let (a, b) = (header.a.id(), header.b.id());
        Self {
            header,
            a,
            b,
            verifier: None,
            shared: None,
            backups: Vec::new(),
        }
    }
}

/// The loop's state besides the engine's.
pub(crate) struct Driver {
    app: App,
    engine: Engine<Bytes>,
    events: mpsc::Receiver<Event>,
    outcomes: mpsc::UnboundedReceiver<SlabOutcome>,
    slots: Slots,
    /// Raised when a slot's task is aborted: its late answer is not the engine's.
    generations: Vec<u64>,
    view: Arc<std::sync::RwLock<View>>,
    changes: tokio::sync::watch::Sender<u64>,
    links: BTreeMap<LinkId, LinkQueue>,
    jobs: BTreeMap<JobId, Job>,
    copies: Copies,
    checks: Checks,
    registrations: BTreeMap<String, Vec<oneshot::Sender<Result<DeviceId, String>>>>,
    cancellations: BTreeMap<JobId, Vec<oneshot::Sender<()>>>,
    /// Jobs that this node took over and of which it has not leased a tile yet.
    resuming: BTreeSet<JobId>,
    /// Jobs that have ended and are not recorded so yet.
    recording: BTreeSet<JobId>,
    /// Jobs whose status changed since the view was last published.
    changed: BTreeSet<JobId>,
    /// Links whose speed was published.
    links_measured: usize,
    trail: Trail,
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) app: App,
    pub(crate) engine: Engine<Bytes>,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) outcomes: mpsc::UnboundedReceiver<SlabOutcome>,
    pub(crate) slots: Slots,
    pub(crate) view: Arc<std::sync::RwLock<View>>,
    pub(crate) changes: tokio::sync::watch::Sender<u64>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            app,
            engine,
            events,
            outcomes,
            slots,
            view,
            changes,
        } = parts;
        let checks = Checks::new(app.shares().checks);
        let generations = vec![0; app.config().threads as usize];
        let mut driver = Self {
            app,
            engine,
            events,
            outcomes,
            slots,
            generations,
            view,
            changes,
            links: BTreeMap::new(),
            jobs: BTreeMap::new(),
            copies: Copies::default(),
            checks,
            registrations: BTreeMap::new(),
            cancellations: BTreeMap::new(),
            resuming: BTreeSet::new(),
            recording: BTreeSet::new(),
            changed: BTreeSet::new(),
            links_measured: 0,
            trail: Trail::default(),
        };
        driver.publish_devices();
        driver
    }

    /// Brings back the jobs of an earlier run. Who goes on with them is settled with the other nodes.
    pub(crate) fn restore(&mut self, jobs: Vec<Restored>, expired: Vec<JobId>) {
        self.handle(Input::Expired { jobs: expired });
        for restored in jobs {
            let job = restored.taken.header.job;
            if restored.ended.is_none() {
                let (tiles, epoch) = (restored.held.len(), restored.epoch.counter);
                tracing::info!(%job, tiles, epoch, "a job that has not ended is on the disk");
            }
            self.handle(Input::Restore(Box::new(restored)));
            self.changed.insert(job);
        }
        self.publish_jobs();
    }

    /// Runs until the node leaves.
    pub(crate) async fn run(mut self) {
        loop {
            let timeout = self.engine.poll_timeout();
            tokio::select! {
                biased;
                Some(outcome) = self.outcomes.recv() => self.on_slab(outcome),
                event = self.events.recv() => match event {
                    Some(Event::Leave { reply }) => {
                        self.handle(Input::Leave);
                        self.links.values().for_each(LinkQueue::close);
                        let _ = reply.send(());
                        return;
                    }
                    Some(event) => self.on_event(event),
                    None => return,
                },
                () = sleep_until(timeout) => self.handle(Input::Tick),
            }
            self.publish_jobs();
            self.publish_links(false);
        }
    }

    fn handle(&mut self, input: Input<Bytes>) {
        self.engine.handle(input, os::now());
        while let Some(output) = self.engine.poll_output() {
            self.trail.output(self.app.device(), &output);
            self.carry_out(output);
        }
        self.log_resumed();
    }
}

async fn sleep_until(timeout: Option<gemmesh_protocol::time::Instant>) {
    match timeout {
        Some(instant) => tokio::time::sleep_until(os::deadline(instant)).await,
        None => std::future::pending().await,
    }
}
