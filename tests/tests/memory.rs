//! Nodes with little memory: products of matrices that are larger, everything at once, refusals with figures.
#![cfg(target_os = "linux")]

use std::thread;

use gemmesh_tests::integers::Integers;
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Node, Options, await_mesh, fresh_mesh};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
/// Little more than a node with one thread takes at least.
const MEMORY: u64 = 96 * MIB;

#[test]
fn a_product_larger_than_the_memory_of_every_node_stays_within_it() {
    let mesh = fresh_mesh();
    let [one, two] = ["one", "two"].map(|name| start(name, &mesh));
    await_mesh(&[&one, &two], 0);
    // 72 MB each, and as much comes out.
    let (a, b) = (
        Matrix::random(3_000, 3_000, 1),
        Matrix::random(3_000, 3_000, 2),
    );
    let job = one
        .api
        .multiply(&one.api.matrix(&a.npy()), &one.api.matrix(&b.npy()));
    one.api.done(&job);
    for format in ["csv", "mtx", "npy"] {
        let path = format!("/api/jobs/{job}/result?format={format}");
        let reply = one.api.get(&path);
        let reply = reply.expect(200);
        if format == "npy" {
            Matrix::from_npy(&reply.body).assert_is_product(&a, &b);
        }
    }
    assert_within(&[&one, &two]);
}

#[test]
fn a_result_that_is_made_faster_than_a_disk_takes_it_does_not_pile_up() {
    let node = start("lone", &fresh_mesh());
    // 288 MB of product, and next to no arithmetic.
    let (a, b) = (Matrix::random(6_000, 2, 1), Matrix::random(2, 6_000, 2));
    let job = node
        .api
        .multiply(&node.api.matrix(&a.npy()), &node.api.matrix(&b.npy()));
    node.api.done(&job);
    assert_within(&[&node]);
}

#[test]
fn many_jobs_uploads_and_readers_at_once_stay_within_the_memory() {
    let node = start("lone", &fresh_mesh());
    let integers = Integers::random(700, 700, 1);
    let matrices: Vec<Matrix> = (0..6)
        .map(|seed| Matrix::random(1_100, 1_100, seed))
        .collect();
    let api = &node.api;
    let ids: Vec<String> = thread::scope(|scope| {
        let uploads = matrices
            .iter()
            .map(|matrix| scope.spawn(|| api.matrix(&matrix.npy())));
        let uploads: Vec<_> = uploads.collect();
        uploads
            .into_iter()
            .map(|upload| upload.join().expect("an id"))
            .collect()
    });
    let square = api.matrix(&integers.npy());
    let mut jobs: Vec<String> = (0..6)
        .map(|n| api.multiply(&ids[n], &ids[(n + 1) % 6]))
        .collect();
    jobs.push(api.multiply(&square, &square));
    thread::scope(|scope| {
        for job in &jobs {
            scope.spawn(move || {
                api.done(job);
                for format in ["csv", "mtx", "json"] {
                    let path = format!("/api/jobs/{job}/result?format={format}");
                    api.get(&path).expect(200);
                }
            });
        }
    });
    assert_within(&[&node]);
    let metrics = api.get("/metrics").expect(200).text();
    assert!(
        metrics.contains(&format!("gemmesh_memory_bytes{{part=\"limit\"}} {MEMORY}")),
        "{metrics}"
    );
    assert!(
        metrics.contains("gemmesh_memory_bytes{part=\"peak\"}"),
        "{metrics}"
    );
}

#[test]
fn what_a_job_needs_is_said_and_what_can_not_be_had_is_refused() {
    let node = Options::loopback("lone", &fresh_mesh())
        .arg("--memory=96M")
        .arg("--disk=60M")
        .start();
    let api = &node.api;
    let ids = [
        (1_200, 1),
        (1, 1_200),
        (1_200, 1_200),
        (1_200, 2_900),
        (1, 60_000),
    ]
    .map(|(rows, cols)| api.matrix(&Matrix::random(rows, cols, rows as u64).npy()));
    let asked = json!({"a": ids[0], "b": ids[1], "explain": true});
    let needs = api.post("/api/jobs", &asked).expect(200).json()["needs"].clone();
    assert_eq!(needs["disk_bytes"], 8 * 1_200 * 1_200);
    let memory = needs["memory_bytes"].as_u64().expect("a number");
    assert!(memory > 0 && memory < MEMORY, "{needs}");

    let refused = api.post("/api/jobs", &json!({"a": ids[2], "b": ids[3]}));
    let error = refused.expect(413).json()["error"].clone();
    assert_says(&error, "disk_budget", &["26.6 MiB", "60.0 MiB"], "--disk");
}

#[test]
fn a_tile_that_no_slot_can_hold_is_refused_with_the_memory_that_it_takes() {
    let node = start("lone", &fresh_mesh());
    let api = &node.api;
    // One row of C is one block, which needs a part of every column of B.
    let (a, b) = (Matrix::random(1, 300, 1), Matrix::random(300, 50_000, 2));
    let ids = [a.npy(), b.npy()].map(|file| api.matrix(&file));
    let refused = api.post("/api/jobs", &json!({"a": ids[0], "b": ids[1]}));
    let error = refused.expect(413).json()["error"].clone();
    assert_says(
        &error,
        "memory_budget",
        &["1 × 300", "96.0 MiB"],
        "--memory ",
    );
}

fn start(name: &str, mesh: &str) -> Node {
    let options = Options::loopback(name, mesh);
    options.arg(format!("--memory={}M", MEMORY / MIB)).start()
}

#[track_caller]
fn assert_within(nodes: &[&Node]) {
    for node in nodes {
        let peak = node.peak_memory();
        println!("{}: {} MiB of {}", node.name, peak / MIB, MEMORY / MIB);
        assert!(peak <= MEMORY, "{} had {peak} bytes resident", node.name);
    }
}

/// The error has this code, its message both figures, its hint the option to change.
fn assert_says(error: &Value, code: &str, figures: &[&str], option: &str) {
    assert_eq!(error["code"], code, "{error}");
    let message = error["message"].as_str().expect("text");
    let told = figures.iter().all(|figure| message.contains(figure));
    assert!(told, "{message}");
    let hint = error["hint"].as_str().expect("text");
    assert!(hint.contains(option), "{error}");
}
