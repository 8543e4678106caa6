//! What `GET /metrics` tells Prometheus.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use gemmesh_protocol::status::{DeviceKind, DeviceState, JobState};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::app::View;
use crate::store::StoreStats;

type Labelled<M> = Family<Vec<(&'static str, &'static str)>, M>;

/// The registry and its metrics. No label is taken from the network.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    tiles: Labelled<Counter>,
    jobs_ended: Labelled<Counter>,
    jobs: Labelled<Gauge>,
    devices: Labelled<Gauge>,
    mflops: Gauge<f64, AtomicU64>,
    store: Labelled<Counter<f64, AtomicU64>>,
    stored: Counter,
    groups: Counter,
    takeovers: Counter,
    copies: Gauge,
    copied: Labelled<Counter>,
    bytes: [Labelled<Gauge>; 2],
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("gemmesh");
        let (tiles, jobs_ended) = (
            Labelled::<Counter>::default(),
            Labelled::<Counter>::default(),
        );
        let (jobs, devices) = (Labelled::<Gauge>::default(), Labelled::<Gauge>::default());
        let mflops = Gauge::<f64, AtomicU64>::default();
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", version);
        registry.register(
            "tiles",
            "Results of tiles that arrived, by outcome",
            tiles.clone(),
        );
        registry.register(
            "jobs_ended",
            "Jobs of this node that ended",
            jobs_ended.clone(),
        );
        registry.register(
            "jobs",
            "Jobs that this node knows of, by state",
            jobs.clone(),
        );
        registry.register(
            "devices",
            "Devices of the mesh, by kind and state",
            devices.clone(),
        );
        registry.register(
            "mesh_mflops",
            "Kernel speed of all live devices",
            mflops.clone(),
        );
        let store = Labelled::<Counter<f64, AtomicU64>>::default();
        let (stored, groups) = (Counter::default(), Counter::default());
        registry.register(
            "store_seconds",
            "Time that the store's writer spent with files of results and with its database",
            store.clone(),
        );
        registry.register(
            "store_tile_bytes",
            "Bytes of tiles that the store wrote",
            stored.clone(),
        );
        registry.register(
            "store_groups",
            "Groups of tiles that were made durable together",
            groups.clone(),
        );
        let (takeovers, copies) = (Counter::default(), Gauge::<i64>::default());
        let copied = Labelled::<Counter>::default();
        registry.register(
            "takeovers",
            "Jobs that this node took over from another coordinator, or from itself after a restart",
            takeovers.clone(),
        );
        registry.register(
            "copies",
            "Tiles and matrices that are being copied from other nodes now",
            copies.clone(),
        );
        registry.register(
            "copied",
            "Tiles and matrices that came from other nodes, or did not, to keep jobs safe",
            copied.clone(),
        );
        let bytes = [(); 2].map(|()| Labelled::<Gauge>::default());
        registry.register(
            "memory_bytes",
            "Memory that this node may have resident, and the most that it had",
            bytes[0].clone(),
        );
        registry.register(
            "disk_bytes",
            "Disk that bodies and matrices may take, and what matrices take now",
            bytes[1].clone(),
        );
        Self {
            registry: Mutex::new(registry),
            tiles,
            jobs_ended,
            jobs,
            devices,
            mflops,
            store,
            stored,
            groups,
            takeovers,
            copies,
            copied,
            bytes,
        }
    }

    /// `limits` and `used` are of memory and disk; what is not known is not shown.
    pub(crate) fn holds(&self, limits: [u64; 2], used: [Option<u64>; 2]) {
        for (n, name) in [(0, "peak"), (1, "used")] {
            let shown = [("limit", Some(limits[n])), (name, used[n])];
            for (part, bytes) in shown {
                if let Some(bytes) = bytes {
                    let gauge = self.bytes[n].get_or_create(&vec![("part", part)]);
                    gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
                }
            }
        }
    }

    pub(crate) fn took_over(&self) {
        self.takeovers.inc();
    }

    pub(crate) fn copying(&self, copies: usize) {
        self.copies.set(copies as i64);
    }

    /// `what` is `tile` or `matrix`.
    pub(crate) fn copied(&self, what: &'static str, there: bool) {
        let outcome = if there { "here" } else { "missing" };
        let labels = vec![("what", what), ("outcome", outcome)];
        self.copied.get_or_create(&labels).inc();
    }

    pub(crate) fn tile_accepted(&self) {
        self.tiles
            .get_or_create(&vec![("outcome", "accepted")])
            .inc();
    }

    pub(crate) fn tile_refused(&self) {
        self.tiles
            .get_or_create(&vec![("outcome", "refused")])
            .inc();
    }

    pub(crate) fn tile_replaced(&self) {
        self.tiles
            .get_or_create(&vec![("outcome", "replaced")])
            .inc();
    }

    pub(crate) fn job_ended(&self, state: JobState) {
        self.jobs_ended
            .get_or_create(&vec![("outcome", job_state(state))])
            .inc();
    }

    /// The text form, with gauges set from `view`, and what the store counts itself.
    pub(crate) fn render(&self, view: &View, store: StoreStats) -> String {
        for (part, time) in [("files", store.files), ("database", store.database)] {
            let seconds = self.store.get_or_create(&vec![("part", part)]);
            let bits = time.as_secs_f64().to_bits();
            seconds.inner().store(bits, Ordering::Relaxed);
        }
        let counts = [
            (&self.stored, store.tile_bytes),
            (&self.groups, store.groups),
        ];
        for (counter, count) in counts {
            counter.inner().store(count, Ordering::Relaxed);
        }
        self.jobs.clear();
        for job in view.jobs.values() {
            self.jobs
                .get_or_create(&vec![("state", job_state(job.status.state))])
                .inc();
        }
        self.devices.clear();
        for device in &view.devices {
            let kind = match device.kind {
                DeviceKind::Native => "native",
                DeviceKind::Browser => "browser",
            };
            let state = match device.state {
                DeviceState::Ready => "ready",
                DeviceState::Busy => "busy",
                DeviceState::Paused => "paused",
                DeviceState::Lost => "lost",
            };
            self.devices
                .get_or_create(&vec![("kind", kind), ("state", state)])
                .inc();
        }
        let live = view
            .devices
            .iter()
            .filter(|device| device.state != DeviceState::Lost);
        self.mflops.set(live.map(|device| device.mflops).sum());
        let mut text = String::new();
        let registry = self.registry.lock().expect("encoding does not panic");
        encode(&mut text, &registry).expect("a string takes any text");
        text
    }
}

fn job_state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}
