//! Speed of the kernels on one thread, next to the limit that this device's registers allow.
//!
//! `cargo run --release -p gemmesh-kernel --example speed [seconds per figure]`
//!
//! Limit and product take turns, so that a clock frequency that changes changes both. The best of the
//! turns counts. An exact product counts 2·n³ operations, whatever it does inside.

use std::time::{Duration, Instant};

use gemmesh_kernel::exact::output_limbs;
use gemmesh_kernel::gemm::{Kernel, matmul_with};
use gemmesh_kernel::peak::class_multiply_adds;
use gemmesh_kernel::verify::{Probe, RowCheck};
use gemmesh_kernel::{
    Class, Element, MatMut, MatRef, Placement, Scalar, TileProduct, TileSpec, Workspace, instance,
};

const SIZES: [usize; 6] = [64, 128, 256, 512, 1024, 2048];

fn main() {
    let budget = std::env::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(0.3);
    let budget = Duration::from_secs_f64(budget);
    println!(
        "instance {}; GFLOP/s, one thread, best of paired turns",
        instance()
    );
    floats::<f64>("f64", budget, |x| x);
    floats::<f32>("f32", budget, |x| x as f32);
    for (bits, limbs) in [(20, 1), (63, 1), (3322, 52)] {
        exact(bits, limbs, budget);
    }
    verification(budget);
}

/// Runs `work` (returning operations) and the limit in turns; the best rates in GFLOP/s.
fn paired(
    budget: Duration,
    mut limit: impl FnMut() -> u64,
    mut work: impl FnMut() -> u64,
) -> (f64, f64) {
    let rate = |run: &mut dyn FnMut() -> u64| {
        let start = Instant::now();
        let operations = run();
        operations as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    let (mut best_limit, mut best_work) = (0f64, 0f64);
    let start = Instant::now();
    let mut turns = 0;
    while turns < 3 || start.elapsed() < budget {
        best_limit = best_limit.max(rate(&mut limit));
        best_work = best_work.max(rate(&mut work));
        turns += 1;
    }
    (best_limit, best_work)
}

fn operand<T>(len: usize, of: impl Fn(f64) -> T) -> Vec<T> {
    (0..len)
        .map(|i| of((i * 7919 % 1009) as f64 / 1009.0 - 0.5))
        .collect()
}

fn floats<T: Scalar>(name: &str, budget: Duration, of: impl Fn(f64) -> T) {
    let kernels: Vec<Kernel<T>> = T::kernels().collect();
    for kernel in &kernels {
        if kernel.name() == "portable" && kernel.class() == Class::Fused {
            continue; // software: a figure would take minutes
        }
        print!(
            "{name} {:<10} {:<9}",
            kernel.name(),
            format!("{:?}", kernel.class())
        );
        for n in SIZES {
            if kernel.name() == "portable" && n > 512 {
                continue;
            }
            let (a, b) = (operand(n * n, &of), operand(n * n, &of));
            let mut c = operand(n * n, &of);
            let mut workspace = Workspace::new();
            let (limit, speed) = paired(
                budget,
                || class_multiply_adds::<T>(Class::Any, 300_000),
                || {
                    matmul_with(
                        kernel,
                        kernel.blocking(),
                        false,
                        MatRef::row_major(&a, n, n).unwrap(),
                        MatRef::row_major(&b, n, n).unwrap(),
                        MatMut::row_major(&mut c, n, n).unwrap(),
                        &mut workspace,
                    )
                    .unwrap();
                    2 * (n as u64).pow(3)
                },
            );
            print!("  {n}: {speed:.1} ({:.0} %)", 100.0 * speed / limit);
        }
        println!();
    }
    let limit = paired(
        budget,
        || class_multiply_adds::<T>(Class::Any, 300_000),
        || 0,
    )
    .0;
    println!("{name} limit {limit:.1}");
}

fn exact(bits: u32, limbs: u16, budget: Duration) {
    print!("exact, {bits} bits");
    for n in SIZES {
        if n as u64 * u64::from(limbs) > 7000 {
            continue;
        }
        let c_limbs = output_limbs(bits, bits, n) as u16;
        let element = Element::Int {
            a_limbs: limbs,
            b_limbs: limbs,
            c_limbs,
            a_bits: bits,
            b_bits: bits,
        };
        let bytes: Vec<u8> = (0..n * n)
            .flat_map(|i| {
                (0..u32::from(limbs)).flat_map(move |limb| {
                    let word = ((i as u64 + 1) * (u64::from(limb) + 3))
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let keep = bits.saturating_sub(64 * limb).min(64);
                    (if keep == 0 { 0 } else { word >> (64 - keep) }).to_le_bytes()
                })
            })
            .collect();
        let spec = TileSpec {
            element,
            class: Class::Any,
            rows: n,
            cols: n,
            inner: n,
        };
        let mut tile = TileProduct::new(spec).unwrap();
        let (_, speed) = paired(
            budget,
            || 0,
            || {
                tile.reset(spec).unwrap();
                tile.begin_slab(n).unwrap();
                tile.put_a(&bytes, Placement::whole(n, n, 0, 0)).unwrap();
                tile.put_b(&bytes, Placement::whole(n, n, 0, 0)).unwrap();
                tile.accumulate().unwrap();
                std::hint::black_box(tile.finish().unwrap());
                tile.operations()
            },
        );
        print!("  {n}: {speed:.2}");
    }
    println!("  (with conversions)");
}

fn verification(budget: Duration) {
    let n = 1024;
    let bytes: Vec<u8> = operand(n * n, |x| x)
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let zero = vec![0; n * n * 8];
    let (_, rate) = paired(
        budget,
        || 0,
        || {
            let mut probe = Probe::new(Element::F64, n, n, [1; 32]).unwrap();
            probe
                .project_b(&bytes, Placement::whole(n, n, 0, 0))
                .unwrap();
            let mut check = RowCheck::new(&probe, n).unwrap();
            check
                .project_a(&bytes, Placement::whole(n, n, 0, 0))
                .unwrap();
            std::hint::black_box(check.verdict(&zero).unwrap());
            3 * (n * n) as u64
        },
    );
    println!(
        "verification, f64, n = {n}: {:.2} ns per element of A, B, C",
        1.0 / rate
    );
}
