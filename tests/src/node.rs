//! A node as a process, and its HTTP interface.

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

#[cfg(target_os = "linux")]
use crate::netns::Host;
use crate::wait::until;

/// A node is up within this; a busy machine is slow.
pub const START_LIMIT: Duration = Duration::from_secs(20);
/// Devices find each other within this.
pub const FIND_LIMIT: Duration = Duration::from_secs(30);
/// A job of these tests ends within this.
pub const JOB_LIMIT: Duration = Duration::from_secs(120);

/// An answer comes within this.
const REQUEST_LIMIT: Duration = Duration::from_secs(150);

/// A mesh name that no other test uses.
pub fn fresh_mesh() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id())
}

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Options {
    name: String,
    mesh: String,
    bind: Option<IpAddr>,
    port: u16,
    args: Vec<String>,
    data: Option<PathBuf>,
    log: Option<PathBuf>,
    #[cfg(target_os = "linux")]
    host: Option<Host>,
}

impl Options {
    /// A node on the loopback address alone, on any free port, with one thread.
    pub fn loopback(name: &str, mesh: &str) -> Self {
        Self {
            name: name.to_owned(),
            mesh: mesh.to_owned(),
            bind: Some(IpAddr::from([127, 0, 0, 1])),
            port: 0,
            args: vec!["--threads=1".to_owned()],
            data: None,
            log: None,
            #[cfg(target_os = "linux")]
            host: None,
        }
    }

    /// A node as a person starts it, on a host of a test network.
    #[cfg(target_os = "linux")]
    pub fn on(host: &Host, name: &str, mesh: &str) -> Self {
        Self {
            bind: None,
            port: 8080,
            host: Some(host.clone()),
            ..Self::loopback(name, mesh)
        }
    }

    /// A further option of `gemmesh serve`.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// So many threads instead of one.
    #[must_use]
    pub fn threads(mut self, count: u32) -> Self {
        self.args.retain(|arg| !arg.starts_with("--threads="));
        self.arg(format!("--threads={count}"))
    }

    /// A certain port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// A data directory that outlives the node.
    #[must_use]
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data = Some(dir.to_owned());
        self
    }

    /// A file that its log is added to, and that outlives the node; it is not printed when a test fails.
    #[must_use]
    pub fn log_to(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// Starts the node and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time; its log is printed.
    pub fn start(self) -> Node {
        let port = self.port;
        let mut node = Node::spawn(self);
        node.api.address = until("the node to listen", START_LIMIT, || node.published());
        #[cfg(target_os = "linux")]
        if let Some(host) = &node.api.host {
            node.api.address = format!("{}:{port}", host.address);
        }
        node.await_ready();
        node
    }

    /// Starts the node, which is on a host of a test network and has a port of its own, and does not wait
    /// for it.
    ///
    /// # Panics
    /// When the program can not be started.
    #[cfg(target_os = "linux")]
    pub fn spawn(self) -> Node {
        let port = self.port;
        let mut node = Node::spawn(self);
        let host = node.api.host.as_ref().expect("a host of a test network");
        node.api.address = format!("{}:{port}", host.address);
        node
    }
}

/// A running node. Killed when dropped; its log is printed when that happens in a failing test.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The mesh that it belongs to.
    pub mesh: String,
    /// Its HTTP interface.
    pub api: Api,
    child: Child,
    data: PathBuf,
    log: PathBuf,
    // Nobody else keeps the log.
    log_is_own: bool,
    // Removed after the process has ended.
    _own: Vec<TempDir>,
}

impl Node {
    fn spawn(options: Options) -> Self {
        let own = TempDir::with_prefix("gemmesh-test-").expect("a temporary directory");
        let data = options.data.unwrap_or_else(|| own.path().join("data"));
        let log_is_own = options.log.is_none();
        let log = own.path().join(format!("{}.log", options.name));
        let log = options.log.unwrap_or(log);
        let log_file = OpenOptions::new().create(true).append(true).open(&log);
        let mut command = Command::new(crate::bin());
        command
            .arg("serve")
            .args(["--name", &options.name, "--mesh", &options.mesh])
            .arg(format!("--port={}", options.port))
            .arg("--data-dir")
            .arg(&data)
            .args(&options.args)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(File::create(own.path().join("stdout")).expect("a file for its output"))
            .stderr(log_file.expect("a file for its log"));
        for (name, _) in std::env::vars_os() {
            // What the person has set for their own node is not for this one.
            if name.to_string_lossy().starts_with("GEMMESH_") {
                command.env_remove(name);
            }
        }
        if let Some(bind) = options.bind {
            command.arg(format!("--bind={bind}"));
        }
        #[cfg(target_os = "linux")]
        let child = match &options.host {
            Some(host) => host.run(|| command.spawn()),
            None => command.spawn(),
        };
        #[cfg(not(target_os = "linux"))]
        let child = command.spawn();
        let child = child.expect("the program starts");
        #[cfg(target_os = "linux")]
        let api = Api {
            address: String::new(),
            limit: REQUEST_LIMIT,
            host: options.host,
        };
        #[cfg(not(target_os = "linux"))]
        let api = Api {
            address: String::new(),
            limit: REQUEST_LIMIT,
        };
        Self {
            name: options.name,
            mesh: options.mesh,
            api,
            child,
            data,
            log,
            log_is_own,
            _own: vec![own],
        }
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn await_ready(&self) {
        until("the node to be ready", START_LIMIT, || {
            let reply = self.api.try_get("/readyz")?;
            (reply.status == 200).then_some(()).ok_or(reply.text())
        });
    }

    /// What the node wrote about itself into its data directory.
    fn published(&mut self) -> Result<String, String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("node {} ended at once: {status}", self.name);
        }
        let text = fs::read_to_string(self.data.join("node.json")).map_err(|e| e.to_string())?;
        let note: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let address = note["address"]
            .as_str()
            .filter(|_| note["pid"] == self.child.id());
        address.map(str::to_owned).ok_or(text)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its data is.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its id.
    pub fn device(&self) -> String {
        let devices = self.api.devices();
        let own = devices
            .iter()
            .find(|device| device["name"] == self.name.as_str());
        let own = own.unwrap_or_else(|| panic!("{} is not in its own list", self.name));
        own["device"].as_str().expect("an id").to_owned()
    }

    /// What Ctrl-C does; returns how it ended and after how long.
    ///
    /// # Panics
    /// When it has not ended within 10 s.
    #[cfg(target_os = "linux")]
    pub fn interrupt(&mut self) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        self.signal(rustix::process::Signal::INT);
        let status = until("the node to end", Duration::from_secs(10), || {
            let ended = self.child.try_wait().expect("a child of ours");
            ended.ok_or_else(|| "it still runs".to_owned())
        });
        (status, begin.elapsed())
    }

    /// Sends a signal.
    #[cfg(target_os = "linux")]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a child of ours");
    }

    /// As if the power went: no goodbye.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Peak resident size in bytes.
    ///
    /// # Panics
    /// When the system does not tell.
    #[cfg(target_os = "linux")]
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line
            .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .expect("a number of KiB");
        kib << 10
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() && self.log_is_own {
            eprintln!("--- log of node {} ---\n{}---", self.name, self.log());
        }
    }
}

/// An answer over HTTP.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        format!("{}: {}", self.status, String::from_utf8_lossy(&self.body))
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The body of an answer with this status.
    ///
    /// # Panics
    /// When the status is another.
    #[track_caller]
    pub fn expect(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// The HTTP interface of a node, used as any program would. Every request has a connection of its own.
#[derive(Debug, Clone)]
pub struct Api {
    /// `HOST:PORT`.
    pub address: String,
    limit: Duration,
    #[cfg(target_os = "linux")]
    host: Option<Host>,
}

impl Api {
    /// The same, for one who waits no longer than this for an answer.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            limit,
            ..self.clone()
        }
    }

    /// Where a node on a host of a test network answers, from that host.
    #[cfg(target_os = "linux")]
    pub fn on(host: &Host, port: u16) -> Self {
        Self {
            host: Some(host.clone()),
            ..Self::at(&format!("{}:{port}", host.address))
        }
    }

    /// The interface at an address reached from this process.
    pub fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            limit: REQUEST_LIMIT,
            #[cfg(target_os = "linux")]
            host: None,
        }
    }

    /// One request; the error says why there was no answer.
    ///
    /// # Errors
    /// Nothing answered.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply, String> {
        let send = || {
            let client = reqwest::blocking::Client::builder()
                .timeout(self.limit)
                .no_proxy()
                .build()
                .map_err(|error| format!("{error:?}"))?;
            let method = method.parse().expect("a method");
            let mut request = client.request(method, format!("http://{}{path}", self.address));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let response = request.body(body).send().map_err(|e| format!("{e:?}"))?;
            let status = response.status().as_u16();
            let body = response.bytes().map_err(|e| format!("{e:?}"))?.to_vec();
            Ok(Reply { status, body })
        };
        #[cfg(target_os = "linux")]
        if let Some(host) = &self.host {
            return host.run(send);
        }
        send()
    }

    /// GET.
    ///
    /// # Errors
    /// Nothing answered.
    pub fn try_get(&self, path: &str) -> Result<Reply, String> {
        self.request("GET", path, &[], Vec::new())
    }

    /// GET.
    ///
    /// # Panics
    /// When nothing answers.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        let reply = self.try_get(path);
        reply.unwrap_or_else(|error| panic!("GET {}{path}: {error}", self.address))
    }

    /// POST of JSON.
    ///
    /// # Panics
    /// When nothing answers.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        let headers = [("content-type", "application/json")];
        let reply = self.request("POST", path, &headers, body.to_string().into_bytes());
        reply.unwrap_or_else(|error| panic!("POST {}{path}: {error}", self.address))
    }

    /// DELETE.
    ///
    /// # Panics
    /// When nothing answers.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Reply {
        let reply = self.request("DELETE", path, &[], Vec::new());
        reply.unwrap_or_else(|error| panic!("DELETE {}{path}: {error}", self.address))
    }

    /// PUT of a matrix; the format is for the node to find out.
    ///
    /// # Panics
    /// When nothing answers.
    #[track_caller]
    pub fn put_matrix(&self, body: &[u8]) -> Reply {
        let reply = self.request("PUT", "/api/matrices", &[], body.to_vec());
        reply.unwrap_or_else(|error| panic!("PUT {}/api/matrices: {error}", self.address))
    }

    /// Stores a matrix that is fine; its id.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn matrix(&self, body: &[u8]) -> String {
        let stored = self.put_matrix(body).expect(201).json();
        stored["id"].as_str().expect("an id").to_owned()
    }

    /// Submits a job that is fine; its id.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn submit(&self, request: &Value) -> String {
        let accepted = self.post("/api/jobs", request).expect(202).json();
        accepted["job"].as_str().expect("an id").to_owned()
    }

    /// The product of two stored matrices, or of nested arrays; the job's id.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn multiply(&self, a: &str, b: &str) -> String {
        self.submit(&json!({"a": a, "b": b}))
    }

    /// The status of a job.
    ///
    /// # Panics
    /// When the node does not know it.
    #[track_caller]
    pub fn job(&self, job: &str) -> Value {
        self.get(&format!("/api/jobs/{job}")).expect(200).json()
    }

    /// The status of a job when it has ended.
    ///
    /// # Panics
    /// When it has not ended within `limit`.
    #[track_caller]
    pub fn ended(&self, job: &str, limit: Duration) -> Value {
        let begin = Instant::now();
        loop {
            let status = self
                .get(&format!("/api/jobs/{job}?wait=10"))
                .expect(200)
                .json();
            let state = status["state"].as_str().expect("a state");
            if matches!(state, "done" | "failed" | "cancelled") {
                return status;
            }
            assert!(
                begin.elapsed() < limit,
                "job {job} has not ended: {status:#}"
            );
        }
    }

    /// The status of a job that must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn done(&self, job: &str) -> Value {
        let status = self.ended(job, JOB_LIMIT);
        assert_eq!(status["state"], "done", "{status:#}");
        status
    }

    /// The result of a job.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn result(&self, job: &str, format: &str) -> Vec<u8> {
        let reply = self.get(&format!("/api/jobs/{job}/result?format={format}"));
        reply.expect(200).body.clone()
    }

    /// The devices of the mesh.
    ///
    /// # Panics
    /// When the node does not say.
    #[track_caller]
    pub fn devices(&self) -> Vec<Value> {
        let list = self.get("/api/nodes").expect(200).json();
        list.as_array().expect("a list").clone()
    }

    /// Waits until the mesh has exactly this many devices that are there.
    ///
    /// # Panics
    /// When it has not in time.
    #[track_caller]
    pub fn await_devices(&self, count: usize) -> Vec<Value> {
        until(&format!("{count} devices in the mesh"), FIND_LIMIT, || {
            let mut devices = self.devices();
            devices.retain(|device| device["state"] != "lost");
            if devices.len() == count {
                Ok(devices)
            } else {
                Err(format!("{devices:?}"))
            }
        })
    }
}

/// Waits until each of these nodes sees all of them, and `pages` pages.
///
/// # Panics
/// When they do not in time.
#[track_caller]
pub fn await_mesh(nodes: &[&Node], pages: usize) {
    for node in nodes {
        node.api.await_devices(nodes.len() + pages);
    }
}
