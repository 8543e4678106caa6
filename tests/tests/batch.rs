//! Many products as one job, on real nodes.
#![cfg(target_os = "linux")]

use std::io::Cursor;

use gemmesh_tests::integers::Integers;
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, JOB_LIMIT, Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::wait::until;
use npyz::WriterBuilder as _;
use serde_json::{Value, json};

#[test]
fn a_batch_of_several_shapes_names_what_failed_and_has_the_rest_at_every_node() {
    let nodes = mesh(["one", "two", "three"]);
    let api = &nodes[0].api;
    let shapes = [
        (16, 16, 16),
        (5, 7, 2),
        (300, 40, 200),
        (900, 800, 700),
        (1, 30, 1),
    ];
    let factors: Vec<(Matrix, Matrix)> = (0..60)
        .map(|index: usize| {
            // The large one comes once.
            let shape = match index {
                20 => 3,
                index => [0, 1, 2, 4][index % 4],
            };
            let (m, k, n) = shapes[shape];
            let seed = index as u64;
            (
                Matrix::random(m, k, seed),
                Matrix::random(k, n, 1_000 + seed),
            )
        })
        .collect();
    let inline = |matrix: &Matrix| -> Value {
        let rows: Vec<&[f64]> = matrix.data.chunks(matrix.cols).collect();
        json!(rows)
    };
    let mut list: Vec<Value> = factors
        .iter()
        .enumerate()
        .map(|(index, (a, b))| match index % 3 {
            0 if a.data.len() < 500 => json!({"a": inline(a), "b": api.matrix(&b.npy())}),
            // Another node has it.
            1 => json!({"a": nodes[1].api.matrix(&a.npy()), "b": api.matrix(&b.npy())}),
            _ => json!({"a": api.matrix(&a.npy()), "b": api.matrix(&b.npy())}),
        })
        .collect();
    let other = api.matrix(&Matrix::random(3, 3, 5).npy());
    list[8] = json!({"a": [[1, 2], [3, 4]], "b": other});
    list[13] = json!({"a": "ab".repeat(32), "b": other});
    list[14] = json!({"a": [[1, 2], [3]], "b": other});
    let taken = api.post("/api/jobs", &json!({"batch": list, "name": "mixed"}));
    let taken = taken.expect(202).json();
    assert!(taken["token"].is_string());
    let job = taken["job"].as_str().expect("an id").to_owned();

    for node in &nodes {
        let status = node.api.done(&job);
        assert_eq!(
            (&status["products"], &status["name"]),
            (&json!(60), &json!("mixed"))
        );
        for shape in ["rows", "inner", "cols"] {
            assert!(status[shape].is_null(), "{status:#}");
        }
        let failed = status["failed"].as_array().expect("a list");
        let indices: Vec<u64> = failed
            .iter()
            .filter_map(|one| one["index"].as_u64())
            .collect();
        assert_eq!(indices, [8, 13, 14], "{status:#}");
        let error = |n: usize| failed[n]["error"].as_str().expect("a reason").to_owned();
        assert!(
            error(0).contains("2 × 2") && error(0).contains("3 × 3"),
            "{}",
            error(0)
        );
        assert!(error(1).contains("abab"), "{}", error(1));
        assert!(error(2).contains("row"), "{}", error(2));
        for (index, (a, b)) in factors.iter().enumerate() {
            let path = format!("/api/jobs/{job}/result?index={index}&format=npy");
            let reply = node.api.get(&path);
            if indices.contains(&(index as u64)) {
                let error = reply.expect(422).json();
                assert_eq!(error["error"]["code"], "product_failed");
                let message = error["error"]["message"].as_str().expect("text").to_owned();
                assert!(message.contains(&format!("product {index} ")), "{message}");
                continue;
            }
            Matrix::from_npy(&reply.expect(200).body).assert_is_product(a, b);
        }
        let listed = node.api.get("/api/jobs").json();
        let listed = listed.as_array().expect("a list");
        assert_eq!(listed.len(), 1, "parts are not listed: {listed:#?}");
        assert_eq!(listed[0]["job"], job.as_str());
    }
    refuses(api, &job);
    let text = api
        .get(&format!("/api/jobs/{job}/result?index=1&format=json"))
        .expect(200)
        .json();
    assert_eq!((&text["rows"], &text["cols"]), (&json!(5), &json!(2)));
}

fn refuses(api: &Api, job: &str) {
    for (query, status, code) in [
        ("index=60", 404, "no_such_product"),
        ("index=-1", 422, "bad_index"),
        ("index=x", 422, "bad_index"),
        ("index=1&format=pdf", 422, "unknown_format"),
        ("", 422, "product_failed"),
        ("format=csv", 422, "which_product"),
    ] {
        let reply = api.get(&format!("/api/jobs/{job}/result?{query}"));
        assert_eq!(
            reply.expect(status).json()["error"]["code"],
            code,
            "{query}"
        );
    }
    let one = api.submit(&json!({"a": [[2]], "b": [[3]]}));
    api.done(&one);
    let reply = api.get(&format!("/api/jobs/{one}/result?index=0"));
    assert_eq!(reply.expect(422).json()["error"]["code"], "no_batch");
    let bad = json!({"a": [[1]], "b": [[1], [2]]});
    for (batch, status, code) in [
        (json!([]), 422, "empty_batch"),
        (json!([bad]), 422, "batch_failed"),
        (
            json!({"a": "00".repeat(32), "b": "00".repeat(32), "products": 2}),
            404,
            "unknown_matrix",
        ),
    ] {
        let reply = api.post("/api/jobs", &json!({"batch": batch}));
        assert_eq!(
            reply.expect(status).json()["error"]["code"],
            code,
            "{}",
            reply.text()
        );
    }
}

#[test]
fn two_stacks_are_multiplied_by_several_nodes_and_give_a_stack() {
    let nodes = mesh(["left", "right"]);
    let api = &nodes[0].api;
    let (count, edge) = (500, 150);
    let (a, b) = (stack(count, edge, edge, 1), stack(count, edge, edge, 2));
    let put = |matrices: &[Matrix]| -> (Value, Value) {
        let put = api.put_matrix(&stack_npy(matrices)).expect(201).json();
        (put["id"].clone(), put["stack"].clone())
    };
    let ((id_a, products), (id_b, _)) = (put(&a), put(&b));
    assert_eq!(products, json!(count));
    let taken = api.post(
        "/api/jobs",
        &json!({"batch": {"a": id_a, "b": id_b, "products": products}}),
    );
    let job = taken.expect(202).json()["job"]
        .as_str()
        .expect("an id")
        .to_owned();
    // A product is there before the others are, or after them; it is the same.
    let path = format!("/api/jobs/{job}/result?index=7&format=npy&wait=60");
    let early = nodes[1].api.get(&path);
    Matrix::from_npy(&early.expect(200).body).assert_is_product(&a[7], &b[7]);
    let status = nodes[1].api.done(&job);
    assert_eq!(status["failed"], json!([]));
    let parts = status["contributions"].as_array().expect("a list");
    assert!(parts.len() == 2, "both compute: {status:#}");
    for node in &nodes {
        let whole = node.api.get(&format!("/api/jobs/{job}/result?format=npy"));
        let products = matrices_of(&whole.expect(200).body);
        assert_eq!(products.len(), count);
        for ((c, a), b) in products.iter().zip(&a).zip(&b) {
            c.assert_is_product(a, b);
        }
    }
    let reply = api.post(
        "/api/jobs",
        &json!({"batch": {"a": id_a, "b": id_b, "products": 499}}),
    );
    let error = reply.expect(422).json();
    assert_eq!(error["error"]["code"], "dimension_mismatch");
}

#[test]
fn a_batch_outlives_its_coordinator() {
    let mut nodes = mesh(["north", "east", "south"]);
    let (m, count) = (340, 24);
    let factors: Vec<(Integers, Integers)> = (0..count)
        .map(|n| (Integers::random(m, m, n), Integers::random(m, m, 100 + n)))
        .chain([(
            Integers::random(1_500, 1_500, 200),
            Integers::random(1_500, 1_500, 201),
        )])
        .collect();
    let api = &nodes[0].api;
    let list: Vec<Value> = factors
        .iter()
        .map(|(a, b)| json!({"a": api.matrix(&a.npy()), "b": api.matrix(&b.npy())}))
        .collect();
    let taken = api
        .post("/api/jobs", &json!({"batch": list}))
        .expect(202)
        .json();
    let job = taken["job"].as_str().expect("an id").to_owned();
    until("a backup to have all parts", JOB_LIMIT, || {
        let status = api.job(&job);
        let ready =
            status["safe_copies"].as_u64() >= Some(1) && status["tiles_safe"].as_u64() >= Some(1);
        ready.then_some(()).ok_or_else(|| status.to_string())
    });
    let before = api.job(&job);
    assert_eq!(before["state"], "running", "{before:#}");
    nodes[0].kill();
    for node in &nodes[1..] {
        let status = node.api.done(&job);
        assert_eq!(status["failed"], json!([]), "{status:#}");
        assert!(status["epoch"].as_u64() >= Some(2), "{status:#}");
        for (index, (a, b)) in factors.iter().enumerate() {
            let path = format!("/api/jobs/{job}/result?index={index}&format=csv");
            let csv = node.api.get(&path);
            let fault = a.product_fault(b, &csv.expect(200).body);
            assert_eq!(fault, None, "product {index} at {}", node.name);
        }
    }
}

#[test]
fn a_batch_is_cancelled_as_a_whole_from_any_node() {
    let nodes = mesh(["up", "down"]);
    let api = &nodes[0].api;
    let (small, large) = (
        Integers::random(300, 300, 1),
        Integers::random(2_300, 2_300, 2),
    );
    let [small, large] = [small, large].map(|matrix| api.matrix(&matrix.npy()));
    let list = json!([
        {"a": large, "b": large}, {"a": small, "b": small}, {"a": small, "b": small},
    ]);
    let taken = api
        .post("/api/jobs", &json!({"batch": list}))
        .expect(202)
        .json();
    let job = taken["job"].as_str().expect("an id").to_owned();
    let early = api.get(&format!("/api/jobs/{job}/result?index=0"));
    assert_eq!(early.expect(409).json()["error"]["code"], "job_running");
    let other = &nodes[1].api;
    until("the other node to know the batch", JOB_LIMIT, || {
        let reply = other.try_get(&format!("/api/jobs/{job}"))?;
        (reply.status == 200)
            .then_some(())
            .ok_or_else(|| reply.text())
    });
    other.delete(&format!("/api/jobs/{job}")).expect(200);
    for node in &nodes {
        let status = node.api.ended(&job, JOB_LIMIT);
        assert_eq!(status["state"], "cancelled", "{status:#}");
        let reply = node.api.get(&format!("/api/jobs/{job}/result?index=0"));
        assert_eq!(reply.expect(409).json()["error"]["code"], "job_cancelled");
    }
}

fn mesh<const N: usize>(names: [&str; N]) -> Vec<Node> {
    let mesh = fresh_mesh();
    let nodes: Vec<Node> = names
        .into_iter()
        .map(|name| Options::loopback(name, &mesh).start())
        .collect();
    await_mesh(&nodes.iter().collect::<Vec<_>>(), 0);
    nodes
}

fn stack(count: usize, rows: usize, cols: usize, seed: u64) -> Vec<Matrix> {
    let one = |n: usize| Matrix::random(rows, cols, seed << 32 | n as u64);
    (0..count).map(one).collect()
}

fn stack_npy(matrices: &[Matrix]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let first = &matrices[0];
    let shape = [matrices.len(), first.rows, first.cols].map(|length| length as u64);
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&shape)
        .writer(&mut bytes)
        .begin_nd()
        .expect("memory takes any bytes");
    for matrix in matrices {
        writer.extend(&matrix.data).expect("memory takes any bytes");
    }
    writer.finish().expect("memory takes any bytes");
    bytes.into_inner()
}

fn matrices_of(bytes: &[u8]) -> Vec<Matrix> {
    let file = npyz::NpyFile::new(bytes).expect("an .npy file");
    let shape: Vec<usize> = file.shape().iter().map(|&n| n as usize).collect();
    let [_, rows, cols] = shape[..] else {
        panic!("three dimensions, not {shape:?}");
    };
    let data: Vec<f64> = file.into_vec().expect("elements of f64");
    let one = |data: &[f64]| Matrix {
        rows,
        cols,
        data: data.to_vec(),
    };
    data.chunks(rows * cols).map(one).collect()
}
