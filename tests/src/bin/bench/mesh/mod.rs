//! `make bench-mesh`: what a mesh wins, and what it sends for that, in parts that can be run alone.
//!
//! Every figure is a ratio of runs that follow each other in one process, and each pair of runs has
//! operands of its own. Compute threads never exceed two, because the machines that run this may have
//! no more cores; parts that count bytes and print no times may have more. Each part says what else
//! the machine did meanwhile; where that was much its figures are void.

mod browser;
mod bytes;
mod links;
mod makespan;
mod numpy;
mod pair;
mod small;
mod watch;

use std::time::Duration;

use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::wait::until;
use serde_json::Value;

use watch::Watch;

/// A backup has what it needs within this.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Runs the part that `args` name, with its own arguments, or all of them.
pub fn measure(args: &[String]) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("This machine has {cores} cores for all nodes and for this program.");
    if cores < 2 {
        println!("  VOID: two compute threads need two cores");
    }
    let number = |at: usize, default: usize| {
        let text = args.get(at).map(|text| text.parse());
        text.unwrap_or(Ok(default)).expect("a number")
    };
    let wanted = |name: &str| args.first().is_none_or(|wanted| wanted == name);
    let part = |name: &str, run: &dyn Fn()| {
        if wanted(name) {
            let watch = Watch::start();
            run();
            watch.finish();
        }
    };
    part("pair", &|| pair::measure(number(1, 4_096), number(2, 3), 2));
    part("large", &|| {
        pair::measure(number(1, 8_192), number(2, 1), 1);
    });
    part("bytes", &|| bytes::measure(number(1, 4_096)));
    part("wire", &|| bytes::measure_interface(number(1, 2_048)));
    part("again", &|| bytes::measure_again(number(1, 4_096)));
    part("makespan", &|| makespan::measure(number(1, 200)));
    part("small", &|| small::measure(number(1, 100)));
    for (name, rate) in [
        ("gigabit", "1gbit"),
        ("100mbit", "100mbit"),
        ("20mbit", "20mbit"),
    ] {
        part(name, &|| {
            links::measure(rate, number(1, 4_096), number(2, 2))
        });
    }
    part("numpy", &|| numpy::measure(number(1, 4_000), number(2, 5)));
    part("others", &|| {
        numpy::measure_others(number(1, 4_000), number(2, 5))
    });
    if wanted("browser") {
        browser::measure(number(1, 4_096), number(2, 2));
    }
}

/// A node of one thread that nobody helps.
fn alone(options: Options) -> Node {
    let node = options.arg("--no-mdns").start();
    warm(&node.api);
    node
}

/// `count` nodes of one thread that have found each other.
fn mesh(count: usize, args: &[&str]) -> Vec<Node> {
    let mesh = fresh_mesh();
    let start = |n: usize| {
        let options = Options::loopback(&format!("node-{n}"), &mesh);
        args.iter()
            .fold(options, |options, arg| options.arg(*arg))
            .start()
    };
    let nodes: Vec<Node> = (0..count).map(start).collect();
    await_mesh(&nodes.iter().collect::<Vec<_>>(), 0);
    warm(&nodes[0].api);
    nodes
}

/// Pages of the program and the first files are no part of a measurement.
fn warm(api: &Api) {
    let ids = operands(&[api], 600, u64::MAX - 7).remove(0);
    run(api, &ids);
}

/// The same two random square matrices at each of these nodes; their ids there.
fn operands(apis: &[&Api], edge: usize, seed: u64) -> Vec<[String; 2]> {
    let ids = [2 * seed, 2 * seed + 1].map(|seed| {
        let npy = Matrix::random(edge, edge, seed).npy();
        apis.iter().map(|api| api.matrix(&npy)).collect::<Vec<_>>()
    });
    let [a, b] = ids;
    a.into_iter().zip(b).map(|(a, b)| [a, b]).collect()
}

/// The status of a product that is done.
fn run(api: &Api, [a, b]: &[String; 2]) -> Value {
    let job = api.multiply(a, b);
    api.done(&job)
}

fn seconds(status: &Value) -> f64 {
    status["seconds"].as_f64().expect("a number")
}

fn count(status: &Value, what: &str) -> f64 {
    status[what].as_f64().expect("a number")
}

/// Waits until so many backups have all of a job, so that copying it is not in the next one's way.
fn settle(api: &Api, status: &Value, backups: u64) {
    let job = status["job"].as_str().expect("an id");
    until("the backups to have the result", SETTLE_LIMIT, || {
        let status = api.job(job);
        let there = status["safe_copies"].as_u64().expect("a number") >= backups;
        there.then_some(()).ok_or(status.to_string())
    });
}

/// The middle one; of an even number the worse of the two, where more is better.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
