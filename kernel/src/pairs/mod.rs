//! Exact products of 16-bit numbers in 32-bit sums ([`crate::arch::pairs`]), and what is made of them:
//!
//! | module | holds |
//! |---|---|
//! | [`basis`] | primes below 2^12, and the constants of the Chinese remainder theorem |
//! | [`crt`] | integers of any size, and words modulo any number: one product for each prime |
//! | [`field`] | residues modulo one small prime, as they are |
//! | [`short`] | integers of at most 15 bits and words modulo small numbers: products of digits |
//!
//! An operand becomes planes of numbers of 16 bits: its residues modulo a prime, or its digits. Two
//! numbers that follow each other along k are one 32-bit element of a plane. A plane is packed into panels
//! of R lanes, R being the rows (of A) or columns (of B) of the micro-tile, as the micro-kernel reads them:
//!
//! ```text
//! plane[q·R·pairs + p·R + l] = (x(q·R + l, 2p), x(q·R + l, 2p + 1))        p < pairs, l < R; 0 outside
//! ```
//!
//! Source of the structure: Goto, van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, ACM
//! TOMS 34(3), 2008. Here a block of B is all columns wide, since a plane has a quarter of the bytes.

pub(crate) mod basis;
pub(crate) mod crt;
pub(crate) mod field;
pub(crate) mod short;

use alloc::vec::Vec;

use crate::arch::pairs::{Out, PairKernel, kernels};
use crate::arch::widest;
use crate::matrix::{KernelError, MatRef, product, resize};

/// The deepest block of k: so many products of residues stay within 31 bits (see [`basis`]).
pub(crate) const CHAIN: usize = 512;

/// Bytes of a block of A that stay in the second-level cache while the panels of B pass by.
const A_BYTES: usize = 512 << 10;

/// Elements of the digits that are converted at a time, about: they stay in the first-level cache.
const CHUNK: usize = 4096;

/// Elements of a cache line. A plane has so many more than it needs: the last vector that is written to it
/// may reach over its end.
const SPARE: usize = 16;

/// The fastest kernel of this device.
pub(crate) fn kernel() -> PairKernel {
    let [first, ..] = kernels();
    first.expect("every device has a kernel for pairs")
}

/// A, or B transposed: `lanes × depth` elements of which each is one number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand<'a> {
    data: &'a [u64],
    /// Limbs of an element, in two's complement.
    limbs: usize,
    lanes: usize,
    depth: usize,
    lane_stride: usize,
    depth_stride: usize,
    /// Elements are words below this, and stand for what is nearest to 0 and congruent.
    modulus: Option<u64>,
}

impl<'a> Operand<'a> {
    /// A as a row-major slab of integers.
    pub(crate) fn rows(data: &'a [u64], limbs: usize, rows: usize, depth: usize) -> Self {
        Self {
            data,
            limbs,
            lanes: rows,
            depth,
            lane_stride: depth,
            depth_stride: 1,
            modulus: None,
        }
    }

    /// B as a row-major slab of integers.
    pub(crate) fn columns(data: &'a [u64], limbs: usize, depth: usize, cols: usize) -> Self {
        Self {
            data,
            limbs,
            lanes: cols,
            depth,
            lane_stride: 1,
            depth_stride: cols,
            modulus: None,
        }
    }

    /// Words modulo m; B is given transposed.
    pub(crate) fn words(view: MatRef<'a, u64>, m: u64) -> Self {
        Self {
            data: view.data(),
            limbs: 1,
            lanes: view.rows(),
            depth: view.cols(),
            lane_stride: view.row_stride(),
            depth_stride: view.col_stride(),
            modulus: Some(m),
        }
    }

    /// The elements from (lane, k) on, `count` of them `stride` apart, and whether all are below the
    /// modulus. Those of more than one limb lie side by side.
    fn run<'r>(
        &self,
        (lane, k): (usize, usize),
        count: usize,
        stride: usize,
        buffer: &'r mut [u64],
    ) -> (&'r [u64], bool)
    where
        'a: 'r,
    {
        let start = lane * self.lane_stride + k * self.depth_stride;
        let Some(m) = self.modulus else {
            return (
                &self.data[start * self.limbs..(start + count) * self.limbs],
                true,
            );
        };
        let to = &mut buffer[..count];
        let from = &self.data[start..];
        let below = if stride == 1 {
            balance(&from[..count], m, to)
        } else {
            for (to, &x) in to.iter_mut().zip(from.iter().step_by(stride)) {
                *to = x;
            }
            let copied = to.len();
            balance_in_place(&mut to[..copied], m)
        };
        (to, below)
    }

    /// Writes the digits of `width` lanes from `first` on and of `pairs` pairs along k from `start` on:
    ///
    /// ```text
    /// digits[(e·terms + t)·stride + p·width + l] = 32 bits t of x(first + l, start + 2p + e), e = 0, 1
    /// ```
    ///
    /// each as two signed digits of 16 bits: what is below 2^16 is made signed by subtracting 2^15, all
    /// but the highest digit. Elements outside are zeros. Returns whether all are below the modulus.
    fn digits(
        &self,
        (first, width): (usize, usize),
        (start, pairs): (usize, usize),
        terms: usize,
        (digits, stride): (&mut [u32], usize),
        buffer: &mut [u64],
    ) -> bool {
        let lanes = width.min(self.lanes - first);
        let depth = (2 * pairs).min(self.depth - start);
        if lanes < width || depth < 2 * pairs {
            for (index, plane) in digits.chunks_exact_mut(stride).take(2 * terms).enumerate() {
                plane.fill(flip(index % terms, terms));
            }
        }
        let mut below = true;
        if self.depth_stride == 1 && self.lane_stride != 1 {
            for lane in 0..lanes {
                let (run, all) = self.run((first + lane, start), depth, 1, buffer);
                below &= all;
                for t in 0..terms {
                    let flip = flip(t, terms);
                    let (even, odd) = digits.split_at_mut(terms * stride);
                    let even = even[t * stride..][..stride].chunks_exact_mut(width);
                    let odd = odd[t * stride..][..stride].chunks_exact_mut(width);
                    let shift = 32 * (t % 2);
                    let step = 2 * self.limbs;
                    let ((t, limbs), mut elements) = ((t / 2, self.limbs), run.chunks_exact(step));
                    let mut rows = even.zip(odd);
                    for (both, (even, odd)) in (&mut elements).zip(&mut rows) {
                        even[lane] = (both[t] >> shift) as u32 ^ flip;
                        odd[lane] = (both[limbs + t] >> shift) as u32 ^ flip;
                    }
                    // An odd depth ends with half a pair.
                    if let (Some(&last), Some((even, _))) =
                        (elements.remainder().get(t), rows.next())
                    {
                        even[lane] = (last >> shift) as u32 ^ flip;
                    }
                }
            }
        } else {
            for k in 0..depth {
                let (run, all) = self.run((first, start + k), lanes, self.lane_stride, buffer);
                below &= all;
                for t in 0..terms {
                    let at = (k % 2 * terms + t) * stride + k / 2 * width;
                    halves(
                        run,
                        self.limbs,
                        t,
                        flip(t, terms),
                        &mut digits[at..][..lanes],
                    );
                }
            }
        }
        below
    }
}

/// What makes the digits of 32 bits number t signed.
pub(crate) fn flip(t: usize, terms: usize) -> u32 {
    if t + 1 == terms {
        0x0000_8000
    } else {
        0x8000_8000
    }
}

widest! {
    /// 32 bits number t of each element.
    fn halves(elements: &[u64], limbs: usize, t: usize, flip: u32, to: &mut [u32]) {
        let shift = 32 * (t % 2);
        if limbs == 1 {
            for (to, &x) in to.iter_mut().zip(elements) {
                *to = (x >> shift) as u32 ^ flip;
            }
        } else {
            for (to, x) in to.iter_mut().zip(elements.chunks_exact(limbs)) {
                *to = (x[t / 2] >> shift) as u32 ^ flip;
            }
        }
    }
}

widest! {
    /// x or x - m, whichever is nearer to 0, and whether all of them are below m.
    fn balance(from: &[u64], m: u64, to: &mut [u64]) -> bool {
        let mut below = true;
        for (to, &x) in to.iter_mut().zip(from) {
            below &= x < m;
            *to = if x > m / 2 { x.wrapping_sub(m) } else { x };
        }
        below
    }
}

widest! {
    /// As [`balance`].
    fn balance_in_place(words: &mut [u64], m: u64) -> bool {
        let mut below = true;
        for x in words {
            below &= *x < m;
            *x = if *x > m / 2 { x.wrapping_sub(m) } else { *x };
        }
        below
    }
}

/// The planes of a block of A and of B, and the buffers that make them.
#[derive(Debug, Default)]
pub(crate) struct Planes {
    a: Vec<u32>,
    b: Vec<u32>,
    digits: Vec<u32>,
    run: Vec<u64>,
}

/// How one operand is cut into panels.
#[derive(Clone, Copy, Debug)]
struct Panels {
    /// Lanes of a panel, and how many panels there are.
    width: usize,
    count: usize,
    pairs: usize,
    /// From a plane to the next.
    stride: usize,
}

impl Panels {
    fn new(lanes: usize, width: usize, pairs: usize) -> Self {
        let count = lanes.div_ceil(width);
        Self {
            width,
            count,
            pairs,
            stride: count
                .saturating_mul(width * pairs)
                .saturating_add(2 * SPARE - 1)
                / SPARE
                * SPARE,
        }
    }

    /// Pairs along k that are converted at a time, for elements of `terms` times 32 bits.
    fn chunk(&self, terms: usize) -> usize {
        (CHUNK / (2 * terms * self.width)).clamp(1, self.pairs)
    }

    /// Elements of the digits of one chunk: [`Operand::digits`].
    fn digits(&self, terms: usize) -> usize {
        2 * terms * (self.chunk(terms) * self.width).next_multiple_of(SPARE)
    }
}

/// A buffer from which planes start at a cache line, so that no vector of B lies in two.
fn aligned(buffer: &mut [u32]) -> &mut [u32] {
    let first = buffer.as_ptr().align_offset(4 * SPARE).min(SPARE);
    &mut buffer[first..]
}

/// What [`Planes::fill`] calls for each plane: its number, the digits, and where the plane's part goes.
type Convert<'c> = &'c dyn Fn(usize, &[u32], &mut [u32]);

impl Planes {
    /// Bytes that are held for blocks of this depth, `planes` at once; saturating.
    pub(crate) fn bytes(
        kernel: &PairKernel,
        (rows, depth, cols): (usize, usize, usize),
        planes: usize,
        terms: usize,
    ) -> usize {
        let pairs = depth.min(CHAIN).div_ceil(2);
        let a = Panels::new(rows, kernel.mr, pairs);
        let b = Panels::new(cols, kernel.nr, pairs);
        let run = CHAIN + kernel.nr.max(kernel.mr);
        let digits = a
            .digits(1)
            .max(b.digits(1))
            .max(a.digits(terms))
            .max(b.digits(terms));
        a.stride
            .saturating_add(b.stride)
            .saturating_mul(4 * planes)
            .saturating_add(4 * (digits + 2 * SPARE) + 8 * run)
    }

    /// The planes of A and of B.
    fn both(&mut self) -> (&[u32], &[u32]) {
        (aligned(&mut self.a), aligned(&mut self.b))
    }

    /// Fills `count` planes of A (or of B) with a block of k. Returns whether all elements are below the
    /// modulus.
    fn fill(
        &mut self,
        which: Side,
        panels: Panels,
        (operand, start): (&Operand<'_>, usize),
        terms: usize,
        count: usize,
        convert: Convert<'_>,
    ) -> Result<bool, KernelError> {
        let planes = match which {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        };
        let len = product("planes", &[panels.stride, count])?;
        resize(planes, len.saturating_add(SPARE), 0)?;
        let planes = &mut aligned(planes)[..len];
        let chunk = panels.chunk(terms);
        resize(&mut self.digits, panels.digits(terms), 0)?;
        resize(&mut self.run, panels.width.max(2 * chunk), 0)?;
        let mut below = true;
        for panel in 0..panels.count {
            for first in (0..panels.pairs).step_by(chunk) {
                let pairs = chunk.min(panels.pairs - first);
                let stride = (pairs * panels.width).next_multiple_of(SPARE);
                below &= operand.digits(
                    (panel * panels.width, panels.width),
                    (start + 2 * first, pairs),
                    terms,
                    (&mut self.digits[..2 * terms * stride], stride),
                    &mut self.run,
                );
                let at = (panel * panels.pairs + first) * panels.width;
                for (index, plane) in planes.chunks_exact_mut(panels.stride).enumerate() {
                    convert(
                        index,
                        &self.digits[..2 * terms * stride],
                        &mut plane[at..][..stride],
                    );
                }
            }
        }
        Ok(below)
    }
}

#[derive(Clone, Copy)]
enum Side {
    A,
    B,
}

/// `C = A·B` or `C += A·B` for one plane of each: what [`PairKernel::tile`] says, tile by tile, into a
/// plane of C ([`Layout`]).
fn multiply(
    kernel: &PairKernel,
    (a, a_panels): (&[u32], Panels),
    (b, b_panels): (&[u32], Panels),
    (c, layout): (&mut [u32], Layout),
    load: bool,
    out: Out,
) {
    let pairs = a_panels.pairs;
    let (mr, nr) = (kernel.mr, kernel.nr);
    let block = (A_BYTES / (4 * mr * pairs)).max(1);
    let block = a_panels
        .count
        .div_ceil(a_panels.count.div_ceil(block).max(1))
        .max(1);
    for first in (0..a_panels.count).step_by(block) {
        for right in 0..b_panels.count {
            let b = &b[right * nr * pairs..][..nr * pairs];
            let width = nr.min(layout.cols - right * nr);
            let c = &mut c[right * layout.rows * nr..][..layout.rows * nr];
            for left in first..a_panels.count.min(first + block) {
                let a = &a[left * mr * pairs..][..mr * pairs];
                let c = &mut c[left * mr * nr..][..mr * nr];
                kernel.tile(pairs, a, b, c, nr, width, load, out);
            }
        }
    }
}

/// A plane of C: panels as wide as a tile, one after the other, each of whole tiles with rows side by side.
/// So a tile is written to one place, and the next one below follows it.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Rows of a panel; the last of them may be spare.
    rows: usize,
    /// Columns of a panel, and of C.
    width: usize,
    cols: usize,
}

impl Layout {
    fn new(kernel: &PairKernel, rows: usize, cols: usize) -> Self {
        Self {
            rows: rows.div_ceil(kernel.mr).saturating_mul(kernel.mr),
            width: kernel.nr,
            cols,
        }
    }

    /// Elements of a plane; saturating.
    fn len(&self) -> usize {
        self.cols
            .div_ceil(self.width)
            .saturating_mul(self.width)
            .saturating_mul(self.rows)
    }

    /// The parts of rows of C among the elements from `at` to `end` of a plane: row, column, and which
    /// elements, counted from `at`. Rows from `rows` on are spare.
    fn parts(
        self,
        at: usize,
        end: usize,
        rows: usize,
    ) -> impl Iterator<Item = (usize, usize, core::ops::Range<usize>)> {
        let end = end.min(self.len());
        (at / self.width..end.div_ceil(self.width)).filter_map(move |index| {
            let (row, col) = (index % self.rows, index / self.rows * self.width);
            let start = index * self.width;
            let first = at.max(start);
            let last = end.min(start + self.width.min(self.cols - col));
            (row < rows && first < last).then(|| (row, col + first - start, first - at..last - at))
        })
    }
}

/// Blocks of k of nearly the same even depth, [`CHAIN`] at most: (start, depth).
fn blocks(inner: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = inner
        .div_ceil(inner.div_ceil(CHAIN).max(1))
        .next_multiple_of(2);
    (0..inner)
        .step_by(step)
        .map(move |start| (start, step.min(inner - start)))
}

#[cfg(test)]
mod tests;
