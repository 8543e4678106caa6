//! A node is closed to other web sites and does not mind hostile neighbours.
#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use gemmesh_protocol::codec;
use gemmesh_protocol::id::DeviceId;
use gemmesh_protocol::message::{DeviceRecord, Header, Hello, Message, VERSION};
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceKind, DeviceState};
use gemmesh_protocol::time::WallTime;
use gemmesh_tests::node::{Node, Options, fresh_mesh};
use gemmesh_tests::raw;
use gemmesh_tests::wait::until;
use serde_json::json;

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW",
];
const PATHS: [&str; 9] = [
    "/",
    "/api/jobs",
    "/api/matrices",
    "/api/nodes",
    "/nodes/register",
    "/healthz",
    "/metrics",
    "/ws",
    "/kitchen",
];
/// What makes a request an upgrade.
const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn a_host_that_is_not_this_node_is_refused_whatever_the_method() {
    let node = closed_node();
    let address = node.api.address.as_str();
    let port = address.rsplit(':').next().expect("a port");
    let bad = [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("192.0.2.7:{port}"),
        format!("other.local:{port}"),
        "0.0.0.0".to_owned(),
        "127.1".to_owned(),
        "2130706433".to_owned(),
    ];
    for host in &bad {
        for method in METHODS {
            for path in PATHS {
                let (status, answer) = raw::request(address, method, path, &[("Host", host)]);
                assert_eq!(status, 403, "{method} {path} for {host:?}: {answer}");
            }
        }
        let headers = [&[("Host", host.as_str())], &UPGRADE[..]].concat();
        for path in ["/ws", "/mesh"] {
            let (status, answer) = raw::request(address, "GET", path, &headers);
            assert_eq!(status, 403, "upgrade of {path} for {host:?}: {answer}");
        }
    }
    for malformed in [
        "",
        "127.0.0.1@evil.example",
        "[::1",
        "127.0.0.1:port",
        "a b",
    ] {
        for method in METHODS {
            let (status, answer) = raw::request(address, method, "/", &[("Host", malformed)]);
            assert!(
                [400, 403].contains(&status),
                "{method} for {malformed:?}: {answer}"
            );
        }
    }
    let (status, answer) = raw::request(address, "GET", "/healthz", &[]);
    assert!([400, 403].contains(&status), "no Host at all: {answer}");
    let both = [("Host", address), ("Host", "evil.example")];
    let (status, answer) = raw::request(address, "GET", "/healthz", &both);
    assert!([400, 403].contains(&status), "two Hosts: {answer}");
    let (status, answer) = raw::request(
        address,
        "GET",
        "http://evil.example/healthz",
        &[("Host", address)],
    );
    assert!(
        [400, 403].contains(&status),
        "another authority in the target: {answer}"
    );

    for host in [
        address.to_owned(),
        format!("localhost:{port}"),
        format!("closed.local:{port}"),
        format!("gemmesh.example:{port}"),
    ] {
        let (status, answer) = raw::request(address, "GET", "/healthz", &[("Host", &host)]);
        assert_eq!(status, 200, "{host}: {answer}");
    }
}

#[test]
fn an_origin_that_is_not_this_node_is_refused_whatever_the_method() {
    let node = closed_node();
    let address = node.api.address.as_str();
    let port: u16 = address
        .rsplit(':')
        .next()
        .and_then(|p| p.parse().ok())
        .expect("a port");
    let bad = [
        "http://evil.example".to_owned(),
        format!("http://evil.example:{port}"),
        format!("http://{address}.evil.example"),
        format!("http://127.0.0.1:{}", port ^ 1),
        "http://127.0.0.1".to_owned(),
        "http://192.0.2.7:8080".to_owned(),
        "null".to_owned(),
        "file://".to_owned(),
        "kitchen".to_owned(),
        String::new(),
    ];
    for origin in &bad {
        let headers = [("Host", address), ("Origin", origin.as_str())];
        for method in METHODS {
            for path in PATHS {
                let (status, answer) = raw::request(address, method, path, &headers);
                assert_eq!(status, 403, "{method} {path} from {origin:?}: {answer}");
            }
        }
        for path in ["/ws", "/mesh"] {
            let refused = raw::websocket(address, path, &[("origin", origin)]).err();
            assert_eq!(refused, Some(403), "upgrade of {path} from {origin:?}");
        }
        // What a page on another site would send for real: a form, and what precedes a fetch.
        let form = [
            &headers[..],
            &[("Content-Type", "text/plain"), ("Content-Length", "0")],
        ]
        .concat();
        let (status, answer) = raw::request(address, "POST", "/api/jobs", &form);
        assert_eq!(status, 403, "a form from {origin:?}: {answer}");
        let preflight = [&headers[..], &[("Access-Control-Request-Method", "DELETE")]].concat();
        let (status, answer) = raw::request(address, "OPTIONS", "/api/jobs", &preflight);
        assert_eq!(status, 403, "a preflight from {origin:?}: {answer}");
        assert!(
            !answer.to_lowercase().contains("access-control-allow"),
            "{answer}"
        );
    }

    let own = format!("http://{address}");
    let headers = [("Host", address), ("Origin", own.as_str())];
    let (status, answer) = raw::request(address, "GET", "/api/jobs", &headers);
    assert_eq!(status, 200, "its own page: {answer}");
    assert!(
        raw::websocket(address, "/ws", &[("origin", &own)]).is_ok(),
        "its own page"
    );
    // Nodes are no browsers: where there is an Origin there is a page.
    assert_eq!(
        raw::websocket(address, "/mesh", &[("origin", &own)]).err(),
        Some(403)
    );
    assert!(raw::websocket(address, "/mesh", &[]).is_ok());
}

#[test]
fn floods_of_headers_and_of_idle_connections_lock_nobody_out() {
    let node = closed_node();
    let address = node.api.address.as_str();
    let many: String = (0..2_000).map(|i| format!("X-{i}: {i}\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "x".repeat(1 << 20));
    for headers in [many, long] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        let (status, answer) = raw::exchange(address, request.as_bytes());
        let refused = status == 0 || (400..500).contains(&status);
        assert!(refused, "{}", &answer[..answer.len().min(200)]);
    }

    // Half a request each, and more of them than the node keeps connections.
    let mut idle = Vec::new();
    for _ in 0..700 {
        let mut stream = raw::connect(address);
        // One that was dropped already to make room for others refuses more.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: ");
        idle.push(stream);
    }
    assert_eq!(
        node.api.get("/healthz").status,
        200,
        "others are served meanwhile"
    );
    let last = idle.last_mut().expect("one of many");
    assert!(
        raw::hangs_up(last),
        "half a request does not keep a connection open"
    );
    drop(idle);
    assert_works(&node);
}

#[test]
fn malformed_frames_end_their_link_and_nothing_else() {
    let node = closed_node();
    let address = node.api.address.as_str();
    let own = format!("http://{address}");
    let deep = {
        let mut bytes = vec![0x91; 100_000];
        bytes[0] = 0x92;
        bytes
    };
    let hello = |record: DeviceRecord| hello(&mesh_of(&node), record);
    let frames: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("random bytes", (0..=255).collect()),
        ("deep nesting", deep),
        ("a huge length", vec![0x92, 0xc6, 0xff, 0xff, 0xff, 0xff]),
        ("a huge map", vec![0x92, 0xdf, 0xff, 0xff, 0xff, 0xff]),
        ("a huge array", vec![0xdd, 0xff, 0xff, 0xff, 0xff]),
        ("a frame above any bound", vec![0x92; 1 << 20]),
        (
            "a ping before any hello",
            codec::encode(&from(1, Message::ping(1)), &[]),
        ),
        ("a hello cut short", {
            let mut frame = hello(record(1, "cut"));
            frame.truncate(frame.len() / 2);
            frame
        }),
    ];
    for (path, origin) in [("/ws", Some(own.as_str())), ("/mesh", None)] {
        for (what, frame) in &frames {
            let headers: Vec<(&'static str, &str)> =
                origin.map(|own| ("origin", own)).into_iter().collect();
            let mut socket = raw::websocket(address, path, &headers).expect("an open door");
            assert!(
                raw::ends_after(&mut socket, frame.clone()),
                "{what} on {path}"
            );
        }
        // A link on which nobody says anything does not stay either.
        let headers: Vec<(&'static str, &str)> =
            origin.map(|own| ("origin", own)).into_iter().collect();
        let mut socket = raw::websocket(address, path, &headers).expect("an open door");
        assert!(raw::hangs_up(socket.get_mut()), "silence on {path}");
    }
    assert_eq!(node.api.devices().len(), 1, "nobody was let in");
    let peak = node.peak_memory();
    assert!(peak < 256 << 20, "{peak} bytes");
    assert_works(&node);
}

#[test]
fn names_from_elsewhere_reach_neither_page_nor_terminal_as_more_than_text() {
    let node = closed_node();
    let address = node.api.address.as_str();
    let own = format!("http://{address}");
    let name =
        "\u{1b}[2J\u{1b}]0;owned\u{7}<img src=x onerror=alert(1)>\u{202e}evil\r\nHTTP/1.1 200";
    let mut record = record(9, name);
    record.user_agent = name.to_owned();
    record.kind = DeviceKind::Browser;
    let mut socket = raw::websocket(address, "/ws", &[("origin", &own)]).expect("its own page");
    let frame = hello(&mesh_of(&node), record);
    socket
        .send(tungstenite::Message::binary(frame))
        .expect("an open link");
    let answer = socket.read().expect("an answer");
    let answer = codec::decode(&answer.into_data()).expect("a frame").0;
    if let Message::Refuse { .. } = answer.body {
        // It may refuse such a name altogether.
        assert_eq!(node.api.devices().len(), 1);
        return;
    }
    let listed = until("the page to be listed", Duration::from_secs(20), || {
        let devices = node.api.devices();
        let page = devices.iter().find(|device| device["kind"] == "browser");
        page.cloned().ok_or_else(|| format!("{devices:?}"))
    });
    // JSON has it as it is; what shows it must not believe it.
    assert_eq!(listed["name"].as_str(), Some(name));
    let output = Command::new(gemmesh_tests::bin())
        .args(["nodes", "--node", &own])
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let control = |c: char| c.is_control() && c != '\n';
    assert!(
        !text.contains(control) && !text.contains('\u{202e}'),
        "{text:?}"
    );
    assert!(!node.log().contains(control), "{:?}", node.log());
}

#[test]
fn a_page_of_a_host_that_a_member_only_talks_about_is_refused() {
    let node = closed_node();
    let address = node.api.address.as_str();
    let mut link = raw::websocket(address, "/mesh", &[]).expect("an open door");
    let mut talker = record(1, "talker");
    talker.addresses = vec!["127.0.0.71:9".to_owned()];
    let mut victim = record(2, "victim");
    victim.addresses = vec!["127.0.0.72:9".to_owned()];
    let gossip = Message::Gossip {
        devices: vec![victim],
    };
    let mut header = from(1, gossip);
    header.to = node.device().parse().expect("an id");
    for frame in [hello(&mesh_of(&node), talker), codec::encode(&header, &[])] {
        link.send(tungstenite::Message::binary(frame))
            .expect("a link");
    }
    node.api.await_devices(3);
    let open = |origin| raw::websocket(address, "/ws", &[("Origin", origin)]).map(drop);
    assert_eq!(open("http://127.0.0.71"), Ok(()), "a member's own page");
    assert_eq!(open("http://127.0.0.72"), Err(403), "hearsay");
    assert_eq!(open("http://127.0.0.73"), Err(403), "a stranger");
}

#[test]
fn answers_forbid_framing_sniffing_and_foreign_scripts() {
    let node = closed_node();
    for path in ["/", "/api/nodes", "/kitchen"] {
        let (_, answer) = raw::request(
            &node.api.address,
            "GET",
            path,
            &[("Host", &node.api.address)],
        );
        let head = answer
            .split("\r\n\r\n")
            .next()
            .unwrap_or_default()
            .to_lowercase();
        for part in [
            "frame-ancestors 'none'",
            "script-src 'self'",
            "x-content-type-options: nosniff",
        ] {
            assert!(head.contains(part), "{path}: no {part} in {head}");
        }
        assert!(!head.contains("access-control-allow-origin"), "{head}");
    }
}

fn closed_node() -> Node {
    let mesh = fresh_mesh();
    let options = Options::loopback("closed", &mesh)
        .arg("--no-mdns")
        .arg("--memory=256M");
    options.arg("--allow-host=gemmesh.example").start()
}

/// The mesh that a node belongs to, from its own words.
fn mesh_of(node: &Node) -> String {
    let info = node.api.get("/api/info").expect(200).json();
    info["mesh"].as_str().expect("a name").to_owned()
}

fn record(id: u8, name: &str) -> DeviceRecord {
    DeviceRecord {
        device: DeviceId([id; 32]),
        incarnation: 1,
        version: 1,
        name: name.to_owned(),
        kind: DeviceKind::Native,
        addresses: Vec::new(),
        via: None,
        slots: 1,
        classes: Vec::new(),
        mflops: 1.0,
        state: DeviceState::Ready,
        since: WallTime(1),
        user_agent: String::new(),
        stacks: true,
        residues: true,
        limits: TileLimits::default(),
    }
}

fn hello(mesh: &str, record: DeviceRecord) -> Vec<u8> {
    let id = record.device.0[0];
    let hello = Hello {
        version: VERSION,
        mesh: mesh.to_owned(),
        record,
        attach: true,
    };
    codec::encode(&from(id, Message::Hello(hello)), &[])
}

fn from(id: u8, body: Message) -> Header {
    Header {
        from: DeviceId([id; 32]),
        to: DeviceId([0; 32]),
        body,
    }
}

#[track_caller]
fn assert_works(node: &Node) {
    let job = node
        .api
        .submit(&json!({"a": [[1, 2], [3, 4]], "b": [[5], [6]]}));
    node.api.done(&job);
    assert_eq!(node.api.result(&job, "csv"), b"17\n39\n");
}
