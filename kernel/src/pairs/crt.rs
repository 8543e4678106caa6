//! Exact products by the Chinese remainder theorem, one pair product for each prime of [`basis`].

use alloc::vec::Vec;

use super::basis::{self, Basis, FRACTION, GROUP, Weights};
use super::{Layout, Operand, Panels, Planes, SPARE, Side, aligned, blocks, multiply};
use crate::arch::pairs::{Out, PairKernel};
use crate::arch::widest;
use crate::matrix::{KernelError, MatMut, product, resize};

/// Elements of a row of C that are put together at a time.
const LEN: usize = 64;

/// An exact product, slab by slab: C modulo each prime is kept, A and B are not.
#[derive(Debug)]
pub(crate) struct PairProduct {
    kernel: PairKernel,
    problem: Problem,
    basis: Basis,
    weights: [Weights; 2],
    started: bool,
    /// Residues of C: two primes to an element, planes of padded rows.
    c: Vec<u32>,
    planes: Planes,
    sums: Vec<i32>,
    wide: Vec<i64>,
    limbs: Vec<u64>,
}

/// What is to be multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Results are below 2^bits in magnitude.
    pub(crate) bits: u32,
    /// Two's complement bits of the operands that count: the rest is sign.
    pub(crate) a_bits: u32,
    pub(crate) b_bits: u32,
    /// Results are wanted modulo this.
    pub(crate) modulus: Option<u64>,
}

impl Problem {
    /// What the constants depend on.
    fn constants(&self) -> (u32, [usize; 2], Option<u64>) {
        (self.bits, self.terms(), self.modulus)
    }

    /// 32-bit parts of an element of A and of B.
    fn terms(&self) -> [usize; 2] {
        [self.a_bits, self.b_bits].map(|bits| bits.div_ceil(32).max(1) as usize)
    }
}

impl PairProduct {
    pub(crate) fn new(kernel: PairKernel, problem: Problem) -> Result<Self, KernelError> {
        let mut made = Self {
            kernel,
            problem,
            basis: Basis::default(),
            weights: [Weights::default(), Weights::default()],
            started: false,
            c: Vec::new(),
            planes: Planes::default(),
            sums: Vec::new(),
            wide: Vec::new(),
            limbs: Vec::new(),
        };
        made.reset(problem)?;
        Ok(made)
    }

    /// Starts another product in the same buffers.
    pub(crate) fn reset(&mut self, problem: Problem) -> Result<(), KernelError> {
        if self.basis.count() == 0 || problem.constants() != self.problem.constants() {
            let [a, b] = problem.terms();
            // Given back first, and an error leaves none.
            self.basis = Basis::default();
            let basis = Basis::new(problem.bits, problem.modulus)?;
            self.weights = [basis.operand(a, true)?, basis.operand(b, false)?];
            self.basis = basis;
        }
        self.problem = problem;
        self.started = false;
        let plane = Layout::new(&self.kernel, problem.rows, problem.cols).len();
        let pairs = self.basis.count().div_ceil(2);
        let len = product("residues of C", &[pairs, plane])?
            .checked_add(LEN + SPARE)
            .ok_or(KernelError::Overflow {
                what: "residues of C",
            })?;
        resize(&mut self.c, len, 0)
    }

    /// Bytes held for products of this size with slabs of depth `inner`, at most; saturating.
    pub(crate) fn bytes(kernel: &PairKernel, problem: &Problem, inner: usize) -> usize {
        let Some(count) = basis::needed(problem.bits) else {
            return usize::MAX;
        };
        let width = (problem.bits as usize).div_ceil(16) + 3;
        let [a, b] = problem.terms();
        let c = Layout::new(kernel, problem.rows, problem.cols)
            .len()
            .saturating_add(LEN + SPARE);
        let planes = Planes::bytes(
            kernel,
            (problem.rows, inner, problem.cols),
            GROUP.min(count),
            a.max(b),
        );
        let sums = (width + 1) * LEN * (4 + 8) + 8 * LEN * (width / 4 + 2);
        let constants = 4 * ((count + 1) * (width + 1) + count * (a + b + 6)) + 64 * count;
        (c.saturating_mul(4 * count.div_ceil(2)))
            .saturating_add(planes)
            .saturating_add(sums + constants)
    }

    /// `C += A·B`: A is rows × depth, B (given transposed) cols × depth. Returns whether all elements are
    /// below the modulus, if there is one; if not, the product is unusable until [`Self::reset`].
    pub(crate) fn accumulate(
        &mut self,
        a: &Operand<'_>,
        b: &Operand<'_>,
    ) -> Result<bool, KernelError> {
        let Problem { rows, cols, .. } = self.problem;
        let kernel = &self.kernel;
        let count = self.basis.count();
        let layout = Layout::new(kernel, rows, cols);
        let mut below = true;
        for (start, depth) in blocks(a.depth) {
            let pairs = depth.div_ceil(2);
            let panels = [
                Panels::new(rows, kernel.mr, pairs),
                Panels::new(cols, kernel.nr, pairs),
            ];
            for first in (0..count).step_by(GROUP) {
                let group = GROUP.min(count - first);
                for ((side, operand), (weights, panels)) in [(Side::A, a), (Side::B, b)]
                    .into_iter()
                    .zip(self.weights.iter().zip(panels))
                {
                    let terms = weights.terms;
                    let basis = &self.basis;
                    let convert = |index: usize, digits: &[u32], to: &mut [u32]| {
                        let prime = first + index;
                        kernel.residues(
                            digits,
                            &weights.digits[prime * terms..][..terms],
                            weights.starts[prime],
                            basis.reduction(prime),
                            to,
                        );
                    };
                    below &=
                        self.planes
                            .fill(side, panels, (operand, start), terms, group, &convert)?;
                }
                if !below {
                    return Ok(false);
                }
                let (left, right) = self.planes.both();
                for index in 0..group {
                    let prime = first + index;
                    let reduction = self.basis.reduction(prime);
                    let out = if prime.is_multiple_of(2) {
                        Out::Low(reduction)
                    } else {
                        Out::High(reduction)
                    };
                    let [a, b] = panels;
                    multiply(
                        kernel,
                        (&left[index * a.stride..], a),
                        (&right[index * b.stride..], b),
                        (
                            &mut aligned(&mut self.c)[prime / 2 * layout.len()..],
                            layout,
                        ),
                        self.started,
                        out,
                    );
                }
            }
            self.started = true;
        }
        Ok(true)
    }

    /// The signed 16-bit digits of [`LEN`] elements of padded C from `at` on, each digit of up to 2^40 in
    /// magnitude: `wide[d·LEN + i]`.
    fn put_together(&mut self, at: usize) -> Result<(), KernelError> {
        let width = self.basis.width();
        let plane = Layout::new(&self.kernel, self.problem.rows, self.problem.cols).len();
        resize(&mut self.sums, (width + 1) * LEN, 0)?;
        resize(&mut self.wide, (width + 1) * LEN, 0)?;
        let c = aligned(&mut self.c);
        for group in 0..self.basis.count().div_ceil(GROUP) {
            let (weights, pairs) = self.basis.group(group);
            let planes = &c[group * (GROUP / 2) * plane + at..];
            self.kernel
                .sums(planes, plane, weights, pairs, &mut self.sums, LEN);
            widen(&self.sums, group > 0, &mut self.wide);
        }
        let mut quotients = [0u32; LEN];
        let fractions = &self.wide[width * LEN..];
        for (quotient, &fraction) in quotients.iter_mut().zip(fractions) {
            let rounded = (fraction + (1 << (FRACTION - 1))) >> FRACTION;
            *quotient = rounded as u32 & 0xffff;
        }
        let sums = &mut self.sums[..width * LEN];
        let multiple = self.basis.multiple();
        self.kernel.sums(&quotients, LEN, multiple, 1, sums, LEN);
        widen(sums, true, &mut self.wide[..width * LEN]);
        Ok(())
    }

    /// Writes C, row-major, `limbs` limbs each, to `output` as little-endian bytes.
    pub(crate) fn finish(&mut self, limbs: usize, output: &mut [u8]) -> Result<(), KernelError> {
        let Problem { rows, cols, .. } = self.problem;
        let layout = Layout::new(&self.kernel, rows, cols);
        resize(&mut self.limbs, limbs * LEN, 0)?;
        for at in (0..layout.len()).step_by(LEN) {
            self.put_together(at)?;
            carry(&self.wide[..self.basis.width() * LEN], &mut self.limbs);
            for (row, col, part) in layout.parts(at, at + LEN, rows) {
                let to = &mut output[(row * cols + col) * limbs * 8..][..part.len() * limbs * 8];
                for (i, element) in part.zip(to.chunks_exact_mut(limbs * 8)) {
                    let words = self.limbs.iter().skip(i).step_by(LEN);
                    for (bytes, limb) in element.as_chunks_mut().0.iter_mut().zip(words) {
                        *bytes = limb.to_le_bytes();
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes C modulo the modulus to `c`, or adds it to what is there.
    pub(crate) fn finish_words(
        &mut self,
        accumulate: bool,
        c: &mut MatMut<'_, u64>,
    ) -> Result<(), KernelError> {
        let Problem {
            rows,
            cols,
            modulus,
            ..
        } = self.problem;
        let m = modulus.ok_or(KernelError::Incomplete { what: "modulus" })?;
        let layout = Layout::new(&self.kernel, rows, cols);
        // Everything that can be refused is refused here, before C is touched.
        resize(&mut self.limbs, LEN, 0)?;
        for at in (0..layout.len()).step_by(LEN) {
            self.put_together(at)?;
            remainders(&self.wide[..self.basis.width() * LEN], m, &mut self.limbs);
            for (row, col, part) in layout.parts(at, at + LEN, rows) {
                put_words(c, (row, col), &self.limbs[part], accumulate, m);
            }
        }
        Ok(())
    }
}

/// Writes words below m to a part of a row of C, or adds them to the words below m that are there.
fn put_words(
    c: &mut MatMut<'_, u64>,
    (row, col): (usize, usize),
    words: &[u64],
    accumulate: bool,
    m: u64,
) {
    let sum = |old: u64, word: u64| {
        // old + word without overflow: both are below m.
        let room = m - old;
        if word >= room {
            word - room
        } else {
            old + word
        }
    };
    if let Some(to) = c.row_mut(row) {
        let to = &mut to[col..][..words.len()];
        if accumulate {
            to.iter_mut()
                .zip(words)
                .for_each(|(to, &word)| *to = sum(*to, word));
        } else {
            to.copy_from_slice(words);
        }
        return;
    }
    for (j, &word) in words.iter().enumerate() {
        let old = if accumulate { c.at(row, col + j) } else { 0 };
        c.set(row, col + j, sum(old, word));
    }
}

widest! {
    fn widen(sums: &[i32], add: bool, to: &mut [i64]) {
        if add {
            for (to, &sum) in to.iter_mut().zip(sums) {
                *to += i64::from(sum);
            }
        } else {
            for (to, &sum) in to.iter_mut().zip(sums) {
                *to = i64::from(sum);
            }
        }
    }
}

widest! {
    /// `limbs[l·LEN + i] = limb l of Σ_d digits[d·LEN + i]·2^(16d)`, in two's complement.
    fn carry(digits: &[i64], limbs: &mut [u64]) {
        let mut carries = [0i64; LEN];
        let mut digits = digits.as_chunks::<LEN>().0.iter();
        for limbs in limbs.as_chunks_mut::<LEN>().0 {
            limbs.fill(0);
            for shift in [0, 16, 32, 48] {
                let zeros = [0; LEN];
                let digits = digits.next().unwrap_or(&zeros);
                for ((limb, carry), &digit) in limbs.iter_mut().zip(&mut carries).zip(digits) {
                    let sum = *carry + digit;
                    *limb |= (sum as u64 & 0xffff) << shift;
                    *carry = sum >> 16;
                }
            }
        }
    }
}

widest! {
    /// `to[i] = Σ_d digits[d·LEN + i]·2^(16d) mod m`, at most 2^33·m in magnitude and each
    /// part of the sum too.
    ///
    /// The quotient by m is taken in `f64`, which puts it off by less than 2^-16 before it is rounded, so
    /// that the rest is at most m/2 and a little in magnitude. Its low 64 bits are exact; its sign is that of
    /// these bits where it is below 2^62, and that of the fraction otherwise.
    fn remainders(digits: &[i64], m: u64, to: &mut [u64]) {
        // 1.5·2^52: adding it to a small float leaves the nearest integer in the low bits.
        const ROUND: f64 = 6_755_399_441_055_744.0;
        let inverse = 1.0 / m as f64;
        let (mut lows, mut floats) = ([0u64; LEN], [0f64; LEN]);
        let mut scale = inverse;
        for (d, digits) in digits.as_chunks::<LEN>().0.iter().enumerate() {
            for ((low, float), &digit) in lows.iter_mut().zip(&mut floats).zip(digits) {
                // What a fifth digit adds is a multiple of 2^64.
                if d < 4 {
                    *low = low.wrapping_add((digit as u64) << (16 * d));
                }
                *float += digit as f64 * scale;
            }
            scale *= 65_536.0;
        }
        for ((to, &low), &float) in to.iter_mut().zip(&lows).zip(&floats) {
            let rounded = float + ROUND;
            let fraction = float - (rounded - ROUND);
            let quotient = rounded.to_bits().wrapping_sub(ROUND.to_bits());
            let rest = low.wrapping_sub(quotient.wrapping_mul(m));
            let negative = if fraction.abs() < 0.25 { (rest as i64) < 0 } else { fraction < 0.0 };
            *to = if negative { rest.wrapping_add(m) } else { rest };
        }
    }
}
