//! The calls that the page draws from, without a browser: what they answer, and what they refuse.
#![cfg(target_os = "linux")]

use gemmesh_tests::integers::Integers;
use gemmesh_tests::node::{Options, fresh_mesh};
use serde_json::json;

#[test]
fn windows_of_a_matrix_are_exact_where_there_is_a_cell_for_each_element() {
    let node = Options::loopback("home", &fresh_mesh()).start();
    let values = json!([[1, "NaN", 3.5], [-4, 5, "12345678901234567890"]]);
    let one = json!([[1, 0, 0], [0, 1, 0], [0, 0, 1]]);
    let job = node
        .api
        .submit(&json!({"a": values, "b": one, "dtype": "f64"}));
    let id = node.api.done(&job)["result"]
        .as_str()
        .expect("an id")
        .to_owned();
    let picture = |query: &str| {
        let answer = node.api.get(&format!("/api/matrices/{id}/picture{query}"));
        answer.expect(200).json().clone()
    };
    let window = picture("?row=1&col=0&rows=1&cols=2");
    assert_eq!(window["cells"], json!([[-4, 5]]));
    assert_eq!((&window["min"], &window["max"]), (&json!(-4), &json!(5)));
    // NaN spreads through its row of the product.
    assert_eq!(picture("")["nan"], json!(3));
    assert_eq!(picture("?height=1&width=1")["cells"], json!([["NaN"]]));
    for bad in [
        "?rows=0",
        "?row=2",
        "?col=1&cols=3",
        "?row=18446744073709551615&rows=2",
        "?rows=x",
        "?height=-1",
    ] {
        let refused = node.api.get(&format!("/api/matrices/{id}/picture{bad}"));
        let refused = refused.expect(422).json();
        assert_eq!(refused["error"]["code"], json!("bad_window"), "{bad}");
    }
    let unknown = format!("/api/matrices/{}/picture", "0".repeat(64));
    node.api.get(&unknown).expect(404);
}

#[test]
fn tiles_are_told_from_where_one_stopped_and_of_no_batch() {
    let node = Options::loopback("home", &fresh_mesh()).start();
    let factor = Integers::random(700, 700, 5);
    let id = node.api.matrix(&factor.npy());
    let job = node.api.submit(&json!({"a": id, "b": id}));
    let status = node.api.done(&job);
    let tiles = |query: &str| {
        let answer = node.api.get(&format!("/api/jobs/{job}/tiles{query}"));
        answer.expect(200).json().clone()
    };
    let all = tiles("");
    let list = all["tiles"].as_array().expect("a list");
    assert_eq!(Some(list.len() as u64), status["tiles_total"].as_u64());
    let kernel: u64 = list.iter().filter_map(|tile| tile[3].as_u64()).sum();
    let told = status["contributions"][0]["compute_ms"].as_f64();
    assert_eq!(Some(kernel as f64 / 1e3), told, "what the status adds up");
    let none = tiles(&format!("?after={}", all["next"]));
    assert_eq!(none["tiles"], json!([]));
    assert_eq!(none["next"], all["next"]);
    let bad = node.api.get(&format!("/api/jobs/{job}/tiles?after=x"));
    assert_eq!(bad.expect(422).json()["error"]["code"], json!("bad_after"));
    let batch = node
        .api
        .submit(&json!({"batch": [{"a": id, "b": id}, {"a": id, "b": id}]}));
    node.api.done(&batch);
    node.api
        .get(&format!("/api/jobs/{batch}/tiles"))
        .expect(404);
    node.api
        .get(&format!("/api/jobs/{}/tiles", "0".repeat(32)))
        .expect(404);
}
