//! The network side of a node: HTTP and WebSockets in, WebSockets and HTTP out, mDNS.
//!
//! A connection passes [`accept`] (counted and timed), each request [`guard`] (is it meant for us,
//! does no other site's page send it), then [`routes`]. Whatever is answered carries the headers of
//! [`reply::secure`].

pub mod accept;
pub mod assets;
mod authority;
mod batches;
mod call;
pub mod dial;
pub mod discovery;
pub mod guard;
mod jobs;
mod join;
mod link;
mod matrices;
mod mosaic;
pub(crate) mod peers;
mod pictures;
pub mod reach;
pub mod reply;
mod routes;
mod socket;
mod submission;
mod tiles;
pub mod urls;
mod ws;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::reply::Response;

use crate::app::App;
use crate::config::NodeConfig;
use crate::tls;
use accept::{Limits, Peer, Secure};
use call::Web;

/// Opens the port of `config`.
///
/// # Errors
/// What the system says: the port is taken, the address is not this machine's.
pub async fn bind(config: &NodeConfig) -> io::Result<TcpListener> {
    accept::listen(config.bind, config.port)
}

/// What asks other nodes over HTTP.
///
/// # Panics
/// When the client can not be made, which takes a broken build.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(3))
        // Nodes close idle connections after five seconds.
        .pool_idle_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .build()
        .expect("the client has no options that can fail")
}

/// Serves `app` until `shutdown`; returns within a second after it.
pub async fn serve(app: App, listener: TcpListener, shutdown: CancellationToken) {
    serve_with(app, listener, shutdown, Limits::default()).await;
}

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
    let secure = web.app.tls().map(|tls| {
        let web = web.clone();
        let secure: Secure = Arc::new(move |local| {
            let (config, names) = (web.app.config(), web.names());
            let here = config.bind.filter(|ip| !ip.is_unspecified());
            let here = here.unwrap_or(IpAddr::from([127, 0, 0, 1]));
            let ips = urls::ips(config.bind).into_iter();
            let ips = ips.chain([here]).chain(local);
            let allowed = names.allowed.iter().map(String::as_str);
            tls.config(tls::names(ips, &names.local, allowed))
        });
        secure
    });
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
    accept::run(listener, limits, secure, shutdown, handle).await;
}

/// Asks the guard.
fn admit(web: &Web, request: &Request<Incoming>) -> Result<(), crate::error::ApiError> {
    let peer = request.extensions().get::<Peer>();
    let (local, secure) = peer.map_or((None, false), |peer| (peer.local, peer.secure));
    guard::check(
        request.method(),
        request.uri(),
        request.headers(),
        &web.names(),
        local,
        secure,
        || web.app.member_ips(),
    )
}
