//! From a request to a durable job.

use std::sync::Arc;

use gemmesh_kernel::exact;
use gemmesh_protocol::id::{BlockId, Epoch, JobId, MatrixId};
use gemmesh_protocol::job::{JobHeader, KernelClass};
use gemmesh_protocol::matrix::{Dtype, ElementType, LIMBS_MAX, Manifest};
use gemmesh_protocol::plan;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::status::{DeviceState, Outlook};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::app::{App, SubmitRequest, Submitted};
use crate::cli::config::free_disk;
use crate::driver::Event;
use crate::error::ApiError;
use crate::files::memory::Memory;
use crate::files::{ReadOptions, json};
use crate::guarded;
use crate::needs::{self, Explained, Needs};
use crate::os;
use crate::store::{Missing, StoreError};

/// A job that needs more asks the disk whether it has so much.
const ASK_DISK_BYTES: u64 = 64 << 20;

/// Checks `request`, and finds out what the job is and what it needs here.
async fn prepare(app: &App, request: SubmitRequest) -> Result<(JobHeader, Needs), ApiError> {
    let a = operand(app, "a", request.a).await?;
    let b = operand(app, "b", request.b).await?;
    check_factors((a.rows, a.cols), (b.rows, b.cols))?;
    let common = common(a.element.dtype, b.element.dtype);
    let dtype = request.dtype.unwrap_or(common);
    let disk_bytes = disk_needed(&a, &b, dtype)?;
    check_disk(app, disk_bytes).await?;
    let a = converted(app, request.a, a, dtype).await?;
    let b = converted(app, request.b, b, dtype).await?;
    let element = element_of_product(&a, &b, dtype)?;
    let guard = match request.guarded {
        None => None,
        Some(wish) => {
            let numbers = (wish.colluders, wish.spares);
            Some(Box::new(guarded::guard(wish.mode, numbers, &a, &b)?))
        }
    };
    let class = class(dtype, request.reproducible);
    let slots = slots(app);
    let tiling = plan::tiling(&a, &b, element, slots);
    let mut header = JobHeader {
        job: JobId(os::random()),
        name: request.name,
        class,
        a: Manifest::clone(&a),
        b: Manifest::clone(&b),
        element,
        tiling,
        stack: 1,
        batch: None,
        guard,
        share: None,
    };
    let room = match header.guard {
        None => needs::room_of_all(&app.devices()),
        Some(_) => guarded::TILE_BYTES_MAX,
    };
    let memory_bytes = needs::cut(&mut header, slots, app.config().threads, app.shares(), room)?;
    check(&header)?;
    let needs = Needs {
        disk_bytes,
        memory_bytes,
    };
    Ok((header, needs))
}

/// What would become of `request`, without running it.
///
/// # Errors
/// As [`submit`].
pub(crate) async fn explain(app: &App, request: SubmitRequest) -> Result<Explained, ApiError> {
    let (header, needs) = prepare(app, request).await?;
    let outlook = outlook(app, Box::new(header)).await?;
    Ok(Explained { outlook, needs })
}

/// The plan that a job would start with.
///
/// # Errors
/// Too few devices for a guarded product, or the node stops.
async fn outlook(app: &App, header: Box<JobHeader>) -> Result<Outlook, ApiError> {
    let outlook = if header.guard.is_some() {
        let (reply, outlook) = oneshot::channel();
        let told = app.tell(Event::ExplainGuarded { header, reply }).await;
        outlook.await.ok().filter(|_| told)
    } else {
        let (reply, outlook) = oneshot::channel();
        let told = app.tell(Event::Explain { header, reply }).await;
        outlook.await.ok().filter(|_| told).map(Ok)
    };
    let outlook = outlook.ok_or_else(|| {
        ApiError::new(503, "stopping", "this node is stopping", "ask another node")
    })?;
    outlook.map_err(|refusal| {
        ApiError::new(
            422,
            "too_few_devices",
            refusal.to_string(),
            "start more nodes or open the page on more devices, ask for less, or use mode plain",
        )
    })
}

/// Checks `request`, makes the job durable and hands it to the engine.
///
/// # Errors
/// What is wrong with the request, or why no job can be taken.
pub(crate) async fn submit(app: &App, request: SubmitRequest) -> Result<Submitted, ApiError> {
    let (header, _) = prepare(app, request).await?;
    let token = token();
    if header.guard.is_some() {
        outlook(app, Box::new(header.clone())).await?;
        let factors = vec![header.a.id(), header.b.id()];
        app.store()
            .close(factors, &token, false)
            .await
            .map_err(not_stored)?;
    }
    let taken = Taken {
        header,
        submitted: os::wall(),
        token: BlockId::of(token.as_bytes()),
    };
    let first = Epoch {
        counter: 1,
        device: app.device(),
    };
    app.store()
        .insert_job(&taken, first)
        .await
        .map_err(not_stored)?;
    let job = taken.header.job;
    let (reply, is_taken) = oneshot::channel();
    let taken = Box::new(taken);
    let event = Event::Submit { taken, reply };
    if !app.tell(event).await || is_taken.await.is_err() {
        return Err(stopping(job));
    }
    Ok(Submitted { job, token })
}

/// Bytes of the product, and of factors that are not there in the job's element type.
fn disk_needed(a: &Manifest, b: &Manifest, dtype: Dtype) -> Result<u64, ApiError> {
    let converted = |of: &Manifest| match of.element.dtype == dtype {
        true => 0,
        false => of.rows * of.cols * ElementType { dtype, limbs: 1 }.bytes(),
    };
    let element = element_of_product(a, b, dtype)?;
    let product = u128::from(a.rows) * u128::from(b.cols) * u128::from(element.bytes());
    let product = u64::try_from(product).unwrap_or(u64::MAX);
    Ok(product
        .saturating_add(converted(a))
        .saturating_add(converted(b)))
}

/// Refuses a job for which there is no room; what the disk itself has is asked only where it matters.
async fn check_disk(app: &App, needed: u64) -> Result<(), ApiError> {
    let budget = app.config().disk;
    let free = budget.saturating_sub(app.store().disk_used());
    let on_disk = match needed > ASK_DISK_BYTES {
        true => free_disk(&app.config().data_dir),
        false => None,
    };
    needs::check_disk(needed, free, budget, on_disk)
}

/// Whether a product of matrices of these rows and columns is there.
///
/// # Errors
/// Names both.
pub(crate) fn check_factors(a: (u64, u64), b: (u64, u64)) -> Result<(), ApiError> {
    if a.1 == b.0 {
        return Ok(());
    }
    Err(ApiError::new(
        422,
        "dimension_mismatch",
        format!(
            "a is {} × {} and b is {} × {}: the {} columns of a do not meet the {} rows of b",
            a.0, a.1, b.0, b.1, a.1, b.0
        ),
        "give b as many rows as a has columns",
    ))
}

/// The element type of a product when nobody says which.
pub(crate) fn common(a: Dtype, b: Dtype) -> Dtype {
    match (a, b) {
        (Dtype::Int, Dtype::Int) => Dtype::Int,
        (Dtype::F32, Dtype::F32) => Dtype::F32,
        _ => Dtype::F64,
    }
}

/// How elements of this type are computed.
pub(crate) fn class(dtype: Dtype, reproducible: bool) -> KernelClass {
    match dtype {
        Dtype::Int => KernelClass::Exact,
        _ if reproducible => KernelClass::Separate,
        _ => KernelClass::Any,
    }
}

/// The slots of all devices that are there.
pub(crate) fn slots(app: &App) -> u32 {
    app.devices()
        .iter()
        .filter(|d| d.state != DeviceState::Lost)
        .map(|d| d.slots)
        .sum()
}

/// Marks the owner of a job.
pub(crate) fn token() -> String {
    os::random::<16>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whether a job can be computed here.
///
/// # Errors
/// 422 naming what is too much.
pub(crate) fn check(header: &JobHeader) -> Result<(), ApiError> {
    header.check().map_err(|error| {
        ApiError::new(
            422,
            "not_computable",
            format!(
                "the product of {} × {} elements can not be computed here: {error}",
                header.a.rows, header.b.cols
            ),
            "submit smaller pieces",
        )
    })
}

/// The node stops while it takes a job that is durable.
pub(crate) fn stopping(job: JobId) -> ApiError {
    ApiError::new(
        503,
        "stopping",
        "this node is stopping; the job is on its disk and goes on when it starts again",
        format!("ask for job {job} after the restart"),
    )
}

/// Reads small nested arrays of JSON into memory.
///
/// # Errors
/// As [`json::read`].
pub(crate) fn read_values(value: &Value, dtype: Option<Dtype>) -> Result<Memory, ApiError> {
    let options = ReadOptions {
        dtype,
        keep_digits: false,
    };
    let mut memory = Memory::default();
    json::read(value, options, &mut memory)?;
    Ok(memory.measured())
}

pub(crate) async fn operand(
    app: &App,
    name: &str,
    id: MatrixId,
) -> Result<Arc<Manifest>, ApiError> {
    app.store()
        .manifest(id)
        .await
        .map_err(|missing| match missing {
            Missing::Unknown => ApiError::new(
                404,
                "unknown_matrix",
                format!("{name}: there is no matrix {id}"),
                "PUT /api/matrices first and use the id that it answers",
            ),
            Missing::Expired => ApiError::new(
                410,
                "expired_matrix",
                format!("{name}: the time of matrix {id} is over"),
                "PUT /api/matrices again",
            ),
            Missing::Corrupt(reason) => ApiError::new(
                503,
                "corrupt_matrix",
                format!("{name}: matrix {id} is damaged on this node's disk: {reason}"),
                "PUT /api/matrices again",
            ),
        })
}

async fn converted(
    app: &App,
    id: MatrixId,
    manifest: Arc<Manifest>,
    dtype: Dtype,
) -> Result<Arc<Manifest>, ApiError> {
    if manifest.element.dtype == dtype {
        return Ok(manifest);
    }
    app.store().convert(id, dtype).await.map(Arc::new)
}

/// Why a job was not taken: its result needs room.
pub(crate) fn not_stored(error: StoreError) -> ApiError {
    match error {
        StoreError::Full { .. }
        | StoreError::DiskFull
        | StoreError::TooManyJobs(_)
        | StoreError::Missing { .. } => error.into(),
        error => ApiError::new(
            503,
            "not_stored",
            format!("the job could not be made durable: {error}"),
            "look at the disk of this node: space, permissions, health",
        ),
    }
}

/// The form of C's elements: for integers as many limbs as the largest possible element needs.
pub(crate) fn element_of_product(
    a: &Manifest,
    b: &Manifest,
    dtype: Dtype,
) -> Result<ElementType, ApiError> {
    if dtype != Dtype::Int {
        return Ok(ElementType { dtype, limbs: 1 });
    }
    let limbs = exact::output_limbs(a.bits, b.bits, a.cols as usize);
    if limbs > usize::from(LIMBS_MAX) {
        return Err(ApiError::new(
            422,
            "too_large",
            format!(
                "elements of {} and {} bits give a product of up to {} bits; {} is the most",
                a.bits,
                b.bits,
                limbs * 64,
                64 * u32::from(LIMBS_MAX)
            ),
            "split the numbers into smaller ones",
        ));
    }
    Ok(ElementType {
        dtype,
        limbs: limbs as u16,
    })
}
