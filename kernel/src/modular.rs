//! Products of words modulo any number, for masking and coding: elements are `u64` below the modulus m.
//!
//! Which way is taken depends on m alone. Residues are balanced, |x| <= m/2, so that sums stay small:
//!
//! | m | way |
//! |---|---|
//! | up to about 2^24 | one product in `f64`, where as many terms as stay below 2^53 are summed before a reduction |
//! | below 2^32 | B = B1·2^s + B0: two such products |
//! | the rest | the exact product of [`crate::exact`], by the Chinese remainder theorem, and then its remainder |
//!
//! Source of the first: Dumas, Giorgi, Pernet, *Dense Linear Algebra over Word-Size Prime Fields: the
//! FFLAS and FFPACK Packages*, ACM TOMS 35(3), 2008 (delayed reduction).

use alloc::vec::Vec;

use crate::arch::widest;
use crate::exact::{ResidueProduct, Sizes, output_limbs};
use crate::gemm::{Class, Workspace, matmul as matmul_f64};
use crate::matrix::{KernelError, MatMut, MatRef, product, resize, same};

/// Memory that later products use again.
#[derive(Debug, Default)]
pub struct Scratch {
    a: Vec<f64>,
    /// The low and the high part of B, and of C.
    b: [Vec<f64>; 2],
    c: [Vec<f64>; 2],
    words: [Vec<u64>; 2],
    bytes: Vec<u8>,
    residues: Option<ResidueProduct>,
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
/// (and of C if `accumulate`) is below m, and so is the result. Cost: 2·rows·inner·cols operations once
/// below 2^24, twice below 2^32, and about bits/11 times (2·bits + log2(inner))/23 above, whichever way
/// the exact product goes there; and a few passes over A, B and C.
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
    match Way::of(m) {
        Way::Floats(ring) => in_floats(&ring, accumulate, a, b, c, scratch),
        Way::Residues => by_residues(m, accumulate, a, b, c, scratch),
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
    Floats(Ring),
    Residues,
}

impl Way {
    fn of(m: u64) -> Self {
        if m >= 1 << 32 {
            return Self::Residues;
        }
        let whole = Ring::new(m, None);
        if whole.terms >= 128 {
            return Self::Floats(whole);
        }
        let bits = 64 - m.leading_zeros();
        Self::Floats(Ring::new(m, Some(bits / 2)))
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
    let buffer = &mut scratch.words[0];
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

fn by_residues(
    m: u64,
    accumulate: bool,
    a: MatRef<'_, u64>,
    b: MatRef<'_, u64>,
    mut c: MatMut<'_, u64>,
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    let (rows, inner, cols) = (a.rows(), a.cols(), b.cols());
    // Balanced residues as two's complement: at most m/2 in magnitude.
    let bits = 64 - (m / 2).leading_zeros();
    let sizes = Sizes {
        rows,
        cols,
        inner,
        a_limbs: 1,
        b_limbs: 1,
        c_limbs: output_limbs(bits, bits, inner),
        a_bits: bits,
        b_bits: bits,
    };
    check(&a, m)?;
    check(&b, m)?;
    let mut buffer = Vec::new();
    let [left, right] = &mut scratch.words;
    for (x, to) in [(&a, left), (&b, right)] {
        resize(to, product("elements", &[x.rows(), x.cols()])?, 0)?;
        for (i, to) in to.chunks_exact_mut(x.cols()).enumerate() {
            for (to, &x) in to.iter_mut().zip(row_of(x, i, &mut buffer)?) {
                *to = if x > m / 2 { x.wrapping_sub(m) } else { x };
            }
        }
    }
    let residues = match &mut scratch.residues {
        Some(residues) => {
            residues.reset(sizes)?;
            residues
        }
        none => none.insert(ResidueProduct::new(sizes)?),
    };
    residues.accumulate(
        &scratch.words[0],
        &scratch.words[1],
        inner,
        &mut scratch.workspace,
    )?;
    let element_bytes = 8 * sizes.c_limbs;
    resize(
        &mut scratch.bytes,
        product("bytes of C", &[rows, cols, element_bytes])?,
        0,
    )?;
    residues.finish(&mut scratch.bytes, &mut scratch.workspace)?;
    let divisor = Divisor::new(m);
    for (i, bytes) in scratch.bytes.chunks_exact(cols * element_bytes).enumerate() {
        put_row(&mut c, i, &mut buffer, |row| {
            for (to, element) in row.iter_mut().zip(bytes.chunks_exact(element_bytes)) {
                let rest = divisor.remainder(element.as_chunks().0);
                let old = if accumulate { *to } else { 0 };
                // old + rest without overflow: both are below m.
                let room = m - old;
                *to = if rest >= room {
                    rest - room
                } else {
                    old + rest
                };
            }
        })?;
    }
    Ok(())
}

/// Division by one number many times: Möller, Granlund, *Improved Division by Invariant Integers*, IEEE
/// Transactions on Computers 60(2), 2011, algorithm 4.
struct Divisor {
    m: u64,
    /// m shifted so that its highest bit is set, and by how much.
    normal: u64,
    shift: u32,
    /// floor((2^128 - 1) / normal) - 2^64.
    reciprocal: u64,
}

impl Divisor {
    fn new(m: u64) -> Self {
        let shift = m.leading_zeros();
        let normal = m << shift;
        Self {
            m,
            normal,
            shift,
            reciprocal: (u128::MAX / u128::from(normal) - (1 << 64)) as u64,
        }
    }

    /// The remainder, from 0 to m - 1, of a two's complement number of little-endian limbs.
    #[inline(always)]
    fn remainder(&self, limbs: &[[u8; 8]]) -> u64 {
        let negative = limbs.last().is_some_and(|top| top[7] >> 7 == 1);
        let flip = if negative { u64::MAX } else { 0 };
        // Of x >= 0 itself, else of -x - 1, the complement; everything shifted like m.
        let mut rest = 0;
        for limb in limbs.iter().rev() {
            let limb = u64::from_le_bytes(*limb) ^ flip;
            let carried = (u128::from(limb) << self.shift >> 64) as u64;
            rest = self.step(rest | carried, limb << self.shift);
        }
        let rest = rest >> self.shift;
        if negative { self.m - 1 - rest } else { rest }
    }

    /// (high·2^64 + low) mod normal, for high < normal.
    #[inline(always)]
    fn step(&self, high: u64, low: u64) -> u64 {
        let estimate = u128::from(self.reciprocal) * u128::from(high)
            + (u128::from(high) << 64 | u128::from(low));
        let quotient = ((estimate >> 64) as u64).wrapping_add(1);
        let mut rest = low.wrapping_sub(quotient.wrapping_mul(self.normal));
        if rest > estimate as u64 {
            rest = rest.wrapping_add(self.normal);
        }
        if rest >= self.normal {
            rest -= self.normal;
        }
        rest
    }
}
