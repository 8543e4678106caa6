//! Matrix files: NumPy's `.npy`, `.csv`, Matrix Market's `.mtx`, and nested arrays of JSON.
//!
//! Readers take a file as it is on disk and hand rectangles of little-endian elements to a
//! [`Sink`]; writers take rectangles from a [`Source`] and yield the bytes of a file piece by
//! piece ([`export::Export`]). Neither holds more than a few [`PIECE_BYTES`], whatever the size
//! of the matrix, with one exception that has a limit of its own: the entries of a coordinate
//! `.mtx` file are sorted in memory.
//!
//! | form | read | written |
//! |---|---|---|
//! | npy | versions 1 to 3; `f4 f8 i1..i8 u1..u8` of either byte order, C or Fortran order; 2 dimensions, or 3 in C order: the matrices one below the other | version 1, C order, `<f8`, `<f4`, `<i8` (`<u8` when needed) |
//! | csv | separated by `;`, `,`, tabs or blanks (the first of these that the first line has); quotes tolerated; lines that start with `#` skipped | `,` |
//! | mtx | coordinate and array; real, integer, pattern; general, symmetric, skew-symmetric | general array, or coordinate when that is shorter |
//! | json | nested arrays, or `{data, dtype?}`; digits, `NaN` and `Infinity` as strings | `{rows, cols, dtype, data}` |
//!
//! Element types: an `.npy` has its own; `integer` and `pattern` `.mtx` are int; all else is f64
//! (but see [`ReadOptions::keep_digits`]).
//! [`ReadOptions::dtype`] overrides: integers become the nearest float, f64 the nearest f32,
//! floats become integers only when all of them are integral and finite. Booleans, complex numbers,
//! strings, records and pickled objects are refused.
//!
//! # Codes of errors
//! 400: `bad_json`.
//! 413: `too_large` (dimensions, blocks, disk or memory budget).
//! 422: `empty_matrix`, `unknown_format`, `not_a_number`, `not_integral`, `not_finite`,
//! `integer_too_large`, `number_too_long`, `overflows_npy`, `ragged_csv`, `bad_encoding`,
//! `bad_npy`, `truncated_npy`, `trailing_npy`, `pickled_npy`, `unsupported_npy`,
//! `not_two_dimensional`, `bad_mtx`, `unsupported_mtx`, `mtx_index`, `mtx_count`,
//! `mtx_duplicate`, `ragged_json`.
//! 503: `io_error`.

pub mod bands;
pub mod csv;
pub mod export;
pub mod json;
pub mod memory;
pub mod mtx;
pub mod npy;
pub mod number;
pub mod picture;
pub mod pieces;
pub mod pio;
#[cfg(test)]
mod tests;

use std::path::Path;

use gemmesh_protocol::matrix::{BLOCKS_MAX, DIMENSION_MAX, Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::tile::Rect;

use crate::error::ApiError;
use number::NumberError;

/// What readers and writers hold of a matrix at a time: 8 of the largest blocks.
pub const PIECE_BYTES: u64 = 4 << 20;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// NumPy's binary form of one array.
    Npy,
    /// Lines of numbers.
    Csv,
    /// Matrix Market.
    Mtx,
    /// Nested arrays.
    Json,
}

impl Format {
    /// By the ending of a file's name.
    pub fn from_path(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "csv" | "tsv" | "txt" => Some(Format::Csv),
            name => Self::from_name(name),
        }
    }

    /// By the name that `?format=` uses: `npy`, `csv`, `mtx` or `json`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "npy" => Some(Format::Npy),
            "csv" => Some(Format::Csv),
            "mtx" => Some(Format::Mtx),
            "json" => Some(Format::Json),
            _ => None,
        }
    }

    /// By a `Content-Type`; `None` for types that say nothing, such as
    /// `application/octet-stream` and `text/plain`.
    pub fn from_content_type(value: &str) -> Option<Self> {
        let kind = value.split(';').next()?.trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/x-npy" | "application/npy" | "application/x-numpy" => Some(Format::Npy),
            "text/csv" | "text/tab-separated-values" => Some(Format::Csv),
            "application/x-matrix-market" | "text/x-matrix-market" | "application/x-mtx" => {
                Some(Format::Mtx)
            }
            "application/json" => Some(Format::Json),
            _ => None,
        }
    }

    /// By the first bytes of a file (256 are enough); `None` when they are none of these forms.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x93NUMPY") {
            return Some(Format::Npy);
        }
        let text = bytes
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(bytes)
            .trim_ascii_start();
        if text.len() >= 14 && text[..14].eq_ignore_ascii_case(b"%%MatrixMarket") {
            return Some(Format::Mtx);
        }
        match text.first()? {
            b'[' | b'{' => Some(Format::Json),
            byte if byte.is_ascii_graphic() && !bytes.contains(&0) => Some(Format::Csv),
            _ => None,
        }
    }

    /// The `Content-Type` of files of this form.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Npy => "application/x-npy",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Mtx => "text/x-matrix-market; charset=utf-8",
            Format::Json => "application/json",
        }
    }

    /// The name that `?format=` uses, also the ending of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Npy => "npy",
            Format::Csv => "csv",
            Format::Mtx => "mtx",
            Format::Json => "json",
        }
    }
}

/// How to read a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// The element type wanted; `None`: the file's own.
    pub dtype: Option<Dtype>,
    /// Without a wanted type, text whose elements are all digits becomes int instead of f64 when
    /// f64 would lose some of the digits: a job may ask for exact integers later.
    pub keep_digits: bool,
}

/// Takes the matrix that a reader finds.
pub trait Sink {
    /// Announces the matrix; once, before any element. Elements never written are zero.
    ///
    /// # Errors
    /// It does not fit.
    fn begin(&mut self, rows: u64, cols: u64, element: ElementType) -> Result<(), ApiError>;

    /// Takes the elements of `rect`, row-major and little-endian. No element comes twice.
    ///
    /// # Errors
    /// They could not be written.
    fn write(&mut self, rect: Rect, bytes: &[u8]) -> Result<(), ApiError>;
}

/// Hands out a matrix to a writer.
pub trait Source {
    /// Why elements can not be read.
    type Error;

    /// The matrix.
    fn manifest(&self) -> &Manifest;

    /// Replaces `out` by the elements of `rect`, row-major and little-endian.
    ///
    /// # Errors
    /// They could not be read.
    fn read(&mut self, rect: Rect, out: &mut Vec<u8>) -> Result<(), Self::Error>;
}

/// Reads the file at `path` into `sink`. Memory: a few [`PIECE_BYTES`]; for coordinate `.mtx`
/// and JSON up to `memory` bytes. Blocks on I/O.
///
/// # Errors
/// With one of the codes of this module's table; the message names the line or element.
pub fn read(
    path: &Path,
    format: Format,
    options: ReadOptions,
    memory: u64,
    sink: &mut dyn Sink,
) -> Result<(), ApiError> {
    match format {
        Format::Npy => npy::read(path, options, sink),
        Format::Csv => csv::read(path, options, sink),
        Format::Mtx => mtx::read(path, options, memory, sink),
        Format::Json => json::read_file(path, options, memory, sink),
    }
}

/// Checks that a matrix may have this shape.
///
/// # Errors
/// `empty_matrix` or `too_large`.
pub fn check_shape(rows: u64, cols: u64, element: ElementType) -> Result<(), ApiError> {
    if rows == 0 || cols == 0 {
        return Err(unprocessable(
            "empty_matrix",
            format!("the matrix is empty: {rows} × {cols}"),
            "a matrix needs at least one row and one column",
        ));
    }
    if rows > DIMENSION_MAX || cols > DIMENSION_MAX {
        return Err(ApiError::new(
            413,
            "too_large",
            format!("the matrix is {rows} × {cols}"),
            format!("a dimension may be at most {DIMENSION_MAX}"),
        ));
    }
    let blocks = Grid::new(rows, cols, element).len();
    if blocks > BLOCKS_MAX {
        return Err(ApiError::new(
            413,
            "too_large",
            format!("the matrix is {rows} × {cols} and would have {blocks} blocks"),
            format!("a matrix may have at most {BLOCKS_MAX} blocks of 512 KiB: cut it"),
        ));
    }
    Ok(())
}

pub(crate) fn unprocessable(
    code: &'static str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> ApiError {
    ApiError::new(422, code, message, hint)
}

pub(crate) fn io_error(doing: &str, error: &std::io::Error) -> ApiError {
    ApiError::new(
        503,
        "io_error",
        format!("{doing} failed: {error}"),
        "see the node's log, then try again",
    )
}

/// The error for a number that can not be an element; `place` is like `line 3, column 2`.
pub(crate) fn number_error(error: NumberError, place: &str, text: &[u8]) -> ApiError {
    let shown = show(text);
    match error {
        NumberError::NotANumber => unprocessable(
            "not_a_number",
            match text.trim_ascii() {
                b"" => format!("{place}: there is no number"),
                _ => format!("{place}: {shown} is not a number"),
            },
            match text.contains(&b',') {
                true => "use a point, not a comma, before the decimals",
                false => "write each element as a decimal number and leave out headings and units",
            },
        ),
        NumberError::NotIntegral => unprocessable(
            "not_integral",
            format!("{place}: {shown} is not an integer"),
            "use dtype f64, or round the elements first",
        ),
        NumberError::NotFinite => unprocessable(
            "not_finite",
            format!("{place}: {shown} can not be an integer"),
            "use dtype f64, which has NaN and infinities",
        ),
        NumberError::TooLarge => unprocessable(
            "integer_too_large",
            format!("{place}: {shown} has more than 65,536 bits"),
            "use dtype f64, or scale the elements",
        ),
    }
}

/// At most 40 characters of `text`, quoted, control characters escaped.
pub(crate) fn show(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(200)]);
    let text = text.trim();
    let shown: String = text.chars().take(40).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", shown.escape_debug())
}
