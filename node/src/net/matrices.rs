//! `/api/matrices`: bodies in, files out, and fetching what another node has.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use gemmesh_protocol::id::MatrixId;
use gemmesh_protocol::matrix::Manifest;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use warp::http::{HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

use super::call::{self, Call, Counted, clip};
use super::{peers, reply};
use crate::app::App;
use crate::error::ApiError;
use crate::files::{Format, ReadOptions, npy};
use crate::store::{Missing, StoreError};
use crate::submit;

/// Where bodies lie until they are in the store.
const UPLOADS: &str = "uploads";
/// The `?format=` in which nodes hand matrices to each other.
pub const BLOCKS: &str = "blocks";
/// Tokens that people bring are no shorter.
const TOKEN_CHARS_MIN: usize = 16;
/// Enough of a body to tell what it is.
const SNIFF_BYTES: usize = 256;

/// Removes bodies that an earlier run left behind.
///
/// # Errors
/// The data directory can not be written.
pub async fn clear_uploads(app: &App) -> io::Result<()> {
    let directory = app.config().data_dir.join(UPLOADS);
    match tokio::fs::remove_dir_all(&directory).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    tokio::fs::create_dir_all(&directory).await
}

/// `PUT /api/matrices`.
pub async fn collection(mut call: Call) -> Result<Response, ApiError> {
    if call.method != Method::PUT {
        call.drain().await;
        return Err(call.refuse_method(&["PUT"]));
    }
    let outcome = put(&mut call).await;
    if outcome.is_err() {
        call.drain().await;
    }
    outcome
}

async fn put(call: &mut Call) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Put {
        id: MatrixId,
        rows: u64,
        cols: u64,
        dtype: &'static str,
        bytes: u64,
        /// Matrices that a file of three dimensions stacks.
        #[serde(skip_serializing_if = "Option::is_none")]
        stack: Option<u64>,
        /// What opens it, if it is private.
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    }
    let private = is_private(call)?;
    let dtype = call
        .query
        .get("dtype")
        .map(|name| call::dtype(name))
        .transpose()?;
    let declared = match call.query.get("format") {
        Some(name) => Some(format(name)?),
        None => {
            let value = call.headers.get(header::CONTENT_TYPE);
            value
                .and_then(|value| value.to_str().ok())
                .and_then(Format::from_content_type)
        }
    };
    check_plain(call)?;
    let store = call.app().store().clone();
    let budget = call.app().config().disk.saturating_sub(store.disk_used());
    if let Some(length) = call.content_length() {
        let others = call
            .web
            .uploading
            .load(std::sync::atomic::Ordering::Relaxed);
        if length.saturating_add(others) > budget {
            return Err(over_budget(budget));
        }
    }
    let mut counted = Counted::new(call.web.clone());
    let directory = call.app().config().data_dir.join(UPLOADS);
    let (path, first) = receive(call, directory, budget, &mut counted).await?;
    if first.is_empty() {
        return Err(ApiError::new(
            422,
            "empty_matrix",
            "the body is empty",
            "send the bytes of a .npy, .csv or .mtx file as the body",
        ));
    }
    let format = declared.or_else(|| Format::sniff(&first)).ok_or_else(|| {
        ApiError::new(
            422,
            "unknown_format",
            "the body is none of .npy, .csv and .mtx",
            "send one of these, or say which with Content-Type",
        )
    })?;
    let options = ReadOptions {
        dtype,
        keep_digits: true,
    };
    let manifest = store.import(&path, format, options).await?;
    let stack = match format {
        Format::Npy => npy::stack(&path)?,
        _ => None,
    };
    let id = manifest.id();
    let token = match private {
        true => {
            // Several matrices may have one token.
            let token = call.token().map_or_else(submit::token, str::to_owned);
            store.close(vec![id], &token, true).await?;
            Some(token)
        }
        false => {
            store.open_to_all(id).await?;
            None
        }
    };
    let put = Put {
        id,
        rows: manifest.rows,
        cols: manifest.cols,
        dtype: manifest.element.dtype.name(),
        bytes: manifest.bytes(),
        stack,
        token,
    };
    let mut response = reply::json(StatusCode::CREATED, &put);
    let place = HeaderValue::from_str(&format!("/api/matrices/{id}")).expect("hexadecimal digits");
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

/// `?private=`.
fn is_private(call: &Call) -> Result<bool, ApiError> {
    match call.query.get("private").map(String::as_str) {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true" | "")
            if call
                .token()
                .is_some_and(|token| token.len() < TOKEN_CHARS_MIN) =>
        {
            Err(ApiError::new(
                422,
                "weak_token",
                format!("the token has fewer than {TOKEN_CHARS_MIN} characters"),
                "leave it out: a new one is answered, and can be sent with the next matrix",
            ))
        }
        Some("1" | "true" | "") => Ok(true),
        Some(other) => Err(ApiError::new(
            422,
            "wrong_type",
            format!("private is {:?}", clip(other)),
            "use private=1",
        )),
    }
}

/// Refuses bodies in which the file is wrapped in something else.
fn check_plain(call: &Call) -> Result<(), ApiError> {
    let value = |name| {
        let value = call.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or("").trim().to_ascii_lowercase()
    };
    let coding = value(header::CONTENT_ENCODING);
    let what = if value(header::CONTENT_TYPE).starts_with("multipart/") {
        "a form with parts"
    } else if !matches!(coding.as_str(), "" | "identity") {
        "compressed"
    } else {
        return Ok(());
    };
    Err(ApiError::new(
        422,
        "unknown_format",
        format!("the body is {what}, not a file as it is"),
        "send the bytes of the file as the body: curl -T a.npy URL",
    ))
}

/// Writes the body to a file that is removed when the returned path is dropped. Memory: one piece.
async fn receive(
    call: &mut Call,
    directory: PathBuf,
    budget: u64,
    counted: &mut Counted,
) -> Result<(tempfile::TempPath, Vec<u8>), ApiError> {
    let made = tokio::task::spawn_blocking(move || {
        tempfile::Builder::new()
            .prefix("body-")
            .tempfile_in(directory)
    });
    let made = made.await.map_err(io::Error::other).and_then(|made| made);
    let (file, path) = made.map_err(|error| disk(&error))?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let mut first = Vec::new();
    while let Some(piece) = call.next_piece().await? {
        if counted.add(piece.len() as u64) > budget {
            return Err(over_budget(budget));
        }
        let room = SNIFF_BYTES - first.len();
        first.extend_from_slice(&piece[..piece.len().min(room)]);
        file.write_all(&piece).await.map_err(|error| disk(&error))?;
    }
    file.flush().await.map_err(|error| disk(&error))?;
    Ok((path, first))
}

/// `GET /api/matrices/{id}?format=`.
pub async fn one(call: Call, id: String) -> Result<Response, ApiError> {
    if !call.reads() {
        return Err(call.refuse_method(&["GET"]));
    }
    let id: MatrixId = call::id(&id, "matrix")?;
    check_token(&call, id)?;
    let name = format!("matrix-{}", id.short());
    let form = call.query.get("format").map_or("npy", String::as_str);
    if form == BLOCKS {
        let manifest = call.app().store().manifest(id).await;
        manifest.map_err(|missing| missing_matrix(id, &missing))?;
        let blocks = call.app().store().export_blocks(id);
        return Ok(reply::stream("application/octet-stream", blocks));
    }
    export(&call, id, format(form)?, &name).await
}

/// A matrix as a file, from this node or from any that has it.
///
/// # Errors
/// Nobody has it, or it can not be written in this form.
pub async fn export(
    call: &Call,
    id: MatrixId,
    format: Format,
    name: &str,
) -> Result<Response, ApiError> {
    let app = call.app();
    let store = app.store();
    let mut found = store.manifest(id).await;
    if let Err(Missing::Corrupt(_)) = &found
        && !call.is_hop()
        && peers::heal(app, id).await
    {
        found = store.manifest(id).await;
    }
    if let Err(missing) = found {
        if call.is_hop() {
            return Err(missing_matrix(id, &missing));
        }
        let path = format!("/api/matrices/{id}?format={}", format.name());
        let found = peers::any(app, call.method.clone(), &path).await?;
        return found.map_err(|elsewhere| missing_matrix(id, &missing.or(elsewhere)));
    }
    if let Err(error) = store.check_export(id, format).await {
        // It may have found out that the matrix is damaged.
        let whole = store.manifest(id).await.is_ok();
        if whole || call.is_hop() || !peers::heal(app, id).await {
            return Err(error);
        }
        store.check_export(id, format).await?;
    }
    let pieces = healing(app.clone(), id, format, !call.is_hop());
    let mut response = reply::stream(format.content_type(), pieces);
    if format != Format::Json {
        reply::save_as(&mut response, name, format.name());
    }
    Ok(response)
}

/// A matrix as a file. When a part of it is found to be damaged, the matrix is fetched from another
/// node, once, and the file goes on where it was: the same matrix is the same file.
fn healing(
    app: App,
    id: MatrixId,
    format: Format,
    may_heal: bool,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    let pieces = app.store().export(id, format).boxed();
    let state = (app, pieces, 0u64, may_heal);
    stream::unfold(
        state,
        move |(app, mut pieces, mut sent, mut may_heal)| async move {
            let mut skip = 0;
            loop {
                match pieces.next().await? {
                    Ok(piece) if piece.len() as u64 <= skip => skip -= piece.len() as u64,
                    Ok(mut piece) => {
                        let piece = piece.split_off(skip as usize);
                        sent += piece.len() as u64;
                        return Some((Ok(piece), (app, pieces, sent, may_heal)));
                    }
                    Err(StoreError::Missing { .. })
                        if std::mem::take(&mut may_heal) && peers::heal(&app, id).await =>
                    {
                        pieces = app.store().export(id, format).boxed();
                        skip = sent;
                    }
                    Err(error) => return Some((Err(error), (app, pieces, sent, false))),
                }
            }
        },
    )
}

/// Makes sure that an operand is in this node's store, fetching it from another node if need be.
///
/// # Errors
/// 404 or 410 when nobody has it; 503 when the transfer failed.
pub async fn pull(call: &Call, id: MatrixId) -> Result<Arc<Manifest>, ApiError> {
    if !call.app().store().is_usable(id, call.token()) {
        return Err(token_needed(&format!("matrix {id}")));
    }
    let store = call.app().store();
    let missing = match store.manifest(id).await {
        Ok(manifest) => return Ok(manifest),
        Err(missing) => missing,
    };
    let manifest = peers::pull(call.app(), id).await?;
    manifest
        .map(Arc::new)
        .map_err(|elsewhere| missing_matrix(id, &missing.or(elsewhere)))
}

/// Refuses a private matrix to who does not bear its token.
///
/// # Errors
/// 403.
pub fn check_token(call: &Call, id: MatrixId) -> Result<(), ApiError> {
    if call.app().store().opens(id, call.token()) {
        return Ok(());
    }
    Err(token_needed(&format!("matrix {id}")))
}

/// The error for who lacks the token of something.
pub fn token_needed(what: &str) -> ApiError {
    ApiError::new(
        403,
        "token_needed",
        format!("{what} is private: it is only for who has its token"),
        "send the token that came with it: Authorization: Bearer TOKEN (commands: --token TOKEN)",
    )
}

/// A form by the name that `?format=` uses.
///
/// # Errors
/// There is no such form.
pub fn format(name: &str) -> Result<Format, ApiError> {
    Format::from_name(name).ok_or_else(|| {
        ApiError::new(
            422,
            "unknown_format",
            format!("format {:?} is not known", clip(name)),
            "use npy, csv, mtx or json",
        )
    })
}

/// The error for something of a later version.
pub fn not_offered(what: &str) -> ApiError {
    ApiError::new(
        422,
        "not_offered",
        format!("{:?} is not offered by this version", clip(what)),
        "leave it out: one plain product of two matrices is what there is",
    )
}

pub(super) fn missing_matrix(id: MatrixId, missing: &Missing) -> ApiError {
    match missing {
        Missing::Unknown => ApiError::new(
            404,
            "unknown_matrix",
            format!("there is no matrix {id}"),
            "send it with PUT /api/matrices",
        ),
        Missing::Expired => ApiError::new(
            410,
            "expired",
            format!("the time of matrix {id} is over"),
            "send it again, or compute it again",
        ),
        Missing::Corrupt(why) => ApiError::new(
            503,
            "corrupt_matrix",
            format!("matrix {id} is damaged on this node's disk: {why}"),
            "send it again, and check the disk",
        ),
    }
}

fn over_budget(budget: u64) -> ApiError {
    ApiError::new(
        413,
        "body_too_large",
        format!(
            "the body does not fit into the {budget} bytes that are left for bodies and matrices"
        ),
        "wait for older results to expire, or start the node with a larger --disk",
    )
}

fn disk(error: &io::Error) -> ApiError {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        return StoreError::DiskFull.into();
    }
    // The error's own text may name a path, which is nobody's business.
    tracing::error!(%error, "a body could not be written");
    ApiError::new(
        503,
        "io_error",
        format!(
            "the body could not be written to the disk: {}",
            error.kind()
        ),
        "see the node's log, then try again",
    )
}
