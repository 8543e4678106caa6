//! What checking a product costs, next to the product itself.

use std::hint::black_box;
use std::time::Duration;

use gemmesh_kernel::exact::output_limbs;
use gemmesh_kernel::verify::{Probe, RowCheck, Verdict};
use gemmesh_kernel::{Class, Element, Placement, TileProduct, TileSpec};

use crate::clock::{Here, race};
use crate::exact::integer_bytes;
use crate::memory::filled;
use crate::table::Table;

pub fn costs(budget: Duration) {
    let mut table = Table::new(
        "verification: y = B·x, v = A·y, C·x against v, all of an n × n product, one thread",
        &[
            "element, n",
            "check ms",
            "product ms",
            "share",
            "reading ms",
            "check/reading",
        ],
    );
    for n in [1024, 4096] {
        for (name, element) in [
            ("f64", Element::F64),
            ("f32", Element::F32),
            ("int 20", int(20, n)),
            ("int 63", int(63, n)),
        ] {
            if n > 1024 && matches!(element, Element::Int { .. }) {
                continue; // gigabytes of residues in one tile
            }
            let operand = bytes(element, n);
            let left = filled(operand.len(), |i| operand[i]);
            let whole = Placement::whole(n, n, 0, 0);
            let spec = TileSpec {
                element,
                class: Class::Any,
                rows: n,
                cols: n,
                inner: n,
            };
            let mut tile = TileProduct::new(spec).unwrap();
            let mut multiply = |finish: bool| {
                tile.reset(spec).unwrap();
                tile.begin_slab(n).unwrap();
                tile.put_a(&left, whole).unwrap();
                tile.put_b(&operand, whole).unwrap();
                tile.accumulate().unwrap();
                finish.then(|| tile.finish().unwrap())
            };
            let c = multiply(true).unwrap();
            let mut check = Here(|| {
                let mut probe = Probe::new(element, n, n, [1; 32]).unwrap();
                probe.project_b(&operand, whole).unwrap();
                let mut check = RowCheck::new(&probe, n).unwrap();
                check.project_a(&left, whole).unwrap();
                assert_eq!(check.verdict(&c), Ok(Verdict::Accepted));
            });
            let mut product = Here(|| {
                black_box(multiply(matches!(element, Element::Int { .. })));
            });
            // What no check can be faster than: A, B and C are read, and nothing is done with them.
            let mut reading = Here(|| {
                black_box(sum(&operand) ^ sum(&left) ^ sum(&c));
            });
            let seconds = race(&mut [&mut check, &mut product, &mut reading], budget);
            table.row(vec![
                format!("{name}, {n}"),
                format!("{:.2}", 1e3 * seconds[0]),
                format!("{:.1}", 1e3 * seconds[1]),
                format!("{:.2} %", 100.0 * seconds[0] / seconds[1]),
                format!("{:.2}", 1e3 * seconds[2]),
                format!("{:.2}", seconds[0] / seconds[2]),
            ]);
        }
    }
}

/// A sum that takes one addition for 64 bytes, lanes apart.
fn sum(bytes: &[u8]) -> u64 {
    let (lines, _) = bytes.as_chunks::<64>();
    let mut sums = [[0u64; 8]; 4];
    let (fours, _) = lines.as_chunks::<4>();
    for four in fours {
        for (sums, line) in sums.iter_mut().zip(four) {
            let (words, _) = line.as_chunks::<8>();
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*word));
            }
        }
    }
    sums.as_flattened()
        .iter()
        .copied()
        .fold(0, u64::wrapping_add)
}

fn int(bits: u32, n: usize) -> Element {
    Element::Int {
        a_limbs: 1,
        b_limbs: 1,
        c_limbs: output_limbs(bits, bits, n) as u16,
        a_bits: bits,
        b_bits: bits,
    }
}

fn bytes(element: Element, n: usize) -> Vec<u8> {
    let value = |i: usize| (i * 7919 % 1009) as f64 / 1009.0 - 0.5;
    match element {
        Element::F64 => filled(8 * n * n, |i| value(i / 8).to_le_bytes()[i % 8]),
        Element::F32 => filled(4 * n * n, |i| (value(i / 4) as f32).to_le_bytes()[i % 4]),
        Element::Int { a_bits, .. } => integer_bytes(n * n, a_bits),
        Element::Residues { .. } => unreachable!("not among the measured ones"),
    }
}
