//! What a node was told, resolved: no option is missing and none contradicts another.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The resolved configuration of a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// TCP port for HTTP and WebSockets; 0 lets the system choose.
    pub port: u16,
    /// The only address for HTTP and mDNS; `None` is all of them.
    pub bind: Option<IpAddr>,
    /// A name for people.
    pub name: String,
    /// Where identity, jobs and matrices live.
    pub data_dir: PathBuf,
    /// Devices of another mesh are refused.
    pub mesh: String,
    /// `HOST:PORT` of nodes that are dialled for ever.
    pub peers: Vec<String>,
    /// Announce and browse on mDNS.
    pub mdns: bool,
    /// Slots of the own worker.
    pub threads: u32,
    /// Peak resident size in bytes.
    pub memory: u64,
    /// Bytes that bodies and the store may take.
    pub disk: u64,
    /// Other nodes that are to hold what is needed to continue a job of this one, at most
    /// [`gemmesh_protocol::replication::BACKUPS_MAX`].
    pub backups: usize,
    /// How long results and unused matrices live.
    pub result_ttl: Duration,
    /// Answer https on the same port too.
    pub tls: bool,
    /// Further values of `Host` that are accepted.
    pub allow_hosts: Vec<String>,
}
