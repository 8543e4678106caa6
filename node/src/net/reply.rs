//! How answers look: JSON, errors, streams, and the headers that every one of them carries.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;
use warp::Reply;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::error::ApiError;

/// The page runs its own scripts and its own WebAssembly and talks to nodes of the mesh; nothing
/// from elsewhere runs in it, and it runs in nobody's frame.
const POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; \
     connect-src 'self' ws: wss:; img-src 'self' data: blob:; style-src 'self'; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Adds what every answer carries.
pub fn secure(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What is not said to be cacheable is a moment's state.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// `value` as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut response = warp::reply::json(value).into_response();
    *response.status_mut() = status;
    response
}

/// `{error: {code, message, hint}}`.
pub fn error(error: &ApiError) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a ApiError,
    }
    let status = StatusCode::from_u16(error.status).expect("an ApiError has a status of HTTP");
    let mut response = json(status, &Body { error });
    if !error.allow.is_empty() {
        let mut methods = error.allow.join(", ");
        if error.allow.contains(&"GET") {
            methods.push_str(", HEAD");
        }
        let methods = HeaderValue::from_str(&methods).expect("plain characters");
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

/// A path that leads nowhere.
pub fn no_such_route(path: &str) -> ApiError {
    let path: String = path.chars().take(100).collect();
    ApiError::new(
        404,
        "no_such_route",
        format!("there is nothing at {path:?}"),
        "the calls are listed in the README; the page is at /",
    )
}

/// A method that a path does not have.
pub fn method_not_allowed(method: &str, allowed: &'static [&'static str]) -> ApiError {
    let method: String = method.chars().take(20).collect();
    ApiError {
        allow: allowed,
        ..ApiError::new(
            405,
            "method_not_allowed",
            format!("{method} is not offered here"),
            format!("use {}", allowed.join(" or ")),
        )
    }
}

/// A body that is sent as it is made, no faster than it is read.
pub fn stream<S, E>(content_type: &'static str, stream: S) -> Response
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let stream = Exclusive(Mutex::new(Box::pin(stream)));
    let mut response = warp::reply::stream(stream).into_response();
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// Offers a file to be saved under `name`, reduced to plain characters.
pub fn save_as(response: &mut Response, name: &str, ending: &str) {
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect();
    let value = format!("attachment; filename=\"{name}.{ending}\"");
    let value = HeaderValue::from_str(&value).expect("plain characters");
    response
        .headers_mut()
        .insert(header::CONTENT_DISPOSITION, value);
}

/// Makes a stream shareable between threads, as bodies must be, by only ever using it through an
/// exclusive reference: the lock is never taken.
struct Exclusive<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for Exclusive<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let stream = self.0.get_mut().expect("the lock is never taken");
        stream.as_mut().poll_next(cx)
    }
}
