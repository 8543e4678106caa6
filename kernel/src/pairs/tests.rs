//! Every instance of this machine against arithmetic in wide integers.

use alloc::vec;
use alloc::vec::Vec;

use super::crt::{PairProduct, Problem};
use super::short::{Digits, ShortProduct, integer_planes};
use super::{Layout, Operand, SPARE};
use crate::arch::pairs::{MAX_WIDTH, Out, PairKernel, Reduction, TERMS, kernels};
use crate::integer::ceil_log2;
use crate::matrix::{MatMut, MatRef};
use crate::random::ChaCha;

fn every_kernel() -> impl Iterator<Item = PairKernel> {
    kernels().into_iter().flatten()
}

/// Rows, inner dimension, columns.
type Shape = (usize, usize, usize);

/// All shapes up to 13; under Miri, which interprets every step, two of them.
fn small_shapes() -> impl Iterator<Item = Shape> {
    let sizes = || 1..=13;
    let all = sizes().flat_map(move |rows| {
        sizes().flat_map(move |inner| sizes().map(move |cols| (rows, inner, cols)))
    });
    all.filter(|shape| !cfg!(miri) || [(2, 13, 1), (13, 2, 13)].contains(shape))
}

/// A few shapes around the sizes of blocks and tiles.
const SHAPES: [Shape; 6] = [
    (1, 511, 1),
    (3, 512, 70),
    (29, 513, 2),
    (2, 1024, 33),
    (5, 1543, 4),
    (64, 20, 129),
];

/// Integers of at most `bits` bits of magnitude, often the extremes.
fn integers(random: &mut ChaCha, count: usize, bits: u32) -> Vec<i64> {
    let most = ((1u64 << bits) - 1) as i64;
    (0..count)
        .map(|_| match random.next() % 4 {
            0 => most,
            1 => -most,
            _ => (random.below(2 * most as u64 + 1)) as i64 - most,
        })
        .collect()
}

fn words(random: &mut ChaCha, count: usize, m: u64) -> Vec<u64> {
    (0..count)
        .map(|_| match random.next() % 8 {
            0 => m - 1,
            1 => m / 2,
            2 => (m / 2 + 1) % m,
            _ => random.below(m),
        })
        .collect()
}

fn sum(a: &[i64], b: &[i64], (_, inner, cols): Shape, at: usize) -> i128 {
    (0..inner)
        .map(|k| i128::from(a[at / cols * inner + k]) * i128::from(b[k * cols + at % cols]))
        .sum()
}

fn as_words(x: &[i64]) -> Vec<u64> {
    x.iter().map(|&x| x as u64).collect()
}

/// The product of integers of `bits`, in two slabs if `inner` is even.
fn check_integers(
    product: &mut impl Product,
    kernel: &PairKernel,
    random: &mut ChaCha,
    shape: Shape,
    bits: [u32; 2],
) {
    let (rows, inner, cols) = shape;
    let a = integers(random, rows * inner, bits[0]);
    let b = integers(random, inner * cols, bits[1]);
    product.start(shape, bits);
    let slabs = 2 - inner % 2;
    let depth = inner / slabs;
    for slab in 0..slabs {
        let left: Vec<i64> = (0..rows)
            .flat_map(|i| &a[i * inner + slab * depth..][..depth])
            .copied()
            .collect();
        let right = &b[slab * depth * cols..][..depth * cols];
        product.slab(
            &Operand::rows(&as_words(&left), 1, rows, depth),
            &Operand::columns(&as_words(right), 1, depth, cols),
        );
    }
    let limbs = 3;
    let mut bytes = vec![0xaa; rows * cols * limbs * 8];
    product.end(limbs, &mut bytes);
    for (at, bytes) in bytes.chunks_exact(limbs * 8).enumerate() {
        let (low, high) = bytes.split_at(16);
        let found = i128::from_le_bytes(low.try_into().unwrap());
        assert_eq!(
            found,
            sum(&a, &b, shape, at),
            "element {at} of {shape:?}, {bits:?} bits, {}",
            kernel.name()
        );
        let sign = if found < 0 { 0xff } else { 0 };
        assert!(high.iter().all(|&byte| byte == sign), "the sign goes on");
    }
}

/// Both ways for integers.
trait Product {
    fn start(&mut self, shape: Shape, bits: [u32; 2]);
    fn slab(&mut self, a: &Operand<'_>, b: &Operand<'_>);
    fn end(&mut self, limbs: usize, output: &mut [u8]);
}

impl Product for PairProduct {
    fn start(&mut self, (rows, inner, cols): Shape, [a, b]: [u32; 2]) {
        self.reset(problem((rows, inner, cols), [a, b])).unwrap();
    }
    fn slab(&mut self, a: &Operand<'_>, b: &Operand<'_>) {
        assert!(self.accumulate(a, b).unwrap());
    }
    fn end(&mut self, limbs: usize, output: &mut [u8]) {
        self.finish(limbs, output).unwrap();
    }
}

impl Product for ShortProduct {
    fn start(&mut self, (rows, inner, cols): Shape, [a, b]: [u32; 2]) {
        let planes = integer_planes(a, b, a + b + ceil_log2(inner)).unwrap();
        self.reset(rows, cols, planes).unwrap();
    }
    fn slab(&mut self, a: &Operand<'_>, b: &Operand<'_>) {
        self.accumulate(a, b).unwrap();
    }
    fn end(&mut self, limbs: usize, output: &mut [u8]) {
        self.finish(limbs, output);
    }
}

fn problem((rows, inner, cols): Shape, [a_bits, b_bits]: [u32; 2]) -> Problem {
    Problem {
        rows,
        cols,
        // Rounded up, so that shapes share the constants.
        bits: a_bits + b_bits + ceil_log2(inner).next_multiple_of(4),
        a_bits: a_bits + 1,
        b_bits: b_bits + 1,
        modulus: None,
    }
}

#[test]
fn every_instance_multiplies_integers_by_primes() {
    let mut random = ChaCha::new([31; 32]);
    for kernel in every_kernel() {
        let bits = [62, 40];
        let mut product = PairProduct::new(kernel, problem((1, 1, 1), bits)).unwrap();
        for shape in small_shapes() {
            check_integers(&mut product, &kernel, &mut random, shape, bits);
        }
        if cfg!(miri) {
            continue;
        }
        for shape in SHAPES {
            for bits in [[1, 1], [12, 11], [31, 32], [50, 62], [62, 51]] {
                check_integers(&mut product, &kernel, &mut random, shape, bits);
            }
        }
    }
}

#[test]
fn every_instance_multiplies_short_integers() {
    let mut random = ChaCha::new([32; 32]);
    for kernel in every_kernel() {
        let mut product = ShortProduct::new(kernel, 1, 1, 1).unwrap();
        for shape in small_shapes() {
            for bits in [[15, 15], [13, 12]] {
                check_integers(&mut product, &kernel, &mut random, shape, bits);
            }
        }
        if cfg!(miri) {
            continue;
        }
        for shape in SHAPES {
            for bits in [[15, 15], [1, 15], [10, 10], [15, 16 - 8]] {
                check_integers(&mut product, &kernel, &mut random, shape, bits);
            }
        }
        // Results as large as 42 bits allow.
        check_integers(&mut product, &kernel, &mut random, (2, 4096, 3), [15, 15]);
        assert_eq!(integer_planes(15, 15, 42), Some(2));
        assert_eq!(integer_planes(15, 15, 43), None);
        assert_eq!(integer_planes(16, 1, 20), None);
    }
}

fn view(c: &mut [u64], rows: usize, cols: usize, strided: bool) -> MatMut<'_, u64> {
    if strided {
        MatMut::new(c, rows, cols, 1, rows).unwrap()
    } else {
        MatMut::row_major(c, rows, cols).unwrap()
    }
}

/// A product modulo m by primes or in digits, with C and A and B at strides if `strided`.
fn check_words(
    kernel: PairKernel,
    crt: &mut Option<PairProduct>,
    short: &mut Option<ShortProduct>,
    random: &mut ChaCha,
    shape: Shape,
    m: u64,
    strided: bool,
) {
    let (rows, inner, cols) = shape;
    let a = words(random, rows * inner, m);
    let b = words(random, inner * cols, m);
    let old = words(random, rows * cols, m);
    let (left, right) = if strided {
        (
            MatRef::new(&a, rows, inner, 1, rows).unwrap(),
            MatRef::new(&b, inner, cols, 1, inner).unwrap(),
        )
    } else {
        (
            MatRef::row_major(&a, rows, inner).unwrap(),
            MatRef::row_major(&b, inner, cols).unwrap(),
        )
    };
    let operands = [
        Operand::words(left, m),
        Operand::words(right.transposed(), m),
    ];
    let digits = Digits::new(m).filter(|digits| inner <= digits.terms);
    for accumulate in [false, true] {
        let expected: Vec<u64> = (0..rows * cols)
            .map(|at| {
                let start = if accumulate { old[at] } else { 0 };
                (0..inner).fold(start, |sum, k| {
                    let product =
                        u128::from(left.at(at / cols, k)) * u128::from(right.at(k, at % cols));
                    ((u128::from(sum) + product) % u128::from(m)) as u64
                })
            })
            .collect();
        for way in 0..2 {
            let mut c = vec![if accumulate { 0 } else { u64::MAX }; rows * cols];
            let mut to = view(&mut c, rows, cols, strided);
            if accumulate {
                for (at, &x) in old.iter().enumerate() {
                    to.set(at / cols, at % cols, x);
                }
            }
            let [left, right] = &operands;
            if way == 0 {
                let half = u128::from(m / 2);
                let problem = Problem {
                    rows,
                    cols,
                    bits: 128 - (half * half).leading_zeros()
                        + ceil_log2(inner).next_multiple_of(4),
                    a_bits: (65 - (m / 2).leading_zeros()).min(64),
                    b_bits: (65 - (m / 2).leading_zeros()).min(64),
                    modulus: Some(m),
                };
                let product = crt.get_or_insert_with(|| PairProduct::new(kernel, problem).unwrap());
                product.reset(problem).unwrap();
                assert!(product.accumulate(left, right).unwrap());
                product.finish_words(accumulate, &mut to).unwrap();
            } else if let Some(digits) = digits {
                let product = short.get_or_insert_with(|| {
                    ShortProduct::new(kernel, rows, cols, digits.planes()).unwrap()
                });
                product.reset(rows, cols, digits.planes()).unwrap();
                assert!(product.accumulate_words(digits, left, right).unwrap());
                product.finish_words(m, digits, accumulate, &mut to);
            } else {
                continue;
            }
            let found = view(&mut c, rows, cols, strided);
            for (at, &expected) in expected.iter().enumerate() {
                assert_eq!(
                    found.at(at / cols, at % cols),
                    expected,
                    "element {at} of {shape:?} modulo {m}, way {way}, {accumulate}, {}",
                    kernel.name()
                );
            }
        }
    }
}

#[test]
fn every_instance_multiplies_words_of_every_size() {
    let mut random = ChaCha::new([33; 32]);
    for kernel in every_kernel() {
        let (mut crt, mut short) = (None, None);
        for (index, shape) in small_shapes().enumerate() {
            for m in [(1 << 20) - 3, (1 << 61) - 1] {
                let strided = index % 2 == 1;
                check_words(kernel, &mut crt, &mut short, &mut random, shape, m, strided);
            }
        }
        if cfg!(miri) {
            continue;
        }
        for bits in 1..=64 {
            let top = u64::MAX >> (64 - bits);
            for m in [top, top / 2 + 1, top - top / 3]
                .into_iter()
                .filter(|&m| m > 1)
            {
                check_words(
                    kernel,
                    &mut crt,
                    &mut short,
                    &mut random,
                    (3, 21, 5),
                    m,
                    false,
                );
            }
        }
        for shape in SHAPES {
            for m in [2, 4095, 1_048_573, 1 << 21, (1 << 31) - 1, u64::MAX] {
                check_words(kernel, &mut crt, &mut short, &mut random, shape, m, true);
            }
        }
        for _ in 0..4 {
            let mut size = || 1 + random.below(300) as usize;
            let shape = (size(), size(), size());
            for m in [1_048_573, (1 << 61) - 1] {
                check_words(kernel, &mut crt, &mut short, &mut random, shape, m, false);
            }
        }
    }
}

/// Residues in both halves.
fn both(x: i32) -> u32 {
    x as u32 & 0xffff | (x as u32) << 16
}

#[test]
fn sums_of_the_largest_residues_stay_within_their_bits() {
    let field = Reduction {
        p: 3907,
        inverse: 1.0 / 3907.0,
    };
    for kernel in every_kernel() {
        let (mr, nr) = (kernel.mr, kernel.nr);
        for (left, right) in [(2047, 2047), (-2047, 2047), (-2047, -2047)] {
            for out in [Out::Low(field), Out::High(field), Out::Whole] {
                let (a, b) = (vec![both(left); 256 * mr], vec![both(right); 256 * nr]);
                let old = if left == right { 2337 } else { -2337 };
                let start = if matches!(out, Out::Whole) {
                    old as u32
                } else {
                    both(old)
                };
                let mut c = vec![start; mr * nr];
                for load in [true, false] {
                    kernel.tile(256, &a, &b, &mut c, nr, nr, load, out);
                    let sum = 512 * left * right + if load { old } else { 0 };
                    for &c in &c {
                        let found = match out {
                            Out::Whole => c as i32,
                            Out::Low(_) => i32::from(c as i16),
                            Out::High(_) => c as i32 >> 16,
                        };
                        if matches!(out, Out::Whole) {
                            assert_eq!(found, sum, "{}", kernel.name());
                        } else {
                            assert_eq!((i64::from(found) - i64::from(sum)) % 3907, 0);
                            assert!(found.abs() <= 2337, "{found}, {}", kernel.name());
                        }
                        if load && matches!(out, Out::Low(_)) {
                            assert_eq!(c as i32 >> 16, old, "the high half stays");
                        }
                        if matches!(out, Out::High(_)) {
                            assert_eq!(i32::from(c as i16), old, "the low half stays");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn residues_of_all_digits_are_small_and_congruent() {
    let mut random = ChaCha::new([34; 32]);
    for kernel in every_kernel() {
        for p in [2053, 2801, 3907] {
            let field = Reduction {
                p,
                inverse: 1.0 / p as f32,
            };
            for terms in [1, 2, 3, TERMS, TERMS + 1, 3 * TERMS] {
                for largest in [false, true] {
                    let len = MAX_WIDTH;
                    let mut draw = |most: i32| {
                        let half = |x: u64| match (x % 3, largest) {
                            (0, true) => -most - 1,
                            (_, true) => -most,
                            _ => (x % (2 * most as u64 + 1)) as i32 - most,
                        };
                        let (low, high) = (half(random.next()), half(random.next()));
                        low as u32 & 0xffff | (high as u32) << 16
                    };
                    let digits: Vec<u32> = (0..2 * terms * len).map(|_| draw(32_767)).collect();
                    let weights: Vec<u32> = (0..terms).map(|_| draw(p / 2 - 1)).collect();
                    let mut found = vec![0; len];
                    kernel.residues(&digits, &weights, p / 2, field, &mut found);
                    for i in 0..len {
                        for (e, residue) in [found[i] as i16, (found[i] >> 16) as i16]
                            .into_iter()
                            .enumerate()
                        {
                            let sum = (0..terms).fold(i64::from(p / 2), |sum, t| {
                                let (x, w) = (digits[(e * terms + t) * len + i], weights[t]);
                                sum + i64::from(x as i16) * i64::from(w as i16)
                                    + i64::from(x as i32 >> 16) * i64::from(w as i32 >> 16)
                            });
                            assert_eq!((sum - i64::from(residue)) % i64::from(p), 0);
                            assert!(i32::from(residue).abs() <= p / 2 + 94, "{residue} of {p}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_element_of_a_plane_has_one_place() {
    for kernel in every_kernel() {
        assert!(SPARE.is_multiple_of(kernel.lanes) && kernel.nr <= MAX_WIDTH);
        for (rows, cols) in [(1, 1), (13, 7), (30, 100)] {
            let layout = Layout::new(&kernel, rows, cols);
            let mut seen = vec![0; rows * cols];
            for at in (0..layout.len()).step_by(48) {
                for (row, col, part) in layout.parts(at, at + 48, rows) {
                    assert!(part.end <= 48);
                    seen[row * cols + col..][..part.len()]
                        .iter_mut()
                        .for_each(|seen| *seen += 1);
                }
            }
            assert!(seen.iter().all(|&times| times == 1));
        }
    }
}
