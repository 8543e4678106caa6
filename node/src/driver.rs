//! The event loop: the sole user of the engine. Every event ends in one `handle`; after it every
//! output is carried out before the next event is looked at. Nothing here waits: what takes time
//! runs in a task of its own and comes back as an event.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use gemmesh_protocol::engine::Engine;
use gemmesh_protocol::id::{BlockId, DeviceId, JobId, LeaseId, MatrixId};
use gemmesh_protocol::io::{Checked, Door, Input, LinkId, Output, SlabTask};
use gemmesh_protocol::job::{JobHeader, Operand};
use gemmesh_protocol::message::{Header, Message};
use gemmesh_protocol::status::{JobState, JobStatus};
use gemmesh_protocol::time::WallTime;
use tokio::sync::{mpsc, oneshot};

use crate::app::{App, JobView, View, refusal_text};
use crate::compute::{SlabOutcome, SlabWork, Slots};
use crate::link::{LinkQueue, ServeRequest};
use crate::net;
use crate::os;
use crate::store::StoredJob;
use crate::verify::Verifier;

/// Events waiting for the loop. Readers of links wait when it is full, which slows their peers.
pub(crate) const EVENTS_MAX: usize = 1_024;

/// What the loop is told.
pub(crate) enum Event {
    /// A WebSocket opened.
    LinkUp {
        link: LinkId,
        door: Door,
        dialled: Option<String>,
        queue: LinkQueue,
    },
    /// A WebSocket is gone.
    LinkDown { link: LinkId },
    /// A frame arrived.
    Frame {
        link: LinkId,
        header: Box<Header>,
        payload: Bytes,
    },
    /// Bytes of a job's blocks were sent.
    Traffic { job: JobId, bytes: u64 },
    /// An address worth dialling.
    Hint {
        address: String,
        device: Option<DeviceId>,
        keep: bool,
    },
    /// Dialling failed.
    DialFailed { address: String, reason: String },
    /// A person registers a node.
    Register {
        address: String,
        reply: oneshot::Sender<Result<DeviceId, String>>,
    },
    /// A durable job.
    Submit {
        job: Job,
        submitted: WallTime,
        reply: oneshot::Sender<()>,
    },
    /// A person cancels a job.
    Cancel {
        job: JobId,
        reply: oneshot::Sender<()>,
    },
    /// Jobs whose time is over.
    Forget { jobs: Vec<JobId> },
    /// A tile was checked.
    Verified {
        job: JobId,
        tile: u32,
        lease: LeaseId,
        checked: Checked,
        payload: Bytes,
    },
    /// A tile is durable.
    Persisted { job: JobId, tile: u32 },
    /// A result became a matrix.
    Finished { job: JobId, result: MatrixId },
    /// The disk failed a job.
    StoreFailed { job: JobId, reason: String },
    /// A block for the own worker was read or checked; `None` when it is bad.
    Block {
        job: JobId,
        operand: Operand,
        block: u32,
        id: BlockId,
        bytes: Option<Bytes>,
    },
    /// This node stops; answered when goodbyes are queued.
    Leave { reply: oneshot::Sender<()> },
}

/// A job that this node coordinates, as the shell needs it.
#[derive(Clone)]
pub(crate) struct Job {
    header: Arc<JobHeader>,
    a: MatrixId,
    b: MatrixId,
    verifier: Option<Arc<Verifier>>,
}

impl Job {
    pub(crate) fn new(header: Arc<JobHeader>) -> Self {
        let (a, b) = (header.a.id(), header.b.id());
        Self {
            header,
            a,
            b,
            verifier: None,
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
    cache: HashMap<BlockId, Bytes>,
    registrations: BTreeMap<String, Vec<oneshot::Sender<Result<DeviceId, String>>>>,
    cancellations: BTreeMap<JobId, Vec<oneshot::Sender<()>>>,
    /// Jobs whose status changed since the view was last published.
    changed: BTreeSet<JobId>,
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
            cache: HashMap::new(),
            registrations: BTreeMap::new(),
            cancellations: BTreeMap::new(),
            changed: BTreeSet::new(),
        };
        driver.publish_devices();
        driver
    }

    /// Continues the jobs of an earlier run.
    pub(crate) fn restore(&mut self, jobs: Vec<StoredJob>) {
        for stored in jobs {
            let job = Job::new(Arc::new(stored.header.clone()));
            let id = stored.header.job;
            if stored.ended.is_none() {
                tracing::info!(job = %id, done = stored.done.len(), "continuing a job");
                self.jobs.insert(id, job);
            }
            self.handle(Input::Restore {
                header: Box::new(stored.header),
                submitted: stored.submitted,
                elapsed: gemmesh_protocol::time::Span::from_millis(
                    os::wall().0.saturating_sub(stored.submitted.0),
                ),
                done: stored.done,
                contributors: stored.contributors,
                ended: stored.ended,
            });
            self.changed.insert(id);
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
        }
    }

    fn handle(&mut self, input: Input<Bytes>) {
        self.engine.handle(input, os::now());
        while let Some(output) = self.engine.poll_output() {
            self.carry_out(output);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::LinkUp {
                link,
                door,
                dialled,
                queue,
            } => {
                self.links.insert(link, queue);
                self.handle(Input::LinkUp {
                    link,
                    door,
                    dialled,
                });
            }
            Event::LinkDown { link } => {
                self.links.remove(&link);
                self.handle(Input::LinkDown { link });
            }
            Event::Frame {
                link,
                header,
                payload,
            } => {
                let payload_bytes = payload.len() as u64;
                if let Message::Result { job, .. } = header.body
                    && self.jobs.contains_key(&job)
                {
                    self.handle(Input::Traffic {
                        job,
                        bytes: payload_bytes,
                    });
                }
                self.handle(Input::Frame {
                    link,
                    header: *header,
                    payload,
                    payload_bytes,
                });
            }
            Event::Traffic { job, bytes } => self.handle(Input::Traffic { job, bytes }),
            Event::Hint {
                address,
                device,
                keep,
            } => {
                self.handle(Input::Hint {
                    address,
                    device,
                    keep,
                });
            }
            Event::DialFailed { address, reason } => {
                tracing::debug!(address, reason, "dialling failed");
                for reply in self.registrations.remove(&address).unwrap_or_default() {
                    let _ = reply.send(Err(reason.clone()));
                }
                self.handle(Input::DialFailed { address });
            }
            Event::Register { address, reply } => self.on_register(address, reply),
            Event::Submit {
                job,
                submitted,
                reply,
            } => {
                let header = Box::new(JobHeader::clone(&job.header));
                let id = header.job;
                self.jobs.insert(id, job);
                self.handle(Input::Submit { header, submitted });
                self.changed.insert(id);
                self.publish_jobs();
                let _ = reply.send(());
            }
            Event::Cancel { job, reply } => {
                self.cancellations.entry(job).or_default().push(reply);
                self.handle(Input::Cancel { job });
                self.answer_cancellations(job);
            }
            Event::Forget { jobs } => {
                for job in jobs {
                    self.handle(Input::Forget { job });
                    self.jobs.remove(&job);
                    self.changed.insert(job);
                }
            }
            Event::Verified {
                job,
                tile,
                lease,
                checked,
                payload,
            } => {
                match checked {
                    Checked::Right => {}
                    Checked::Wrong => self.app.counters().tile_refused(),
                    Checked::Replaced(_) => self.app.counters().tile_replaced(),
                }
                self.handle(Input::Verified {
                    job,
                    tile,
                    lease,
                    checked,
                    payload,
                });
            }
            Event::Persisted { job, tile } => {
                self.app.counters().tile_accepted();
                self.handle(Input::Persisted { job, tile });
            }
            Event::Finished { job, result } => self.handle(Input::Finished { job, result }),
            Event::StoreFailed { job, reason } => {
                tracing::error!(%job, reason, "the store failed a job");
                self.handle(Input::Fail { job, reason });
            }
            Event::Block {
                job,
                operand,
                block,
                id,
                bytes,
            } => {
                let input = match bytes {
                    Some(bytes) => {
                        self.cache.insert(id, bytes);
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
                self.handle(input);
            }
            Event::Leave { .. } => unreachable!("the loop ends with it"),
        }
    }

    fn on_register(&mut self, address: String, reply: oneshot::Sender<Result<DeviceId, String>>) {
        let known = self.engine.devices().into_iter().find(|entry| {
            entry.address == address && entry.state != gemmesh_protocol::status::DeviceState::Lost
        });
        if let Some(entry) = known {
            let _ = reply.send(Ok(entry.device));
            return;
        }
        self.registrations
            .entry(address.clone())
            .or_default()
            .push(reply);
        self.handle(Input::Hint {
            address,
            device: None,
            keep: false,
        });
    }

    fn on_slab(&mut self, outcome: SlabOutcome) {
        let SlabOutcome {
            slot,
            generation,
            outcome,
        } = outcome;
        if self.generations[slot as usize] != generation {
            return;
        }
        self.handle(match outcome {
            Ok((kernel, result)) => {
                let result = result.map(|bytes| {
                    let len = bytes.len() as u64;
                    (bytes, len)
                });
                Input::SlabDone {
                    slot,
                    kernel,
                    result,
                }
            }
            Err(reason) => {
                tracing::warn!(slot, reason, "a slot could not compute");
                Input::SlotFailed { slot }
            }
        });
    }

    fn carry_out(&mut self, output: Output<Bytes>) {
        match output {
            Output::Send {
                link,
                header,
                payload,
            } => {
                if let Some(queue) = self.links.get(&link)
                    && !queue.send(header, payload)
                {
                    tracing::info!(link = link.0, "dropping a link that can not keep up");
                    queue.close();
                }
            }
            Output::Close { link, reason } => {
                if let Some(reason) = reason {
                    tracing::info!(link = link.0, why = refusal_text(reason), "closing a link");
                }
                if let Some(queue) = self.links.get(&link) {
                    queue.close();
                }
            }
            Output::Dial { address } => {
                tokio::spawn(net::dial::dial(self.app.clone(), address));
            }
            Output::Serve {
                link,
                to,
                job,
                operand,
                blocks,
            } => {
                let Some(source) = self.jobs.get(&job) else {
                    return;
                };
                let matrix = match operand {
                    Operand::A => source.a,
                    Operand::B => source.b,
                };
                let blocks = VecDeque::from(blocks);
                if let Some(queue) = self.links.get(&link)
                    && !queue.serve(ServeRequest {
                        matrix,
                        to,
                        job,
                        operand,
                        blocks,
                    })
                {
                    queue.close();
                }
            }
            Output::Load {
                job,
                operand,
                blocks,
            } => self.load(job, operand, blocks),
            Output::Keep {
                job,
                operand,
                block,
                id,
                payload,
            } => {
                let app = self.app.clone();
                tokio::spawn(async move {
                    let good = BlockId::of(&payload) == id;
                    let bytes = good.then_some(payload);
                    app.tell(Event::Block {
                        job,
                        operand,
                        block,
                        id,
                        bytes,
                    })
                    .await;
                });
            }
            Output::Evict { id } => {
                self.cache.remove(&id);
            }
            Output::Compute(task) => self.compute(task),
            Output::Abort { slot } => self.generations[slot as usize] += 1,
            Output::Verify {
                job,
                tile,
                lease,
                payload,
            } => self.verify(job, tile, lease, payload),
            Output::Persist {
                job,
                done,
                contributor,
                payload,
            } => {
                let (app, tile) = (self.app.clone(), done.tile);
                tokio::spawn(async move {
                    let contributor = contributor.map(|record| *record);
                    let written = app
                        .store()
                        .write_tile(job, done, contributor, payload)
                        .await;
                    app.tell(match written {
                        Ok(()) => Event::Persisted { job, tile },
                        Err(error) => Event::StoreFailed {
                            job,
                            reason: error.to_string(),
                        },
                    })
                    .await;
                });
            }
            Output::Finish { job } => {
                let app = self.app.clone();
                tokio::spawn(async move {
                    app.tell(match app.store().finish_job(job).await {
                        Ok(manifest) => Event::Finished {
                            job,
                            result: manifest.id(),
                        },
                        Err(error) => Event::StoreFailed {
                            job,
                            reason: error.to_string(),
                        },
                    })
                    .await;
                });
            }
            Output::Ended { status } => self.ended(*status),
            Output::Quarantined { device, job, tile } => {
                tracing::warn!(%device, %job, tile, "a wrong tile; this device gets no more work");
            }
            Output::JobChanged { job } => {
                self.changed.insert(job);
            }
            Output::DevicesChanged => self.publish_devices(),
            Output::Joined { address, outcome } => {
                self.publish_devices();
                let replies = self.registrations.remove(&address).unwrap_or_default();
                if outcome.is_ok() && !replies.is_empty() {
                    // Only a registered address where a member was is dialled for ever.
                    let (app, device, keep) = (self.app.clone(), None, true);
                    tokio::spawn(async move {
                        app.tell(Event::Hint {
                            address,
                            device,
                            keep,
                        })
                        .await;
                    });
                }
                for reply in replies {
                    let outcome = outcome.map_err(|refusal| refusal_text(refusal).to_owned());
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    /// Reads own blocks for the own worker.
    fn load(&mut self, job: JobId, operand: Operand, blocks: Vec<u32>) {
        let Some(source) = self.jobs.get(&job) else {
            return;
        };
        let matrix = match operand {
            Operand::A => source.a,
            Operand::B => source.b,
        };
        let (app, header) = (self.app.clone(), source.header.clone());
        tokio::spawn(async move {
            for block in blocks {
                let id = header.manifest(operand).blocks[block as usize];
                let read = app.store().read_block(matrix, block).await;
                if let Err(error) = &read {
                    let reason = error.to_string();
                    app.tell(Event::StoreFailed { job, reason }).await;
                }
                let event = Event::Block {
                    job,
                    operand,
                    block,
                    id,
                    bytes: read.ok(),
                };
                if !app.tell(event).await {
                    return;
                }
            }
        });
    }

    fn compute(&mut self, task: SlabTask) {
        let gather = |parts: &[(BlockId, _)]| {
            let blocks = parts.iter().map(|(id, _)| {
                self.cache
                    .get(id)
                    .expect("the engine computes with blocks that are ready")
                    .clone()
            });
            blocks.collect()
        };
        let (a, b) = (gather(&task.a), gather(&task.b));
        let generation = self.generations[task.slot as usize];
        self.slots.compute(SlabWork {
            task,
            generation,
            a,
            b,
        });
    }

    fn verify(&mut self, job: JobId, tile: u32, lease: LeaseId, payload: Bytes) {
        let Some(source) = self.jobs.get_mut(&job) else {
            return;
        };
        let (header, a, b) = (source.header.clone(), source.a, source.b);
        let store = self.app.store().clone();
        let verifier = source
            .verifier
            .get_or_insert_with(|| Arc::new(Verifier::new(store, header, a, b)))
            .clone();
        let app = self.app.clone();
        tokio::spawn(async move {
            app.tell(match verifier.check(tile, payload).await {
                Ok((checked, payload)) => Event::Verified {
                    job,
                    tile,
                    lease,
                    checked,
                    payload,
                },
                Err(error) => Event::StoreFailed {
                    job,
                    reason: error.to_string(),
                },
            })
            .await;
        });
    }

    /// Records how a job ended. It is published as ended once that is durable.
    fn ended(&mut self, status: JobStatus) {
        let job = status.job;
        match status.state {
            JobState::Done => tracing::info!(%job, seconds = status.seconds, "job done"),
            JobState::Failed => tracing::warn!(%job, error = status.error, "job failed"),
            _ => tracing::info!(%job, "job cancelled"),
        }
        self.app.counters().job_ended(status.state);
        self.jobs.remove(&job);
        self.changed.insert(job);
        let app = self.app.clone();
        tokio::spawn(async move {
            if let Err(error) = app.store().end_job(&status).await {
                tracing::error!(%job, %error, "the end of a job could not be recorded");
            }
        });
        self.publish_jobs();
        self.answer_cancellations(job);
    }

    fn answer_cancellations(&mut self, job: JobId) {
        let ended = self
            .engine
            .job_status(job, os::now())
            .is_none_or(|status| status.state.has_ended());
        if ended {
            self.publish_jobs();
            for reply in self.cancellations.remove(&job).unwrap_or_default() {
                let _ = reply.send(());
            }
        }
    }

    fn publish_jobs(&mut self) {
        if self.changed.is_empty() {
            return;
        }
        let now = os::now();
        let mut view = self.view.write().expect("writers do not panic");
        for job in std::mem::take(&mut self.changed) {
            match self.engine.job_status(job, now) {
                Some(status) => {
                    let own = self.engine.coordinates(job);
                    view.jobs.insert(
                        job,
                        JobView {
                            status,
                            at: now,
                            own,
                        },
                    );
                }
                None => {
                    view.jobs.remove(&job);
                }
            }
        }
        drop(view);
        self.changes.send_modify(|version| *version += 1);
    }

    fn publish_devices(&mut self) {
        let devices = self.engine.devices();
        let addresses = self.engine.peers().flat_map(|record| &record.addresses);
        let members = addresses
            .filter_map(|address| Some(address.parse::<SocketAddr>().ok()?.ip()))
            .filter(|ip| net::reach::is_local(*ip))
            .collect();
        let mut view = self.view.write().expect("writers do not panic");
        (view.devices, view.members) = (devices, members);
        drop(view);
        self.changes.send_modify(|version| *version += 1);
    }
}

async fn sleep_until(timeout: Option<gemmesh_protocol::time::Instant>) {
    match timeout {
        Some(instant) => tokio::time::sleep_until(os::deadline(instant)).await,
        None => std::future::pending().await,
    }
}
