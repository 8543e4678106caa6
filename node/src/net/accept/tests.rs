//! The accept loop behind a trivial service, attacked over loopback.

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use warp::reply::Response as WarpResponse;

use super::*;
use crate::tls::{self, Tls};

const HEAD: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n";

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off() {
    let server = Server::start(Limits {
        head: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let mut slow = server.connect().await;
    slow.write_all(HEAD.as_bytes()).await.expect("connected");
    assert_eq!(rest(&mut slow).await, "");
    // The same bound ends a connection that never says anything, and one that idles.
    assert_eq!(rest(&mut server.connect().await).await, "");
    let mut idle = server.connect().await;
    idle.write_all(format!("{HEAD}\r\n").as_bytes())
        .await
        .expect("connected");
    let answer = rest(&mut idle).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn silent_connections_can_not_lock_anybody_out() {
    let limits = Limits {
        connections: 8,
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(server.connect().await);
        assert_eq!(server.get().await, 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_at_work_are_not_given_up_for_new_ones() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut working = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        let wait = "GET /wait HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(wait.as_bytes()).await.expect("connected");
        server.arrived.acquire().await.expect("open").forget();
        working.push(stream);
    }
    let mut refused = server.connect().await;
    assert_eq!(rest(&mut refused).await, "");
    server.go.add_permits(2);
    for stream in &mut working {
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    server.stop().await;
}

#[test]
fn one_address_has_its_share_and_no_more() {
    let limits = Limits {
        connections: 10,
        connections_per_ip: 3,
        ..Limits::default()
    };
    let table = Table::new(&limits);
    let ip = |last| IpAddr::from([192, 168, 1, last]);
    let busy = |ticket: &Ticket| ticket.entry.working.fetch_add(1, Ordering::Relaxed);
    let mut first: Vec<Ticket> = (0..3).filter_map(|_| table.admit(ip(1))).collect();
    let _second = table.admit(ip(2)).expect("room");
    // The oldest of the same address makes room, not that of another.
    let fourth = table.admit(ip(1)).expect("the oldest goes");
    assert!(first[0].entry.evicted.is_cancelled());
    assert!(!first[1].entry.evicted.is_cancelled());
    first.iter().chain([&fourth]).for_each(|ticket| {
        busy(ticket);
    });
    assert!(table.admit(ip(1)).is_none());
    drop(first.pop());
    assert!(table.admit(ip(1)).is_some());
    let loopback: Vec<Ticket> = (0..5)
        .filter_map(|_| table.admit(IpAddr::from([127, 0, 0, 1])))
        .collect();
    assert_eq!(loopback.len(), 5);
    drop((first, fourth, loopback));
    let connections = table.inner.lock().expect("no holder panics");
    assert_eq!(
        (connections.entries.len(), connections.per_ip.len()),
        (1, 1)
    );
}

#[tokio::test]
async fn heads_that_are_too_long_are_refused() {
    let server = Server::start(Limits::default()).await;
    let many: String = (0..HEADERS_MAX + 1)
        .map(|i| format!("x{i}: 1\r\n"))
        .collect();
    let long = format!("x: {}\r\n", "y".repeat(HEAD_BYTES_MAX));
    for (field, expected) in [(many, "HTTP/1.1 431"), (long, "HTTP/1.1 431")] {
        let mut stream = server.connect().await;
        stream
            .write_all(format!("{HEAD}{field}\r\n").as_bytes())
            .await
            .expect("connected");
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(expected), "{answer}");
    }
    for nonsense in [
        "\u{16}\u{3}\u{1} tls\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        stream
            .write_all(nonsense.as_bytes())
            .await
            .expect("connected");
        let answer = rest(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    assert_eq!(server.get().await, 200);
    server.stop().await;
}

#[tokio::test]
async fn stopping_lets_answers_out_and_ends_the_rest() {
    let limits = Limits {
        grace: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut silent = server.connect().await;
    let mut stuck = server.connect().await;
    stuck
        .write_all(b"GET /wait HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .expect("connected");
    server.arrived.acquire().await.expect("open").forget();
    server.stop().await;
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(rest(&mut stuck).await, "");
}

#[tokio::test]
async fn both_families_reach_an_unbound_node() {
    let Ok(listener) = listen(None, 0) else {
        panic!("a port of any family");
    };
    let port = listener.local_addr().expect("bound").port();
    let server = Server::start_on(listener, Limits::default()).await;
    let v4 = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .expect("IPv4");
    let peer = exchange(
        v4,
        "GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(peer.ends_with("127.0.0.1 127.0.0.1"), "{peer}");
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_cut_off_and_locks_nobody_out() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tls = Arc::new(Tls::open(dir.path()).expect("an authority"));
    let secure: Secure = Arc::new(move |local| tls.config(tls::names(local, "a.local", [])));
    let limits = Limits {
        connections: 3,
        head: Duration::from_millis(50),
        ..Limits::default()
    };
    let listener = listen(Some(Ipv4Addr::LOCALHOST.into()), 0).expect("a port");
    let server = Server::start_with(listener, limits, Some(secure)).await;
    for begun in [&b"\x16"[..], b"\x16\x03\x01\x02\x00\x01", b"", b"G"] {
        let mut stream = server.connect().await;
        stream.write_all(begun).await.expect("connected");
        assert_eq!(rest(&mut stream).await, "", "{begun:?}");
    }
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = server.connect().await;
        stream.write_all(b"\x16").await.expect("connected");
        silent.push(stream);
        assert_eq!(server.get().await, 200);
    }
    server.stop().await;
}

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    /// One permit for each request to `/wait` that has come in.
    arrived: Arc<Semaphore>,
    /// Lets them go on.
    go: Arc<Semaphore>,
    running: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let listener = listen(Some(Ipv4Addr::LOCALHOST.into()), 0).expect("a port");
        Self::start_on(listener, limits).await
    }

    async fn start_on(listener: TcpListener, limits: Limits) -> Self {
        Self::start_with(listener, limits, None).await
    }

    async fn start_with(listener: TcpListener, limits: Limits, secure: Option<Secure>) -> Self {
        let address = listener.local_addr().expect("bound");
        let shutdown = CancellationToken::new();
        let (arrived, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (reached, gate) = (arrived.clone(), go.clone());
        let handle = move |request: Request<Incoming>| -> BoxFuture<'static, WarpResponse> {
            let (reached, gate) = (reached.clone(), gate.clone());
            Box::pin(async move {
                let peer = request.extensions().get::<Peer>().expect("set by the loop");
                let local = peer.local.expect("the system says");
                let text = format!("{} {local}", peer.remote.ip());
                if request.uri().path() == "/wait" {
                    reached.add_permits(1);
                    gate.acquire().await.expect("open").forget();
                }
                WarpResponse::new(text.into())
            })
        };
        let running = tokio::spawn(run(listener, limits, secure, shutdown.clone(), handle));
        Self {
            address,
            shutdown,
            arrived,
            go,
            running,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("the port is open")
    }

    /// The status of a plain request.
    async fn get(&self) -> u16 {
        let answer = exchange(
            self.connect().await,
            &format!("{HEAD}connection: close\r\n\r\n"),
        )
        .await;
        answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status")
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.expect("the loop does not panic");
    }
}

async fn exchange(mut stream: TcpStream, request: &str) -> String {
    stream
        .write_all(request.as_bytes())
        .await
        .expect("connected");
    rest(&mut stream).await
}

/// What comes until the connection ends, gracefully or not.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
