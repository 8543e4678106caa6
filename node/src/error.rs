//! The one error that users see: over HTTP, in the command line and on the page.

use serde::Serialize;

/// What is wrong with a request, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status: 400, 403, 404, 405, 409, 410, 413, 422, 429 or 503.
    #[serde(skip)]
    pub status: u16,
    /// With 405: the methods that are offered.
    #[serde(skip)]
    pub allow: &'static [&'static str],
    /// A stable word for programs, such as `dimension_mismatch`.
    pub code: &'static str,
    /// Names the input and what is wrong with it.
    pub message: String,
    /// Says what to do.
    pub hint: String,
}

impl ApiError {
    /// An error with all its parts.
    pub fn new(
        status: u16,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            status,
            allow: &[],
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }
}
