//! NumPy's files are read, our files are read by NumPy, and both compute the same products.
#![cfg(target_os = "linux")]

use std::process::Command;

use gemmesh_tests::node::{Options, fresh_mesh};

#[test]
fn products_agree_with_numpy() {
    let python = gemmesh_tests::root().join("target/python/bin/python");
    assert!(
        python.exists(),
        "no Python with NumPy: run `scripts/bootstrap.sh python`"
    );
    let node = Options::loopback("numpy", &fresh_mesh())
        .arg("--no-mdns")
        .start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(python)
        .arg(gemmesh_tests::root().join("tests/tests/numpy_check.py"))
        .args([&format!("http://{}", node.api.address)])
        .arg(gemmesh_tests::bin())
        .current_dir(dir.path())
        .env("GEMMESH_DATA_DIR", node.data_dir())
        .output()
        .expect("Python starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    assert!(
        text(&output.stdout).ends_with("all agree\n"),
        "{}",
        text(&output.stdout)
    );
}
