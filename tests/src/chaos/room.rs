//! Five nodes on a bridge, and the faults carried out on them.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use tempfile::TempDir;

use super::plan::{Fault, Kind};
use crate::netns::{Host, Lan, Trouble};
use crate::node::{Api, Node, Options, fresh_mesh};
use crate::wait::until;

/// Their names, in order.
pub const NAMES: [&str; 5] = ["red", "green", "blue", "white", "black"];
/// The port of each.
const PORT: u16 = 8080;
/// Once everything is mended, the nodes are together again within this.
const TOGETHER_LIMIT: Duration = Duration::from_secs(60);

/// A fault as it was.
#[derive(Debug, Clone, Copy)]
pub struct Episode {
    /// What was planned.
    pub fault: Fault,
    /// When it began, in milliseconds of the wall clock.
    pub began: u64,
    /// When it ended; a node that was started again was not up yet then.
    pub ended: u64,
}

/// The nodes and their network.
pub struct Room {
    lan: Lan,
    hosts: Vec<Host>,
    apis: Vec<Api>,
    nodes: Vec<Option<Node>>,
    /// Faults that last, and when they began.
    active: Vec<(Fault, u64)>,
    episodes: Vec<Episode>,
    /// What happened that nobody did.
    surprises: Vec<String>,
    mesh: String,
    options: Vec<String>,
    data: TempDir,
    logs: PathBuf,
}

impl Room {
    /// Starts the nodes, with further options of `gemmesh serve`; their logs are to be in `logs`.
    ///
    /// # Panics
    /// When they do not find each other.
    pub fn open(logs: &Path, options: &[&str]) -> Self {
        std::fs::create_dir_all(logs).expect("a directory for logs");
        for name in NAMES {
            let _ = std::fs::remove_file(log_file(logs, name));
        }
        let mut lan = Lan::new();
        let hosts: Vec<Host> = NAMES.iter().map(|name| lan.host(name)).collect();
        let mut room = Self {
            apis: hosts.iter().map(|host| Api::on(host, PORT)).collect(),
            nodes: NAMES.iter().map(|_| None).collect(),
            active: Vec::new(),
            episodes: Vec::new(),
            surprises: Vec::new(),
            mesh: fresh_mesh(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            data: TempDir::with_prefix("gemmesh-chaos-").expect("a temporary directory"),
            logs: logs.to_owned(),
            lan,
            hosts,
        };
        for at in 0..NAMES.len() {
            room.start(at);
        }
        room.await_together();
        room
    }

    /// How a person at each device reaches its node.
    pub fn apis(&self) -> &[Api] {
        &self.apis
    }

    /// Where the log of a node is.
    pub fn log(&self, node: usize) -> PathBuf {
        log_file(&self.logs, NAMES[node])
    }

    /// The faults that have ended.
    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// Nodes that ended by themselves.
    pub fn surprises(&self) -> &[String] {
        &self.surprises
    }

    /// Starts a node that does not run; it is not waited for.
    pub fn start(&mut self, at: usize) {
        if self.nodes[at].is_some() {
            return;
        }
        let (host, name) = (&self.hosts[at], NAMES[at]);
        let options = Options::on(host, name, &self.mesh);
        let options = self.options.iter().fold(options, Options::arg);
        let node = options
            .data_dir(&self.data.path().join(name))
            .log_to(&log_file(&self.logs, name))
            // What the judges read, and nothing of the libraries.
            .arg("--log-level=off,gemmesh_node=debug")
            .arg("--log-format=json")
            .spawn();
        self.nodes[at] = Some(node);
    }

    /// `kill -9`.
    pub fn kill(&mut self, at: usize) {
        self.notice(at);
        if let Some(mut node) = self.nodes[at].take() {
            node.kill();
        }
    }

    fn signal(&mut self, at: usize, signal: Signal) {
        self.notice(at);
        if let Some(node) = &self.nodes[at] {
            node.signal(signal);
        }
    }

    /// A node that has ended by itself is written down, and started again.
    pub fn notice(&mut self, at: usize) {
        let ended = self.nodes[at].as_mut().and_then(Node::ended);
        if let Some(status) = ended {
            let name = NAMES[at];
            self.surprises
                .push(format!("node {name} ended by itself: {status}"));
            self.nodes[at] = None;
            self.start(at);
        }
    }

    /// A fault begins.
    pub fn begin(&mut self, fault: Fault) {
        match fault.kind {
            Kind::Kill => self.kill(fault.node),
            Kind::PowerCut => (0..NAMES.len()).for_each(|at| self.kill(at)),
            Kind::Pause => self.signal(fault.node, Signal::STOP),
            Kind::LinkDown => self.hosts[fault.node].set_link(false),
            Kind::Partition | Kind::OneWay | Kind::Loss5 | Kind::Loss30 => {}
        }
        self.active.push((fault, now()));
        self.set_trouble();
    }

    /// A fault ends.
    pub fn end(&mut self, fault: Fault) {
        match fault.kind {
            Kind::Kill => self.start(fault.node),
            Kind::PowerCut => (0..NAMES.len()).for_each(|at| self.start(at)),
            Kind::Pause => self.signal(fault.node, Signal::CONT),
            Kind::LinkDown => self.hosts[fault.node].set_link(true),
            Kind::Partition | Kind::OneWay | Kind::Loss5 | Kind::Loss30 => {}
        }
        if let Some(at) = self.active.iter().position(|(other, _)| *other == fault) {
            let (fault, began) = self.active.remove(at);
            let ended = now();
            self.episodes.push(Episode {
                fault,
                began,
                ended,
            });
        }
        self.set_trouble();
    }

    fn set_trouble(&self) {
        let mut trouble = Trouble::default();
        let port = |node: usize| self.hosts[node].port;
        for (fault, _) in &self.active {
            let (from, to) = (port(fault.node), port(fault.other));
            match fault.kind {
                Kind::Partition => trouble.cut.extend([(from, to), (to, from)]),
                Kind::OneWay => trouble.cut.extend([(from, to)]),
                Kind::Loss5 => trouble.loss.extend([(from, 5)]),
                Kind::Loss30 => trouble.loss.extend([(from, 30)]),
                Kind::Kill | Kind::Pause | Kind::LinkDown | Kind::PowerCut => {}
            }
        }
        self.lan.set_trouble(&trouble);
    }

    /// Ends what lasts, and waits until all nodes are together.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn heal(&mut self) {
        for (fault, _) in self.active.clone() {
            self.end(fault);
        }
        for at in 0..NAMES.len() {
            self.notice(at);
            self.start(at);
        }
        self.await_together();
    }

    fn await_together(&self) {
        for (at, api) in self.apis.iter().enumerate() {
            let api = api.within(Duration::from_secs(5));
            let what = format!("{} to be together with all", NAMES[at]);
            until(&what, TOGETHER_LIMIT, || {
                let reply = api.try_get("/api/nodes")?;
                let text = reply.text();
                let seen = reply.json();
                let list = seen.as_array().ok_or_else(|| text.clone())?;
                let there = list.iter().filter(|entry| entry["state"] != "lost").count();
                (there == NAMES.len()).then_some(()).ok_or(text)
            });
        }
    }
}

fn log_file(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{name}.log"))
}

/// The wall clock, in milliseconds.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
