//! Helpers of the whole-program tests: real processes, network namespaces, browsers, the README.
//!
//! Nothing here waits for a fixed time: [`wait::until`] looks until a condition holds and says what
//! it waited for when that does not happen in time.

pub mod browser;
#[cfg(target_os = "linux")]
pub mod chaos;
#[cfg(target_os = "linux")]
pub mod disk;
pub mod https;
pub mod integers;
pub mod matrices;
#[cfg(target_os = "linux")]
pub mod netns;
pub mod node;
pub mod page;
pub mod peer;
pub mod raw;
#[cfg(target_os = "linux")]
pub mod readme;
pub mod sim;
pub mod wait;
pub mod walks;

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests is a directory of the workspace")
}

/// The program under test: `GEMMESH_BIN`, else the release build, else the debug build.
///
/// # Panics
/// When there is none.
pub fn bin() -> PathBuf {
    if let Some(path) = std::env::var_os("GEMMESH_BIN") {
        return path.into();
    }
    let builds = ["target/release", "target/debug"].map(|dir| root().join(dir).join("gemmesh"));
    let exe = builds.iter().find(|path| path.is_file());
    exe.expect("no target/release/gemmesh: run `make build`, or set GEMMESH_BIN")
        .clone()
}
