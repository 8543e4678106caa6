//! The accept loop: every connection is counted, timed and can be ended.
//!
//! A connection that waits for a request is worth little: when the table is full, the oldest of
//! these makes room. So a flood of silent connections can not lock anybody out.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::socket::{Allowance, Socket};

/// Bounds of the accept loop.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections in all, WebSockets included.
    pub connections: usize,
    /// Connections from one IP address; loopback is exempt, many nodes may share it.
    pub connections_per_ip: usize,
    /// How long a request's head may take, and how long an idle connection is kept.
    pub head: Duration,
    /// How long a response may stand still because nobody reads it.
    pub stall: Duration,
    /// How long requests may go on once the node stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_ip: 32,
            head: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            grace: Duration::from_millis(400),
        }
    }
}

/// The most header fields of a request.
const HEADERS_MAX: usize = 64;
/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What is read ahead of a body.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Connections that the system keeps until we accept them.
const BACKLOG: i32 = 512;
/// How long to wait when the system has no more descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// The first byte of a TLS handshake (RFC 8446, section 5.1); no method of HTTP begins with it.
const HANDSHAKE: u8 = 0x16;

/// How a connection to that address of ours answers a TLS handshake.
pub type Secure = Arc<dyn Fn(Option<IpAddr>) -> Arc<ServerConfig> + Send + Sync>;

/// What a request knows of the connection that it came on.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The other end.
    pub remote: SocketAddr,
    /// Our address on this connection.
    pub local: Option<IpAddr>,
    /// Whether it came over TLS.
    pub secure: bool,
    /// How much more may be read.
    pub allowance: Allowance,
}

/// Opens the port. Without `ip` it is open on all interfaces, for IPv4 and IPv6 where the system
/// has both.
///
/// # Errors
/// What the system says: the port is taken, the address is not ours.
pub fn listen(ip: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match ip {
        Some(ip) => listen_on(SocketAddr::new(ip, port)),
        None => listen_on(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|error| {
            // No IPv6 here. A taken port is a taken port in both families.
            if error.kind() == io::ErrorKind::AddrInUse {
                return Err(error);
            }
            listen_on(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
        }),
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // A restarted node gets its port back at once. On Windows the option means something else.
    if cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Serves connections until `shutdown`, and with `secure` those that begin with a TLS handshake too; then lets requests end within [`Limits::grace`].
pub async fn run<F, R, B>(
    listener: TcpListener,
    limits: Limits,
    secure: Option<Secure>,
    shutdown: CancellationToken,
    handle: F,
) where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let table = Table::new(&limits);
    let tasks = TaskTracker::new();
    let abort = CancellationToken::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .keep_alive(true);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok((stream, remote)) => (
                stream,
                SocketAddr::new(remote.ip().to_canonical(), remote.port()),
            ),
            Err(error) => {
                // A connection that broke before we took it is not our concern; running out of
                // descriptors is, and passes when others end.
                tracing::debug!(%error, "accept");
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(EXHAUSTED) => continue,
                }
            }
        };
        let Some(ticket) = table.admit(remote.ip()) else {
            tracing::debug!(%remote, "too many connections");
            continue;
        };
        let connection = Connection {
            remote,
            ticket,
            limits: limits.clone(),
            shutdown: shutdown.clone(),
        };
        let serving = connection.serve(stream, secure.clone(), http.clone(), handle.clone());
        let abort = abort.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = serving => {}
            }
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(limits.grace, tasks.wait())
        .await
        .is_err()
    {
        abort.cancel();
        tasks.wait().await;
    }
}

struct Connection {
    remote: SocketAddr,
    ticket: Ticket,
    limits: Limits,
    shutdown: CancellationToken,
}

/// A connection once it is known what is spoken on it.
enum Begun {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Waits for the first byte, and for the handshake that it may begin.
async fn begin(
    stream: TcpStream,
    secure: Option<Secure>,
    local: Option<IpAddr>,
) -> io::Result<Begun> {
    let Some(secure) = secure else {
        return Ok(Begun::Plain(stream));
    };
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first[0] != HANDSHAKE {
        return Ok(Begun::Plain(stream));
    }
    let stream = TlsAcceptor::from(secure(local)).accept(stream).await?;
    Ok(Begun::Tls(Box::new(stream)))
}

impl Connection {
    /// Finds out what is spoken on `stream`, and speaks it.
    async fn serve<F, R, B>(
        self,
        stream: TcpStream,
        secure: Option<Secure>,
        http: http1::Builder,
        handle: F,
    ) where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Frames are small next to tiles and must not wait for them.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().ok();
        let local = local.map(|local| local.ip().to_canonical());
        let begun = tokio::select! {
            begun = tokio::time::timeout(self.limits.head, begin(stream, secure, local)) => begun,
            () = self.ticket.entry.evicted.cancelled() => return,
            () = self.shutdown.cancelled() => return,
        };
        let peer = |secure| Peer {
            remote: self.remote,
            local,
            secure,
            allowance: Allowance::unlimited(),
        };
        match begun {
            Ok(Ok(Begun::Plain(stream))) => {
                let peer = peer(false);
                self.speak(stream, peer, http, handle).await;
            }
            Ok(Ok(Begun::Tls(stream))) => {
                let peer = peer(true);
                self.speak(stream, peer, http, handle).await;
            }
            Ok(Err(error)) => tracing::debug!(remote = %self.remote, %error, "handshake"),
            Err(_) => tracing::debug!(remote = %self.remote, "said nothing in time"),
        }
    }

    /// Answers the requests that come on `stream`.
    async fn speak<S, F, R, B>(self, stream: S, peer: Peer, http: http1::Builder, handle: F)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let entry = self.ticket.entry.clone();
        let allowance = peer.allowance.clone();
        let socket = Socket::new(stream, allowance, self.limits.stall, self.ticket);
        let busy = entry.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let working = Working::start(&busy);
            let response = handle(request);
            async move {
                let response = response.await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    // It never waits for a request again.
                    working.0.working.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Infallible>(response.map(|body| Held {
                    body,
                    _working: working,
                }))
            }
        });
        let mut serving = pin!(
            http.serve_connection(TokioIo::new(socket), service)
                .with_upgrades()
        );
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = entry.evicted.cancelled() => return,
            () = self.shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(remote = %self.remote, %error, "connection");
        }
    }
}

/// All connections, oldest first.
#[derive(Clone)]
struct Table {
    inner: Arc<Mutex<Connections>>,
    total_max: usize,
    per_ip_max: usize,
}

#[derive(Default)]
struct Connections {
    next: u64,
    entries: BTreeMap<u64, Arc<Entry>>,
    per_ip: HashMap<IpAddr, usize>,
}

struct Entry {
    ip: IpAddr,
    /// Requests being answered; a WebSocket counts as one for ever.
    working: AtomicUsize,
    evicted: CancellationToken,
}

/// A place in the table.
struct Ticket {
    id: u64,
    entry: Arc<Entry>,
    table: Table,
}

impl Table {
    fn new(limits: &Limits) -> Self {
        Self {
            inner: Arc::default(),
            total_max: limits.connections,
            per_ip_max: limits.connections_per_ip,
        }
    }

    /// A place for a connection from `ip`, if need be that of the oldest connection that is
    /// waiting for a request; `None` when all are at work.
    fn admit(&self, ip: IpAddr) -> Option<Ticket> {
        let mut connections = self.inner.lock().expect("no holder panics");
        let from_ip = connections.per_ip.get(&ip).copied().unwrap_or(0);
        if from_ip >= self.per_ip_max && !ip.is_loopback() {
            connections.evict(Some(ip))?;
        } else if connections.entries.len() >= self.total_max {
            connections.evict(None)?;
        }
        let id = connections.next;
        connections.next += 1;
        let entry = Arc::new(Entry {
            ip,
            working: AtomicUsize::new(0),
            evicted: CancellationToken::new(),
        });
        connections.entries.insert(id, entry.clone());
        *connections.per_ip.entry(ip).or_default() += 1;
        Some(Ticket {
            id,
            entry,
            table: self.clone(),
        })
    }
}

impl Connections {
    fn evict(&mut self, ip: Option<IpAddr>) -> Option<()> {
        let waiting = |entry: &Entry| {
            entry.working.load(Ordering::Relaxed) == 0 && ip.is_none_or(|ip| ip == entry.ip)
        };
        let (&id, entry) = self.entries.iter().find(|(_, entry)| waiting(entry))?;
        entry.evicted.cancel();
        self.remove(id);
        Some(())
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        if let Some(count) = self.per_ip.get_mut(&entry.ip) {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&entry.ip);
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut connections = self.table.inner.lock().expect("no holder panics");
        connections.remove(self.id);
    }
}

/// Marks a connection as being at work, from the request's head to the answer's last byte.
struct Working(Arc<Entry>);

impl Working {
    fn start(entry: &Arc<Entry>) -> Self {
        entry.working.fetch_add(1, Ordering::Relaxed);
        Self(entry.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that keeps its connection at work until it is through.
struct Held<B> {
    body: B,
    _working: Working,
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
