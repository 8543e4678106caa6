//! What checking a product costs, next to the product itself.

use std::hint::black_box;
use std::time::Duration;

use gemmesh_kernel::exact::output_limbs;
use gemmesh_kernel::verify::{Probe, RowCheck, Verdict};
use gemmesh_kernel::{Class, Element, Placement, TileProduct, TileSpec};

use crate::clock::{Here, race};
use crate::exact::integer_bytes;
use crate::table::Table;

pub fn costs(budget: Duration) {
    let mut table = Table::new(
        "verification: y = B·x, v = A·y, C·x against v, all of an n × n product, one thread",
        &["element, n", "check ms", "product ms", "share"],
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
                tile.put_a(&operand, whole).unwrap();
                tile.put_b(&operand, whole).unwrap();
                tile.accumulate().unwrap();
                finish.then(|| tile.finish().unwrap())
            };
            let c = multiply(true).unwrap();
            let mut check = Here(|| {
                let mut probe = Probe::new(element, n, n, [1; 32]).unwrap();
                probe.project_b(&operand, whole).unwrap();
                let mut check = RowCheck::new(&probe, n).unwrap();
                check.project_a(&operand, whole).unwrap();
                assert_eq!(check.verdict(&c), Ok(Verdict::Accepted));
            });
            let mut product = Here(|| {
                black_box(multiply(matches!(element, Element::Int { .. })));
            });
            let seconds = race(&mut [&mut check, &mut product], budget);
            table.row(vec![
                format!("{name}, {n}"),
                format!("{:.2}", 1e3 * seconds[0]),
                format!("{:.1}", 1e3 * seconds[1]),
                format!("{:.2} %", 100.0 * seconds[0] / seconds[1]),
            ]);
        }
    }
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
        Element::F64 => (0..n * n).flat_map(|i| value(i).to_le_bytes()).collect(),
        Element::F32 => (0..n * n)
            .flat_map(|i| (value(i) as f32).to_le_bytes())
            .collect(),
        Element::Int { a_bits, .. } => integer_bytes(n * n, a_bits),
    }
}
