//! A real node on loopback, as the tests use it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use gemmesh_node::config::NodeConfig;
use gemmesh_node::serve::{self, RunningNode};
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// A node on loopback and a client for it.
pub struct Node {
    pub address: SocketAddr,
    client: reqwest::Client,
    pub directory: tempfile::TempDir,
    shutdown: CancellationToken,
    pub running: RunningNode,
}

impl Node {
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, |_| {}).await
    }

    pub async fn start_with(name: &str, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut config = NodeConfig {
            port: 0,
            bind: Some(loopback),
            name: name.to_owned(),
            data_dir: directory.path().to_owned(),
            mesh: "test".to_owned(),
            peers: Vec::new(),
            mdns: false,
            threads: 1,
            memory: 256 << 20,
            disk: 256 << 20,
            backups: 3,
            result_ttl: Duration::from_secs(7_200),
            tls: false,
            allow_hosts: Vec::new(),
        };
        change(&mut config);
        let shutdown = CancellationToken::new();
        let running = serve::run(config, shutdown.clone())
            .await
            .expect("it starts");
        let address = SocketAddr::new(loopback, running.app.port());
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        Self {
            address,
            client,
            directory,
            shutdown,
            running,
        }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("the port is open")
    }

    pub async fn request(
        &self,
        method: &str,
        target: &str,
        body: Option<String>,
    ) -> reqwest::Response {
        let method: Method = method.parse().expect("a method");
        let request = self
            .client
            .request(method, format!("http://{}{target}", self.address));
        request
            .body(body.unwrap_or_default())
            .send()
            .await
            .expect("an answer")
    }

    pub async fn get(&self, target: &str, status: u16) -> Value {
        body(self.request("GET", target, None).await, status).await
    }

    pub async fn text(&self, target: &str) -> String {
        let answer = self.request("GET", target, None).await;
        assert_eq!(answer.status(), 200, "{target}");
        answer.text().await.expect("text")
    }

    pub async fn put(&self, text: &str) -> Value {
        body(
            self.request("PUT", "/api/matrices", Some(text.into()))
                .await,
            201,
        )
        .await
    }

    pub async fn submit(&self, job: Value) -> String {
        let accepted = body(
            self.request("POST", "/api/jobs", Some(job.to_string()))
                .await,
            202,
        )
        .await;
        assert!(
            accepted["token"]
                .as_str()
                .is_some_and(|token| token.len() >= 16),
            "{accepted}"
        );
        accepted["job"].as_str().expect("an id").to_owned()
    }

    /// Asks until the answer is as wanted; the test as a whole has a limit.
    pub async fn until(&self, target: &str, wanted: impl Fn(&Value) -> bool) {
        let mut changes = self.running.app.changes();
        let mut last = Value::Null;
        let asking = async {
            loop {
                last = self.get(target, 200).await;
                if wanted(&last) {
                    return;
                }
                changes.changed().await.expect("the node runs");
            }
        };
        let asked = tokio::time::timeout(Duration::from_secs(30), asking).await;
        assert!(asked.is_ok(), "{target}: {last}");
    }

    /// The head of the answer to a request that is written as it is.
    pub async fn raw(&self, method: &str, path: &str, host: &str, more: &str) -> String {
        let mut stream = self.connect().await;
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("connected");
        head_of(&mut stream).await
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        let stopped = tokio::time::timeout(Duration::from_secs(10), self.running.stopped()).await;
        stopped.expect("it stops");
    }
}

/// The body of an answer with this status, as JSON.
pub async fn body(answer: reqwest::Response, status: u16) -> Value {
    let (found, url) = (answer.status(), answer.url().clone());
    let text = answer.text().await.expect("a body");
    assert_eq!(found, status, "{url}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

pub async fn refused(answer: reqwest::Response, status: u16, code: &str) {
    let url = answer.url().clone();
    let found: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_value(body(answer, status).await).expect("the form of errors");
    let error = &found["error"];
    assert_eq!(error["code"], code, "{url}: {error:?}");
    assert!(
        !error["message"].is_empty() && !error["hint"].is_empty(),
        "{url}: {error:?}"
    );
    assert_eq!((found.len(), error.len()), (1, 3), "{url}: {error:?}");
}

/// What comes up to the empty line.
pub async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}
