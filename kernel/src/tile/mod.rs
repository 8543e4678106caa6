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

mod planes;
mod slab;
mod spec;
mod stack;

use alloc::vec::Vec;
use core::ops::Range;

use self::planes::Planes;
pub use self::slab::Placement;
use self::slab::{copy, copy_limbs, copy_small};
pub use self::spec::{Element, TileSpec};
pub use self::stack::Stack;
use crate::exact::{self, ResidueProduct};
use crate::gemm::{Class, Scalar, Workspace, matmul};
use crate::matrix::{KernelError, MatMut, MatRef, product, reserve, resize, within};

/// The working buffers of one type of floats.
#[derive(Debug, Default)]
struct Buffers<T> {
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<T>,
}

/// How the product is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    F64,
    F32,
    /// Integers as `f64`, every sum exact.
    Direct(exact::Sizes),
    /// Integers modulo primes.
    Residues(exact::Sizes),
    /// Residues, so many of each element.
    Planes(usize),
}

impl Method {
    fn of(spec: &TileSpec) -> Self {
        match (spec.element, spec.sizes()) {
            (Element::F64, _) => Self::F64,
            (Element::F32, _) => Self::F32,
            (Element::Residues { primes }, _) => Self::Planes(primes.into()),
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
    /// Set for a tile of a stack of products.
    stack: Option<Stack>,
    /// C of a stack, where it is not computed in place.
    stacked: Vec<u8>,
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
    planes: Planes,
    workspace: Workspace,
}

impl Default for TileProduct {
    /// A tile of nothing, which takes no slab until it is reset.
    fn default() -> Self {
        Self {
            spec: TileSpec {
                element: Element::F64,
                class: Class::Any,
                rows: 0,
                cols: 0,
                inner: 0,
            },
            method: Method::F64,
            stack: None,
            stacked: Vec::new(),
            depth: 0,
            put_a: 0,
            put_b: 0,
            done: 0,
            doubles: Buffers::default(),
            singles: Buffers::default(),
            limbs_a: Vec::new(),
            limbs_b: Vec::new(),
            residues: None,
            planes: Planes::default(),
            workspace: Workspace::new(),
        }
    }
}

impl TileProduct {
    /// A tile with nothing in it yet. Allocates C.
    ///
    /// # Errors
    /// `Shape` for an empty tile or limbs that do not fit the bits, `Overflow`, `OutOfMemory`.
    pub fn new(spec: TileSpec) -> Result<Self, KernelError> {
        let mut tile = Self::default();
        tile.reset(spec)?;
        Ok(tile)
    }

    /// [`Self::reset`], or [`Self::reset_stack`] for a tile of a stack.
    ///
    /// # Errors
    /// As theirs.
    pub fn start(&mut self, spec: TileSpec, stack: Option<Stack>) -> Result<(), KernelError> {
        match stack {
            None => self.reset(spec),
            Some(stack) => self.reset_stack(spec, stack),
        }
    }

    /// Starts another tile in the same buffers. Buffers of another element type are given back.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn reset(&mut self, spec: TileSpec) -> Result<(), KernelError> {
        spec.check()?;
        self.restart(spec, Method::of(&spec))
    }

    fn restart(&mut self, spec: TileSpec, method: Method) -> Result<(), KernelError> {
        (self.stack, self.stacked) = (None, Vec::new());
        if core::mem::discriminant(&method) != core::mem::discriminant(&self.method) {
            self.doubles = Buffers::default();
            self.singles = Buffers::default();
            (self.limbs_a, self.limbs_b) = (Vec::new(), Vec::new());
            self.residues = None;
            self.planes = Planes::default();
        }
        (self.spec, self.method) = (spec, method);
        (self.depth, self.put_a, self.put_b, self.done) = (0, 0, 0, 0);
        let out = spec.rows * spec.cols;
        match method {
            Method::F64 | Method::Direct(_) => resize(&mut self.doubles.c, out, 0.0),
            Method::F32 => resize(&mut self.singles.c, out, 0.0),
            Method::Planes(primes) => self.planes.reset(primes, spec.rows, spec.cols),
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
        if self.stack.is_some() && k != self.spec.inner {
            return Err(KernelError::Shape {
                what: "depth of a stack's slab",
                expected: self.spec.inner,
                found: k,
            });
        }
        (self.depth, self.put_a, self.put_b) = (0, 0, 0);
        let a = product("slab of A", &[self.spec.rows, k])?;
        let b = product("slab of B", &[self.products(), k, self.spec.cols])?;
        match self.method {
            Method::F64 | Method::Direct(_) => {
                resize(&mut self.doubles.a, a, 0.0)?;
                resize(&mut self.doubles.b, b, 0.0)?;
            }
            Method::F32 => {
                resize(&mut self.singles.a, a, 0.0)?;
                resize(&mut self.singles.b, b, 0.0)?;
            }
            Method::Planes(_) => self.planes.begin(k)?,
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
            Method::Planes(_) => self.planes.put_a(block, placement, extent)?,
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
        let extent = (self.products() * self.depth, self.spec.cols);
        match self.method {
            Method::F64 => copy(&mut self.doubles.b, block, placement, extent)?,
            Method::F32 => copy(&mut self.singles.b, block, placement, extent)?,
            Method::Planes(_) => self.planes.put_b(block, placement, extent)?,
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
        if k == 0 || self.put_a != rows * k || self.put_b != self.products() * k * cols {
            return Err(KernelError::Incomplete { what: "slab" });
        }
        if let Some(stack) = self.stack {
            self.accumulate_stack(stack)?;
            (self.done, self.depth) = (k, 0);
            return Ok(());
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
            Method::Planes(_) => self.planes.accumulate(k, continued)?,
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
        let mut bytes = Vec::new();
        if let Method::Direct(_) | Method::Residues(_) | Method::Planes(_) = self.method {
            self.finish_integers(&mut bytes)?;
        } else {
            reserve(&mut bytes, self.spec.result_bytes())?;
            self.finish_into(&mut |piece| bytes.extend_from_slice(piece))?;
        }
        Ok(bytes)
    }

    /// [`Self::finish`] for a caller who keeps the bytes elsewhere: `take` is called with one piece of
    /// them after the other. Floats need no memory for it.
    ///
    /// # Errors
    /// As [`Self::finish`]; nothing was taken then.
    pub fn finish_into(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<(), KernelError> {
        match self.method {
            Method::F64 => {
                self.complete()?;
                pieces(&self.doubles.c, f64::to_le_bytes, take);
            }
            Method::F32 => {
                self.complete()?;
                pieces(&self.singles.c, f32::to_le_bytes, take);
            }
            Method::Direct(_) | Method::Residues(_) | Method::Planes(_) => {
                let mut bytes = Vec::new();
                self.finish_integers(&mut bytes)?;
                take(&bytes);
            }
        }
        Ok(())
    }

    fn complete(&self) -> Result<(), KernelError> {
        if self.done == self.spec.inner {
            Ok(())
        } else {
            Err(KernelError::Incomplete { what: "product" })
        }
    }

    fn finish_integers(&mut self, bytes: &mut Vec<u8>) -> Result<(), KernelError> {
        self.complete()?;
        if let Some(stacked) = self.take_stacked() {
            *bytes = stacked;
            return Ok(());
        }
        resize(bytes, self.spec.result_bytes(), 0)?;
        if let Method::Planes(_) = self.method {
            self.planes.finish(bytes);
            return Ok(());
        }
        if let Method::Direct(sizes) = self.method {
            let width = 8 * sizes.c_limbs;
            for (to, &x) in bytes.chunks_exact_mut(width).zip(&self.doubles.c) {
                let x = x as i64;
                to.fill(if x < 0 { 0xff } else { 0 });
                to[..8].copy_from_slice(&x.to_le_bytes());
            }
            return Ok(());
        }
        let residues = self.residues.as_mut();
        let residues = residues.ok_or(KernelError::Incomplete { what: "product" })?;
        residues.finish(bytes, &mut self.workspace)
    }
}

/// Bytes of C that are handed out at a time: they stay in the first-level cache.
const PIECE: usize = 16 << 10;

/// Hands out the bytes of `elements`, every NaN as the canonical one.
fn pieces<T: Scalar, const BYTES: usize>(
    elements: &[T],
    bytes: impl Fn(T) -> [u8; BYTES],
    take: &mut dyn FnMut(&[u8]),
) {
    let mut piece = [0; PIECE];
    for elements in elements.chunks(PIECE / BYTES) {
        for (to, &x) in piece.chunks_exact_mut(BYTES).zip(elements) {
            // A NaN alone has no order, not even with itself.
            let x = if x.partial_cmp(&x).is_some() {
                x
            } else {
                T::CANONICAL_NAN
            };
            to.copy_from_slice(&bytes(x));
        }
        take(&piece[..elements.len() * BYTES]);
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

    /// One product of a stack: the elements of A, B and C that are its own.
    fn part(
        &mut self,
        class: Class,
        (a, b, c): (Range<usize>, Range<usize>, Range<usize>),
        (rows, k, cols): (usize, usize, usize),
        workspace: &mut Workspace,
    ) -> Result<(), KernelError> {
        let a = MatRef::row_major(&self.a[a], rows, k)?;
        let b = MatRef::row_major(&self.b[b], k, cols)?;
        let c = MatMut::row_major(&mut self.c[c], rows, cols)?;
        matmul(class, false, a, b, c, workspace)
    }
}
