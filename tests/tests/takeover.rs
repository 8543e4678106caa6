//! Real nodes that die in the middle of a job: it ends all the same, with the right result.
#![cfg(target_os = "linux")]

use gemmesh_tests::integers::Integers;
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, FIND_LIMIT, JOB_LIMIT, Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::wait::until;
use serde_json::{Value, json};

/// Rows and columns of the integer operands; 62-bit entries are slow enough for something to happen
/// meanwhile.
const EDGE: usize = 2_300;

#[test]
fn a_job_outlives_its_coordinator() {
    let mut nodes = mesh_of_four();
    let (a, b) = (
        Integers::random(EDGE, EDGE, 1),
        Integers::random(EDGE, EDGE, 2),
    );
    let job = nodes[0].api.submit(&json!({
        "a": nodes[0].api.matrix(&a.npy()), "b": nodes[0].api.matrix(&b.npy()),
    }));
    let before = await_safe(&nodes[0].api, &job);
    assert!(number(&before, "tiles_total") >= 30, "{before:#}");
    assert_eq!(number(&before, "epoch"), 1, "{before:#}");
    nodes[0].kill();

    let mut results = Vec::new();
    for node in &nodes[1..] {
        let status = node.api.done(&job);
        assert_eq!(number(&status, "epoch"), 2, "{status:#}");
        assert_eq!(number(&status, "tiles_recomputed"), 0, "{status:#}");
        assert_keeps(&status, &before);
        let total = number(&status, "tiles_total");
        assert_eq!(number(&status, "tiles_done"), total, "{status:#}");
        let devices: Vec<_> = nodes[1..].iter().map(Node::device).collect();
        let heir = status["coordinator"].as_str().expect("an id").to_owned();
        assert!(devices.contains(&heir), "{status:#}");
        let moments = status["timeline"].as_array().expect("a list");
        let took_over = moments.iter().find(|moment| moment["event"] == "took_over");
        let took_over = took_over.unwrap_or_else(|| panic!("nobody took over: {status:#}"));
        assert_eq!(took_over["device"], heir.as_str(), "{status:#}");
        let left = moments.iter().find(|moment| moment["event"] == "left");
        assert_eq!(left.map(|left| &left["name"]), Some(&json!("north")));
        let heir = nodes[1..].iter().find(|node| node.device() == heir);
        let metrics = heir.expect("a node").api.get("/metrics").expect(200).text();
        let copied = "gemmesh_copied_total{what=\"matrix\",outcome=\"here\"} 2";
        for line in ["gemmesh_takeovers_total 1", "gemmesh_copies ", copied] {
            assert!(
                metrics.lines().any(|l| l.starts_with(line)),
                "no {line}: {metrics}"
            );
        }
        results.push(node.api.result(&job, "csv"));
    }
    assert_is_product(&results[0], &a, &b);
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn a_job_outlives_a_power_cut_of_the_whole_mesh() {
    let mesh = fresh_mesh();
    let dirs = [(); 4].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let start = || -> Vec<Node> {
        let named = ["north", "east", "south", "west"].into_iter().zip(&dirs);
        let nodes = named
            .map(|(name, dir)| Options::loopback(name, &mesh).data_dir(dir.path()).start())
            .collect::<Vec<_>>();
        await_mesh(&nodes.iter().collect::<Vec<_>>(), 0);
        nodes
    };
    let mut nodes = start();
    let (a, b) = (
        Integers::random(EDGE, EDGE, 3),
        Integers::random(EDGE, EDGE, 4),
    );
    let job = nodes[0].api.submit(&json!({
        "a": nodes[0].api.matrix(&a.npy()), "b": nodes[0].api.matrix(&b.npy()),
    }));
    await_safe(&nodes[0].api, &job);
    nodes.iter_mut().for_each(Node::kill);
    drop(nodes);

    let nodes = start();
    for node in &nodes {
        // A node without a part in the job has to hear of it first.
        until("the node to know the job", FIND_LIMIT, || {
            let reply = node.api.try_get(&format!("/api/jobs/{job}"))?;
            (reply.status == 200).then_some(()).ok_or(reply.text())
        });
        let status = node.api.done(&job);
        assert!(number(&status, "epoch") >= 2, "{status:#}");
    }
    assert_is_product(&nodes[3].api.result(&job, "csv"), &a, &b);
}

#[test]
fn a_result_outlives_the_node_that_coordinated_its_job() {
    let mut nodes = mesh_of_four();
    let (a, b) = (Matrix::random(700, 600, 5), Matrix::random(600, 800, 6));
    let api = &nodes[0].api;
    let job = api.multiply(&api.matrix(&a.npy()), &api.matrix(&b.npy()));
    api.done(&job);
    let result = api.result(&job, "npy");
    Matrix::from_npy(&result).assert_is_product(&a, &b);
    until("a backup to have the result", JOB_LIMIT, || {
        let status = api.job(&job);
        let copies = number(&status, "safe_copies");
        (copies >= 1).then_some(()).ok_or(status.to_string())
    });
    nodes[0].kill();
    for node in &nodes[1..] {
        let other = until("the result from another node", FIND_LIMIT, || {
            let path = format!("/api/jobs/{job}/result?format=npy");
            let reply = node.api.try_get(&path)?;
            (reply.status == 200)
                .then(|| reply.body.clone())
                .ok_or_else(|| reply.text())
        });
        assert!(other == result, "{} has other bytes", node.name);
    }
}

#[test]
fn a_reproducible_product_has_the_same_bits_when_its_coordinator_dies() {
    let mut nodes = mesh_of_four();
    // A square: one operand to copy, so that a backup can go on well before the job has ended.
    let a = Matrix::random(6_500, 6_500, 7);
    let api = &nodes[0].api;
    let id = api.matrix(&a.npy());
    let request = json!({"a": id, "b": id, "reproducible": true});
    let undisturbed = api.submit(&request);
    api.done(&undisturbed);
    let wanted = api.result(&undisturbed, "npy");
    Matrix::from_npy(&wanted).assert_is_product(&a, &a);

    let disturbed = api.submit(&request);
    await_safe(api, &disturbed);
    nodes[0].kill();
    for node in &nodes[1..] {
        let status = node.api.done(&disturbed);
        assert_eq!(number(&status, "epoch"), 2, "{status:#}");
        let result = node.api.result(&disturbed, "npy");
        assert!(result == wanted, "{} has other bits", node.name);
    }
}

fn mesh_of_four() -> [Node; 4] {
    let mesh = fresh_mesh();
    let nodes = ["north", "east", "south", "west"].map(|n| Options::loopback(n, &mesh).start());
    await_mesh(&nodes.each_ref(), 0);
    nodes
}

/// Waits until another node could continue the job and would find 30 % of its tiles.
#[track_caller]
fn await_safe(api: &Api, job: &str) -> Value {
    until("three tenths of the tiles to be safe", JOB_LIMIT, || {
        let status = api.job(job);
        assert_ne!(
            status["state"], "done",
            "the job is long enough: {status:#}"
        );
        let (safe, total) = (
            number(&status, "tiles_safe"),
            number(&status, "tiles_total"),
        );
        if 10 * safe >= 3 * total && number(&status, "safe_copies") >= 1 {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    })
}

/// Checks that who had computed a tile that was safe still counts as the one who did: no other has
/// computed it again.
#[track_caller]
fn assert_keeps(status: &Value, before: &Value) {
    let unsafe_ones = number(before, "tiles_done") - number(before, "tiles_safe");
    let parts = |status: &Value| status["contributions"].as_array().expect("a list").clone();
    let after = parts(status);
    for part in parts(before) {
        let same = after.iter().find(|other| other["device"] == part["device"]);
        let tiles = same.map_or(0, |same| number(same, "tiles"));
        assert!(
            tiles + unsafe_ones >= number(&part, "tiles"),
            "tiles of {} were computed again: {before:#} {status:#}",
            part["name"]
        );
    }
}

#[track_caller]
fn number(status: &Value, field: &str) -> u64 {
    let number = status[field].as_u64();
    number.unwrap_or_else(|| panic!("{field} is no number: {status:#}"))
}

#[track_caller]
fn assert_is_product(csv: &[u8], a: &Integers, b: &Integers) {
    assert_eq!(a.product_fault(b, csv), None);
}
