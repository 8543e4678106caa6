//! Small jobs, one at a time.

use std::time::{Duration, Instant};

use super::{median, mesh, operands};

/// Submission to result of 200 × 200 jobs on three warm nodes.
pub fn measure(jobs: usize) {
    let nodes = mesh(3, &[]);
    let api = &nodes[0].api;
    let [a, b] = operands(&[api], 200, 100).remove(0);
    let once = || {
        let start = Instant::now();
        let job = api.multiply(&a, &b);
        let result = api.get(&format!("/api/jobs/{job}/result?format=npy&wait=60"));
        result.expect(200);
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
