//! `make bench`: how long a user waits, measured here and now on three real nodes of this machine.
//!
//! Figures of one run are comparable with each other; what is compared is printed as a ratio.
//! `bench safety [EDGE]` measures only what replication costs, `bench batch` only small products,
//! `bench mesh [PART …]` what a mesh wins, `bench page` what a phone waits for, `bench memory [EDGE]` what is resident at most.

mod batch;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod mesh;
#[cfg(target_os = "linux")]
mod page;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod safety;

use std::time::{Duration, Instant};

use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, Options, await_mesh, fresh_mesh};
use serde_json::json;

/// Jobs whose latency is taken, after as many that warm up.
const JOBS: usize = 60;
/// The edge of the product with backups and without.
#[cfg(target_os = "linux")]
const SAFETY_EDGE: usize = 4_000;
/// The edge of matrices that are larger than the memory that nodes may have.
#[cfg(target_os = "linux")]
const MEMORY_EDGE: u64 = 20_000;
/// Pairs of runs of the large product.
const PAIRS: usize = 3;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|part| part == "batch") {
        batch::measure();
        return;
    }
    #[cfg(target_os = "linux")]
    if args.first().is_some_and(|part| part == "mesh") {
        mesh::measure(&args[1..]);
        return;
    }
    #[cfg(target_os = "linux")]
    if args.first().is_some_and(|part| part == "page") {
        page::measure();
        return;
    }
    #[cfg(target_os = "linux")]
    if args.first().is_some_and(|part| part == "memory") {
        let edge = args.get(1).map(|edge| edge.parse());
        return memory::measure(edge.unwrap_or(Ok(MEMORY_EDGE)).expect("an edge"));
    }
    let only_safety = args.first().is_some_and(|part| part == "safety");
    if !only_safety {
        speed();
        batch::measure();
    }
    #[cfg(target_os = "linux")]
    {
        let edge = args.get(1).map(|edge| edge.parse());
        let edge = edge.unwrap_or(Ok(SAFETY_EDGE)).expect("an edge");
        safety::measure(edge);
    }
}

/// How long jobs take.
fn speed() {
    let mesh = fresh_mesh();
    let nodes = ["one", "two", "three"].map(|name| Options::loopback(name, &mesh).start());
    await_mesh(&nodes.each_ref(), 0);
    let lone = Options::loopback("lone", &fresh_mesh())
        .arg("--no-mdns")
        .start();

    let (a, b) = (Matrix::random(200, 200, 1), Matrix::random(200, 200, 2));
    let ids = upload(&nodes[0].api, &a, &b);
    for _ in 0..JOBS {
        submit_to_result(&nodes[0].api, &ids);
    }
    let mut times: Vec<Duration> = (0..JOBS)
        .map(|_| submit_to_result(&nodes[0].api, &ids))
        .collect();
    times.sort();
    println!("200 × 200 f64, three one-thread nodes, submission to result over HTTP, {JOBS} jobs:");
    let (median, worst) = (ms(times[JOBS / 2]), ms(times[JOBS - 1]));
    println!("  median {median:.1} ms, worst {worst:.1} ms");

    let (a, b) = (
        Matrix::random(3_000, 3_000, 3),
        Matrix::random(3_000, 3_000, 4),
    );
    let (shared, alone) = (upload(&nodes[0].api, &a, &b), upload(&lone.api, &a, &b));
    println!("3,000 × 3,000 f64, nothing cached at first, {PAIRS} pairs of runs:");
    for _ in 0..PAIRS {
        let one = seconds(&lone.api, &alone);
        let three = seconds(&nodes[0].api, &shared);
        let ratio = one / three;
        println!("  one one-thread node {one:.2} s, three {three:.2} s: {ratio:.2} times as fast");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("  (this machine has {cores} cores for all of them)");
}

fn upload(api: &Api, a: &Matrix, b: &Matrix) -> [String; 2] {
    [api.matrix(&a.npy()), api.matrix(&b.npy())]
}

/// From the submission until the whole result is here, as `.npy`.
fn submit_to_result(api: &Api, [a, b]: &[String; 2]) -> Duration {
    let start = Instant::now();
    let job = api.submit(&json!({"a": a, "b": b}));
    let result = api.get(&format!("/api/jobs/{job}/result?format=npy&wait=60"));
    result.expect(200);
    start.elapsed()
}

/// Seconds from acknowledgement to the end, as the job's status says.
fn seconds(api: &Api, [a, b]: &[String; 2]) -> f64 {
    let job = api.submit(&json!({"a": a, "b": b}));
    api.done(&job)["seconds"].as_f64().expect("a number")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
