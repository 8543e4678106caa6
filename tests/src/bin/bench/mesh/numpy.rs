//! From a client's arrays to a client's array, next to NumPy in one process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gemmesh_tests::node::{Node, Options, await_mesh, fresh_mesh};

/// The client: standard library and NumPy alone.
const CLIENT: &str = include_str!("product.py");
/// The same products by others.
const OTHERS: &str = include_str!("others.py");

/// Prints what `product.py` measures, with one node of two threads and with two of one.
pub fn measure(edge: usize, runs: usize) {
    let Some(python) = python("python") else {
        return;
    };
    println!(
        "{edge} × {edge} f64 from a Python client, next to NumPy with two threads, {runs} runs:"
    );
    let whole = vec![
        Options::loopback("whole", &fresh_mesh())
            .threads(2)
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

/// Prints what Ray and Dask do with the same cores.
pub fn measure_others(edge: usize, runs: usize) {
    let Some(python) = python("others") else {
        return;
    };
    println!("{edge} × {edge} f64, Ray and Dask with two workers of one thread, {runs} runs:");
    print!(
        "{}",
        output(&python, OTHERS, &[&edge.to_string(), &runs.to_string()])
    );
}

/// Python of an environment that `scripts/bootstrap.sh` makes.
fn python(environment: &str) -> Option<PathBuf> {
    let python = gemmesh_tests::root().join(format!("target/{environment}/bin/python"));
    if !python.exists() {
        println!(
            "  left out: target/{environment} is not there (scripts/bootstrap.sh {environment})"
        );
        return None;
    }
    Some(python)
}

fn client(python: &Path, what: &str, nodes: &[Node], edge: usize, runs: usize) {
    let args = [&nodes[0].api.address, &edge.to_string(), &runs.to_string()];
    println!("  {what}:");
    print!("{}", output(python, CLIENT, &args.map(String::as_str)));
}

/// What a program prints.
fn output(python: &Path, program: &str, args: &[&str]) -> String {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let script = dir.path().join("program.py");
    fs::write(&script, program).expect("a file");
    let output = Command::new(python)
        .arg(&script)
        .args(args)
        .env("OPENBLAS_NUM_THREADS", "2")
        .output()
        .expect("python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
