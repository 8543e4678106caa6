//! A matrix, or a window of it, as a picture of few cells, and what can be said of its elements.

use gemmesh_protocol::matrix::{Dtype, ElementType};
use gemmesh_protocol::tile::Rect;

use super::number::{self, Value};
use super::{PIECE_BYTES, Source, export};

/// Squares beyond this could overflow when they are summed, squares below its inverse vanish.
const LARGE: f64 = 1e140;
/// What brings such elements back into range.
const SCALE: f64 = 1e-200;

/// What a window of a matrix looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Rows of cells, each the JSON of one number. Where there is a cell for each element it is the
    /// element, with all of its digits; else the mean of the elements, NaN where one of them is.
    pub cells: Vec<Vec<String>>,
    /// Of all elements of the window.
    pub summary: Summary,
}

/// What can be said of many numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// How many.
    pub elements: u64,
    /// How many are NaN.
    pub nan: u64,
    /// The least that is no NaN; `None` when all are.
    pub min: Option<f64>,
    /// The largest that is no NaN.
    pub max: Option<f64>,
    /// √Σx², the Frobenius norm, of those that are no NaN.
    pub norm: f64,
}

/// Draws `window` of a matrix with `height` × `width` cells, at most one for each element. Element (i, j)
/// of an m × n window belongs to cell (⌊i·height/m⌋, ⌊j·width/n⌋). Integers beyond 2^53 are rounded in
/// means and in the summary.
///
/// Cost: one pass over the window. Memory: a piece of 4 MiB and the cells.
///
/// # Errors
/// The source's.
///
/// # Panics
/// When the window is empty or not inside the matrix, or has no cell.
pub fn draw<S: Source>(
    source: &mut S,
    window: Rect,
    height: usize,
    width: usize,
) -> Result<Picture, S::Error> {
    let manifest = source.manifest();
    let element = manifest.element;
    assert!(window.rows > 0 && window.cols > 0 && height > 0 && width > 0);
    assert!(window.row + window.rows <= manifest.rows && window.col + window.cols <= manifest.cols);
    let height = height.min(usize::try_from(window.rows).unwrap_or(usize::MAX));
    let width = width.min(usize::try_from(window.cols).unwrap_or(usize::MAX));
    let exact = (height as u64, width as u64) == (window.rows, window.cols);
    let grid = manifest.grid();
    let step_rows = grid.block_rows();
    let across = PIECE_BYTES / element.bytes() / step_rows / grid.block_cols();
    let step_cols = across.max(1) * grid.block_cols();
    let cell_of = |at: u64, cells: usize, all: u64| {
        usize::try_from(u128::from(at) * cells as u128 / u128::from(all)).expect("fewer cells")
    };
    let first_of = |cell: usize, cells: usize, all: u64| {
        let first = (cell as u128 * u128::from(all)).div_ceil(cells as u128);
        u64::try_from(first).expect("an element of the window, or its end")
    };
    let mut sums = vec![(0.0_f64, 0_u64); if exact { 0 } else { height * width }];
    let mut cells = vec![Vec::with_capacity(width); height];
    let mut squares = Squares::default();
    let mut summary = Summary {
        elements: window.rows * window.cols,
        nan: 0,
        min: None,
        max: None,
        norm: 0.0,
    };
    let mut bytes = Vec::new();
    let mut row = window.row;
    while row < window.row + window.rows {
        // Whole blocks, so that none is read twice.
        let next = |at: u64, step: u64, end: u64| ((at / step + 1) * step).min(end);
        let until = next(row, step_rows, window.row + window.rows);
        let mut col = window.col;
        while col < window.col + window.cols {
            let cols = next(col, step_cols, window.col + window.cols) - col;
            let rect = Rect {
                row,
                col,
                rows: until - row,
                cols,
            };
            source.read(rect, &mut bytes)?;
            let size = element.bytes() as usize;
            for (i, line) in bytes.chunks_exact(cols as usize * size).enumerate() {
                let y = cell_of(row + i as u64 - window.row, height, window.rows);
                let mut x = cell_of(col - window.col, width, window.cols);
                let mut end = first_of(x + 1, width, window.cols);
                for (j, raw) in (col - window.col..).zip(line.chunks_exact(size)) {
                    if j >= end {
                        x += 1;
                        end = first_of(x + 1, width, window.cols);
                    }
                    let value = float(raw, element);
                    if value.is_nan() {
                        summary.nan += 1;
                    } else {
                        summary.min = Some(summary.min.map_or(value, |least| least.min(value)));
                        summary.max = Some(summary.max.map_or(value, |most| most.max(value)));
                        squares.add(value);
                    }
                    if exact {
                        let mut text = Vec::new();
                        export::print_json(&number::decode(raw, element), &mut text);
                        cells[y].push(String::from_utf8(text).expect("digits"));
                    } else {
                        let (sum, count) = &mut sums[y * width + x];
                        *sum += value;
                        *count += 1;
                    }
                }
            }
            col += cols;
        }
        row = until;
    }
    for (index, (sum, count)) in sums.into_iter().enumerate() {
        let mut text = Vec::new();
        export::print_json(&Value::F64(sum / count as f64), &mut text);
        cells[index / width].push(String::from_utf8(text).expect("digits"));
    }
    summary.norm = squares.root();
    Ok(Picture { cells, summary })
}

/// An element as the nearest double.
fn float(bytes: &[u8], element: ElementType) -> f64 {
    if element.dtype == Dtype::F64 {
        return f64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    match number::decode(bytes, element) {
        Value::F64(value) => value,
        Value::F32(value) => f64::from(value),
        Value::Int(value) => value as f64,
        big @ Value::Big(_) => match number::convert(big, Dtype::F64) {
            Ok(Value::F64(value)) => value,
            _ => f64::NAN,
        },
    }
}

/// A sum of squares that neither overflows nor vanishes: large, middling and small elements apart.
#[derive(Default)]
struct Squares {
    large: f64,
    middling: f64,
    small: f64,
}

impl Squares {
    fn add(&mut self, value: f64) {
        let size = value.abs();
        if size > LARGE {
            self.large += (size * SCALE) * (size * SCALE);
        } else if size >= 1.0 / LARGE {
            self.middling += size * size;
        } else {
            self.small += (size / SCALE) * (size / SCALE);
        }
    }

    fn root(&self) -> f64 {
        if self.large > 0.0 {
            (self.large + self.middling * SCALE * SCALE).sqrt() / SCALE
        } else if self.middling > 0.0 {
            self.middling.sqrt()
        } else {
            self.small.sqrt() * SCALE
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::files::memory::Memory;
    use crate::files::{ReadOptions, json as values};

    #[test]
    fn a_small_matrix_is_shown_as_it_is() {
        let picture = shown(json!([[1, 2], [3, "NaN"]]), whole(2, 2), 9, 9);
        assert_eq!(picture.cells, [["1", "2"], ["3", "\"NaN\""]]);
        let summary = picture.summary;
        assert_eq!((summary.elements, summary.nan), (4, 1));
        assert_eq!((summary.min, summary.max), (Some(1.0), Some(3.0)));
        assert_eq!(summary.norm, 14.0_f64.sqrt());
    }

    #[test]
    fn cells_of_several_elements_are_means_and_a_window_is_a_part() {
        let rows: Vec<Vec<u32>> = (0..6)
            .map(|i| (0..4).map(|j| 4 * i + j).collect())
            .collect();
        let picture = shown(json!(rows), whole(6, 4), 3, 2);
        assert_eq!(
            picture.cells,
            [["2.5", "4.5"], ["10.5", "12.5"], ["18.5", "20.5"]]
        );
        let part = Rect {
            row: 4,
            col: 1,
            rows: 2,
            cols: 2,
        };
        let picture = shown(json!(rows), part, 100, 100);
        assert_eq!(picture.cells, [["17", "18"], ["21", "22"]]);
        assert_eq!(picture.summary.min, Some(17.0));
    }

    #[test]
    fn norms_of_huge_and_tiny_elements_are_right() {
        for size in [1e-300, 1e-150, 1.0, 1e150, 1e300] {
            let picture = shown(json!([[3.0 * size, -4.0 * size]]), whole(1, 2), 1, 1);
            let norm = picture.summary.norm;
            assert!((norm / (5.0 * size) - 1.0).abs() < 1e-15, "{size}: {norm}");
        }
    }

    #[test]
    fn many_blocks_are_drawn_as_one_matrix() {
        let rows: Vec<Vec<usize>> = (0..1100)
            .map(|i| {
                (0..700)
                    .map(|j| usize::from(i >= 550) + 10 * usize::from(j >= 350))
                    .collect()
            })
            .collect();
        let picture = shown(json!(rows), whole(1100, 700), 2, 2);
        assert_eq!(picture.cells, [["0", "10"], ["1", "11"]]);
        assert_eq!(picture.summary.elements, 770_000);
    }

    fn whole(rows: u64, cols: u64) -> Rect {
        Rect {
            row: 0,
            col: 0,
            rows,
            cols,
        }
    }

    fn shown(matrix: serde_json::Value, window: Rect, height: usize, width: usize) -> Picture {
        let mut memory = Memory::default();
        let options = ReadOptions {
            dtype: None,
            keep_digits: false,
        };
        values::read(&matrix, options, &mut memory).expect("a matrix");
        let mut memory = memory.measured();
        draw(&mut memory, window, height, width).expect("memory can be read")
    }
}
