//! `make takeover`: what the loss of a coordinator costs, measured here and now on four real nodes.
//!
//! Usage: `takeover [KILLS [int|f64|both [EDGE [FROM]]]]`. For each kill a job is submitted, and its coordinator
//! is killed (SIGKILL) as soon as a drawn share of its tiles, 30 to 70 %, is safe. Measured is the time
//! from just before the signal until another node says in its log that a tile of the job is leased by
//! it; the log is looked at every 2 ms. That a safe tile was computed again is told by the status of the
//! job at its end: `tiles_recomputed`, and what each device is said to have contributed.
//!
//! `int` is a product of 62-bit integers, whose result is checked as a whole modulo a prime and in some
//! rows element by element. `f64` is `"reproducible": true`, and must have the bits of an undisturbed
//! run. The other nodes' results must be the same bytes.

mod kill;
mod mesh;
mod product;

use std::iter;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use gemmesh_tests::matrices::Random;

use kill::{Kill, kill_one};
use mesh::Mesh;
use product::{Kind, Product};

/// Kills unless the command says otherwise.
const KILLS: usize = 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| match args.get(at) {
        None => Some(default),
        Some(text) => text.parse().ok().filter(|number| *number > 0),
    };
    let kinds: &[Kind] = match args.get(1).map(String::as_str) {
        None | Some("both") => &[Kind::Int, Kind::F64],
        Some("int") => &[Kind::Int],
        Some("f64") => &[Kind::F64],
        Some(_) => &[],
    };
    let from = args.get(3).map_or(Ok(0), |from| from.parse());
    let (Some(kills), Ok(from), false) =
        (number(0, KILLS), from, kinds.is_empty() || args.len() > 4)
    else {
        eprintln!("usage: takeover [KILLS [int|f64|both [EDGE [FROM]]]]");
        return ExitCode::from(2);
    };
    let mut right = true;
    for kind in kinds {
        let Some(edge) = number(2, kind.edge()) else {
            eprintln!("{} is no edge of a matrix", args[2]);
            return ExitCode::from(2);
        };
        right &= measure(*kind, edge, from..from + kills);
    }
    match right {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Kills the coordinators with these numbers; whether nothing was lost, wrong or done twice.
fn measure(kind: Kind, edge: usize, kills: Range<usize>) -> bool {
    let mut mesh = Mesh::start();
    let product = Product::new(kind, edge, &mesh);
    println!(
        "{}, {edge} × {edge}, four one-thread nodes; undisturbed {:.1} s; {} kills:",
        kind.name(),
        product.seconds,
        kills.len()
    );
    if product.seconds < kind.seconds_min() {
        let least = kind.seconds_min();
        println!("  (this should last at least {least} s: take a larger edge)");
    }
    let mut random = Random(1);
    let shares = iter::repeat_with(|| 0.3 + 0.4 * (random.unit() + 1.0) / 2.0);
    let drawn = shares.enumerate().skip(kills.start).take(kills.len());
    let mut seen = Vec::new();
    for (number, share) in drawn {
        let kill = kill_one(&mut mesh, number, share, &product);
        println!("  {:>2}: {kill}", number + 1);
        seen.push(kill);
    }
    summary(&seen)
}

fn summary(kills: &[Kill]) -> bool {
    let mut times: Vec<Duration> = kills.iter().filter_map(|kill| kill.takeover).collect();
    times.sort();
    let never = kills.len() - times.len();
    let all = times
        .iter()
        .map(|time| format!("{:.3}", time.as_secs_f64()));
    println!("  times in s: {}", all.collect::<Vec<_>>().join(" "));
    let time = |at: usize| times.get(at).map_or(f64::NAN, Duration::as_secs_f64);
    let (median, worst) = (time(times.len() / 2), time(times.len().saturating_sub(1)));
    let recomputed: u64 = kills.iter().map(|kill| kill.recomputed).sum();
    let wrong = kills.iter().filter(|kill| kill.wrong.is_some()).count();
    println!(
        "  first tile leased after: median {median:.3} s, worst {worst:.3} s, never {never}; \
         safe tiles computed again {recomputed}; wrong results {wrong}"
    );
    never == 0 && recomputed == 0 && wrong == 0
}
