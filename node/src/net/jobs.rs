//! `/api/jobs`: submitting, watching, results, cancelling; at every node, whoever coordinates.

use std::net::IpAddr;
use std::time::Duration;

use gemmesh_protocol::id::{JobId, MatrixId};
use gemmesh_protocol::matrix::Dtype;
use gemmesh_protocol::status::{JobState, JobStatus};
use serde::Serialize;
use warp::http::{HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

use super::call::{self, Call, Web};
use super::submission::{Factor, Submission};
use super::{matrices, peers, reply};
use crate::app::SubmitRequest;
use crate::error::ApiError;
use crate::store::Missing;

/// The most bytes of a submission.
const SUBMISSION_BYTES_MAX: usize = 1 << 20;
/// The most jobs of one client that have not ended.
const JOBS_PER_CLIENT: usize = 256;
/// `GET` and `POST /api/jobs`.
pub async fn collection(call: Call) -> Result<Response, ApiError> {
    match call.method {
        Method::GET | Method::HEAD => Ok(reply::json(StatusCode::OK, &call.app().jobs())),
        Method::POST => submit(call).await,
        _ => Err(call.refuse_method(&["GET", "POST"])),
    }
}

async fn submit(mut call: Call) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Accepted {
        job: JobId,
        token: String,
    }
    let body = call.small_body(SUBMISSION_BYTES_MAX).await?;
    let submission = Submission::parse(&body)?;
    let client = call.peer.remote.ip();
    admit(&call.web, client)?;
    let a = resolve(&call, submission.a, submission.dtype, "a").await?;
    let b = resolve(&call, submission.b, submission.dtype, "b").await?;
    let request = SubmitRequest {
        a,
        b,
        dtype: submission.dtype,
        reproducible: submission.reproducible,
        name: submission.name,
    };
    let submitted = call.app().submit(request).await?;
    let mut senders = call.web.senders.lock().expect("no holder panics");
    senders.entry(client).or_default().push(submitted.job);
    drop(senders);
    let accepted = Accepted {
        job: submitted.job,
        token: submitted.token,
    };
    let mut response = reply::json(StatusCode::ACCEPTED, &accepted);
    let place = format!("/api/jobs/{}", accepted.job);
    let place = HeaderValue::from_str(&place).expect("hexadecimal digits");
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

async fn resolve(
    call: &Call,
    factor: Factor,
    dtype: Option<Dtype>,
    name: &str,
) -> Result<MatrixId, ApiError> {
    let stored = match factor {
        Factor::Stored(id) => matrices::pull(call, id).await.map(|_| id),
        Factor::Inline(value) => {
            let manifest = call.app().store().import_values(&value, dtype).await;
            manifest.map(|manifest| manifest.id())
        }
    };
    stored.map_err(|mut error| {
        error.message = format!("{name}: {}", error.message);
        error
    })
}

/// Refuses a client that has too many jobs which have not ended.
fn admit(web: &Web, client: IpAddr) -> Result<(), ApiError> {
    let mut senders = web.senders.lock().expect("no holder panics");
    senders.retain(|_, jobs| {
        jobs.retain(|job| {
            web.app
                .job(*job)
                .is_some_and(|status| !status.state.has_ended())
        });
        !jobs.is_empty()
    });
    if senders
        .get(&client)
        .is_some_and(|jobs| jobs.len() >= JOBS_PER_CLIENT)
    {
        return Err(ApiError::new(
            429,
            "too_many_jobs",
            format!("{JOBS_PER_CLIENT} jobs from {client} have not ended yet"),
            "wait until some have ended, or cancel some",
        ));
    }
    Ok(())
}

/// `GET` and `DELETE /api/jobs/{job}`.
pub async fn one(call: Call, job: String) -> Result<Response, ApiError> {
    if !call.reads() && call.method != Method::DELETE {
        return Err(call.refuse_method(&["GET", "DELETE"]));
    }
    let job: JobId = call::id(&job, "job")?;
    let wait = call.wait()?;
    if call.method == Method::DELETE {
        return match locate(&call, job).await? {
            Place::Here => Ok(reply::json(StatusCode::OK, &call.app().cancel(job).await?)),
            Place::There(address) => forward(&call, &address, wait).await,
            Place::Lost(status) => Err(coordinator_lost(&status)),
        };
    }
    let status = match locate(&call, job).await? {
        Place::Here => wait_here(&call, job, wait).await?,
        Place::Lost(status) => *status,
        Place::There(address) => match forward(&call, &address, wait).await {
            Ok(response) => return Ok(response),
            // What was last heard of it is better than nothing.
            Err(error) => call.app().job(job).ok_or(error)?,
        },
    };
    Ok(reply::json(StatusCode::OK, &status))
}

/// `GET /api/jobs/{job}/result`.
pub async fn result(call: Call, job: String) -> Result<Response, ApiError> {
    if !call.reads() {
        return Err(call.refuse_method(&["GET"]));
    }
    let job: JobId = call::id(&job, "job")?;
    let wait = call.wait()?;
    if call.query.contains_key("index") {
        return Err(matrices::not_offered("index"));
    }
    let format = matrices::format(call.query.get("format").map_or("json", String::as_str))?;
    let status = match locate(&call, job).await? {
        Place::Here => wait_here(&call, job, wait).await?,
        Place::Lost(status) if status.state.has_ended() => *status,
        Place::Lost(status) => return Err(coordinator_lost(&status)),
        Place::There(address) => match forward(&call, &address, wait).await {
            Ok(response) => return Ok(response),
            Err(error) => {
                let known = call.app().job(job);
                known
                    .filter(|status| status.state.has_ended())
                    .ok_or(error)?
            }
        },
    };
    let id = product(&status)?;
    let name = if status.name.is_empty() {
        format!("result-{}", job.short())
    } else {
        status.name.clone()
    };
    let exported = matrices::export(&call, id, format, &name).await;
    exported.map_err(|error| match error.status {
        // The job is known, so is its result; only nobody who has it can be reached.
        404 => result_lost(&status),
        _ => error,
    })
}

/// The product of a job that is done.
fn product(status: &JobStatus) -> Result<MatrixId, ApiError> {
    let job = status.job;
    let conflict = |code, message: String, hint: &str| Err(ApiError::new(409, code, message, hint));
    match (status.state, status.result) {
        (JobState::Done, Some(id)) => Ok(id),
        (JobState::Failed, _) => {
            let reason = status.error.as_deref().unwrap_or("no reason was given");
            conflict(
                "job_failed",
                format!("job {job} failed: {reason}"),
                "mend the reason and submit it again",
            )
        }
        (JobState::Cancelled, _) => conflict(
            "job_cancelled",
            format!("job {job} was cancelled"),
            "submit it again",
        ),
        (state, _) => {
            let state = match state {
                JobState::Queued => "queued",
                _ => "running",
            };
            let (done, total) = (status.tiles_done, status.tiles_total);
            conflict(
                "job_running",
                format!("job {job} is {state}: {done} of {total} tiles are done"),
                "wait for it with ?wait=SECONDS",
            )
        }
    }
}

/// Who can say something about a job.
enum Place {
    /// This node coordinates it.
    Here,
    /// The node at this address does.
    There(String),
    /// Nobody who can be reached, but this is how it stood.
    Lost(Box<JobStatus>),
}

async fn locate(call: &Call, job: JobId) -> Result<Place, ApiError> {
    let app = call.app();
    if app.coordinates(job) {
        return Ok(Place::Here);
    }
    let known = app.job(job);
    if call.is_hop() {
        return known.map_or_else(
            || Err(missing_job(call, job, Missing::Unknown)),
            |status| Ok(Place::Lost(Box::new(status))),
        );
    }
    if let Some(address) = app.coordinator_address(job) {
        return Ok(Place::There(address));
    }
    if let Some(status) = known {
        return Ok(Place::Lost(Box::new(status)));
    }
    let found = peers::find_job(&call.web, job).await;
    let status = found.map_err(|elsewhere| missing_job(call, job, elsewhere))?;
    // It may have told of a coordinator that this node knows as a device.
    let devices = app.devices();
    let entry = devices
        .iter()
        .find(|entry| entry.device == status.coordinator);
    Ok(match entry {
        Some(entry) => Place::There(entry.address.clone()),
        None => Place::Lost(Box::new(status)),
    })
}

/// The error for a job that nobody who can be reached knows.
fn missing_job(call: &Call, job: JobId, elsewhere: Missing) -> ApiError {
    match call.app().store().job_missing(job).or(elsewhere) {
        Missing::Expired => ApiError::new(
            410,
            "expired",
            format!("the time of job {job} is over"),
            "submit it again",
        ),
        Missing::Unknown | Missing::Corrupt(_) => ApiError::new(
            404,
            "unknown_job",
            format!("no node that can be reached knows job {job}"),
            "GET /api/jobs lists the jobs of the mesh",
        ),
    }
}

async fn wait_here(call: &Call, job: JobId, wait: Duration) -> Result<JobStatus, ApiError> {
    let status = if wait.is_zero() {
        call.app().job(job)
    } else {
        call.app().wait_job(job, wait).await
    };
    status.ok_or_else(|| missing_job(call, job, Missing::Unknown))
}

/// Passes a call on to the coordinator.
async fn forward(call: &Call, address: &str, wait: Duration) -> Result<Response, ApiError> {
    let sent = peers::send(&call.web, call.method.clone(), address, &call.target, wait).await;
    sent.map(peers::relay)
        .map_err(|error| peers::unreachable(address, &error))
}

fn result_lost(status: &JobStatus) -> ApiError {
    ApiError::new(
        503,
        "coordinator_lost",
        format!(
            "job {} is done, but the node {} that has its result can not be reached",
            status.job,
            status.coordinator.short()
        ),
        "try again when it is back; the result is on its disk",
    )
}

fn coordinator_lost(status: &JobStatus) -> ApiError {
    ApiError::new(
        503,
        "coordinator_lost",
        format!(
            "the node {} that runs job {} can not be reached",
            status.coordinator.short(),
            status.job
        ),
        "try again when it is back; it continues the job from its disk",
    )
}
