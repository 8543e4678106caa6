//! Writes a matrix as a file, piece by piece: whoever sends the file sets the pace.

use std::io::Write as _;

use gemmesh_protocol::matrix::{Dtype, ElementType, Grid};
use gemmesh_protocol::tile::Rect;

use super::number::{self, Value};
use super::pieces::Piece;
use super::{Format, Source, bands, npy, unprocessable};
use crate::error::ApiError;

/// Text is handed on when it is this long, or a piece.
const TEXT_BYTES: usize = 256 << 10;
/// Columns that are held at a time for an array `.mtx` file, which goes column by column: so many pieces.
const COLUMNS_PIECES: u64 = 8;
/// A matrix is called tall if [`COLUMNS_MIN`] of its columns take more.
const COLUMNS_BYTES: u64 = 32 << 20;
/// What is looked at in one go when all elements are: about one block.
const LOOK_BYTES: u64 = 512 << 10;
/// A matrix of which fewer columns could be held is written as a coordinate file.
const COLUMNS_MIN: u64 = 16;
/// Integers up to this magnitude are numbers in JSON, for readers that have only f64.
const JSON_INTEGER_MAX: u64 = 1 << 53;

/// How the file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Raw elements of this many bytes, which may be fewer than they have in the store.
    Raw { bytes: usize },
    /// Lines.
    Csv,
    /// One element a line, column by column.
    Array,
    /// Row, column and element that is not zero in a line, row by row.
    Coordinate,
    /// Nested arrays.
    Json,
}

/// A file being written. Memory: what [`pieces_held`] says.
pub struct Export<S> {
    source: S,
    layout: Layout,
    element: ElementType,
    rects: Box<dyn Iterator<Item = Rect> + Send>,
    /// What is written before anything else.
    head: Option<Vec<u8>>,
    rect: Rect,
    elements: Vec<u8>,
    /// The next element of `rect`, in the order of the file.
    next: u64,
    text: Vec<u8>,
    ended: bool,
    piece: Piece,
}

/// How many pieces an export in this form holds, with what its reader has not taken yet.
pub fn pieces_held(format: Format) -> u64 {
    match format {
        Format::Mtx => COLUMNS_PIECES,
        Format::Npy | Format::Csv | Format::Json => 2,
    }
}

impl<S: Source> Export<S> {
    /// Begins a file. Cost: for `mtx` one pass over the matrix, to count the elements that are not
    /// zero; for `npy` too when integers have 64 bits.
    ///
    /// An `.mtx` file is a coordinate file when that has fewer numbers (3 for each element that is
    /// not zero, against one for each element), or when the matrix is so tall that its columns do
    /// not fit in memory; else an array.
    ///
    /// # Errors
    /// The source's.
    ///
    /// # Panics
    /// When [`check`] refuses this format for this matrix.
    pub fn new(mut source: S, format: Format, piece: Piece) -> Result<Self, S::Error> {
        let manifest = source.manifest();
        let (rows, cols, element) = (manifest.rows, manifest.cols, manifest.element);
        let (layout, head) = match format {
            Format::Npy => {
                let descr = npy_descr(&mut source)?.expect("check() has been asked before");
                let bytes = if element.dtype == Dtype::F32 { 4 } else { 8 };
                (Layout::Raw { bytes }, npy::write_header(descr, rows, cols))
            }
            Format::Csv => (Layout::Csv, Vec::new()),
            Format::Mtx => mtx_head(&mut source)?,
            Format::Json => {
                let dtype = element.dtype.name();
                let head =
                    format!("{{\"rows\":{rows},\"cols\":{cols},\"dtype\":\"{dtype}\",\"data\":[[");
                (Layout::Json, head.into_bytes())
            }
        };
        let rects: Box<dyn Iterator<Item = Rect> + Send> = match layout {
            Layout::Array => {
                let bytes = COLUMNS_PIECES * piece.bytes();
                Box::new(columns(rows, cols, element, bytes))
            }
            _ => Box::new(lines(rows, cols, element, piece.bytes())),
        };
        Ok(Self {
            source,
            layout,
            element,
            rects,
            head: Some(head),
            rect: Rect {
                row: 0,
                col: 0,
                rows: 0,
                cols: 0,
            },
            elements: Vec::new(),
            next: 0,
            text: Vec::new(),
            ended: false,
            piece,
        })
    }

    /// The next bytes of the file; `None` at its end.
    ///
    /// # Errors
    /// The source's. Nothing more comes after one.
    pub fn next_bytes(&mut self) -> Result<Option<Vec<u8>>, S::Error> {
        if let Some(head) = self.head.take().filter(|head| !head.is_empty()) {
            return Ok(Some(head));
        }
        loop {
            if self.ended {
                return Ok(None);
            }
            if self.next == self.rect.rows * self.rect.cols {
                let Some(rect) = self.rects.next() else {
                    self.ended = true;
                    let tail: &[u8] = if self.layout == Layout::Json {
                        b"]]}\n"
                    } else {
                        b""
                    };
                    self.text.extend_from_slice(tail);
                    let text = std::mem::take(&mut self.text);
                    return Ok(Some(text).filter(|text| !text.is_empty()));
                };
                self.rect = rect;
                self.next = 0;
                if let Err(error) = self.source.read(rect, &mut self.elements) {
                    self.ended = true;
                    return Err(error);
                }
            }
            if let Layout::Raw { bytes } = self.layout {
                self.next = self.rect.rows * self.rect.cols;
                return Ok(Some(self.raw(bytes)));
            }
            self.print();
            if self.text.len() >= self.text_bytes() {
                return Ok(Some(std::mem::take(&mut self.text)));
            }
        }
    }

    fn text_bytes(&self) -> usize {
        TEXT_BYTES.min(self.piece.bytes() as usize)
    }

    fn raw(&mut self, bytes: usize) -> Vec<u8> {
        let stored = self.element.bytes() as usize;
        if stored == bytes {
            return std::mem::take(&mut self.elements);
        }
        let mut raw = Vec::with_capacity(self.elements.len() / stored * bytes);
        for element in self.elements.chunks_exact(stored) {
            raw.extend_from_slice(&element[..bytes]);
        }
        raw
    }

    /// Prints elements of `rect` until there is enough text or none is left.
    fn print(&mut self) {
        let manifest = self.source.manifest();
        let (rect, bytes) = (self.rect, self.element.bytes() as usize);
        let text_bytes = self.text_bytes();
        while self.next < rect.rows * rect.cols && self.text.len() < text_bytes {
            let (i, j) = match self.layout {
                Layout::Array => (self.next % rect.rows, self.next / rect.rows),
                _ => (self.next / rect.cols, self.next % rect.cols),
            };
            self.next += 1;
            let at = (i * rect.cols + j) as usize * bytes;
            let element = &self.elements[at..at + bytes];
            let (row, col) = (rect.row + i, rect.col + j);
            let last_col = col + 1 == manifest.cols;
            let text = &mut self.text;
            match self.layout {
                Layout::Raw { .. } => unreachable!("raw files are not printed"),
                Layout::Csv => {
                    number::print(&number::decode(element, self.element), text);
                    text.push(if last_col { b'\n' } else { b',' });
                }
                Layout::Array => {
                    number::print(&number::decode(element, self.element), text);
                    text.push(b'\n');
                }
                Layout::Coordinate => {
                    if element.iter().any(|&byte| byte != 0) {
                        write!(text, "{} {} ", row + 1, col + 1).expect("memory");
                        number::print(&number::decode(element, self.element), text);
                        text.push(b'\n');
                    }
                }
                Layout::Json => {
                    print_json(&number::decode(element, self.element), text);
                    let last = last_col && row + 1 == manifest.rows;
                    match (last_col, last) {
                        (_, true) => {}
                        (true, false) => text.extend_from_slice(b"],["),
                        (false, _) => text.push(b','),
                    }
                }
            }
        }
    }
}

/// Appends `value` as JSON: a number, or a string for NaN, infinities and integers beyond 2^53.
pub fn print_json(value: &Value, out: &mut Vec<u8>) {
    let float = match value {
        Value::F64(value) => *value,
        Value::F32(value) => f64::from(*value),
        Value::Int(value) if value.unsigned_abs() <= JSON_INTEGER_MAX => 0.0,
        Value::Int(_) | Value::Big(_) => {
            out.push(b'"');
            number::print(value, out);
            out.push(b'"');
            return;
        }
    };
    if float.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if float.is_infinite() {
        let text: &[u8] = if float > 0.0 {
            b"\"Infinity\""
        } else {
            b"\"-Infinity\""
        };
        out.extend_from_slice(text);
    } else if float == 0.0 && float.is_sign_negative() {
        // `-0` is an integer for many readers, which have no negative zero.
        out.extend_from_slice(b"-0.0");
    } else {
        number::print(value, out);
    }
}

/// Rectangles in the order of a row-major file: whole rows, or parts of one row.
fn lines(
    rows: u64,
    cols: u64,
    element: ElementType,
    piece: u64,
) -> impl Iterator<Item = Rect> + Send {
    let row_bytes = cols * element.bytes();
    let grid = Grid::new(rows, cols, element);
    let (height, width) = if row_bytes <= piece {
        (whole(piece / row_bytes, grid.block_rows()), cols)
    } else {
        (
            1,
            whole((piece / element.bytes()).max(1), grid.block_cols()),
        )
    };
    let across = cols.div_ceil(width);
    (0..rows.div_ceil(height) * across).map(move |index| {
        let (row, col) = (index / across * height, index % across * width);
        Rect {
            row,
            col,
            rows: height.min(rows - row),
            cols: width.min(cols - col),
        }
    })
}

/// Rectangles of whole columns.
fn columns(
    rows: u64,
    cols: u64,
    element: ElementType,
    bytes: u64,
) -> impl Iterator<Item = Rect> + Send {
    let grid = Grid::new(rows, cols, element);
    let width = whole((bytes / (rows * element.bytes())).max(1), grid.block_cols());
    (0..cols.div_ceil(width)).map(move |index| Rect {
        row: 0,
        col: index * width,
        rows,
        cols: width.min(cols - index * width),
    })
}

/// `length` cut to a multiple of `edge` when it is longer: whole blocks are read once.
fn whole(length: u64, edge: u64) -> u64 {
    if length > edge {
        length / edge * edge
    } else {
        length
    }
}

/// Layout and head of an `.mtx` file.
fn mtx_head<S: Source>(source: &mut S) -> Result<(Layout, Vec<u8>), S::Error> {
    let manifest = source.manifest();
    let (rows, cols, element) = (manifest.rows, manifest.cols, manifest.element);
    let mut nonzeros = 0u64;
    let mut bytes = Vec::new();
    for rect in bands::rectangles(rows, cols, element, LOOK_BYTES, false) {
        source.read(rect, &mut bytes)?;
        nonzeros += bytes
            .chunks_exact(element.bytes() as usize)
            .filter(|element| element.iter().any(|&byte| byte != 0))
            .count() as u64;
    }
    let columns = cols.min(COLUMNS_MIN);
    let tall = columns * rows * element.bytes() > COLUMNS_BYTES;
    let field = match element.dtype {
        Dtype::Int | Dtype::Residues => "integer",
        Dtype::F32 | Dtype::F64 => "real",
    };
    Ok(
        if tall || 3 * u128::from(nonzeros) < u128::from(rows) * u128::from(cols) {
            let head = format!(
                "%%MatrixMarket matrix coordinate {field} general\n{rows} {cols} {nonzeros}\n"
            );
            (Layout::Coordinate, head.into_bytes())
        } else {
            let head = format!("%%MatrixMarket matrix array {field} general\n{rows} {cols}\n");
            (Layout::Array, head.into_bytes())
        },
    )
}

/// The `descr` of an `.npy` file of this matrix; `None` when integers do not fit in 64 bits.
/// Cost: constant; one pass over the matrix when the largest magnitude has exactly 64 bits.
fn npy_descr<S: Source>(source: &mut S) -> Result<Option<&'static str>, S::Error> {
    let manifest = source.manifest();
    match (manifest.element.dtype, manifest.bits) {
        (Dtype::F64, _) => return Ok(Some("<f8")),
        (Dtype::F32, _) => return Ok(Some("<f4")),
        (Dtype::Int, 0..=63) => return Ok(Some("<i8")),
        (Dtype::Int, 64) => {}
        (Dtype::Int | Dtype::Residues, _) => return Ok(None),
    }
    let (rows, cols, element) = (manifest.rows, manifest.cols, manifest.element);
    let (mut negative, mut unsigned) = (false, false);
    let mut bytes = Vec::new();
    for rect in bands::rectangles(rows, cols, element, LOOK_BYTES, false) {
        source.read(rect, &mut bytes)?;
        for bytes in bytes.chunks_exact(element.bytes() as usize) {
            match number::decode(bytes, element) {
                Value::Int(value) => negative |= value < 0,
                Value::Big(value) if value.sign() == num_bigint::Sign::Minus => return Ok(None),
                _ => unsigned = true,
            }
        }
    }
    Ok(match (negative, unsigned) {
        (_, false) => Some("<i8"),
        (false, true) => Some("<u8"),
        (true, true) => None,
    })
}

/// Whether the matrix can be written in this form.
///
/// # Errors
/// The source's; within, `overflows_npy` for integers beyond 64 bits.
pub fn check<S: Source>(source: &mut S, format: Format) -> Result<Result<(), ApiError>, S::Error> {
    if format == Format::Npy && npy_descr(source)?.is_none() {
        let bits = source.manifest().bits;
        return Ok(Err(unprocessable(
            "overflows_npy",
            format!("the matrix has integers of {bits} bits; .npy has 64"),
            "ask for csv or mtx, which hold integers of any size",
        )));
    }
    Ok(Ok(()))
}
