//! One request, and what all of them share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use gemmesh_protocol::id::JobId;
use gemmesh_protocol::matrix::Dtype;
use warp::http::{HeaderMap, Method, header};

use super::accept::Peer;
use super::guard::Names;
use super::{reply, urls};
use crate::app::App;
use crate::error::ApiError;

/// Set on requests between nodes: it is answered from what this node has, never passed on.
pub const HOP: &str = "gemmesh-hop";
/// The longest that `?wait=` waits; a longer one is cut to this.
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// How long a body may stand still.
const BODY_STALL: Duration = Duration::from_secs(30);
/// And how slow it may be over all, besides that: who sends a byte now and then holds a connection.
const BODY_BYTES_PER_SECOND_MIN: u64 = 1 << 10;
/// How much of a refused body is read and dropped so that its sender gets to the answer: many
/// clients look for it only when they have sent everything.
const DRAIN_BYTES_MAX: usize = 1 << 30;
/// For how long that is done.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long the sender may stand still meanwhile: perhaps it does look for the answer.
const DRAIN_STALL: Duration = Duration::from_secs(1);
/// How old the list of this node's addresses may be.
const NAMES_FRESH: Duration = Duration::from_secs(2);

/// What requests share.
pub struct Web {
    /// The node.
    pub app: App,
    /// Bytes of bodies that are on the disk and not yet in the store.
    pub uploading: AtomicU64,
    /// Jobs by who sent them.
    pub senders: Mutex<HashMap<IpAddr, Vec<JobId>>>,
    names: Mutex<(Instant, Arc<Names>)>,
}

impl Web {
    /// The shared part of the HTTP side of `app`.
    pub fn new(app: App) -> Self {
        let names = Mutex::new((Instant::now(), Arc::new(names(&app))));
        let (uploading, senders) = (AtomicU64::new(0), Mutex::default());
        Self {
            app,
            uploading,
            senders,
            names,
        }
    }

    /// What this node is called, at most two seconds old.
    pub fn names(&self) -> Arc<Names> {
        let mut held = self.names.lock().expect("no holder panics");
        if held.0.elapsed() > NAMES_FRESH {
            *held = (Instant::now(), Arc::new(names(&self.app)));
        }
        held.1.clone()
    }
}

fn names(app: &App) -> Names {
    let config = app.config();
    let interfaces = urls::interfaces().into_iter().map(|interface| interface.ip);
    Names {
        addresses: interfaces
            .chain(config.bind)
            .filter(|ip| !ip.is_unspecified())
            .collect(),
        local: Names::local_name(&config.name),
        allowed: config
            .allow_hosts
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
        port: app.port(),
    }
}

/// The body of a request.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send + Sync>>;

/// A request that the guard let through.
pub struct Call {
    /// What requests share.
    pub web: Arc<Web>,
    /// Its method; HEAD is answered like GET, without the body.
    pub method: Method,
    /// Its path and query as sent.
    pub target: String,
    /// Its header.
    pub headers: HeaderMap,
    /// Its query.
    pub query: HashMap<String, String>,
    /// Where it came from.
    pub peer: Peer,
    /// Its body.
    pub body: Body,
    /// When it was first asked for.
    pub began: Option<Instant>,
    /// What came of it so far.
    pub received: u64,
}

impl Call {
    /// The node.
    pub fn app(&self) -> &App {
        &self.web.app
    }

    /// Whether another node asks.
    pub fn is_hop(&self) -> bool {
        self.headers.contains_key(HOP)
    }

    /// The token that the request bears: in its header, or for links, which have none, in its query.
    pub fn token(&self) -> Option<&str> {
        let header = || {
            let value = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
            let (scheme, token) = value.split_once(' ')?;
            let token = token.trim();
            (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
        };
        let query = || self.query.get("token").map(String::as_str);
        header().or_else(query).filter(|token| !token.is_empty())
    }

    /// Whether this is GET or HEAD.
    pub fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// The error for a method that this path does not have.
    pub fn refuse_method(&self, allowed: &'static [&'static str]) -> ApiError {
        reply::method_not_allowed(self.method.as_str(), allowed)
    }

    /// `?wait=`, zero when absent.
    ///
    /// # Errors
    /// It is no number of seconds.
    pub fn wait(&self) -> Result<Duration, ApiError> {
        let Some(text) = self.query.get("wait") else {
            return Ok(Duration::ZERO);
        };
        let seconds: Option<f64> = text.parse().ok();
        match seconds.filter(|seconds| *seconds >= 0.0) {
            Some(seconds) => Ok(Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64()))),
            None => Err(ApiError::new(
                400,
                "bad_wait",
                format!("wait is {:?}, which is no number of seconds", clip(text)),
                "use wait=10 for ten seconds",
            )),
        }
    }

    /// `Content-Length`, when it is stated.
    pub fn content_length(&self) -> Option<u64> {
        self.headers
            .get(header::CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection broke, nothing came for half a minute, or all came too slowly.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        let began = *self.began.get_or_insert_with(Instant::now);
        let broken = |message: String| {
            ApiError::new(400, "body_cut_short", message, "send the request again")
        };
        let left = patience(began.elapsed(), self.received);
        match tokio::time::timeout(left, self.body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => {
                self.received += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Ok(Some(Err(error))) => Err(broken(format!("the body broke off: {error}"))),
            Err(_) if left == BODY_STALL => {
                Err(broken("the body stood still for 30 seconds".to_owned()))
            }
            Err(_) => Err(broken(format!(
                "the body came with less than {BODY_BYTES_PER_SECOND_MIN} bytes a second"
            ))),
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// 413 when it is longer than `bytes_max`, and those of [`Call::next_piece`].
    pub async fn small_body(&mut self, bytes_max: usize) -> Result<Bytes, ApiError> {
        let too_large = || {
            ApiError::new(
                413,
                "body_too_large",
                format!("the body is longer than {bytes_max} bytes"),
                "send large matrices with PUT /api/matrices and name them by their ids",
            )
        };
        if self
            .content_length()
            .is_some_and(|length| length > bytes_max as u64)
        {
            self.drain().await;
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(piece) = self.next_piece().await? {
            if body.len() + piece.len() > bytes_max {
                self.drain().await;
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Reads on for a while before a body is refused: closing a connection with unread bytes
    /// would take the answer away from its sender. Memory: one piece.
    pub async fn drain(&mut self) {
        if self.headers.contains_key(header::EXPECT) {
            return;
        }
        let mut left = DRAIN_BYTES_MAX;
        let reading = async {
            while let Ok(Some(Ok(piece))) =
                tokio::time::timeout(DRAIN_STALL, self.body.next()).await
            {
                match left.checked_sub(piece.len()) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN_LIMIT, reading).await;
    }
}

/// How long to wait for more of a body of which `received` bytes came in `elapsed`.
fn patience(elapsed: Duration, received: u64) -> Duration {
    let due = BODY_STALL + Duration::from_secs(received / BODY_BYTES_PER_SECOND_MIN);
    due.saturating_sub(elapsed).min(BODY_STALL)
}

/// Bytes of a body that are counted until they are dropped.
pub struct Counted {
    web: Arc<Web>,
    bytes: u64,
}

impl Counted {
    /// Nothing yet.
    pub fn new(web: Arc<Web>) -> Self {
        Self { web, bytes: 0 }
    }

    /// Counts `bytes` more; what all bodies together have now.
    pub fn add(&mut self, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.web.uploading.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.web.uploading.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An id out of a path.
///
/// # Errors
/// 404: what is no id names nothing.
pub fn id<T: FromStr<Err: std::fmt::Display>>(
    text: &str,
    what: &'static str,
) -> Result<T, ApiError> {
    text.parse().map_err(|error| {
        let code = if what == "job" {
            "unknown_job"
        } else {
            "unknown_matrix"
        };
        ApiError::new(
            404,
            code,
            format!("{:?} is no id of a {what}: {error}", clip(text)),
            "use an id as it was answered before",
        )
    })
}

/// An element type by name.
///
/// # Errors
/// There is no such type.
pub fn dtype(name: &str) -> Result<Dtype, ApiError> {
    [Dtype::F64, Dtype::F32, Dtype::Int]
        .into_iter()
        .find(|dtype| dtype.name() == name)
        .ok_or_else(|| {
            ApiError::new(
                422,
                "unknown_dtype",
                format!("dtype {:?} is not known", clip(name)),
                "use f64, f32 or int",
            )
        })
}

/// Text from outside, short enough for a message.
pub fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_drips_is_waited_for_only_so_long() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(seconds(0), 0), BODY_STALL);
        assert_eq!(patience(seconds(29), 1), seconds(1));
        assert_eq!(patience(seconds(31), 31), seconds(0));
        // A slow phone with a large matrix may take its time.
        assert_eq!(patience(seconds(3_600), 1 << 30), BODY_STALL);
    }
}
