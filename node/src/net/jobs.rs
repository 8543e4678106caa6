//! `/api/jobs`: submitting, watching, results, cancelling; at every node, whoever coordinates.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use gemmesh_protocol::id::{JobId, MatrixId};
use gemmesh_protocol::matrix::Dtype;
use gemmesh_protocol::status::{JobState, JobStatus, Mode};
use serde::Serialize;
use warp::http::{HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

use super::call::{self, Call, Web};
use super::submission::{Factor, Submission, What};
use super::{batches, matrices, peers, reply};
use crate::app::SubmitRequest;
use crate::error::ApiError;
use crate::store::Missing;

/// The most bytes of a submission.
const SUBMISSION_BYTES_MAX: usize = 1 << 20;
/// Submissions up to this are parsed at once, others one after the other.
const PARSED_FREELY_BYTES: usize = 64 << 10;
/// How long until a job is looked for again whose coordinator can not be asked.
const AGAIN: Duration = Duration::from_millis(500);
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
    // What is parsed is many times as large as its text.
    let _room = match body.len() > PARSED_FREELY_BYTES {
        true => Some(call.app().store().room_to_parse(&body).await?),
        false => None,
    };
    let submission = Submission::parse(&body)?;
    drop(body);
    let client = call.peer.remote.ip();
    let Submission {
        what,
        dtype,
        guarded,
        reproducible,
        explain,
        name,
    } = submission;
    if !explain {
        admit(&call.web, client)?;
    }
    let submitted = match what {
        What::One(factors) => {
            let [a, b] = *factors;
            let request = SubmitRequest {
                a: resolve(&call, a, dtype, "a").await?,
                b: resolve(&call, b, dtype, "b").await?,
                dtype,
                guarded,
                reproducible,
                name,
            };
            if explain {
                let outlook = call.app().explain(request).await?;
                return Ok(reply::json(StatusCode::OK, &outlook));
            }
            call.app().submit(request).await?
        }
        _ if explain => {
            return Err(ApiError::new(
                422,
                "not_explained",
                "explain tells the plan of one product, and this is a batch",
                "leave batch or explain out",
            ));
        }
        _ if guarded.is_some() => {
            return Err(ApiError::new(
                422,
                "wrong_mode",
                "a batch is computed in mode plain only",
                "submit its products one by one in this mode, or leave the mode out",
            ));
        }
        batch => batches::take(&call, batch, dtype, reproducible, name).await?,
    };
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
            let manifest = call.app().store().import_values(value, dtype).await;
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
            Place::Here if !call.app().parts(job).is_empty() => {
                let status = batches::cancel(&call, job).await?;
                Ok(reply::json(StatusCode::OK, &status))
            }
            Place::Here if call.app().coordinates(job) => {
                check_owner(&call, job).await?;
                Ok(reply::json(StatusCode::OK, &call.app().cancel(job).await?))
            }
            Place::Here => Ok(reply::json(
                StatusCode::OK,
                &wait_here(&call, job, wait).await?,
            )),
            Place::There(address) if is_guarded(&call, job) => Err(ask_there(job, &address)),
            Place::There(address) => forward(&call, &address, wait).await,
            Place::Lost(status) => Err(coordinator_lost(&status)),
        };
    }
    Ok(match follow(&call, job, wait).await? {
        Found::Answer(response) => response,
        Found::Here(status) | Found::Lost(status) => reply::json(StatusCode::OK, &status),
    })
}

/// `GET /api/jobs/{job}/result`.
pub async fn result(call: Call, job: String) -> Result<Response, ApiError> {
    if !call.reads() {
        return Err(call.refuse_method(&["GET"]));
    }
    let job: JobId = call::id(&job, "job")?;
    let wait = call.wait()?;
    let index = call.query.get("index").map(String::as_str);
    if is_batch(&call, job).await {
        return batches::result(&call, job, index, wait).await;
    }
    if index.is_some() {
        return Err(ApiError::new(
            422,
            "no_batch",
            format!("job {job} is no batch: it has one product"),
            "leave the index out",
        ));
    }
    let format = matrices::format(call.query.get("format").map_or("json", String::as_str))?;
    check_owner(&call, job).await?;
    let status = match follow(&call, job, wait).await? {
        Found::Answer(response) => return Ok(response),
        Found::Lost(status) if !status.state.has_ended() => return Err(coordinator_lost(&status)),
        Found::Here(status) | Found::Lost(status) => status,
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

/// Whether a job is private or masked, as far as is known here.
fn is_guarded(call: &Call, job: JobId) -> bool {
    let status = call.app().job(job);
    status.is_some_and(|status| status.mode != Mode::Plain)
}

/// Refuses what is only for the owner of a guarded job to others, and at nodes that may not see it.
///
/// # Errors
/// 403.
async fn check_owner(call: &Call, job: JobId) -> Result<(), ApiError> {
    if !is_guarded(call, job) {
        return Ok(());
    }
    let app = call.app();
    let status = app.job(job);
    let coordinator = status.map(|status| status.coordinator);
    if coordinator != Some(app.device()) {
        let address = coordinator.and_then(|device| app.address_of(device));
        return Err(ask_there(job, &address.unwrap_or_default()));
    }
    let right = match call.token() {
        Some(token) => app.store().check_token(job, token).await?,
        None => false,
    };
    match right {
        true => Ok(()),
        false => Err(matrices::token_needed(&format!("job {job}"))),
    }
}

/// The error for what must not pass through this node.
fn ask_there(job: JobId, address: &str) -> ApiError {
    let there = match address {
        "" => "ask the node that it was submitted to".to_owned(),
        address => format!("ask http://{address}"),
    };
    ApiError::new(
        403,
        "not_here",
        format!("job {job} is private: only the node that it was submitted to may have its result"),
        there,
    )
}

/// Whether the mesh knows a batch with this id.
async fn is_batch(call: &Call, job: JobId) -> bool {
    let app = call.app();
    if !app.parts(job).is_empty() {
        return true;
    }
    if app.job(job).is_some() || call.is_hop() {
        return false;
    }
    let found = peers::find_job(app, job).await;
    found.is_ok_and(|status| status.products.is_some())
}

/// The product of a job that is done.
///
/// # Errors
/// It has none, or none yet.
pub fn product(status: &JobStatus) -> Result<MatrixId, ApiError> {
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
pub(super) enum Place {
    /// This node coordinates it, or it has ended and is kept here.
    Here,
    /// The node at this address coordinates it.
    There(String),
    /// Nobody who can be reached, but this is how it stood.
    Lost(Box<JobStatus>),
}

/// What is known of a job.
enum Found {
    /// What its coordinator answered.
    Answer(Response),
    /// Its status, known here.
    Here(JobStatus),
    /// Its coordinator can not be asked; this is how it stood, or how it ended.
    Lost(JobStatus),
}

/// Where to ask for a job.
///
/// # Errors
/// Nobody who can be reached knows it, or its time is over.
pub(super) async fn locate(call: &Call, job: JobId) -> Result<Place, ApiError> {
    let app = call.app();
    let known = app.job(job);
    // How it ended may not be on the disk yet.
    let ended_here = |status: &JobStatus| {
        status.state.has_ended()
            && (status.coordinator == app.device() || app.store().has_ended(job))
    };
    if known.is_some_and(|status| app.coordinates(job) || ended_here(&status) || call.is_hop()) {
        return Ok(Place::Here);
    }
    // What is told of its parts is all that anybody knows of a batch.
    if app.knows_batch(job) {
        return Ok(Place::Here);
    }
    if call.is_hop() {
        return Err(missing_job(call, job, Missing::Unknown));
    }
    match app.coordinator_address(job) {
        Some(address) => Ok(Place::There(address)),
        None => elsewhere(call, job, None).await,
    }
}

/// Asks all nodes; `silent` did not answer for the job just now.
async fn elsewhere(call: &Call, job: JobId, silent: Option<&str>) -> Result<Place, ApiError> {
    let app = call.app();
    let found = peers::find_job(app, job).await;
    let known = app.job(job);
    let status = match (found, known) {
        (Ok(found), Some(known)) if is_newer(&known, &found) => known,
        (Ok(found), _) => found,
        // That its time is over is the last that is known of it.
        (Err(Missing::Expired), _) => return Err(missing_job(call, job, Missing::Expired)),
        (Err(_), Some(known)) => known,
        (Err(why), None) => return Err(missing_job(call, job, why)),
    };
    let address = app.address_of(status.coordinator);
    Ok(match address.filter(|address| silent != Some(address)) {
        Some(address) if !status.state.has_ended() => Place::There(address),
        _ => Place::Lost(Box::new(status)),
    })
}

/// Whether `known` says no less than `found`.
fn is_newer(known: &JobStatus, found: &JobStatus) -> bool {
    let rank = |status: &JobStatus| (status.state.has_ended(), status.epoch, status.tiles_done);
    rank(known) >= rank(found)
}

/// The status of a job, after it has ended or `wait` is over, whoever coordinates it meanwhile.
///
/// # Errors
/// Nobody who can be reached knows it, or its time is over.
async fn follow(call: &Call, job: JobId, wait: Duration) -> Result<Found, ApiError> {
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut changes = call.app().changes();
        let mut place = locate(call, job).await?;
        if let Place::There(address) = &place {
            match forward(call, address, left).await {
                Ok(response) if !is_elsewhere(response.status()) => {
                    return Ok(Found::Answer(response));
                }
                _ => {
                    let address = address.clone();
                    place = elsewhere(call, job, Some(&address)).await?;
                }
            }
        }
        match place {
            Place::Here => return Ok(Found::Here(wait_here(call, job, left).await?)),
            Place::Lost(status) if left.is_zero() || status.state.has_ended() => {
                return Ok(Found::Lost(*status));
            }
            // Its backups settle who continues it.
            Place::Lost(_) | Place::There(_) if left.is_zero() => {
                let known = call.app().job(job);
                return known
                    .map(Found::Lost)
                    .ok_or_else(|| missing_job(call, job, Missing::Unknown));
            }
            Place::Lost(_) | Place::There(_) => {
                let news = tokio::time::timeout(AGAIN.min(left), changes.changed());
                // News or not, it is looked for again.
                let _ = news.await;
            }
        }
    }
}

/// Whether an answer says that the job or its result is to be sought at another node.
fn is_elsewhere(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) || status.is_server_error()
}

/// The error for a job that is gone while it is looked at.
pub fn unknown(job: JobId) -> ApiError {
    ApiError::new(
        404,
        "unknown_job",
        format!("no node that can be reached knows job {job}"),
        "GET /api/jobs lists the jobs of the mesh",
    )
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
        Missing::Unknown | Missing::Corrupt(_) => unknown(job),
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

/// Passes a call on to the coordinator, which is to wait for `wait`.
///
/// # Errors
/// It can not be reached.
pub async fn forward(call: &Call, address: &str, wait: Duration) -> Result<Response, ApiError> {
    let target = target(call, wait);
    let sent = peers::send(call.app(), call.method.clone(), address, &target, wait).await;
    sent.map(peers::relay)
        .map_err(|error| peers::unreachable(address, &error))
}

/// What `call` asks for, with another `?wait=`.
fn target(call: &Call, wait: Duration) -> String {
    let path = call.target.split('?').next().unwrap_or_default();
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in call.query.iter().filter(|(name, _)| *name != "wait") {
        query.append_pair(name, value);
    }
    query.append_pair("wait", &wait.as_secs_f64().to_string());
    format!("{path}?{}", query.finish())
}

/// The error for a result that only nodes out of reach have.
pub fn result_lost(status: &JobStatus) -> ApiError {
    ApiError::new(
        503,
        "coordinator_lost",
        format!(
            "job {} is done, but the node {} that has its result can not be reached",
            status.job,
            status.coordinator.short()
        ),
        "try again when it is back; the result is on its disk and on those of its backups",
    )
}

/// The error for a job whose node can not be reached.
pub fn coordinator_lost(status: &JobStatus) -> ApiError {
    ApiError::new(
        503,
        "coordinator_lost",
        format!(
            "the node {} that runs job {} can not be reached",
            status.coordinator.short(),
            status.job
        ),
        "try again soon: a backup continues the job, or it does itself when it is back",
    )
}
