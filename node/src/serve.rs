//! A node from start to goodbye.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use gemmesh_protocol::engine::Engine;
use gemmesh_protocol::io::{Config, WorkerMemory};
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::message::DeviceRecord;
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceKind, DeviceState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Inner, View};
use crate::compute::{self, Slots};
use crate::config::NodeConfig;
use crate::driver::{Driver, EVENTS_MAX, Event, Parts};
use crate::error::ApiError;
use crate::memory::{Share, Shares};
use crate::metrics::Metrics;
use crate::net;
use crate::net::discovery::Discovery;
use crate::present::Present;
use crate::store::{Store, StoreError};
use crate::tls::Tls;
use crate::{identity, os};

/// With as much memory as this, what the allocator keeps is within the slack of [`Shares`].
const PLENTY_BYTES: u64 = 2 << 30;
/// Devices that are remembered at most.
const DEVICES_MAX: usize = 1_024;
/// How long goodbyes may take.
const GOODBYE_LIMIT: Duration = Duration::from_millis(600);
/// How old what others know of this node's addresses may be.
const ADDRESSES_FRESH: Duration = Duration::from_secs(2);

/// A node that runs.
pub struct RunningNode {
    /// The handle on it.
    pub app: App,
    driver: JoinHandle<()>,
    server: JoinHandle<()>,
    discovery: Option<Discovery>,
}

/// Starts a node; it runs until `shutdown` is cancelled and [`RunningNode::stopped`] returns.
///
/// # Errors
/// What is wrong with the port, the data directory or the configuration, and the fix.
pub async fn run(config: NodeConfig, shutdown: CancellationToken) -> Result<RunningNode, ApiError> {
    let shares = Shares::of(config.memory, config.threads).ok_or_else(|| too_little(&config))?;
    if config.memory < PLENTY_BYTES {
        gemmesh_kernel::allocator::give_back_at_once();
    }
    let directory = config.data_dir.display().to_string();
    let unusable = |error: &dyn std::fmt::Display, hint: &str| {
        let message = format!("the data directory {directory} can not be used: {error}");
        ApiError::new(503, "data_dir", message, hint)
    };
    let hint = "choose another with --data-dir, or mend its permissions or disk";
    std::fs::create_dir_all(&config.data_dir).map_err(|error| unusable(&error, hint))?;
    let device = identity::load(&config.data_dir).map_err(|error| unusable(&error, hint))?;
    let tls = match config.tls.then(|| Tls::open(&config.data_dir)).transpose() {
        Ok(tls) => tls.map(Arc::new),
        Err(error) => return Err(unusable(&error, hint)),
    };
    let store =
        Store::open(&config.data_dir, config.disk, &shares).map_err(|error| match error {
            StoreError::Damaged(_) => {
                let ApiError { message, hint, .. } = error.into();
                unusable(&message, &hint)
            }
            error => unusable(&error, hint),
        })?;
    let (stored, expired) = (store.load_jobs(device).await, store.expired_jobs());

    let listener = net::bind(&config)
        .await
        .map_err(|error| cannot_listen(&config, &error))?;
    let port = listener
        .local_addr()
        .map_err(|error| cannot_listen(&config, &error))?
        .port();
    let addresses = net::urls::addresses(config.bind, port);
    let threads = config.threads;
    let mflops = tokio::task::spawn_blocking(move || compute::measure(threads))
        .await
        .expect("measuring does not panic");
    let incarnation = os::wall();
    let record = DeviceRecord {
        device,
        incarnation: incarnation.0,
        version: 0,
        name: config.name.clone(),
        kind: DeviceKind::Native,
        addresses: addresses.clone(),
        via: None,
        slots: threads,
        classes: classes(),
        mflops,
        state: DeviceState::Ready,
        since: incarnation,
        user_agent: format!(
            "gemmesh/{} ({} {}; {})",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH,
            gemmesh_kernel::peak::instance()
        ),
        stacks: true,
        residues: true,
        limits: TileLimits::default(),
    };
    let engine = Engine::new(
        Config {
            record,
            mesh: config.mesh.clone(),
            seed: u64::from_le_bytes(os::random()),
            memory: WorkerMemory {
                cache_bytes: shares.cache,
                resident_bytes: shares.resident,
                window_bytes: shares.cache - shares.resident,
                slab_bytes: shares.slab,
                tile_bytes: shares.tile,
                unsettled_bytes: shares.results / 2,
            },
            devices_max: DEVICES_MAX,
            backups: config.backups,
        },
        os::now(),
    );

    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let (outcome_sender, outcomes) = mpsc::unbounded_channel();
    let results = Share::new(shares.results);
    let slots = Slots::start(threads, &shares, &results, outcome_sender);
    let view = Arc::new(RwLock::new(View::default()));
    let (changes, _) = watch::channel(0);
    let app = App::new(Inner {
        device,
        store,
        port,
        events,
        view: view.clone(),
        changes: changes.clone(),
        links: AtomicU64::new(0),
        metrics: Metrics::new(),
        shares,
        results,
        client: net::client(),
        present: Present::default(),
        tls,
        healing: tokio::sync::Mutex::default(),
        shutdown: shutdown.clone(),
        config,
    });
    let parts = Parts {
        app: app.clone(),
        engine,
        events: receiver,
        outcomes,
        slots,
        view,
        changes,
    };
    let mut driver = Driver::new(parts);
    driver.restore(stored, expired);
    let driver = tokio::spawn(driver.run());

    for peer in &app.config().peers {
        app.tell(Event::Hint {
            address: peer.clone(),
            device: None,
            keep: true,
        })
        .await;
    }
    let discovery = if app.config().mdns {
        match net::discovery::start(app.clone()) {
            Ok(discovery) => Some(discovery),
            Err(error) => {
                tracing::warn!(%error, "no discovery; other nodes can be given with --peer");
                None
            }
        }
    } else {
        None
    };
    tokio::spawn(expire(app.clone()));
    tokio::spawn(follow_addresses(app.clone(), addresses));
    let server = tokio::spawn(net::serve(app.clone(), listener, shutdown));
    Ok(RunningNode {
        app,
        driver,
        server,
        discovery,
    })
}

impl RunningNode {
    /// Waits until the node was asked to stop, then says goodbye: leases are handed back, links
    /// are closed, the mDNS service is withdrawn.
    pub async fn stopped(self) {
        self.app.shutdown().cancelled().await;
        let (reply, left) = oneshot::channel();
        let goodbyes = async {
            if let Some(discovery) = self.discovery {
                discovery.goodbye().await;
            }
        };
        let leaving = async {
            if self.app.tell(Event::Leave { reply }).await {
                // The driver is gone only if it left already.
                let _ = left.await;
            }
            let _ = self.server.await;
        };
        let _ =
            tokio::time::timeout(GOODBYE_LIMIT, async { tokio::join!(goodbyes, leaving) }).await;
        self.driver.abort();
    }
}

/// Tells the mesh when this device is reached elsewhere: its network came up, or is another. `told` is what
/// it was told first. An address that is gone stays until there is another one.
async fn follow_addresses(app: App, mut told: Vec<String>) {
    let shutdown = app.shutdown();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(ADDRESSES_FRESH) => {}
        }
        let addresses = app.addresses();
        let local = |address: &String| {
            let address = address.parse::<std::net::SocketAddr>();
            address.is_ok_and(|address| address.ip().is_loopback())
        };
        if addresses != told && !addresses.iter().all(local) {
            tracing::info!(?addresses, "this node has other addresses now");
            told.clone_from(&addresses);
            app.tell(Event::Moved { addresses }).await;
        }
    }
}

/// Removes what has lived its time.
async fn expire(app: App) {
    let ttl = app.config().result_ttl;
    let interval = (ttl / 4).clamp(Duration::from_millis(250), Duration::from_secs(60));
    let shutdown = app.shutdown();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let jobs = app.store().expire(os::wall(), ttl).await;
        if !jobs.is_empty() {
            app.tell(Event::Forget { jobs }).await;
        }
    }
}

/// What every native node can do: the portable instance does all classes.
fn classes() -> Vec<KernelClass> {
    vec![
        KernelClass::Any,
        KernelClass::Fused,
        KernelClass::Separate,
        KernelClass::Exact,
    ]
}

fn too_little(config: &NodeConfig) -> ApiError {
    let (memory, threads) = (config.memory, config.threads);
    let least = Shares::least(threads) >> 20;
    ApiError::new(
        422,
        "too_little_memory",
        format!("{memory} bytes of memory are too little for {threads} threads: it takes {least}M"),
        format!("give the node at least --memory {least}M, or fewer --threads"),
    )
}

fn cannot_listen(config: &NodeConfig, error: &io::Error) -> ApiError {
    let host = config
        .bind
        .map_or_else(|| "every address".to_owned(), |ip: IpAddr| ip.to_string());
    let (message, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            format!("port {} is in use on {host}", config.port),
            "another node may be running; choose another port with --port, or 0 for any".to_owned(),
        ),
        _ => (
            format!("can not listen on port {} of {host}: {error}", config.port),
            "check --bind and --port".to_owned(),
        ),
    };
    ApiError::new(503, "can_not_listen", message, hint)
}
