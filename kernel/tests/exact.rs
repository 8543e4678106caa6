//! Exact tiles against a big-integer oracle.

mod common;

use std::slice;

use common::{Draw, compute};
use gemmesh_kernel::exact::{output_bits, output_limbs};
use gemmesh_kernel::{Class, Element, TileProduct, TileSpec};
use num_bigint::{BigInt, Sign};
use proptest::prelude::*;

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
