//! What a tile is: element type, class, sizes, and the memory that they take.

use super::planes::{self, Planes};
use crate::exact;
use crate::gemm::{Class, workspace_bytes};
use crate::matrix::{KernelError, product};

/// What the elements of a product are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 64-bit floating point, 8 bytes.
    F64,
    /// 32-bit floating point, 4 bytes.
    F32,
    /// Integers in two's complement, in little-endian 64-bit limbs.
    Int {
        /// Limbs of an element of A, 1 to [`exact::LIMBS_MAX`].
        a_limbs: u16,
        /// Limbs of an element of B.
        b_limbs: u16,
        /// Limbs of an element of C, at least [`exact::output_limbs`].
        c_limbs: u16,
        /// Bit length of the largest magnitude in all of A (0 if A is zero).
        a_bits: u32,
        /// Bit length of the largest magnitude in all of B.
        b_bits: u32,
    },
    /// Residues modulo the first so many primes of [`crate::coding::residues::fields`], canonical, 16 bits each: A, B
    /// and C alike.
    Residues {
        /// Their number, from 1 to [`crate::coding::residues::FIELDS_MAX`].
        primes: u16,
    },
}

impl Element {
    /// Bytes of one element of A, of B and of C.
    pub fn bytes(&self) -> [usize; 3] {
        match *self {
            Self::F64 => [8; 3],
            Self::F32 => [4; 3],
            Self::Int {
                a_limbs,
                b_limbs,
                c_limbs,
                ..
            } => [a_limbs, b_limbs, c_limbs].map(|n| 8 * usize::from(n)),
            Self::Residues { primes } => [planes::WORD * usize::from(primes); 3],
        }
    }
}

/// The sizes of one tile: C is rows × cols, A rows × inner, B inner × cols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TileSpec {
    /// What the elements are.
    pub element: Element,
    /// How a multiply-add rounds; ignored for integers.
    pub class: Class,
    /// Rows of the tile, at least 1.
    pub rows: usize,
    /// Columns of the tile, at least 1.
    pub cols: usize,
    /// The inner dimension of the product, at least 1.
    pub inner: usize,
}

/// Depths of slabs are multiples of this where possible: whole blocks over k.
const SLAB_UNIT: usize = 256;

impl TileSpec {
    /// `2·rows·cols·inner`: the floating-point operations that count for this tile; saturating.
    pub fn operations(&self) -> u64 {
        [self.rows, self.cols, self.inner]
            .iter()
            .fold(2u64, |n, &x| n.saturating_mul(x as u64))
    }

    /// The bytes of the tile's result; saturating.
    pub fn result_bytes(&self) -> usize {
        self.rows
            .saturating_mul(self.cols)
            .saturating_mul(self.element.bytes()[2])
    }

    /// The bytes that a [`TileProduct`](super::TileProduct) holds at most with slabs of depth `k`, the result of
    /// [`TileProduct::finish`](super::TileProduct::finish) included; saturating.
    pub fn memory_bytes(&self, k: usize) -> usize {
        let Self { rows, cols, .. } = *self;
        let (size, packing) = match self.element {
            Element::F64 => (8, workspace_bytes::<f64>(self.class, rows, k, cols)),
            Element::F32 => (4, workspace_bytes::<f32>(self.class, rows, k, cols)),
            Element::Int { .. } => return self.sizes().map_or(0, |sizes| sizes.memory_bytes(k)),
            Element::Residues { primes } => {
                return Planes::memory_bytes(primes.into(), [rows, k, cols]);
            }
        };
        let slab = rows.saturating_add(cols).saturating_mul(k);
        let result = rows.saturating_mul(cols).saturating_mul(2);
        slab.saturating_add(result)
            .saturating_mul(size)
            .saturating_add(packing)
    }

    /// The largest useful depth of a slab with [`Self::memory_bytes`] within a budget: `inner` if that
    /// fits, else a multiple of 256 if one fits, else what fits. 0 if not even a depth of 1 fits.
    pub fn slab_depth(&self, memory_budget_bytes: usize) -> usize {
        let fit = |k: usize| self.memory_bytes(k) <= memory_budget_bytes;
        if fit(self.inner) {
            return self.inner;
        }
        // memory_bytes does not fall as k grows, but for small steps where blocks are evened out:
        // bisect, then step down over those.
        let (mut low, mut high) = (0, self.inner);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fit(middle) {
                low = middle
            } else {
                high = middle
            }
        }
        let mut depth = if low >= SLAB_UNIT {
            low / SLAB_UNIT * SLAB_UNIT
        } else {
            low
        };
        while depth > 0 && !fit(depth) {
            depth -= if depth > SLAB_UNIT { SLAB_UNIT } else { 1 };
        }
        depth
    }

    /// The sizes of an exact product, for integers.
    pub(super) fn sizes(&self) -> Option<exact::Sizes> {
        let Element::Int {
            a_limbs,
            b_limbs,
            c_limbs,
            a_bits,
            b_bits,
        } = self.element
        else {
            return None;
        };
        Some(exact::Sizes {
            rows: self.rows,
            cols: self.cols,
            inner: self.inner,
            a_limbs: a_limbs.into(),
            b_limbs: b_limbs.into(),
            c_limbs: c_limbs.into(),
            a_bits,
            b_bits,
        })
    }

    pub(super) fn check(&self) -> Result<(), KernelError> {
        let Self {
            rows, cols, inner, ..
        } = *self;
        for (what, size) in [
            ("rows of the tile", rows),
            ("columns of the tile", cols),
            ("inner dimension", inner),
        ] {
            if size == 0 {
                return Err(KernelError::Shape {
                    what,
                    expected: 1,
                    found: 0,
                });
            }
        }
        let [_, _, c_bytes] = self.element.bytes();
        product("bytes of the tile", &[rows, cols, c_bytes])?;
        let operations = [rows, cols, inner]
            .iter()
            .try_fold(2u64, |n, &x| n.checked_mul(x as u64));
        operations.ok_or(KernelError::Overflow {
            what: "operations of the tile",
        })?;
        self.sizes().map_or(Ok(()), |sizes| sizes.check())
    }
}
