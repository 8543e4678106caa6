//! Speed of exact products by the native kernel, through the code that a compute worker runs: what
//! `make bench-browser` puts beside the browser's.
//!
//! `exact SECONDS BITSxN...` prints `BITS N GOP/S` for each, conversions included.

use std::time::{Duration, Instant};

use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::matrix::{Dtype, ElementType, Part};
use gemmesh_wasm_worker::task::{Task, TaskSpec, placement};

/// Inner indices in a slab, as in the browser: a compute worker's memory is bounded. Divides every N.
const DEPTH: u32 = 256;

/// Rows and columns of a tile at most, as in the browser: those of a job have no larger results.
const EDGE: u32 = 512;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok());
    let budget = Duration::from_secs_f64(seconds.unwrap_or(0.5));
    for case in arguments {
        let sizes = case.split_once('x');
        let sizes = sizes.and_then(|(bits, n)| Some((bits.parse().ok()?, n.parse().ok()?)));
        let Some((bits, n)) = sizes else {
            eprintln!("not of the form BITSxN: {case}");
            std::process::exit(2);
        };
        println!("{bits} {n} {:.3}", speed(bits, n, budget));
    }
}

/// 10^9 operations per second, the best of many turns.
fn speed(bits: u32, n: u32, budget: Duration) -> f64 {
    let element = |limbs| ElementType {
        dtype: Dtype::Int,
        limbs,
    };
    // A sum of n products of two numbers below 2^bits, and a sign.
    let c_bits = 2 * bits + n.next_power_of_two().trailing_zeros() + 1;
    let edge = EDGE.min(n);
    let spec = TaskSpec {
        class: KernelClass::Exact,
        rows: edge.into(),
        cols: edge.into(),
        inner: n.into(),
        a: element(1),
        a_bits: bits,
        b: element(1),
        b_bits: bits,
        c: element(c_bits.div_ceil(64) as u16),
        each: 0,
        skip: 0,
    };
    let depth = DEPTH.min(n);
    let part = |row, col, rows, cols| Part {
        index: 0,
        block_cols: n,
        src_row: row,
        src_col: col,
        dst_row: 0,
        dst_col: 0,
        rows,
        cols,
    };
    let word = |i: u64| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits);
    let block: Vec<u8> = (0..u64::from(n).pow(2))
        .flat_map(|i| word(i).to_le_bytes())
        .collect();
    let mut task = Task::default();
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    let mut turns = 0;
    while turns < 5 || begin.elapsed() < budget {
        task.begin(&spec).expect("a tile");
        let mut time = Duration::ZERO;
        for at in (0..n).step_by(depth as usize) {
            task.begin_slab(depth as usize).expect("a slab");
            let (a, b) = (part(0, at, edge, depth), part(at, 0, depth, edge));
            task.put_a(&block[..], placement(&a)).expect("a block of A");
            task.put_b(&block[..], placement(&b)).expect("a block of B");
            let start = Instant::now();
            task.accumulate().expect("a product");
            time += start.elapsed();
        }
        let start = Instant::now();
        std::hint::black_box(task.finish().expect("its bytes"));
        best = best.min((time + start.elapsed()).as_secs_f64());
        turns += 1;
    }
    2.0 * f64::from(edge).powi(2) * f64::from(n) / best / 1e9
}
