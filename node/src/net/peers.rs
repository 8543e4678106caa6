//! Asking other nodes over HTTP: one hop, never further.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use gemmesh_protocol::id::JobId;
use gemmesh_protocol::status::JobStatus;
use warp::http::{HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

use super::call::{HOP, Web};
use super::{reach, reply};
use crate::error::ApiError;
use crate::store::Missing;

/// How long another node may take to answer, besides what it was asked to wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long the body of an answer may stand still.
const STALL: Duration = Duration::from_secs(30);
/// How many nodes are asked for a matrix or a job, and how many at the same time.
const ASK_MAX: usize = 64;
/// See [`ASK_MAX`].
const ASK_AT_ONCE: usize = 8;
/// The most bytes of the status of a job: contributions of a thousand devices.
const STATUS_BYTES_MAX: usize = 1 << 20;

/// Sends a request without a body to the node at `HOST:PORT`.
///
/// # Errors
/// It does not answer within [`ANSWER_LIMIT`] and `wait`.
pub async fn send(
    web: &Web,
    method: Method,
    address: &str,
    target: &str,
    wait: Duration,
) -> io::Result<reqwest::Response> {
    let answer = async {
        // The address was said by another device; it must not lead out of the local network.
        let peers = reach::resolve(address).await?;
        let peer = peers.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let request = web
            .client
            .request(method, format!("http://{peer}{target}"))
            .header(HOP, "1");
        request.send().await.map_err(io::Error::other)
    };
    tokio::time::timeout(ANSWER_LIMIT + wait, answer)
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
    let mut response = reply::stream(kind, body(answer));
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
    web: &Web,
    method: Method,
    target: &str,
) -> Result<Result<Response, Missing>, ApiError> {
    let address = match holder(web, target).await {
        Ok(address) => address,
        Err(missing) => return Ok(Err(missing)),
    };
    match send(web, method, &address, target, Duration::ZERO).await {
        Ok(answer) => Ok(Ok(relay(answer))),
        Err(error) => Err(unreachable(&address, &error)),
    }
}

/// The body of the answer of any node that has what `target` names; within, why none has it.
///
/// # Errors
/// 503 when it could not be fetched.
pub async fn any_stream(
    web: &Web,
    target: &str,
) -> Result<Result<BoxStream<'static, io::Result<Bytes>>, Missing>, ApiError> {
    let address = match holder(web, target).await {
        Ok(address) => address,
        Err(missing) => return Ok(Err(missing)),
    };
    match send(web, Method::GET, &address, target, Duration::ZERO).await {
        Ok(answer) if answer.status() == StatusCode::OK => Ok(Ok(body(answer).boxed())),
        Ok(_) => Ok(Err(Missing::Unknown)),
        Err(error) => Err(unreachable(&address, &error)),
    }
}

/// The status of a job that this node has not heard of, from one that has.
///
/// # Errors
/// Why none has it.
pub async fn find_job(web: &Web, job: JobId) -> Result<JobStatus, Missing> {
    let target = format!("/api/jobs/{job}");
    let ask = |address: String| {
        let target = target.clone();
        async move {
            let answer = here(send(web, Method::GET, &address, &target, Duration::ZERO).await)?;
            let bytes = small(answer).await.ok_or(Missing::Unknown)?;
            let status: Option<JobStatus> = serde_json::from_slice(&bytes).ok();
            status
                .filter(|status| status.job == job)
                .ok_or(Missing::Unknown)
        }
    };
    first(web, ask).await
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

/// Where something is that `target` names.
async fn holder(web: &Web, target: &str) -> Result<String, Missing> {
    let ask = |address: String| async move {
        here(send(web, Method::HEAD, &address, target, Duration::ZERO).await)?;
        Ok(address)
    };
    first(web, ask).await
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
async fn first<T, F, R>(web: &Web, ask: F) -> Result<T, Missing>
where
    F: Fn(String) -> R,
    R: Future<Output = Result<T, Missing>>,
{
    let addresses = web.app.peer_addresses().into_iter().take(ASK_MAX);
    let answers = stream::iter(addresses)
        .map(ask)
        .buffer_unordered(ASK_AT_ONCE);
    let mut answers = std::pin::pin!(answers);
    let mut missing = Missing::Unknown;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(found) => return Ok(found),
            Err(why) => missing = missing.or(why),
        }
    }
    Err(missing)
}

async fn small(answer: reqwest::Response) -> Option<Vec<u8>> {
    let mut body = std::pin::pin!(body(answer));
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.ok()?);
        if bytes.len() > STATUS_BYTES_MAX {
            return None;
        }
    }
    Some(bytes)
}

/// The body, broken off when it stands still.
fn body(answer: reqwest::Response) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(Box::pin(answer.bytes_stream())), async |body| {
        let mut body = body?;
        match tokio::time::timeout(STALL, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    })
}
