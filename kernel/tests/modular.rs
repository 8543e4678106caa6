//! Products modulo any number against the definition.

use gemmesh_kernel::modular::{Scratch, matmul};
use gemmesh_kernel::{KernelError, MatMut, MatRef};
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

/// The definition.
fn oracle(
    m: u64,
    a: &[u64],
    b: &[u64],
    c: &[u64],
    (rows, inner, cols): (usize, usize, usize),
) -> Vec<u64> {
    let wide = u128::from(m);
    (0..rows * cols)
        .map(|at| {
            (0..inner).fold(u128::from(c[at]), |sum, k| {
                (sum + u128::from(a[at / cols * inner + k]) * u128::from(b[k * cols + at % cols]))
                    % wide
            }) as u64
        })
        .collect()
}

/// Elements below m: often the extremes and the middle, where balanced residues are largest.
fn operand(draw: &mut Draw, m: u64, len: usize) -> Vec<u64> {
    (0..len)
        .map(|_| match draw.next() % 8 {
            0 => m - 1,
            1 => m / 2,
            2 => (m / 2 + 1) % m,
            3 => 0,
            _ => draw.next() % m,
        })
        .collect()
}

fn check(m: u64, shape: (usize, usize, usize), seed: u64, scratch: &mut Scratch) {
    let (rows, inner, cols) = shape;
    let mut draw = Draw(seed | 1);
    let (a, b) = (
        operand(&mut draw, m, rows * inner),
        operand(&mut draw, m, inner * cols),
    );
    let c = operand(&mut draw, m, rows * cols);
    for accumulate in [false, true] {
        let start = if accumulate {
            c.clone()
        } else {
            vec![0; rows * cols]
        };
        let mut found = if accumulate {
            c.clone()
        } else {
            vec![u64::MAX; rows * cols]
        };
        matmul(
            m,
            accumulate,
            MatRef::row_major(&a, rows, inner).unwrap(),
            MatRef::row_major(&b, inner, cols).unwrap(),
            MatMut::row_major(&mut found, rows, cols).unwrap(),
            scratch,
        )
        .unwrap();
        assert_eq!(
            found,
            oracle(m, &a, &b, &start, shape),
            "mod {m}, {shape:?}, accumulate {accumulate}"
        );
        // The same with every matrix transposed in memory: C^T = B^T·A^T.
        let mut turned = if accumulate {
            c.clone()
        } else {
            vec![u64::MAX; rows * cols]
        };
        matmul(
            m,
            accumulate,
            MatRef::row_major(&b, inner, cols).unwrap().transposed(),
            MatRef::row_major(&a, rows, inner).unwrap().transposed(),
            MatMut::row_major(&mut turned, rows, cols)
                .unwrap()
                .transposed(),
            scratch,
        )
        .unwrap();
        assert_eq!(turned, found, "mod {m}, {shape:?}, transposed");
    }
}

#[test]
fn products_modulo_numbers_of_every_size_agree_with_the_definition() {
    let mut scratch = Scratch::new();
    for bits in 1..=64u32 {
        let top = 1u64.checked_shl(bits).map_or(u64::MAX, |power| power - 1);
        for m in [top, top - top / 4, top / 2 + 2, 3, 2] {
            if m < 2 {
                continue;
            }
            for shape in [(1, 1, 1), (3, 7, 5), (2, 300, 3), (9, 4, 17)] {
                check(m, shape, m ^ u64::from(bits), &mut scratch);
            }
        }
    }
}

#[test]
fn the_largest_sums_of_each_way_are_exact() {
    let mut scratch = Scratch::new();
    // Around the changes from one way to the next, with every element at the largest magnitude.
    for m in [
        (1 << 20) - 3,
        8_388_593,
        (1 << 24) - 3,
        (1 << 24) + 43,
        (1 << 25) - 39,
        2_147_483_647,
        (1 << 32) - 5,
        (1 << 32) + 15,
        (1 << 61) - 1,
        u64::MAX - 58,
    ] {
        for (left, right) in [(m / 2, m / 2), (m / 2, m / 2 + 1), (m - 1, m / 2)] {
            let (rows, inner, cols) = (2, 1500, 3);
            let (a, b) = (vec![left; rows * inner], vec![right; inner * cols]);
            let mut c = vec![0; rows * cols];
            matmul(
                m,
                false,
                MatRef::row_major(&a, rows, inner).unwrap(),
                MatRef::row_major(&b, inner, cols).unwrap(),
                MatMut::row_major(&mut c, rows, cols).unwrap(),
                &mut scratch,
            )
            .unwrap();
            let zeros = vec![0; rows * cols];
            assert_eq!(c, oracle(m, &a, &b, &zeros, (rows, inner, cols)), "mod {m}");
        }
    }
}

#[test]
fn what_can_not_be_multiplied_is_a_typed_error_and_c_stays() {
    let mut scratch = Scratch::new();
    let (a, b) = ([1u64, 2, 3, 4], [4u64, 3, 2, 7]);
    let mut c = [9u64; 4];
    let mut multiply = |m: u64, rows: usize, accumulate: bool, c: &mut [u64]| {
        matmul(
            m,
            accumulate,
            MatRef::row_major(&a, 2, 2).unwrap(),
            MatRef::row_major(&b, rows, 2).unwrap(),
            MatMut::row_major(c, 2, 2).unwrap(),
            &mut scratch,
        )
    };
    for m in [0, 1, 2, 7] {
        assert!(
            matches!(
                multiply(m, 2, false, &mut c),
                Err(KernelError::Range { .. })
            ),
            "{m}"
        );
    }
    assert!(
        matches!(multiply(9, 2, true, &mut c), Err(KernelError::Range { .. })),
        "C is not below 9"
    );
    assert!(matches!(
        multiply(11, 1, false, &mut c),
        Err(KernelError::Shape { .. })
    ));
    assert_eq!(c, [9; 4]);
    multiply(11, 2, true, &mut c).unwrap();
    assert_eq!(
        c,
        [(8 + 9) % 11, (17 + 9) % 11, (20 + 9) % 11, (37 + 9) % 11]
    );
}

#[test]
fn an_inner_dimension_of_zero_gives_zeros_or_leaves_c() {
    let mut scratch = Scratch::new();
    for (accumulate, expected) in [(true, 5), (false, 0)] {
        let mut c = [5u64; 6];
        let (a, b) = (
            MatRef::row_major(&[], 2, 0).unwrap(),
            MatRef::row_major(&[], 0, 3).unwrap(),
        );
        let view = MatMut::row_major(&mut c, 2, 3).unwrap();
        matmul(7, accumulate, a, b, view, &mut scratch).unwrap();
        assert_eq!(c, [expected; 6]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_products_agree_with_the_definition(
        bits in 1u32..=64, word: u64, rows in 1usize..20, inner in 1usize..80, cols in 1usize..20, seed: u64,
    ) {
        check((word >> (64 - bits)).max(2), (rows, inner, cols), seed, &mut Scratch::new());
    }
}
