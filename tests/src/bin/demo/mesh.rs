//! Three nodes as processes of their own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Outcome, show};

/// What the nodes are called.
const NAMES: [&str; 3] = ["kitchen", "study", "attic"];
/// A node measures its kernel before it listens.
const START_LIMIT: Duration = Duration::from_secs(30);
/// mDNS answers within a second or two; a loaded machine takes longer.
const FIND_LIMIT: Duration = Duration::from_secs(30);
/// Leaving takes less than a second; a loaded machine takes longer.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);
/// How often states that have no event are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The nodes; what still runs when this is dropped is ended.
pub struct Mesh {
    program: PathBuf,
    nodes: Vec<Node>,
    http: reqwest::blocking::Client,
}

struct Node {
    name: &'static str,
    child: Child,
    url: String,
    log: PathBuf,
}

impl Mesh {
    /// Starts the nodes; none is told where the others are.
    pub fn start(program: &Path, dir: &Path) -> Outcome<Self> {
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build();
        let http = http.map_err(|error| error.to_string())?;
        let mut mesh = Self {
            program: program.to_owned(),
            nodes: Vec::new(),
            http,
        };
        let name = format!("demo-{}", std::process::id());
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / NAMES.len()).max(1);
        let mut starting = Vec::new();
        for node in NAMES {
            starting.push(spawn(program, dir, node, &name, threads, &mut mesh.nodes)?);
        }
        for (node, url) in mesh.nodes.iter_mut().zip(starting) {
            node.url = url.recv_timeout(START_LIMIT).map_err(|_| {
                format!("the node {} did not start\n{}", node.name, tail(&node.log))
            })?;
            show::line(&format!(
                "  {:<8} {}  process {}",
                node.name,
                node.url,
                node.child.id()
            ));
        }
        Ok(mesh)
    }

    /// Waits until each node knows of all three.
    pub fn wait_complete(&self) -> Outcome<()> {
        let begun = Instant::now();
        let mut known = vec![0; self.nodes.len()];
        while begun.elapsed() < FIND_LIMIT {
            for (count, node) in known.iter_mut().zip(&self.nodes) {
                *count = self.ready(&node.url)?;
            }
            if known.iter().all(|count| *count == NAMES.len()) {
                show::line(&format!(
                    "  all three found each other by mDNS in {:.1} s",
                    begun.elapsed().as_secs_f64()
                ));
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        Err(format!(
            "the nodes did not find each other within {} s (they know of {known:?} devices): multicast \
             on the loopback interface does not work here.\n  try: `sudo ip link set lo multicast on` \
             (Linux), or let UDP port 5353 through the firewall on this machine; \
             `gemmesh doctor --bind 127.0.0.1` tells more",
            FIND_LIMIT.as_secs()
        ))
    }

    fn ready(&self, url: &str) -> Outcome<usize> {
        let gone = |error: reqwest::Error| format!("the node at {url} does not answer: {error}");
        let answer = self
            .http
            .get(format!("{url}/api/nodes"))
            .send()
            .map_err(gone)?;
        let devices: Vec<Value> = answer.json().map_err(gone)?;
        let ready = |device: &&Value| matches!(device["state"].as_str(), Some("ready" | "busy"));
        Ok(devices.iter().filter(ready).count())
    }

    /// `gemmesh multiply` by way of the first node, with its progress bar; the job's status.
    pub fn multiply(&self, a: &Path, b: &Path, c: &Path) -> Outcome<Value> {
        let mut command = clean(&self.program);
        command.arg("multiply").args([a, b]).arg("-o").arg(c);
        command.args(["--node", &self.nodes[0].url, "--json"]);
        let shown = |path: &Path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let url = &self.nodes[0].url;
        show::line(&format!(
            "  $ gemmesh multiply {} {} -o {} --node {url}",
            shown(a),
            shown(b),
            shown(c)
        ));
        // Standard error stays the terminal's, for the bar.
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output();
        let output = output
            .map_err(|error| format!("{} can not be run: {error}", self.program.display()))?;
        if !output.status.success() {
            return Err(format!("`gemmesh multiply` ended with {}", output.status));
        }
        let status: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("`gemmesh multiply --json` printed no JSON: {error}"))?;
        if status["state"] != "done" {
            return Err(format!("the job is not done but {}", status["state"]));
        }
        Ok(status)
    }

    /// Asks each node to leave as Ctrl-C does; all must say goodbye and exit with 0.
    pub fn leave(mut self) -> Outcome<()> {
        let begun = Instant::now();
        for node in &mut self.nodes {
            interrupt(&mut node.child)?;
        }
        for node in &mut self.nodes {
            let status = loop {
                if let Some(status) = node.child.try_wait().map_err(|error| error.to_string())? {
                    break status;
                }
                if begun.elapsed() > LEAVE_LIMIT {
                    return Err(format!(
                        "the node {} did not leave\n{}",
                        node.name,
                        tail(&node.log)
                    ));
                }
                thread::sleep(LOOK / 10);
            };
            let asked = cfg!(unix);
            if asked && !status.success() {
                return Err(format!(
                    "the node {} ended with {status}\n{}",
                    node.name,
                    tail(&node.log)
                ));
            }
        }
        show::line(&format!(
            "  all three left with exit code 0 in {:.2} s",
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // One that has left already is no matter.
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

/// Starts one node; its URL arrives once it listens.
fn spawn(
    program: &Path,
    dir: &Path,
    name: &'static str,
    mesh: &str,
    threads: usize,
    nodes: &mut Vec<Node>,
) -> Outcome<mpsc::Receiver<String>> {
    let log = dir.join(format!("{name}.log"));
    let errors = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let mut command = clean(program);
    command.args([
        "serve",
        "--bind",
        "127.0.0.1",
        "--port",
        "0",
        "--name",
        name,
        "--mesh",
        mesh,
    ]);
    command
        .args(["--threads", &threads.to_string(), "--data-dir"])
        .arg(dir.join(name));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors);
    let mut child = command
        .spawn()
        .map_err(|error| format!("{} can not be run: {error}", program.display()))?;
    let stdout = child.stdout.take().expect("standard output is a pipe");
    nodes.push(Node {
        name,
        child,
        url: String::new(),
        log,
    });
    let (found, url) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if let Some(url) = line.trim().strip_prefix("http://127.0.0.1:") {
                let _ = found.send(format!("http://127.0.0.1:{}", url.trim_end_matches('/')));
                break;
            }
            line.clear();
        }
        // The pipe is read on, so that the node never waits for room in it.
        let _ = std::io::copy(&mut lines, &mut std::io::sink());
    });
    Ok(url)
}

/// The program without settings of this terminal.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GEMMESH_") {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(unix)]
fn interrupt(child: &mut Child) -> Outcome<()> {
    let command = format!("kill -INT {}", child.id());
    let status = Command::new("sh")
        .args(["-c", &command])
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!(
            "process {} had ended before it was asked to",
            child.id()
        ))
    }
}

/// Ctrl-C can not be sent to one process alone here.
#[cfg(not(unix))]
fn interrupt(child: &mut Child) -> Outcome<()> {
    child.kill().map_err(|error| error.to_string())
}

/// The last lines that a node logged.
fn tail(log: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = fs::File::open(log) {
        let _ = file.read_to_string(&mut text);
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    format!("  its log ends with:\n    {}", last.join("\n    "))
}
