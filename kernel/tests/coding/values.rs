//! Integers and floating-point numbers through residues and shares, and back.

use gemmesh_kernel::coding::residues::{Crt, from_integers, primes, to_words};
use gemmesh_kernel::coding::{Code, Scheme, Side, fixed, uniform};
use num_bigint::BigInt;

use crate::{Draw, encode, field, parameters, product, views};

/// An integer of so many bits and a sign.
fn integer(draw: &mut Draw, bits: u32) -> BigInt {
    let digits: Vec<u32> = (0..bits.div_ceil(32)).map(|_| draw.next() as u32).collect();
    let most = (BigInt::from(1) << bits) - 1;
    let magnitude = match draw.below(5) {
        0 => most,
        1 => BigInt::from(0),
        _ => BigInt::from_slice(num_bigint::Sign::Plus, &digits) & most,
    };
    if draw.below(2) == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// Two's complement.
fn limbs(x: &BigInt, limbs: usize) -> Vec<u64> {
    let all: BigInt = x & ((BigInt::from(1) << (64 * limbs)) - 1);
    let mut digits = all.to_u64_digits().1;
    digits.resize(limbs, 0);
    digits
}

#[test]
fn integers_of_any_size_become_residues_and_come_back() {
    let mut draw = Draw::new(30);
    for (bits, size) in [
        (1, 1),
        (31, 1),
        (62, 1),
        (63, 1),
        (75, 2),
        (127, 2),
        (140, 3),
        (1000, 16),
    ] {
        for prime_bits in [8, 11, 12, 15] {
            let Ok(fields) = primes(bits, prime_bits) else {
                assert_eq!(
                    (bits, prime_bits),
                    (1000, 8),
                    "there are 23 primes of 8 bits"
                );
                continue;
            };
            let numbers: Vec<BigInt> = (0..700).map(|_| integer(&mut draw, bits)).collect();
            let words: Vec<u64> = numbers.iter().flat_map(|x| limbs(x, size)).collect();
            let planes: Vec<Vec<i16>> = fields
                .iter()
                .map(|modulus| {
                    let mut plane = vec![i16::MAX; numbers.len()];
                    from_integers(&[*modulus], &words, size, &mut [&mut plane]).unwrap();
                    let p = modulus.prime();
                    for (x, &residue) in numbers.iter().zip(&plane) {
                        assert_eq!((x - residue) % p, BigInt::from(0));
                        assert!(i32::from(residue).abs() <= (p / 2) as i32);
                    }
                    plane
                })
                .collect();
            let mut together = vec![vec![i16::MAX; numbers.len()]; fields.len()];
            let mut slices: Vec<&mut [i16]> = together.iter_mut().map(Vec::as_mut_slice).collect();
            from_integers(&fields, &words, size, &mut slices).unwrap();
            assert!(from_integers(&fields, &words[1..], size, &mut slices).is_err());
            assert!(from_integers(&fields[1..], &words, size, &mut slices).is_err());
            assert!(together == planes, "all at once");
            let mut back = vec![u64::MAX; words.len()];
            let mut crt = Crt::new(&fields).unwrap();
            crt.integers(&views(&planes), size, &mut back).unwrap();
            assert!(back == words, "{bits} bits, primes of {prime_bits}");
        }
    }
}

#[test]
fn the_largest_integers_that_primes_can_hold_come_back() {
    let fields = primes(40, 15).unwrap();
    let all: i128 = fields
        .iter()
        .map(|field| i128::from(field.prime()))
        .product();
    let numbers: Vec<i128> = (0..5).flat_map(|d| [all / 2 - d, d - all / 2]).collect();
    let words: Vec<u64> = numbers
        .iter()
        .flat_map(|&x| [x as u64, (x >> 64) as u64])
        .collect();
    let planes: Vec<Vec<i16>> = fields
        .iter()
        .map(|modulus| {
            let mut plane = vec![0; numbers.len()];
            from_integers(&[*modulus], &words, 2, &mut [&mut plane]).unwrap();
            plane
        })
        .collect();
    let mut crt = Crt::new(&fields).unwrap();
    let mut back = vec![0; words.len()];
    crt.integers(&views(&planes), 2, &mut back).unwrap();
    assert_eq!(back, words);
    assert!(Crt::new(&[]).is_err());
    assert!(Crt::new(&[field(7), field(11), field(7)]).is_err());
}

#[test]
fn residues_are_written_as_words() {
    let residues = [0, 1, -1, 16_374, -16_374];
    let mut words = [9; 5];
    to_words(&residues, &mut words).unwrap();
    assert_eq!(words.map(|x| x as i64), [0, 1, -1, 16_374, -16_374]);
}

/// C = A·B by shares of 5 devices modulo each prime.
fn by_shares(a: &[u64], b: &[u64], shape: [usize; 3], bits: u32, draw: &mut Draw) -> Vec<i128> {
    let [rows, inner, cols] = shape;
    assert_eq!(inner % 3, 0);
    let part = inner / 3;
    let fields = primes(bits, 15).unwrap();
    let planes: Vec<Vec<i16>> = fields
        .iter()
        .map(|&modulus| {
            let scheme = Scheme::InnerProduct { parts: 3 };
            let code = Code::new(parameters(scheme, 1, 0), modulus).unwrap();
            let residues = |x: &[u64]| {
                let mut plane = vec![0; x.len()];
                from_integers(&[modulus], x, 1, &mut [&mut plane]).unwrap();
                plane
            };
            let (left, right) = (residues(a), residues(b));
            let columns = |from: usize| -> Vec<i16> {
                let rows = left.chunks_exact(inner);
                rows.flat_map(|row| &row[from..from + part])
                    .copied()
                    .collect()
            };
            let lefts: Vec<Vec<i16>> = (0..3).map(|i| columns(i * part)).collect();
            let rights: Vec<Vec<i16>> = right
                .chunks_exact(part * cols)
                .map(<[i16]>::to_vec)
                .collect();
            let mut mask = |len| {
                let mut mask = vec![0; len];
                uniform::fill(&modulus, draw, &mut mask).unwrap();
                vec![mask]
            };
            let left = encode(&code, Side::Left, &lefts, &mask(rows * part));
            let right = encode(&code, Side::Right, &rights, &mask(part * cols));
            let answers: Vec<Vec<i16>> = left
                .iter()
                .zip(&right)
                .map(|(x, y)| product(modulus.prime(), x, y, [rows, part, cols]))
                .collect();
            let decoder = code.decoder(&[0, 1, 2, 3, 4]).unwrap();
            let mut c = vec![0; rows * cols];
            decoder.decode(&views(&answers), &mut [&mut c]).unwrap();
            c
        })
        .collect();
    let mut words = vec![0; 2 * rows * cols];
    let mut crt = Crt::new(&fields).unwrap();
    crt.integers(&views(&planes), 2, &mut words).unwrap();
    let pairs = words.chunks_exact(2);
    pairs
        .map(|x| (u128::from(x[1]) << 64 | u128::from(x[0])) as i128)
        .collect()
}

#[test]
fn products_of_integers_are_exact_by_shares() {
    let mut draw = Draw::new(31);
    let shape @ [rows, inner, cols] = [4, 9, 5];
    let mut draw_words = |len: usize| -> Vec<u64> {
        (0..len)
            .map(|_| {
                if draw.below(4) == 0 {
                    i64::MIN as u64
                } else {
                    draw.next()
                }
            })
            .collect()
    };
    let (a, b) = (draw_words(rows * inner), draw_words(inner * cols));
    // At most 9·2^126: not within two limbs, so halves of the numbers.
    let half = |x: Vec<u64>| -> Vec<u64> { x.iter().map(|&x| (x as i64 >> 4) as u64).collect() };
    let (a, b) = (half(a), half(b));
    let found = by_shares(&a, &b, shape, 123, &mut Draw::new(32));
    for i in 0..rows {
        for j in 0..cols {
            let sum: i128 = (0..inner)
                .map(|k| i128::from(a[i * inner + k] as i64) * i128::from(b[k * cols + j] as i64))
                .sum();
            assert_eq!(found[i * cols + j], sum);
        }
    }
}

#[test]
fn products_of_floats_are_within_the_stated_bound() {
    let mut draw = Draw::new(33);
    let shape @ [rows, inner, cols] = [3, 12, 4];
    for bits in [20, 24, 53] {
        // Rows and columns of very different size, one of zeros.
        let mut float = |scale: i32| match draw.below(8) {
            0 => 0.0,
            _ => (draw.next() as f64 / 2f64.powi(63) - 1.0) * 2f64.powi(scale),
        };
        let mut a: Vec<f64> = (0..rows * inner)
            .map(|at| float(40 * (at / inner) as i32))
            .collect();
        a[inner..2 * inner].fill(0.0);
        let b: Vec<f64> = (0..inner * cols)
            .map(|at| float(-30 * (at % cols) as i32))
            .collect();
        let column = |j: usize| b.iter().skip(j).step_by(cols).copied();
        let of_a: Vec<i32> = a
            .chunks_exact(inner)
            .map(|row| fixed::exponent(row.iter().copied()).unwrap())
            .collect();
        let of_b: Vec<i32> = (0..cols)
            .map(|j| fixed::exponent(column(j)).unwrap())
            .collect();
        assert_eq!(of_a[1], i32::MIN);
        let mut left = vec![0; a.len()];
        for (i, row) in a.chunks_exact(inner).enumerate() {
            fixed::to_integers(row, of_a[i], bits, &mut left[i * inner..][..inner]).unwrap();
        }
        let mut right = vec![0; b.len()];
        for (at, &x) in b.iter().enumerate() {
            fixed::to_integers(&[x], of_b[at % cols], bits, &mut right[at..=at]).unwrap();
        }
        let found = by_shares(
            &left,
            &right,
            shape,
            fixed::product_bits(bits, inner).unwrap(),
            &mut draw,
        );
        for i in 0..rows {
            for j in 0..cols {
                let value = fixed::from_integer(found[i * cols + j], of_a[i], of_b[j], bits);
                let bound = fixed::error_bound(inner, of_a[i], of_b[j], bits);
                // The sum in f64 is itself off by at most inner·2^-53 of the sum of magnitudes.
                let terms = || (0..inner).map(|k| a[i * inner + k] * b[k * cols + j]);
                let (sum, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                let slack = size * inner as f64 * f64::EPSILON;
                assert!(
                    (value - sum).abs() <= bound + slack,
                    "{value} {sum} {bound}"
                );
                if i == 1 {
                    assert_eq!((value, bound), (0.0, 0.0));
                } else {
                    let relative = bound / 2f64.powi(of_a[i] + of_b[j]);
                    assert!(relative < 1.3 * inner as f64 * 2f64.powi(-(bits as i32)) + 1e-14);
                }
            }
        }
    }
}

#[test]
fn numbers_without_a_fixed_point_are_refused() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(fixed::exponent([1.0, bad].into_iter()).is_err());
        assert!(fixed::to_integers(&[bad], 3, 20, &mut [0]).is_err());
    }
    assert!(
        fixed::to_integers(&[8.0], 3, 20, &mut [0]).is_ok(),
        "on the border"
    );
    assert!(fixed::to_integers(&[9.0], 3, 20, &mut [0]).is_err());
    assert!(fixed::to_integers(&[1.0], i32::MIN, 20, &mut [0]).is_err());
    assert!(fixed::to_integers(&[1.0], 1, 54, &mut [0]).is_err());
    assert!(fixed::product_bits(53, fixed::INNER_MAX).unwrap() <= 127);
    assert!(fixed::product_bits(53, fixed::INNER_MAX + 1).is_err());
    let tiny = f64::from_bits(1);
    let exponent = fixed::exponent([tiny].into_iter()).unwrap();
    let mut word = [0];
    fixed::to_integers(&[tiny], exponent, 53, &mut word).unwrap();
    assert_eq!(word, [1 << 52]);
}
