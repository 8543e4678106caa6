//! How many small products one client gets done in a second: each a durable job by itself, or many as
//! one batch.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, Options, fresh_mesh};
use serde_json::{Value, json};

/// Rows and columns of each product.
const EDGE: usize = 16;
/// How long jobs are submitted one by one.
const SPELL: Duration = Duration::from_secs(3);
/// Requests in flight.
const IN_FLIGHT: [usize; 3] = [1, 4, 16];
/// Products of a batch of two stacks, and of a list.
const STACKED: usize = 20_000;
const LISTED: usize = 1_000;
/// Runs of each.
const RUNS: usize = 5;

/// Prints jobs and products a second.
pub fn measure() {
    let node = Options::loopback("lone", &fresh_mesh())
        .arg("--no-mdns")
        .start();
    let api = &node.api;
    let matrices = [1, 2].map(|seed| Matrix::random(EDGE, EDGE, seed));
    let ids = matrices.each_ref().map(|matrix| api.matrix(&matrix.npy()));
    println!("{EDGE} × {EDGE} f64 on one one-thread node, one client:");
    for (what, results) in [("accepted (durable)", false), ("result in hand", true)] {
        for in_flight in IN_FLIGHT {
            let rate = jobs(&api.address, &ids, in_flight, results);
            println!("  {rate:>7.0} jobs a second, {what}, {in_flight} in flight");
        }
    }
    let stacks = [stack(3), stack(4)];
    let sent = best(|| drop(put(api, &stacks)));
    let placed = put(api, &stacks);
    let computed = best(|| {
        finish(
            api,
            &json!({"a": placed[0], "b": placed[1], "products": STACKED}),
        )
    });
    let whole = best(|| {
        let [a, b] = put(api, &stacks);
        finish(api, &json!({"a": a, "b": b, "products": STACKED}));
    });
    let rate = |products: usize, time: Duration| products as f64 / time.as_secs_f64();
    println!("  a batch of two stacks of {STACKED}, best of {RUNS}:");
    println!(
        "  {:>7.0} products a second from operands in place to the result in hand",
        rate(STACKED, computed)
    );
    println!(
        "  {:>7.0} products a second with the operands sent before ({:.0} ms of it)",
        rate(STACKED, whole),
        sent.as_secs_f64() * 1e3
    );
    let list: Vec<Value> = (0..LISTED)
        .map(|_| json!({"a": ids[0], "b": ids[1]}))
        .collect();
    let listed = best(|| {
        let job = submit(api, &list.clone().into());
        api.done(&job);
    });
    println!(
        "  {:>7.0} products a second of a list of {LISTED}, operands in place, until it is done",
        rate(LISTED, listed)
    );
}

/// An `.npy` file of three dimensions.
fn stack(seed: u64) -> Vec<u8> {
    let shape = format!("({STACKED}, {EDGE}, {EDGE})");
    let mut text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
    while !(text.len() + 11).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((text.len() as u16).to_le_bytes());
    file.extend(text.as_bytes());
    let elements = Matrix::random(STACKED * EDGE, EDGE, seed).data;
    file.extend(elements.iter().flat_map(|element| element.to_le_bytes()));
    file
}

fn put(api: &Api, stacks: &[Vec<u8>; 2]) -> [Value; 2] {
    stacks.each_ref().map(|stack| {
        let put = api.put_matrix(stack).expect(201).json();
        assert_eq!(put["stack"], json!(STACKED), "it is a stack");
        put["id"].clone()
    })
}

fn submit(api: &Api, batch: &Value) -> String {
    let taken = api
        .post("/api/jobs", &json!({"batch": batch}))
        .expect(202)
        .json();
    taken["job"].as_str().expect("an id").to_owned()
}

fn finish(api: &Api, batch: &Value) {
    let job = submit(api, batch);
    let result = api.get(&format!("/api/jobs/{job}/result?wait=60"));
    let elements = STACKED * EDGE * EDGE;
    assert!(result.expect(200).body.len() > 8 * elements, "all of it");
}

/// The shortest of some runs.
fn best(run: impl Fn()) -> Duration {
    let timed = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..RUNS).map(timed).min().expect("there are runs")
}

/// Jobs a second over so many connections.
fn jobs(address: &str, ids: &[String; 2], in_flight: usize, results: bool) -> f64 {
    let body = json!({"a": ids[0], "b": ids[1]}).to_string();
    let start = Instant::now();
    let counts: Vec<u64> = thread::scope(|scope| {
        let lines: Vec<_> = (0..in_flight)
            .map(|_| {
                scope.spawn(|| {
                    let mut line = Line::open(address);
                    let mut count = 0;
                    while start.elapsed() < SPELL {
                        let taken = line.post("/api/jobs", &body);
                        // Too many at once: they are done a moment later.
                        let Some(taken) = taken else { continue };
                        if results {
                            let job = taken["job"].as_str().expect("an id").to_owned();
                            line.get(&format!("/api/jobs/{job}/result?format=npy&wait=60"));
                        }
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let counts = lines.into_iter().map(|line| line.join());
        counts.map(|count| count.expect("no panic")).collect()
    });
    counts.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64()
}

/// A connection that is kept.
struct Line {
    host: String,
    stream: BufReader<TcpStream>,
}

impl Line {
    fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the node listens");
        stream.set_nodelay(true).expect("an option of TCP");
        Self {
            host: address.to_owned(),
            stream: BufReader::new(stream),
        }
    }

    /// `None` when there are too many jobs.
    fn post(&mut self, path: &str, body: &str) -> Option<Value> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        let (status, answer) = self.ask(&head);
        match status {
            202 => Some(serde_json::from_slice(&answer).expect("JSON")),
            429 => None,
            status => panic!("{status}: {}", String::from_utf8_lossy(&answer)),
        }
    }

    fn get(&mut self, path: &str) {
        let (status, answer) = self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.host
        ));
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }

    fn ask(&mut self, request: &str) -> (u16, Vec<u8>) {
        let stream = self.stream.get_mut();
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut status = String::new();
        self.stream.read_line(&mut status).expect("an answer");
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let (mut length, mut chunked) = (0, false);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("a header");
            let line = line.trim().to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", n)) => length = n.trim().parse().expect("a number"),
                Some(("transfer-encoding", how)) => chunked = how.trim() == "chunked",
                Some(_) => {}
            }
        }
        let mut body = Vec::new();
        loop {
            if chunked {
                let mut size = String::new();
                self.stream.read_line(&mut size).expect("a chunk");
                length = usize::from_str_radix(size.trim(), 16).expect("its size");
            }
            let from = body.len();
            body.resize(from + length, 0);
            self.stream.read_exact(&mut body[from..]).expect("the body");
            if !chunked {
                break;
            }
            self.stream.read_line(&mut String::new()).expect("its end");
            if length == 0 {
                break;
            }
        }
        (code.expect("a status"), body)
    }
}
