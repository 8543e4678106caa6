//! Floating products: ours, the crates `gemm` and `matrixmultiply`, NumPy's BLAS, the machine's limit.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gemmesh_kernel::peak::multiply_adds;
use gemmesh_kernel::{Class, MatMut, MatRef, Scalar, Workspace, matmul};

use crate::clock::{Here, Runner, cpu_seconds, median, turns};
use crate::memory::filled;
use crate::python::Python;
use crate::table::{Table, Voids};

/// The element types, with the peers' entry points.
pub trait Float: Scalar {
    const NAME: &'static str;
    /// GFLOP/s that the peers are known to reach here: `gemm`, `matrixmultiply`, OpenBLAS.
    const STATED: [f64; 3];
    fn of(x: f64) -> Self;
    fn gemm(shape: Shape, a: &[Self], b: &[Self], c: &mut [Self]);
    fn matrixmultiply(shape: Shape, a: &[Self], b: &[Self], c: &mut [Self]);
}

/// (rows, inner, columns).
pub type Shape = (usize, usize, usize);

macro_rules! float {
    ($scalar:ty, $name:expr, $stated:expr, $matrixmultiply:path) => {
        impl Float for $scalar {
            const NAME: &'static str = $name;
            const STATED: [f64; 3] = $stated;

            fn of(x: f64) -> Self {
                x as Self
            }

            fn gemm((m, k, n): Shape, a: &[Self], b: &[Self], c: &mut [Self]) {
                assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
                // SAFETY: the slices hold row-major matrices of these sizes.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        c.as_mut_ptr(),
                        1,
                        n as isize,
                        false,
                        a.as_ptr(),
                        1,
                        k as isize,
                        b.as_ptr(),
                        1,
                        n as isize,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            }

            fn matrixmultiply((m, k, n): Shape, a: &[Self], b: &[Self], c: &mut [Self]) {
                assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
                let (row_a, row_b) = (k as isize, n as isize);
                // SAFETY: the slices hold row-major matrices of these sizes.
                unsafe {
                    $matrixmultiply(
                        m,
                        k,
                        n,
                        1.0,
                        a.as_ptr(),
                        row_a,
                        1,
                        b.as_ptr(),
                        row_b,
                        1,
                        0.0,
                        c.as_mut_ptr(),
                        row_b,
                        1,
                    );
                }
            }
        }
    };
}
// The stated single figures are twice the double ones: the registers hold twice the lanes.
float!(f64, "f64", [54.4, 54.6, 53.7], matrixmultiply::dgemm);
float!(f32, "f32", [108.8, 109.2, 107.4], matrixmultiply::sgemm);

const SHAPES: [Shape; 16] = [
    (32, 32, 32),
    (64, 64, 64),
    (128, 128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (1, 1024, 1024),
    (1, 4096, 4096),
    (1024, 1024, 1),
    (4096, 4096, 1),
    (1024, 1, 1024),
    (4, 2000, 2000),
    (2000, 2000, 4),
    (20, 100_000, 20),
    (10_000, 10, 10_000),
];

fn operand<T: Float>(len: usize, salt: usize) -> Vec<T> {
    filled(len, |i| {
        T::of(((i + salt) * 7919 % 1009) as f64 / 1009.0 - 0.5)
    })
}

/// One table.
pub fn table<T: Float>(
    budget: Duration,
    only: &str,
    python: &mut Option<Python>,
    voids: &mut Voids,
) {
    let mut table = Table::new(
        &format!("{}, one thread, GFLOP/s", T::NAME),
        &[
            "rows×inner×cols",
            "limit",
            "gemmesh",
            "of limit",
            "at its clock",
            "gemm",
            "matrixmultiply",
            "OpenBLAS",
            "gemmesh/best",
        ],
    );
    let mut best_of_peers = [0f64; 3];
    for shape in SHAPES {
        let (m, k, n) = shape;
        if !format!("{m}x{k}x{n}").contains(only) {
            continue;
        }
        let (a, b) = (operand::<T>(m * k, 0), operand::<T>(k * n, 1));
        let (mut ours, mut gemms, mut matrixmultiplys) =
            (operand(m * n, 2), operand(m * n, 2), operand(m * n, 2));
        let mut workspace = Workspace::new();
        const ITERATIONS: u64 = 200_000;
        let mut limit = Here(|| {
            black_box(multiply_adds::<T>(ITERATIONS));
        });
        let mut gemmesh = Here(|| {
            matmul(
                Class::Any,
                false,
                MatRef::row_major(&a, m, k).unwrap(),
                MatRef::row_major(&b, k, n).unwrap(),
                MatMut::row_major(&mut ours, m, n).unwrap(),
                &mut workspace,
            )
            .unwrap();
        });
        let mut gemm = Here(|| T::gemm(shape, &a, &b, &mut gemms));
        let mut matrixmultiply = Here(|| T::matrixmultiply(shape, &a, &b, &mut matrixmultiplys));
        let mut runners: Vec<&mut dyn Runner> =
            vec![&mut gemmesh, &mut limit, &mut gemm, &mut matrixmultiply];
        if let Some(python) = python {
            python
                .ask(&format!("prepare {} {m} {k} {n}", T::NAME))
                .expect("NumPy prepares");
            runners.push(python);
        }
        let turns = turns(&mut runners, budget);
        drop(runners);
        let at_its_clock = at_its_clock::<T>((2 * m * k * n) as f64, &mut gemmesh, budget);
        check(shape, &ours, &gemms, &matrixmultiplys);
        let operations = (2 * m * k * n) as f64;
        let multiply_adds = multiply_adds::<T>(ITERATIONS) as f64;
        let best = |turns: &Vec<f64>| turns.iter().copied().fold(f64::INFINITY, f64::min);
        let limit = multiply_adds / best(&turns[1]) / 1e9;
        let others = turns.iter().enumerate().filter(|(at, _)| *at != 1);
        let speeds: Vec<f64> = others
            .map(|(_, turns)| operations / best(turns) / 1e9)
            .collect();
        let best = speeds[1..].iter().copied().fold(0.0, f64::max);
        for (best, &speed) in best_of_peers.iter_mut().zip(&speeds[1..]) {
            *best = best.max(speed);
        }
        let mut row = vec![
            format!("{m}×{k}×{n}"),
            format!("{limit:.1}"),
            format!("{:.2}", speeds[0]),
            format!("{:.0} %", 100.0 * speeds[0] / limit),
            format!("{:.0} %", 100.0 * at_its_clock),
        ];
        row.extend((1..4).map(|peer| {
            speeds
                .get(peer)
                .map_or("-".into(), |speed| format!("{speed:.2}"))
        }));
        row.push(format!("{:.2}", speeds[0] / best));
        table.row(row);
    }
    for ((name, stated), best) in ["gemm", "matrixmultiply", "OpenBLAS"]
        .into_iter()
        .zip(T::STATED)
        .zip(best_of_peers)
    {
        if best > 0.0 {
            voids.peer(&format!("{name} {}", T::NAME), stated, best);
        }
    }
}

/// The product's share of what multiply-adds in registers reach right after it. The clock gives way to the
/// power that full load takes and is back within milliseconds, so the limit is measured for a tenth of one.
fn at_its_clock<T: Float>(operations: f64, product: &mut dyn Runner, budget: Duration) -> f64 {
    let times = (0.004 / product.turn(1)).ceil().clamp(1.0, 1e6) as u32;
    let mut shares = Vec::new();
    let start = Instant::now();
    while shares.len() < 5 || start.elapsed() < budget {
        let speed = operations / product.turn(times);
        // The first ones run while the loop's instructions are fetched and predicted.
        black_box(multiply_adds::<T>(5_000));
        let (begin, limit) = (Instant::now(), multiply_adds::<T>(40_000));
        shares.push(speed / (limit as f64 / begin.elapsed().as_secs_f64()));
    }
    median(shares)
}

/// All agree, or the figures mean nothing.
fn check<T: Float>((_, k, _): Shape, ours: &[T], gemm: &[T], matrixmultiply: &[T]) {
    // Operands below 1/2: the last bit of f32 is 2^-24 of up to k/4, and errors add up at random or not.
    let bound = T::of(1e-6 * k as f64 + 1e-5);
    for ((&x, &y), &z) in ours.iter().zip(gemm).zip(matrixmultiply) {
        let close =
            |p: T, q: T| p <= T::fused(bound, T::of(1.0), q) && q <= T::fused(bound, T::of(1.0), p);
        assert!(close(x, y) && close(x, z), "{x:?}, {y:?}, {z:?}");
    }
}

/// One product by two threads, each half of its rows, against one thread: by the wall clock, in turns.
pub fn threads<T: Float>(budget: Duration, voids: &mut Voids) {
    let n = 2048;
    let (a, b) = (operand::<T>(n * n, 0), operand::<T>(n * n, 1));
    let mut c = operand::<T>(n * n, 2);
    let mut workspaces = [Workspace::new(), Workspace::new()];
    let rows = |c: &mut [T], first: usize, workspace: &mut Workspace| {
        let count = c.len() / n;
        matmul(
            Class::Any,
            false,
            MatRef::row_major(&a[first * n..], count, n).unwrap(),
            MatRef::row_major(&b, n, n).unwrap(),
            MatMut::row_major(c, count, n).unwrap(),
            workspace,
        )
        .unwrap();
    };
    let (mut one, mut two) = (f64::INFINITY, f64::INFINITY);
    // The best share of its core that this thread had in a turn of two.
    let mut share = 0f64;
    let (start, mut rounds) = (Instant::now(), 0);
    while rounds < 3 || start.elapsed() < budget * 8 {
        let turn = Instant::now();
        rows(&mut c, 0, &mut workspaces[0]);
        one = one.min(turn.elapsed().as_secs_f64());
        let (turn, cpu) = (Instant::now(), cpu_seconds());
        let (top, bottom) = c.split_at_mut(n / 2 * n);
        let [first, second] = &mut workspaces;
        std::thread::scope(|scope| {
            scope.spawn(|| rows(bottom, n / 2, second));
            rows(top, 0, first);
            share = share.max((cpu_seconds() - cpu) / turn.elapsed().as_secs_f64());
        });
        two = two.min(turn.elapsed().as_secs_f64());
        rounds += 1;
    }
    println!(
        "\n{} {n}: one thread {:.1} ms, two threads {:.1} ms: {:.2} × (wall clock, best of {rounds} turns)",
        T::NAME,
        1e3 * one,
        1e3 * two,
        one / two
    );
    if share < 0.97 {
        voids.busy(&format!(
            "{} by two threads: at best {:.0} % of a core",
            T::NAME,
            100.0 * share
        ));
    }
}
