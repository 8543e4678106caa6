//! A network in network namespaces: hosts with addresses of their own on one bridge. Needs root and the
//! programs `ip` and `nft`. Nothing outside these namespaces is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps its namespaces.
const DIRECTORY: &str = "/run/netns";
/// What the names of ours begin with; the process id follows.
const PREFIX: &str = "gemmesh-test-";

/// Whether tests in namespaces run; if not, it says so.
///
/// # Panics
/// When they can not run here and the person has not asked to leave them out.
pub fn available() -> bool {
    if std::env::var_os("GEMMESH_SKIP_NETNS").is_some_and(|value| value == "1") {
        eprintln!("left out, because GEMMESH_SKIP_NETNS=1: this test needs network namespaces");
        return false;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes network namespaces, which takes root: run as root, or leave it out with \
         GEMMESH_SKIP_NETNS=1"
    );
    true
}

/// A bridge and the hosts on it. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Lan {
    switch: Arc<Namespace>,
    hosts: u8,
}

impl Lan {
    /// A network without hosts.
    ///
    /// # Panics
    /// When the system refuses.
    #[expect(clippy::new_without_default, reason = "it changes the system")]
    pub fn new() -> Self {
        remove_abandoned();
        let switch = Namespace::new("switch");
        switch.ip(&["link", "add", "bridge", "type", "bridge"]);
        switch.ip(&["link", "set", "bridge", "up"]);
        Self {
            switch: Arc::new(switch),
            hosts: 0,
        }
    }

    /// A further host, with the address 10.83.0.N.
    pub fn host(&mut self, name: &str) -> Host {
        self.hosts += 1;
        let address = Ipv4Addr::new(10, 83, 0, self.hosts);
        let namespace = Namespace::new(name);
        let port = format!("port{}", self.hosts);
        let switch = self.switch.name.as_str();
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace.ip(&[
            "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", switch,
        ]);
        self.switch
            .ip(&["link", "set", &port, "master", "bridge", "up"]);
        namespace.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"]);
        namespace.ip(&["link", "set", "eth0", "up"]);
        Host {
            address,
            port: self.hosts,
            namespace: Arc::new(namespace),
            _switch: self.switch.clone(),
        }
    }

    /// What is wrong with the bridge from now on, instead of what was before. Everything on it is meant,
    /// multicast too; a host always reaches itself.
    pub fn set_trouble(&self, trouble: &Trouble) {
        // One transaction: there is no moment without rules.
        let mut rules = String::from(
            "table bridge gemmesh\ndelete table bridge gemmesh\ntable bridge gemmesh {\n\
             chain forward {\ntype filter hook forward priority 0; policy accept;\n",
        );
        for (from, to) in &trouble.cut {
            let _ = writeln!(
                rules,
                "iifname \"port{from}\" oifname \"port{to}\" counter drop"
            );
        }
        for (host, percent) in &trouble.loss {
            for way in ["iifname", "oifname"] {
                let _ = writeln!(
                    rules,
                    "{way} \"port{host}\" numgen random mod 100 < {percent} counter drop"
                );
            }
        }
        rules.push_str("}\n}\n");
        self.switch.run(|| {
            let mut command = Command::new("nft");
            command.args(["-f", "-"]).stdin(Stdio::piped());
            let mut child = command
                .spawn()
                .unwrap_or_else(|error| panic!("nft: {error}; see `make test`"));
            let mut stdin = child.stdin.take().expect("a pipe");
            stdin.write_all(rules.as_bytes()).expect("nft reads");
            drop(stdin);
            let status = child.wait().expect("a child of ours");
            assert!(status.success(), "nft refuses {rules}");
        });
    }
}

/// What is wrong with the bridge of a [`Lan`]. Hosts are named by [`Host::port`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// From which host to which no packet passes.
    pub cut: BTreeSet<(u8, u8)>,
    /// Of which host how many packets of a hundred are lost at random, each way.
    pub loss: BTreeMap<u8, u8>,
}

/// A host of a [`Lan`].
#[derive(Debug, Clone)]
pub struct Host {
    /// Its address on the bridge.
    pub address: Ipv4Addr,
    /// Its place on the bridge, from 1.
    pub port: u8,
    namespace: Arc<Namespace>,
    _switch: Arc<Namespace>,
}

impl Host {
    /// Runs `work` on this host: its sockets, and the processes that it starts, are in the host's
    /// network.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work)
    }

    /// Takes its network interface down, as when Wi-Fi is switched off, or up again.
    pub fn set_link(&self, up: bool) {
        let state = if up { "up" } else { "down" };
        self.namespace.ip(&["link", "set", "eth0", state]);
    }

    /// Drops mDNS (UDP port 5353) in both directions and counts what it dropped.
    pub fn drop_mdns(&self) {
        self.nft("add table inet gemmesh");
        for (hook, port) in [("input", "dport"), ("output", "dport")] {
            self.nft(&format!(
                "add chain inet gemmesh {hook} {{ type filter hook {hook} priority 0 ; }}"
            ));
            self.nft(&format!(
                "add rule inet gemmesh {hook} udp {port} 5353 counter drop"
            ));
        }
    }

    /// Takes [`Host::drop_mdns`] back.
    pub fn allow_mdns(&self) {
        self.nft("delete table inet gemmesh");
    }

    /// How many packets of mDNS this host tried to send since [`Host::drop_mdns`].
    ///
    /// # Panics
    /// When mDNS is not dropped.
    pub fn mdns_dropped(&self) -> u64 {
        let rules = self.nft("list chain inet gemmesh output");
        let count = rules
            .split("packets ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        count
            .and_then(|count| count.parse().ok())
            .unwrap_or_else(|| panic!("a counter in {rules}"))
    }

    fn nft(&self, rule: &str) -> String {
        self.run(|| output(Command::new("nft").arg(rule)))
    }
}

#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &name]));
        Self { name }
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let name = &self.name;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(PathBuf::from(DIRECTORY).join(name)).expect("the namespace");
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&file),
                    Some(LinkNameSpaceType::Network),
                )
                .expect("root may enter it");
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn ip(&self, args: &[&str]) {
        output(Command::new("ip").args(["-n", &self.name]).args(args));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its interfaces go with it.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Removes what test runs that were killed have left.
fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let pid = rest.split('-').next().unwrap_or_default();
        if !PathBuf::from("/proc").join(pid).exists() {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn output(command: &mut Command) -> String {
    let result = command.output();
    let result = result.unwrap_or_else(|error| panic!("{command:?}: {error}; see `make test`"));
    let errors = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&result.stdout).into_owned()
}
