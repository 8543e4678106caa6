//! What one node has, another can have: tiles, matrices, results.

use reqwest::StatusCode;
use serde_json::json;

use crate::node::{Node, refused};

const UNKNOWN_JOB: &str = "000000000000000000000000000000ff";

#[tokio::test]
async fn a_tile_goes_to_whoever_lacks_it_and_not_to_pages() {
    let node = Node::start("holder").await;
    let job = node
        .submit(json!({"a": [[1, 2], [3, 4]], "b": [[1, 0], [0, 1]]}))
        .await;
    node.get(&format!("/api/jobs/{job}?wait=30"), 200).await;
    let tile = |tile: &str| format!("/mesh/jobs/{job}/tiles/{tile}");
    let answer = node.request("GET", &tile("0"), None).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let bytes = answer.bytes().await.expect("a body");
    let elements: Vec<f64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes))
        .collect();
    assert_eq!(elements, [1.0, 2.0, 3.0, 4.0]);
    for path in [
        tile("1"),
        tile("4294967296"),
        tile("x"),
        format!("/mesh/jobs/{UNKNOWN_JOB}/tiles/0"),
    ] {
        refused(node.request("GET", &path, None).await, 404, "not_found").await;
    }
    let posted = node.request("POST", &tile("0"), None).await;
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    let origin = format!("origin: http://{}\r\n", node.host());
    let head = node.raw("GET", &tile("0"), &node.host(), &origin).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    node.stop().await;
}

#[tokio::test]
async fn a_damaged_matrix_is_replaced_by_that_of_another_node() {
    let (damaged, whole) = pair().await;
    let rows: Vec<String> = (0..300)
        .map(|i| (0..300).map(|j| format!("{}", i * j)).collect::<Vec<_>>())
        .map(|row| row.join(","))
        .collect();
    let csv = rows.join("\n") + "\n";
    for node in [&damaged, &whole] {
        node.put(&csv).await;
    }
    let id = damaged.put(&csv).await["id"].clone();
    let id = id.as_str().expect("an id");
    let blocks = damaged.directory.path().join("blocks");
    let damage = |at: usize| {
        for file in std::fs::read_dir(&blocks).expect("a directory") {
            let file = file.expect("its name").path();
            let mut bytes = std::fs::read(&file).expect("its bytes");
            bytes[at] ^= 1;
            std::fs::write(file, bytes).expect("written");
        }
    };
    // In the first block and in the last, which is found when a part is sent already.
    for at in [100, 300 * 300 * 8 - 1] {
        damage(at);
        let file = damaged
            .text(&format!("/api/matrices/{id}?format=csv"))
            .await;
        assert!(file == csv, "damaged at {at}");
    }
    // As an operand, too.
    damage(100);
    let eye: Vec<Vec<u8>> = (0..300)
        .map(|i| (0..300).map(|j| u8::from(i == j)).collect())
        .collect();
    let job = damaged.submit(json!({"a": id, "b": eye})).await;
    let status = damaged.get(&format!("/api/jobs/{job}?wait=30"), 200).await;
    assert_eq!(status["state"], "done", "{status}");
    whole.stop().await;
    let result = damaged
        .text(&format!("/api/jobs/{job}/result?format=csv"))
        .await;
    assert!(result == csv);
    let result = &status["result"];
    let id = result.as_str().expect("an id");
    // Nobody has it any more.
    damage(100);
    let answer = damaged
        .request("GET", &format!("/api/matrices/{id}?format=csv"), None)
        .await;
    assert!(answer.text().await.map_or(true, |text| text != csv));
    let answer = damaged
        .request("GET", &format!("/api/matrices/{id}?format=csv"), None)
        .await;
    refused(answer, 503, "corrupt_matrix").await;
    damaged.stop().await;
}

#[tokio::test]
async fn a_job_and_its_result_are_found_when_its_coordinator_is_gone() {
    let (taker, backup) = pair().await;
    let job = taker.submit(json!({"a": [[2]], "b": [[3]]})).await;
    let path = format!("/api/jobs/{job}");
    taker
        .until(&path, |job| {
            job["state"] == "done" && job["safe_copies"] == 1
        })
        .await;
    taker.stop().await;
    // Comes later: it never heard of the job.
    let stranger = Node::start_with("stranger", |config| config.peers.push(backup.host())).await;
    stranger
        .until("/api/nodes", |nodes| {
            let nodes = nodes.as_array().expect("a list");
            nodes.iter().any(|node| node["name"] == "whole")
        })
        .await;
    for node in [&backup, &stranger] {
        let status = node.get(&path, 200).await;
        assert_eq!(
            (&status["state"], &status["job"]),
            (&json!("done"), &json!(job))
        );
        let result = node.get(&format!("{path}/result"), 200).await;
        assert_eq!(result["data"], json!([[6]]));
    }
    let unknown = stranger
        .request("GET", &format!("/api/jobs/{UNKNOWN_JOB}"), None)
        .await;
    refused(unknown, 404, "unknown_job").await;
    stranger.stop().await;
    backup.stop().await;
}

/// Two nodes that know each other; the second is called `whole`.
async fn pair() -> (Node, Node) {
    let first = Node::start("first").await;
    let whole = Node::start_with("whole", |config| config.peers.push(first.host())).await;
    first
        .until("/api/nodes", |nodes| {
            nodes.as_array().is_some_and(|nodes| nodes.len() == 2)
        })
        .await;
    (first, whole)
}
