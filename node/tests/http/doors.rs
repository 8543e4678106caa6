//! Who is not let in.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::node::{Node, head_of, refused};

/// Every path of the contract, and some that lead nowhere.
const PATHS: [&str; 14] = [
    "/",
    "/index.html",
    "/api/matrices",
    "/api/matrices/00",
    "/api/jobs",
    "/api/jobs/00",
    "/api/jobs/00/result",
    "/api/nodes",
    "/api/info",
    "/nodes/register",
    "/healthz",
    "/metrics",
    "/ws",
    "/mesh",
];
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW",
];

#[tokio::test]
async fn a_wrong_host_or_origin_is_refused_before_anything_else() {
    let node = Node::start_with("shut", |config| {
        config.allow_hosts = vec!["mesh.lan".into()]
    })
    .await;
    let own = node.host();
    let page = format!("origin: http://{own}\r\n");
    let foreign = "origin: http://evil.example\r\n".to_owned();
    for path in PATHS {
        for method in METHODS {
            for (host, more) in [
                ("evil.example", ""),
                ("evil.example:8080", page.as_str()),
                ("192.0.2.77", ""),
                ("127.0.0.1:1", ""),
                (own.as_str(), foreign.as_str()),
                (own.as_str(), "origin: null\r\n"),
                (own.as_str(), "origin: http://127.0.0.1:1\r\n"),
                (own.as_str(), "sec-fetch-site: cross-site\r\n"),
            ] {
                if path == "/ws" && more.contains("127.0.0.1:1") {
                    // Under this address a member, the node itself, serves a page.
                    continue;
                }
                let answer = node.raw(method, path, host, more).await;
                assert!(
                    answer.starts_with("HTTP/1.1 403"),
                    "{method} {path} {host} {more}: {answer}"
                );
                for header in [
                    "content-security-policy",
                    "x-content-type-options: nosniff",
                    "referrer-policy: no-referrer",
                    "cross-origin-resource-policy: same-origin",
                    "x-frame-options: DENY",
                ] {
                    assert!(answer.contains(header), "{method} {path}: {answer}");
                }
                assert!(!answer.contains("access-control-"), "{answer}");
            }
            let answer = node.raw(method, path, &own, "").await;
            assert!(
                !answer.starts_with("HTTP/1.1 403"),
                "{method} {path}: {answer}"
            );
            assert!(
                answer.contains("frame-ancestors 'none'"),
                "{method} {path}: {answer}"
            );
            assert!(!answer.contains("access-control-"), "{answer}");
        }
    }
    let port = node.address.port();
    for host in [
        format!("localhost:{port}"),
        "localhost".into(),
        "shut.local".into(),
        "mesh.lan".into(),
    ] {
        let answer = node.raw("GET", "/healthz", &host, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    for head in [
        "GET /healthz HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /healthz HTTP/1.1\r\nhost: {own}\r\nhost: {own}\r\n\r\n"),
        "GET /healthz HTTP/1.0\r\n\r\n".to_owned(),
    ] {
        let mut stream = node.connect().await;
        stream.write_all(head.as_bytes()).await.expect("connected");
        let answer = head_of(&mut stream).await;
        assert!(
            answer.starts_with("HTTP/1.") && answer.contains(" 400"),
            "{head}: {answer}"
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn websockets_open_to_our_own_page_and_to_nodes_only() {
    let node = Node::start("doors").await;
    let own = format!("http://{}", node.host());
    for (path, origin, expected) in [
        ("/ws", Some(own.as_str()), 101),
        ("/ws", None, 101),
        ("/ws", Some("http://evil.example"), 403),
        ("/ws", Some("null"), 403),
        ("/ws", Some("http://192.168.250.250:8080"), 403),
        ("/mesh", None, 101),
        ("/mesh", Some(own.as_str()), 403),
        ("/mesh", Some("null"), 403),
    ] {
        let mut request = format!("ws://{}{path}", node.host())
            .into_client_request()
            .expect("a URL");
        if let Some(origin) = origin {
            request
                .headers_mut()
                .insert("origin", origin.parse().expect("a value"));
        }
        let status = match tokio_tungstenite::connect_async(request).await {
            Ok((_, answer)) => answer.status().as_u16(),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
            Err(error) => panic!("{path} {origin:?}: {error}"),
        };
        assert_eq!(status, expected, "{path} {origin:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_stranger_who_does_not_speak_the_protocol_is_dropped() {
    let node = Node::start("polite").await;
    let url = format!("ws://{}/ws", node.host());
    for message in [
        Message::text("hello"),
        Message::binary(vec![0; 10]),
        Message::binary(vec![0x92; (64 << 10) + 1]),
        Message::binary(vec![0x92; 17 << 20]),
    ] {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url)
            .await
            .expect("it opens");
        // A long one may be cut off while it is being sent.
        let _ = socket.send(message).await;
        while let Some(Ok(message)) = socket.next().await {
            assert!(message.is_close() || message.is_binary(), "{message:?}");
        }
    }
    assert_eq!(node.get("/healthz", 200).await["status"], "ok");
    node.stop().await;
}

#[tokio::test]
async fn paths_lead_nowhere_but_to_the_page() {
    let node = Node::start("paths").await;
    for path in [
        "/../Cargo.toml",
        "/..%2fCargo.toml",
        "/%2e%2e/Cargo.toml",
        "/..%5cCargo.toml",
        "/C:/x",
        "/.git/config",
        "/js/../../x",
        "//etc/passwd",
        "/api/matrices/..%2f..%2fidentity",
        "/api/matrices/../identity.key",
        "/uploads/",
    ] {
        let answer = node.raw("GET", path, &node.host(), "").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    node.stop().await;
}

#[tokio::test]
async fn only_nodes_of_the_local_network_can_be_registered() {
    let node = Node::start("careful").await;
    for host in ["169.254.169.254", "8.8.8.8", "127.0.0.1"] {
        // Nobody listens on port 1, and the other two are never dialled.
        let registration = json!({"host": host, "port": 1}).to_string();
        let answer = node
            .request("POST", "/nodes/register", Some(registration))
            .await;
        refused(answer, 422, "not_registered").await;
    }
    node.stop().await;
}
