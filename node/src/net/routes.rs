//! Which path leads where.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use gemmesh_protocol::io::Door;
use serde::Serialize;
use warp::filters::BoxedFilter;
use warp::http::{HeaderValue, Method, StatusCode, header};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Buf, Filter, Rejection};

use super::accept::Peer;
use super::call::{Body, Call, Web, clip};
use super::{assets, authority, jobs, join, matrices, mosaic, pictures, reply, tiles, urls, ws};
use crate::error::ApiError;

/// The most bytes of a registration.
const REGISTRATION_BYTES_MAX: usize = 4 << 10;

/// All calls of the contract, the page, and JSON errors for everything else.
pub fn routes(web: Arc<Web>) -> BoxedFilter<(Response,)> {
    let call = call(web.clone());
    let matrices = warp::path!("api" / "matrices")
        .and(call.clone())
        .then(matrices_all);
    let matrix = warp::path!("api" / "matrices" / String)
        .and(call.clone())
        .then(matrix_one);
    let picture = warp::path!("api" / "matrices" / String / "picture")
        .and(call.clone())
        .then(matrix_picture);
    let jobs = warp::path!("api" / "jobs").and(call.clone()).then(jobs_all);
    let job = warp::path!("api" / "jobs" / String)
        .and(call.clone())
        .then(job_one);
    let result = warp::path!("api" / "jobs" / String / "result")
        .and(call.clone())
        .then(job_result);
    let mosaic = warp::path!("api" / "jobs" / String / "tiles")
        .and(call.clone())
        .then(job_tiles);
    let tile = warp::path!("mesh" / "jobs" / String / "tiles" / String)
        .and(call.clone())
        .then(job_tile);
    let nodes = warp::path!("api" / "nodes").and(call.clone()).then(nodes);
    let info = warp::path!("api" / "info").and(call.clone()).then(info);
    let links = warp::path!("api" / "links").and(call.clone()).then(links);
    let join = warp::path!("api" / "join").and(call.clone()).then(joining);
    let steps = warp::path!("ca").and(call.clone()).then(ca);
    let certificate = warp::path!("ca.crt").and(call.clone()).then(ca_certificate);
    let register = warp::path!("nodes" / "register")
        .and(call.clone())
        .then(registered);
    let health = warp::path!("healthz").and(call.clone()).then(health);
    let ready = warp::path!("readyz").and(call.clone()).then(ready);
    let metrics = warp::path!("metrics").and(call.clone()).then(metrics);
    let page = door(web.clone(), "ws", Door::Page);
    let mesh = door(web, "mesh", Door::Mesh);
    let rest = call.then(rest);
    let api = matrices
        .or(matrix)
        .unify()
        .or(jobs)
        .unify()
        .or(job)
        .unify()
        .or(result)
        .unify()
        .or(tile)
        .unify()
        .boxed();
    let views = picture.or(mosaic).unify().or(join).unify();
    let views = views.or(links).unify();
    let views = views.or(steps).unify().or(certificate).unify().boxed();
    let node = nodes
        .or(info)
        .unify()
        .or(register)
        .unify()
        .or(health)
        .unify()
        .or(ready)
        .unify();
    let node = node.or(metrics).unify().boxed();
    api.or(node)
        .unify()
        .or(views)
        .unify()
        .or(page)
        .unify()
        .or(mesh)
        .unify()
        .or(rest)
        .unify()
        .recover(refuse)
        .unify()
        .boxed()
}

/// Takes a request apart.
fn call(web: Arc<Web>) -> BoxedFilter<(Call,)> {
    let query = warp::query::raw().or_else(async |_| Ok::<_, Rejection>((String::new(),)));
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Peer>())
        .and(warp::body::stream())
        .map(
            move |method, path: FullPath, query: String, headers, peer, body| {
                let path = path.as_str();
                let target = if query.is_empty() {
                    path.to_owned()
                } else {
                    format!("{path}?{query}")
                };
                let fields = form_urlencoded::parse(query.as_bytes()).into_owned();
                Call {
                    web: web.clone(),
                    method,
                    target,
                    headers,
                    query: fields.collect::<HashMap<_, _>>(),
                    peer,
                    body: pieces(body),
                    began: None,
                    received: 0,
                }
            },
        )
        .boxed()
}

/// A body as it comes. Cost: no copy.
fn pieces<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>> + Send + Sync + 'static,
) -> Body {
    Box::pin(body.map(|piece| match piece {
        Ok(mut piece) => Ok(piece.copy_to_bytes(piece.remaining())),
        Err(error) => Err(error.to_string()),
    }))
}

/// A WebSocket at `/name`; anything but an upgrade is refused.
fn door(web: Arc<Web>, name: &'static str, door: Door) -> BoxedFilter<(Response,)> {
    let upgrade = warp::path(name)
        .and(warp::path::end())
        .and(warp::ws())
        .and(warp::ext::get::<Peer>())
        .map(move |socket, peer| ws::upgrade(web.app.clone(), door, socket, peer));
    let other = warp::path(name)
        .and(warp::path::end())
        .and(warp::method())
        .map(|method: Method| {
            let error = if method == Method::GET {
                ApiError::new(
                    400,
                    "not_a_websocket",
                    "only WebSockets of version 13 are opened here",
                    "open the page at / instead",
                )
            } else {
                reply::method_not_allowed(method.as_str(), &["GET"])
            };
            reply::error(&error)
        });
    upgrade.or(other).unify().boxed()
}

fn answer(outcome: Result<Response, ApiError>) -> Response {
    outcome.unwrap_or_else(|error| reply::error(&error))
}

async fn matrices_all(call: Call) -> Response {
    answer(matrices::collection(call).await)
}

async fn matrix_one(id: String, call: Call) -> Response {
    answer(matrices::one(call, id).await)
}

async fn jobs_all(call: Call) -> Response {
    answer(jobs::collection(call).await)
}

async fn job_one(job: String, call: Call) -> Response {
    answer(jobs::one(call, job).await)
}

async fn job_result(job: String, call: Call) -> Response {
    answer(jobs::result(call, job).await)
}

async fn matrix_picture(id: String, call: Call) -> Response {
    answer(pictures::one(call, &id).await)
}

async fn job_tiles(job: String, call: Call) -> Response {
    answer(mosaic::tiles(call, job).await)
}

async fn joining(call: Call) -> Response {
    answer(join::links(&call))
}

async fn ca(call: Call) -> Response {
    answer(authority::either(&call))
}

async fn ca_certificate(call: Call) -> Response {
    answer(authority::certificate(&call))
}

async fn job_tile(job: String, tile: String, call: Call) -> Response {
    answer(tiles::one(call, &job, &tile).await)
}

async fn nodes(call: Call) -> Response {
    if !call.reads() {
        return reply::error(&call.refuse_method(&["GET"]));
    }
    reply::json(StatusCode::OK, &call.app().devices())
}

async fn info(call: Call) -> Response {
    #[derive(Serialize)]
    struct Info<'a> {
        device: gemmesh_protocol::id::DeviceId,
        name: &'a str,
        mesh: &'a str,
        version: &'static str,
        addresses: Vec<String>,
        urls: Vec<String>,
        port: u16,
    }
    if !call.reads() {
        return reply::error(&call.refuse_method(&["GET"]));
    }
    let app = call.app();
    let config = app.config();
    let info = Info {
        device: app.device(),
        name: &config.name,
        mesh: &config.mesh,
        version: env!("CARGO_PKG_VERSION"),
        addresses: app.addresses(),
        urls: urls::urls(config.bind, app.port()),
        port: app.port(),
    };
    reply::json(StatusCode::OK, &info)
}

/// How fast this node's links are, as it measured them; those of others are theirs to tell.
async fn links(call: Call) -> Response {
    #[derive(Serialize)]
    struct Link {
        device: gemmesh_protocol::id::DeviceId,
        bytes_per_second: f64,
    }
    #[derive(Serialize)]
    struct Links {
        node: gemmesh_protocol::id::DeviceId,
        links: Vec<Link>,
    }
    if !call.reads() {
        return reply::error(&call.refuse_method(&["GET"]));
    }
    let links = call.app().links().into_iter();
    let links = links.map(|(device, bytes_per_second)| Link {
        device,
        bytes_per_second,
    });
    let links = Links {
        node: call.app().device(),
        links: links.collect(),
    };
    reply::json(StatusCode::OK, &links)
}

async fn registered(call: Call) -> Response {
    answer(register(call).await)
}

async fn register(mut call: Call) -> Result<Response, ApiError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Registration {
        host: String,
        port: u16,
    }
    if call.method != Method::POST {
        return Err(call.refuse_method(&["POST"]));
    }
    let body = call.small_body(REGISTRATION_BYTES_MAX).await?;
    let malformed = |error: serde_json::Error| {
        let status = if error.is_data() { 422 } else { 400 };
        ApiError::new(
            status,
            "bad_registration",
            format!("the body is no registration: {error}"),
            "send {\"host\": \"192.168.1.20\", \"port\": 8080}",
        )
    };
    let Registration { host, port } = serde_json::from_slice(&body).map_err(malformed)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.len() > 253 || !host.chars().all(plain) || port == 0 {
        return Err(ApiError::new(
            422,
            "bad_address",
            format!("{:?} with port {port} is no address", clip(&host)),
            "host is an IP address or a name, port is 1 to 65535",
        ));
    }
    let entry = call.app().register(&host, port).await?;
    Ok(reply::json(StatusCode::CREATED, &entry))
}

async fn health(call: Call) -> Response {
    if !call.reads() {
        return reply::error(&call.refuse_method(&["GET"]));
    }
    reply::json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
}

async fn ready(call: Call) -> Response {
    if !call.reads() {
        return reply::error(&call.refuse_method(&["GET"]));
    }
    if call.app().is_ready() {
        return reply::json(StatusCode::OK, &serde_json::json!({ "status": "ready" }));
    }
    reply::error(&ApiError::new(
        503,
        "not_ready",
        "this node takes no jobs at the moment",
        "try again, or use another node",
    ))
}

async fn metrics(call: Call) -> Response {
    if !call.reads() {
        return reply::error(&call.refuse_method(&["GET"]));
    }
    let mut response = Response::new(call.app().metrics().into());
    let kind =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The page, or nothing.
async fn rest(mut call: Call) -> Response {
    let path = call.target.split('?').next().unwrap_or_default();
    let path = path.strip_prefix('/').unwrap_or(path);
    if !path.is_empty() && !assets::exists(path) {
        let error = reply::no_such_route(path);
        call.drain().await;
        return reply::error(&error);
    }
    if !call.reads() {
        call.drain().await;
        return reply::error(&call.refuse_method(&["GET"]));
    }
    answer(assets::serve(path, &call.headers))
}

/// Nothing of ours rejects; what is left is warp's own.
async fn refuse(rejection: Rejection) -> Result<Response, Infallible> {
    tracing::debug!(?rejection, "rejected");
    Ok(reply::error(&ApiError::new(
        400,
        "bad_request",
        "the request is malformed",
        "see the README for the calls",
    )))
}
