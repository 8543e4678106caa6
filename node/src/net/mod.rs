//! The network side of a node: HTTP and WebSockets in, WebSockets and HTTP out, mDNS.
//!
//! A connection passes [`accept`] (counted and timed), each request [`guard`] (is it meant for us,
//! does no other site's page send it), then [`routes`]. Whatever is answered carries the headers of
//! [`reply::secure`].

pub mod accept;
pub mod assets;
#[cfg(any())]
mod call;
#[cfg(any())]
pub mod dial;
pub mod discovery;
pub mod guard;
#[cfg(any())]
mod jobs;
#[cfg(any())]
mod link;
#[cfg(any())]
mod matrices;
#[cfg(any())]
mod peers;
pub mod reach;
pub mod reply;
#[cfg(any())]
mod routes;
mod socket;
pub mod urls;
#[cfg(any())]
mod ws;

use std::io;
#[cfg(any())]
use std::sync::Arc;

#[cfg(any())]
use hyper::Request;
#[cfg(any())]
use hyper::body::Incoming;
#[cfg(any())]
use hyper::service::Service;
#[cfg(any())]
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
#[cfg(any())]
use tokio_util::sync::CancellationToken;
#[cfg(any())]
use warp::reply::Response;

#[cfg(any())]
use crate::app::App;
use crate::config::NodeConfig;
#[cfg(any())]
use accept::{Limits, Peer};
#[cfg(any())]
use call::Web;

/// Opens the port of `config`.
///
/// # Errors
/// What the system says: the port is taken, the address is not this machine's.
pub async fn bind(config: &NodeConfig) -> io::Result<TcpListener> {
    accept::listen(config.bind, config.port)
}

#[cfg(any())]
/// Serves `app` until `shutdown`; returns within a second after it.
pub async fn serve(app: App, listener: TcpListener, shutdown: CancellationToken) {
    serve_with(app, listener, shutdown, Limits::default()).await;
}

#[cfg(any())]
/// [`serve`] with other bounds.
pub async fn serve_with(
    app: App,
    listener: TcpListener,
    shutdown: CancellationToken,
    limits: Limits,
) {
    if let Err(error) = matrices::clear_uploads(&app).await {
        tracing::warn!(%error, "bodies of an earlier run could not be removed");
    }
    let web = Arc::new(Web::new(app));
    let routes = TowerToHyperService::new(warp::service(routes::routes(web.clone())));
    let handle = move |request: Request<Incoming>| {
        let (web, routes) = (web.clone(), routes.clone());
        async move {
            let mut response = match admit(&web, &request) {
                Ok(()) => {
                    let answered: Result<Response, std::convert::Infallible> =
                        routes.call(request).await;
                    answered.unwrap_or_else(|never| match never {})
                }
                Err(error) => {
                    tracing::debug!(code = error.code, message = error.message, "refused");
                    reply::error(&error)
                }
            };
            reply::secure(&mut response);
            response
        }
    };
    accept::run(listener, limits, shutdown, handle).await;
}

#[cfg(any())]
/// Asks the guard.
fn admit(web: &Web, request: &Request<Incoming>) -> Result<(), crate::error::ApiError> {
    let local = request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.local);
    guard::check(
        request.method(),
        request.uri(),
        request.headers(),
        &web.names(),
        local,
        || web.app.member_ips(),
    )
}
