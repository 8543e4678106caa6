//! One tile of a job: blocks of A and B as bytes in, the tile of C as bytes out. The same code runs
//! in a node's threads and in a browser's workers.
//!
//! C stays here while A and B pass by in slabs of k, so the memory that a tile needs does not depend
//! on the inner dimension. Slabs continue the chains (see the crate's documentation): their depth
//! changes no bit.
//!
//! ```text
//! let mut tile = TileProduct::new(spec)?;
//! for each slab { tile.begin_slab(k)?; tile.put_a(..)?; tile.put_b(..)?; tile.accumulate()?; }
//! let bytes = tile.finish()?;
//! ```

use alloc::vec::Vec;

use crate::exact::{self, ResidueProduct};
use crate::gemm::{Class, Scalar, Workspace, matmul, workspace_bytes};
use crate::integer::fits;
use crate::matrix::{KernelError, MatMut, MatRef, product, resize, within};

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

    /// The bytes that a [`TileProduct`] holds at most with slabs of depth `k`, the result of
    /// [`TileProduct::finish`] included; saturating.
    pub fn memory_bytes(&self, k: usize) -> usize {
        let Self { rows, cols, .. } = *self;
        let (size, packing) = match self.element {
            Element::F64 => (8, workspace_bytes::<f64>(self.class, rows, k, cols)),
            Element::F32 => (4, workspace_bytes::<f32>(self.class, rows, k, cols)),
            Element::Int { .. } => return self.sizes().map_or(0, |sizes| sizes.memory_bytes(k)),
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
    fn sizes(&self) -> Option<exact::Sizes> {
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

    fn check(&self) -> Result<(), KernelError> {
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

/// Where a part of a block goes. The block is row-major, and rows × cols of it are copied from
/// (src_row, src_col) to (dst_row, dst_col) of the slab of A or B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Placement {
    /// Elements in one row of the source block.
    pub src_row_len: usize,
    /// The first row to take from the block.
    pub src_row: usize,
    /// The first column to take from the block.
    pub src_col: usize,
    /// Rows to take.
    pub rows: usize,
    /// Columns to take.
    pub cols: usize,
    /// Where the first row goes: for A relative to the tile's rows, for B relative to the slab's k.
    pub dst_row: usize,
    /// Where the first column goes: for A relative to the slab's k, for B relative to the tile's
    /// columns.
    pub dst_col: usize,
}

impl Placement {
    /// All of a `rows × cols` block, placed at (dst_row, dst_col).
    pub fn whole(rows: usize, cols: usize, dst_row: usize, dst_col: usize) -> Self {
        Self {
            src_row_len: cols,
            src_row: 0,
            src_col: 0,
            rows,
            cols,
            dst_row,
            dst_col,
        }
    }

    /// Calls `row` for each row of the part with its destination (row, column) and its bytes.
    pub(crate) fn for_each_row(
        &self,
        block: &[u8],
        element_bytes: usize,
        (dst_rows, dst_cols): (usize, usize),
        mut row: impl FnMut(usize, usize, &[u8]) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let overflow = KernelError::Overflow {
            what: "part of a block",
        };
        let sum = |x: usize, y: usize| x.checked_add(y).ok_or(overflow);
        within(
            "last row of the part (limit: the slab's)",
            dst_rows,
            sum(self.dst_row, self.rows)?,
        )?;
        within(
            "last column of the part (limit: the slab's)",
            dst_cols,
            sum(self.dst_col, self.cols)?,
        )?;
        within(
            "last column of the part (limit: the block's)",
            self.src_row_len,
            sum(self.src_col, self.cols)?,
        )?;
        if self.rows == 0 || self.cols == 0 {
            return Ok(());
        }
        let row_bytes = product("row of a block", &[self.src_row_len, element_bytes])?;
        // The last byte that is read, so that a block may end with the part's last row.
        let last_row = product(
            "part of a block",
            &[sum(self.src_row, self.rows - 1)?, row_bytes],
        )?;
        let end = sum(last_row, (self.src_col + self.cols) * element_bytes)?;
        within("bytes of the part (limit: the block's)", block.len(), end)?;
        for i in 0..self.rows {
            let start = (self.src_row + i) * row_bytes + self.src_col * element_bytes;
            row(
                self.dst_row + i,
                self.dst_col,
                &block[start..start + self.cols * element_bytes],
            )?;
        }
        Ok(())
    }
}

/// The working buffers of one type of floats.
#[derive(Debug, Default)]
struct Buffers<T> {
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<T>,
}

/// A limb or a float: what slabs are made of.
trait Store: Copy + Default {
    const BYTES: usize;
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! store {
    ($($scalar:ty),*) => {$(
        impl Store for $scalar {
            const BYTES: usize = size_of::<$scalar>();
            #[inline(always)]
            fn read(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$scalar>()];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }
        }
    )*};
}
store!(f64, f32, u64);

/// How the product is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    F64,
    F32,
    /// Integers as `f64`, every sum exact.
    Direct(exact::Sizes),
    /// Integers modulo primes.
    Residues(exact::Sizes),
}

impl Method {
    fn of(spec: &TileSpec) -> Self {
        match (spec.element, spec.sizes()) {
            (Element::F64, _) => Self::F64,
            (Element::F32, _) => Self::F32,
            (_, Some(sizes)) if sizes.direct() => Self::Direct(sizes),
            (_, Some(sizes)) => Self::Residues(sizes),
            (Element::Int { .. }, None) => unreachable!("integers have sizes"),
        }
    }
}

/// One tile while it is computed.
///
/// Bits: for a class other than `Any` the result depends on the operands alone, whichever device,
/// slabs and block sizes computed it. A NaN is written as the one quiet NaN
/// [`Scalar::CANONICAL_NAN`] in every class, because IEEE 754 leaves its sign and payload open.
///
/// After an error from `accumulate` or `finish` the product is unusable until [`Self::reset`].
#[derive(Debug)]
pub struct TileProduct {
    spec: TileSpec,
    method: Method,
    /// Depth of the current slab, and how many elements of it were put.
    depth: usize,
    put_a: usize,
    put_b: usize,
    /// The part of the inner dimension that is in C already.
    done: usize,
    doubles: Buffers<f64>,
    singles: Buffers<f32>,
    limbs_a: Vec<u64>,
    limbs_b: Vec<u64>,
    residues: Option<ResidueProduct>,
    workspace: Workspace,
}

impl TileProduct {
    /// A tile with nothing in it yet. Allocates C.
    ///
    /// # Errors
    /// `Shape` for an empty tile or limbs that do not fit the bits, `Overflow`, `OutOfMemory`.
    pub fn new(spec: TileSpec) -> Result<Self, KernelError> {
        let mut tile = Self {
            spec,
            method: Method::F64,
            depth: 0,
            put_a: 0,
            put_b: 0,
            done: 0,
            doubles: Buffers::default(),
            singles: Buffers::default(),
            limbs_a: Vec::new(),
            limbs_b: Vec::new(),
            residues: None,
            workspace: Workspace::new(),
        };
        tile.reset(spec)?;
        Ok(tile)
    }

    /// Starts another tile in the same buffers. Buffers of another element type are given back.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn reset(&mut self, spec: TileSpec) -> Result<(), KernelError> {
        spec.check()?;
        let method = Method::of(&spec);
        if core::mem::discriminant(&method) != core::mem::discriminant(&self.method) {
            self.doubles = Buffers::default();
            self.singles = Buffers::default();
            (self.limbs_a, self.limbs_b) = (Vec::new(), Vec::new());
            self.residues = None;
        }
        (self.spec, self.method) = (spec, method);
        (self.depth, self.put_a, self.put_b, self.done) = (0, 0, 0, 0);
        let out = spec.rows * spec.cols;
        match method {
            Method::F64 | Method::Direct(_) => resize(&mut self.doubles.c, out, 0.0),
            Method::F32 => resize(&mut self.singles.c, out, 0.0),
            Method::Residues(sizes) => match &mut self.residues {
                Some(residues) => residues.reset(sizes),
                None => {
                    self.residues = Some(ResidueProduct::new(sizes)?);
                    Ok(())
                }
            },
        }
    }

    /// The sizes it was made with.
    pub fn spec(&self) -> &TileSpec {
        &self.spec
    }

    /// `2·rows·cols·inner`.
    pub fn operations(&self) -> u64 {
        self.spec.operations()
    }

    /// Begins the next slab: the next `k` columns of A and rows of B.
    ///
    /// # Errors
    /// `Shape` if `k` is 0 or more than what is left of the inner dimension, `OutOfMemory`.
    pub fn begin_slab(&mut self, k: usize) -> Result<(), KernelError> {
        within(
            "depth of the slab (limit: what is left)",
            self.spec.inner - self.done,
            k,
        )?;
        if k == 0 {
            return Err(KernelError::Shape {
                what: "depth of the slab",
                expected: 1,
                found: 0,
            });
        }
        (self.depth, self.put_a, self.put_b) = (0, 0, 0);
        let a = product("slab of A", &[self.spec.rows, k])?;
        let b = product("slab of B", &[k, self.spec.cols])?;
        match self.method {
            Method::F64 | Method::Direct(_) => {
                resize(&mut self.doubles.a, a, 0.0)?;
                resize(&mut self.doubles.b, b, 0.0)?;
            }
            Method::F32 => {
                resize(&mut self.singles.a, a, 0.0)?;
                resize(&mut self.singles.b, b, 0.0)?;
            }
            Method::Residues(sizes) => {
                resize(
                    &mut self.limbs_a,
                    product("slab of A", &[a, sizes.a_limbs])?,
                    0,
                )?;
                resize(
                    &mut self.limbs_b,
                    product("slab of B", &[b, sizes.b_limbs])?,
                    0,
                )?;
            }
        }
        self.depth = k;
        Ok(())
    }

    /// Copies a part of a block of A into the slab: rows of the tile × columns of the slab.
    ///
    /// # Errors
    /// `Shape` or `Overflow` if the part reaches outside the block or the slab; `Range` for an integer
    /// of more than `a_bits`.
    pub fn put_a(&mut self, block: &[u8], placement: Placement) -> Result<(), KernelError> {
        let extent = (self.spec.rows, self.depth);
        match self.method {
            Method::F64 => copy(&mut self.doubles.a, block, placement, extent)?,
            Method::F32 => copy(&mut self.singles.a, block, placement, extent)?,
            Method::Direct(s) => copy_small(
                &mut self.doubles.a,
                block,
                placement,
                extent,
                s.a_limbs,
                s.a_bits,
            )?,
            Method::Residues(s) => copy_limbs(
                &mut self.limbs_a,
                block,
                placement,
                extent,
                s.a_limbs,
                s.a_bits,
            )?,
        }
        self.put_a = self.put_a.saturating_add(placement.rows * placement.cols);
        Ok(())
    }

    /// Copies a part of a block of B into the slab: rows of the slab × columns of the tile.
    ///
    /// # Errors
    /// As [`Self::put_a`], with `b_bits`.
    pub fn put_b(&mut self, block: &[u8], placement: Placement) -> Result<(), KernelError> {
        let extent = (self.depth, self.spec.cols);
        match self.method {
            Method::F64 => copy(&mut self.doubles.b, block, placement, extent)?,
            Method::F32 => copy(&mut self.singles.b, block, placement, extent)?,
            Method::Direct(s) => copy_small(
                &mut self.doubles.b,
                block,
                placement,
                extent,
                s.b_limbs,
                s.b_bits,
            )?,
            Method::Residues(s) => copy_limbs(
                &mut self.limbs_b,
                block,
                placement,
                extent,
                s.b_limbs,
                s.b_bits,
            )?,
        }
        self.put_b = self.put_b.saturating_add(placement.rows * placement.cols);
        Ok(())
    }

    /// `C += A_slab·B_slab`: the call that is timed. Ends the slab.
    ///
    /// # Errors
    /// `Incomplete` if fewer (or more) elements were put than the slab has, `OutOfMemory`.
    pub fn accumulate(&mut self) -> Result<(), KernelError> {
        let TileSpec {
            rows, cols, class, ..
        } = self.spec;
        let k = self.depth;
        if k == 0 || self.put_a != rows * k || self.put_b != k * cols {
            return Err(KernelError::Incomplete { what: "slab" });
        }
        let continued = self.done > 0;
        let workspace = &mut self.workspace;
        match self.method {
            Method::F64 => self
                .doubles
                .multiply(class, continued, (rows, k, cols), workspace)?,
            Method::F32 => self
                .singles
                .multiply(class, continued, (rows, k, cols), workspace)?,
            Method::Direct(_) => {
                self.doubles
                    .multiply(Class::Any, continued, (rows, k, cols), workspace)?;
            }
            Method::Residues(_) => {
                let residues = self
                    .residues
                    .as_mut()
                    .ok_or(KernelError::Incomplete { what: "product" })?;
                residues.accumulate(&self.limbs_a, &self.limbs_b, k, workspace)?;
            }
        }
        self.done += k;
        self.depth = 0;
        Ok(())
    }

    /// The bytes of C: row-major, little-endian.
    ///
    /// # Errors
    /// `Incomplete` if the slabs so far do not add up to the inner dimension, `OutOfMemory`.
    pub fn finish(&mut self) -> Result<Vec<u8>, KernelError> {
        if self.done != self.spec.inner {
            return Err(KernelError::Incomplete { what: "product" });
        }
        let mut bytes = Vec::new();
        resize(&mut bytes, self.spec.result_bytes(), 0)?;
        match self.method {
            Method::F64 => {
                for (to, &x) in bytes.chunks_exact_mut(8).zip(&self.doubles.c) {
                    let x = if x.is_nan() { f64::CANONICAL_NAN } else { x };
                    to.copy_from_slice(&x.to_le_bytes());
                }
            }
            Method::F32 => {
                for (to, &x) in bytes.chunks_exact_mut(4).zip(&self.singles.c) {
                    let x = if x.is_nan() { f32::CANONICAL_NAN } else { x };
                    to.copy_from_slice(&x.to_le_bytes());
                }
            }
            Method::Direct(sizes) => {
                for (to, &x) in bytes
                    .chunks_exact_mut(8 * sizes.c_limbs)
                    .zip(&self.doubles.c)
                {
                    let x = x as i64;
                    to.fill(if x < 0 { 0xff } else { 0 });
                    to[..8].copy_from_slice(&x.to_le_bytes());
                }
            }
            Method::Residues(_) => {
                let residues = self
                    .residues
                    .as_mut()
                    .ok_or(KernelError::Incomplete { what: "product" })?;
                residues.finish(&mut bytes, &mut self.workspace)?;
            }
        }
        Ok(bytes)
    }
}

impl<T: Scalar> Buffers<T> {
    fn multiply(
        &mut self,
        class: Class,
        accumulate: bool,
        (rows, k, cols): (usize, usize, usize),
        workspace: &mut Workspace,
    ) -> Result<(), KernelError> {
        let a = MatRef::row_major(&self.a, rows, k)?;
        let b = MatRef::row_major(&self.b, k, cols)?;
        let c = MatMut::row_major(&mut self.c, rows, cols)?;
        matmul(class, accumulate, a, b, c, workspace)
    }
}

/// Copies floats.
fn copy<T: Store>(
    slab: &mut [T],
    block: &[u8],
    placement: Placement,
    extent: (usize, usize),
) -> Result<(), KernelError> {
    placement.for_each_row(block, T::BYTES, extent, |row, col, bytes| {
        let to = &mut slab[row * extent.1 + col..][..placement.cols];
        for (element, bytes) in to.iter_mut().zip(bytes.chunks_exact(T::BYTES)) {
            *element = T::read(bytes);
        }
        Ok(())
    })
}

const TOO_LARGE: KernelError = KernelError::Range {
    what: "an integer (more bits than the job says)",
};

/// Copies integers below 2^53 as floats.
fn copy_small(
    slab: &mut [f64],
    block: &[u8],
    placement: Placement,
    extent: (usize, usize),
    limbs: usize,
    bits: u32,
) -> Result<(), KernelError> {
    placement.for_each_row(block, 8 * limbs, extent, |row, col, bytes| {
        let to = &mut slab[row * extent.1 + col..][..placement.cols];
        for (element, bytes) in to.iter_mut().zip(bytes.chunks_exact(8 * limbs)) {
            let low = u64::read(&bytes[..8]) as i64;
            let sign = if low < 0 { 0xff } else { 0 };
            if low.unsigned_abs() >> bits != 0 || bytes[8..].iter().any(|&byte| byte != sign) {
                return Err(TOO_LARGE);
            }
            *element = low as f64;
        }
        Ok(())
    })
}

/// Copies integers limb by limb.
fn copy_limbs(
    slab: &mut [u64],
    block: &[u8],
    placement: Placement,
    extent: (usize, usize),
    limbs: usize,
    bits: u32,
) -> Result<(), KernelError> {
    placement.for_each_row(block, 8 * limbs, extent, |row, col, bytes| {
        let to = &mut slab[(row * extent.1 + col) * limbs..][..placement.cols * limbs];
        for (limb, bytes) in to.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = u64::read(bytes);
        }
        if to.chunks_exact(limbs).all(|x| fits(x, bits)) {
            Ok(())
        } else {
            Err(TOO_LARGE)
        }
    })
}
