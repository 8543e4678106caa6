//! The calls and commands word by word: every field with its type and unit, every way in for exact
//! integers, what expires, what is refused, what scripts read.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::raw;
use gemmesh_tests::wait::until;
use num_bigint::BigInt;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Things expire within this; they are looked for every quarter of a second.
const EXPIRY_LIMIT: Duration = Duration::from_secs(60);
/// An integer that f64 does not hold, and its square.
const LONG: &str = "123456789012345678901234567890";
const LONG_SQUARED: &str = "15241578753238836750495351562536198787501905199875019052100";

const JOB_FIELDS: &str = "job name state rows inner cols dtype mode tiles_total tiles_done tiles_safe \
    tiles_recomputed coordinator epoch safe_copies submitted seconds predicted_seconds bytes_sent \
    bytes_floor bytes_replicated result error contributions backups timeline plan";
const CONTRIBUTION_FIELDS: &str =
    "device name kind slots tiles rows operations compute_ms transfer_ms mflops user_agent";
const MOMENT_FIELDS: &str = "at event device name tile epoch";
const DEVICE_FIELDS: &str = "device name kind address slots mflops state since";

#[test]
fn answers_have_the_fields_of_the_contract_and_no_others() {
    let node = alone("words", &[]);
    let api = &node.api;
    let (a, b) = (Matrix::random(700, 600, 1), Matrix::random(600, 650, 2));
    let stored = api.put_matrix(&a.npy()).expect(201).json();
    assert_fields(&stored, "id rows cols dtype bytes");
    assert_eq!(
        stored,
        json!({"id": stored["id"], "rows": 700, "cols": 600, "dtype": "f64", "bytes": 3_360_000})
    );
    // The id is the content's: the same matrix in another form has the same.
    let turned = api.get(&format!("/api/matrices/{}?format=csv", text(&stored["id"])));
    let again = api.put_matrix(&turned.expect(200).body).expect(201).json();
    assert_eq!(again, stored);

    let request = json!({"a": stored["id"], "b": api.matrix(&b.npy()), "name": "words"});
    let accepted = api.post("/api/jobs", &request).expect(202).json();
    assert_fields(&accepted, "job token");
    let job = text(&accepted["job"]);
    let status = api.done(job);
    assert_fields(&status, JOB_FIELDS);
    for (field, expected) in [
        ("job", json!(job)),
        ("name", json!("words")),
        ("state", json!("done")),
        ("rows", json!(700)),
        ("inner", json!(600)),
        ("cols", json!(650)),
        ("dtype", json!("f64")),
        ("mode", json!("plain")),
        ("coordinator", json!(node.device())),
        ("epoch", json!(1)),
        ("safe_copies", json!(0)),
        ("tiles_done", status["tiles_total"].clone()),
        ("bytes_replicated", json!(0)),
        ("error", json!(null)),
        ("backups", json!([])),
    ] {
        assert_eq!(status[field], expected, "{field}");
    }
    for field in "tiles_total tiles_safe tiles_recomputed bytes_sent bytes_floor".split(' ') {
        assert!(status[field].is_u64(), "{field}: {}", status[field]);
    }
    assert_time(&status["submitted"]);
    let seconds = status["seconds"].as_f64().expect("a number of seconds");
    assert!(seconds > 0.0 && status["predicted_seconds"].as_f64() > Some(0.0));
    assert_eq!(status["result"].as_str().map(str::len), Some(64));
    // The clock of a job stops with it.
    assert_eq!(api.job(job)["seconds"], status["seconds"]);
    assert_eq!(api.get("/api/jobs").expect(200).json(), json!([status]));

    let parts = status["contributions"].as_array().expect("a list");
    assert_eq!(parts.len(), 1, "{parts:?}");
    let part = &parts[0];
    assert_fields(part, CONTRIBUTION_FIELDS);
    for (field, expected) in [
        ("device", status["coordinator"].clone()),
        ("name", json!("words")),
        ("kind", json!("native")),
        ("slots", json!(1)),
        ("tiles", status["tiles_total"].clone()),
        ("rows", json!(700)),
        ("operations", json!(2 * 700 * 600 * 650)),
    ] {
        assert_eq!(part[field], expected, "{field}");
    }
    let number = |field: &str| part[field].as_f64().expect("a number");
    let agent = text(&part["user_agent"]);
    assert!(agent.starts_with("gemmesh/"), "{agent}");
    assert!(number("transfer_ms") >= 0.0);
    // At least one kernel runs for no longer than all kernels together.
    let slowest = number("operations") / (number("compute_ms") / 1e3) / 1e6;
    assert!(number("mflops") >= 0.999 * slowest, "{part:#}");
    assert!(number("compute_ms") / 1e3 <= seconds, "{status:#}");

    let moments = status["timeline"].as_array().expect("a list");
    for (moment, event) in moments.iter().zip(["taken", "ended"]) {
        assert_fields(moment, MOMENT_FIELDS);
        for (field, expected) in [
            ("event", json!(event)),
            ("device", status["coordinator"].clone()),
            ("name", json!("words")),
            ("tile", json!(null)),
            ("epoch", json!(1)),
        ] {
            assert_eq!(moment[field], expected, "{field} of {event}");
        }
        let at = moment["at"].as_f64().expect("a number of seconds");
        assert!((0.0..=seconds).contains(&at), "{moment}");
    }
    assert_eq!(moments.len(), 2, "{moments:?}");

    let devices = api.devices();
    assert_fields(&devices[0], DEVICE_FIELDS);
    assert_eq!(devices[0]["address"], json!(api.address));
    assert_eq!(devices[0]["slots"], json!(1));
    assert!(devices[0]["mflops"].as_f64() > Some(0.0));
    assert_time(&devices[0]["since"]);

    let json: Value = serde_json::from_slice(&api.result(job, "json")).expect("JSON");
    assert_fields(&json, "rows cols dtype data");
    assert_eq!(
        (&json["rows"], &json["cols"], &json["dtype"]),
        (&json!(700), &json!(650), &json!("f64"))
    );
    assert_eq!(api.get(&format!("/api/jobs/{job}/result")).json(), json);
}

#[test]
fn the_element_type_follows_from_the_operands() {
    let node = alone("types", &[]);
    let api = &node.api;
    let csv = api.matrix(b"1,2\n3,4\n");
    let int = api.matrix(b"%%MatrixMarket matrix array integer general\n2 2\n1\n3\n2\n4\n");
    let single = api.request(
        "PUT",
        "/api/matrices?dtype=f32",
        &[],
        b"1,2\n3,4\n".to_vec(),
    );
    let single = single.expect("an answer").expect(201).json();
    assert_eq!(single["dtype"], "f32");
    let single = text(&single["id"]);
    for (a, b, dtype, expected) in [
        (csv.as_str(), csv.as_str(), None, "f64"),
        (&int, &int, None, "int"),
        (single, single, None, "f32"),
        (&int, single, None, "f64"),
        (single, &csv, None, "f64"),
        (&csv, &int, None, "f64"),
        (&csv, &csv, Some("int"), "int"),
        (&int, &int, Some("f32"), "f32"),
        (single, &int, Some("int"), "int"),
    ] {
        let job = api.submit(&json!({"a": a, "b": b, "dtype": dtype}));
        let status = api.done(&job);
        assert_eq!(status["dtype"], expected, "{a} {b} {dtype:?}");
        assert_eq!(api.result(&job, "csv"), b"7,10\n15,22\n");
    }
    // Nested arrays are f64 like CSV. Even this takes some time.
    let job = api.submit(&json!({"a": [[1, 2]], "b": [[3], [4]]}));
    let status = api.done(&job);
    assert_eq!(status["dtype"], "f64");
    let part = &status["contributions"][0];
    assert!(
        part["compute_ms"].as_f64() > Some(0.0) && part["mflops"].as_f64() > Some(0.0),
        "{part}"
    );
}

#[test]
fn integers_of_any_length_are_exact_by_every_way_in() {
    let node = alone("exact", &[]);
    let api = &node.api;
    let mtx = format!("%%MatrixMarket matrix array integer general\n1 1\n{LONG}\n");
    for body in [
        format!("{LONG}\n"),
        format!("\"{LONG}\""),
        mtx,
        format!("[[{LONG}]]"),
        format!("[[\"{LONG}\"]]"),
    ] {
        // Nothing is said about its type before the job says it.
        let id = api.matrix(body.as_bytes());
        assert_squared(api, &json!({"a": id, "b": id, "dtype": "int"}));
    }
    let text = format!("{{\"a\": [[{LONG}]], \"b\": [[\"{LONG}\"]], \"dtype\": \"int\"}}");
    let reply = api.request("POST", "/api/jobs", &[], text.into_bytes());
    let accepted = reply.expect("an answer").expect(202).json();
    let job = text_of(&accepted["job"]);
    api.done(&job);
    let json: Value = serde_json::from_slice(&api.result(&job, "json")).expect("JSON");
    assert_eq!(
        json["data"],
        json!([[LONG_SQUARED]]),
        "a string beyond 2^53"
    );
    let error = api
        .get(&format!("/api/jobs/{job}/result?format=npy"))
        .expect(422)
        .json()["error"]
        .to_string();
    assert!(error.contains("csv") && error.contains("mtx"), "{error}");

    // Integral floats are integers, others are refused by name.
    let floats = api.matrix(b"1e3,-2.0\n0.25e2,-0.0\n");
    let job = api.submit(&json!({"a": floats, "b": [[1], [1]], "dtype": "int"}));
    api.done(&job);
    assert_eq!(api.result(&job, "csv"), b"998\n25\n");
    for (text, word) in [("1.5\n", "1.5"), ("inf\n", "inf"), ("nan\n", "nan")] {
        let id = api.matrix(text.as_bytes());
        let reply = api.post("/api/jobs", &json!({"a": id, "b": [[1]], "dtype": "int"}));
        let message = reply.expect(422).json()["error"]["message"].to_string();
        assert!(message.to_lowercase().contains(word), "{message}");
    }
    // The shortest digits that read back the same, signs of zero included.
    let job = api.submit(&json!({"a": [[0.1, 0.2]], "b": [[1], [1]]}));
    api.done(&job);
    assert_eq!(api.result(&job, "csv"), b"0.30000000000000004\n");
    let zeros = api.matrix(b"-0,-0.0,0\n");
    let json = api.get(&format!("/api/matrices/{zeros}?format=json"));
    assert!(json.text().contains("[[-0.0,-0.0,0]]"), "{}", json.text());
}

#[track_caller]
fn assert_squared(api: &Api, request: &Value) {
    let job = api.submit(request);
    assert_eq!(api.done(&job)["dtype"], "int");
    let csv = String::from_utf8(api.result(&job, "csv")).expect("text");
    let exact: BigInt = csv.trim().parse().expect("an integer");
    assert_eq!(exact.to_string(), LONG_SQUARED, "{request}");
}

#[test]
fn matrix_market_files_of_every_kind_are_read() {
    let node = alone("market", &[]);
    let api = &node.api;
    let head = "%%MatrixMarket matrix";
    for (body, dtype, csv) in [
        (
            "coordinate pattern general\n% c\n\n2 2 2\n1 2\n2 1\n",
            "int",
            "0,1\n1,0\n",
        ),
        (
            "coordinate pattern symmetric\n2 2 1\n2 1\n",
            "int",
            "0,1\n1,0\n",
        ),
        (
            "coordinate integer symmetric\n2 2 2\n1 1 3\n2 1 -4\n",
            "int",
            "3,-4\n-4,0\n",
        ),
        (
            "coordinate real skew-symmetric\n2 2 1\n2 1 0.5\n",
            "f64",
            "0,-0.5\n0.5,0\n",
        ),
        ("array integer general\n2 1\n1\n2\n", "int", "1\n2\n"),
        ("array real symmetric\n2 2\n1\n2\n3\n", "f64", "1,2\n2,3\n"),
        (
            "array real skew-symmetric\n2 2\n1.5\n",
            "f64",
            "0,-1.5\n1.5,0\n",
        ),
        (
            "coordinate real general\r\n1 1 1\r\n1 1 1e3\r\n",
            "f64",
            "1000\n",
        ),
    ] {
        let stored = api.put_matrix(format!("{head} {body}").as_bytes());
        let stored = stored.expect(201).json();
        assert_eq!(stored["dtype"], dtype, "{body}");
        let path = format!("/api/matrices/{}?format=csv", text(&stored["id"]));
        assert_eq!(api.get(&path).text(), format!("200: {csv}"), "{body}");
    }
    for body in [
        "coordinate complex hermitian\n1 1 1\n1 1 1 0\n",
        "array complex general\n1 1\n1 0\n",
        "coordinate real general\n2 2 1\n0 1 5\n",
        "coordinate real general\n2 2 2\n1 1 5\n1 1 6\n",
        "coordinate real symmetric\n2 2 1\n1 2 5\n",
        "coordinate real symmetric\n2 3 1\n1 1 5\n",
        "array real general\n2 2\n1\n2\n3\n",
        "array pattern general\n1 1\n1\n",
    ] {
        let reply = api.put_matrix(format!("{head} {body}").as_bytes());
        assert_error(&reply.expect(422).json(), body);
    }
}

#[test]
fn what_a_path_does_not_offer_is_answered_in_the_form_of_errors() {
    let node = alone("paths", &[]);
    let api = &node.api;
    let job = api.submit(&json!({"a": [[1]], "b": [[1]]}));
    api.done(&job);
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
    for (path, allowed) in [
        ("/api/matrices".to_owned(), &["PUT"][..]),
        ("/api/jobs".to_owned(), &["GET", "POST"]),
        (format!("/api/jobs/{job}"), &["GET", "DELETE"]),
        (format!("/api/jobs/{job}/result"), &["GET"]),
        ("/api/nodes".to_owned(), &["GET"]),
        ("/nodes/register".to_owned(), &["POST"]),
        ("/healthz".to_owned(), &["GET"]),
        ("/readyz".to_owned(), &["GET"]),
        ("/metrics".to_owned(), &["GET"]),
        ("/ws".to_owned(), &["GET"]),
        ("/mesh".to_owned(), &["GET"]),
        ("/".to_owned(), &["GET"]),
    ] {
        for method in methods.iter().filter(|method| !allowed.contains(method)) {
            let (status, answer) =
                raw::request(&api.address, method, &path, &[("Host", &api.address)]);
            assert_eq!(status, 405, "{method} {path}: {answer}");
            let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
            let allow = head.lines().find_map(|line| line.strip_prefix("allow: "));
            let allow = allow.unwrap_or_else(|| panic!("{method} {path} has no Allow: {head}"));
            assert!(
                allowed.iter().all(|method| allow.contains(method)),
                "{allow}"
            );
            assert!(!allow.contains(method), "{allow}");
            assert_error(&serde_json::from_str(body).expect("JSON"), &path);
        }
    }
    for path in [
        "/api",
        "/api/",
        "/api/job",
        "/api/nodes/x",
        "/nodes",
        "/api/jobs/x/y/z",
        "/healthz/x",
    ] {
        assert_error(&api.get(path).expect(404).json(), path);
    }
    // HEAD is GET without its body, errors included.
    let result = format!("/api/jobs/{job}/result?format=csv");
    for (path, expected) in [
        ("/api/jobs", 200),
        (result.as_str(), 200),
        ("/healthz", 200),
        ("/", 200),
        ("/api/jobs/x", 404),
    ] {
        let (status, answer) = raw::request(&api.address, "HEAD", path, &[("Host", &api.address)]);
        assert_eq!(status, expected, "{path}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[test]
fn bodies_come_in_every_form_that_http_has() {
    let node = alone("bodies", &["--disk=32M"]);
    let address = &node.api.address;
    let head = format!("PUT /api/matrices HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    // In chunks, with a type that says nothing.
    let request = format!(
        "{head}Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\n1,\r\n4\r\n2\n3,\r\n2\r\n4\n\r\n0\r\n\r\n"
    );
    let (status, answer) = raw::exchange(address, request.as_bytes());
    assert_eq!(status, 201, "{answer}");
    assert!(answer.contains("\"rows\":2"), "{answer}");
    // The sender asks first.
    let mut stream = raw::connect(address);
    let ask = format!("{head}Content-Length: 8\r\nExpect: 100-continue\r\n\r\n");
    stream.write_all(ask.as_bytes()).expect("connected");
    let mut answers = BufReader::new(stream.try_clone().expect("a socket"));
    let mut line = String::new();
    answers.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 100"), "{line}");
    stream.write_all(b"1,2\n3,4\n").expect("connected");
    let mut rest = String::new();
    answers.read_to_string(&mut rest).expect("an answer");
    assert!(rest.contains("HTTP/1.1 201"), "{rest}");
    // A file that is wrapped in something is no file.
    for wrapped in [
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Encoding: gzip",
    ] {
        let request = format!("{head}{wrapped}\r\nContent-Length: 4\r\n\r\n1,2\n");
        let (status, answer) = raw::exchange(address, request.as_bytes());
        assert_eq!(status, 422, "{answer}");
        assert!(answer.contains("curl -T"), "{answer}");
    }
    // Who looks for the answer only after everything is sent gets it, too.
    let long = vec![b'1'; 40 << 20];
    for (method, path, expected) in [
        ("PUT", "/api/matrices", 413),
        ("POST", "/api/matrices", 405),
        ("POST", "/api/jobs", 413),
        ("PUT", "/api/nothing", 404),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            long.len()
        );
        let mut stream = raw::connect(address);
        stream.write_all(request.as_bytes()).expect("connected");
        stream.write_all(&long).expect("all of it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1);
        assert_eq!(
            status,
            Some(expected.to_string().as_str()),
            "{method} {path}: {answer}"
        );
    }
    // What is too long is refused before it is sent.
    let ask = format!("{head}Content-Length: 999999999999999\r\nExpect: 100-continue\r\n\r\n");
    let (status, answer) = raw::exchange(address, ask.as_bytes());
    assert_eq!(status, 413, "{answer}");
    assert!(answer.contains("body_too_large"), "{answer}");
}

#[test]
fn a_running_job_has_no_result_and_a_cancelled_one_never_gets_any() {
    let desk = Desk::new();
    let node = desk.node(&[]);
    let api = &node.api;
    let [a, b] = [3, 4].map(|seed| api.matrix(&Matrix::random(2_400, 2_400, seed).npy()));
    let job = api.submit(&json!({"a": a, "b": b, "reproducible": true}));
    let result = format!("/api/jobs/{job}/result");
    let error = api.get(&result).expect(409).json();
    assert_error(&error, "a running job");
    assert_eq!(error["error"]["code"], "job_running");
    let status = api.delete(&format!("/api/jobs/{job}")).expect(200).json();
    assert_eq!(status["state"], "cancelled");
    let error = api.get(&format!("{result}?wait=30&format=csv"));
    assert_eq!(error.expect(409).json()["error"]["code"], "job_cancelled");
    let error = desk.bad(&format!("result {job} -o c.npy"), 1);
    assert!(error.contains("cancelled"), "{error}");
    // The command waits for what is still running.
    let (a, b) = (Matrix::random(900, 800, 5), Matrix::random(800, 700, 6));
    desk.file("left.npy", &a.npy());
    desk.file("right.npy", &b.npy());
    let id = desk.good("multiply left.npy right.npy --reproducible --detach");
    desk.good(&format!("result {} -o c.npy", id.trim()));
    let c = fs::read(desk.dir.path().join("c.npy")).expect("the result");
    Matrix::from_npy(&c).assert_is_product(&a, &b);
    // Cancelling again changes nothing.
    let again = api.delete(&format!("/api/jobs/{job}")).expect(200).json();
    assert_eq!(again["state"], "cancelled");
    assert_eq!(api.get("/healthz").status, 200);
}

#[test]
fn what_has_expired_is_gone_at_every_node() {
    let mesh = fresh_mesh();
    let brief = Options::loopback("brief", &mesh)
        .arg("--result-ttl=1s")
        .start();
    let id = brief.api.matrix(b"1,2\n");
    let job = brief.api.submit(&json!({"a": [[1, 2]], "b": [[3], [4]]}));
    let paths = [
        format!("/api/jobs/{job}"),
        format!("/api/jobs/{job}/result?format=csv"),
        format!("/api/matrices/{id}?format=csv"),
    ];
    brief.api.done(&job);
    let gone = |api: &Api, path: &str| {
        until("it to expire", EXPIRY_LIMIT, || {
            // The job first: looking at a matrix keeps it.
            let reply = api.get(path);
            (reply.status == 410)
                .then_some(reply.clone())
                .ok_or(reply.text())
        })
    };
    for path in &paths[..2] {
        assert_error(&gone(&brief.api, path).json(), path);
    }
    let use_it = json!({"a": id, "b": [[1], [1]]});
    until("the matrix to expire", EXPIRY_LIMIT, || {
        let files = fs::read_dir(brief.data_dir().join("blocks")).expect("a directory");
        let left = files.count();
        (left == 0).then_some(()).ok_or(format!("{left} files"))
    });
    assert_error(&brief.api.get(&paths[2]).expect(410).json(), "a matrix");
    assert_error(
        &brief.api.post("/api/jobs", &use_it).expect(410).json(),
        "an operand",
    );
    // A node that comes later never knew them and asks the one that did.
    let late = Options::loopback("late", &mesh).start();
    await_mesh(&[&brief, &late], 0);
    for path in &paths {
        assert_error(&late.api.get(path).expect(410).json(), path);
    }
    assert_error(
        &late.api.post("/api/jobs", &use_it).expect(410).json(),
        "an operand",
    );
    let unknown = format!("/api/jobs/{}", "0".repeat(32));
    assert_error(&late.api.get(&unknown).expect(404).json(), &unknown);
}

#[test]
fn scripts_get_json_on_standard_output_and_nothing_else() {
    let desk = Desk::new();
    let node = desk.node(&[]);
    let id = desk.good("multiply a.csv b.csv --detach --json");
    let accepted: Value = serde_json::from_str(&id).expect("JSON");
    let job = text(&accepted["job"]);
    assert_eq!(
        accepted["node"],
        json!(format!("http://{}", node.api.address))
    );
    node.api.done(job);
    let read = |words: &str| -> Value {
        let text = desk.good(words);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words}: {error}: {text}"))
    };
    assert_fields(&read("jobs --json")[0], JOB_FIELDS);
    assert_fields(&read(&format!("job {job} --json")), JOB_FIELDS);
    assert_fields(&read("nodes --json")[0], DEVICE_FIELDS);
    let result = read(&format!("result {} --json", &job[..6]));
    assert_eq!(result["data"], json!([[58, 64], [139, 154]]));
    let file = read(&format!("result {job} -o c.mtx --json"));
    assert_eq!(file["output"]["file"], "c.mtx");
    assert_eq!(read(&format!("cancel {job} --json"))["state"], "done");
    let whole = read("multiply a.csv b.csv --json");
    assert_eq!(whole["output"]["data"], result["data"]);
    // Without --json there is a result on standard output and words for people beside it.
    let output = desk.run("multiply a.csv b.csv");
    assert_eq!(output.stdout, b"58,64\n139,154\n");
    assert!(!output.stderr.is_empty());
    // CSV is f64 at the command line, however long its digits are, unless --dtype says otherwise.
    desk.file("long.csv", LONG.as_bytes());
    let square = desk.good("multiply long.csv long.csv");
    let expected = LONG.parse::<f64>().expect("a number").powi(2);
    assert_eq!(square.trim().parse(), Ok(expected), "{square}");
    assert_eq!(
        desk.good("multiply long.csv long.csv --dtype int").trim(),
        LONG_SQUARED
    );
}

#[test]
fn what_is_not_there_yet_is_refused_in_plain_words() {
    let desk = Desk::new();
    let node = desk.node(&[]);
    for words in [
        "multiply a.csv b.csv --masks 1",
        "multiply a.csv b.csv --stragglers 1",
        "multiply a.csv b.csv --colluders 1",
        "multiply a.csv b.csv --batch list.txt",
        "job 00 --receipts",
        "serve --mesh-key key",
    ] {
        let error = desk.bad(words, 2);
        let option = words.split(' ').find(|word| word.starts_with("--"));
        assert!(
            error.contains(option.expect("an option")),
            "{words}: {error}"
        );
    }
    let one = json!([[1]]);
    for (field, value, code) in [
        ("colluders", json!(1), "wrong_mode"),
        ("stragglers", json!(1), "wrong_mode"),
        ("masks", json!(1), "not_offered"),
    ] {
        let mut request = json!({"a": one, "b": one});
        request[field] = value;
        let error = node.api.post("/api/jobs", &request).expect(422).json();
        assert_eq!(error["error"]["code"], code, "{request}");
        assert_error(&error, field);
    }
    // Alone there is nobody to keep anything from, and nobody to share it with.
    for (mode, needed) in [("private", "3 devices"), ("masked", "2 devices")] {
        let request = json!({"a": one, "b": one, "mode": mode});
        let error = node.api.post("/api/jobs", &request).expect(422).json();
        assert_eq!(error["error"]["code"], "too_few_devices", "{mode}");
        assert_error(&error, needed);
    }
    assert_eq!(node.api.get("/api/jobs").json(), json!([]));
}

/// A node that looks for nobody.
fn alone(name: &str, args: &[&str]) -> Node {
    let options = Options::loopback(name, &fresh_mesh()).arg("--no-mdns");
    args.iter()
        .fold(options, |options, arg| options.arg(*arg))
        .start()
}

/// A directory with two small files, and the program run in it.
struct Desk {
    dir: TempDir,
    mesh: String,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            dir: TempDir::with_prefix("gemmesh-desk-").expect("a temporary directory"),
            mesh: fresh_mesh(),
        };
        desk.file("a.csv", b"1,2,3\n4,5,6\n");
        desk.file("b.csv", b"7,8\n9,10\n11,12\n");
        desk
    }

    fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.dir.path().join(name), content).expect("a file");
    }

    fn node(&self, args: &[&str]) -> Node {
        let options = Options::loopback("desk", &self.mesh)
            .data_dir(&self.dir.path().join("data"))
            .arg("--no-mdns");
        args.iter()
            .fold(options, |options, arg| options.arg(*arg))
            .start()
    }

    #[track_caller]
    fn run(&self, words: &str) -> Output {
        let mut command = Command::new(gemmesh_tests::bin());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GEMMESH_") {
                command.env_remove(name);
            }
        }
        let command = command
            .args(words.split(' '))
            .current_dir(self.dir.path())
            .env("GEMMESH_BIND", "127.0.0.1")
            .env("GEMMESH_PORT", "0")
            .env("GEMMESH_MESH", &self.mesh)
            .env("GEMMESH_DATA_DIR", self.dir.path().join("data"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
            .output()
            .unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    /// What a command that must succeed prints.
    #[track_caller]
    fn good(&self, words: &str) -> String {
        let output = self.run(words);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What a command that must end with `code` says; it prints no result.
    #[track_caller]
    fn bad(&self, words: &str, code: i32) -> String {
        let output = self.run(words);
        let errors = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{words}: {errors}");
        assert!(output.stdout.is_empty(), "{words} printed something");
        errors
    }
}

#[track_caller]
fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

#[track_caller]
fn text_of(value: &Value) -> String {
    text(value).to_owned()
}

/// Checks the names of an object's fields.
#[track_caller]
fn assert_fields(value: &Value, expected: &str) {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("{value} is no object"));
    let names: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(names, expected.split_whitespace().collect(), "{value:#}");
}

/// Checks that this is RFC 3339 in UTC with milliseconds, of this century.
#[track_caller]
fn assert_time(value: &Value) {
    let shape: String = text(value)
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{value}");
    assert!(text(value).starts_with("20"), "{value}");
}

#[track_caller]
fn assert_error(value: &Value, what: &str) {
    assert_fields(value, "error");
    assert_fields(&value["error"], "code message hint");
    for field in ["code", "message", "hint"] {
        assert!(!text(&value["error"][field]).is_empty(), "{what}: {value}");
    }
}
