//! A page by hand: it speaks the protocol of a helper, and does with its leases what a test wants.

use std::net::TcpStream;
use std::time::Duration;

use gemmesh_protocol::codec;
use gemmesh_protocol::id::DeviceId;
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::message::{DeviceRecord, Header, Hello, Message, VERSION};
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceKind, DeviceState};
use gemmesh_protocol::time::WallTime;
use tungstenite::WebSocket;

use crate::node::Node;
use crate::raw;

/// Something comes within this.
const LIMIT: Duration = Duration::from_secs(60);

/// A device that is attached to a node.
#[derive(Debug)]
pub struct Peer {
    socket: WebSocket<TcpStream>,
    me: DeviceId,
}

impl Peer {
    /// Joins a node's mesh with this name and this speed.
    ///
    /// # Panics
    /// When the node refuses the connection.
    #[track_caller]
    pub fn join(node: &Node, mesh: &str, name: &str, mflops: f64) -> Self {
        Self::join_as(DeviceId([0x11; 32]), node, mesh, name, mflops)
    }

    /// Joins as a certain device.
    ///
    /// # Panics
    /// When the node refuses the connection.
    #[track_caller]
    pub fn join_as(me: DeviceId, node: &Node, mesh: &str, name: &str, mflops: f64) -> Self {
        let origin = format!("http://{}", node.api.address);
        let socket = raw::websocket(&node.api.address, "/ws", &[("Origin", &origin)]);
        let socket = socket.expect("a page of this node");
        let timeout = socket.get_ref().set_read_timeout(Some(LIMIT));
        timeout.expect("a timeout");
        let record = DeviceRecord {
            device: me,
            incarnation: 1,
            version: 0,
            name: name.to_owned(),
            kind: DeviceKind::Browser,
            addresses: Vec::new(),
            via: None,
            slots: 4,
            classes: vec![KernelClass::Any, KernelClass::Separate, KernelClass::Exact],
            mflops,
            state: DeviceState::Ready,
            since: WallTime(0),
            user_agent: name.to_owned(),
            stacks: true,
            residues: true,
            limits: TileLimits::default(),
        };
        let hello = Hello {
            version: VERSION,
            mesh: mesh.to_owned(),
            record,
            attach: true,
        };
        let mut peer = Self { socket, me };
        peer.say(DeviceId([0; 32]), Message::Hello(hello), &[]);
        peer
    }

    /// The next message with its payload; pings are answered. `None` when the node has hung up.
    ///
    /// # Panics
    /// When the node does not speak the protocol.
    pub fn hear(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            let tungstenite::Message::Binary(frame) = self.socket.read().ok()? else {
                continue;
            };
            let (header, start) = codec::decode(&frame).expect("nodes speak the protocol");
            if let Message::Ping { nonce, .. } = header.body {
                self.say(header.from, Message::Pong { nonce }, &[]);
                continue;
            }
            return Some((header, frame[start..].to_vec()));
        }
    }

    /// Says something. When the node has hung up, [`Peer::hear`] tells.
    pub fn say(&mut self, to: DeviceId, body: Message, payload: &[u8]) {
        let header = Header {
            from: self.me,
            to,
            body,
        };
        let frame = codec::encode(&header, payload);
        let _ = self.socket.send(tungstenite::Message::binary(frame));
    }
}
