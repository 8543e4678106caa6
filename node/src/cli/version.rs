//! What exactly this program is.

use std::sync::LazyLock;

static LINE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} ({} {}, kernel {})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        gemmesh_kernel::instance()
    )
});

/// `0.1.0 (linux x86_64, kernel avx512)`.
pub fn line() -> &'static str {
    &LINE
}
