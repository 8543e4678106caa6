//! What the calls answer.

use reqwest::StatusCode;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::node::{Node, body, head_of, refused};

const UNKNOWN_MATRIX: &str = "00000000000000000000000000000000000000000000000000000000000000ff";
const UNKNOWN_JOB: &str = "000000000000000000000000000000ff";

#[tokio::test]
async fn a_product_is_computed_from_json_and_read_in_every_form() {
    let node = Node::start("alone").await;
    let job = node
        .submit(json!({"a": [[1, 2, 3], [4, 5, 6]], "b": [[7, 8], [9, 10], [11, 12]]}))
        .await;
    let status = node.get(&format!("/api/jobs/{job}?wait=30"), 200).await;
    assert_eq!(status["state"], "done", "{status}");
    assert_eq!(
        (&status["rows"], &status["inner"], &status["cols"]),
        (&json!(2), &json!(3), &json!(2))
    );
    assert_eq!(
        (&status["epoch"], &status["safe_copies"]),
        (&json!(1), &json!(0))
    );
    let result = node.get(&format!("/api/jobs/{job}/result"), 200).await;
    assert_eq!(result["data"], json!([[58, 64], [139, 154]]));
    let csv = node
        .text(&format!("/api/jobs/{job}/result?format=csv"))
        .await;
    let numbers: Vec<f64> = csv
        .split([',', '\n'])
        .filter_map(|number| number.trim().parse().ok())
        .collect();
    assert_eq!(numbers, [58.0, 64.0, 139.0, 154.0]);
    let id = status["result"].as_str().expect("an id");
    let npy = node
        .request("GET", &format!("/api/matrices/{id}"), None)
        .await;
    let name = npy.headers()["content-disposition"]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(
        name.starts_with("attachment; filename=\"matrix-") && name.ends_with(".npy\""),
        "{name}"
    );
    assert_eq!(&npy.bytes().await.expect("a body")[..6], b"\x93NUMPY");
    let jobs = node.get("/api/jobs", 200).await;
    assert_eq!(jobs[0]["job"], json!(job));
    node.stop().await;
}

#[tokio::test]
async fn matrices_are_sent_sniffed_and_named_by_their_content() {
    let node = Node::start("store").await;
    let sent = node.put("1,2\n3,4\n").await;
    assert_eq!(
        (&sent["rows"], &sent["cols"], &sent["dtype"]),
        (&json!(2), &json!(2), &json!("f64"))
    );
    assert_eq!(sent["bytes"], json!(32));
    assert_eq!(node.put("1;2\n3;4\n").await["id"], sent["id"]);
    let mtx = "%%MatrixMarket matrix array integer general\n2 2\n1\n3\n2\n4\n";
    assert_eq!(node.put(mtx).await["dtype"], json!("int"));
    let wide = node
        .request("PUT", "/api/matrices?dtype=f32", Some("1,2\n".into()))
        .await;
    assert_eq!(body(wide, 201).await["dtype"], json!("f32"));
    for (target, text, status, code) in [
        ("/api/matrices", "1,2\n3\n", 422, "ragged_csv"),
        ("/api/matrices", "", 422, "empty_matrix"),
        ("/api/matrices", "\u{0}\u{1}", 422, "unknown_format"),
        ("/api/matrices?dtype=f16", "1\n", 422, "unknown_dtype"),
        ("/api/matrices?format=xls", "1\n", 422, "unknown_format"),
        ("/api/matrices?private=2", "1\n", 422, "wrong_type"),
    ] {
        let answer = node.request("PUT", target, Some(text.into())).await;
        refused(answer, status, code).await;
    }
    let leftovers = std::fs::read_dir(node.directory.path().join("uploads")).expect("a directory");
    assert_eq!(
        leftovers.count(),
        0,
        "bodies are removed once they are in the store"
    );
    node.stop().await;
}

#[tokio::test]
async fn every_mistake_has_a_status_a_code_and_a_hint() {
    let node = Node::start("strict").await;
    for (method, target, text, status, code) in [
        ("POST", "/api/jobs", "{", 400, "bad_json"),
        ("POST", "/api/jobs", "{}", 422, "missing_operand"),
        (
            "POST",
            "/api/jobs",
            r#"{"a": [[1]], "b": [[1]], "mode": "private"}"#,
            422,
            "too_few_devices",
        ),
        (
            "POST",
            "/api/jobs",
            r#"{"a": [[1]], "b": [[1]], "batch": []}"#,
            422,
            "batch_and_operands",
        ),
        ("POST", "/nodes/register", "{", 400, "bad_registration"),
        (
            "POST",
            "/nodes/register",
            r#"{"host": "a b", "port": 80}"#,
            422,
            "bad_address",
        ),
        (
            "POST",
            "/nodes/register",
            r#"{"host": "x", "port": 0}"#,
            422,
            "bad_address",
        ),
        (
            "POST",
            "/nodes/register",
            r#"{"host": "x", "port": 65536}"#,
            422,
            "bad_registration",
        ),
        ("GET", "/api/jobs/zzz", "", 404, "unknown_job"),
        ("GET", "/api/jobs/zzz/result", "", 404, "unknown_job"),
        ("GET", "/api/matrices/zzz", "", 404, "unknown_matrix"),
        ("GET", "/api/jobs?wait=1", "", 200, ""),
        ("GET", "/api/nothing", "", 404, "no_such_route"),
        ("GET", "/ws", "", 400, "not_a_websocket"),
        ("POST", "/api/nodes", "", 405, "method_not_allowed"),
        ("DELETE", "/api/matrices", "", 405, "method_not_allowed"),
        ("OPTIONS", "/api/jobs", "", 405, "method_not_allowed"),
        ("POST", "/", "", 405, "method_not_allowed"),
    ] {
        let answer = node.request(method, target, Some(text.into())).await;
        if status == 200 {
            assert_eq!(answer.status(), 200, "{method} {target}");
        } else {
            refused(answer, status, code).await;
        }
    }
    for (target, code) in [
        (format!("/api/jobs/{UNKNOWN_JOB}"), "unknown_job"),
        (format!("/api/jobs/{UNKNOWN_JOB}/result"), "unknown_job"),
        (format!("/api/matrices/{UNKNOWN_MATRIX}"), "unknown_matrix"),
    ] {
        refused(node.request("GET", &target, None).await, 404, code).await;
    }
    refused(
        node.request("DELETE", &format!("/api/jobs/{UNKNOWN_JOB}"), None)
            .await,
        404,
        "unknown_job",
    )
    .await;
    let unknown = json!({"a": UNKNOWN_MATRIX, "b": [[1]]}).to_string();
    refused(
        node.request("POST", "/api/jobs", Some(unknown)).await,
        404,
        "unknown_matrix",
    )
    .await;
    let job = node.submit(json!({"a": [[1]], "b": [[2]]})).await;
    let target = format!("/api/jobs/{job}?wait=soon");
    refused(node.request("GET", &target, None).await, 400, "bad_wait").await;
    let target = format!("/api/jobs/{job}/result?wait=30&format=xls");
    refused(
        node.request("GET", &target, None).await,
        422,
        "unknown_format",
    )
    .await;
    node.stop().await;
}

#[tokio::test]
async fn bodies_beyond_their_bounds_are_refused_with_and_without_a_length() {
    let node = Node::start_with("small", |config| config.disk = 1 << 20).await;
    let long = " ".repeat((1 << 20) + 1);
    refused(
        node.request("POST", "/api/jobs", Some(long.clone())).await,
        413,
        "body_too_large",
    )
    .await;
    refused(
        node.request("PUT", "/api/matrices", Some(long.clone()))
            .await,
        413,
        "body_too_large",
    )
    .await;
    for (method, path) in [("POST", "/api/jobs"), ("PUT", "/api/matrices")] {
        let mut stream = node.connect().await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n",
            node.host()
        );
        stream.write_all(head.as_bytes()).await.expect("connected");
        let chunk = format!("10000\r\n{}\r\n", "1".repeat(0x10000));
        for _ in 0..17 {
            stream
                .write_all(chunk.as_bytes())
                .await
                .expect("read before the refusal");
        }
        stream
            .write_all(b"0\r\n\r\n")
            .await
            .expect("read before the refusal");
        let answer = head_of(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    assert_eq!(node.get("/healthz", 200).await["status"], "ok");
    node.stop().await;
}

#[tokio::test]
async fn every_node_answers_for_the_jobs_and_matrices_of_the_other() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let registration = json!({"host": "127.0.0.1", "port": b.address.port()}).to_string();
    let entry = body(
        a.request("POST", "/nodes/register", Some(registration))
            .await,
        201,
    )
    .await;
    assert_eq!(entry["name"], "b");
    b.until("/api/nodes", |nodes| {
        nodes.as_array().is_some_and(|nodes| nodes.len() == 2)
    })
    .await;
    // The operands are at a; the job is sent to b, which fetches them and coordinates.
    let left = a.put("1,2,3\n4,5,6\n").await;
    let right = a.put("7,8\n9,10\n11,12\n").await;
    let job = b
        .submit(json!({"a": left["id"], "b": right["id"], "name": "x/../y\u{202e}"}))
        .await;
    b.get(&format!("/api/jobs/{job}?wait=30"), 200).await;
    // Everything about it works at a.
    let status = a.get(&format!("/api/jobs/{job}?wait=30"), 200).await;
    assert_eq!(status["state"], "done", "{status}");
    assert_eq!(
        status["coordinator"],
        b.get("/api/info", 200).await["device"]
    );
    let result = a
        .get(&format!("/api/jobs/{job}/result?format=json"), 200)
        .await;
    assert_eq!(result["data"], json!([[58, 64], [139, 154]]));
    let npy = a
        .request("GET", &format!("/api/jobs/{job}/result?format=npy"), None)
        .await;
    let name = npy.headers()["content-disposition"]
        .to_str()
        .expect("plain")
        .to_owned();
    assert_eq!(name, "attachment; filename=\"x____y_.npy\"");
    let id = status["result"].as_str().expect("an id");
    let text = a.text(&format!("/api/matrices/{id}?format=csv")).await;
    assert_eq!(text.lines().count(), 2);
    // A job that has ended stays as it is, wherever it is cancelled.
    let cancelled = body(
        a.request("DELETE", &format!("/api/jobs/{job}"), None).await,
        200,
    )
    .await;
    assert_eq!(cancelled["state"], "done");
    // With b gone, a still knows how the job ended, and has the result: it is b's backup.
    b.until(&format!("/api/jobs/{job}"), |status| {
        status["safe_copies"] == 1
    })
    .await;
    b.stop().await;
    let target = format!("/api/jobs/{job}/result?format=csv");
    assert_eq!(a.text(&target).await, text);
    a.stop().await;
}

#[tokio::test]
async fn a_node_tells_who_and_how_it_is() {
    let node = Node::start("teller").await;
    let info = node.get("/api/info", 200).await;
    let keys: Vec<&str> = info
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "addresses",
            "device",
            "mesh",
            "name",
            "port",
            "urls",
            "version"
        ]
    );
    assert_eq!(info["addresses"], json!([node.host()]));
    assert_eq!(info["urls"], json!([format!("http://{}/", node.host())]));
    assert_eq!(node.get("/readyz", 200).await["status"], "ready");
    let nodes = node.get("/api/nodes", 200).await;
    assert_eq!(
        (&nodes[0]["device"], &nodes[0]["kind"]),
        (&info["device"], &json!("native"))
    );
    let metrics = node.text("/metrics").await;
    assert!(
        metrics.contains("gemmesh_build_info") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
    let head = node.request("HEAD", "/api/jobs", None).await;
    assert_eq!(
        (head.status(), head.headers()["content-type"].to_str().ok()),
        (StatusCode::OK, Some("application/json"))
    );
    assert!(head.bytes().await.expect("no body").is_empty());
    node.stop().await;
}
