//! What exactly this program is.

/// `0.1.0 (linux x86_64, kernel avx512)`.
pub fn line() -> String {
    format!(
        "{} ({} {}, kernel {})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        gemmesh_kernel::instance()
    )
}
