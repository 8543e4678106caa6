//! Bad input over HTTP gets a clear error, and nothing else is disturbed.
#![cfg(target_os = "linux")]

use std::io::Write as _;

use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, Node, Options, Reply, fresh_mesh};
use gemmesh_tests::raw;
use serde_json::{Value, json};

/// What no matrix file is refused for: name, body, and words that the message must have.
fn bad_files() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let good = Matrix::random(30, 40, 1).npy();
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("an empty body", Vec::new(), &[]),
        ("ragged CSV", text("1,2,3\n4,5\n6,7,8\n"), &["2"]),
        ("words in CSV", text("1,2\n3,kitchen\n"), &["kitchen"]),
        ("CSV with an empty cell", text("1,2\n3,\n"), &["2"]),
        ("only blank lines", text("\n\n\n"), &[]),
        ("a truncated .npy", good[..good.len() - 5].to_vec(), &[]),
        ("a .npy cut within its header", good[..20].to_vec(), &[]),
        (
            "a .npy longer than it says",
            [&good[..], b"more"].concat(),
            &[],
        ),
        (
            "a pickled .npy",
            npy("'|O'", "(2, 2)", &[0x80; 40]),
            &["object"],
        ),
        (
            "a .npy of complex numbers",
            npy("'<c16'", "(1, 1)", &[0; 16]),
            &["complex"],
        ),
        (
            "a .npy of four dimensions",
            npy("'<f8'", "(1, 1, 1, 1)", &[0; 8]),
            &["4"],
        ),
        ("an empty .npy", npy("'<f8'", "(0, 3)", &[]), &["0"]),
        (
            "a .npy that claims to be huge",
            npy("'<f8'", "(4000000000, 4000000000)", &[0; 8]),
            &[],
        ),
        (
            "a .npy whose size overflows",
            npy("'<f8'", "(18446744073709551615, 2)", &[0; 8]),
            &[],
        ),
        (
            "a .mtx with a word",
            text("%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 x\n"),
            &["3"],
        ),
        (
            "a .mtx with an index outside",
            text("%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 5\n"),
            &["3"],
        ),
        (
            "a .mtx with fewer entries than it says",
            text("%%MatrixMarket matrix coordinate real general\n2 2 4\n1 1 5\n"),
            &["4"],
        ),
        (
            "a .mtx of a kind that is not known",
            text("%%MatrixMarket tensor coordinate real general\n2 2 1\n1 1 1\n"),
            &[],
        ),
        (
            "a .mtx that claims to be huge",
            text("%%MatrixMarket matrix coordinate real general\n9999999999 9999999999 1\n1 1 1\n"),
            &[],
        ),
        ("random bytes", (0..=255).rev().collect(), &[]),
    ]
}

/// Submissions that are refused: name, body, status, words that the message must have.
fn bad_submissions() -> Vec<(&'static str, Value, &'static [u16], &'static [&'static str])> {
    let unknown = "0".repeat(64);
    vec![
        ("no factors", json!({}), &[400, 422], &["a"]),
        ("one factor", json!({"a": [[1]]}), &[400, 422], &["b"]),
        (
            "dimensions that do not match",
            json!({"a": [[1, 2, 3]], "b": [[1], [2]]}),
            &[422],
            &["3", "2"],
        ),
        (
            "an unknown matrix",
            json!({"a": unknown, "b": unknown}),
            &[404],
            &["matrix"],
        ),
        (
            "an id that is none",
            json!({"a": "kitchen", "b": [[1]]}),
            &[422],
            &["kitchen"],
        ),
        (
            "an empty matrix",
            json!({"a": [], "b": [[1]]}),
            &[422],
            &["a"],
        ),
        (
            "an empty row",
            json!({"a": [[]], "b": [[1]]}),
            &[422],
            &["a"],
        ),
        (
            "ragged rows",
            json!({"a": [[1, 2], [3]], "b": [[1], [2]]}),
            &[422],
            &["a"],
        ),
        (
            "words",
            json!({"a": [["kitchen"]], "b": [[1]]}),
            &[422],
            &["kitchen"],
        ),
        ("true", json!({"a": [[true]], "b": [[1]]}), &[422], &["a"]),
        (
            "a number for a matrix",
            json!({"a": 5, "b": [[1]]}),
            &[400, 422],
            &["a"],
        ),
        (
            "fractions for int",
            json!({"a": [[1.5]], "b": [[1]], "dtype": "int"}),
            &[422],
            &["1.5"],
        ),
        (
            "NaN for int",
            json!({"a": [["NaN"]], "b": [[1]], "dtype": "int"}),
            &[422],
            &["NaN"],
        ),
        (
            "an unknown type",
            json!({"a": [[1]], "b": [[1]], "dtype": "f16"}),
            &[422],
            &["f16"],
        ),
        (
            "a later mode",
            json!({"a": [[1]], "b": [[1]], "mode": "masked"}),
            &[422],
            &["masked"],
        ),
        (
            "a batch beside a product",
            json!({"a": [[1]], "b": [[1]], "batch": [{"a": [[1]], "b": [[1]]}]}),
            &[422],
            &["batch"],
        ),
        (
            "a product of a batch that is none",
            json!({"batch": [{"a": [[1]], "b": [[1]]}, {"a": 5, "b": [[1]]}]}),
            &[422],
            &["batch[1]"],
        ),
        (
            "an unknown field",
            json!({"a": [[1]], "b": [[1]], "kitchen": 1}),
            &[422],
            &["kitchen"],
        ),
        (
            "a name that is no text",
            json!({"a": [[1]], "b": [[1]], "name": 5}),
            &[400, 422],
            &["name"],
        ),
        ("no object", json!([1, 2]), &[400], &["object"]),
    ]
}

#[test]
fn bad_input_is_refused_with_a_code_a_message_and_a_hint() {
    let node = small_node("strict");
    let api = &node.api;
    for (what, body, words) in bad_files() {
        assert_refused(what, &api.put_matrix(&body), &[400, 413, 422], words);
    }
    for (what, body, statuses, words) in bad_submissions() {
        assert_refused(what, &api.post("/api/jobs", &body), statuses, words);
    }
    for (what, body) in [
        ("malformed JSON", b"{\"a\": [[1]".to_vec()),
        ("no JSON", b"\xff\xfe".to_vec()),
        (
            "deep nesting",
            [vec![b'['; 100_000], vec![b']'; 100_000]].concat(),
        ),
        (
            "NaN, which JSON has not",
            b"{\"a\": [[NaN]], \"b\": [[1]]}".to_vec(),
        ),
    ] {
        let reply = api.request(
            "POST",
            "/api/jobs",
            &[("content-type", "application/json")],
            body,
        );
        assert_refused(what, &reply.expect("an answer"), &[400, 422], &[]);
    }
    let long = json!({"a": [vec![1; 1 << 20]], "b": [[1]]});
    assert_refused(
        "JSON above 1 MiB",
        &api.post("/api/jobs", &long),
        &[413],
        &[],
    );

    let job = "0".repeat(32);
    let matrix = "0".repeat(64);
    for (path, status) in [
        (format!("/api/jobs/{job}"), 404),
        (format!("/api/jobs/{job}/result?format=csv"), 404),
        (format!("/api/matrices/{matrix}?format=csv"), 404),
        ("/api/jobs/kitchen".to_owned(), 404),
        ("/api/matrices/kitchen".to_owned(), 404),
        ("/api/kitchen".to_owned(), 404),
        ("/kitchen".to_owned(), 404),
        ("/..%2f..%2fetc/passwd".to_owned(), 404),
    ] {
        let statuses: &[u16] = if path.contains("kitchen") {
            &[400, 404, 422]
        } else {
            &[status]
        };
        assert_refused(&path, &api.get(&path), statuses, &[]);
    }
    assert_refused(
        "cancelling what is not there",
        &api.delete(&format!("/api/jobs/{job}")),
        &[404],
        &[],
    );
    let done = api.submit(&json!({"a": [[1]], "b": [[1]]}));
    api.done(&done);
    let path = format!("/api/jobs/{done}/result?format=docx");
    assert_refused("an unknown format", &api.get(&path), &[400, 422], &["docx"]);
    assert_refused("PATCH", &request(api, "PATCH", "/api/jobs"), &[405], &[]);

    // All of that left nothing behind.
    let jobs = api.get("/api/jobs").expect(200).json();
    assert_eq!(jobs.as_array().map(Vec::len), Some(1), "{jobs:#}");
    assert_still_works(api);
}

#[test]
fn a_body_above_the_budget_is_refused_and_takes_no_room() {
    let node = small_node("small");
    let big = vec![b'1'; 48 << 20];
    let reply = node
        .api
        .request("PUT", "/api/matrices", &[("content-type", "text/csv")], big);
    // A node may hang up on somebody who goes on sending; who waits for an answer gets one.
    if let Ok(reply) = reply {
        assert_refused("a large body", &reply, &[413], &[]);
    }
    // Whoever does not say how long it will be is stopped at the budget too.
    let mut stream = raw::connect(&node.api.address);
    let head = format!(
        "PUT /api/matrices HTTP/1.1\r\nHost: {}\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n",
        node.api.address
    );
    stream
        .write_all(head.as_bytes())
        .expect("an open connection");
    let chunk = [b"10000\r\n".to_vec(), vec![b'1'; 0x10000], b"\r\n".to_vec()].concat();
    let stopped = (0..4_096).any(|_| stream.write_all(&chunk).is_err());
    assert!(
        stopped || raw::hangs_up(&mut stream),
        "256 MiB do not go into 32 MiB"
    );
    assert_still_works(&node.api);
    let left = walk(node.data_dir());
    assert!(
        left < 16 << 20,
        "{left} bytes are left in the data directory"
    );
}

#[test]
fn unusual_input_that_is_fine_is_computed() {
    let node = Options::loopback("lenient", &fresh_mesh())
        .arg("--no-mdns")
        .start();
    let api = &node.api;
    for (a, b, c) in [
        ("7\n", "6\n", "42\n"),
        ("1 2\n3 4\n", "1,0\n0,1\n", "1,2\n3,4\n"),
        ("1;2\r\n3;4\r\n", "1\t0\n0\t1\n", "1,2\n3,4\n"),
        ("\u{feff}1,2", "3\n4", "11\n"),
        ("1e3,-2.5E-1\n", "1\n4\n", "999\n"),
    ] {
        let job = api.multiply(&api.matrix(a.as_bytes()), &api.matrix(b.as_bytes()));
        api.done(&job);
        let csv = String::from_utf8(api.result(&job, "csv")).expect("text");
        assert_eq!(csv, c, "{a:?} times {b:?}");
    }
    // Long and thin, both ways.
    for (rows, inner, cols) in [
        (1, 50_000, 1),
        (20_000, 1, 2),
        (1, 1, 30_000),
        (3, 40_000, 2),
    ] {
        let (a, b) = (
            Matrix::random(rows, inner, 8),
            Matrix::random(inner, cols, 9),
        );
        let job = api.multiply(&api.matrix(&a.npy()), &api.matrix(&b.npy()));
        api.done(&job);
        Matrix::from_npy(&api.result(&job, "npy")).assert_is_product(&a, &b);
    }
}

#[test]
fn not_a_number_and_infinities_are_carried_as_ieee_754_says() {
    let node = Options::loopback("ieee", &fresh_mesh())
        .arg("--no-mdns")
        .start();
    let api = &node.api;
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let a = Matrix::of(&[[1.0, nan], [inf, 1.0], [inf, 0.0], [1.0, 2.0]]);
    let b = Matrix::of(&[[1.0, -1.0], [2.0, -inf]]);
    // Element by element, by the definition.
    let wanted: Vec<f64> = (0..4)
        .flat_map(|i| (0..2).map(move |j| (i, j)))
        .map(|(i, j)| a.at(i, 0) * b.at(0, j) + a.at(i, 1) * b.at(1, j))
        .collect();
    let same = |got: &[f64]| {
        got.iter()
            .zip(&wanted)
            .all(|(x, y)| x == y || (x.is_nan() && y.is_nan()))
    };
    for reproducible in [false, true] {
        let request = json!({
            "a": api.matrix(&a.npy()), "b": api.matrix(&b.npy()), "reproducible": reproducible,
        });
        let job = api.submit(&request);
        api.done(&job);
        let c = Matrix::from_npy(&api.result(&job, "npy"));
        assert!(same(&c.data), "{c:?}, not {wanted:?}");
        let result: Value = serde_json::from_slice(&api.result(&job, "json")).expect("JSON");
        let text = result["data"][0][0].as_str().expect("NaN is text in JSON");
        assert!(text.eq_ignore_ascii_case("nan"), "{text}");
    }
    let csv = api.matrix(b"nan,inf\n-inf,1\n");
    let job = api.multiply(&csv, &api.matrix(b"1,0\n0,1\n"));
    api.done(&job);
    let text = String::from_utf8(api.result(&job, "csv"))
        .expect("text")
        .to_lowercase();
    assert_eq!(text.matches("nan").count(), 3, "{text}");
    // For integers there is no such thing.
    let request = json!({"a": csv, "b": [[1], [1]], "dtype": "int"});
    assert_refused("NaN as int", &api.post("/api/jobs", &request), &[422], &[]);
}

/// A node with little room.
fn small_node(name: &str) -> Node {
    let options = Options::loopback(name, &fresh_mesh()).arg("--no-mdns");
    options.arg("--disk=32M").arg("--memory=256M").start()
}

fn request(api: &Api, method: &str, path: &str) -> Reply {
    api.request(method, path, &[], Vec::new())
        .expect("an answer")
}

/// An .npy file of version 1.0 with this header.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    let len = u16::try_from(header.len())
        .expect("a short header")
        .to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), data].concat()
}

#[track_caller]
fn assert_refused(what: &str, reply: &Reply, statuses: &[u16], words: &[&str]) {
    assert!(
        statuses.contains(&reply.status),
        "{what}: not {statuses:?}: {}",
        reply.text()
    );
    let error = &reply.json()["error"];
    for part in ["code", "message", "hint"] {
        let text = error[part].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{what}: no {part}: {error}");
        assert!(
            !text.contains("/tmp/"),
            "{what}: a path of this machine: {text}"
        );
    }
    let message = error["message"].as_str().unwrap_or_default();
    for word in words {
        assert!(message.contains(word), "{what}: no {word:?} in {message:?}");
    }
}

#[track_caller]
fn assert_still_works(api: &Api) {
    assert_eq!(api.get("/healthz").status, 200);
    let job = api.submit(&json!({"a": [[1, 2], [3, 4]], "b": [[5], [6]]}));
    api.done(&job);
    assert_eq!(api.result(&job, "csv"), b"17\n39\n");
}

/// Bytes of the files below a directory.
fn walk(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => walk(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
