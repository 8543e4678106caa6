//! Cutting matrices into rectangles of whole blocks, and collecting single elements into them.

use gemmesh_protocol::matrix::{ElementType, Grid};
use gemmesh_protocol::tile::Rect;

use super::number::{self, Value};
use super::{PIECE_BYTES, Sink};
use crate::error::ApiError;

/// Rectangles of whole blocks that cover the matrix once, each about `bytes_max` at most (but at
/// least one block): as wide as the matrix where that fits, or, with `tall`, as high. Row-major;
/// with `tall`, column-major.
pub fn rectangles(
    rows: u64,
    cols: u64,
    element: ElementType,
    bytes_max: u64,
    tall: bool,
) -> impl Iterator<Item = Rect> + Send {
    let grid = Grid::new(rows, cols, element);
    let (height, width) = piece(&grid, element, bytes_max, tall);
    let (down, across) = (rows.div_ceil(height), cols.div_ceil(width));
    (0..down * across).map(move |index| {
        let (i, j) = match tall {
            false => (index / across, index % across),
            true => (index % down, index / down),
        };
        let (row, col) = (i * height, j * width);
        Rect {
            row,
            col,
            rows: height.min(rows - row),
            cols: width.min(cols - col),
        }
    })
}

/// Height and width of a piece in elements, multiples of the block's edges.
fn piece(grid: &Grid, element: ElementType, bytes_max: u64, tall: bool) -> (u64, u64) {
    let block = grid.block_rows() * grid.block_cols() * element.bytes();
    let blocks = (bytes_max / block).max(1);
    if tall {
        let down = blocks.min(grid.grid_rows());
        let across = (blocks / down).min(grid.grid_cols()).max(1);
        (down * grid.block_rows(), across * grid.block_cols())
    } else {
        let across = blocks.min(grid.grid_cols());
        let down = (blocks / across).min(grid.grid_rows()).max(1);
        (down * grid.block_rows(), across * grid.block_cols())
    }
}

/// Takes elements one by one, row by row, and hands them on in rectangles: of whole blocks where
/// these fit in [`PIECE_BYTES`], else of a few rows, else of a part of a row.
pub struct RowWriter<'a> {
    sink: &'a mut dyn Sink,
    element: ElementType,
    rows: u64,
    cols: u64,
    height: u64,
    width: u64,
    buffer: Vec<u8>,
    /// The rectangle in `buffer` starts here.
    row: u64,
    col: u64,
}

impl<'a> RowWriter<'a> {
    /// Begins a matrix of this shape.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(
        sink: &'a mut dyn Sink,
        rows: u64,
        cols: u64,
        element: ElementType,
    ) -> Result<Self, ApiError> {
        sink.begin(rows, cols, element)?;
        let grid = Grid::new(rows, cols, element);
        let row_bytes = cols * element.bytes();
        let band_bytes = grid.block_rows() * row_bytes;
        let (height, width) = if band_bytes <= PIECE_BYTES {
            (PIECE_BYTES / band_bytes * grid.block_rows(), cols)
        } else if row_bytes <= PIECE_BYTES {
            (PIECE_BYTES / row_bytes, cols)
        } else {
            let block_row = grid.block_cols() * element.bytes();
            (1, (PIECE_BYTES / block_row).max(1) * grid.block_cols())
        };
        Ok(Self {
            sink,
            element,
            rows,
            cols,
            height,
            width,
            buffer: Vec::new(),
            row: 0,
            col: 0,
        })
    }

    /// Takes the next element.
    ///
    /// # Errors
    /// The sink's.
    pub fn push(&mut self, value: &Value) -> Result<(), ApiError> {
        number::encode(value, self.element, &mut self.buffer);
        let rows = self.height.min(self.rows - self.row);
        let cols = self.width.min(self.cols - self.col);
        if self.buffer.len() as u64 == rows * cols * self.element.bytes() {
            let rect = Rect {
                row: self.row,
                col: self.col,
                rows,
                cols,
            };
            self.sink.write(rect, &self.buffer)?;
            self.buffer.clear();
            self.col += cols;
            if self.col == self.cols {
                self.col = 0;
                self.row += rows;
            }
        }
        Ok(())
    }
}

/// Takes elements one by one, column by column, and hands them on in rectangles.
pub struct ColWriter<'a> {
    sink: &'a mut dyn Sink,
    element: ElementType,
    rows: u64,
    cols: u64,
    height: u64,
    width: u64,
    buffer: Vec<u8>,
    turned: Vec<u8>,
    /// The rectangle in `buffer` starts here.
    row: u64,
    col: u64,
}

impl<'a> ColWriter<'a> {
    /// Begins a matrix of this shape.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(
        sink: &'a mut dyn Sink,
        rows: u64,
        cols: u64,
        element: ElementType,
    ) -> Result<Self, ApiError> {
        sink.begin(rows, cols, element)?;
        let grid = Grid::new(rows, cols, element);
        let col_bytes = rows * element.bytes();
        let band_bytes = grid.block_cols() * col_bytes;
        let (height, width) = if band_bytes <= PIECE_BYTES {
            (rows, PIECE_BYTES / band_bytes * grid.block_cols())
        } else if col_bytes <= PIECE_BYTES {
            (rows, PIECE_BYTES / col_bytes)
        } else {
            let block_col = grid.block_rows() * element.bytes();
            ((PIECE_BYTES / block_col).max(1) * grid.block_rows(), 1)
        };
        Ok(Self {
            sink,
            element,
            rows,
            cols,
            height,
            width,
            buffer: Vec::new(),
            turned: Vec::new(),
            row: 0,
            col: 0,
        })
    }

    /// Takes the next element.
    ///
    /// # Errors
    /// The sink's.
    pub fn push(&mut self, value: &Value) -> Result<(), ApiError> {
        number::encode(value, self.element, &mut self.buffer);
        let rows = self.height.min(self.rows - self.row);
        let cols = self.width.min(self.cols - self.col);
        let bytes = self.element.bytes() as usize;
        if self.buffer.len() as u64 == rows * cols * self.element.bytes() {
            let rect = Rect {
                row: self.row,
                col: self.col,
                rows,
                cols,
            };
            transpose(
                &self.buffer,
                cols as usize,
                rows as usize,
                bytes,
                &mut self.turned,
            );
            self.sink.write(rect, &self.turned)?;
            self.buffer.clear();
            self.row += rows;
            if self.row == self.rows {
                self.row = 0;
                self.col += cols;
            }
        }
        Ok(())
    }
}

/// Replaces `to` by the transpose of `from`, a row-major `rows` × `cols` matrix of elements of
/// `bytes` bytes.
pub fn transpose(from: &[u8], rows: usize, cols: usize, bytes: usize, to: &mut Vec<u8>) {
    /// Edge of the squares that are turned at a time, so that both sides stay in the cache.
    const EDGE: usize = 32;
    assert_eq!(from.len(), rows * cols * bytes, "{rows} × {cols}");
    to.clear();
    to.resize(from.len(), 0);
    for row in (0..rows).step_by(EDGE) {
        for col in (0..cols).step_by(EDGE) {
            for i in row..rows.min(row + EDGE) {
                for j in col..cols.min(col + EDGE) {
                    let (src, dst) = ((i * cols + j) * bytes, (j * rows + i) * bytes);
                    to[dst..dst + bytes].copy_from_slice(&from[src..src + bytes]);
                }
            }
        }
    }
}
