//! Asking other nodes over HTTP: one hop, never further.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use gemmesh_protocol::id::{JobId, MatrixId};
use gemmesh_protocol::matrix::Manifest;
use gemmesh_protocol::status::JobStatus;
use warp::http::{HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

use super::call::HOP;
use super::{reach, reply};
use crate::app::App;
use crate::error::ApiError;
use crate::store::Missing;

/// How long another node may take to answer, besides what it was asked to wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to say what it has.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// How long the body of an answer may stand still.
const STALL: Duration = Duration::from_secs(30);
/// How long a node may be silent from which something is copied: others may have it too.
const SILENCE: Duration = Duration::from_secs(3);
/// The shortest and the longest rest between pieces of what is copied slowly. Many short ones would cost
/// more than the copying.
const REST_MIN: Duration = Duration::from_millis(20);
/// See [`REST_MIN`].
const REST_MAX: Duration = Duration::from_millis(200);
/// How many nodes are asked for a matrix or a job, and how many at the same time.
const ASK_MAX: usize = 64;
/// See [`ASK_MAX`].
const ASK_AT_ONCE: usize = 8;
/// The most bytes of the status of a job: contributions of a thousand devices.
const STATUS_BYTES_MAX: usize = 1 << 20;

/// How much of a line a copy takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// All that it can.
    Full,
    /// It rests as long as it copies.
    Half,
}

/// Sends a request without a body to the node at `HOST:PORT`.
///
/// # Errors
/// It does not answer within ten seconds and `wait`.
pub async fn send(
    app: &App,
    method: Method,
    address: &str,
    target: &str,
    wait: Duration,
) -> io::Result<reqwest::Response> {
    send_within(app, method, address, target, ANSWER_LIMIT + wait).await
}

async fn send_within(
    app: &App,
    method: Method,
    address: &str,
    target: &str,
    limit: Duration,
) -> io::Result<reqwest::Response> {
    let answer = async {
        // The address was said by another device; it must not lead out of the local network.
        let peers = reach::resolve(address).await?;
        let peer = peers.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let request = app
            .client()
            .request(method, format!("http://{peer}{target}"))
            .header(HOP, "1");
        request.send().await.map_err(io::Error::other)
    };
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Another node's answer as our own. Only what we understand of its header is kept: it must not
/// decide what a browser takes our answer for.
pub fn relay(answer: reqwest::Response) -> Response {
    let status = answer.status();
    let headers = answer.headers().clone();
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let kind = match kind.split(|c| *c == b';').next().unwrap_or_default() {
        b"application/json" => "application/json",
        b"application/x-npy" => "application/x-npy",
        b"text/csv" => "text/csv; charset=utf-8",
        b"text/x-matrix-market" => "text/x-matrix-market; charset=utf-8",
        _ => "application/octet-stream",
    };
    let mut response = reply::stream(kind, body(answer, STALL));
    *response.status_mut() = status;
    for name in [header::CONTENT_LENGTH, header::CONTENT_DISPOSITION] {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// The answer of any node that has what `target` names; within, why none has it.
///
/// # Errors
/// 503 when the node that has it went away.
pub async fn any(
    app: &App,
    method: Method,
    target: &str,
) -> Result<Result<Response, Missing>, ApiError> {
    let ask = |address: String| async move {
        let asked = send_within(app, Method::HEAD, &address, target, ANSWER_LIMIT).await;
        here(asked).map(|_| address)
    };
    let address = match first(app, ask).await {
        Ok(address) => address,
        Err(missing) => return Ok(Err(missing)),
    };
    match send(app, method, &address, target, Duration::ZERO).await {
        Ok(answer) => Ok(Ok(relay(answer))),
        Err(error) => Err(unreachable(&address, &error)),
    }
}

/// A matrix from any node that has it whole; within, why none has it. It is in the store then.
///
/// # Errors
/// Those of the store: no room, a disk that fails.
pub async fn pull(app: &App, id: MatrixId) -> Result<Result<Manifest, Missing>, ApiError> {
    let target = blocks_of(id);
    let ask = |address: String| {
        let target = &target;
        async move {
            let asked = send_within(app, Method::HEAD, &address, target, ASK_LIMIT).await;
            here(asked).map(|_| address)
        }
    };
    let mut holders = std::pin::pin!(answers(app, ask));
    let mut missing = Missing::Unknown;
    let mut failed = None;
    while let Some(holder) = holders.next().await {
        match holder {
            Ok(address) => match copy_matrix(app, &address, id, Pace::Full).await {
                Ok(manifest) => return Ok(Ok(manifest)),
                Err(error) => failed = Some(error),
            },
            Err(why) => missing = missing.or(why),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(Err(missing)),
    }
}

/// Replaces a matrix that is damaged or gone here by that of another node. `true` when it is
/// whole.
pub async fn heal(app: &App, id: MatrixId) -> bool {
    let _one = app.healing().lock().await;
    let Err(missing) = app.store().manifest(id).await else {
        return true;
    };
    let healed = pull(app, id).await;
    match healed {
        Ok(Ok(_)) => {
            tracing::warn!(matrix = %id, why = %missing, "a matrix was fetched from another node");
            true
        }
        Ok(Err(_)) => {
            tracing::error!(matrix = %id, why = %missing, "no other node has this matrix");
            false
        }
        Err(error) => {
            let failed = error.message;
            tracing::error!(matrix = %id, why = %missing, failed, "a matrix could not be fetched");
            false
        }
    }
}

fn blocks_of(id: MatrixId) -> String {
    format!("/api/matrices/{id}?format={}", super::matrices::BLOCKS)
}

/// Copies a matrix from the node at `address`; every block's hash is checked.
///
/// # Errors
/// It has it not, is silent for three seconds or sends something else; those of the store.
pub async fn copy_matrix(
    app: &App,
    address: &str,
    id: MatrixId,
    pace: Pace,
) -> Result<Manifest, ApiError> {
    let answer = send_within(app, Method::GET, address, &blocks_of(id), SILENCE).await;
    let answer = answer.map_err(|error| unreachable(address, &error))?;
    if answer.status() != StatusCode::OK {
        let why = io::Error::other(format!("it answered {}", answer.status()));
        return Err(unreachable(address, &why));
    }
    let blocks = paced(body(answer, SILENCE), pace);
    let manifest = app.store().import_blocks(blocks, Some(id)).await?;
    Ok(manifest)
}

/// The bytes of a tile that is durable on the node at `address`.
///
/// # Errors
/// It has it not, is silent for three seconds, or sends another number of bytes.
pub async fn fetch_tile(
    app: &App,
    address: &str,
    job: JobId,
    tile: u32,
    bytes: u64,
) -> io::Result<Bytes> {
    let target = format!("/mesh/jobs/{job}/tiles/{tile}");
    let answer = send_within(app, Method::GET, address, &target, SILENCE).await?;
    if answer.status() != StatusCode::OK {
        let status = answer.status();
        return Err(io::Error::other(format!("it answered {status}")));
    }
    let mut pieces = std::pin::pin!(body(answer, SILENCE));
    let mut received = BytesMut::with_capacity(bytes as usize);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if (received.len() + piece.len()) as u64 > bytes {
            return Err(io::Error::other("it sent more bytes than the tile has"));
        }
        received.extend_from_slice(&piece);
    }
    if received.len() as u64 != bytes {
        return Err(io::Error::other("it sent another number of bytes"));
    }
    Ok(received.freeze())
}

/// The status of a job from another node: of those that know it, the latest.
///
/// # Errors
/// Why none has it.
pub async fn find_job(app: &App, job: JobId) -> Result<JobStatus, Missing> {
    let target = format!("/api/jobs/{job}");
    let ask = |address: String| {
        let target = &target;
        async move {
            let asked = send_within(app, Method::GET, &address, target, ASK_LIMIT).await;
            let bytes = small(here(asked)?).await.ok_or(Missing::Unknown)?;
            let status: Option<JobStatus> = serde_json::from_slice(&bytes).ok();
            status
                .filter(|status| status.job == job)
                .ok_or(Missing::Unknown)
        }
    };
    let mut answers = std::pin::pin!(answers(app, ask));
    let mut found: Option<JobStatus> = None;
    let mut missing = Missing::Unknown;
    while let Some(answer) = answers.next().await {
        match answer {
            // It does not change any more.
            Ok(status) if status.state.has_ended() => return Ok(status),
            Ok(status) => {
                if found
                    .as_ref()
                    .is_none_or(|found| found.epoch < status.epoch)
                {
                    found = Some(status);
                }
            }
            Err(why) => missing = missing.or(why),
        }
    }
    found.ok_or(missing)
}

/// 503 for a node that does not answer.
pub fn unreachable(address: &str, error: &io::Error) -> ApiError {
    ApiError::new(
        503,
        "node_unreachable",
        format!("the node at {address} does not answer: {error}"),
        "try again; if it stays away, submit the job again at another node",
    )
}

/// The answer of a node that has what was asked for.
fn here(answer: io::Result<reqwest::Response>) -> Result<reqwest::Response, Missing> {
    let answer = answer.map_err(|_| Missing::Unknown)?;
    match answer.status() {
        StatusCode::GONE => Err(Missing::Expired),
        StatusCode::NOT_FOUND => Err(Missing::Unknown),
        status if status.is_server_error() => Err(Missing::Unknown),
        _ => Ok(answer),
    }
}

/// The first node's `Ok`; else that it expired, if one says so.
async fn first<T, F, R>(app: &App, ask: F) -> Result<T, Missing>
where
    F: Fn(String) -> R,
    R: Future<Output = Result<T, Missing>>,
{
    let mut answers = std::pin::pin!(answers(app, ask));
    let mut missing = Missing::Unknown;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(found) => return Ok(found),
            Err(why) => missing = missing.or(why),
        }
    }
    Err(missing)
}

/// What the other live nodes answer, as it comes.
fn answers<T, F, R>(app: &App, ask: F) -> impl Stream<Item = Result<T, Missing>>
where
    F: Fn(String) -> R,
    R: Future<Output = Result<T, Missing>>,
{
    let addresses = app.peer_addresses().into_iter().take(ASK_MAX);
    stream::iter(addresses)
        .map(ask)
        .buffer_unordered(ASK_AT_ONCE)
}

async fn small(answer: reqwest::Response) -> Option<Vec<u8>> {
    let mut body = std::pin::pin!(body(answer, SILENCE));
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.ok()?);
        if bytes.len() > STATUS_BYTES_MAX {
            return None;
        }
    }
    Some(bytes)
}

/// The body, broken off when it stands still for so long.
fn body(
    answer: reqwest::Response,
    stall: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let body = Box::pin(answer.bytes_stream());
    stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(stall, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    })
}

/// The same pieces, at that pace.
fn paced<T: Send + 'static>(
    pieces: impl Stream<Item = T> + Send + 'static,
    pace: Pace,
) -> impl Stream<Item = T> + Send + 'static {
    let state = (Box::pin(pieces), Duration::ZERO);
    stream::unfold(state, move |(mut pieces, mut owed)| async move {
        let began = Instant::now();
        let piece = pieces.next().await?;
        if pace == Pace::Half {
            owed += began.elapsed();
        }
        if owed >= REST_MIN {
            tokio::time::sleep(owed.min(REST_MAX)).await;
            owed = Duration::ZERO;
        }
        Some((piece, (pieces, owed)))
    })
}
