//! `/api/jobs`: submitting, watching, results, cancelling; at every node, whoever coordinates.

use std::net::IpAddr;
use std::time::Duration;

use gemmesh_protocol::id::{JobId, MatrixId};
use gemmesh_protocol::matrix::Dtype;
use gemmesh_protocol::status::{JobState, JobStatus};
use serde::Serialize;
use serde_json::{Map, Value};
use warp::http::{HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

use super::call::{self, Call, Web, clip};
use super::{matrices, peers, reply};
use crate::app::SubmitRequest;
use crate::error::ApiError;

/// The most bytes of a submission.
const SUBMISSION_BYTES_MAX: usize = 1 << 20;
/// The most characters of a job's name.
const NAME_CHARS_MAX: usize = 200;
/// The most jobs of one client that have not ended.
const JOBS_PER_CLIENT: usize = 256;
/// What the design has and this version has not.
const LATER: [&str; 8] = [
    "batch",
    "colluders",
    "stragglers",
    "masks",
    "explain",
    "receipts",
    "private",
    "index",
];

/// `GET` and `POST /api/jobs`.
pub async fn collection(call: Call) -> Result<Response, ApiError> {
    match call.method {
        Method::GET | Method::HEAD => Ok(reply::json(StatusCode::OK, &call.app().jobs())),
        Method::POST => submit(call).await,
        _ => Err(call.refuse_method(&["GET", "POST"])),
    }
}

/// What a submission says.
#[derive(Debug, PartialEq)]
struct Submission {
    a: Factor,
    b: Factor,
    dtype: Option<Dtype>,
    reproducible: bool,
    name: String,
}

/// A factor of the product.
#[derive(Debug, PartialEq)]
enum Factor {
    Stored(MatrixId),
    Inline(Value),
}

async fn submit(mut call: Call) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Accepted {
        job: JobId,
        token: String,
    }
    let body = call.small_body(SUBMISSION_BYTES_MAX).await?;
    let submission = parse(&body)?;
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

/// Reads a submission.
fn parse(body: &[u8]) -> Result<Submission, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::new(
            400,
            "bad_json",
            format!("the body is no JSON: {error}"),
            "send {\"a\": ID, \"b\": ID}",
        )
    })?;
    let Value::Object(mut fields) = value else {
        return Err(ApiError::new(
            400,
            "bad_json",
            "the body is JSON, but no object",
            "send {\"a\": ID, \"b\": ID}",
        ));
    };
    let factors = [factor(&mut fields, "a"), factor(&mut fields, "b")];
    let dtype = match fields.remove("dtype") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(call::dtype(&name)?),
        Some(_) => return Err(wrong_type("dtype", "\"f64\", \"f32\" or \"int\"")),
    };
    match fields.remove("mode") {
        None | Some(Value::Null) => {}
        Some(Value::String(mode)) if mode == "plain" => {}
        Some(Value::String(mode)) => return Err(matrices::not_offered(&format!("mode {mode}"))),
        Some(_) => return Err(wrong_type("mode", "\"plain\"")),
    }
    let reproducible = match fields.remove("reproducible") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(value)) => value,
        Some(_) => return Err(wrong_type("reproducible", "true or false")),
    };
    let name = match fields.remove("name") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(name)) => job_name(&name)?,
        Some(_) => return Err(wrong_type("name", "text")),
    };
    if let Some(field) = fields.keys().find(|field| LATER.contains(&field.as_str())) {
        return Err(matrices::not_offered(field));
    }
    if let Some(field) = fields.keys().next() {
        return Err(ApiError::new(
            422,
            "unknown_field",
            format!("a job has no field {:?}", clip(field)),
            "the fields are a, b, dtype, mode, reproducible and name",
        ));
    }
    let [a, b] = factors;
    Ok(Submission {
        a: a?,
        b: b?,
        dtype,
        reproducible,
        name,
    })
}

fn factor(fields: &mut Map<String, Value>, name: &str) -> Result<Factor, ApiError> {
    match fields.remove(name) {
        Some(Value::String(id)) => id.parse().map(Factor::Stored).map_err(|error| {
            ApiError::new(
                422,
                "bad_operand",
                format!(
                    "{name} is {:?}, which is no id of a matrix: {error}",
                    clip(&id)
                ),
                "use the id that PUT /api/matrices answered, or nested arrays of numbers",
            )
        }),
        Some(value @ (Value::Array(_) | Value::Object(_))) => Ok(Factor::Inline(value)),
        Some(_) => Err(wrong_type(
            name,
            "an id of a matrix or nested arrays of numbers",
        )),
        None => Err(ApiError::new(
            422,
            "missing_operand",
            format!("the job has no {name}"),
            "give both a and b: ids of matrices or nested arrays of numbers",
        )),
    }
}

/// A name without control characters.
fn job_name(name: &str) -> Result<String, ApiError> {
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(ApiError::new(
            422,
            "name_too_long",
            format!("the name has more than {NAME_CHARS_MAX} characters"),
            "use a shorter one",
        ));
    }
    Ok(name.chars().filter(|c| !c.is_control()).collect())
}

fn wrong_type(field: &str, wanted: &str) -> ApiError {
    ApiError::new(
        422,
        "wrong_type",
        format!("{field} has the wrong type"),
        format!("{field} is {wanted}"),
    )
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
        Place::Lost(status) => status,
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
        Place::Lost(status) if status.state.has_ended() => status,
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
        status.name
    };
    matrices::export(&call, id, format, &name).await
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
    Lost(JobStatus),
}

async fn locate(call: &Call, job: JobId) -> Result<Place, ApiError> {
    let app = call.app();
    if app.coordinates(job) {
        return Ok(Place::Here);
    }
    let mut known = app.job(job);
    if !call.is_hop() {
        if let Some(address) = app.coordinator_address(job) {
            return Ok(Place::There(address));
        }
        if known.is_none() {
            known = peers::find_job(&call.web, job).await;
            // It may have told of a coordinator that this node knows as a device.
            let coordinator = known.as_ref().map(|status| status.coordinator);
            let devices = app.devices();
            let entry = devices
                .iter()
                .find(|entry| Some(entry.device) == coordinator);
            if let Some(entry) = entry {
                return Ok(Place::There(entry.address.clone()));
            }
        }
    }
    known.map(Place::Lost).ok_or_else(|| {
        ApiError::new(
            404,
            "unknown_job",
            format!("no node that can be reached knows job {job}"),
            "GET /api/jobs lists the jobs of the mesh",
        )
    })
}

async fn wait_here(call: &Call, job: JobId, wait: Duration) -> Result<JobStatus, ApiError> {
    let status = if wait.is_zero() {
        call.app().job(job)
    } else {
        call.app().wait_job(job, wait).await
    };
    status.ok_or_else(|| {
        ApiError::new(
            410,
            "expired",
            format!("the time of job {job} is over"),
            "submit it again",
        )
    })
}

/// Passes a call on to the coordinator.
async fn forward(call: &Call, address: &str, wait: Duration) -> Result<Response, ApiError> {
    let sent = peers::send(&call.web, call.method.clone(), address, &call.target, wait).await;
    sent.map(peers::relay)
        .map_err(|error| peers::unreachable(address, &error))
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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

    #[test]
    fn a_whole_submission_is_read() {
        let body = format!(
            r#"{{"a": "{ID}", "b": [[1, 2], [3, 4]], "dtype": "int", "mode": "plain",
                "reproducible": true, "name": "tab\tand \u001b[31mred"}}"#
        );
        let submission = parse(body.as_bytes()).expect("it is right");
        assert_eq!(submission.a, Factor::Stored(ID.parse().expect("an id")));
        assert_eq!(
            submission.b,
            Factor::Inline(serde_json::json!([[1, 2], [3, 4]]))
        );
        assert_eq!(submission.dtype, Some(Dtype::Int));
        assert!(submission.reproducible);
        assert_eq!(submission.name, "taband [31mred");
    }

    #[test]
    fn what_is_wrong_with_a_submission_is_named() {
        check("", 400, "bad_json");
        check("{", 400, "bad_json");
        check("[1, 2]", 400, "bad_json");
        check("\"text\"", 400, "bad_json");
        check(&"[".repeat(100_000), 400, "bad_json");
        check("{}", 422, "missing_operand");
        check(&format!(r#"{{"a": "{ID}"}}"#), 422, "missing_operand");
        check(r#"{"a": "xyz", "b": [[1]]}"#, 422, "bad_operand");
        check(r#"{"a": 5, "b": [[1]]}"#, 422, "wrong_type");
        for (field, status, code) in [
            (r#""dtype": "f16""#, 422, "unknown_dtype"),
            (r#""dtype": 64"#, 422, "wrong_type"),
            (r#""mode": "masked""#, 422, "not_offered"),
            (r#""mode": "private""#, 422, "not_offered"),
            (r#""mode": 1"#, 422, "wrong_type"),
            (r#""colluders": 1"#, 422, "not_offered"),
            (r#""stragglers": 0"#, 422, "not_offered"),
            (r#""batch": []"#, 422, "not_offered"),
            (r#""reproducible": "yes""#, 422, "wrong_type"),
            (r#""name": ["a"]"#, 422, "wrong_type"),
            (r#""sparkle": true"#, 422, "unknown_field"),
        ] {
            check(
                &format!(r#"{{"a": [[1]], "b": [[1]], {field}}}"#),
                status,
                code,
            );
        }
        check(
            r#"{"batch": [{"a": [[1]], "b": [[1]]}]}"#,
            422,
            "not_offered",
        );
        let name = "x".repeat(201);
        check(
            &format!(r#"{{"a": [[1]], "b": [[1]], "name": "{name}"}}"#),
            422,
            "name_too_long",
        );
    }

    fn check(body: &str, status: u16, code: &str) {
        let error = parse(body.as_bytes()).expect_err("it is wrong");
        assert_eq!((error.status, error.code), (status, code), "{body:.80}");
        assert!(!error.message.is_empty() && !error.hint.is_empty());
    }
}
