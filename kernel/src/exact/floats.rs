//! Exact products by residues modulo primes of 23 bits, on the floating-point kernels.
//!
//! Both conversions are products too, so they run on the same kernel:
//!
//! ```text
//! residues:  x mod p = Σ_d digit_d(x)·(2^(16d) mod p)                            then reduced
//! integers:  C = Σ_p s_p·(M/p) - q·M,  s_p = c_p·(M/p)^-1 mod p,  q = round(Σ_p s_p/p)
//! ```
//!
//! with M the product of the primes and M > 4·|C|, so that Σ s_p/p = q + C/M is rounded to q safely.

use alloc::vec::Vec;

use super::{Sizes, output_bits};
use crate::field::{Modulus, TERMS, matmul_mod, primes};
use crate::gemm::{Class, Workspace, matmul, workspace_bytes};
use crate::integer::{bit_length, digit16, multiply_small};
use crate::matrix::{KernelError, MatMut, MatRef, product, push, resize};

/// Primes whose residues are held at once.
const GROUP: usize = 24;

/// Elements of one scratch buffer of the conversions, about (more where a row is long).
const TABLE: usize = 1 << 18;

/// Elements that are converted together at least, however long: making the weights costs as much.
const CHUNK_MIN: usize = 64;

/// Elements that [`to_residues`] converts together: of `width` digits, out of `count`.
fn residue_chunk(width: usize, count: usize) -> usize {
    (TABLE / width.max(GROUP)).clamp(CHUNK_MIN, count.max(CHUNK_MIN))
}

/// (Primes in a band of the weight table, elements) that [`FloatProduct::finish`] takes together:
/// M has `width` digits and `primes` factors, C `count` elements.
fn result_chunk(width: usize, primes: usize, count: usize) -> (usize, usize) {
    let band = (2 * TABLE / width).clamp(1, primes);
    (
        band,
        (TABLE / width.max(primes)).max(CHUNK_MIN).min(count.max(1)),
    )
}

impl Sizes {
    /// At least as many primes as [`Basis::new`] takes: the primes in use are above 2^22.9.
    pub(super) fn float_primes(&self) -> usize {
        let bits = output_bits(self.a_bits, self.b_bits, self.inner) as usize + 2;
        (bits * 10).div_ceil(229) + 1
    }

    /// The bytes of the conversions: digits, weights, sums, and packing.
    fn scratch_bytes(&self, count: usize, elements: usize, out: usize) -> usize {
        let packing = |m, k, n| workspace_bytes::<f64>(Class::Any, m, k, n);
        let width = 4 * self.a_limbs.max(self.b_limbs);
        let chunk = residue_chunk(width, elements);
        let group = GROUP.min(count);
        let residues = 8 * width * (chunk + group) + packing(group, width, chunk);
        // M is below 2^(23·primes).
        let width = (23 * count).div_ceil(16);
        // More digits make more bands of fewer primes and smaller chunks, so a wide estimate is not
        // a bound for the narrow: take the sizes that any width gives at most.
        let (band, chunk) = (count.min(2 * TABLE), result_chunk(1, count, out).1);
        let table = (2 * TABLE).max(width).min(band * width);
        let digits = (TABLE.max(CHUNK_MIN * count)).min(count * chunk);
        let sums = (TABLE.max(CHUNK_MIN * width) + chunk).min(chunk * (width + 1)) + CHUNK_MIN;
        let result = 8 * (table + digits + sums) + packing(chunk, band, width);
        // Some buffers serve both ways.
        residues
            .saturating_add(result)
            .saturating_add(8 * 8 * (count + width))
    }

    /// The bytes that a [`FloatProduct`] needs for slabs of depth `k`; saturating.
    pub(super) fn float_bytes(&self, k: usize) -> usize {
        let mul = |x: usize, y: usize| x.saturating_mul(y);
        let (in_a, in_b, out) = (
            mul(self.rows, k),
            mul(k, self.cols),
            mul(self.rows, self.cols),
        );
        let count = self.float_primes();
        let planes = 8 * GROUP.min(count);
        let packing = workspace_bytes::<f64>(Class::Any, self.rows, k.min(TERMS), self.cols);
        [
            mul(planes, in_a),
            mul(planes, in_b),
            mul(4 * count + 8, out),
            packing,
            self.scratch_bytes(count, in_a.max(in_b), out),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

/// The primes of one product, and what the Chinese remainder theorem needs.
#[derive(Debug)]
struct Basis {
    primes: Vec<Modulus>,
    /// (M/p)^-1 mod p, balanced.
    inverses: Vec<f64>,
    /// M, the product of the primes.
    modulus: Vec<u64>,
}

impl Basis {
    /// Takes primes until M > 4·2^bits.
    fn new(bits: u32) -> Result<Self, KernelError> {
        let mut modulus = Vec::new();
        resize(&mut modulus, 1, 1u64)?;
        let mut chosen = Vec::new();
        let mut candidates = primes();
        while bit_length(&modulus) < bits + 3 {
            let next = candidates.next().ok_or(KernelError::Overflow {
                what: "exact result",
            })?;
            multiply_small(&mut modulus, next.prime())?;
            push(&mut chosen, next)?;
        }
        let mut inverses = Vec::new();
        resize(&mut inverses, chosen.len(), 0.0)?;
        for (inverse, field) in inverses.iter_mut().zip(&chosen) {
            // (M mod p²)/p = (M/p) mod p; p² has 46 bits, so a digit of 16 more fits.
            let p = u64::from(field.prime());
            let rest = (0..4 * modulus.len()).rev().fold(0u64, |rest, d| {
                ((rest << 16) | u64::from(digit16(&modulus, d))) % (p * p)
            });
            *inverse = field.balanced(u64::from(field.invert((rest / p) as u32)));
        }
        Ok(Self {
            primes: chosen,
            inverses,
            modulus,
        })
    }

    /// 16-bit digits of M.
    fn digits(&self) -> usize {
        bit_length(&self.modulus).div_ceil(16) as usize
    }
}

/// An exact product by residues in `f64`, slab by slab: C modulo each prime is kept, A and B are not.
#[derive(Debug)]
pub(super) struct FloatProduct {
    sizes: Sizes,
    basis: Basis,
    /// C modulo each prime, one plane of rows × cols after the other.
    residues: Vec<i32>,
    started: bool,
    planes_a: Vec<f64>,
    planes_b: Vec<f64>,
    plane_c: Vec<f64>,
    digits: Vec<f64>,
    weights: Vec<f64>,
    sums: Vec<f64>,
}

impl FloatProduct {
    pub(super) fn new(sizes: Sizes) -> Result<Self, KernelError> {
        let mut made = Self {
            sizes,
            basis: Basis {
                primes: Vec::new(),
                inverses: Vec::new(),
                modulus: Vec::new(),
            },
            residues: Vec::new(),
            started: false,
            planes_a: Vec::new(),
            planes_b: Vec::new(),
            plane_c: Vec::new(),
            digits: Vec::new(),
            weights: Vec::new(),
            sums: Vec::new(),
        };
        made.reset(sizes)?;
        Ok(made)
    }

    /// Starts another product in the same buffers.
    pub(super) fn reset(&mut self, sizes: Sizes) -> Result<(), KernelError> {
        let bits = |sizes: &Sizes| output_bits(sizes.a_bits, sizes.b_bits, sizes.inner) - 1;
        if self.basis.primes.is_empty() || bits(&sizes) != bits(&self.sizes) {
            self.basis = Basis::new(bits(&sizes))?;
            assert!(
                self.basis.primes.len() <= sizes.float_primes(),
                "the estimate is a bound"
            );
        }
        self.sizes = sizes;
        self.started = false;
        let out = product("elements of C", &[sizes.rows, sizes.cols])?;
        let len = product("residues of C", &[out, self.basis.primes.len()])?;
        resize(&mut self.residues, len, 0)?;
        resize(&mut self.plane_c, out, 0.0)
    }

    /// `C += A·B` for A rows × depth and B depth × cols, row-major.
    pub(super) fn accumulate(
        &mut self,
        a: &[u64],
        b: &[u64],
        depth: usize,
        workspace: &mut Workspace,
    ) -> Result<(), KernelError> {
        let Sizes {
            rows,
            cols,
            a_limbs,
            b_limbs,
            a_bits,
            b_bits,
            ..
        } = self.sizes;
        let (in_a, in_b, out) = (rows * depth, depth * cols, rows * cols);
        let count = self.basis.primes.len();
        for first in (0..count).step_by(GROUP) {
            let group = &self.basis.primes[first..count.min(first + GROUP)];
            let mut scratch = (&mut self.digits, &mut self.weights);
            to_residues(
                &a[..in_a * a_limbs],
                a_limbs,
                a_bits,
                group,
                &mut self.planes_a,
                &mut scratch,
                workspace,
            )?;
            to_residues(
                &b[..in_b * b_limbs],
                b_limbs,
                b_bits,
                group,
                &mut self.planes_b,
                &mut scratch,
                workspace,
            )?;
            for (index, field) in group.iter().enumerate() {
                let stored = &mut self.residues[(first + index) * out..][..out];
                if self.started {
                    for (x, &r) in self.plane_c.iter_mut().zip(&*stored) {
                        *x = f64::from(r);
                    }
                }
                matmul_mod(
                    field,
                    self.started,
                    MatRef::row_major(&self.planes_a[index * in_a..], rows, depth)?,
                    MatRef::row_major(&self.planes_b[index * in_b..], depth, cols)?,
                    MatMut::row_major(&mut self.plane_c, rows, cols)?,
                    workspace,
                )?;
                for (r, &x) in stored.iter_mut().zip(&self.plane_c) {
                    *r = x as i32;
                }
            }
        }
        self.started = true;
        Ok(())
    }

    /// Writes C, row-major, `c_limbs` limbs each, to `output` as little-endian bytes.
    pub(super) fn finish(
        &mut self,
        output: &mut [u8],
        workspace: &mut Workspace,
    ) -> Result<(), KernelError> {
        let out = self.sizes.rows * self.sizes.cols;
        let element_bytes = 8 * self.sizes.c_limbs;
        let count = self.basis.primes.len();
        let width = self.basis.digits();
        // The table of digits of M/p is cut into bands of primes when it is large, and then made
        // again for each chunk of elements.
        let (band, chunk) = result_chunk(width, count, out);
        resize(&mut self.weights, band * width, 0.0)?;
        resize(&mut self.digits, count * chunk, 0.0)?;
        resize(&mut self.sums, chunk * (width + 1), 0.0)?;
        let mut band_made = usize::MAX;
        for start in (0..out).step_by(chunk) {
            let len = chunk.min(out - start);
            let (sums, fractions) = self.sums.split_at_mut(chunk * width);
            fractions.fill(0.0);
            for p in 0..count {
                let (field, inverse) = (&self.basis.primes[p], self.basis.inverses[p]);
                let reciprocal = 1.0 / f64::from(field.prime());
                let residues = &self.residues[p * out + start..][..len];
                let scaled = &mut self.digits[p * len..][..len];
                for ((s, &r), fraction) in scaled.iter_mut().zip(residues).zip(&mut *fractions) {
                    *s = field.reduce(f64::from(r) * inverse);
                    *fraction += *s * reciprocal;
                }
            }
            for first in (0..count).step_by(band) {
                let primes = &self.basis.primes[first..count.min(first + band)];
                if band_made != first {
                    for (row, field) in self.weights.chunks_exact_mut(width).zip(primes) {
                        divided_digits(&self.basis.modulus, field.prime(), row);
                    }
                    band_made = first;
                }
                matmul(
                    Class::Any,
                    first > 0,
                    MatRef::row_major(&self.digits[first * len..], primes.len(), len)?.transposed(),
                    MatRef::row_major(&self.weights, primes.len(), width)?,
                    MatMut::row_major(sums, len, width)?,
                    workspace,
                )?;
            }
            let elements = output[start * element_bytes..].chunks_exact_mut(element_bytes);
            for ((row, &fraction), element) in sums
                .chunks_exact(width)
                .zip(&*fractions)
                .zip(elements)
                .take(len)
            {
                // |fraction| is below half the number of primes, so adding 1/2 and truncating a
                // shifted value rounds; the shift keeps it positive.
                let shift = count as i64;
                let quotient = (fraction + shift as f64 + 0.5) as i64 - shift;
                carry(row, quotient, &self.basis.modulus, element);
            }
        }
        Ok(())
    }
}

/// `element = Σ_d sums[d]·2^(16d) - quotient·modulus` in two's complement.
fn carry(sums: &[f64], quotient: i64, modulus: &[u64], element: &mut [u8]) {
    let mut carry = 0i64;
    for (d, bytes) in element.chunks_exact_mut(2).enumerate() {
        let sum = sums.get(d).map_or(0, |&sum| sum as i64);
        // |sum| < 2^53, |quotient·digit| < 2^30 and |carry| < 2^38.
        carry += sum - quotient * i64::from(digit16(modulus, d));
        bytes.copy_from_slice(&(carry as u16).to_le_bytes());
        carry >>= 16;
    }
}

/// Writes the 16-bit digits of `number / divisor` (the division leaves no rest).
fn divided_digits(number: &[u64], divisor: u32, digits: &mut [f64]) {
    let divisor = u64::from(divisor);
    let mut rest = 0u64;
    for (d, digit) in digits.iter_mut().enumerate().rev() {
        let value = (rest << 16) | u64::from(digit16(number, d));
        *digit = (value / divisor) as f64;
        rest = value % divisor;
    }
    debug_assert_eq!(rest, 0, "the divisor is one of the factors");
}

/// Fills `planes` with one plane per prime: the balanced residue of every element.
fn to_residues(
    elements: &[u64],
    limbs: usize,
    bits: u32,
    group: &[Modulus],
    planes: &mut Vec<f64>,
    (digits, weights): &mut (&mut Vec<f64>, &mut Vec<f64>),
    workspace: &mut Workspace,
) -> Result<(), KernelError> {
    let count = elements.len() / limbs;
    // x fits `bits + 1` bits of two's complement, and its limbs in any case.
    let width = (bits as usize + 1).min(64 * limbs).div_ceil(16);
    let chunk = residue_chunk(width, count);
    resize(planes, product("residues", &[group.len(), count])?, 0.0)?;
    resize(digits, chunk * width, 0.0)?;
    resize(weights, width * group.len(), 0.0)?;
    for (column, field) in group.iter().enumerate() {
        let mut weight = 1.0;
        for row in weights.chunks_exact_mut(group.len()).take(width) {
            row[column] = weight;
            weight = field.reduce(weight * 65_536.0);
        }
    }
    for start in (0..count).step_by(chunk) {
        let len = chunk.min(count - start);
        let part = elements[start * limbs..(start + len) * limbs].chunks_exact(limbs);
        for (element, digits) in part.zip(digits.chunks_exact_mut(width)) {
            for (d, digit) in digits.iter_mut().enumerate() {
                *digit = f64::from(digit16(element, d));
            }
            digits[width - 1] = f64::from(digit16(element, width - 1) as i16);
        }
        matmul(
            Class::Any,
            false,
            MatRef::row_major(weights, width, group.len())?.transposed(),
            MatRef::row_major(digits, len, width)?.transposed(),
            MatMut::new(&mut planes[start..], group.len(), len, count, 1)?,
            workspace,
        )?;
        for (plane, field) in planes.chunks_exact_mut(count).zip(group) {
            plane[start..start + len]
                .iter_mut()
                .for_each(|x| *x = field.reduce(*x));
        }
    }
    Ok(())
}
