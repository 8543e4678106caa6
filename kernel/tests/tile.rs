//! Tiles: bytes in, bytes out, against the definition and against a big-integer oracle.

use std::slice;

use gemmesh_kernel::exact::{output_bits, output_limbs};
use gemmesh_kernel::{
    Class, Element, KernelError, MatMut, MatRef, Placement, TileProduct, TileSpec, naive,
};
use num_bigint::{BigInt, Sign};
use proptest::prelude::*;

/// A generator that is enough for operands.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Puts whole row-major operands into a tile as slabs of `depth`, each in four parts.
fn compute(tile: &mut TileProduct, a: &[u8], b: &[u8], depth: usize) -> Vec<u8> {
    let TileSpec {
        rows, cols, inner, ..
    } = *tile.spec();
    for start in (0..inner).step_by(depth) {
        let k = depth.min(inner - start);
        tile.begin_slab(k).unwrap();
        let (half_rows, half_cols, half_k) = (rows / 2, cols / 2, k / 2);
        for (row, count) in [(0, half_rows), (half_rows, rows - half_rows)] {
            for (col, width) in [(half_k, k - half_k), (0, half_k)] {
                let part = Placement {
                    src_row_len: inner,
                    src_row: row,
                    src_col: start + col,
                    rows: count,
                    cols: width,
                    dst_row: row,
                    dst_col: col,
                };
                tile.put_a(a, part).unwrap();
            }
        }
        for (row, count) in [(0, half_k), (half_k, k - half_k)] {
            for (col, width) in [(half_cols, cols - half_cols), (0, half_cols)] {
                let part = Placement {
                    src_row_len: cols,
                    src_row: start + row,
                    src_col: col,
                    rows: count,
                    cols: width,
                    dst_row: row,
                    dst_col: col,
                };
                tile.put_b(b, part).unwrap();
            }
        }
        tile.accumulate().unwrap();
    }
    tile.finish().unwrap()
}

fn bytes_f64(x: &[f64]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn bytes_f32(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn a_float_tile_is_the_chain_of_its_class_whatever_the_slabs() {
    let (rows, inner, cols) = (19, 61, 23);
    let mut draw = Draw(3);
    let mut float = || draw.next() as f64 / u64::MAX as f64 - 0.5;
    let a: Vec<f64> = (0..rows * inner).map(|_| float()).collect();
    let b: Vec<f64> = (0..inner * cols).map(|_| float()).collect();
    let (a32, b32) = (
        a.iter().map(|&x| x as f32).collect::<Vec<_>>(),
        b.iter().map(|&x| x as f32).collect::<Vec<_>>(),
    );
    for class in [Class::Fused, Class::Separate] {
        let mut c = vec![0.0; rows * cols];
        naive::matmul(
            class,
            false,
            MatRef::row_major(&a, rows, inner).unwrap(),
            MatRef::row_major(&b, inner, cols).unwrap(),
            MatMut::row_major(&mut c, rows, cols).unwrap(),
        )
        .unwrap();
        let mut c32 = vec![0.0f32; rows * cols];
        naive::matmul(
            class,
            false,
            MatRef::row_major(&a32, rows, inner).unwrap(),
            MatRef::row_major(&b32, inner, cols).unwrap(),
            MatMut::row_major(&mut c32, rows, cols).unwrap(),
        )
        .unwrap();
        let spec = TileSpec {
            element: Element::F64,
            class,
            rows,
            cols,
            inner,
        };
        // One tile for all: each pass finds the buffers of the one before.
        let mut tile = TileProduct::new(spec).unwrap();
        for depth in [1, 7, 60, 61] {
            assert_eq!(
                compute(&mut tile, &bytes_f64(&a), &bytes_f64(&b), depth),
                bytes_f64(&c)
            );
            tile.reset(TileSpec {
                element: Element::F32,
                ..spec
            })
            .unwrap();
            assert_eq!(
                compute(&mut tile, &bytes_f32(&a32), &bytes_f32(&b32), depth),
                bytes_f32(&c32)
            );
            tile.reset(spec).unwrap();
        }
        assert_eq!(tile.operations(), 2 * 19 * 61 * 23);
    }
}

#[test]
fn every_nan_of_a_tile_is_the_canonical_one() {
    let odd = f64::from_bits(0xfff0_dead_beef_0001);
    let spec = TileSpec {
        element: Element::F64,
        class: Class::Separate,
        rows: 1,
        cols: 2,
        inner: 2,
    };
    let mut tile = TileProduct::new(spec).unwrap();
    let c = compute(
        &mut tile,
        &bytes_f64(&[odd, 1.0]),
        &bytes_f64(&[1.0, f64::INFINITY, 2.0, 0.0]),
        2,
    );
    assert_eq!(c, bytes_f64(&[f64::from_bits(0x7ff8 << 48); 2]));
    let spec = TileSpec {
        element: Element::F32,
        ..spec
    };
    tile.reset(spec).unwrap();
    let odd = f32::from_bits(0xff80_0001);
    let c = compute(
        &mut tile,
        &bytes_f32(&[odd, 1.0]),
        &bytes_f32(&[1.0, 2.0, 3.0, 4.0]),
        1,
    );
    assert_eq!(c, bytes_f32(&[f32::from_bits(0x7fc0 << 16); 2]));
}

/// Two's complement of `limbs` limbs.
fn limbs_of(x: &BigInt, limbs: usize) -> Vec<u8> {
    let mut bytes = x.to_signed_bytes_le();
    assert!(bytes.len() <= 8 * limbs, "{x} does not fit {limbs} limbs");
    let fill = if x.sign() == Sign::Minus { 0xff } else { 0 };
    bytes.resize(8 * limbs, fill);
    bytes
}

/// The exact product by the definition.
fn oracle(a: &[BigInt], b: &[BigInt], (rows, inner, cols): (usize, usize, usize)) -> Vec<BigInt> {
    (0..rows * cols)
        .map(|at| {
            (0..inner)
                .map(|k| &a[at / cols * inner + k] * &b[k * cols + at % cols])
                .sum()
        })
        .collect()
}

/// Multiplies exactly with the smallest sizes that hold the operands and compares.
fn check_exact(
    a: &[BigInt],
    b: &[BigInt],
    shape: (usize, usize, usize),
    extra_limbs: usize,
    depth: usize,
) {
    let (rows, inner, cols) = shape;
    let bits = |x: &[BigInt]| x.iter().map(|x| x.bits() as u32).max().unwrap();
    // Two's complement takes one bit more than the magnitude, but for -2^n.
    let limbs = |x: &[BigInt]| {
        x.iter()
            .map(|x| x.to_signed_bytes_le().len().div_ceil(8))
            .max()
            .unwrap()
            + extra_limbs
    };
    let (a_bits, b_bits, a_limbs, b_limbs) = (bits(a), bits(b), limbs(a), limbs(b));
    let c_limbs = output_limbs(a_bits, b_bits, inner) + extra_limbs;
    let element = Element::Int {
        a_limbs: a_limbs as u16,
        b_limbs: b_limbs as u16,
        c_limbs: c_limbs as u16,
        a_bits,
        b_bits,
    };
    let spec = TileSpec {
        element,
        class: Class::Any,
        rows,
        cols,
        inner,
    };
    let bytes = |x: &[BigInt], limbs| {
        x.iter()
            .flat_map(|x| limbs_of(x, limbs))
            .collect::<Vec<u8>>()
    };
    let mut tile = TileProduct::new(spec).unwrap();
    for _ in 0..2 {
        let found = compute(&mut tile, &bytes(a, a_limbs), &bytes(b, b_limbs), depth);
        let expected = oracle(a, b, shape);
        for (at, (found, expected)) in found.chunks_exact(8 * c_limbs).zip(&expected).enumerate() {
            let found = BigInt::from_signed_bytes_le(found);
            assert_eq!(
                &found, expected,
                "element {at} of {shape:?}, {a_bits} and {b_bits} bits"
            );
        }
        tile.reset(spec).unwrap();
    }
}

/// A number of at most `bits` bits of either sign; often one of the extremes.
fn integer(draw: &mut Draw, bits: u64) -> BigInt {
    let one = BigInt::from(1);
    let magnitude = match draw.next() % 6 {
        0 => (&one << bits) - &one,
        1 => BigInt::from(draw.next() % 3) % (&one << bits),
        _ => {
            let words: Vec<u32> = (0..bits.div_ceil(32)).map(|_| draw.next() as u32).collect();
            BigInt::from_slice(Sign::Plus, &words) % (&one << bits)
        }
    };
    if draw.next().is_multiple_of(2) {
        -magnitude
    } else {
        magnitude
    }
}

#[test]
fn exact_products_are_exact_at_every_size_of_operands() {
    let mut draw = Draw(11);
    for (a_bits, b_bits) in [
        (1, 1),
        (8, 8),
        (20, 20),
        (22, 22),
        (24, 24),
        (26, 26),
        (27, 27),
        (31, 32),
        (48, 3),
        (53, 0),
        (54, 1),
        (62, 62),
        (63, 63),
        (64, 64),
        (65, 65),
        (127, 128),
        (200, 30),
        (512, 700),
    ] {
        for (shape, depth) in [
            ((1, 1, 1), 1),
            ((3, 5, 2), 2),
            ((7, 4, 9), 4),
            ((2, 300, 3), 130),
        ] {
            let (rows, inner, cols) = shape;
            let a: Vec<BigInt> = (0..rows * inner)
                .map(|_| integer(&mut draw, a_bits))
                .collect();
            let b: Vec<BigInt> = (0..inner * cols)
                .map(|_| integer(&mut draw, b_bits))
                .collect();
            check_exact(&a, &b, shape, (draw.next() % 2) as usize, depth);
        }
    }
}

#[test]
fn the_largest_sums_of_both_signs_are_exact() {
    // All elements at the bound of their bits, so that sums reach the bound of the output.
    for (a_bits, b_bits, inner) in [
        (22, 22, 512),
        (23, 22, 257),
        (21, 22, 1024),
        (63, 63, 300),
        (64, 64, 256),
        (11, 100, 513),
    ] {
        for sign in [1, -1] {
            let a = vec![(BigInt::from(1) << a_bits) - 1; 2 * inner];
            let b = vec![((BigInt::from(1) << b_bits) - 1) * sign; inner * 3];
            check_exact(&a, &b, (2, inner, 3), 0, inner);
        }
    }
}

#[test]
fn the_smallest_64_bit_integer_is_exact() {
    let min = BigInt::from(i64::MIN);
    check_exact(
        slice::from_ref(&min),
        slice::from_ref(&min),
        (1, 1, 1),
        0,
        1,
    );
    let a = vec![min.clone(); 4 * 6];
    let b: Vec<BigInt> = (0..6 * 4)
        .map(|i| {
            if i % 3 == 0 {
                min.clone()
            } else {
                BigInt::from(i64::MAX)
            }
        })
        .collect();
    check_exact(&a, &b, (4, 6, 4), 0, 6);
}

#[test]
fn entries_of_a_thousand_digits_are_exact() {
    let mut draw = Draw(5);
    let (rows, inner, cols) = (3, 4, 3);
    let a: Vec<BigInt> = (0..rows * inner)
        .map(|_| integer(&mut draw, 3322))
        .collect();
    let b: Vec<BigInt> = (0..inner * cols)
        .map(|_| integer(&mut draw, 3322))
        .collect();
    check_exact(&a, &b, (rows, inner, cols), 0, 3);
}

#[test]
fn entries_of_a_thousand_limbs_are_exact() {
    let mut draw = Draw(6);
    let a: Vec<BigInt> = (0..2).map(|_| integer(&mut draw, 64_000)).collect();
    let b: Vec<BigInt> = (0..2).map(|_| integer(&mut draw, 50_000)).collect();
    check_exact(&a, &b, (1, 2, 1), 0, 2);
}

#[test]
fn the_size_of_a_result_is_as_documented() {
    assert_eq!(output_bits(63, 63, 1), 127);
    assert_eq!(output_limbs(63, 63, 2), 2);
    assert_eq!(output_limbs(63, 63, 4), 3);
    assert_eq!(output_limbs(0, 0, 1), 1);
    assert_eq!(output_limbs(26, 26, 1024), 1);
    assert_eq!(output_limbs(26, 27, 1024), 1);
    assert_eq!(output_limbs(27, 27, 1024), 2);
}

const INT: Element = Element::Int {
    a_limbs: 1,
    b_limbs: 1,
    c_limbs: 2,
    a_bits: 40,
    b_bits: 40,
};

#[test]
fn a_slab_depth_keeps_the_memory_within_the_budget() {
    for element in [Element::F64, Element::F32, INT] {
        let spec = TileSpec {
            element,
            class: Class::Any,
            rows: 500,
            cols: 700,
            inner: 5000,
        };
        assert_eq!(spec.slab_depth(usize::MAX), 5000);
        assert_eq!(spec.slab_depth(1000), 0);
        let mut seen_blocks = false;
        for mebibytes in 1..200 {
            let depth = spec.slab_depth(mebibytes << 20);
            assert!(depth == 0 || spec.memory_bytes(depth) <= mebibytes << 20);
            assert!(
                depth.is_multiple_of(256) || depth < 256 || depth == 5000,
                "{depth}"
            );
            seen_blocks |= (256..5000).contains(&depth);
        }
        assert!(seen_blocks);
    }
}

#[test]
fn bad_specs_are_typed_errors() {
    let good = TileSpec {
        element: Element::F64,
        class: Class::Any,
        rows: 2,
        cols: 2,
        inner: 2,
    };
    let shape = |spec: TileSpec| {
        let made = TileProduct::new(spec).map(drop);
        assert!(
            matches!(made, Err(KernelError::Shape { .. })),
            "{spec:?}: {made:?}"
        );
    };
    shape(TileSpec { rows: 0, ..good });
    shape(TileSpec { cols: 0, ..good });
    shape(TileSpec { inner: 0, ..good });
    let int = |a_limbs, c_limbs, a_bits| Element::Int {
        a_limbs,
        b_limbs: 1,
        c_limbs,
        a_bits,
        b_bits: 64,
    };
    shape(TileSpec {
        element: int(0, 2, 0),
        ..good
    });
    shape(TileSpec {
        element: int(1, 9, 65),
        ..good
    });
    shape(TileSpec {
        element: int(1, 1, 64),
        ..good
    });
    shape(TileSpec {
        element: int(1, 0, 64),
        ..good
    });
    shape(TileSpec {
        element: int(60_000, 60_000, 64),
        ..good
    });
    let huge = TileProduct::new(TileSpec {
        rows: usize::MAX,
        cols: usize::MAX,
        ..good
    })
    .map(drop);
    assert!(
        matches!(huge, Err(KernelError::Overflow { .. })),
        "{huge:?}"
    );
    let huge = TileProduct::new(TileSpec {
        inner: usize::MAX,
        ..good
    })
    .map(drop);
    assert!(
        matches!(huge, Err(KernelError::Overflow { .. })),
        "{huge:?}"
    );
    let big = TileProduct::new(TileSpec {
        rows: 1 << 28,
        cols: 1 << 29,
        ..good
    })
    .map(drop);
    assert!(
        matches!(big, Err(KernelError::OutOfMemory { .. })),
        "{big:?}"
    );
    assert_eq!(
        TileSpec {
            rows: usize::MAX,
            ..good
        }
        .memory_bytes(usize::MAX),
        usize::MAX
    );
}

#[test]
fn bad_parts_and_missing_parts_are_typed_errors() {
    let spec = TileSpec {
        element: Element::F64,
        class: Class::Any,
        rows: 3,
        cols: 4,
        inner: 8,
    };
    let mut tile = TileProduct::new(spec).unwrap();
    let block = [0u8; 3 * 8 * 8];
    let is_shape = |result: Result<(), KernelError>| {
        assert!(
            matches!(result, Err(KernelError::Shape { .. })),
            "{result:?}"
        )
    };
    is_shape(tile.begin_slab(9));
    is_shape(tile.begin_slab(0));
    is_shape(tile.put_a(&block, Placement::whole(3, 8, 0, 0)));
    assert!(matches!(
        tile.accumulate(),
        Err(KernelError::Incomplete { .. })
    ));
    assert!(matches!(tile.finish(), Err(KernelError::Incomplete { .. })));
    tile.begin_slab(8).unwrap();
    let whole = Placement::whole(3, 8, 0, 0);
    is_shape(tile.put_a(&block[1..], whole));
    is_shape(tile.put_a(
        &block,
        Placement {
            dst_row: 1,
            ..whole
        },
    ));
    is_shape(tile.put_a(
        &block,
        Placement {
            dst_col: 1,
            ..whole
        },
    ));
    is_shape(tile.put_a(
        &block,
        Placement {
            src_row: 1,
            ..whole
        },
    ));
    is_shape(tile.put_a(
        &block,
        Placement {
            src_col: 1,
            ..whole
        },
    ));
    is_shape(tile.put_a(
        &block,
        Placement {
            src_row_len: 7,
            ..whole
        },
    ));
    let overflow = Placement {
        src_row: usize::MAX,
        ..whole
    };
    assert!(matches!(
        tile.put_a(&block, overflow),
        Err(KernelError::Overflow { .. })
    ));
    let overflow = Placement {
        dst_row: usize::MAX,
        ..whole
    };
    assert!(matches!(
        tile.put_a(&block, overflow),
        Err(KernelError::Overflow { .. })
    ));
    let overflow = Placement {
        src_row_len: usize::MAX,
        ..whole
    };
    assert!(matches!(
        tile.put_a(&block, overflow),
        Err(KernelError::Overflow { .. })
    ));
    tile.put_a(&block, whole).unwrap();
    assert!(
        matches!(tile.accumulate(), Err(KernelError::Incomplete { .. })),
        "B is missing"
    );
    // An integer with more bits than announced, on both ways of computing.
    for (a_bits, c_limbs) in [(8, 1), (60, 2)] {
        let element = Element::Int {
            a_limbs: 1,
            b_limbs: 1,
            c_limbs,
            a_bits,
            b_bits: 8,
        };
        tile.reset(TileSpec {
            element,
            class: Class::Any,
            rows: 1,
            cols: 1,
            inner: 1,
        })
        .unwrap();
        tile.begin_slab(1).unwrap();
        let place = Placement::whole(1, 1, 0, 0);
        for bad in [1i64 << a_bits, -(1 << a_bits), i64::MIN] {
            assert!(
                matches!(
                    tile.put_a(&bad.to_le_bytes(), place),
                    Err(KernelError::Range { .. })
                ),
                "{bad}"
            );
        }
        tile.put_a(&((1i64 << a_bits) - 1).to_le_bytes(), place)
            .unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_exact_products_agree_with_big_integers(
        rows in 1usize..12, inner in 1usize..20, cols in 1usize..12,
        a_bits in 1u64..300, b_bits in 1u64..90, depth in 1usize..20, seed in 1u64.., extra in 0usize..2,
    ) {
        let mut draw = Draw(seed);
        let a: Vec<BigInt> = (0..rows * inner).map(|_| integer(&mut draw, a_bits)).collect();
        let b: Vec<BigInt> = (0..inner * cols).map(|_| integer(&mut draw, b_bits)).collect();
        check_exact(&a, &b, (rows, inner, cols), extra, depth);
    }
}
