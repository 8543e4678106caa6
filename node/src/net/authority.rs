//! `/ca`: how devices come to trust this node's https.

use warp::http::{HeaderValue, header};
use warp::reply::Response;

use super::assets;
use super::call::Call;
use crate::error::ApiError;

/// What Android, iOS and Firefox take for a certificate to install.
const CERTIFICATE: &str = "application/x-x509-ca-cert";
/// The page with the steps.
const PAGE: &str = "ca.html";

/// The steps for who asks for a page, as browsers do; the certificate for everybody else.
///
/// # Errors
/// As [`certificate`].
pub fn either(call: &Call) -> Result<Response, ApiError> {
    let accepts = call.headers.get_all(header::ACCEPT).iter();
    let mut accepts = accepts.filter_map(|value| value.to_str().ok());
    let mut response = if call.reads() && accepts.any(|value| value.contains("text/html")) {
        assets::serve(PAGE, &call.headers)?
    } else {
        certificate(call)?
    };
    let vary = HeaderValue::from_static("accept, accept-encoding");
    response.headers_mut().insert(header::VARY, vary);
    Ok(response)
}

/// The certificate of this node's authority, as DER.
///
/// # Errors
/// 404 when this node does not answer https; another method than GET.
pub fn certificate(call: &Call) -> Result<Response, ApiError> {
    if !call.reads() {
        return Err(call.refuse_method(&["GET"]));
    }
    let tls = call.app().tls().ok_or_else(|| {
        ApiError::new(
            404,
            "no_authority",
            "this node does not answer https, so it has no certificate",
            "start it with --tls",
        )
    })?;
    let mut response = Response::new(tls.authority().certificate().to_vec().into());
    let kind = HeaderValue::from_static(CERTIFICATE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
