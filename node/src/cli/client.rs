//! The HTTP API as its callers here see it.

use std::time::Duration;

use futures_util::StreamExt as _;
use gemmesh_protocol::status::{DeviceEntry, JobStatus};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use crate::files::Format;
use crate::needs::Explained;

use super::error::{CliError, from_status};
use super::text;
use super::values::NodeUrl;

/// How long a node may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long a node may stay silent within an answer.
const READ_LIMIT: Duration = Duration::from_secs(90);
/// The longest JSON answer that is read: lists of jobs and devices are far shorter.
const JSON_BYTES_MAX: usize = 64 << 20;
/// How long one question for the end of a job is left open.
pub const WAIT_SECONDS: u64 = 30;

/// A matrix as the node describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Matrix {
    /// The content hash.
    pub id: String,
    /// Number of rows.
    pub rows: u64,
    /// Number of columns.
    pub cols: u64,
    /// Matrices in it, when the file has three dimensions.
    #[serde(default)]
    pub stack: Option<u64>,
    /// What opens it, if it is private.
    #[serde(default)]
    pub token: Option<String>,
}

/// The answer to a submission.
#[derive(Debug, Clone, Deserialize)]
pub struct Submitted {
    /// The job's id.
    pub job: String,
    /// Marks its owner.
    pub token: String,
}

/// A job to submit.
#[derive(Debug, Clone)]
pub struct Submission<'a> {
    /// The left factor's id.
    pub a: &'a str,
    /// The right factor's id.
    pub b: &'a str,
    /// The element type; `None`: what the operands suggest.
    pub dtype: Option<&'static str>,
    /// How the operands travel, and from whom they are kept.
    pub mode: &'a Guarding,
    /// The same bits whichever devices compute.
    pub reproducible: bool,
    /// A name for people.
    pub name: &'a str,
}

/// `--mode`, `--colluders` and `--stragglers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guarding {
    /// The name of the mode.
    pub mode: &'static str,
    /// How many devices may put together what they see.
    pub colluders: Option<u32>,
    /// How many devices may fail without delay.
    pub stragglers: Option<u32>,
}

impl Guarding {
    /// Whether matrices are only for whoever submits them.
    pub fn is_private(&self) -> bool {
        self.mode != "plain"
    }
}

impl Submission<'_> {
    fn body(&self) -> serde_json::Value {
        let mut body = json!({
            "a": self.a,
            "b": self.b,
            "mode": self.mode.mode,
            "reproducible": self.reproducible,
            "name": self.name,
        });
        if let Some(dtype) = self.dtype {
            body["dtype"] = dtype.into();
        }
        for (name, count) in [
            ("colluders", self.mode.colluders),
            ("stragglers", self.mode.stragglers),
        ] {
            if let Some(count) = count {
                body[name] = count.into();
            }
        }
        body
    }
}

/// Talks to one node.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    /// What opens private matrices and jobs.
    token: Option<String>,
}

impl Client {
    /// A client of the node at `url`; nothing is sent yet.
    pub fn new(url: &NodeUrl) -> Self {
        // A proxy for the internet can not reach the devices of a room.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(READ_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without TLS needs nothing from the system");
        Self {
            base: url.0.clone(),
            http,
            token: None,
        }
    }

    /// This client with a token, which is sent with all that it asks.
    pub fn bearing(&self, token: Option<String>) -> Self {
        let mut client = self.clone();
        client.token = token.or(client.token);
        client
    }

    /// The node's URL.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Every device of the mesh.
    ///
    /// # Errors
    /// The node's, or that it was not reached.
    pub async fn nodes(&self) -> Result<Vec<DeviceEntry>, CliError> {
        self.get("/api/nodes").await
    }

    /// Whether a node of this kind answers within `limit`.
    pub async fn answers(&self, limit: Duration) -> bool {
        matches!(tokio::time::timeout(limit, self.nodes()).await, Ok(Ok(_)))
    }

    /// Sends a matrix; `file` is its name for messages.
    ///
    /// # Errors
    /// What is wrong with the file, named.
    pub async fn put_matrix(
        &self,
        source: Source,
        format: Format,
        dtype: Option<&'static str>,
        private: bool,
    ) -> Result<Matrix, CliError> {
        let mut query = dtype.map_or_else(String::new, |dtype| format!("?dtype={dtype}"));
        if private {
            query.push_str(if query.is_empty() {
                "?private=1"
            } else {
                "&private=1"
            });
        }
        let mut request = self
            .request(Method::PUT, &format!("/api/matrices{query}"))
            .header(CONTENT_TYPE, format.content_type());
        if let Some(bytes) = source.bytes {
            request = request.header(CONTENT_LENGTH, bytes);
        }
        self.ask(request.body(source.body)).await
    }

    /// Submits a job.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn submit(&self, submission: &Submission<'_>) -> Result<Submitted, CliError> {
        let body = submission.body();
        self.ask(self.request(Method::POST, "/api/jobs").json(&body))
            .await
    }

    /// What would become of a job.
    ///
    /// # Errors
    /// What is wrong with it, or that the node was not reached.
    pub async fn explain(&self, submission: &Submission<'_>) -> Result<Explained, CliError> {
        let mut body = submission.body();
        body["explain"] = true.into();
        let request = self.request(Method::POST, "/api/jobs").json(&body);
        let response = self.send(request).await?;
        let body = self.read(response).await?;
        Explained::read(&body).map_err(|_| self.not_a_node())
    }

    /// Submits a batch: the ids of the factors of each product.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn submit_batch(
        &self,
        batch: Value,
        dtype: Option<&'static str>,
        reproducible: bool,
        name: &str,
    ) -> Result<Submitted, CliError> {
        let mut body = json!({"batch": batch, "reproducible": reproducible, "name": name});
        if let Some(dtype) = dtype {
            body["dtype"] = dtype.into();
        }
        self.ask(self.request(Method::POST, "/api/jobs").json(&body))
            .await
    }

    /// All jobs.
    ///
    /// # Errors
    /// The node's, or that it was not reached.
    pub async fn jobs(&self) -> Result<Vec<JobStatus>, CliError> {
        self.get("/api/jobs").await
    }

    /// One job as it stands.
    ///
    /// # Errors
    /// The node's, or that it was not reached.
    pub async fn job(&self, id: &str) -> Result<JobStatus, CliError> {
        self.get(&format!("/api/jobs/{id}")).await
    }

    /// One job as soon as it has ended, or after [`WAIT_SECONDS`].
    ///
    /// # Errors
    /// The node's, or that it was not reached.
    pub async fn wait(&self, id: &str) -> Result<JobStatus, CliError> {
        self.get(&format!("/api/jobs/{id}?wait={WAIT_SECONDS}"))
            .await
    }

    /// The most memory that the node had, and what it may have, in bytes, if it says so.
    pub async fn memory(&self) -> Option<[u64; 2]> {
        let response = self
            .send(self.request(Method::GET, "/metrics"))
            .await
            .ok()?;
        let text = String::from_utf8(self.read(response).await.ok()?).ok()?;
        let gauge = |part: &str| {
            let name = format!("gemmesh_memory_bytes{{part=\"{part}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
            line.trim().parse().ok()
        };
        Some([gauge("peak")?, gauge("limit")?])
    }

    /// Cancels a job; the answer is what the node says about it, which may be nothing.
    ///
    /// # Errors
    /// The node's, or that it was not reached.
    pub async fn cancel(&self, id: &str) -> Result<(), CliError> {
        let request = self.request(Method::DELETE, &format!("/api/jobs/{id}"));
        self.send(request).await.map(drop)
    }

    /// The result of a job as JSON.
    ///
    /// # Errors
    /// There is none, or it was not reached.
    pub async fn result_json(&self, id: &str) -> Result<Value, CliError> {
        self.get(&format!("/api/jobs/{id}/result?format=json"))
            .await
    }

    /// Writes the result of a job, or of one product of a batch, to `sink`, in bounded memory; the number of bytes.
    ///
    /// # Errors
    /// There is none, the node went away, or `sink` can not take it.
    pub async fn result(
        &self,
        id: &str,
        format: Format,
        index: Option<u32>,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
        sink_name: &str,
    ) -> Result<u64, CliError> {
        let mut path = format!("/api/jobs/{id}/result?format={}", format.name());
        if let Some(index) = index {
            path.push_str(&format!("&index={index}&wait={WAIT_SECONDS}"));
        }
        let response = self.send(self.request(Method::GET, &path)).await?;
        let mut stream = response.bytes_stream();
        let mut bytes = 0;
        let cannot_write = |error: std::io::Error| {
            CliError::failed(
                format!("{sink_name} can not be written: {error}"),
                "check the disk and its permissions",
            )
        };
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| self.unreachable(&error))?;
            match sink.write_all(&chunk).await {
                Ok(()) => bytes += chunk.len() as u64,
                // Who reads our output has seen enough (`gemmesh result ID | head`).
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(bytes),
                Err(error) => return Err(cannot_write(error)),
            }
        }
        sink.flush().await.map_err(cannot_write)?;
        Ok(bytes)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.ask(self.request(Method::GET, path)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        let response = self.send(request).await?;
        let body = self.read(response).await?;
        serde_json::from_slice(&body).map_err(|_| self.not_a_node())
    }

    /// Sends; an answer that is not 2xx becomes the error it carries.
    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.read(response).await?;
        Err(self.refused(status, &body))
    }

    async fn read(&self, response: Response) -> Result<Vec<u8>, CliError> {
        let mut stream = response.bytes_stream();
        let mut body = Vec::new();
        while let Some(chunk) = stream.next().await {
            body.extend_from_slice(&chunk.map_err(|error| self.unreachable(&error))?);
            if body.len() > JSON_BYTES_MAX {
                return Err(self.not_a_node());
            }
        }
        Ok(body)
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> CliError {
        #[derive(Deserialize)]
        struct Refused {
            error: Parts,
        }
        #[derive(Deserialize)]
        struct Parts {
            message: String,
            #[serde(default)]
            hint: String,
        }
        match serde_json::from_slice::<Refused>(body) {
            Ok(Refused { error }) => from_status(
                status.as_u16(),
                text::clean(&error.message),
                text::clean(&error.hint),
            ),
            Err(_) => self.not_a_node(),
        }
    }

    fn not_a_node(&self) -> CliError {
        CliError::unreachable(
            format!(
                "what answers at {} is not a gemmesh node of this version",
                self.base
            ),
            "give the address of a node with --node, or start one with `gemmesh serve`",
        )
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        CliError::unreachable(
            format!("no node was reached at {}: {}", self.base, reason(error)),
            "check that `gemmesh serve` runs there, its port, and firewalls between; `gemmesh doctor` helps",
        )
    }
}

/// A body to send: a file, or what arrives on standard input.
#[derive(Debug)]
pub struct Source {
    body: Body,
    bytes: Option<u64>,
}

impl Source {
    /// A file.
    pub fn file(file: tokio::fs::File, bytes: u64) -> Self {
        let stream = ReaderStream::with_capacity(file, 1 << 18);
        Self {
            body: Body::wrap_stream(stream),
            bytes: Some(bytes),
        }
    }

    /// Standard input, until its end.
    pub fn stdin() -> Self {
        Self {
            body: Body::wrap_stream(ReaderStream::new(tokio::io::stdin())),
            bytes: None,
        }
    }
}

/// The innermost cause, which is the one that people understand.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    text::clean(&cause.to_string())
}
