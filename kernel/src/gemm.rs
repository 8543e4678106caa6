//! `C = A·B` and `C += A·B`: how a product is cut, and the five loops.
//!
//! The structure is that of GotoBLAS and BLIS: Goto, van de Geijn, *Anatomy of High-Performance
//! Matrix Multiplication*, ACM TOMS 34(3), 2008; Van Zee, van de Geijn, *BLIS: A Framework for
//! Rapidly Instantiating BLAS Functionality*, ACM TOMS 41(3), 2015. Here C is row-major, so vector
//! lanes run along a row of C: A is broadcast, B is loaded as vectors. A C of one column has no rows to
//! speak of; there lanes run along the column, and A is turned in registers.
//!
//! On x86-64 contiguous rows of A are not packed: a micro-panel of them is read where it is and stays in the
//! first-level cache, while the whole packed block of B, small enough for the second level, streams past it.
//! Elsewhere, and where A has to be packed, the roles are the usual ones: a micro-panel of B stays, the packed
//! block of A streams.
//!
//! Every element is one ascending chain (see the crate's documentation), so all block sizes and all
//! instances of a class give the same bits.

use crate::matrix::{KernelError, MatMut, MatRef, product, same};
pub use crate::microkernel::{Blocking, Kernel};
use crate::microkernel::{MAX_TILE, Strided};
pub use crate::scalar::{Class, Scalar, kernel, supports};
pub use crate::workspace::{Workspace, workspace_bytes};

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
    matmul_with(kernel, kernel.blocking, accumulate, a, b, c, workspace)
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
    // One column: rows of A as lanes, if there are enough of them.
    if let Some(column) = kernel.column
        && b.cols() == 1
        && a.col_stride() == 1
        && a.rows() >= 2 * kernel.lanes
        && a.cols() >= 2 * kernel.lanes
    {
        // SAFETY: the views' constructors checked their extents; `Kernel` proves the instructions.
        unsafe {
            column(
                (a.rows(), a.cols()),
                (a.as_ptr(), a.row_stride()),
                (b.as_ptr(), b.row_stride()),
                (c.as_mut_ptr(), c.row_stride()),
                accumulate,
            );
        }
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
    // One step of k: nothing to keep in registers, C is all there is.
    if a.cols() == 1 && b.col_stride() == 1 && c.col_stride() == 1 {
        // SAFETY: as for one column.
        unsafe {
            (kernel.outer)(
                (a.rows(), b.cols()),
                (a.as_ptr(), a.row_stride()),
                b.as_ptr(),
                (c.as_mut_ptr(), c.row_stride()),
                accumulate,
            );
        }
        return Ok(());
    }
    five_loops(kernel, blocking, accumulate, a, b, c, workspace)
}

/// How one product is cut, and what of it is packed.
#[derive(Clone, Copy)]
struct Plan {
    /// Block sizes: no larger than the product, and of nearly equal blocks; kc × nc is at most the limit's.
    mc: usize,
    kc: usize,
    nc: usize,
    pack_a: bool,
    pack_b: bool,
}

/// A up to this many bytes is read where it is: it stays in the second-level cache, so that copying it
/// into panels costs more than it saves.
///
/// Under WebAssembly each row takes an address to be computed and few are read side by side, so that it
/// has to stay in the first-level cache.
const SMALL_A_BYTES: usize = if cfg!(target_arch = "wasm32") {
    48 << 10
} else {
    640 << 10
};

/// Whether an A of any size is read where it is, if its rows are contiguous: MR rows of KC elements stay in
/// the first-level cache while the block of B passes by, so that each is read from memory once per NC.
const STREAMED_A: bool = cfg!(target_arch = "x86_64");

/// As [`SMALL_A_BYTES`]: of B whole vectors are read, a row apart from each other, so that the
/// first-level cache has to hold it.
const SMALL_B_BYTES: usize = 40 << 10;

/// Rows of an A that is not packed which are read side by side at most.
const UNPACKED_ROWS: usize = 6;

/// Depth of a block of a large B that is not packed: so many rows are read side by side, and each has a
/// page of its own.
const UNPACKED_DEPTH: usize = 32;

impl Plan {
    fn new<T: Scalar>(
        kernel: &Kernel<T>,
        limit: Blocking,
        a: &MatRef<'_, T>,
        b: &MatRef<'_, T>,
    ) -> Self {
        let (m, k, n) = (a.rows(), a.cols(), b.cols());
        let small =
            |x: usize, y: usize, bytes: usize| x.saturating_mul(y) <= bytes / size_of::<T>();
        // Rows of A that can be read side by side, each from end to end, need no copy. Else a panel is
        // worth it if it is used often.
        let in_rows = STREAMED_A && a.col_stride() == 1;
        let in_place = kernel.mr <= UNPACKED_ROWS && (in_rows || small(m, k, SMALL_A_BYTES));
        let pack_a = n > 2 * kernel.nr && !in_place;
        let pack_b = b.col_stride() != 1 || m > 2 * kernel.mr && !small(k, n, SMALL_B_BYTES);
        let kc = if pack_b || small(k, n, SMALL_B_BYTES) {
            limit.kc
        } else {
            limit.kc.min(UNPACKED_DEPTH)
        };
        let kc = even_blocks(k, kc, 1);
        // A block of B that is less deep may be wider.
        let wide = limit.nc.div_ceil(kernel.nr).saturating_mul(limit.kc) / kc;
        Self {
            mc: even_blocks(m, limit.mc, kernel.mr),
            kc,
            nc: even_blocks(n, wide.saturating_mul(kernel.nr), kernel.nr),
            pack_a,
            pack_b,
        }
    }
}

/// The smallest block, a multiple of `unit`, that cuts `len` into as few blocks as `limit` does.
fn even_blocks(len: usize, limit: usize, unit: usize) -> usize {
    let limit = limit.div_ceil(unit).saturating_mul(unit);
    let blocks = len.div_ceil(limit).max(1);
    len.div_ceil(blocks).div_ceil(unit).max(1) * unit
}

/// Products less deep than this write C faster than they read A and B: tiles follow the rows of C.
const SHALLOW: usize = 48;

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
    let plan = Plan::new(kernel, blocking, &a, &b);
    let Plan { mc, kc, nc, .. } = plan;
    let (nr, lanes) = (kernel.nr, kernel.lanes);
    // Rows of A that are not packed take an address each: few, but where C is one vector wide and has
    // registers for more.
    let mr = if plan.pack_a {
        kernel.mr
    } else {
        let most = if n <= lanes { 12 } else { UNPACKED_ROWS };
        let heights = kernel.direct.iter().map(|&(rows, _)| rows);
        heights.filter(|&rows| rows <= most).max().unwrap_or(1)
    };
    let [packed_a, packed_b, edge] = workspace.regions::<T>([
        product("packed block of A", &[if plan.pack_a { mc } else { 0 }, kc])?,
        product(
            "packed block of B",
            &[if plan.pack_b { nc } else { lanes }, kc],
        )?,
        MAX_TILE,
    ])?;
    let (a_ptr, b_ptr, c_ptr) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let (a_row, a_col) = (a.row_stride(), a.col_stride());
    let (b_row, b_col) = (b.row_stride(), b.col_stride());
    let (c_row, c_col) = (c.row_stride(), c.col_stride());

    // Loop 5 cuts the columns of B and C. Its steps write different parts of C: independent.
    for jc in (0..n).step_by(nc) {
        let n_block = nc.min(n - jc);
        // Where B is not packed, its last columns are if they do not fill a vector.
        let n_whole = if plan.pack_b {
            n_block
        } else {
            n_block / lanes * lanes
        };
        // Loop 4 cuts k. Each step continues the chains that the previous one stored in C: in order.
        for pc in (0..k).step_by(kc) {
            let depth = kc.min(k - pc);
            let load = accumulate || pc > 0;
            // SAFETY: the block lies in B, whose extent its constructor checked; `packed_b` has
            // room for kc × nc elements, nc a multiple of NR, or for one vector of columns.
            let b_block = unsafe {
                let block = b_ptr.add(pc * b_row + jc * b_col);
                if plan.pack_b {
                    (kernel.pack_b)(block, b_col, b_row, n_block, depth, packed_b);
                } else if n_whole < n_block {
                    let rest = block.add(n_whole * b_col);
                    (kernel.pack_vector)(rest, b_col, b_row, n_block - n_whole, depth, packed_b);
                }
                block
            };
            // The panel of B for the columns from jr, and how many of them are done together.
            let columns = |jr: usize| {
                let width = if jr < n_whole { n_whole } else { n_block } - jr;
                // SAFETY: micro-panel jr of a packed B starts at jr·depth; the rest of columns that
                // fills no vector is packed alone; else the columns are where B is.
                let (start, step) = unsafe {
                    if plan.pack_b {
                        (packed_b.add(jr * depth).cast_const(), nr)
                    } else if jr < n_whole {
                        (b_block.add(jr), b_row)
                    } else {
                        (packed_b.cast_const(), lanes)
                    }
                };
                (
                    Strided {
                        start,
                        lane: 1,
                        step,
                    },
                    width.min(nr),
                )
            };
            // Loop 3 cuts the rows of A and C: independent, each with a packed A of its own.
            for ic in (0..m).step_by(mc) {
                let m_block = mc.min(m - ic);
                // SAFETY: as for B; `packed_a` has room for mc × kc elements, mc a multiple of MR.
                let a_block = unsafe {
                    let block = a_ptr.add(ic * a_row + pc * a_col);
                    if plan.pack_a {
                        (kernel.pack_a)(block, a_row, a_col, m_block, depth, packed_a);
                    }
                    block
                };
                let rows = |ir: usize| {
                    // SAFETY: micro-panel ir of a packed A starts at ir·depth; else the rows are
                    // where A is.
                    unsafe {
                        if plan.pack_a {
                            Strided {
                                start: packed_a.add(ir * depth).cast_const(),
                                lane: 1,
                                step: mr,
                            }
                        } else {
                            Strided {
                                start: a_block.add(ir * a_row),
                                lane: a_row,
                                step: a_col,
                            }
                        }
                    }
                };
                let tile = |ir: usize, jr: usize| {
                    let (b_panel, n_tile) = columns(jr);
                    let m_tile = mr.min(m_block - ir);
                    // SAFETY: both panels hold `depth` steps of m_tile rows and of n_tile columns,
                    // rounded up to whole vectors with zeros where B is packed; the tile at `c` lies
                    // in C; `edge` has MAX_TILE >= MR·NR elements.
                    unsafe {
                        let c_tile = c_ptr.add((ic + ir) * c_row + (jc + jr) * c_col);
                        let part = Tile {
                            depth,
                            m_tile,
                            n_tile,
                            load,
                            // Each tile of these rows of A asks for one of the next rows.
                            ahead: a_block.wrapping_add((ir + mr + jr / nr % mr) * a_row),
                        };
                        let whole = plan.pack_a && plan.pack_b;
                        part.multiply(
                            kernel,
                            rows(ir),
                            b_panel,
                            whole,
                            (c_tile, c_row, c_col),
                            edge,
                        );
                    }
                    n_tile
                };
                if depth < SHALLOW || STREAMED_A && !plan.pack_a {
                    // Loops 1 and 2 exchanged: C is written from left to right, and a micro-panel of A
                    // stays in the first-level cache while the block of B streams from the second.
                    for ir in (0..m_block).step_by(mr) {
                        let mut jr = 0;
                        while jr < n_block {
                            jr += tile(ir, jr);
                        }
                    }
                    continue;
                }
                // Loop 2 cuts the block of B into micro-panels; one stays in the first-level cache.
                let mut jr = 0;
                while jr < n_block {
                    let mut n_tile = 0;
                    // Loop 1 cuts the block of A into micro-panels, streamed from the second level.
                    for ir in (0..m_block).step_by(mr) {
                        n_tile = tile(ir, jr);
                    }
                    jr += n_tile;
                }
            }
        }
    }
    Ok(())
}

/// One micro-tile of C, at an edge perhaps.
struct Tile<T> {
    depth: usize,
    m_tile: usize,
    n_tile: usize,
    load: bool,
    /// Memory that is needed soon.
    ahead: *const T,
}

impl<T: Scalar> Tile<T> {
    /// `C (+)= A·B` for the tile at `(c, row stride, column stride)`; `packed` if both panels are as
    /// [`Kernel::run`] takes them.
    ///
    /// # Safety
    /// `a` holds `depth` steps of `m_tile` rows (MR if `packed`), `b` of `n_tile` columns rounded up to
    /// whole vectors; the tile lies in C; `edge` is writable for [`MAX_TILE`] elements.
    #[inline(always)]
    unsafe fn multiply(
        &self,
        kernel: &Kernel<T>,
        a: Strided<T>,
        b: Strided<T>,
        packed: bool,
        (c, c_row, c_col): (*mut T, usize, usize),
        edge: *mut T,
    ) {
        let Self {
            depth,
            m_tile,
            n_tile,
            load,
            ahead,
        } = *self;
        // At the right edge only as many vectors as it takes.
        let vectors = n_tile.div_ceil(kernel.lanes);
        let width = vectors * kernel.lanes;
        // SAFETY: `run` and `direct` write whole vectors: in place where all of that is C with
        // contiguous rows, else through `edge`. `Kernel` proves the instructions.
        unsafe {
            let in_place = n_tile == width && c_col == 1;
            let (out, out_row) = if in_place { (c, c_row) } else { (edge, width) };
            if load && !in_place {
                for i in 0..m_tile {
                    for j in 0..n_tile {
                        *edge.add(i * width + j) = *c.add(i * c_row + j * c_col);
                    }
                }
            }
            if packed && m_tile == kernel.mr {
                kernel.run[vectors - 1](depth, a.start, b.start, out, out_row, load);
            } else {
                let mut i = 0;
                for (rows, run) in kernel.direct {
                    while m_tile - i >= *rows {
                        let start = a.start.add(i * a.lane);
                        run[vectors - 1](
                            depth,
                            Strided { start, ..a },
                            b,
                            out.add(i * out_row),
                            out_row,
                            load,
                            ahead,
                        );
                        i += rows;
                    }
                }
            }
            if !in_place {
                for i in 0..m_tile {
                    for j in 0..n_tile {
                        *c.add(i * c_row + j * c_col) = *edge.add(i * width + j);
                    }
                }
            }
        }
    }
}
