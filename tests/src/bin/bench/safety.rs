//! What it costs that a job outlives its coordinator: the same job with backups and without.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{JOB_LIMIT, Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::wait::until;
use serde_json::json;

use crate::process::{Usage, metric};

/// Pairs of runs.
const PAIRS: usize = 5;
/// Of three nodes, all but the coordinator.
const BACKUPS: u64 = 2;

/// One run.
struct Run {
    /// From acknowledgement to end, as the job's status says.
    seconds: f64,
    /// Until the backups have the result as well, and nothing is being copied any more.
    settled: f64,
    /// Bytes of tiles and matrices that are on the other nodes' disks then, and were not before.
    copies: f64,
    used: Usage,
}

/// Prints what replication costs a product of matrices with this edge; each pair of runs has operands of its own, so nothing is cached.
pub fn measure(edge: usize) {
    println!(
        "{edge} × {edge} f64, three one-thread nodes, with {BACKUPS} backups and without (--backups 0), \
         {PAIRS} pairs of runs:"
    );
    let (safe, bare) = (mesh(&[]), mesh(&["--backups=0"]));
    // Not a part of it: pages of the program, the first files.
    for nodes in [&safe, &bare] {
        run(nodes, edge, [1, 2], 0);
    }
    let mut ratios = Vec::new();
    for pair in 0..PAIRS as u64 {
        let seeds = [2 * pair + 3, 2 * pair + 4];
        // Which comes first changes.
        let (with, without) = if pair % 2 == 0 {
            let with = run(&safe, edge, seeds, BACKUPS);
            (with, run(&bare, edge, seeds, 0))
        } else {
            let without = run(&bare, edge, seeds, 0);
            (run(&safe, edge, seeds, BACKUPS), without)
        };
        print(&with, &without);
        ratios.push(with.seconds / without.seconds);
    }
    ratios.sort_by(f64::total_cmp);
    let (median, worst) = (ratios[PAIRS / 2], ratios[PAIRS - 1]);
    println!("  the job takes {median:.2} times as long with backups (median; worst {worst:.2})");
}

fn mesh(args: &[&str]) -> [Node; 3] {
    let mesh = fresh_mesh();
    let nodes = ["one", "two", "three"].map(|name| {
        let options = Options::loopback(name, &mesh);
        args.iter()
            .fold(options, |options, arg| options.arg(*arg))
            .start()
    });
    await_mesh(&nodes.each_ref(), 0);
    nodes
}

fn run(nodes: &[Node; 3], edge: usize, seeds: [u64; 2], backups: u64) -> Run {
    let api = &nodes[0].api;
    let [a, b] = seeds.map(|seed| api.matrix(&Matrix::random(edge, edge, seed).npy()));
    let (before, stored) = (Usage::of(nodes), on_disks(&nodes[1..]));
    let start = Instant::now();
    let job = api.submit(&json!({"a": a, "b": b}));
    let seconds = api.done(&job)["seconds"].as_f64().expect("a number");
    until("the backups to have the result", JOB_LIMIT, || {
        let status = api.job(&job);
        let there = status["safe_copies"].as_u64().expect("a number") >= backups;
        there.then_some(()).ok_or(status.to_string())
    });
    // A copy that is on its way is not broken off when the job ends.
    until("all copies to have ended", JOB_LIMIT, || {
        let copies = nodes.iter().map(|node| metric(node, "gemmesh_copies"));
        let copies: f64 = copies.sum();
        (copies == 0.0).then_some(()).ok_or(copies.to_string())
    });
    let settled = start.elapsed().as_secs_f64();
    Run {
        seconds,
        settled,
        copies: on_disks(&nodes[1..]) - stored,
        used: Usage::of(nodes) - before,
    }
}

/// Bytes of the files of tiles and matrices that have room on the disk.
fn on_disks(nodes: &[Node]) -> f64 {
    let files = nodes.iter().flat_map(|node| {
        let blocks = node.data_dir().join("blocks");
        fs::read_dir(blocks).expect("a store").flatten()
    });
    let sectors = files.filter_map(|file| Some(file.metadata().ok()?.blocks()));
    512.0 * sectors.sum::<u64>() as f64
}

fn print(with: &Run, without: &Run) {
    let mb = |bytes: f64| bytes / 1e6;
    println!(
        "  {:.2} s with, {:.2} s without: {:.2} times as long; all copied after {:.2} s",
        with.seconds,
        without.seconds,
        with.seconds / without.seconds,
        with.settled
    );
    println!(
        "    CPU {:.2} s and {:.2} s: {:.2} times",
        with.used.cpu,
        without.used.cpu,
        with.used.cpu / without.used.cpu
    );
    println!(
        "    {:.0} MB of copies, {:.0} MB and {:.0} MB written: {:.2} bytes written for each",
        mb(with.copies),
        mb(with.used.written),
        mb(without.used.written),
        (with.used.written - without.used.written) / with.copies
    );
    println!(
        "    SQLite: {:.2} s and {:.2} s, {:.1} % of the nodes' time; {:.1} MB and {:.1} MB, {:.1} % of what \
         was written",
        with.used.database_seconds,
        without.used.database_seconds,
        100.0 * with.used.database_seconds / (3.0 * with.settled),
        mb(with.used.database),
        mb(without.used.database),
        100.0 * with.used.database / with.used.written
    );
}
