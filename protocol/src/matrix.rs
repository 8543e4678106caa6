//! A matrix is a manifest: element type, shape and the hash of each block.
//!
//! Blocks are row-major and little-endian and cut the matrix as a grid; the last row and column of
//! the grid may be smaller. The edges of a block follow from the shape and the size of an element
//! alone, so equal matrices have equal ids whoever stores them.

use serde::{Deserialize, Serialize};

use crate::id::{BlockId, MatrixId};
use crate::tile::Rect;

/// The most bytes that a block may have.
pub const BLOCK_BYTES_MAX: u64 = 1 << 19;
/// The usual edge of a block in elements, when both dimensions are at least as long.
const BLOCK_EDGE: u64 = 256;
/// The most limbs of an integer: 65,536 bits.
pub const LIMBS_MAX: u16 = 1_024;
/// The most residues of an element: as many as there are primes of that size (`gemmesh_kernel::coding::residues`).
pub const RESIDUES_MAX: u16 = 392;
/// The most rows or columns of a matrix.
pub const DIMENSION_MAX: u64 = 1 << 32;
/// The most blocks of a matrix: 64 GiB of them, and a manifest of about 4.5 MB.
pub const BLOCKS_MAX: u64 = 1 << 17;

/// What a user calls the element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// Exact integers of any size, two's complement in a fixed number of 64-bit limbs.
    Int,
    /// Residues modulo a fixed number of primes: what shares of guarded products are made of. Not for users.
    Residues,
}

impl Dtype {
    /// The name used in commands and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "f64",
            Dtype::F32 => "f32",
            Dtype::Int => "int",
            Dtype::Residues => "residues",
        }
    }
}

/// The form of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElementType {
    /// The element type.
    pub dtype: Dtype,
    /// 64-bit limbs of an integer; residues of 16 bits; 1 for floats.
    pub limbs: u16,
}

impl ElementType {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self.dtype {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::Int => 8 * u64::from(self.limbs),
            Dtype::Residues => 2 * u64::from(self.limbs),
        }
    }
}

/// Shape and content of a matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of an element.
    pub element: ElementType,
    /// Bit length of the largest magnitude (`int`); 0 for floats.
    pub bits: u32,
    /// Number of rows.
    pub rows: u64,
    /// Number of columns.
    pub cols: u64,
    /// The hash of each block, row-major over the grid.
    pub blocks: Vec<BlockId>,
}

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the manifest is not of the stated form: {0}")]
pub struct ManifestError(pub &'static str);

impl Manifest {
    /// The grid of this manifest's blocks.
    pub fn grid(&self) -> Grid {
        Grid::new(self.rows, self.cols, self.element)
    }

    /// The content hash: BLAKE3 over "gemmesh matrix 1", dtype, limbs, bits, rows, cols and all
    /// block hashes, integers as 64-bit little-endian.
    pub fn id(&self) -> MatrixId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"gemmesh matrix 1");
        let dtype = match self.element.dtype {
            Dtype::F64 => 0,
            Dtype::F32 => 1,
            Dtype::Int => 2,
            Dtype::Residues => 3,
        };
        let limbs = u64::from(self.element.limbs);
        for number in [dtype, limbs, u64::from(self.bits), self.rows, self.cols] {
            hasher.update(&number.to_le_bytes());
        }
        for block in &self.blocks {
            hasher.update(&block.0);
        }
        MatrixId(*hasher.finalize().as_bytes())
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> u64 {
        self.rows * self.cols * self.element.bytes()
    }

    /// Checks a manifest that came from elsewhere: dimensions and limbs within bounds, one hash
    /// for each block.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.rows == 0 || self.cols == 0 {
            return Err(ManifestError("an empty dimension"));
        }
        if self.rows > DIMENSION_MAX || self.cols > DIMENSION_MAX {
            return Err(ManifestError("a dimension is too long"));
        }
        if self.element.limbs == 0 || self.element.limbs > LIMBS_MAX {
            return Err(ManifestError("number of limbs"));
        }
        let sane = match self.element.dtype {
            Dtype::Int => true,
            Dtype::Residues => self.element.limbs <= RESIDUES_MAX && self.bits == 0,
            Dtype::F64 | Dtype::F32 => self.element.limbs == 1 && self.bits == 0,
        };
        if !sane {
            return Err(ManifestError("limbs or bits of the elements"));
        }
        if u64::from(self.bits) > 64 * u64::from(self.element.limbs) {
            return Err(ManifestError("bits"));
        }
        let grid = self.grid();
        if grid.len() > BLOCKS_MAX || grid.len() != self.blocks.len() as u64 {
            return Err(ManifestError("number of blocks"));
        }
        Ok(())
    }
}

/// How a matrix is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    rows: u64,
    cols: u64,
    element_bytes: u64,
    block_rows: u64,
    block_cols: u64,
}

impl Grid {
    /// The grid of a `rows` × `cols` matrix: blocks of 256 × 256 elements; when one dimension is
    /// shorter the other edge is longer (at most 65,536), so that a long thin matrix has few
    /// blocks; halved until a block is at most [`BLOCK_BYTES_MAX`].
    ///
    /// # Panics
    /// On an empty dimension.
    pub fn new(rows: u64, cols: u64, element: ElementType) -> Self {
        assert!(rows > 0 && cols > 0, "a matrix has elements");
        let element_bytes = element.bytes();
        let stretch = |edge: u64| BLOCK_EDGE * (BLOCK_EDGE / edge.next_power_of_two()).max(1);
        let (mut block_rows, mut block_cols) = (BLOCK_EDGE, BLOCK_EDGE);
        if cols < BLOCK_EDGE {
            block_rows = stretch(cols);
            block_cols = cols.next_power_of_two();
        } else if rows < BLOCK_EDGE {
            block_cols = stretch(rows);
            block_rows = rows.next_power_of_two();
        }
        while block_rows * block_cols * element_bytes > BLOCK_BYTES_MAX {
            if block_rows >= block_cols {
                block_rows = (block_rows / 2).max(1);
            } else {
                block_cols = (block_cols / 2).max(1);
            }
        }
        Self {
            rows,
            cols,
            element_bytes,
            block_rows,
            block_cols,
        }
    }

    /// Rows of the grid.
    pub fn grid_rows(&self) -> u64 {
        self.rows.div_ceil(self.block_rows)
    }

    /// Columns of the grid.
    pub fn grid_cols(&self) -> u64 {
        self.cols.div_ceil(self.block_cols)
    }

    /// Rows of a full block.
    pub fn block_rows(&self) -> u64 {
        self.block_rows
    }

    /// Columns of a full block.
    pub fn block_cols(&self) -> u64 {
        self.block_cols
    }

    /// Number of blocks.
    pub fn len(&self) -> u64 {
        self.grid_rows() * self.grid_cols()
    }

    /// Never: a matrix has at least one block.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The rectangle of block `index`.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn rect(&self, index: u64) -> Rect {
        assert!(index < self.len(), "block {index} of {}", self.len());
        let row = index / self.grid_cols() * self.block_rows;
        let col = index % self.grid_cols() * self.block_cols;
        Rect {
            row,
            col,
            rows: self.block_rows.min(self.rows - row),
            cols: self.block_cols.min(self.cols - col),
        }
    }

    /// Bytes of block `index`.
    pub fn block_bytes(&self, index: u64) -> u64 {
        let rect = self.rect(index);
        rect.rows * rect.cols * self.element_bytes
    }

    /// Where block `index` starts when all blocks are stored one after the other.
    /// Cost: constant.
    pub fn offset(&self, index: u64) -> u64 {
        let rect = self.rect(index);
        // All full bands above, then the blocks to the left, which are as high as this one.
        (rect.row * self.cols + rect.col * rect.rows) * self.element_bytes
    }

    /// The parts of blocks that together fill `rect`, in row-major order of the grid.
    ///
    /// # Panics
    /// When `rect` reaches outside the matrix.
    pub fn parts(&self, rect: Rect) -> Vec<Part> {
        assert!(
            rect.rows > 0
                && rect.cols > 0
                && rect.row + rect.rows <= self.rows
                && rect.col + rect.cols <= self.cols,
            "{rect:?} of {} × {}",
            self.rows,
            self.cols
        );
        let mut parts = Vec::new();
        let (last_row, last_col) = (rect.row + rect.rows - 1, rect.col + rect.cols - 1);
        for grid_row in rect.row / self.block_rows..=last_row / self.block_rows {
            for grid_col in rect.col / self.block_cols..=last_col / self.block_cols {
                let index = grid_row * self.grid_cols() + grid_col;
                let block = self.rect(index);
                let (row, col) = (rect.row.max(block.row), rect.col.max(block.col));
                parts.push(Part {
                    index: index as u32,
                    block_cols: block.cols as u32,
                    src_row: (row - block.row) as u32,
                    src_col: (col - block.col) as u32,
                    rows: ((last_row + 1).min(block.row + block.rows) - row) as u32,
                    cols: ((last_col + 1).min(block.col + block.cols) - col) as u32,
                    dst_row: (row - rect.row) as u32,
                    dst_col: (col - rect.col) as u32,
                });
            }
        }
        parts
    }
}

/// A rectangle of one block that goes into a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The block's place in the manifest.
    pub index: u32,
    /// Elements in a row of the block.
    pub block_cols: u32,
    /// First row within the block.
    pub src_row: u32,
    /// First column within the block.
    pub src_col: u32,
    /// Rows of the part.
    pub rows: u32,
    /// Columns of the part.
    pub cols: u32,
    /// First row within the panel.
    pub dst_row: u32,
    /// First column within the panel.
    pub dst_col: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const F64: ElementType = ElementType {
        dtype: Dtype::F64,
        limbs: 1,
    };

    #[test]
    fn block_edges_follow_the_shape() {
        check(2_000, 2_000, F64, (256, 256), 64);
        check(1_000_000, 1, F64, (65_536, 1), 16);
        check(1, 1_000_000, F64, (1, 65_536), 16);
        check(1, 1, F64, (65_536, 1), 1);
        check(3, 100_000, F64, (4, 16_384), 7);
        check(
            1_000,
            1_000,
            ElementType {
                dtype: Dtype::Int,
                limbs: 53,
            },
            (32, 32),
            1_024,
        );
    }

    proptest! {
        #[test]
        fn blocks_are_laid_out_without_gaps(rows in 1u64..2_000, cols in 1u64..2_000) {
            let grid = Grid::new(rows, cols, F64);
            let mut offset = 0;
            for index in 0..grid.len() {
                prop_assert_eq!(grid.offset(index), offset);
                prop_assert!(grid.block_bytes(index) <= BLOCK_BYTES_MAX);
                offset += grid.block_bytes(index);
            }
            prop_assert_eq!(offset, rows * cols * 8);
        }

        #[test]
        fn parts_cover_a_rectangle_once(
            rows in 1u64..700, cols in 1u64..700, r in 0u64..700, c in 0u64..700,
            h in 1u64..700, w in 1u64..700,
        ) {
            let (row, col) = (r % rows, c % cols);
            let rect = Rect { row, col, rows: h.min(rows - row), cols: w.min(cols - col) };
            let grid = Grid::new(rows, cols, F64);
            let mut seen = vec![0u8; (rect.rows * rect.cols) as usize];
            for part in grid.parts(rect) {
                let block = grid.rect(u64::from(part.index));
                prop_assert_eq!(u64::from(part.block_cols), block.cols);
                for i in 0..u64::from(part.rows) {
                    for j in 0..u64::from(part.cols) {
                        let (dst_row, dst_col) = (u64::from(part.dst_row) + i, u64::from(part.dst_col) + j);
                        prop_assert_eq!(block.row + u64::from(part.src_row) + i, rect.row + dst_row);
                        prop_assert_eq!(block.col + u64::from(part.src_col) + j, rect.col + dst_col);
                        seen[(dst_row * rect.cols + dst_col) as usize] += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|&count| count == 1));
        }
    }

    fn check(rows: u64, cols: u64, element: ElementType, edges: (u64, u64), blocks: u64) {
        let grid = Grid::new(rows, cols, element);
        assert_eq!(
            (grid.block_rows(), grid.block_cols()),
            edges,
            "{rows} × {cols}"
        );
        assert_eq!(grid.len(), blocks, "{rows} × {cols}");
    }
}
