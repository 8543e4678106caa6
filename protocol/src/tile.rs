//! Rectangles of a matrix, and the tiles of a product.

use serde::{Deserialize, Serialize};

/// A rectangle of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rect {
    /// First row.
    pub row: u64,
    /// First column.
    pub col: u64,
    /// Number of rows.
    pub rows: u64,
    /// Number of columns.
    pub cols: u64,
}

/// How C is cut into tiles: a grid whose last row and column may be smaller. Tile edges are
/// multiples of C's block edges (or reach to C's end), so that a tile is made of whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiling {
    /// Rows of C.
    pub rows: u64,
    /// Columns of C.
    pub cols: u64,
    /// Rows of a full tile.
    pub tile_rows: u64,
    /// Columns of a full tile.
    pub tile_cols: u64,
}

impl Tiling {
    /// Rows of tiles.
    pub fn grid_rows(&self) -> u64 {
        self.rows.div_ceil(self.tile_rows)
    }

    /// Columns of tiles.
    pub fn grid_cols(&self) -> u64 {
        self.cols.div_ceil(self.tile_cols)
    }

    /// Number of tiles.
    pub fn len(&self) -> u64 {
        self.grid_rows() * self.grid_cols()
    }

    /// Never: a product has at least one tile.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The rectangle of C that tile `index` is.
    ///
    /// # Panics
    /// When there is no such tile.
    pub fn rect(&self, index: u64) -> Rect {
        assert!(index < self.len(), "tile {index} of {}", self.len());
        let row = index / self.grid_cols() * self.tile_rows;
        let col = index % self.grid_cols() * self.tile_cols;
        Rect {
            row,
            col,
            rows: self.tile_rows.min(self.rows - row),
            cols: self.tile_cols.min(self.cols - col),
        }
    }
}
