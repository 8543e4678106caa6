//! Batches: taking one, cancelling one, results of its products.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use gemmesh_protocol::batch::{BatchPart, FailedProduct};
use gemmesh_protocol::id::{JobId, MatrixId};
use gemmesh_protocol::matrix::Dtype;
use gemmesh_protocol::status::{JobState, JobStatus};
use warp::http::Method;
use warp::reply::Response;

use super::call::{Call, clip};
use super::submission::{Factor, What};
use super::{jobs, matrices, peers, reply};
use crate::app::Submitted;
use crate::batch::{BatchRequest, Operand, Products};
use crate::error::ApiError;
use crate::files::export::{self, Export};
use crate::files::memory::Memory;
use crate::files::pieces::Piece;
use crate::files::{Format, npy};
use crate::store::StoreError;
use crate::submit;

/// How long until a part is looked for again whose coordinator can not be asked.
const AGAIN: Duration = Duration::from_millis(500);

/// Takes the products of a submission as one batch.
///
/// # Errors
/// Why it can not be taken.
pub async fn take(
    call: &Call,
    what: What,
    dtype: Option<Dtype>,
    reproducible: bool,
    name: String,
) -> Result<Submitted, ApiError> {
    let products = match what {
        What::One(factors) => Products::List(vec![operands(call, *factors, dtype).await]),
        What::Batch(list) => {
            let mut products = Vec::with_capacity(list.len());
            for factors in list {
                products.push(operands(call, factors, dtype).await);
            }
            Products::List(products)
        }
        What::Stacks { a, b, products } => {
            for (id, name) in [(a, "a"), (b, "b")] {
                let pulled = matrices::pull(call, id).await;
                pulled.map_err(|error| about(error, name))?;
            }
            Products::Stacks { a, b, products }
        }
    };
    let request = BatchRequest {
        products,
        dtype,
        reproducible,
        name,
    };
    call.app().submit_batch(request).await
}

async fn operands(
    call: &Call,
    factors: [Factor; 2],
    dtype: Option<Dtype>,
) -> Result<[Operand; 2], ApiError> {
    let [a, b] = factors;
    Ok([
        operand(call, a, dtype)
            .await
            .map_err(|error| about(error, "a"))?,
        operand(call, b, dtype)
            .await
            .map_err(|error| about(error, "b"))?,
    ])
}

async fn operand(call: &Call, factor: Factor, dtype: Option<Dtype>) -> Result<Operand, ApiError> {
    match factor {
        Factor::Stored(id) => matrices::pull(call, id).await.map(Operand::stored),
        Factor::Inline(value) => {
            let memory = submit::read_values(&value, dtype)?;
            Ok(Operand::Values(memory.into(), value.into()))
        }
    }
}

fn about(mut error: ApiError, name: &str) -> ApiError {
    error.message = format!("{name}: {}", error.message);
    error
}

/// Cancels all parts, whoever coordinates them; how the batch stands then.
///
/// # Errors
/// A coordinator can not be asked.
pub async fn cancel(call: &Call, batch: JobId) -> Result<JobStatus, ApiError> {
    let app = call.app();
    for part in app.parts(batch) {
        if part.state.has_ended() {
            continue;
        }
        if app.coordinates(part.job) {
            app.cancel(part.job).await?;
            continue;
        }
        let address = app.coordinator_address(part.job);
        let address = address.ok_or_else(|| jobs::coordinator_lost(&part))?;
        let path = format!("/api/jobs/{}", part.job);
        let sent = peers::send(app, Method::DELETE, &address, &path, Duration::ZERO).await;
        let answer = sent.map_err(|error| peers::unreachable(&address, &error))?;
        if !answer.status().is_success() {
            return Err(jobs::coordinator_lost(&part));
        }
    }
    let limit = Duration::from_secs(2);
    let status = app.wait_job(batch, limit).await;
    status.ok_or_else(|| jobs::unknown(batch))
}

/// The result of one product, or of all as one array of three dimensions.
///
/// # Errors
/// The product has none, or none yet.
pub async fn result(
    call: &Call,
    batch: JobId,
    index: Option<&str>,
    wait: Duration,
) -> Result<Response, ApiError> {
    if !call.app().knows_batch(batch) && !call.is_hop() {
        let found = peers::any(call.app(), call.method.clone(), &call.target).await?;
        if let Ok(response) = found {
            return Ok(response);
        }
    }
    let name = call.query.get("format").map_or("json", String::as_str);
    let Some(index) = index else {
        let format = call.query.get("format").map_or("npy", String::as_str);
        return whole(call, batch, matrices::format(format)?, wait).await;
    };
    let format = matrices::format(name)?;
    let index: u32 = index.parse().map_err(|_| {
        ApiError::new(
            422,
            "bad_index",
            format!(
                "index is {:?}, which is no number of a product",
                clip(index)
            ),
            "products are numbered from 0",
        )
    })?;
    let deadline = Instant::now() + wait;
    loop {
        let mut changes = call.app().changes();
        let part = find(call, batch, index)?;
        let left = deadline.saturating_duration_since(Instant::now());
        match of_part(call, &part, index, format, left).await {
            Err(error) if error.code == "job_running" && !left.is_zero() => {
                let news = tokio::time::timeout(AGAIN.min(left), changes.changed());
                // News or not, it is looked for again.
                let _ = news.await;
            }
            outcome => return outcome,
        }
    }
}

/// The part that has a product.
fn find(call: &Call, batch: JobId, index: u32) -> Result<JobStatus, ApiError> {
    let parts = call.app().parts(batch);
    let mut products = 0;
    for status in parts {
        let Some(part) = status.part.as_deref() else {
            continue;
        };
        products = part.products;
        if let Some(failed) = part.failed.iter().find(|failed| failed.index == index) {
            return Err(product_failed(batch, failed));
        }
        if part.place(index).is_some() {
            return Ok(status);
        }
    }
    if products == 0 {
        return Err(jobs::unknown(batch));
    }
    Err(ApiError::new(
        404,
        "no_such_product",
        format!("job {batch} has no product {index}: it has {products}"),
        "products are numbered from 0",
    ))
}

fn product_failed(batch: JobId, failed: &FailedProduct) -> ApiError {
    let FailedProduct { index, error } = failed;
    ApiError::new(
        422,
        "product_failed",
        format!("product {index} of job {batch} has no result: {error}"),
        "mend the reason and submit it again; the other products have theirs",
    )
}

async fn of_part(
    call: &Call,
    status: &JobStatus,
    index: u32,
    format: Format,
    wait: Duration,
) -> Result<Response, ApiError> {
    let app = call.app();
    let part = status.part.as_deref().expect("a part of a batch");
    let place = part.place(index).expect("it was found by that");
    let each = status.rows / part.len().max(1);
    let rows = place * each..(place + 1) * each;
    let name = match status.name.as_str() {
        "" => format!("result-{}-{index}", part.batch.short()),
        name => format!("{name}-{index}"),
    };
    match (status.state, status.result) {
        (JobState::Done, Some(id)) if part.len() == 1 => {
            let exported = matrices::export(call, id, format, &name).await;
            exported.map_err(|error| lost(status, error))
        }
        (JobState::Done, Some(id)) => {
            let pulled = matrices::pull(call, id).await;
            pulled.map_err(|error| lost(status, error))?;
            let memory = match app.store().read_rows(id, rows.clone()).await {
                Err(StoreError::Missing { .. }) if peers::heal(app, id).await => {
                    app.store().read_rows(id, rows).await?
                }
                read => read?,
            };
            file(memory, format, &name)
        }
        (JobState::Failed, _) => {
            let error = status.error.clone().unwrap_or_default();
            Err(product_failed(part.batch, &FailedProduct { index, error }))
        }
        (JobState::Cancelled, _) => Err(ApiError::new(
            409,
            "job_cancelled",
            format!(
                "job {} was cancelled before product {index} was there",
                part.batch
            ),
            "submit it again",
        )),
        _ if app.coordinates(status.job) => {
            let there = app.store().read_result_rows(status.job, rows).await?;
            let memory = there.filter(|_| part.len() > 1);
            memory.map_or_else(
                || Err(running(part, index)),
                |memory| file(memory, format, &name),
            )
        }
        _ if call.is_hop() => Err(running(part, index)),
        _ => match app.coordinator_address(status.job) {
            Some(address) => jobs::forward(call, &address, wait).await,
            None => Err(running(part, index)),
        },
    }
}

fn running(part: &BatchPart, index: u32) -> ApiError {
    ApiError::new(
        409,
        "job_running",
        format!("product {index} of job {} is not there yet", part.batch),
        "wait for it with ?wait=SECONDS",
    )
}

/// The job is known, so is its result; only nobody who has it can be reached.
fn lost(status: &JobStatus, error: ApiError) -> ApiError {
    match error.status {
        404 => jobs::result_lost(status),
        _ => error,
    }
}

/// A small matrix as a file.
fn file(mut memory: Memory, format: Format, name: &str) -> Result<Response, ApiError> {
    let Ok(checked) = export::check(&mut memory, format);
    checked?;
    let Ok(mut export) = Export::new(memory, format, Piece::alone());
    let mut bytes = Vec::new();
    while let Ok(Some(piece)) = export.next_bytes() {
        bytes.extend(piece);
    }
    let pieces = stream::iter([Ok::<_, StoreError>(Bytes::from(bytes))]);
    let mut response = reply::stream(format.content_type(), pieces);
    if format != Format::Json {
        reply::save_as(&mut response, name, format.name());
    }
    Ok(response)
}

/// All products as one array, if they are of one shape and in order.
async fn whole(
    call: &Call,
    batch: JobId,
    format: Format,
    wait: Duration,
) -> Result<Response, ApiError> {
    let app = call.app();
    let which = |message: String| {
        let hint = "ask for one product with ?index=, from 0";
        ApiError::new(422, "which_product", message, hint)
    };
    if format != Format::Npy {
        let name = format.name();
        return Err(which(format!(
            "the products of a batch do not fit into one .{name}"
        )));
    }
    let status = app.wait_job(batch, wait).await;
    let status = status.ok_or_else(|| jobs::unknown(batch))?;
    match status.state {
        JobState::Done => {}
        JobState::Cancelled => {
            return Err(jobs::product(&status).expect_err("it was cancelled"));
        }
        JobState::Failed => return Err(jobs::product(&status).expect_err("it failed")),
        JobState::Queued | JobState::Running => {
            return Err(jobs::product(&status).expect_err("it runs"));
        }
    }
    let mut parts = app.parts(batch);
    parts.sort_by_key(|status| status.part.as_deref().map(|part| part.part));
    if let Some(failed) = status.failed.iter().flatten().next() {
        return Err(product_failed(batch, failed));
    }
    let mut next = 0;
    let each = |status: &JobStatus| {
        let products = status.part.as_deref().map_or(1, BatchPart::len).max(1);
        (status.rows / products, status.cols, status.dtype)
    };
    let (rows, cols, dtype) = each(&parts[0]);
    let mut ids: Vec<MatrixId> = Vec::new();
    for status in &parts {
        let part = status.part.as_deref().expect("a part of a batch");
        let in_order = part.runs.iter().all(|run| {
            let follows = run.first == next;
            next = run.first + run.count;
            follows
        });
        if !in_order || each(status) != (rows, cols, dtype) {
            return Err(which(
                "the products of this batch have several shapes".to_owned(),
            ));
        }
        ids.extend(status.result);
    }
    if dtype == Dtype::Int && ids.len() > 1 {
        return Err(which("these integers are in several parts".to_owned()));
    }
    let mut unsigned = false;
    for &id in &ids {
        matrices::pull(call, id)
            .await
            .map_err(|error| lost(&status, error))?;
        app.store().check_export(id, format).await?;
        if dtype == Dtype::Int {
            let mut pieces = app.store().export(id, format).boxed();
            let head = pieces.next().await.transpose()?.unwrap_or_default();
            unsigned = head.windows(3).any(|window| window == b"<u8");
        }
    }
    let descr = match dtype {
        Dtype::F64 => "<f8",
        Dtype::F32 => "<f4",
        Dtype::Int if unsigned => "<u8",
        Dtype::Int => "<i8",
        Dtype::Residues => unreachable!("no product of a batch has such elements"),
    };
    let head = npy::write_stack_header(descr, u64::from(next), rows, cols);
    let store = app.store().clone();
    // The header of each part is the first piece of its file.
    let bodies =
        stream::iter(ids).flat_map(move |id| store.export(id, Format::Npy).skip(1).boxed());
    let pieces = stream::iter([Ok(Bytes::from(head))]).chain(bodies);
    let mut response = reply::stream(format.content_type(), pieces);
    let name = format!("result-{}", batch.short());
    reply::save_as(&mut response, &name, format.name());
    Ok(response)
}
