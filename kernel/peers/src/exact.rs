//! Exact products against FLINT.

use std::hint::black_box;
use std::time::Duration;

use gemmesh_kernel::exact::output_limbs;
use gemmesh_kernel::modular::{self, Scratch};
use gemmesh_kernel::{
    Class, Element, MatMut, MatRef, Placement, TileProduct, TileSpec, Workspace, matmul,
};

use crate::clock::{Here, Runner, race};
use crate::python::Python;
use crate::table::{Table, Voids};

const SIZES: [usize; 2] = [512, 1024];

/// Signed integers of at most `bits` bits of magnitude, two's complement, as many limbs as that takes.
pub fn integer_bytes(count: usize, bits: u32) -> Vec<u8> {
    let limbs = (bits + 1).div_ceil(64);
    let mut state = 7u64;
    let mut bytes = Vec::with_capacity(count * 8 * limbs as usize);
    for _ in 0..count {
        let negative = random(&mut state) & 1 == 1;
        for limb in 0..limbs {
            let kept = bits.saturating_sub(64 * limb).min(64);
            let magnitude = if kept == 0 {
                0
            } else {
                random(&mut state) >> (64 - kept) & !u64::from(limb == 0)
            };
            bytes.extend_from_slice(&(if negative { !magnitude } else { magnitude }).to_le_bytes());
        }
    }
    bytes
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// `fmpz_mat`: entries of 16, 64 and 256 bits, sign included.
pub fn integers(budget: Duration, python: &mut Option<Python>, voids: &mut Voids) {
    let mut table = Table::new(
        "integers, one thread, Gop/s (2·n³ for each product, conversions included)",
        &["bits, n", "gemmesh", "FLINT", "gemmesh/FLINT"],
    );
    for (bits, stated) in [(16, 6.5), (64, 1.6), (256, 0.48)] {
        for n in SIZES {
            let magnitude = bits - 1;
            let limbs = (bits / 64).max(1) as u16;
            let spec = TileSpec {
                element: Element::Int {
                    a_limbs: limbs,
                    b_limbs: limbs,
                    c_limbs: output_limbs(magnitude, magnitude, n) as u16,
                    a_bits: magnitude,
                    b_bits: magnitude,
                },
                class: Class::Any,
                rows: n,
                cols: n,
                inner: n,
            };
            let bytes = integer_bytes(n * n, magnitude);
            let mut tile = TileProduct::new(spec).unwrap();
            let mut ours = Here(|| {
                tile.reset(spec).unwrap();
                tile.begin_slab(n).unwrap();
                tile.put_a(&bytes, Placement::whole(n, n, 0, 0)).unwrap();
                tile.put_b(&bytes, Placement::whole(n, n, 0, 0)).unwrap();
                tile.accumulate().unwrap();
                black_box(tile.finish().unwrap());
            });
            let name = format!("fmpz_mat {bits} bits");
            compare(
                &mut table,
                (&name, "fmpz", bits),
                n,
                stated,
                &mut ours,
                budget,
                python,
                voids,
            );
        }
    }
}

/// `nmod_mat`: words modulo a prime of so many bits.
pub fn modular(budget: Duration, python: &mut Option<Python>, voids: &mut Voids) {
    let mut table = Table::new(
        "words modulo a prime, one thread, Gop/s (2·n³ for each product, conversions included)",
        &["bits, n", "gemmesh", "FLINT", "gemmesh/FLINT"],
    );
    // No figure is stated for 20 bits.
    for (bits, prime, stated) in [
        (20, 1_048_573, 0.0),
        (23, 8_388_593, 8.0),
        (31, 2_147_483_647, 5.9),
        (61, (1 << 61) - 1, 4.4),
    ] {
        for n in SIZES {
            let mut state = 3;
            let mut operand =
                || -> Vec<u64> { (0..n * n).map(|_| random(&mut state) % prime).collect() };
            let (a, b) = (operand(), operand());
            let mut c = vec![0; n * n];
            let mut scratch = Scratch::new();
            let mut ours = Here(|| {
                modular::matmul(
                    prime,
                    false,
                    MatRef::row_major(&a, n, n).unwrap(),
                    MatRef::row_major(&b, n, n).unwrap(),
                    MatMut::row_major(&mut c, n, n).unwrap(),
                    &mut scratch,
                )
                .unwrap();
            });
            let name = format!("nmod_mat {bits} bits");
            compare(
                &mut table,
                (&name, "nmod", bits),
                n,
                stated,
                &mut ours,
                budget,
                python,
                voids,
            );
        }
    }
    let n = 1024;
    let (a, b) = (vec![0.25; n * n], vec![0.75; n * n]);
    let (mut c, mut workspace) = (vec![0.0; n * n], Workspace::new());
    let mut floats = Here(|| {
        matmul(
            Class::Any,
            false,
            MatRef::row_major(&a, n, n).unwrap(),
            MatRef::row_major(&b, n, n).unwrap(),
            MatMut::row_major(&mut c, n, n).unwrap(),
            &mut workspace,
        )
        .unwrap();
    });
    let prime = 1_048_573;
    let words = vec![prime - 2; n * n];
    let (mut c_words, mut scratch) = (vec![0; n * n], Scratch::new());
    let mut modulo = Here(|| {
        modular::matmul(
            prime,
            false,
            MatRef::row_major(&words, n, n).unwrap(),
            MatRef::row_major(&words, n, n).unwrap(),
            MatMut::row_major(&mut c_words, n, n).unwrap(),
            &mut scratch,
        )
        .unwrap();
    });
    let seconds = race(&mut [&mut floats, &mut modulo], budget);
    println!(
        "20 bits, {n}: {:.0} % of the f64 product's speed",
        100.0 * seconds[0] / seconds[1]
    );
}

/// One line; the stated figure is of n = 1,024.
#[allow(clippy::too_many_arguments, reason = "a helper of two callers")]
fn compare<'r>(
    table: &mut Table,
    (name, kind, bits): (&str, &str, u32),
    n: usize,
    stated: f64,
    ours: &'r mut (dyn Runner + 'r),
    budget: Duration,
    python: &'r mut Option<Python>,
    voids: &mut Voids,
) {
    let mut runners: Vec<&mut dyn Runner> = vec![ours];
    if let Some(python) = python {
        python
            .ask(&format!("prepare {kind} {n} {bits}"))
            .expect("FLINT prepares");
        runners.push(python);
    }
    let seconds = race(&mut runners, budget);
    let speeds: Vec<f64> = seconds
        .iter()
        .map(|s| 2.0 * (n as f64).powi(3) / s / 1e9)
        .collect();
    let mut row = vec![format!("{bits}, {n}"), format!("{:.2}", speeds[0])];
    match speeds.get(1) {
        Some(&flint) => {
            row.extend([format!("{flint:.2}"), format!("{:.2}", speeds[0] / flint)]);
            if n == 1024 {
                voids.peer(&format!("{name}, {n}"), stated, flint);
            }
        }
        None => row.extend(["-".into(), "-".into()]),
    }
    table.row(row);
}
