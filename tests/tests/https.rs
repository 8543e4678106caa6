//! `--tls`: https beside http on the same port, from the node's own authority.
#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt as _;

use gemmesh_tests::node::{Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::{https, raw};
use serde_json::json;
use tempfile::TempDir;

fn start(data: &TempDir) -> Node {
    let options = Options::loopback("home", &fresh_mesh()).arg("--tls");
    options.data_dir(data.path()).start()
}

#[test]
fn https_and_http_are_answered_on_one_port_and_the_certificate_covers_the_address() {
    let data = TempDir::new().expect("a temporary directory");
    let node = start(&data);
    let authority = node.api.get("/ca").expect(200).body.clone();
    let address = node.api.address.clone();
    let get = |host: &str, path: &str| https::get(&address, host, path, &authority);
    for host in ["127.0.0.1", "localhost", "home.local"] {
        let info = get(host, "/api/info").expect("https").expect(200).json();
        assert_eq!(info["name"], json!("home"), "{host}");
    }
    let refused = get("attic.local", "/").expect_err("another name");
    assert!(refused.contains("not valid for name"), "{refused}");
    // Plain http goes on, before and after, and nothing sends a browser from one to the other.
    let info = node.api.get("/api/info").expect(200).json();
    assert_eq!(info["name"], json!("home"));
    let (status, plain) = raw::request(&address, "GET", "/", &[("host", "localhost")]);
    let plain = plain.to_ascii_lowercase();
    assert_eq!(status, 200, "{plain}");
    assert!(!plain.contains("strict-transport-security"), "{plain}");
    // The certificate is the same by its other path, and stays when the node is started again.
    assert_eq!(node.api.get("/ca.crt").expect(200).body, authority);
    drop(node);
    let key = data.path().join("https-authority.pem");
    let mode = key.metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let node = start(&data);
    assert_eq!(node.api.get("/ca").expect(200).body, authority);
    let again = https::get(&node.api.address, "localhost", "/healthz", &authority);
    again.expect("https").expect(200);
}

#[test]
fn a_browser_gets_the_steps_and_programs_the_certificate() {
    let data = TempDir::new().expect("a temporary directory");
    let node = start(&data);
    let accept = |value: &str| {
        let headers = [("accept", value)];
        let reply = node.api.request("GET", "/ca", &headers, Vec::new());
        reply.expect("an answer").expect(200).body.clone()
    };
    let page = accept("text/html,application/xhtml+xml,*/*;q=0.8");
    assert!(String::from_utf8_lossy(&page).contains("/js/ca.js"));
    let certificate = accept("*/*");
    assert_eq!(
        certificate.first(),
        Some(&0x30),
        "DER begins with a sequence"
    );
    let host = [("host", "localhost")];
    let (_, head) = raw::request(&node.api.address, "HEAD", "/ca.crt", &host);
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/x-x509-ca-cert"),
        "{head}"
    );
    let told = node.api.get("/api/join").expect(200).json();
    let name = told["authority"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    assert!(
        certificate
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    );
}

#[test]
fn without_the_option_a_handshake_is_refused_and_there_is_no_certificate() {
    let node = Options::loopback("home", &fresh_mesh()).start();
    let data = TempDir::new().expect("a temporary directory");
    let other = start(&data);
    let authority = other.api.get("/ca").expect(200).body.clone();
    let refused = https::get(&node.api.address, "localhost", "/", &authority);
    assert!(refused.is_err(), "{refused:?}");
    let missing = node.api.get("/ca");
    assert_eq!(
        missing.expect(404).json()["error"]["code"],
        json!("no_authority")
    );
    assert_eq!(
        node.api.get("/api/join").expect(200).json()["authority"],
        json!(null)
    );
    node.api.get("/healthz").expect(200);
}

#[test]
fn nodes_with_and_without_https_are_one_mesh() {
    let data = TempDir::new().expect("a temporary directory");
    let mesh = fresh_mesh();
    let one = Options::loopback("one", &mesh).arg("--tls");
    let one = one.data_dir(data.path()).start();
    let two = Options::loopback("two", &mesh);
    let two = two.arg(format!("--peer={}", one.api.address)).start();
    await_mesh(&[&one, &two], 0);
    let job = two.api.submit(&json!({"a": [[1, 2]], "b": [[3], [4]]}));
    one.api.done(&job);
    assert_eq!(one.api.result(&job, "csv"), b"11\n");
}
