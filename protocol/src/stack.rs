//! Stacks: many small products of one shape as one job.
//!
//! A is the A's of all its products one below the other (products·m × k), B the B's (products·k × n),
//! C the C's (products·m × n): each an ordinary matrix, so that storage, hashes, backups and results
//! need not know. Row i of C belongs to product i / m; its row of A is row i too, and its B is rows
//! i/m·k to i/m·k + k. A tile may begin and end in the middle of a product. What it needs of A and B
//! is read and computed as one slab.

use crate::job::JobHeader;
use crate::matrix::{BLOCKS_MAX, DIMENSION_MAX, ElementType, Grid, Manifest};
use crate::plan::{TILE_BYTES_MAX, TILES_MAX};
use crate::tile::{Rect, Tiling};

/// The most products of a stack.
pub const PRODUCTS_MAX: u32 = 100_000;
/// Bytes of A and B that a tile of a stack may need: they are in memory at once.
const OPERANDS_MAX: u64 = 12 << 20;
/// Tiles for each slot of the mesh, as for other jobs.
const TILES_PER_SLOT: u64 = 8;
/// Below this many multiply-adds a tile's overhead outweighs what it spares.
const TILE_WORK_MIN: u64 = 1 << 21;

/// The products that a rectangle of C belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first product.
    pub first: u64,
    /// How many.
    pub products: u64,
    /// Rows of the first product above the rectangle.
    pub skip: u64,
    /// Rows of each product.
    pub each: u64,
}

impl Span {
    /// Of `rows` rows from `row` on, for products of `each` rows.
    pub fn new(row: u64, rows: u64, each: u64) -> Self {
        let (first, skip) = (row / each, row % each);
        let products = (skip + rows).div_ceil(each);
        Self {
            first,
            products,
            skip,
            each,
        }
    }
}

/// One shape of product and the forms of its matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Rows of A and C of one product.
    pub rows: u64,
    /// Columns of A, rows of B of one product.
    pub inner: u64,
    /// Columns of B and C.
    pub cols: u64,
    /// An element of A.
    pub a: ElementType,
    /// An element of B.
    pub b: ElementType,
    /// An element of C.
    pub c: ElementType,
}

impl Form {
    /// Bytes of A and B that `rows` rows and `cols` columns of a stack of `products` need at most.
    fn operand_bytes(&self, rows: u64, cols: u64, products: u64) -> u64 {
        let b_products = (rows.div_ceil(self.rows) + 1).min(products);
        rows.saturating_mul(self.inner)
            .saturating_mul(self.a.bytes())
            .saturating_add(
                b_products
                    .saturating_mul(self.inner)
                    .saturating_mul(cols)
                    .saturating_mul(self.b.bytes()),
            )
    }

    fn fits(&self, products: u64) -> bool {
        let lengths = [self.rows, self.inner].map(|length| length.saturating_mul(products));
        if lengths.iter().any(|&length| length > DIMENSION_MAX) || self.cols > DIMENSION_MAX {
            return false;
        }
        let [rows, inner] = lengths;
        let grids = [
            Grid::new(rows, self.inner, self.a),
            Grid::new(inner, self.cols, self.b),
            Grid::new(rows, self.cols, self.c),
        ];
        let unit = grids[2];
        let (unit_rows, unit_cols) = (unit.block_rows().min(rows), unit.block_cols());
        grids.iter().all(|grid| grid.len() <= BLOCKS_MAX)
            && self.operand_bytes(unit_rows, unit_cols.min(self.cols), products) <= OPERANDS_MAX
    }

    /// How many products of this form a stack may have: at least 1, at most [`PRODUCTS_MAX`].
    pub fn capacity(&self) -> u32 {
        let mut products = PRODUCTS_MAX;
        while products > 1 && !self.fits(u64::from(products)) {
            products /= 2;
        }
        products
    }

    /// How the C of a stack of `products` is cut for a mesh of `slots_total` slots: whole blocks whose
    /// operands fit into memory at once, at least eight tiles for each slot where that does not make
    /// tiles tiny.
    pub fn tiling(&self, products: u32, slots_total: u32) -> Tiling {
        let products = u64::from(products);
        let (rows, cols) = (self.rows * products, self.cols);
        let grid = Grid::new(rows, cols, self.c);
        let (unit_rows, unit_cols) = (grid.block_rows(), grid.block_cols());
        let (mut tile_rows, mut tile_cols) = (unit_rows, unit_cols);
        let wanted = TILES_PER_SLOT * u64::from(slots_total.max(1));
        let count = |r: u64, q: u64| rows.div_ceil(r) * cols.div_ceil(q);
        let fits = |r: u64, q: u64| {
            let (r, q) = (r.min(rows), q.min(cols));
            r * q * self.c.bytes() <= TILE_BYTES_MAX
                && self.operand_bytes(r, q, products) <= OPERANDS_MAX
        };
        let tiny = |r: u64, q: u64| r.min(rows) * q.min(cols) * self.inner < TILE_WORK_MIN;
        loop {
            // Whole products first: their A is then needed once.
            let (r, q) = if tile_cols < cols {
                (tile_rows, tile_cols + unit_cols)
            } else if tile_rows < rows {
                (tile_rows + unit_rows, tile_cols)
            } else {
                break;
            };
            let needed = tiny(tile_rows, tile_cols) || count(tile_rows, tile_cols) > TILES_MAX;
            if !fits(r, q) || (count(r, q) < wanted && !needed) {
                break;
            }
            (tile_rows, tile_cols) = (r, q);
        }
        Tiling {
            rows,
            cols,
            tile_rows,
            tile_cols,
        }
    }
}

impl JobHeader {
    /// The products that a rectangle of C belongs to, when the job is a stack.
    pub fn span(&self, rect: Rect) -> Option<Span> {
        let each = self.a.rows / u64::from(self.stack.max(1));
        (self.stack > 1).then(|| Span::new(rect.row, rect.rows, each))
    }

    /// What a stack must be, besides what holds for every job; the first thing that is wrong.
    pub(crate) fn check_stack(&self) -> Result<(), &'static str> {
        let products = u64::from(self.stack);
        if self.stack == 0 || self.stack > PRODUCTS_MAX || !self.a.rows.is_multiple_of(products) {
            return Err("the number of products");
        }
        let form = form(&self.a, &self.b, self.element, self.stack);
        let first = self.tiling.rect(0);
        if self.stack > 1 && form.operand_bytes(first.rows, first.cols, products) > 2 * OPERANDS_MAX
        {
            return Err("tiles of a stack are too large");
        }
        Ok(())
    }
}

/// The form of the products of a stack.
pub fn form(a: &Manifest, b: &Manifest, c: ElementType, products: u32) -> Form {
    let products = u64::from(products.max(1));
    Form {
        rows: (a.rows / products).max(1),
        inner: a.cols,
        cols: b.cols,
        a: a.element,
        b: b.element,
        c,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{BlockId, JobId};
    use crate::job::{KernelClass, Operand};
    use crate::matrix::Dtype;
    use crate::slab::{self, Slab};

    const F64: ElementType = ElementType {
        dtype: Dtype::F64,
        limbs: 1,
    };

    #[test]
    fn small_products_are_stacked_by_the_thousand_and_large_ones_are_not() {
        assert_eq!(capacity(16, 16, 16), PRODUCTS_MAX);
        assert!(capacity(200, 200, 200) >= 200);
        assert!(capacity(500, 500, 500) >= 100);
        assert_eq!(capacity(4_000, 4_000, 4_000), 1);
        // A row for each whole B: only as many as fit into memory.
        assert!((2..100).contains(&capacity(1, 300, 300)));
    }

    #[test]
    fn tiles_of_a_stack_are_many_but_not_tiny() {
        let tiles = |m, k, n, products, slots| form_of(m, k, n).tiling(products, slots).len();
        assert_eq!(tiles(16, 16, 16, 100, 4), 1);
        assert!((8..=64).contains(&tiles(16, 16, 16, 20_000, 1)));
        assert!(tiles(200, 200, 200, 200, 4) >= 32);
    }

    proptest! {
        /// Each element of each product is put together from the right row of A and column of B.
        #[test]
        fn a_tile_of_a_stack_has_the_operands_of_its_products(
            m in 1u64..40, k in 1u64..40, n in 1u64..300, products in 2u32..400, slots in 1u32..9,
        ) {
            let header = header(m, k, n, products, slots);
            prop_assert_eq!(header.check(), Ok(()));
            for tile in 0..header.tiling.len() {
                let rect = header.tiling.rect(tile);
                let span = header.span(rect).expect("a stack");
                let depth = slab::depth(&header, rect, 1);
                prop_assert_eq!(depth, k);
                let slab = Slab::new(&header, rect, 0, depth);
                prop_assert_eq!((slab.from, slab.to), (0, k));
                let a = places(&header, Operand::A, &slab, rect.rows, k);
                let b = places(&header, Operand::B, &slab, span.products * k, rect.cols);
                for i in [0, rect.rows / 2, rect.rows - 1] {
                    // The definition: row i of C is of this product.
                    let product = (rect.row + i) / m;
                    prop_assert_eq!((span.skip + i) / m + span.first, product);
                    for p in [0, k - 1] {
                        prop_assert_eq!(a[(i * k + p) as usize], Some((rect.row + i, p)));
                        for j in [0, rect.cols - 1] {
                            let at = ((product - span.first) * k + p) * rect.cols + j;
                            prop_assert_eq!(b[at as usize], Some((product * k + p, rect.col + j)));
                        }
                    }
                }
                prop_assert!(a.iter().chain(&b).all(Option::is_some));
                prop_assert!(slab::resident_bytes(&header, rect, depth) <= 64 << 20);
            }
        }

        #[test]
        fn every_form_has_a_capacity_that_passes_the_check(
            m in 1u64..3_000, k in 1u64..3_000, n in 1u64..3_000, limbs in 1u16..9,
        ) {
            let int = ElementType { dtype: Dtype::Int, limbs };
            for element in [F64, int] {
                let form = Form { a: element, b: element, c: element, ..form_of(m, k, n) };
                let products = form.capacity();
                if products > 1 {
                    let tiling = form.tiling(products, 3);
                    let first = tiling.rect(0);
                    let bytes = form.operand_bytes(first.rows, first.cols, u64::from(products));
                    prop_assert!(bytes <= OPERANDS_MAX);
                    prop_assert!(first.rows * first.cols * element.bytes() <= TILE_BYTES_MAX);
                }
            }
        }
    }

    fn form_of(rows: u64, inner: u64, cols: u64) -> Form {
        Form {
            rows,
            inner,
            cols,
            a: F64,
            b: F64,
            c: F64,
        }
    }

    fn capacity(m: u64, k: u64, n: u64) -> u32 {
        form_of(m, k, n).capacity()
    }

    fn header(m: u64, k: u64, n: u64, products: u32, slots: u32) -> JobHeader {
        let manifest = |rows, cols| Manifest {
            element: F64,
            bits: 0,
            rows,
            cols,
            blocks: vec![BlockId([0; 32]); Grid::new(rows, cols, F64).len() as usize],
        };
        let times = u64::from(products);
        JobHeader {
            job: JobId([0; 16]),
            name: String::new(),
            class: KernelClass::Any,
            tiling: form_of(m, k, n).tiling(products, slots),
            a: manifest(m * times, k),
            b: manifest(k * times, n),
            element: F64,
            stack: products,
            batch: None,
            guard: None,
            share: None,
        }
    }

    /// For each element of a slab's panel the place in the matrix that it comes from.
    fn places(
        header: &JobHeader,
        operand: Operand,
        slab: &Slab,
        rows: u64,
        cols: u64,
    ) -> Vec<Option<(u64, u64)>> {
        let parts = match operand {
            Operand::A => &slab.a,
            Operand::B => &slab.b,
        };
        let grid = header.manifest(operand).grid();
        let mut places = vec![None; (rows * cols) as usize];
        for (_, part) in parts {
            let block = grid.rect(u64::from(part.index));
            for i in 0..u64::from(part.rows) {
                for j in 0..u64::from(part.cols) {
                    let to = (u64::from(part.dst_row) + i) * cols + u64::from(part.dst_col) + j;
                    let row = block.row + u64::from(part.src_row) + i;
                    let col = block.col + u64::from(part.src_col) + j;
                    assert_eq!(places[to as usize].replace((row, col)), None);
                }
            }
        }
        places
    }
}
