//! Products of words modulo any number, for masking and coding: elements are `u64` below the modulus m.
//!
//! Residues are balanced, |x| <= m/2, so that sums stay small:
//!
//! | m | way |
//! |---|---|
//! | up to 2^21 | one or three products of digits, as products of 16-bit numbers |
//! | up to about 2^24 | one product in `f64`, where as many terms as stay below 2^53 are summed before a reduction |
//! | below 2^32 | B = B1·2^s + B0: two such products |
//! | any | one product of 16-bit numbers for each of the primes of 12 bits that the sums need, put together modulo m by the Chinese remainder theorem |
//!
//! Of the ways that are possible it is the one of least cost, in products in `f64`: the number of products of
//! 16-bit numbers over how many of those the device does in the time of one in `f64`.
//!
//! Source of the second: Dumas, Giorgi, Pernet, *Dense Linear Algebra over Word-Size Prime Fields: the
//! FFLAS and FFPACK Packages*, ACM TOMS 35(3), 2008 (delayed reduction).
//! Of the last: Bernstein, *Multidigit modular multiplication with the explicit Chinese remainder theorem*, 1995.

use alloc::vec::Vec;

use crate::arch::widest;
use crate::gemm::{Class, Workspace, matmul as matmul_f64};
use crate::integer::ceil_log2;
use crate::matrix::{KernelError, MatMut, MatRef, product, resize, same};
use crate::pairs::crt::{PairProduct, Problem};
use crate::pairs::short::{Digits, ShortProduct};
use crate::pairs::{self, Operand, basis};

/// Memory that later products use again.
#[derive(Debug, Default)]
pub struct Scratch {
    a: Vec<f64>,
    /// The low and the high part of B, and of C.
    b: [Vec<f64>; 2],
    c: [Vec<f64>; 2],
    words: Vec<u64>,
    short: Option<ShortProduct>,
    pairs: Option<PairProduct>,
    workspace: Workspace,
}

impl Scratch {
    /// Nothing yet; the first product allocates.
    pub fn new() -> Self {
        Self::default()
    }
}

/// `C = A·B mod m`, or `C += A·B mod m` if `accumulate`, for any m from 2.
///
/// A is rows × inner, B is inner × cols, C is rows × cols, with any strides; every element of A and B
/// (and of C if `accumulate`) is below m, and so is the result. Cost: 2·rows·inner·cols operations in
/// `f64` once below 2^24 and twice below 2^32, or (2·log2(m) + log2(inner))/12 times as products of 16-bit
/// numbers; and as many conversions of each element.
///
/// # Errors
/// `Range` if m < 2 or an element is not below m; `Shape` if the sizes do not agree; `OutOfMemory`. C is
/// then unchanged.
pub fn matmul(
    m: u64,
    accumulate: bool,
    a: MatRef<'_, u64>,
    b: MatRef<'_, u64>,
    mut c: MatMut<'_, u64>,
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    same("rows of B (expected: columns of A)", a.cols(), b.rows())?;
    same("rows of C (expected: rows of A)", a.rows(), c.rows())?;
    same("columns of C (expected: columns of B)", b.cols(), c.cols())?;
    if m < 2 {
        return Err(KernelError::Range {
            what: "modulus (from 2)",
        });
    }
    if accumulate {
        check(&c.as_ref(), m)?;
    }
    let (rows, inner, cols) = (a.rows(), a.cols(), b.cols());
    if rows == 0 || cols == 0 || inner == 0 {
        check(&a, m)?;
        check(&b, m)?;
        if !accumulate {
            c.for_each(|x| *x = 0);
        }
        return Ok(());
    }
    match Way::of(m, rows, inner, cols) {
        Way::Digits(digits) => in_digits(m, digits, accumulate, a, b, c, scratch),
        Way::Floats(ring) => in_floats(&ring, accumulate, a, b, c, scratch),
        Way::Pairs(bits) => by_pairs(m, bits, accumulate, a, b, c, scratch),
    }
}

/// For an element that is not below the modulus.
const TOO_LARGE: KernelError = KernelError::Range {
    what: "an element (not below the modulus)",
};

fn check(x: &MatRef<'_, u64>, m: u64) -> Result<(), KernelError> {
    let mut row = Vec::new();
    for i in 0..x.rows() {
        if !below(row_of(x, i, &mut row)?, m) {
            return Err(TOO_LARGE);
        }
    }
    Ok(())
}

/// Row i, where it lies if it is contiguous, else copied to `buffer`.
fn row_of<'r>(
    x: &MatRef<'r, u64>,
    i: usize,
    buffer: &'r mut Vec<u64>,
) -> Result<&'r [u64], KernelError> {
    if let Some(row) = x.row(i) {
        return Ok(row);
    }
    resize(buffer, x.cols(), 0)?;
    for (j, to) in buffer.iter_mut().enumerate() {
        *to = x.at(i, j);
    }
    Ok(buffer)
}

widest! {
    fn below(row: &[u64], m: u64) -> bool {
        // Without an early end, so that it is one comparison for each vector.
        row.iter().fold(true, |all, &x| all & (x < m))
    }
}

enum Way {
    Digits(Digits),
    Floats(Ring),
    /// By primes, for results below 2^bits in magnitude.
    Pairs(u32),
}

impl Way {
    /// The way of least cost, relative to a product in `f64`.
    fn of(m: u64, rows: usize, inner: usize, cols: usize) -> Self {
        let kernel = pairs::kernel();
        let cost = |products: usize| kernel.cost(products, rows, cols);
        let half = u128::from(m / 2);
        let bits = 128 - (half * half).leading_zeros() + ceil_log2(inner);
        let by_pairs = basis::needed(bits).map_or(f64::INFINITY, cost);
        if m >= 1 << 32 {
            return Self::Pairs(bits);
        }
        let whole = Ring::new(m, None);
        let (floats, ring): (f64, Ring) = if whole.terms >= 128 {
            (1.0, whole)
        } else {
            let bits = 64 - m.leading_zeros();
            (2.0, Ring::new(m, Some(bits / 2)))
        };
        let best = floats.min(by_pairs);
        match Digits::new(m) {
            Some(digits) if cost(digits.planes()) < best => Self::Digits(digits),
            _ if by_pairs < floats => Self::Pairs(bits),
            _ => Self::Floats(ring),
        }
    }
}

/// A modulus below 2^32 and what reduction in `f64` needs.
#[derive(Clone, Copy, Debug)]
struct Ring {
    m: f64,
    inverse: f64,
    word: u64,
    /// The bits of the low part of B, if B is cut in two.
    split: Option<u32>,
    /// Terms that are summed before a reduction.
    terms: usize,
}

impl Ring {
    fn new(m: u64, split: Option<u32>) -> Self {
        let half = m / 2;
        // The largest magnitude in B or either part of it.
        let part = split.map_or(half, |s| (1 << (s - 1)).max((half >> s) + 1));
        // `reduce` takes magnitudes below 2^53 - m (its quotient times m is exact) and quotients below
        // 2^51 (its rounding).
        let most = ((1 << 53) - (1 << 33)).min(m.min(8) << 50);
        let terms = (most - half - 2) / (half * part);
        Self {
            m: m as f64,
            inverse: 1.0 / m as f64,
            word: m,
            split,
            terms: usize::try_from(terms).unwrap_or(usize::MAX),
        }
    }

    /// As [`crate::field::Modulus::reduce`]: at most m/2 + 2 in magnitude, and at most m/2 if `x` is so
    /// small that its quotient has no error worth a rounding.
    #[inline(always)]
    fn reduce(&self, x: f64) -> f64 {
        const ROUND: f64 = 6_755_399_441_055_744.0;
        let quotient = (x * self.inverse + ROUND) - ROUND;
        x - quotient * self.m
    }

    /// The residue from 0 to m - 1.
    #[inline(always)]
    fn word(&self, x: f64) -> u64 {
        let balanced = self.reduce(self.reduce(x));
        let positive = if balanced < 0.0 {
            balanced + self.m
        } else {
            balanced
        };
        // Below 2^32: the low bits of the number 2^52 + x are x.
        (positive + 4_503_599_627_370_496.0).to_bits() & 0xffff_ffff
    }
}

/// x as a balanced residue, |x| <= m/2 < 2^31.
#[inline(always)]
fn balance(x: u64, m: u64) -> i32 {
    let x = x as u32;
    (if u64::from(x) > m / 2 {
        x.wrapping_sub(m as u32)
    } else {
        x
    }) as i32
}

widest! {
    /// Balanced residues, and whether all of the row is below m.
    fn floats(row: &[u64], m: u64, to: &mut [f64]) -> bool {
        let mut all = true;
        for (to, &x) in to.iter_mut().zip(row) {
            all &= x < m;
            *to = f64::from(balance(x, m));
        }
        all
    }
}

widest! {
    /// As [`floats`], in two parts: x = high·2^split + low with |low| <= 2^(split - 1).
    fn halves(row: &[u64], m: u64, split: u32, low: &mut [f64], high: &mut [f64]) -> bool {
        let mut all = true;
        for ((low, high), &x) in low.iter_mut().zip(high).zip(row) {
            all &= x < m;
            let x = balance(x, m);
            let top = (i64::from(x) + (1 << (split - 1))) >> split;
            *high = f64::from(top as i32);
            *low = f64::from(x.wrapping_sub((top as i32) << split));
        }
        all
    }
}

widest! {
    fn reduce_all(ring: &Ring, c: &mut [f64]) {
        for x in c {
            *x = ring.reduce(*x);
        }
    }
}

widest! {
    /// `low + high·2^split` into `to`, added to what is there if `accumulate`.
    fn words(ring: &Ring, low: &[f64], high: Option<&[f64]>, accumulate: bool, to: &mut [u64]) {
        let scale = ring.split.map_or(0.0, |split| (1u64 << split) as f64);
        let sum = |to: &mut u64, x: f64| {
            let x = if accumulate { x + *to as f64 } else { x };
            *to = ring.word(x);
        };
        match high {
            None => to.iter_mut().zip(low).for_each(|(to, &x)| sum(to, ring.reduce(x))),
            Some(high) => to
                .iter_mut()
                .zip(low.iter().zip(high))
                .for_each(|(to, (&low, &high))| {
                    sum(to, ring.reduce(low) + ring.reduce(high) * scale);
                }),
        }
    }
}

fn in_floats(
    ring: &Ring,
    accumulate: bool,
    a: MatRef<'_, u64>,
    b: MatRef<'_, u64>,
    mut c: MatMut<'_, u64>,
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    let (rows, inner, cols) = (a.rows(), a.cols(), b.cols());
    let parts = if ring.split.is_some() { 2 } else { 1 };
    let (in_a, in_b, out) = (
        product("elements of A", &[rows, inner])?,
        product("elements of B", &[inner, cols])?,
        product("elements of C", &[rows, cols])?,
    );
    resize(&mut scratch.a, in_a, 0.0)?;
    for part in 0..parts {
        resize(&mut scratch.b[part], in_b, 0.0)?;
        resize(&mut scratch.c[part], out, 0.0)?;
    }
    let buffer = &mut scratch.words;
    let mut all = true;
    for (i, to) in scratch.a.chunks_exact_mut(inner).enumerate() {
        all &= floats(row_of(&a, i, buffer)?, ring.word, to);
    }
    let [low, high] = &mut scratch.b;
    match ring.split {
        None => {
            for (i, to) in low.chunks_exact_mut(cols).enumerate() {
                all &= floats(row_of(&b, i, buffer)?, ring.word, to);
            }
        }
        Some(split) => {
            let parts = low.chunks_exact_mut(cols).zip(high.chunks_exact_mut(cols));
            for (i, (low, high)) in parts.enumerate() {
                all &= halves(row_of(&b, i, buffer)?, ring.word, split, low, high);
            }
        }
    }
    if !all {
        return Err(TOO_LARGE);
    }
    let steps = inner.div_ceil(ring.terms);
    let step = inner.div_ceil(steps);
    let left = MatRef::row_major(&scratch.a, rows, inner)?;
    for (b, c) in scratch.b.iter().zip(&mut scratch.c).take(parts) {
        let right = MatRef::row_major(b, inner, cols)?;
        for start in (0..inner).step_by(step) {
            let depth = step.min(inner - start);
            matmul_f64(
                Class::Any,
                start > 0,
                left.part(0, start, rows, depth)?,
                right.part(start, 0, depth, cols)?,
                MatMut::row_major(c, rows, cols)?,
                &mut scratch.workspace,
            )?;
            if start + depth < inner {
                reduce_all(ring, c);
            }
        }
    }
    for i in 0..rows {
        let low = &scratch.c[0][i * cols..][..cols];
        let high = ring.split.map(|_| &scratch.c[1][i * cols..][..cols]);
        put_row(&mut c, i, buffer, |row| {
            words(ring, low, high, accumulate, row)
        })?;
    }
    Ok(())
}

/// Lets `change` write row i of C, through `buffer` where the row is not contiguous.
fn put_row(
    c: &mut MatMut<'_, u64>,
    i: usize,
    buffer: &mut Vec<u64>,
    change: impl FnOnce(&mut [u64]),
) -> Result<(), KernelError> {
    if let Some(row) = c.row_mut(i) {
        change(row);
        return Ok(());
    }
    resize(buffer, c.cols(), 0)?;
    for (j, to) in buffer.iter_mut().enumerate() {
        *to = c.at(i, j);
    }
    change(buffer);
    for (j, &x) in buffer.iter().enumerate() {
        c.set(i, j, x);
    }
    Ok(())
}

fn by_pairs(
    m: u64,
    bits: u32,
    accumulate: bool,
    a: MatRef<'_, u64>,
    b: MatRef<'_, u64>,
    mut c: MatMut<'_, u64>,
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    // Balanced residues as two's complement.
    let width = 65 - (m / 2).leading_zeros();
    let problem = Problem {
        rows: a.rows(),
        cols: b.cols(),
        bits,
        a_bits: width.min(64),
        b_bits: width.min(64),
        modulus: Some(m),
    };
    let product = match &mut scratch.pairs {
        Some(product) => {
            product.reset(problem)?;
            product
        }
        none => none.insert(PairProduct::new(pairs::kernel(), problem)?),
    };
    let (left, right) = (Operand::words(a, m), Operand::words(b.transposed(), m));
    if !product.accumulate(&left, &right)? {
        return Err(TOO_LARGE);
    }
    product.finish_words(accumulate, &mut c)
}

fn in_digits(
    m: u64,
    digits: Digits,
    accumulate: bool,
    a: MatRef<'_, u64>,
    b: MatRef<'_, u64>,
    mut c: MatMut<'_, u64>,
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    let (rows, inner, cols) = (a.rows(), a.cols(), b.cols());
    let step = inner.div_ceil(inner.div_ceil(digits.terms));
    if step < inner {
        // C is not touched by a product that is refused.
        check(&a, m)?;
        check(&b, m)?;
    }
    for start in (0..inner).step_by(step) {
        let depth = step.min(inner - start);
        let left = Operand::words(a.part(0, start, rows, depth)?, m);
        let right = Operand::words(b.part(start, 0, depth, cols)?.transposed(), m);
        let product = match &mut scratch.short {
            Some(product) => {
                product.reset(rows, cols, digits.planes())?;
                product
            }
            none => none.insert(ShortProduct::new(
                pairs::kernel(),
                rows,
                cols,
                digits.planes(),
            )?),
        };
        if !product.accumulate_words(digits, &left, &right)? {
            return Err(TOO_LARGE);
        }
        product.finish_words(m, digits, accumulate || start > 0, &mut c);
    }
    Ok(())
}
