//! Four nodes, of which one at a time is killed and comes back.

use gemmesh_tests::node::{Node, Options, await_mesh, fresh_mesh};
use tempfile::TempDir;

/// How the nodes are called.
const NAMES: [&str; 4] = ["north", "east", "south", "west"];

/// The nodes and where their data is.
pub struct Mesh {
    name: String,
    dirs: Vec<TempDir>,
    /// In an order that stays.
    pub nodes: Vec<Node>,
}

impl Mesh {
    /// Starts all and waits until they know each other.
    pub fn start() -> Self {
        let place = || TempDir::with_prefix("gemmesh-takeover-").expect("a temporary directory");
        let mut mesh = Self {
            name: fresh_mesh(),
            dirs: NAMES.iter().map(|_| place()).collect(),
            nodes: Vec::new(),
        };
        for at in 0..NAMES.len() {
            let node = mesh.node(at);
            mesh.nodes.push(node);
        }
        mesh.await_all();
        mesh
    }

    /// A killed node again, with its data.
    pub fn restart(&mut self, at: usize) {
        self.nodes[at] = self.node(at);
        self.await_all();
    }

    /// All nodes but one.
    pub fn others(&self, at: usize) -> impl Iterator<Item = &Node> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(move |(other, node)| (other != at).then_some(node))
    }

    fn node(&self, at: usize) -> Node {
        // Results of earlier jobs go soon: they are large.
        let options = Options::loopback(NAMES[at], &self.name)
            .data_dir(self.dirs[at].path())
            .arg("--no-mdns")
            .arg("--memory=2GiB")
            .arg("--result-ttl=3m");
        let peers = self
            .others(at)
            .map(|node| format!("--peer={}", node.api.address));
        peers.fold(options, Options::arg).start()
    }

    fn await_all(&self) {
        await_mesh(&self.nodes.iter().collect::<Vec<_>>(), 0);
    }
}
