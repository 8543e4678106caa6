//! `GET /api/join`: how another device comes here, for the page's "add a device".

use qrcode::{Color, EcLevel, QrCode};
use serde::Serialize;
use warp::http::StatusCode;
use warp::reply::Response;

use super::call::Call;
use super::{reply, urls};
use crate::error::ApiError;

#[derive(Serialize)]
struct Join {
    /// Nobody else reaches this node: it is bound to this machine, or there is no network.
    alone: bool,
    links: Vec<Link>,
    /// Whose certificate a device installs to use https here; null when this node does not answer it.
    authority: Option<Authority>,
}

#[derive(Serialize)]
struct Authority {
    name: String,
    /// SHA-256 of the certificate, as systems show it.
    fingerprint: String,
}

#[derive(Serialize)]
struct Link {
    url: String,
    /// The rows of its QR code, `1` for a dark module; without the quiet zone.
    code: Vec<String>,
}

/// The URLs of this node's page, likeliest first, each with its QR code.
///
/// # Errors
/// Another method than GET.
pub fn links(call: &Call) -> Result<Response, ApiError> {
    if !call.reads() {
        return Err(call.refuse_method(&["GET"]));
    }
    let (config, port) = (call.app().config(), call.app().port());
    let alone = urls::ips(config.bind).iter().all(|ip| ip.is_loopback());
    let links = urls::urls(config.bind, port).into_iter().map(|url| Link {
        code: modules(&url),
        url,
    });
    let authority = call.app().tls().map(|tls| Authority {
        name: tls.authority().name().to_owned(),
        fingerprint: tls.authority().fingerprint(),
    });
    let join = Join {
        alone,
        links: links.collect(),
        authority,
    };
    Ok(reply::json(StatusCode::OK, &join))
}

fn modules(text: &str) -> Vec<String> {
    // A screen is clean: a coarse code, which is read from further away, beats a repairable one.
    let Ok(code) = QrCode::with_error_correction_level(text, EcLevel::L) else {
        return Vec::new();
    };
    let row = |line: &[Color]| {
        let module = |color: &Color| if *color == Color::Dark { '1' } else { '0' };
        line.iter().map(module).collect()
    };
    code.to_colors().chunks(code.width()).map(row).collect()
}
