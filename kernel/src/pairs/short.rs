//! Products of short numbers, without primes or with one.
//!
//! Integers of at most 15 bits are 16-bit numbers already. Their product is right modulo 2^32 whatever its
//! size. If that is not enough, a residue r modulo a prime p tells the rest: with c the 32 bits, signed,
//!
//! ```text
//! C = c + 2^32·t,   t = (r - c)·2^-32 mod p, nearest to 0           |C| <= 2^32·(p - 1)/2 - 2^31
//! ```
//!
//! Words modulo m up to 2^21 are balanced and cut in two digits, x = x1·2^s + x0. Three products do for
//! four, as long as their sums stay within 31 bits:
//!
//! ```text
//! A·B = P1·2^(2s) + (P2 - P1 - P0)·2^s + P0,   P0 = A0·B0,  P1 = A1·B1,  P2 = (A0 + A1)·(B0 + B1)
//! ```
//!
//! Source of the second: Karatsuba, Ofman, *Multiplication of Multidigit Numbers on Automata*, 1963.

use alloc::vec::Vec;

use super::{Layout, Operand, Panels, Planes, Side, blocks, flip, multiply};
use crate::arch::pairs::{MAX_WIDTH, Out, PairKernel, Reduction};
use crate::arch::widest;
use crate::matrix::{KernelError, MatMut, product, resize};

/// The prime that tells what is beyond 32 bits.
const PRIME: i32 = 3907;

/// 2^-32 modulo [`PRIME`], nearest to 0.
const INVERSE: f64 = {
    let (p, two) = (PRIME as i64, (1i64 << 32) % PRIME as i64);
    let mut inverse = 1;
    while inverse * two % p != 1 {
        inverse += 1;
    }
    (if inverse > p / 2 {
        inverse - p
    } else {
        inverse
    }) as f64
};

/// Bits of the magnitude of results that 32 bits and a residue determine.
const INTEGER_BITS: u32 = 42;
const _: () = assert!((((PRIME as i64 - 1) / 2) << 32) - (1 << 31) >= 1 << INTEGER_BITS);

/// Planes of integers for operands of these bits (without sign) and results below 2^bits in magnitude.
pub(crate) fn integer_planes(a_bits: u32, b_bits: u32, bits: u32) -> Option<usize> {
    if a_bits.max(b_bits) > 15 || bits > INTEGER_BITS {
        None
    } else if bits <= 31 {
        Some(1)
    } else {
        Some(2)
    }
}

/// A modulus, and how words are cut in digits for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Digits {
    /// Bits of the low digit; 0 if there is one only.
    split: u32,
    /// Terms that may be summed.
    pub(crate) terms: usize,
}

impl Digits {
    /// The largest modulus.
    const MODULUS: u64 = 1 << 21;

    /// For words below m, if they are short enough.
    pub(crate) fn new(m: u64) -> Option<Self> {
        if m > Self::MODULUS {
            return None;
        }
        let half = m / 2;
        // One digit if that leaves long sums.
        let (split, most) = if half < 1 << 11 {
            (0, half)
        } else {
            let split = (64 - half.leading_zeros()) / 2;
            let low = 1 << (split - 1);
            (split, low + ((half + low) >> split))
        };
        let terms = ((1 << 31) - 1) / (most * most);
        Some(Self {
            split,
            terms: usize::try_from(terms).unwrap_or(usize::MAX),
        })
    }

    /// Products for one product.
    pub(crate) fn planes(&self) -> usize {
        if self.split == 0 { 1 } else { 3 }
    }
}

/// A product of short numbers, slab by slab.
#[derive(Debug)]
pub(crate) struct ShortProduct {
    kernel: PairKernel,
    rows: usize,
    cols: usize,
    count: usize,
    started: bool,
    /// Planes of padded rows.
    c: Vec<u32>,
    planes: Planes,
}

impl ShortProduct {
    pub(crate) fn new(
        kernel: PairKernel,
        rows: usize,
        cols: usize,
        count: usize,
    ) -> Result<Self, KernelError> {
        let mut made = Self {
            kernel,
            rows,
            cols,
            count,
            started: false,
            c: Vec::new(),
            planes: Planes::default(),
        };
        made.reset(rows, cols, count)?;
        Ok(made)
    }

    /// Starts another product in the same buffers, of so many planes.
    pub(crate) fn reset(
        &mut self,
        rows: usize,
        cols: usize,
        count: usize,
    ) -> Result<(), KernelError> {
        (self.rows, self.cols, self.count) = (rows, cols, count);
        self.started = false;
        let plane = Layout::new(&self.kernel, rows, cols).len();
        resize(&mut self.c, product("planes of C", &[plane, count])?, 0)
    }

    /// Bytes held for products of this size with slabs of depth `inner`, at most; saturating.
    pub(crate) fn bytes(
        kernel: &PairKernel,
        (rows, inner, cols): (usize, usize, usize),
        count: usize,
    ) -> usize {
        Layout::new(kernel, rows, cols)
            .len()
            .saturating_mul(4 * count)
            .saturating_add(Planes::bytes(kernel, (rows, inner, cols), count, 1))
    }

    /// `C += A·B` of integers: A is rows × depth, B (given transposed) cols × depth.
    pub(crate) fn accumulate(
        &mut self,
        a: &Operand<'_>,
        b: &Operand<'_>,
    ) -> Result<(), KernelError> {
        let kernel = self.kernel;
        let field = Reduction {
            p: PRIME,
            inverse: 1.0 / PRIME as f32,
        };
        let convert = |index: usize, digits: &[u32], to: &mut [u32]| {
            if index == 0 {
                numbers(digits, to);
            } else {
                // x = (low - 2^15) + 2^16·high + 2^15.
                let high = (1 << 16) % PRIME - PRIME;
                let weights = [pair(1, high)];
                kernel.residues(digits, &weights, (1 << 15) % PRIME, field, to);
            }
        };
        let outs = [Out::Whole, Out::Low(field)];
        self.add(a, b, &convert, &|index| outs[index]).map(drop)
    }

    /// As [`Self::accumulate`] for words of these digits. Returns whether all are below the modulus; if
    /// not, the product is unusable until [`Self::reset`].
    pub(crate) fn accumulate_words(
        &mut self,
        digits: Digits,
        a: &Operand<'_>,
        b: &Operand<'_>,
    ) -> Result<bool, KernelError> {
        let convert = |index: usize, words: &[u32], to: &mut [u32]| match (digits.split, index) {
            (0, _) => numbers(words, to),
            (split, 0) => low_digits(words, split, to),
            (split, 1) => high_digits(words, split, to),
            (split, _) => digit_sums(words, split, to),
        };
        self.add(a, b, &convert, &|_| Out::Whole)
    }

    fn add(
        &mut self,
        a: &Operand<'_>,
        b: &Operand<'_>,
        convert: super::Convert<'_>,
        out: &dyn Fn(usize) -> Out,
    ) -> Result<bool, KernelError> {
        let kernel = &self.kernel;
        let layout = Layout::new(kernel, self.rows, self.cols);
        for (start, depth) in blocks(a.depth) {
            let pairs = depth.div_ceil(2);
            let left = Panels::new(self.rows, kernel.mr, pairs);
            let right = Panels::new(self.cols, kernel.nr, pairs);
            let planes = &mut self.planes;
            let below = planes.fill(Side::A, left, (a, start), 1, self.count, convert)?
                & planes.fill(Side::B, right, (b, start), 1, self.count, convert)?;
            if !below {
                return Ok(false);
            }
            let (a, b) = planes.both();
            for (index, c) in self.c.chunks_exact_mut(layout.len()).enumerate() {
                multiply(
                    kernel,
                    (&a[index * left.stride..], left),
                    (&b[index * right.stride..], right),
                    (c, layout),
                    self.started,
                    out(index),
                );
            }
            self.started = true;
        }
        Ok(true)
    }

    /// The parts of rows of C: row, column, and what each plane has there.
    fn parts(&self) -> impl Iterator<Item = (usize, usize, [&[u32]; 3])> {
        let layout = Layout::new(&self.kernel, self.rows, self.cols);
        let planes: [&[u32]; 3] = core::array::from_fn(|index| {
            self.c
                .get(index * layout.len()..(index + 1) * layout.len())
                .filter(|_| index < self.count)
                .unwrap_or_default()
        });
        layout
            .parts(0, layout.len(), self.rows)
            .map(move |(row, col, part)| {
                let planes = planes.map(|plane| plane.get(part.clone()).unwrap_or_default());
                (row, col, planes)
            })
    }

    /// Writes C, row-major, `limbs` limbs each, to `output` as little-endian bytes.
    pub(crate) fn finish(&self, limbs: usize, output: &mut [u8]) {
        for (row, col, [wholes, residues, _]) in self.parts() {
            let to = &mut output[(row * self.cols + col) * limbs * 8..];
            let to = to[..wholes.len() * limbs * 8].as_chunks_mut().0;
            integers(wholes, residues, limbs, to);
        }
    }

    /// Writes C modulo m to `c`, or adds it to what is there.
    pub(crate) fn finish_words(
        &self,
        m: u64,
        digits: Digits,
        accumulate: bool,
        c: &mut MatMut<'_, u64>,
    ) {
        let mut buffer = [0; MAX_WIDTH];
        for (row, col, [low, high, both]) in self.parts() {
            if let Some(to) = c.row_mut(row) {
                let to = &mut to[col..][..low.len()];
                words(m, digits.split, low, high, both, accumulate, to);
                continue;
            }
            let to = &mut buffer[..low.len()];
            for (j, to) in to.iter_mut().enumerate() {
                *to = c.at(row, col + j);
            }
            words(m, digits.split, low, high, both, accumulate, to);
            for (j, &word) in to.iter().enumerate() {
                c.set(row, col + j, word);
            }
        }
    }
}

/// The number of 32 bits that [`Operand`] made two signed digits of.
#[inline(always)]
fn whole(digits: u32) -> i32 {
    (digits ^ flip(0, 1)) as i32
}

#[inline(always)]
fn pair(low: i32, high: i32) -> u32 {
    low as u32 & 0xffff | (high as u32) << 16
}

/// Pairs of what `f` makes of the numbers of both parities.
#[inline(always)]
fn each(digits: &[u32], to: &mut [u32], f: impl Fn(i32) -> i32) {
    let (even, odd) = digits.split_at(to.len());
    for (to, (&even, &odd)) in to.iter_mut().zip(even.iter().zip(odd)) {
        *to = pair(f(whole(even)), f(whole(odd)));
    }
}

#[inline(always)]
fn high_digit(x: i32, split: u32) -> i32 {
    (x + (1 << (split - 1))) >> split
}

widest! {
    fn numbers(digits: &[u32], to: &mut [u32]) {
        each(digits, to, |x| x);
    }
}

widest! {
    fn low_digits(digits: &[u32], split: u32, to: &mut [u32]) {
        each(digits, to, |x| x - (high_digit(x, split) << split));
    }
}

widest! {
    fn high_digits(digits: &[u32], split: u32, to: &mut [u32]) {
        each(digits, to, |x| high_digit(x, split));
    }
}

widest! {
    fn digit_sums(digits: &[u32], split: u32, to: &mut [u32]) {
        each(digits, to, |x| x - (high_digit(x, split) << split) + high_digit(x, split));
    }
}

/// The integer nearest to x, |x| < 2^51.
#[inline(always)]
fn round(x: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0;
    (x + ROUND) - ROUND
}

/// The residue of x nearest to 0, |x| < 2^40: the quotient has no error worth a rounding, since p is odd.
#[inline(always)]
fn balanced(x: f64) -> f64 {
    x - round(x * (1.0 / PRIME as f64)) * PRIME as f64
}

widest! {
    /// Integers out of their low 32 bits and their residues.
    fn integers(wholes: &[u32], residues: &[u32], limbs: usize, to: &mut [[u8; 8]]) {
        let put = |to: &mut [[u8; 8]], x: i64| {
            for (limb, bytes) in to.iter_mut().enumerate() {
                *bytes = (if limb == 0 { x } else { x >> 63 }).to_le_bytes();
            }
        };
        let whole = |&x: &u32| i64::from(x as i32);
        let with = |low: i64, residue: u32| {
            let difference = balanced(f64::from(residue as i16) - low as i32 as f64);
            let high = balanced(difference * INVERSE);
            low + ((high as i32 as i64) << 32)
        };
        match (residues.is_empty(), limbs) {
            (true, 1) => to.iter_mut().zip(wholes).for_each(|(to, x)| *to = whole(x).to_le_bytes()),
            (false, 1) => {
                for (to, (x, &residue)) in to.iter_mut().zip(wholes.iter().zip(residues)) {
                    *to = with(whole(x), residue).to_le_bytes();
                }
            }
            (true, _) => to.chunks_exact_mut(limbs).zip(wholes).for_each(|(to, x)| put(to, whole(x))),
            (false, _) => {
                for (to, (x, &residue)) in to.chunks_exact_mut(limbs).zip(wholes.iter().zip(residues)) {
                    put(to, with(whole(x), residue));
                }
            }
        }
    }
}

widest! {
    /// Words out of the products of their digits: the low ones, and the high ones and those of sums.
    fn words(m: u64, split: u32, low: &[u32], high: &[u32], both: &[u32], accumulate: bool, to: &mut [u64]) {
        let (modulus, inverse) = (m as f64, 1.0 / m as f64);
        let reduce = |x: f64| x - round(x * inverse) * modulus;
        let put = |to: &mut u64, sum: f64| {
            let old = if accumulate { *to as u32 as f64 } else { 0.0 };
            // Of 2^51 at first, and then without an error in the quotient.
            let rest = reduce(reduce(sum + old));
            let rest = if rest < 0.0 { rest + modulus } else { rest };
            *to = u64::from(rest as i32 as u32);
        };
        let float = |x: &u32| f64::from(*x as i32);
        if high.is_empty() {
            to.iter_mut().zip(low).for_each(|(to, low)| put(to, float(low)));
            return;
        }
        let scale = (1u32 << split) as f64;
        for ((to, low), (high, both)) in to.iter_mut().zip(low).zip(high.iter().zip(both)) {
            let (low, high) = (float(low), float(high));
            put(to, (high * scale + (float(both) - high - low)) * scale + low);
        }
    }
}
