//! Matrix Market: a banner, comments, a line of sizes, then the entries of a sparse matrix
//! (coordinate) or all elements column by column (array).
//!
//! Source: R. Boisvert, R. Pozo, K. Remington, "The Matrix Market Exchange Formats: Initial
//! Design", NISTIR 5935 (1996). Departures: NaN and infinities are read; an element that comes
//! twice is refused, because programs disagree on what it means.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use gemmesh_protocol::matrix::{Dtype, ElementType, Grid};
use num_bigint::BigInt;

use super::bands::ColWriter;
use super::number::{self, NUMBER_BYTES_MAX, Value, Width};
use super::{ReadOptions, Sink, check_shape, io_error, number_error, show, unprocessable};
use crate::error::ApiError;

/// The most bytes of a line: indices, a number, and room.
const LINE_BYTES_MAX: usize = NUMBER_BYTES_MAX + 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symmetry {
    General,
    Symmetric,
    Skew,
}

/// What the banner and the line of sizes say.
#[derive(Debug, Clone, Copy)]
struct Header {
    coordinate: bool,
    pattern: bool,
    integer: bool,
    symmetry: Symmetry,
    rows: u64,
    cols: u64,
    /// Numbers or entries that follow.
    count: u64,
}

/// Reads an `.mtx` file into `sink`. The entries of a coordinate file, and of a symmetric array,
/// are sorted in memory (16 bytes each, twice that for symmetric ones; more for integers beyond
/// 64 bits), of which they may take `memory` bytes. Cost: one pass, two for arrays of integers.
///
/// # Errors
/// `bad_mtx`, `unsupported_mtx`, `mtx_index`, `mtx_count`, `mtx_duplicate`, `not_a_number`,
/// `not_integral`, `not_finite`, `integer_too_large`, `number_too_long`, `empty_matrix`,
/// `too_large`, and the sink's.
pub fn read(
    path: &Path,
    options: ReadOptions,
    memory: u64,
    sink: &mut dyn Sink,
) -> Result<(), ApiError> {
    let mut lines = Lines::open(path)?;
    let header = read_header(&mut lines)?;
    let own = if header.integer || header.pattern {
        Dtype::Int
    } else {
        Dtype::F64
    };
    let dtype = options.dtype.unwrap_or(own);
    check_shape(header.rows, header.cols, ElementType { dtype, limbs: 1 })?;
    if header.coordinate || header.symmetry != Symmetry::General {
        return Entries::new(&header, dtype, memory)?.read(lines, sink);
    }
    let mut limbs = 1;
    if dtype == Dtype::Int {
        let mut width = Width::default();
        let mut tokens = Tokens::new(lines);
        for at in 0..header.count {
            width.see(&tokens.number(dtype, header.count, at)?);
        }
        tokens.end(header.count)?;
        limbs = width.limbs().expect("each number is bounded");
        lines = Lines::open(path)?;
        read_header(&mut lines)?;
    }
    let element = ElementType { dtype, limbs };
    check_shape(header.rows, header.cols, element)?;
    let mut out = ColWriter::new(sink, header.rows, header.cols, element)?;
    let mut tokens = Tokens::new(lines);
    for at in 0..header.count {
        let value = tokens.number(dtype, header.count, at)?;
        if !number::fits(&value, element) {
            return Err(bad("the file changed while it was read".to_owned()));
        }
        out.push(&value)?;
    }
    tokens.end(header.count)
}

/// The entries of a matrix, sorted by where they lie in the blocks.
struct Entries {
    header: Header,
    dtype: Dtype,
    memory: u64,
    used: u64,
    /// Position in row-major order, and the bits of the element or its place in `large`.
    entries: Vec<(u64, u64)>,
    /// Integers beyond 64 bits, by their place; see [`LARGE`].
    large: Vec<BigInt>,
    width: Width,
}

/// Marks a position whose element is in `large`. Positions are below 2^63: see `Entries::new`.
const LARGE: u64 = 1 << 63;
/// Bytes of an entry.
const ENTRY_BYTES: u64 = 16;

impl Entries {
    fn new(header: &Header, dtype: Dtype, memory: u64) -> Result<Self, ApiError> {
        // At most 2^20 blocks of 2^19 bytes: far below 2^63 elements.
        let copies = if header.symmetry == Symmetry::General {
            1
        } else {
            2
        };
        let needed = header.count.saturating_mul(copies * ENTRY_BYTES);
        if needed > memory {
            return Err(ApiError::new(
                413,
                "too_large",
                format!(
                    "the .mtx file says that it has {} entries; sorting them takes {needed} bytes \
                     of memory, of which {memory} are free",
                    header.count
                ),
                "give the node more with --memory (eight times as much as is needed), or write \
                 the matrix as .npy",
            ));
        }
        Ok(Self {
            header: *header,
            dtype,
            memory,
            used: 0,
            entries: Vec::new(),
            large: Vec::new(),
            width: Width::default(),
        })
    }

    fn read(mut self, mut lines: Lines, sink: &mut dyn Sink) -> Result<(), ApiError> {
        let header = self.header;
        if header.coordinate {
            for at in 0..header.count {
                if !lines.next_content()? {
                    return Err(count_error(header.count, at));
                }
                let (row, col, value) = self.entry(&lines)?;
                self.add(row, col, value, lines.number)?;
            }
            if lines.next_content()? {
                return Err(more_error(header.count, lines.number));
            }
        } else {
            let mut tokens = Tokens::new(lines);
            let mut at = 0;
            let skew = u64::from(header.symmetry == Symmetry::Skew);
            for col in 0..header.cols {
                for row in col + skew..header.rows {
                    let value = tokens.number(self.dtype, header.count, at)?;
                    self.add(row, col, value, tokens.lines.number)?;
                    at += 1;
                }
            }
            tokens.end(header.count)?;
        }
        self.write(sink)
    }

    /// Row and column from 0, and the element, of a line.
    fn entry(&self, lines: &Lines) -> Result<(u64, u64, Value), ApiError> {
        let expected = if self.header.pattern { 2 } else { 3 };
        let mut words = lines.words();
        let (row, col) = (words.next(), words.next());
        let word = if self.header.pattern {
            Some(&b"1"[..])
        } else {
            words.next()
        };
        let (Some(row), Some(col), Some(word), None) = (row, col, word, words.next()) else {
            return Err(bad(format!(
                "line {} has not {expected} words: {}",
                lines.number,
                show(&lines.text)
            )));
        };
        let index = |word: &[u8], what: &str, count: u64| {
            let text = std::str::from_utf8(word).unwrap_or("");
            match text.parse::<u64>() {
                Ok(index) if (1..=count).contains(&index) => Ok(index - 1),
                _ => Err(unprocessable(
                    "mtx_index",
                    format!(
                        "line {}: {what} {} is not within 1..{count}",
                        lines.number,
                        show(word)
                    ),
                    "indices start at 1",
                )),
            }
        };
        let row = index(row, "row", self.header.rows)?;
        let col = index(col, "column", self.header.cols)?;
        let value = number::parse(word, self.dtype)
            .map_err(|error| number_error(error, &format!("line {}", lines.number), word))?;
        Ok((row, col, value))
    }

    /// Adds an element and, if the matrix is symmetric, its mirror image.
    fn add(&mut self, row: u64, col: u64, value: Value, line: u64) -> Result<(), ApiError> {
        let wrong = match self.header.symmetry {
            Symmetry::General => None,
            Symmetry::Symmetric => (row < col).then_some("above the diagonal"),
            Symmetry::Skew => (row <= col).then_some("not below the diagonal"),
        };
        if let Some(wrong) = wrong {
            return Err(unprocessable(
                "mtx_index",
                format!("line {line}: element ({}, {}) is {wrong}", row + 1, col + 1),
                "a symmetric file has the lower triangle only",
            ));
        }
        if self.header.symmetry != Symmetry::General && row != col {
            let mirrored = match self.header.symmetry {
                Symmetry::Skew => negate(value.clone()),
                _ => value.clone(),
            };
            self.put(col, row, mirrored)?;
        }
        self.put(row, col, value)
    }

    fn put(&mut self, row: u64, col: u64, value: Value) -> Result<(), ApiError> {
        let position = row * self.header.cols + col;
        if self.dtype == Dtype::Int {
            self.width.see(&value);
        }
        self.used += ENTRY_BYTES;
        let entry = match value {
            Value::F64(value) => (position, value.to_bits()),
            Value::F32(value) => (position, u64::from(value.to_bits())),
            Value::Int(value) => (position, value as u64),
            Value::Big(value) => {
                self.used += 40 + value.bits() / 8;
                self.large.push(value);
                (position | LARGE, self.large.len() as u64 - 1)
            }
        };
        if self.used > self.memory {
            return Err(ApiError::new(
                413,
                "too_large",
                format!(
                    "the entries of the .mtx file take more than the {} bytes of memory that are \
                     free",
                    self.memory
                ),
                "give the node more with --memory, or write the matrix as .csv",
            ));
        }
        self.entries.push(entry);
        Ok(())
    }

    fn write(mut self, sink: &mut dyn Sink) -> Result<(), ApiError> {
        let Header { rows, cols, .. } = self.header;
        let limbs = self.width.limbs().ok_or_else(|| {
            unprocessable(
                "integer_too_large",
                "the negative of an element has more than 65,536 bits",
                "use dtype f64, or scale the elements",
            )
        })?;
        let element = ElementType {
            dtype: self.dtype,
            limbs,
        };
        sink.begin(rows, cols, element)?;
        let grid = Grid::new(rows, cols, element);
        let place = |position: u64| {
            let (row, col) = ((position & !LARGE) / cols, (position & !LARGE) % cols);
            let block = row / grid.block_rows() * grid.grid_cols() + col / grid.block_cols();
            (block, row, col)
        };
        self.entries
            .sort_unstable_by_key(|&(position, _)| place(position));
        let bytes = element.bytes() as usize;
        let (mut buffer, mut encoded) = (Vec::new(), Vec::new());
        // Blocks without an entry stay as they are: all zero.
        for entries in self.entries.chunk_by(|a, b| place(a.0).0 == place(b.0).0) {
            let rect = grid.rect(place(entries[0].0).0);
            buffer.clear();
            buffer.resize((rect.rows * rect.cols) as usize * bytes, 0);
            let mut before = None;
            for &(position, bits) in entries {
                let (_, row, col) = place(position);
                if before.replace((row, col)) == Some((row, col)) {
                    return Err(unprocessable(
                        "mtx_duplicate",
                        format!("element ({}, {}) comes twice", row + 1, col + 1),
                        "add the entries up before writing the file",
                    ));
                }
                let value = match self.dtype {
                    Dtype::F64 => Value::F64(f64::from_bits(bits)),
                    Dtype::F32 => Value::F32(f32::from_bits(bits as u32)),
                    Dtype::Int if position & LARGE != 0 => {
                        Value::Big(std::mem::take(&mut self.large[bits as usize]))
                    }
                    Dtype::Int | Dtype::Residues => Value::Int(bits as i64),
                };
                encoded.clear();
                number::encode(&value, element, &mut encoded);
                let at = ((row - rect.row) * rect.cols + col - rect.col) as usize * bytes;
                buffer[at..at + bytes].copy_from_slice(&encoded);
            }
            sink.write(rect, &buffer)?;
        }
        Ok(())
    }
}

fn negate(value: Value) -> Value {
    match value {
        Value::F64(value) => Value::F64(-value),
        Value::F32(value) => Value::F32(-value),
        Value::Int(value) => match value.checked_neg() {
            Some(value) => Value::Int(value),
            None => Value::Big(-BigInt::from(value)),
        },
        Value::Big(value) => Value::Big(-value),
    }
}

fn bad(what: String) -> ApiError {
    unprocessable(
        "bad_mtx",
        format!("this is not a Matrix Market file: {what}"),
        "its first line is like: %%MatrixMarket matrix coordinate real general",
    )
}

fn count_error(expected: u64, found: u64) -> ApiError {
    unprocessable(
        "mtx_count",
        format!("the .mtx file ends after {found} of {expected} entries"),
        "copy or write the file again: it is cut short, or its line of sizes is wrong",
    )
}

fn more_error(expected: u64, line: u64) -> ApiError {
    unprocessable(
        "mtx_count",
        format!("line {line}: the .mtx file goes on after its {expected} entries"),
        "correct its line of sizes",
    )
}

fn read_header(lines: &mut Lines) -> Result<Header, ApiError> {
    if !lines.next()? {
        return Err(bad("it is empty".to_owned()));
    }
    let first = lines.text.strip_prefix(b"\xef\xbb\xbf");
    let first = String::from_utf8_lossy(first.unwrap_or(&lines.text));
    let banner = first.to_ascii_lowercase();
    let words: Vec<&str> = banner.split_ascii_whitespace().collect();
    let ["%%matrixmarket", "matrix", form, field, symmetry] = words[..] else {
        return Err(bad(format!("its first line is {}", show(&lines.text))));
    };
    let unsupported = |what: &str, hint: &str| {
        unprocessable(
            "unsupported_mtx",
            format!("{what} matrices are not supported"),
            hint,
        )
    };
    let coordinate = match form {
        "coordinate" => true,
        "array" => false,
        _ => return Err(bad(format!("its form is {}", show(form.as_bytes())))),
    };
    if field == "complex" || symmetry == "hermitian" {
        return Err(unsupported(
            "complex",
            "write real and imaginary part as two files",
        ));
    }
    // SciPy writes the last of these.
    let integer = matches!(field, "integer" | "unsigned-integer");
    if !integer && !matches!(field, "real" | "double" | "pattern") {
        return Err(bad(format!("its field is {}", show(field.as_bytes()))));
    }
    let symmetry = match symmetry {
        "general" => Symmetry::General,
        "symmetric" => Symmetry::Symmetric,
        "skew-symmetric" => Symmetry::Skew,
        _ => {
            return Err(bad(format!(
                "its symmetry is {}",
                show(symmetry.as_bytes())
            )));
        }
    };
    if field == "pattern" && (!coordinate || symmetry == Symmetry::Skew) {
        return Err(bad(
            "a pattern is a coordinate file, general or symmetric".to_owned()
        ));
    }
    if !lines.next_content()? {
        return Err(bad("it has no line of sizes".to_owned()));
    }
    let sizes: Option<Vec<u64>> = lines
        .words()
        .take(4)
        .map(|word| std::str::from_utf8(word).ok()?.parse().ok())
        .collect();
    let (rows, cols, declared) = match (sizes.as_deref(), coordinate) {
        (Some(&[rows, cols, count]), true) => (rows, cols, Some(count)),
        (Some(&[rows, cols]), false) => (rows, cols, None),
        _ => {
            return Err(bad(format!(
                "line {} is not {} sizes: {}",
                lines.number,
                if coordinate { 3 } else { 2 },
                show(&lines.text)
            )));
        }
    };
    if symmetry != Symmetry::General && rows != cols {
        return Err(bad(format!("it is symmetric, but {rows} × {cols}")));
    }
    // The shape is checked by the caller before anything is computed with it.
    let all = match symmetry {
        Symmetry::General => u128::from(rows) * u128::from(cols),
        Symmetry::Symmetric => u128::from(rows) * (u128::from(rows) + 1) / 2,
        Symmetry::Skew => u128::from(rows) * u128::from(rows.saturating_sub(1)) / 2,
    };
    let all = u64::try_from(all).unwrap_or(u64::MAX);
    let count = declared.unwrap_or(all);
    if count > all {
        return Err(unprocessable(
            "mtx_count",
            format!("a {rows} × {cols} matrix can not have {count} entries"),
            "correct the file's line of sizes",
        ));
    }
    Ok(Header {
        coordinate,
        pattern: field == "pattern",
        integer,
        symmetry,
        rows,
        cols,
        count,
    })
}

/// The lines of a file, one at a time.
struct Lines {
    input: BufReader<File>,
    text: Vec<u8>,
    /// From 1.
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, ApiError> {
        let file = File::open(path).map_err(|error| io_error("reading the .mtx file", &error))?;
        Ok(Self {
            input: BufReader::with_capacity(256 << 10, file),
            text: Vec::new(),
            number: 0,
        })
    }

    /// Goes to the next line; false at the end of the file.
    fn next(&mut self) -> Result<bool, ApiError> {
        self.text.clear();
        self.number += 1;
        loop {
            let reading = |error| io_error("reading the .mtx file", &error);
            let chunk = self.input.fill_buf().map_err(reading)?;
            if chunk.is_empty() {
                return Ok(!self.text.is_empty());
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(chunk.len());
            // Comments may be of any length; what is beyond the limit of a line is not kept.
            let comment = self.text.first().or(chunk.first()) == Some(&b'%');
            let room = LINE_BYTES_MAX - self.text.len();
            if taken > room && !comment {
                return Err(unprocessable(
                    "number_too_long",
                    format!(
                        "line {} has more than {LINE_BYTES_MAX} characters",
                        self.number
                    ),
                    "a line of an .mtx file has one entry",
                ));
            }
            self.text.extend_from_slice(&chunk[..taken.min(room)]);
            self.input.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// Goes to the next line that is neither a comment nor blank.
    fn next_content(&mut self) -> Result<bool, ApiError> {
        while self.next()? {
            if !self.text.trim_ascii().is_empty() && self.text[0] != b'%' {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.text
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
    }
}

/// The numbers of an array file, usually one a line.
struct Tokens {
    lines: Lines,
    /// How much of the line is read.
    at: usize,
}

impl Tokens {
    fn new(mut lines: Lines) -> Self {
        lines.text.clear();
        Self { lines, at: 0 }
    }

    /// The next word's bounds in the line.
    fn advance(&mut self) -> Result<Option<(usize, usize)>, ApiError> {
        loop {
            let rest = &self.lines.text[self.at..];
            if let Some(skip) = rest.iter().position(|byte| !byte.is_ascii_whitespace()) {
                let start = self.at + skip;
                let word = &self.lines.text[start..];
                let len = word
                    .iter()
                    .position(u8::is_ascii_whitespace)
                    .unwrap_or(word.len());
                self.at = start + len;
                return Ok(Some((start, self.at)));
            }
            self.at = 0;
            if !self.lines.next_content()? {
                self.lines.text.clear();
                return Ok(None);
            }
        }
    }

    fn number(&mut self, dtype: Dtype, expected: u64, found: u64) -> Result<Value, ApiError> {
        let (start, end) = self
            .advance()?
            .ok_or_else(|| count_error(expected, found))?;
        let word = &self.lines.text[start..end];
        number::parse(word, dtype)
            .map_err(|error| number_error(error, &format!("line {}", self.lines.number), word))
    }

    fn end(&mut self, expected: u64) -> Result<(), ApiError> {
        match self.advance()? {
            None => Ok(()),
            Some(_) => Err(more_error(expected, self.lines.number)),
        }
    }
}
