//! `C = A·B` and `C += A·B`: the classes, the choice of an instance, and the five loops.
//!
//! The structure is that of GotoBLAS and BLIS: Goto, van de Geijn, *Anatomy of High-Performance
//! Matrix Multiplication*, ACM TOMS 34(3), 2008; Van Zee, van de Geijn, *BLIS: A Framework for
//! Rapidly Instantiating BLAS Functionality*, ACM TOMS 41(3), 2015. Here C is row-major, so vector
//! lanes run along a row of C: A is broadcast, B is loaded as vectors.
//!
//! Every element is one ascending chain (see the crate's documentation), so all block sizes and all
//! instances of a class give the same bits.

use alloc::vec::Vec;
use core::fmt::Debug;

use crate::arch::{self, Kernels};
use crate::matrix::{KernelError, MatMut, MatRef, product, resize, same};
use crate::microkernel::MAX_TILE;
pub use crate::microkernel::{Blocking, Kernel};

/// How a multiply-add rounds. Part of a job's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The device's fastest; the last bits may differ between devices.
    Any,
    /// `round(a·b + c)`: one rounding.
    Fused,
    /// `round(round(a·b) + c)`: two roundings. Every device can do it at full width.
    Separate,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f64 {}
    impl Sealed for f32 {}
}

/// An element type of the floating products: `f64` or `f32`.
pub trait Scalar:
    sealed::Sealed + Copy + Default + PartialEq + PartialOrd + Debug + Send + Sync + 'static
{
    /// Zero.
    const ZERO: Self;

    /// The quiet NaN that [`crate::tile::TileProduct`] writes for every NaN.
    const CANONICAL_NAN: Self;

    /// Every kernel that this device runs, the fastest first.
    fn kernels() -> impl Iterator<Item = Kernel<Self>>;

    /// `a·b + c` with one rounding, on any device. Slow where the CPU has no such instruction.
    fn fused(a: Self, b: Self, c: Self) -> Self;

    /// `a·b + c` with two roundings.
    fn separate(a: Self, b: Self, c: Self) -> Self;
}

impl Scalar for f64 {
    const ZERO: Self = 0.0;
    const CANONICAL_NAN: Self = Self::from_bits(0x7ff8_0000_0000_0000);

    fn kernels() -> impl Iterator<Item = Kernel<Self>> {
        let kernels: Kernels<Self> = arch::kernels_f64();
        kernels.into_iter().flatten()
    }

    #[inline]
    fn fused(a: Self, b: Self, c: Self) -> Self {
        libm::fma(a, b, c)
    }

    #[inline]
    fn separate(a: Self, b: Self, c: Self) -> Self {
        a * b + c
    }
}

impl Scalar for f32 {
    const ZERO: Self = 0.0;
    const CANONICAL_NAN: Self = Self::from_bits(0x7fc0_0000);

    fn kernels() -> impl Iterator<Item = Kernel<Self>> {
        let kernels: Kernels<Self> = arch::kernels_f32();
        kernels.into_iter().flatten()
    }

    #[inline]
    fn fused(a: Self, b: Self, c: Self) -> Self {
        libm::fmaf(a, b, c)
    }

    #[inline]
    fn separate(a: Self, b: Self, c: Self) -> Self {
        a * b + c
    }
}

/// Whether this device computes `class` with vector instructions. [`matmul`] computes every class
/// everywhere, but `Fused` without a fused instruction is done in software, some hundred times slower.
///
/// Under WebAssembly with relaxed SIMD the engine may or may not fuse; a probe decides.
pub fn supports(class: Class) -> bool {
    match class {
        Class::Any | Class::Separate => true,
        Class::Fused => f64::kernels()
            .any(|kernel| kernel.class == Class::Fused && kernel.name != arch::PORTABLE),
    }
}

/// The fastest kernel of this device for a class.
///
/// # Errors
/// `Unsupported` if there is none; the portable instance covers every class, so this does not happen.
pub fn kernel<T: Scalar>(class: Class) -> Result<Kernel<T>, KernelError> {
    T::kernels()
        .find(|kernel| class == Class::Any || kernel.class == class)
        .ok_or(KernelError::Unsupported { class })
}

/// Memory for the packed blocks, used again by later products. Grows to what the largest product
/// needed, at most about (NC + MC)·KC elements of the kernel in use.
#[derive(Debug, Default)]
pub struct Workspace {
    lines: Vec<Line>,
}

/// One cache line, for the alignment.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Workspace {
    /// An empty workspace; the first product allocates.
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// The bytes it holds now.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// Three disjoint regions of at least the given elements, each at the start of a cache line.
    fn regions<T: Scalar>(&mut self, lens: [usize; 3]) -> Result<[*mut T; 3], KernelError> {
        let mut starts = [0; 3];
        let mut total = 0usize;
        for (start, len) in starts.iter_mut().zip(lens) {
            let lines =
                product("packed block", &[len, size_of::<T>()])?.div_ceil(size_of::<Line>());
            *start = total;
            total = total.checked_add(lines).ok_or(KernelError::Overflow {
                what: "packed blocks",
            })?;
        }
        if total > self.lines.len() {
            resize(&mut self.lines, total, Line([0; 64]))?;
        }
        let base = self.lines.as_mut_ptr();
        // SAFETY: every start is at most `total`, the length of the allocation.
        Ok(starts.map(|start| unsafe { base.add(start) }.cast::<T>()))
    }
}

/// The bytes that a [`Workspace`] holds at most for products in this type and class up to these sizes.
pub fn workspace_bytes<T: Scalar>(class: Class, rows: usize, inner: usize, cols: usize) -> usize {
    let Ok(kernel) = kernel::<T>(class) else {
        return 0;
    };
    // A product into a column-major C runs transposed, so take the larger of both ways.
    [(rows, cols), (cols, rows)]
        .into_iter()
        .map(|(m, n)| {
            let sizes = Sizes::new(&kernel, kernel.blocking, m, inner, n);
            let elements = sizes.mc * sizes.kc + sizes.kc * sizes.nc + MAX_TILE;
            elements * size_of::<T>() + 3 * size_of::<Line>()
        })
        .max()
        .unwrap_or(0)
}

/// `C = A·B`, or `C += A·B` if `accumulate`: the chain of the crate's documentation, in `class`.
///
/// A is rows × inner, B is inner × cols, C is rows × cols, with any strides. With `inner = 0` the
/// result is zeros (or C unchanged when accumulating). Without `accumulate` C is never read.
/// Cost: 2·rows·inner·cols operations, plus packing of A once per NC columns and of B once.
///
/// # Errors
/// `Shape` if the sizes do not agree, `OutOfMemory` if the workspace can not grow. C is then unchanged.
pub fn matmul<T: Scalar>(
    class: Class,
    accumulate: bool,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    c: MatMut<'_, T>,
    workspace: &mut Workspace,
) -> Result<(), KernelError> {
    let kernel = kernel::<T>(class)?;
    matmul_with(&kernel, kernel.blocking, accumulate, a, b, c, workspace)
}

/// [`matmul`] with a kernel and block sizes of the caller's choice.
///
/// # Errors
/// As [`matmul`]; also `Shape` for a block size of zero.
pub fn matmul_with<T: Scalar>(
    kernel: &Kernel<T>,
    blocking: Blocking,
    accumulate: bool,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    mut c: MatMut<'_, T>,
    workspace: &mut Workspace,
) -> Result<(), KernelError> {
    same("rows of B (expected: columns of A)", a.cols(), b.rows())?;
    same("rows of C (expected: rows of A)", a.rows(), c.rows())?;
    same("columns of C (expected: columns of B)", b.cols(), c.cols())?;
    if blocking.mc == 0 || blocking.kc == 0 || blocking.nc == 0 {
        return Err(KernelError::Shape {
            what: "block size",
            expected: 1,
            found: 0,
        });
    }
    if a.cols() == 0 {
        if !accumulate {
            c.for_each(|element| *element = T::ZERO);
        }
        return Ok(());
    }
    if a.rows() == 0 || b.cols() == 0 {
        return Ok(());
    }
    // Rows of C must be contiguous to be stored as vectors. Where its columns are instead, the
    // transposed product is the same sums: a·b = b·a, also rounded.
    if c.col_stride() != 1 && c.row_stride() == 1 {
        return five_loops(
            kernel,
            blocking,
            accumulate,
            b.transposed(),
            a.transposed(),
            c.transposed(),
            workspace,
        );
    }
    five_loops(kernel, blocking, accumulate, a, b, c, workspace)
}

/// Block sizes for one product: no larger than the product, and of nearly equal blocks.
#[derive(Clone, Copy)]
struct Sizes {
    mc: usize,
    kc: usize,
    nc: usize,
}

impl Sizes {
    fn new<T>(kernel: &Kernel<T>, limit: Blocking, m: usize, k: usize, n: usize) -> Self {
        Self {
            mc: even_blocks(m, limit.mc, kernel.mr),
            kc: even_blocks(k, limit.kc, 1),
            nc: even_blocks(n, limit.nc, kernel.nr),
        }
    }
}

/// The smallest block, a multiple of `unit`, that cuts `len` into as few blocks as `limit` does.
fn even_blocks(len: usize, limit: usize, unit: usize) -> usize {
    let limit = limit.div_ceil(unit).saturating_mul(unit);
    let blocks = len.div_ceil(limit).max(1);
    len.div_ceil(blocks).div_ceil(unit).max(1) * unit
}

fn five_loops<T: Scalar>(
    kernel: &Kernel<T>,
    blocking: Blocking,
    accumulate: bool,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    mut c: MatMut<'_, T>,
    workspace: &mut Workspace,
) -> Result<(), KernelError> {
    let (m, k, n) = (a.rows(), a.cols(), b.cols());
    let Sizes { mc, kc, nc } = Sizes::new(kernel, blocking, m, k, n);
    let (mr, nr, lanes) = (kernel.mr, kernel.nr, kernel.lanes);
    let [packed_a, packed_b, edge] = workspace.regions::<T>([
        product("packed block of A", &[mc, kc])?,
        product("packed block of B", &[kc, nc])?,
        MAX_TILE,
    ])?;
    let (a_ptr, b_ptr, c_ptr) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let (a_row, a_col) = (a.row_stride(), a.col_stride());
    let (b_row, b_col) = (b.row_stride(), b.col_stride());
    let (c_row, c_col) = (c.row_stride(), c.col_stride());

    // Loop 5 cuts the columns of B and C. Its steps write different parts of C: independent.
    for jc in (0..n).step_by(nc) {
        let n_block = nc.min(n - jc);
        // Loop 4 cuts k. Each step continues the chains that the previous one stored in C: in order.
        for pc in (0..k).step_by(kc) {
            let depth = kc.min(k - pc);
            let load = accumulate || pc > 0;
            // SAFETY: the block lies in B, whose extent its constructor checked; `packed_b` has
            // room for kc × nc elements, nc a multiple of NR.
            unsafe {
                let block = b_ptr.add(pc * b_row + jc * b_col);
                (kernel.pack_b)(block, b_col, b_row, n_block, depth, packed_b);
            }
            // Loop 3 cuts the rows of A and C: independent, each with a packed A of its own.
            for ic in (0..m).step_by(mc) {
                let m_block = mc.min(m - ic);
                // SAFETY: as for B; `packed_a` has room for mc × kc elements, mc a multiple of MR.
                unsafe {
                    let block = a_ptr.add(ic * a_row + pc * a_col);
                    (kernel.pack_a)(block, a_row, a_col, m_block, depth, packed_a);
                }
                // Loop 2 cuts the block of B into micro-panels; one stays in the first-level cache.
                for jr in (0..n_block).step_by(nr) {
                    let n_tile = nr.min(n_block - jr);
                    // At the right edge only as many vectors as it takes.
                    let run = kernel.run[n_tile.div_ceil(lanes) - 1];
                    // Loop 1 cuts the block of A into micro-panels, streamed from the second level.
                    for ir in (0..m_block).step_by(mr) {
                        let m_tile = mr.min(m_block - ir);
                        // SAFETY: micro-panel ir of A starts at ir·depth and holds MR × depth
                        // elements, likewise B; the tile at `c` lies in C. `run`
                        // writes MR rows of whole vectors: in place where all of that is C with
                        // contiguous rows, else through `edge`, which has MAX_TILE >= MR·NR
                        // elements. `Kernel` proves the instructions.
                        unsafe {
                            let a_panel = packed_a.add(ir * depth);
                            let b_panel = packed_b.add(jr * depth);
                            let c_tile = c_ptr.add((ic + ir) * c_row + (jc + jr) * c_col);
                            if m_tile == mr && n_tile.is_multiple_of(lanes) && c_col == 1 {
                                run(depth, a_panel, b_panel, c_tile, c_row, load);
                                continue;
                            }
                            if load {
                                for i in 0..m_tile {
                                    for j in 0..n_tile {
                                        *edge.add(i * nr + j) = *c_tile.add(i * c_row + j * c_col);
                                    }
                                }
                            }
                            run(depth, a_panel, b_panel, edge, nr, load);
                            for i in 0..m_tile {
                                for j in 0..n_tile {
                                    *c_tile.add(i * c_row + j * c_col) = *edge.add(i * nr + j);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(())
}
