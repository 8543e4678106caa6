//! Tiles of residues: an element is one residue for each of several primes, and each prime has a product of its
//! own. Such are the shares of [`crate::coding`].

use alloc::vec::Vec;

use super::Placement;
use crate::arch::widest;
use crate::coding::Field;
use crate::coding::residues;
use crate::matrix::{KernelError, product, resize};
use crate::pairs::field::FieldProduct;

/// Bytes of one residue: two's complement, little-endian.
pub(super) const WORD: usize = 2;

const NOT_CANONICAL: KernelError = KernelError::Range {
    what: "a residue (from -(p - 1)/2 to (p - 1)/2)",
};

/// One tile modulo several primes while it is computed; all of A, B and C is plane after plane.
#[derive(Debug, Default)]
pub(super) struct Planes {
    fields: Vec<Field>,
    shape: [usize; 2],
    a: Vec<i16>,
    b: Vec<i16>,
    c: Vec<i16>,
    /// The product of one slab modulo one prime, where C has something already.
    sum: Vec<i16>,
    pairs: FieldProduct,
}

impl Planes {
    /// What it takes with slabs of depth `k`, the result included; saturating.
    pub(super) fn memory_bytes(primes: usize, [rows, k, cols]: [usize; 3]) -> usize {
        let factors = rows.saturating_add(cols).saturating_mul(k);
        let out = rows.saturating_mul(cols);
        // Planes, and the panels that one of them is packed into.
        let words = factors.saturating_mul(primes.saturating_add(2));
        // C, its bytes, the sums of one plane as 16 and as 32 bits.
        let results = out.saturating_mul(primes.saturating_mul(2).saturating_add(3));
        words.saturating_add(results).saturating_mul(WORD)
    }

    /// Another tile, C at zero.
    pub(super) fn reset(
        &mut self,
        primes: usize,
        rows: usize,
        cols: usize,
    ) -> Result<(), KernelError> {
        if self.fields.len() != primes || primes == 0 {
            self.fields = residues::fields(primes)?;
        }
        self.shape = [rows, cols];
        resize(&mut self.c, product("tile", &[primes, rows, cols])?, 0)
    }

    pub(super) fn begin(&mut self, k: usize) -> Result<(), KernelError> {
        let ([rows, cols], primes) = (self.shape, self.fields.len());
        resize(&mut self.a, product("slab of A", &[primes, rows, k])?, 0)?;
        resize(&mut self.b, product("slab of B", &[primes, k, cols])?, 0)
    }

    pub(super) fn put_a(
        &mut self,
        block: &[u8],
        placement: Placement,
        extent: (usize, usize),
    ) -> Result<(), KernelError> {
        put(&self.fields, &mut self.a, block, placement, extent)
    }

    pub(super) fn put_b(
        &mut self,
        block: &[u8],
        placement: Placement,
        extent: (usize, usize),
    ) -> Result<(), KernelError> {
        put(&self.fields, &mut self.b, block, placement, extent)
    }

    /// `C += A·B` modulo each prime.
    pub(super) fn accumulate(&mut self, k: usize, continued: bool) -> Result<(), KernelError> {
        let [rows, cols] = self.shape;
        if continued {
            resize(&mut self.sum, product("tile", &[rows, cols])?, 0)?;
        }
        let a = self.a.chunks_exact(rows * k);
        let b = self.b.chunks_exact(k * cols);
        let c = self.c.chunks_exact_mut(rows * cols);
        for (((field, a), b), c) in self.fields.iter().zip(a).zip(b).zip(c) {
            let shape = [rows, k, cols];
            if continued {
                self.pairs
                    .multiply(field.prime(), a, b, shape, &mut self.sum)?;
                add(field.prime() as i16, &self.sum, c);
            } else {
                self.pairs.multiply(field.prime(), a, b, shape, c)?;
            }
        }
        Ok(())
    }

    /// The bytes of C: row-major, for each element its residues in the order of the primes.
    pub(super) fn finish(&self, bytes: &mut [u8]) {
        let primes = self.fields.len();
        let [rows, cols] = self.shape;
        for (q, plane) in self.c.chunks_exact(rows * cols).enumerate() {
            let elements = bytes.chunks_exact_mut(WORD * primes);
            for (to, &x) in elements.zip(plane) {
                to[WORD * q..][..WORD].copy_from_slice(&x.to_le_bytes());
            }
        }
    }
}

/// Takes the elements of a part of a block apart.
fn put(
    fields: &[Field],
    slab: &mut [i16],
    block: &[u8],
    placement: Placement,
    extent: (usize, usize),
) -> Result<(), KernelError> {
    let (width, plane) = (WORD * fields.len(), extent.0 * extent.1);
    placement.for_each_row(block, width, extent, |row, col, bytes| {
        let mut canonical = true;
        for (q, field) in fields.iter().enumerate() {
            let to = &mut slab[q * plane + row * extent.1 + col..][..placement.cols];
            canonical &= take(bytes, width, WORD * q, (field.prime() / 2) as i16, to);
        }
        if canonical {
            Ok(())
        } else {
            Err(NOT_CANONICAL)
        }
    })
}

/// Every `width`-th word from `offset` on, and whether none is more than `most` in magnitude.
fn take(bytes: &[u8], width: usize, offset: usize, most: i16, to: &mut [i16]) -> bool {
    let mut canonical = true;
    for (to, element) in to.iter_mut().zip(bytes.chunks_exact(width)) {
        let x = i16::from_le_bytes([element[offset], element[offset + 1]]);
        canonical &= (-most..=most).contains(&x);
        *to = x;
    }
    canonical
}

widest! {
    /// `c += x` modulo p, all canonical.
    fn add(p: i16, x: &[i16], c: &mut [i16]) {
        let half = p / 2;
        for (c, &x) in c.iter_mut().zip(x) {
            // Below 2^12 in magnitude.
            let sum = *c + x;
            let above = if sum > half { p } else { 0 };
            let below = if sum < -half { p } else { 0 };
            *c = sum - above + below;
        }
    }
}
