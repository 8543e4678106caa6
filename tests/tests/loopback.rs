//! Real nodes on the loopback address: what a mesh promises to those who use it.
#![cfg(target_os = "linux")]

use std::thread;
use std::time::Duration;

use gemmesh_tests::matrices::{Matrix, Random, integer_csv, integer_product, integers_of_csv};
use gemmesh_tests::node::{FIND_LIMIT, JOB_LIMIT, Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::wait::{until, until_true};
use num_bigint::BigInt;
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn three_nodes_find_each_other_by_mdns_and_share_a_product() {
    let mesh = fresh_mesh();
    let nodes = ["red", "green", "blue"].map(|name| Options::loopback(name, &mesh).start());
    await_mesh(&nodes.each_ref(), 0);

    let (a, b) = (
        Matrix::random(1_500, 1_100, 1),
        Matrix::random(1_100, 1_300, 2),
    );
    let (api, other) = (&nodes[0].api, &nodes[2].api);
    let (id_a, id_b) = (api.matrix(&a.npy()), api.matrix(&b.npy()));
    // The second time the others are known to be fast or slow; every time all of them have a part.
    for _ in 0..2 {
        let job = api.multiply(&id_a, &id_b);
        let status = api.done(&job);
        assert_shared_by(&status, &["red", "green", "blue"]);
        // Any node serves the result, the one that coordinates or another.
        Matrix::from_npy(&other.result(&job, "npy")).assert_is_product(&a, &b);
    }
}

#[test]
fn nodes_are_told_of_each_other_where_there_is_no_multicast() {
    let mesh = fresh_mesh();
    let options = |name| Options::loopback(name, &mesh).arg("--no-mdns");
    let first = options("first").start();
    let second = options("second")
        .arg(format!("--peer={}", first.api.address))
        .start();
    await_mesh(&[&first, &second], 0);

    let third = options("third").start();
    assert_eq!(third.api.devices().len(), 1, "it knows of nobody");
    let (host, port) = third.api.address.split_once(':').expect("HOST:PORT");
    let port: u16 = port.parse().expect("a port");
    let entry = second
        .api
        .post("/nodes/register", &json!({"host": host, "port": port}));
    assert_eq!(entry.expect(201).json()["device"], third.device().as_str());
    await_mesh(&[&first, &second, &third], 0);

    let (a, b) = (Matrix::random(700, 900, 3), Matrix::random(900, 800, 4));
    let job = first
        .api
        .multiply(&first.api.matrix(&a.npy()), &first.api.matrix(&b.npy()));
    first.api.done(&job);
    Matrix::from_npy(&third.api.result(&job, "npy")).assert_is_product(&a, &b);
}

#[test]
fn a_node_that_can_not_be_registered_is_refused_with_the_reason() {
    let (mesh, other_mesh) = (fresh_mesh(), fresh_mesh());
    let node = Options::loopback("node", &mesh).arg("--no-mdns").start();
    let stranger = Options::loopback("stranger", &other_mesh)
        .arg("--no-mdns")
        .start();
    let port = |node: &Node| -> u16 {
        let (_, port) = node.api.address.split_once(':').expect("HOST:PORT");
        port.parse().expect("a port")
    };
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("a port").port()
    };
    for (what, port) in [("another mesh", port(&stranger)), ("nobody there", nobody)] {
        let reply = node.api.post(
            "/nodes/register",
            &json!({"host": "127.0.0.1", "port": port}),
        );
        let error = &reply.expect(422).json()["error"];
        for part in ["code", "message", "hint"] {
            assert!(
                error[part].as_str().is_some_and(|text| !text.is_empty()),
                "{what}: {error}"
            );
        }
    }
    assert_eq!(node.api.devices().len(), 1);
}

#[test]
fn the_example_of_two_by_three_and_three_by_two() {
    let node = alone("example");
    let job = node.api.submit(&json!({
        "a": [[1, 2, 3], [4, 5, 6]], "b": [[7, 8], [9, 10], [11, 12]], "name": "example",
    }));
    let status = node.api.done(&job);
    let shape = ["rows", "inner", "cols"].map(|name| status[name].as_u64());
    assert_eq!(shape, [Some(2), Some(3), Some(2)]);
    assert_eq!(status["name"], "example");
    assert_eq!(
        status["dtype"], "f64",
        "JSON is f64 unless it says otherwise"
    );
    let result: Value = serde_json::from_slice(&node.api.result(&job, "json")).expect("JSON");
    assert_eq!((&result["rows"], &result["cols"]), (&json!(2), &json!(2)));
    let data = result["data"].to_string().replace(".0", "");
    assert_eq!(data, "[[58,64],[139,154]]");
    assert_eq!(
        String::from_utf8_lossy(&node.api.result(&job, "csv")),
        "58,64\n139,154\n"
    );
    // A result is a matrix and can be an operand.
    let id = status["result"].as_str().expect("an id");
    let square = node.api.multiply(id, id);
    node.api.done(&square);
    assert_eq!(
        String::from_utf8_lossy(&node.api.result(&square, "csv")),
        "12260,13568\n29468,32612\n"
    );
}

#[test]
fn integers_of_any_size_are_exact() {
    let mesh = fresh_mesh();
    let nodes = ["one", "two"].map(|name| Options::loopback(name, &mesh).start());
    await_mesh(&nodes.each_ref(), 0);
    let api = &nodes[0].api;
    let mut random = Random(7);
    for (rows, inner, cols, bits) in [(5, 7, 3, 30), (40, 60, 50, 63), (9, 11, 8, 300)] {
        let mut matrix = |rows: usize, cols: usize| -> Vec<Vec<BigInt>> {
            (0..rows)
                .map(|_| (0..cols).map(|_| random.integer(bits)).collect())
                .collect()
        };
        let (a, b) = (matrix(rows, inner), matrix(inner, cols));
        let [id_a, id_b] = [&a, &b].map(|m| {
            let request = ("content-type", "text/csv");
            let reply = api.request(
                "PUT",
                "/api/matrices?dtype=int",
                &[request],
                integer_csv(m).into_bytes(),
            );
            let stored = reply.expect("an answer").expect(201).json();
            assert_eq!(stored["dtype"], "int");
            stored["id"].as_str().expect("an id").to_owned()
        });
        let job = api.submit(&json!({"a": id_a, "b": id_b, "dtype": "int"}));
        assert_eq!(api.done(&job)["dtype"], "int");
        let wanted = integer_product(&a, &b);
        let csv = api.result(&job, "csv");
        assert_eq!(
            integers_of_csv(&String::from_utf8_lossy(&csv)),
            wanted,
            "{bits} bits"
        );

        let mtx = String::from_utf8(nodes[1].api.result(&job, "mtx")).expect("text");
        let first = mtx.lines().next().expect("a header");
        assert!(
            first.starts_with("%%MatrixMarket matrix array integer"),
            "{first}"
        );
        let numbers: Vec<BigInt> = (mtx.lines().filter(|line| !line.starts_with('%')).skip(1))
            .map(|line| line.trim().parse().expect("an integer"))
            .collect();
        // Matrix Market's arrays go down the columns.
        let by_column = (0..cols).flat_map(|j| (0..rows).map(move |i| (i, j)));
        assert!(
            numbers.iter().eq(by_column.map(|(i, j)| &wanted[i][j])),
            "{bits} bits"
        );

        let npy = api.get(&format!("/api/jobs/{job}/result?format=npy"));
        if bits > 32 {
            let error = &npy.expect(422).json()["error"];
            let text = format!("{} {}", error["message"], error["hint"]);
            assert!(text.contains("csv") && text.contains("mtx"), "{text}");
        } else {
            assert!(npy.expect(200).body.starts_with(b"\x93NUMPY"));
        }
    }
}

#[test]
fn several_jobs_at_once_from_several_nodes() {
    let mesh = fresh_mesh();
    let nodes = ["left", "right"].map(|name| Options::loopback(name, &mesh).start());
    await_mesh(&nodes.each_ref(), 0);
    let jobs: Vec<_> = (0..6)
        .map(|i| {
            let api = &nodes[i % 2].api;
            let (a, b) = (
                Matrix::random(300, 200 + i, i as u64),
                Matrix::random(200 + i, 250, 90),
            );
            let job = api.multiply(&api.matrix(&a.npy()), &api.matrix(&b.npy()));
            (job, a, b)
        })
        .collect();
    for (i, (job, a, b)) in jobs.iter().enumerate() {
        let status = nodes[i % 2].api.done(job);
        assert_eq!(
            status["coordinator"],
            nodes[i % 2].device().as_str(),
            "who took it runs it"
        );
        Matrix::from_npy(&nodes[0].api.result(job, "npy")).assert_is_product(a, b);
    }
    for node in &nodes {
        let ids = |list: &Value| -> Vec<String> {
            let list = list.as_array().expect("a list");
            let ids = list
                .iter()
                .map(|job| job["job"].as_str().expect("an id").to_owned());
            ids.collect()
        };
        until(
            "every job to be in the list of every node",
            FIND_LIMIT,
            || {
                let list = node.api.get("/api/jobs").expect(200).json();
                let known = ids(&list);
                let missing: Vec<_> = jobs
                    .iter()
                    .filter(|(job, ..)| !known.contains(job))
                    .collect();
                if missing.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{list}"))
                }
            },
        );
        for (job, ..) in &jobs {
            until("every node to know that it is done", FIND_LIMIT, || {
                let status = node.api.job(job);
                if status["state"] == "done" {
                    Ok(())
                } else {
                    Err(status.to_string())
                }
            });
        }
    }
}

#[test]
fn a_job_is_cancelled_at_any_node() {
    let mesh = fresh_mesh();
    let nodes = ["mine", "yours"].map(|name| Options::loopback(name, &mesh).start());
    await_mesh(&nodes.each_ref(), 0);
    let (job, ..) = long_job(&nodes[0]);
    let result = nodes[0]
        .api
        .get(&format!("/api/jobs/{job}/result?format=csv"));
    let error = &result.expect(409).json()["error"];
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{error}"
    );

    let reply = nodes[1].api.delete(&format!("/api/jobs/{job}"));
    assert!((200..300).contains(&reply.status), "{}", reply.text());
    let status = nodes[0].api.ended(&job, JOB_LIMIT);
    assert_eq!(status["state"], "cancelled", "{status:#}");
    let result = nodes[0]
        .api
        .get(&format!("/api/jobs/{job}/result?format=csv"));
    assert!(
        [404, 409, 410].contains(&result.status),
        "{}",
        result.text()
    );
    // Nothing is held up by what was cancelled.
    let next = nodes[0].api.submit(&json!({"a": [[2]], "b": [[3]]}));
    nodes[0].api.done(&next);
}

#[test]
fn a_worker_that_is_killed_or_hangs_does_not_harm_the_job() {
    for signal in [Signal::KILL, Signal::STOP] {
        let mesh = fresh_mesh();
        let keeper = Options::loopback("keeper", &mesh).start();
        let helper = Options::loopback("helper", &mesh).start();
        await_mesh(&[&keeper, &helper], 0);
        let (job, a, b) = long_job(&keeper);
        until("the helper to have computed a tile", JOB_LIMIT, || {
            let status = keeper.api.job(&job);
            assert_ne!(status["state"], "done", "the job is long enough");
            let helped = tiles_of(&status, "helper") > 0;
            if helped {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });
        helper.signal(signal);
        let status = keeper.api.done(&job);
        assert!(tiles_of(&status, "keeper") > 0, "{status:#}");
        Matrix::from_npy(&keeper.api.result(&job, "npy")).assert_is_product(&a, &b);
        until_true("the helper to be counted as lost", JOB_LIMIT, || {
            let devices = keeper.api.devices();
            let helper = devices.iter().find(|device| device["name"] == "helper");
            helper.is_none_or(|helper| helper["state"] == "lost")
        });
    }
}

#[test]
fn ctrl_c_hands_back_the_work_and_ends_at_once() {
    let mesh = fresh_mesh();
    let keeper = Options::loopback("keeper", &mesh).start();
    let mut helper = Options::loopback("helper", &mesh).start();
    await_mesh(&[&keeper, &helper], 0);
    let (job, a, b) = long_job(&keeper);
    until("the helper to have computed a tile", JOB_LIMIT, || {
        let status = keeper.api.job(&job);
        if tiles_of(&status, "helper") > 0 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    let (status, took) = helper.interrupt();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    keeper.api.await_devices(1);
    keeper.api.done(&job);
    Matrix::from_npy(&keeper.api.result(&job, "npy")).assert_is_product(&a, &b);
}

#[test]
fn a_restarted_node_continues_its_jobs_and_keeps_its_results() {
    let mesh = fresh_mesh();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = || Options::loopback("phoenix", &mesh).data_dir(dir.path());
    let mut node = options().start();
    let device = node.device();
    let small = node.api.submit(&json!({"a": [[6]], "b": [[7]]}));
    node.api.done(&small);
    let (job, a, b) = long_job(&node);
    let before = until("some tiles to be done", JOB_LIMIT, || {
        let status = node.api.job(&job);
        assert_ne!(status["state"], "done", "the job is long enough");
        let done = status["tiles_done"].as_u64().expect("a number");
        if done > 1 {
            Ok(done)
        } else {
            Err(status.to_string())
        }
    });
    node.kill();

    let mut node = options().start();
    assert_eq!(node.device(), device, "it is the same device");
    assert_eq!(node.api.result(&small, "csv"), b"42\n");
    let status = node.api.job(&job);
    assert!(
        status["tiles_done"].as_u64() >= Some(before),
        "done tiles stay done: {status:#}"
    );
    let status = node.api.done(&job);
    assert_eq!(status["tiles_recomputed"], 0, "{status:#}");
    let result = node.api.result(&job, "npy");
    Matrix::from_npy(&result).assert_is_product(&a, &b);
    let (ended, _) = node.interrupt();
    assert!(ended.success(), "{ended}");

    let node = options().start();
    assert_eq!(node.api.result(&job, "npy"), result);
}

#[test]
fn a_job_that_was_cancelled_stays_so_after_a_crash() {
    let mesh = fresh_mesh();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = || Options::loopback("lazarus", &mesh).data_dir(dir.path());
    for _ in 0..5 {
        let mut node = options().start();
        let (job, ..) = long_job(&node);
        let reply = node.api.delete(&format!("/api/jobs/{job}"));
        node.kill();
        assert!((200..300).contains(&reply.status), "{}", reply.text());
        let mut node = options().start();
        assert_eq!(node.api.job(&job)["state"], "cancelled");
        node.kill();
    }
}

#[test]
fn results_live_as_long_as_was_said() {
    let mesh = fresh_mesh();
    let node = Options::loopback("brief", &mesh)
        .arg("--result-ttl=2s")
        .start();
    let unused = node.api.matrix(b"1,2\n");
    let job = node.api.submit(&json!({"a": [[1, 2]], "b": [[3], [4]]}));
    node.api.done(&job);
    assert_eq!(node.api.result(&job, "csv"), b"11\n");
    let result = format!("/api/jobs/{job}/result?format=csv");
    until("the result to expire", Duration::from_secs(60), || {
        let reply = node.api.get(&result);
        if reply.status == 200 {
            Err(reply.text())
        } else {
            Ok(())
        }
    });
    // The matrix is older than the job and nobody has looked at it since.
    for path in [result, format!("/api/matrices/{unused}?format=csv")] {
        let error = &node.api.get(&path).expect(410).json()["error"];
        let hint = error["hint"].as_str().unwrap_or_default();
        assert!(!hint.is_empty(), "{path}: {error}");
    }
}

#[test]
fn reproducible_products_have_the_same_bits_whoever_computes() {
    let (a, b) = (Matrix::random(400, 300, 5), Matrix::random(300, 350, 6));
    let mut results = Vec::new();
    for count in [1, 2] {
        let mesh = fresh_mesh();
        let nodes: Vec<_> = (0..count)
            .map(|i| Options::loopback(&format!("node{i}"), &mesh).start())
            .collect();
        await_mesh(&nodes.iter().collect::<Vec<_>>(), 0);
        let api = &nodes[0].api;
        let request = json!({
            "a": api.matrix(&a.npy()), "b": api.matrix(&b.npy()), "reproducible": true,
        });
        let job = api.submit(&request);
        api.done(&job);
        results.push(api.result(&job, "npy"));
    }
    Matrix::from_npy(&results[0]).assert_is_product(&a, &b);
    assert_eq!(results[0], results[1]);
}

#[test]
fn a_wait_is_answered_as_soon_as_the_job_has_ended() {
    let node = alone("waiter");
    let (job, a, b) = long_job(&node);
    let waiters = [
        format!("/api/jobs/{job}?wait=120"),
        format!("/api/jobs/{job}/result?format=npy&wait=120"),
    ];
    let replies = thread::scope(|scope| {
        let threads = waiters.map(|path| {
            let api = &node.api;
            scope.spawn(move || api.get(&path))
        });
        threads.map(|thread| thread.join().expect("an answer"))
    });
    assert_eq!(replies[0].expect(200).json()["state"], "done");
    Matrix::from_npy(&replies[1].expect(200).body).assert_is_product(&a, &b);
}

/// A node that looks for nobody.
fn alone(name: &str) -> Node {
    Options::loopback(name, &fresh_mesh())
        .arg("--no-mdns")
        .start()
}

/// A job that takes seconds: long enough for something to happen meanwhile.
fn long_job(node: &Node) -> (String, Matrix, Matrix) {
    let (a, b) = (
        Matrix::random(2_400, 2_200, 11),
        Matrix::random(2_200, 2_300, 12),
    );
    let (id_a, id_b) = (node.api.matrix(&a.npy()), node.api.matrix(&b.npy()));
    // The slowest class of kernel, so that it is long on a fast machine too.
    let job = node
        .api
        .submit(&json!({"a": id_a, "b": id_b, "reproducible": true}));
    (job, a, b)
}

fn tiles_of(status: &Value, name: &str) -> u64 {
    let list = status["contributions"].as_array().expect("a list");
    let tiles = list.iter().filter(|part| part["name"] == name);
    tiles
        .map(|part| part["tiles"].as_u64().expect("a number"))
        .sum()
}

/// Checks that the contributions are those of `names`, and that they add up.
fn assert_shared_by(status: &Value, names: &[&str]) {
    for name in names {
        assert!(tiles_of(status, name) > 0, "{name} has a part: {status:#}");
    }
    let sum = |field: &str| -> u64 {
        let list = status["contributions"].as_array().expect("a list");
        list.iter()
            .map(|part| part[field].as_u64().expect("a number"))
            .sum()
    };
    let number = |field: &str| status[field].as_u64().expect("a number");
    assert_eq!(
        sum("operations"),
        2 * number("rows") * number("inner") * number("cols")
    );
    assert_eq!(sum("tiles"), number("tiles_total"));
    assert_eq!(number("tiles_done"), number("tiles_total"));
    for part in status["contributions"].as_array().expect("a list") {
        assert!(
            part["mflops"].as_f64() > Some(0.0) && part["compute_ms"].as_f64() > Some(0.0),
            "{part}"
        );
        assert!(part["rows"].as_u64() <= status["rows"].as_u64(), "{part}");
    }
}
