//! From a client's arrays to a client's array, next to NumPy in one process.

use std::fs;
use std::process::Command;

use gemmesh_tests::node::{Node, Options, await_mesh, fresh_mesh};

/// The client: standard library and NumPy alone.
const CLIENT: &str = include_str!("numpy.py");

/// Prints what `numpy.py` measures, with one node of two threads and with two of one.
pub fn measure(edge: usize, runs: usize) {
    let python = gemmesh_tests::root().join("target/python/bin/python");
    if !python.exists() {
        println!("  left out: no target/python (scripts/bootstrap.sh python)");
        return;
    }
    println!(
        "{edge} × {edge} f64 from a Python client, next to NumPy with two threads, {runs} runs:"
    );
    let whole = vec![
        Options::loopback("whole", &fresh_mesh())
            .arg("--threads=2")
            .arg("--no-mdns")
            .start(),
    ];
    client(&python, "one node of two threads", &whole, edge, runs);
    drop(whole);
    let mesh = fresh_mesh();
    let halves = ["half-1", "half-2"].map(|name| Options::loopback(name, &mesh).start());
    await_mesh(&halves.each_ref(), 0);
    client(&python, "two nodes of one thread", &halves, edge, runs);
}

fn client(python: &std::path::Path, what: &str, nodes: &[Node], edge: usize, runs: usize) {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let script = dir.path().join("client.py");
    fs::write(&script, CLIENT).expect("a file");
    let output = Command::new(python)
        .arg(&script)
        .args([&nodes[0].api.address, &edge.to_string(), &runs.to_string()])
        .env("OPENBLAS_NUM_THREADS", "2")
        .output()
        .expect("python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    println!("  {what}:");
    print!("{}", String::from_utf8_lossy(&output.stdout));
}
