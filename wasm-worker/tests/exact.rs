//! Exact products on the pair product of the build, against wide integers: on the host, and in headless
//! browsers with each of the two builds.

use gemmesh_kernel::exact::output_limbs;
use gemmesh_kernel::modular::{Scratch, matmul};
use gemmesh_kernel::{Class, Element, MatMut, MatRef, Placement, TileProduct, TileSpec};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::{wasm_bindgen_test as test, wasm_bindgen_test_configure};

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test_configure!(run_in_browser);

/// Small shapes, and some that are longer than a block of k or wider than a tile.
fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
    let sizes = || [1, 2, 3, 4, 5, 8, 11, 12, 13].into_iter();
    let small =
        sizes().flat_map(move |m| sizes().flat_map(move |k| sizes().map(move |n| (m, k, n))));
    small.chain([(24, 511, 24), (25, 512, 17), (30, 1025, 40), (60, 90, 130)])
}

/// Numbers of 64 bits; every fourth is all ones, every eighth half of that.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 8 {
            0 | 1 => u64::MAX,
            2 => u64::MAX / 2,
            _ => state.wrapping_mul(0x2545_f491_4f6c_dd1d),
        }
    }
}

#[test]
fn words_of_every_way_agree_with_the_definition() {
    let mut scratch = Scratch::new();
    for (rows, inner, cols) in shapes() {
        for m in [4095, 1_048_573, (1 << 31) - 1, (1 << 61) - 1, u64::MAX - 58] {
            let mut next = numbers(m ^ inner as u64);
            let mut draw = |count| -> Vec<u64> {
                (0..count)
                    .map(|_| match next() {
                        u64::MAX => m - 1,
                        x if x == u64::MAX / 2 => m / 2,
                        x => x % m,
                    })
                    .collect()
            };
            let (a, b) = (draw(rows * inner), draw(inner * cols));
            let mut c = vec![u64::MAX; rows * cols];
            matmul(
                m,
                false,
                MatRef::row_major(&a, rows, inner).unwrap(),
                MatRef::row_major(&b, inner, cols).unwrap(),
                MatMut::row_major(&mut c, rows, cols).unwrap(),
                &mut scratch,
            )
            .unwrap();
            for (at, &found) in c.iter().enumerate() {
                let expected = (0..inner).fold(0u64, |sum, k| {
                    let (x, y) = (a[at / cols * inner + k], b[k * cols + at % cols]);
                    ((u128::from(sum) + u128::from(x) * u128::from(y)) % u128::from(m)) as u64
                });
                assert_eq!(
                    found, expected,
                    "element {at} of {rows} × {inner} × {cols} modulo {m}"
                );
            }
        }
    }
}

#[test]
fn integers_of_every_way_agree_with_the_definition() {
    for (rows, inner, cols) in shapes() {
        for bits in [8, 15, 20, 40, 57] {
            let mut next = numbers(u64::from(bits) ^ ((inner as u64) << 8));
            let mut draw = |count: usize| -> Vec<i64> {
                (0..count)
                    .map(|_| {
                        let magnitude = (next() >> (64 - bits)) as i64;
                        if next().is_multiple_of(2) {
                            magnitude
                        } else {
                            -magnitude
                        }
                    })
                    .collect()
            };
            let (a, b) = (draw(rows * inner), draw(inner * cols));
            let limbs = output_limbs(bits, bits, inner);
            let spec = TileSpec {
                element: Element::Int {
                    a_limbs: 1,
                    b_limbs: 1,
                    c_limbs: limbs as u16,
                    a_bits: bits,
                    b_bits: bits,
                },
                class: Class::Any,
                rows,
                cols,
                inner,
            };
            let bytes = |x: &[i64]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
            let mut tile = TileProduct::new(spec).unwrap();
            tile.begin_slab(inner).unwrap();
            tile.put_a(&bytes(&a), Placement::whole(rows, inner, 0, 0))
                .unwrap();
            tile.put_b(&bytes(&b), Placement::whole(inner, cols, 0, 0))
                .unwrap();
            tile.accumulate().unwrap();
            let c = tile.finish().unwrap();
            for (at, found) in c.chunks_exact(8 * limbs).enumerate() {
                let expected: i128 = (0..inner)
                    .map(|k| {
                        i128::from(a[at / cols * inner + k]) * i128::from(b[k * cols + at % cols])
                    })
                    .sum();
                assert_eq!(
                    found,
                    &expected.to_le_bytes()[..8 * limbs],
                    "element {at} of {rows} × {inner} × {cols}, {bits} bits"
                );
            }
        }
    }
}
