//! A helper that lies: it speaks the wire protocol perfectly and returns wrong tiles at once, so that it
//! would win every race. The product is right all the same, and the liar is found out.
#![cfg(target_os = "linux")]

use std::net::TcpStream;
use std::time::Duration;

use gemmesh_protocol::codec;
use gemmesh_protocol::id::DeviceId;
use gemmesh_protocol::job::{JobHeader, KernelClass};
use gemmesh_protocol::message::{DeviceRecord, Header, Hello, Message, VERSION, Work};
use gemmesh_protocol::status::{DeviceKind, DeviceState};
use gemmesh_protocol::time::WallTime;
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Node, Options, fresh_mesh};
use gemmesh_tests::raw;
use gemmesh_tests::wait::until;
use serde_json::json;
use tungstenite::WebSocket;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn zeros_are_refused() {
    check("zeros", |tile| tile.fill(0));
}

#[test]
fn nan_is_refused() {
    check("nan", |tile| fill(tile, f64::NAN));
}

#[test]
fn huge_numbers_are_refused() {
    check("huge", |tile| fill(tile, 1e300));
}

#[test]
fn infinities_of_the_wrong_sign_do_not_count() {
    // Random vectors can not tell one infinity from another: only the product can.
    let mesh = fresh_mesh();
    let node = Options::loopback("infinite", &mesh)
        .arg("--no-mdns")
        .start();
    let liar = Liar::join(&node, &mesh);
    node.api.await_devices(2);
    let lying = std::thread::spawn(move || liar.lie(|tile| fill(tile, f64::INFINITY)));

    // More than the node would rather do alone.
    let (rows, inner, cols) = (2_000, 1_900, 2_100);
    let (mut a, b) = (
        Matrix::random(rows, inner, 5),
        Matrix::random(inner, cols, 6),
    );
    for i in 0..rows {
        a.set(i, 3, f64::INFINITY);
    }
    let (a_id, b_id) = (node.api.matrix(&a.npy()), node.api.matrix(&b.npy()));
    until("a lie to be replaced", LIMIT, || {
        let job = node.api.multiply(&a_id, &b_id);
        let status = node.api.done(&job);
        let product = Matrix::from_npy(&node.api.result(&job, "npy"));
        for i in 0..rows {
            for j in 0..cols {
                let expected = f64::INFINITY * b.at(3, j);
                assert_eq!(product.at(i, j), expected, "[{i}, {j}] of {status:#}");
            }
        }
        let parts = status["contributions"].as_array().expect("a list");
        assert!(
            parts.iter().all(|part| part["name"] != "liar"),
            "nothing of the liar's counts: {status:#}"
        );
        if tiles(&node, "replaced") > 0 {
            Ok(())
        } else {
            Err(format!("{status:#}"))
        }
    });
    drop(node);
    lying.join().expect("the liar ends with its connection");
}

/// Runs a job of one honest node and a page that answers every lease with what `lie` makes.
fn check(name: &str, lie: impl Fn(&mut [u8]) + Send + 'static) {
    let mesh = fresh_mesh();
    let node = Options::loopback(name, &mesh).arg("--no-mdns").start();
    let liar = Liar::join(&node, &mesh);
    node.api.await_devices(2);
    let lying = std::thread::spawn(move || liar.lie(lie));

    // More than the node would rather do alone.
    let (a, b) = (
        Matrix::random(2_000, 1_900, 5),
        Matrix::random(1_900, 2_100, 6),
    );
    let (a_id, b_id) = (node.api.matrix(&a.npy()), node.api.matrix(&b.npy()));
    let mut refused = 0;
    // The liar must have returned something before it is fair to say that it was refused.
    until("a wrong tile to be refused", LIMIT, || {
        let job = node.api.multiply(&a_id, &b_id);
        let status = node.api.done(&job);
        Matrix::from_npy(&node.api.result(&job, "npy")).assert_is_product(&a, &b);
        let parts = status["contributions"].as_array().expect("a list");
        assert!(
            parts.iter().all(|part| part["name"] != "liar"),
            "nothing of the liar's is accepted: {status:#}"
        );
        refused = refused_tiles(&node);
        if refused > 0 {
            Ok(())
        } else {
            Err(format!("{status:#}"))
        }
    });

    // It gets no more work.
    let job = node.api.submit(&json!({"a": a_id, "b": b_id}));
    node.api.done(&job);
    assert_eq!(refused_tiles(&node), refused, "one lie is enough");
    drop(node);
    lying.join().expect("the liar ends with its connection");
}

struct Liar {
    socket: WebSocket<TcpStream>,
    me: DeviceId,
}

impl Liar {
    fn join(node: &Node, mesh: &str) -> Self {
        let me = DeviceId([0x11; 32]);
        let origin = format!("http://{}", node.api.address);
        let mut socket = raw::websocket(&node.api.address, "/ws", &[("Origin", &origin)])
            .expect("a page of this node");
        socket
            .get_ref()
            .set_read_timeout(Some(LIMIT))
            .expect("a timeout");
        let record = DeviceRecord {
            device: me,
            incarnation: 1,
            version: 0,
            name: "liar".to_owned(),
            kind: DeviceKind::Browser,
            addresses: Vec::new(),
            via: None,
            slots: 4,
            classes: vec![KernelClass::Any, KernelClass::Separate, KernelClass::Exact],
            // A tempting helper: most of the tiles are planned for it.
            mflops: 1e6,
            state: DeviceState::Ready,
            since: WallTime(0),
            user_agent: "liar".to_owned(),
            stacks: true,
        };
        let hello = Hello {
            version: VERSION,
            mesh: mesh.to_owned(),
            record,
            attach: true,
        };
        let header = Header {
            from: me,
            to: DeviceId([0; 32]),
            body: Message::Hello(hello),
        };
        let frame = codec::encode(&header, &[]);
        socket
            .send(tungstenite::Message::binary(frame))
            .expect("a connection");
        Self { socket, me }
    }

    /// Takes every lease it can get and answers at once, until the node hangs up.
    fn lie(mut self, lie: impl Fn(&mut [u8])) {
        let mut job: Option<Box<JobHeader>> = None;
        while let Ok(message) = self.socket.read() {
            let tungstenite::Message::Binary(frame) = message else {
                continue;
            };
            let (header, _) = codec::decode(&frame).expect("nodes speak the protocol");
            let to = header.from;
            match header.body {
                Message::Ping { nonce } => self.say(to, Message::Pong { nonce }, &[]),
                Message::Open { job, .. } => {
                    let (leases, header) = (8, true);
                    self.say(
                        to,
                        Message::Pull {
                            job,
                            leases,
                            header,
                        },
                        &[],
                    );
                }
                Message::Job(header) => job = Some(header),
                Message::Grants { epoch, grants, .. } => {
                    let Some(header) = &job else { continue };
                    for grant in grants {
                        let rect = header.tiling.rect(u64::from(grant.tile));
                        let mut tile = vec![0; (rect.rows * rect.cols * 8) as usize];
                        lie(&mut tile);
                        let result = Message::Result {
                            job: header.job,
                            epoch,
                            lease: grant.lease,
                            tile: grant.tile,
                            work: Work::default(),
                        };
                        self.say(to, result, &tile);
                    }
                }
                _ => {}
            }
        }
    }

    fn say(&mut self, to: DeviceId, body: Message, payload: &[u8]) {
        let header = Header {
            from: self.me,
            to,
            body,
        };
        let frame = codec::encode(&header, payload);
        // When the node has hung up, reading ends the loop.
        let _ = self.socket.send(tungstenite::Message::binary(frame));
    }
}

/// How many tiles the node has refused.
fn refused_tiles(node: &Node) -> u64 {
    tiles(node, "refused")
}

/// How many tiles of others had this outcome at the node, from its metrics.
fn tiles(node: &Node, outcome: &str) -> u64 {
    let text = node.api.get("/metrics").expect(200).text();
    let lines = text.lines().filter(|line| {
        line.starts_with("gemmesh_tiles_total") && line.contains(&format!("outcome=\"{outcome}\""))
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn fill(tile: &mut [u8], value: f64) {
    for element in tile.chunks_exact_mut(8) {
        element.copy_from_slice(&value.to_le_bytes());
    }
}
