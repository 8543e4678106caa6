//! NumPy's `.npy`: a magic string, a header that is a Python dictionary literal, raw elements.
//!
//! The header is parsed here and not by a general parser of Python literals: it needs three keys,
//! and a recursive parser overflows its stack on 64 KiB of opening brackets.
//! Format: numpy/lib/format.py, "Format Version 1.0" to "3.0".

use std::fs::File;
use std::path::Path;

use gemmesh_protocol::matrix::{Dtype, ElementType};
use num_bigint::BigInt;

use super::bands;
use super::number::{self, Value, Width};
use super::{
    PIECE_BYTES, ReadOptions, Sink, check_shape, io_error, number_error, pio, show, unprocessable,
};
use crate::error::ApiError;

/// The most bytes of a header.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// What an element is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Signed,
    Unsigned,
}

/// A header that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    kind: Kind,
    /// Bytes of an element: 1, 2, 4 or 8.
    size: usize,
    big_endian: bool,
    fortran: bool,
    rows: u64,
    cols: u64,
    /// Matrices one below the other, when the array has three dimensions.
    stack: Option<u64>,
    /// Where elements start.
    start: u64,
}

impl Header {
    fn dtype(&self) -> Dtype {
        match (self.kind, self.size) {
            (Kind::Float, 4) => Dtype::F32,
            (Kind::Float, _) => Dtype::F64,
            _ => Dtype::Int,
        }
    }

    /// The element that `bytes` are.
    fn decode(&self, bytes: &[u8]) -> Value {
        let mut word = [0; 8];
        word[..self.size].copy_from_slice(bytes);
        if self.big_endian {
            word[..self.size].reverse();
        }
        let word = u64::from_le_bytes(word);
        match self.kind {
            Kind::Float if self.size == 4 => Value::F32(f32::from_bits(word as u32)),
            Kind::Float => Value::F64(f64::from_bits(word)),
            Kind::Signed => {
                let unused = 64 - 8 * self.size as u32;
                Value::Int((word << unused) as i64 >> unused)
            }
            Kind::Unsigned => match i64::try_from(word) {
                Ok(value) => Value::Int(value),
                Err(_) => Value::Big(BigInt::from(word)),
            },
        }
    }
}

/// Reads an `.npy` file into `sink`. Cost: one pass over the file, two when it must be found how
/// wide integers are. Memory: two pieces.
///
/// # Errors
/// `bad_npy`, `truncated_npy`, `trailing_npy`, `pickled_npy`, `unsupported_npy`,
/// `not_two_dimensional`, `empty_matrix`, `too_large`, `not_integral`, `not_finite`, and the
/// sink's.
pub fn read(path: &Path, options: ReadOptions, sink: &mut dyn Sink) -> Result<(), ApiError> {
    let opening = |error| io_error("reading the .npy file", &error);
    let file = File::open(path).map_err(opening)?;
    let length = file.metadata().map_err(opening)?.len();
    let header = read_header(&file, length)?;
    let dtype = options.dtype.unwrap_or(header.dtype());
    // Shapes are checked with the narrowest form first: what follows may then be computed with.
    check_shape(header.rows, header.cols, ElementType { dtype, limbs: 1 })?;
    let expected = header.rows * header.cols * header.size as u64;
    let there = length - header.start;
    if there != expected {
        let (code, what) = if there < expected {
            ("truncated_npy", "is cut short")
        } else {
            ("trailing_npy", "goes on after its elements")
        };
        return Err(unprocessable(
            code,
            format!(
                "the .npy file {what}: a {} × {} array has {expected} bytes of elements, not \
                 {there}",
                header.rows, header.cols
            ),
            "write the file again with numpy.save, or copy it again",
        ));
    }
    let element = ElementType {
        dtype,
        limbs: find_limbs(&file, &header, dtype)?,
    };
    sink.begin(header.rows, header.cols, element)?;
    copy(&file, &header, element, sink)
}

/// How many matrices the file stacks, when its array has three dimensions.
///
/// # Errors
/// As [`read`]'s.
pub fn stack(path: &Path) -> Result<Option<u64>, ApiError> {
    let opening = |error| io_error("reading the .npy file", &error);
    let file = File::open(path).map_err(opening)?;
    let length = file.metadata().map_err(opening)?.len();
    Ok(read_header(&file, length)?.stack)
}

/// How many limbs the elements need as integers; 1 for floats.
fn find_limbs(file: &File, header: &Header, dtype: Dtype) -> Result<u16, ApiError> {
    let fits = header.kind == Kind::Signed || (header.kind == Kind::Unsigned && header.size < 8);
    if dtype != Dtype::Int || fits {
        return Ok(1);
    }
    let mut width = Width::default();
    let (count, size) = (header.rows * header.cols, header.size as u64);
    let per_piece = PIECE_BYTES / size;
    let mut bytes = Vec::new();
    for first in (0..count).step_by(per_piece as usize) {
        bytes.resize((per_piece.min(count - first) * size) as usize, 0);
        pio::read_at(file, &mut bytes, header.start + first * size)
            .map_err(|error| io_error("reading the .npy file", &error))?;
        for (i, element) in (first..).zip(bytes.chunks_exact(header.size)) {
            let (row, col) = match header.fortran {
                false => (i / header.cols, i % header.cols),
                true => (i % header.rows, i / header.rows),
            };
            let value = header.decode(element);
            match number::convert(value.clone(), Dtype::Int) {
                Ok(value) => width.see(&value),
                Err(error) => {
                    let mut text = Vec::new();
                    number::print(&value, &mut text);
                    return Err(number_error(
                        error,
                        &format!("element [{row}, {col}]"),
                        &text,
                    ));
                }
            }
        }
    }
    Ok(width.limbs().expect("the largest f64 has 1,024 bits"))
}

/// Copies all elements, converted to `element`.
fn copy(
    file: &File,
    header: &Header,
    element: ElementType,
    sink: &mut dyn Sink,
) -> Result<(), ApiError> {
    let size = header.size as u64;
    let as_is = !header.big_endian
        && element.bytes() == size
        && match header.kind {
            Kind::Float => element.dtype == header.dtype(),
            Kind::Signed => element.dtype == Dtype::Int,
            Kind::Unsigned => false,
        };
    let (mut raw, mut turned, mut converted) = (Vec::new(), Vec::new(), Vec::new());
    for rect in bands::rectangles(
        header.rows,
        header.cols,
        element,
        PIECE_BYTES,
        header.fortran,
    ) {
        raw.resize((rect.rows * rect.cols * size) as usize, 0);
        // In the file, the rectangle is strips of a row (C order) or of a column (Fortran order).
        let (strips, strip, first, stride) = match header.fortran {
            false => (
                rect.rows,
                rect.cols,
                rect.row * header.cols + rect.col,
                header.cols,
            ),
            true => (
                rect.cols,
                rect.rows,
                rect.col * header.rows + rect.row,
                header.rows,
            ),
        };
        // Strips that touch are read at once.
        let at_once = if strip == stride { strips } else { 1 };
        for (i, bytes) in raw
            .chunks_exact_mut((strip * at_once * size) as usize)
            .enumerate()
        {
            let offset = header.start + (first + i as u64 * stride) * size;
            pio::read_at(file, bytes, offset)
                .map_err(|error| io_error("reading the .npy file", &error))?;
        }
        let rows_first = if header.fortran {
            let (cols, rows) = (rect.cols as usize, rect.rows as usize);
            bands::transpose(&raw, cols, rows, header.size, &mut turned);
            &turned
        } else {
            &raw
        };
        if as_is {
            sink.write(rect, rows_first)?;
            continue;
        }
        converted.clear();
        for bytes in rows_first.chunks_exact(header.size) {
            let value = number::convert(header.decode(bytes), element.dtype)
                .expect("integers were checked when their width was found");
            number::encode(&value, element, &mut converted);
        }
        sink.write(rect, &converted)?;
    }
    Ok(())
}

fn bad(what: impl std::fmt::Display) -> ApiError {
    unprocessable(
        "bad_npy",
        format!("this is not an .npy file: {what}"),
        "write the file with numpy.save",
    )
}

fn read_header(file: &File, length: u64) -> Result<Header, ApiError> {
    let mut bytes = vec![0; length.min(HEADER_BYTES_MAX as u64 + 12) as usize];
    pio::read_at(file, &mut bytes, 0).map_err(|error| io_error("reading the .npy file", &error))?;
    parse_header(&bytes)
}

/// Parses the header at the start of `bytes`.
fn parse_header(bytes: &[u8]) -> Result<Header, ApiError> {
    let cut = || {
        unprocessable(
            "truncated_npy",
            "the .npy file is cut short within its header",
            "write the file again with numpy.save, or copy it again",
        )
    };
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err(match b"\x93NUMPY".starts_with(bytes) {
            true => cut(),
            false => bad("it does not start with \\x93NUMPY"),
        });
    }
    let (start, len) = match bytes[6..] {
        [1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([a, b]))),
        [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        [version, ..] if !(1..=3).contains(&version) => {
            return Err(unprocessable(
                "unsupported_npy",
                format!("version {version} of the .npy format is not known"),
                "write the file with numpy.save",
            ));
        }
        _ => return Err(cut()),
    };
    if len > HEADER_BYTES_MAX {
        return Err(bad(format!(
            "its header of {len} bytes is longer than 65,536"
        )));
    }
    let text = bytes.get(start..start + len).ok_or_else(cut)?;
    let text = std::str::from_utf8(text).map_err(|_| bad("its header is not text"))?;
    let dictionary = Dictionary::parse(text).map_err(|error| match error {
        // A list of fields, the only legal form that is not understood.
        DictionaryError::Record => unsupported("a record of several fields"),
        DictionaryError::Malformed => {
            bad("its header is not a dictionary of descr, fortran_order \
                                           and shape")
        }
        DictionaryError::Shape => bad("its shape does not fit in 64 bits"),
    })?;
    let (kind, size, big_endian) = element_kind(&dictionary.descr)?;
    let (rows, cols, stack) = match dictionary.shape[..] {
        [rows, cols] => (rows, cols, None),
        [count, rows, cols] if !dictionary.fortran_order || count < 2 => {
            let rows = count.checked_mul(rows);
            let rows = rows.ok_or_else(|| bad("its shape does not fit in 64 bits"))?;
            (rows, cols, Some(count))
        }
        ref shape => {
            let hint = match shape.len() {
                1 => "make it a matrix: a.reshape(-1, 1) is a column, a.reshape(1, -1) a row",
                3 => {
                    "save the stack of matrices in C order: numpy.save(file, numpy.ascontiguousarray(a))"
                }
                _ => "make it a matrix with numpy.reshape, or a stack of matrices (3 dimensions)",
            };
            return Err(unprocessable(
                "not_two_dimensional",
                match shape.len() {
                    3 => "the array has 3 dimensions and is in Fortran order".to_owned(),
                    dimensions => format!("the array has {dimensions} dimensions, a matrix has 2"),
                },
                hint,
            ));
        }
    };
    Ok(Header {
        kind,
        size,
        big_endian,
        fortran: dictionary.fortran_order,
        rows,
        cols,
        stack,
        start: (start + len) as u64,
    })
}

fn unsupported(what: &str) -> ApiError {
    unprocessable(
        "unsupported_npy",
        format!("the elements of the .npy file are {what}, which is no element type of matrices"),
        "convert the array before saving it: a.astype(numpy.float64), numpy.float32 or numpy.int64",
    )
}

fn element_kind(descr: &str) -> Result<(Kind, usize, bool), ApiError> {
    let (order, code) = match descr.chars().next() {
        Some(order @ ('<' | '>' | '|' | '=')) => (order, &descr[1..]),
        _ => ('=', descr),
    };
    let (kind, size) = match code {
        "f8" => (Kind::Float, 8),
        "f4" => (Kind::Float, 4),
        "i1" | "i2" | "i4" | "i8" => (Kind::Signed, usize::from(code.as_bytes()[1] - b'0')),
        "u1" | "u2" | "u4" | "u8" => (Kind::Unsigned, usize::from(code.as_bytes()[1] - b'0')),
        _ if code.starts_with('O') => {
            return Err(unprocessable(
                "pickled_npy",
                "the .npy file holds pickled Python objects, which are programs and are not run",
                "convert the array before saving it: a.astype(numpy.float64), or for integers \
                 beyond 64 bits write .csv or .mtx",
            ));
        }
        _ => {
            return Err(unsupported(&match code.chars().next() {
                Some('b') => "booleans".to_owned(),
                Some('c') => "complex numbers".to_owned(),
                Some('f') => format!("{}-byte floats", &code[1..]),
                Some('S' | 'U' | 'a') => "strings".to_owned(),
                Some('M' | 'm') => "dates or times".to_owned(),
                _ => format!("of type {}", show(descr.as_bytes())),
            }));
        }
    };
    // Without a mark the order is the writer's own, nearly always little-endian.
    Ok((kind, size, order == '>'))
}

#[derive(Debug)]
enum DictionaryError {
    Malformed,
    Record,
    Shape,
}

/// The three keys of a header.
struct Dictionary {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Dictionary {
    fn parse(text: &str) -> Result<Self, DictionaryError> {
        let mut rest = Literal(text.trim_end());
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        rest.expect("{")?;
        while !rest.accept("}") {
            let key = rest.string()?;
            rest.expect(":")?;
            let new = match key {
                "descr" if rest.accept("[") => return Err(DictionaryError::Record),
                "descr" => descr.replace(rest.string()?.to_owned()).is_none(),
                "fortran_order" => {
                    let value = rest.accept("True");
                    if !value {
                        rest.expect("False")?;
                    }
                    fortran_order.replace(value).is_none()
                }
                "shape" => shape.replace(rest.tuple()?).is_none(),
                _ => false,
            };
            if !new {
                return Err(DictionaryError::Malformed);
            }
            if !rest.accept(",") {
                rest.expect("}")?;
                break;
            }
        }
        if !rest.0.trim().is_empty() {
            return Err(DictionaryError::Malformed);
        }
        let missing = DictionaryError::Malformed;
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok(Self {
                descr,
                fortran_order,
                shape,
            }),
            _ => Err(missing),
        }
    }
}

/// The rest of a Python literal.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    fn accept(&mut self, token: &str) -> bool {
        let rest = self.0.trim_start().strip_prefix(token);
        if let Some(rest) = rest {
            self.0 = rest;
        }
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), DictionaryError> {
        match self.accept(token) {
            true => Ok(()),
            false => Err(DictionaryError::Malformed),
        }
    }

    /// A string in either quotes, without escapes: no key and no type has any.
    fn string(&mut self) -> Result<&'a str, DictionaryError> {
        let text = self.0.trim_start();
        let quote = text.chars().next().filter(|&c| c == '\'' || c == '"');
        let quote = quote.ok_or(DictionaryError::Malformed)?;
        let (string, rest) = text[1..]
            .split_once(quote)
            .ok_or(DictionaryError::Malformed)?;
        self.0 = rest;
        Ok(string)
    }

    /// A tuple of at most 32 numbers (the most dimensions that NumPy has long had).
    fn tuple(&mut self) -> Result<Vec<u64>, DictionaryError> {
        let mut numbers = Vec::new();
        self.expect("(")?;
        while !self.accept(")") {
            let text = self.0.trim_start();
            let end = text
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len());
            if end == 0 || numbers.len() == 32 {
                return Err(DictionaryError::Malformed);
            }
            numbers.push(text[..end].parse().map_err(|_| DictionaryError::Shape)?);
            // Python 2 wrote long integers with an L.
            self.0 = text[end..].strip_prefix('L').unwrap_or(&text[end..]);
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(numbers)
    }
}

/// The header of a version 1 file of a `rows` × `cols` array in C order; elements start at a
/// multiple of 64 bytes.
pub fn write_header(descr: &str, rows: u64, cols: u64) -> Vec<u8> {
    header_of(descr, &format!("{rows}, {cols}"))
}

/// The header of a stack of matrices in C order.
pub fn write_stack_header(descr: &str, count: u64, rows: u64, cols: u64) -> Vec<u8> {
    header_of(descr, &format!("{count}, {rows}, {cols}"))
}

fn header_of(descr: &str, shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let len = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(len as u16).to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header.resize(10 + len - 1, b' ');
    header.push(b'\n');
    header
}
