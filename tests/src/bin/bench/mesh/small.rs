//! Small jobs, one at a time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{median, mesh, operands};

/// Submission to result of 200 × 200 jobs on three warm nodes.
pub fn measure(jobs: usize) {
    let nodes = mesh(3, &[]);
    let api = &nodes[0].api;
    let [a, b] = operands(&[api], 200, 100).remove(0);
    // One connection that stays open, as any client has.
    let client = reqwest::blocking::Client::builder().no_proxy().build();
    let client = client.expect("a client");
    let jobs_url = format!("http://{}/api/jobs", api.address);
    let request = json!({"a": a, "b": b});
    let once = || {
        let start = Instant::now();
        let accepted = client.post(&jobs_url).json(&request).send();
        let accepted: Value = accepted.and_then(|r| r.json()).expect("an answer");
        let job = accepted["job"].as_str().expect("an id");
        let url = format!("{jobs_url}/{job}/result?format=npy&wait=60");
        let result = client.get(url).send().expect("an answer");
        assert_eq!(result.status(), 200);
        let bytes = result.bytes().expect("the whole result");
        assert!(bytes.len() > 200 * 200 * 8, "a matrix");
        start.elapsed()
    };
    for _ in 0..jobs {
        once();
    }
    let times: Vec<f64> = (0..jobs).map(|_| once()).map(ms).collect();
    let worst = times.iter().copied().fold(0.0, f64::max);
    println!(
        "200 × 200 f64, three warm nodes of one thread, submission to result over HTTP, {jobs} jobs: \
         median {:.1} ms, worst {worst:.1} ms",
        median(times)
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
