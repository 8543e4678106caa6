//! The node as its HTTP side sees it: a cheap handle. Questions are answered from what the driver
//! last published; changes go to the driver as events.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use gemmesh_protocol::batch;
use gemmesh_protocol::id::{DeviceId, JobId, MatrixId};
use gemmesh_protocol::io::{Door, LinkId};
use gemmesh_protocol::matrix::Dtype;
use gemmesh_protocol::message::Refusal;
use gemmesh_protocol::status::{DeviceEntry, DeviceKind, DeviceState, JobStatus, Mode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::batch::BatchRequest;
use crate::config::NodeConfig;
use crate::driver::Event;
use crate::error::ApiError;
use crate::memory::{self, Share, Shares};
use crate::metrics::Metrics;
use crate::needs::Explained;
use crate::net::guard::Members;
use crate::present::Present;
use crate::store::Store;
use crate::tls::Tls;
use crate::{link, net, os, submit};

/// The longest that a registration may take.
const REGISTER_LIMIT: Duration = Duration::from_millis(4_500);

/// What the driver publishes.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Own jobs and those that other nodes told of.
    pub(crate) jobs: BTreeMap<JobId, JobView>,
    /// The parts of each batch among them.
    pub(crate) batches: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Every device, this one included.
    pub(crate) devices: Vec<DeviceEntry>,
    /// Bytes a second between this node and others, as measured.
    pub(crate) links: BTreeMap<DeviceId, f64>,
    /// Whose pages may open `/ws`.
    pub(crate) members: Members,
}

/// A job as last heard of.
#[derive(Debug, Clone)]
pub(crate) struct JobView {
    pub(crate) status: JobStatus,
    /// When `status` was made, for the running clock of a job.
    pub(crate) at: gemmesh_protocol::time::Instant,
    pub(crate) own: bool,
}

/// What a user asks for.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// The left factor.
    pub a: MatrixId,
    /// The right factor.
    pub b: MatrixId,
    /// The element type; by default that of the operands.
    pub dtype: Option<Dtype>,
    /// Set when nobody but this node may learn it.
    pub guarded: Option<Guarded>,
    /// The same bits whichever devices compute.
    pub reproducible: bool,
    /// A name for people.
    pub name: String,
}

/// From whom a product is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guarded {
    /// Private or masked.
    pub mode: Mode,
    /// How many devices may put together what they see.
    pub colluders: u32,
    /// How many devices may fail without delay.
    pub spares: u32,
}

/// An accepted job.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The job.
    pub job: JobId,
    /// Marks its owner.
    pub token: String,
}

/// A handle on the running node.
#[derive(Clone)]
pub struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: NodeConfig,
    pub(crate) device: DeviceId,
    pub(crate) store: Store,
    pub(crate) port: u16,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) view: Arc<RwLock<View>>,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) links: AtomicU64,
    pub(crate) metrics: Metrics,
    pub(crate) shares: Shares,
    pub(crate) results: Share,
    pub(crate) client: reqwest::Client,
    pub(crate) present: Present,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) healing: tokio::sync::Mutex<()>,
    pub(crate) shutdown: CancellationToken,
}

impl App {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// What this node was told.
    pub fn config(&self) -> &NodeConfig {
        &self.0.config
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.0.device
    }

    /// Jobs and matrices.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The port that is listened on.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// `HOST:PORT` where this node listens, best first. Cost: one system call or two.
    pub fn addresses(&self) -> Vec<String> {
        net::urls::addresses(self.0.config.bind, self.0.port)
    }

    /// The https side, if the operator asked for one.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.0.tls.clone()
    }

    /// Counters and gauges.
    pub(crate) fn counters(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What this node may hold in memory.
    pub fn shares(&self) -> &Shares {
        &self.0.shares
    }

    /// For tiles that were computed or came, until they are stored or judged.
    pub(crate) fn results(&self) -> &Share {
        &self.0.results
    }

    /// For requests to other nodes.
    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.0.client
    }

    /// Blocks that the own worker keeps.
    pub(crate) fn present(&self) -> &Present {
        &self.0.present
    }

    /// Held while a damaged matrix is replaced: one at a time.
    pub(crate) fn healing(&self) -> &tokio::sync::Mutex<()> {
        &self.0.healing
    }

    /// Prometheus text.
    pub fn metrics(&self) -> String {
        let config = self.config();
        let used = [memory::peak_resident(), Some(self.store().disk_used())];
        self.0.metrics.holds([config.memory, config.disk], used);
        let view = self.view();
        self.0.metrics.render(&view, self.store().stats())
    }

    /// Cancelled when the node is asked to stop.
    pub fn shutdown(&self) -> CancellationToken {
        self.0.shutdown.clone()
    }

    /// Whether jobs are taken.
    pub fn is_ready(&self) -> bool {
        !self.0.shutdown.is_cancelled() && !self.0.events.is_closed()
    }

    /// Takes a job: checks the operands, brings them to one element type, and makes the job
    /// durable before it returns.
    ///
    /// # Errors
    /// What is wrong with the request, or why no job can be taken.
    pub async fn submit(&self, request: SubmitRequest) -> Result<Submitted, ApiError> {
        submit::submit(self, request).await
    }

    /// Takes a batch: as [`App::submit`], all of its parts or none.
    ///
    /// # Errors
    /// What is wrong with the request, or why it can not be taken.
    pub async fn submit_batch(&self, request: BatchRequest) -> Result<Submitted, ApiError> {
        crate::batch::submit(self, request).await
    }

    /// What would become of a job if it were submitted now.
    ///
    /// # Errors
    /// As [`App::submit`].
    pub async fn explain(&self, request: SubmitRequest) -> Result<Explained, ApiError> {
        submit::explain(self, request).await
    }

    /// All jobs that this node knows of, own and other nodes', oldest first; a batch in place of its
    /// parts.
    pub fn jobs(&self) -> Vec<JobStatus> {
        let jobs = self.view().jobs.values().map(JobView::now).collect();
        let mut jobs = batch::folded(jobs);
        jobs.sort_by_key(|job| (job.submitted, job.job));
        jobs
    }

    /// The last known status of a job, own or another node's, or of a batch.
    pub fn job(&self, job: JobId) -> Option<JobStatus> {
        let known = self.view().jobs.get(&job).map(JobView::now);
        known.or_else(|| batch::gather(&self.parts(job)))
    }

    /// The parts of a batch that are known here.
    pub fn parts(&self, batch: JobId) -> Vec<JobStatus> {
        let view = self.view();
        let parts = view.batches.get(&batch).into_iter().flatten();
        let known = parts.filter_map(|part| view.jobs.get(part));
        known.map(JobView::now).collect()
    }

    /// Whether all parts of a batch are known here.
    pub fn knows_batch(&self, batch: JobId) -> bool {
        let parts = self.parts(batch);
        let all = parts.first().and_then(|status| status.part.as_deref());
        all.is_some_and(|part| parts.len() as u64 == u64::from(part.parts))
    }

    /// Whether this node coordinates a job.
    pub fn coordinates(&self, job: JobId) -> bool {
        self.view().jobs.get(&job).is_some_and(|view| view.own)
    }

    /// The status of a job as soon as it has ended, or after `limit`.
    pub async fn wait_job(&self, job: JobId, limit: Duration) -> Option<JobStatus> {
        let mut changes = self.0.changes.subscribe();
        let ended = async {
            while self
                .job(job)
                .is_some_and(|status| !status.state.has_ended())
            {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(limit) => {}
            () = self.0.shutdown.cancelled() => {}
        }
        self.job(job)
    }

    /// Resolves after the next change of jobs or devices.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Where the coordinator of another node's job listens.
    pub fn coordinator_address(&self, job: JobId) -> Option<String> {
        let coordinator = self.view().jobs.get(&job)?.status.coordinator;
        self.address_of(coordinator)
    }

    /// Where a node listens, if it lives.
    pub fn address_of(&self, device: DeviceId) -> Option<String> {
        let view = self.view();
        let entry = view.devices.iter().find(|entry| {
            entry.device == device
                && entry.kind == DeviceKind::Native
                && entry.state != DeviceState::Lost
        })?;
        Some(entry.address.clone()).filter(|address| !address.is_empty())
    }

    /// Where the other live nodes listen.
    pub fn peer_addresses(&self) -> Vec<String> {
        let view = self.view();
        let peers = view.devices.iter().filter(|entry| {
            entry.kind == DeviceKind::Native
                && entry.device != self.device()
                && entry.state != DeviceState::Lost
        });
        peers.map(|entry| entry.address.clone()).collect()
    }

    /// Cancels a job that this node coordinates; the status is the one after that. A job that has
    /// ended stays as it is.
    ///
    /// # Errors
    /// 404 when this node does not coordinate such a job.
    pub async fn cancel(&self, job: JobId) -> Result<JobStatus, ApiError> {
        let unknown = || {
            ApiError::new(
                404,
                "unknown_job",
                format!("there is no job {job} at this node"),
                "GET /api/jobs lists the jobs of the mesh",
            )
        };
        if !self.coordinates(job) {
            return Err(unknown());
        }
        let (reply, answer) = oneshot::channel();
        if self.tell(Event::Cancel { job, reply }).await {
            // The driver answers once the job has ended; it may be gone before that.
            let _ = answer.await;
        }
        self.job(job).ok_or_else(unknown)
    }

    /// Every device of the mesh, this one included.
    pub fn devices(&self) -> Vec<DeviceEntry> {
        self.view().devices.clone()
    }

    /// Bytes a second between this node and the devices that are there, as far as that was measured.
    pub fn links(&self) -> Vec<(DeviceId, f64)> {
        let view = self.view();
        let there = view
            .devices
            .iter()
            .filter(|entry| entry.state != DeviceState::Lost);
        there
            .filter_map(|entry| Some((entry.device, *view.links.get(&entry.device)?)))
            .collect()
    }

    /// Makes the node at `host`:`port` a member, and keeps dialling it.
    ///
    /// # Errors
    /// 422 with the reason, within 5 s.
    pub async fn register(&self, host: &str, port: u16) -> Result<DeviceEntry, ApiError> {
        let address = match host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{host}:{port}"),
        };
        let refused = |why: String| {
            ApiError::new(
                422,
                "not_registered",
                format!("{address} did not become a member: {why}"),
                "check that `gemmesh serve` runs there, the port, and that no firewall is between",
            )
        };
        let (reply, answer) = oneshot::channel();
        if !self
            .tell(Event::Register {
                address: address.clone(),
                reply,
            })
            .await
        {
            return Err(refused("this node is stopping".to_owned()));
        }
        let device = match tokio::time::timeout(REGISTER_LIMIT, answer).await {
            Ok(Ok(Ok(device))) => device,
            Ok(Ok(Err(why))) => return Err(refused(why)),
            Ok(Err(_)) => return Err(refused("this node is stopping".to_owned())),
            Err(_) => return Err(refused("nothing answered in time".to_owned())),
        };
        let entry = self
            .view()
            .devices
            .iter()
            .find(|entry| entry.device == device)
            .cloned();
        entry.ok_or_else(|| refused("it left at once".to_owned()))
    }

    /// Something was found on the network that may be a node.
    pub fn hint(&self, address: String, device: Option<DeviceId>) {
        // When the driver is this far behind, the next announcement will do.
        let _ = self.0.events.try_send(Event::Hint {
            address,
            device,
            keep: false,
        });
    }

    /// Dialling `address` failed.
    pub async fn dial_failed(&self, address: String, reason: String) {
        self.tell(Event::DialFailed { address, reason }).await;
    }

    /// The addresses of nodes that are linked, or were until lately, as each said of itself on its own
    /// link: pages served by them may open `/ws` here.
    pub fn member_ips(&self) -> Vec<IpAddr> {
        self.view().members.list(Instant::now())
    }

    /// Pumps one WebSocket of binary messages until it closes.
    pub async fn run_link<S, R, E>(
        self,
        door: Door,
        dialled: Option<String>,
        peer: SocketAddr,
        sink: S,
        stream: R,
    ) where
        S: Sink<Bytes, Error = E>,
        R: Stream<Item = Result<Bytes, E>>,
        E: Display,
    {
        link::run(self, door, dialled, peer, sink, stream).await;
    }

    /// Tells the driver. `false` when it has stopped.
    pub(crate) async fn tell(&self, event: Event) -> bool {
        self.0.events.send(event).await.is_ok()
    }

    pub(crate) fn next_link(&self) -> LinkId {
        LinkId(self.0.links.fetch_add(1, Ordering::Relaxed))
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.0
            .view
            .read()
            .expect("the view is only replaced, never left half-made")
    }
}

impl JobView {
    /// The status with the clock of a running job moved on.
    fn now(&self) -> JobStatus {
        let mut status = self.status.clone();
        if !status.state.has_ended() {
            status.seconds += (os::now() - self.at).as_secs_f64();
        }
        status
    }
}

/// Why a link was refused, for people.
pub(crate) fn refusal_text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Version => "it runs another version of gemmesh; update the older one",
        Refusal::Mesh => "it belongs to another mesh; give both the same --mesh",
        Refusal::DuplicateId => {
            "another device with the same id is connected; was the data directory copied? \
             Remove identity.key from one of them"
        }
        Refusal::Myself => "that is this node itself",
        Refusal::DuplicateLink => "it is connected already",
        Refusal::Malformed => "it does not speak gemmesh's protocol",
        Refusal::Full => "the mesh is full",
    }
}
