//! Lines of numbers. Read field by field, so that neither a file nor a line need fit in memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use gemmesh_protocol::matrix::{Dtype, ElementType};

use super::bands::RowWriter;
use super::number::{self, Digits, NUMBER_BYTES_MAX, Value, Width};
use super::{ReadOptions, Sink, check_shape, io_error, number_error, show, unprocessable};
use crate::error::ApiError;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Reads a file of lines into `sink`; elements are f64 unless `options` say otherwise. Cost: two
/// passes over the file, the first for the shape (and, for int, the width).
///
/// # Errors
/// `ragged_csv`, `not_a_number`, `not_integral`, `not_finite`, `integer_too_large`,
/// `number_too_long`, `bad_encoding`, `empty_matrix`, `too_large`, and the sink's.
pub fn read(path: &Path, options: ReadOptions, sink: &mut dyn Sink) -> Result<(), ApiError> {
    let separator = find_separator(path)?;
    let (rows, cols, element) = measure(path, separator, options)?;
    let dtype = element.dtype;
    check_shape(rows, cols, element)?;
    let mut out = RowWriter::new(sink, rows, cols, element)?;
    let mut fields = Fields::open(path, separator)?;
    let mut written = 0;
    while fields.advance()? {
        if !fields.blank_line() {
            // The file belongs to us, but a file that changes under us must not make us panic.
            let value = fields.value(dtype)?;
            if written == rows * cols || !number::fits(&value, element) {
                return Err(changed());
            }
            out.push(&value)?;
            written += 1;
        }
    }
    match written == rows * cols {
        true => Ok(()),
        false => Err(changed()),
    }
}

fn changed() -> ApiError {
    unprocessable(
        "ragged_csv",
        "the file changed while it was read",
        "try again when nothing writes to it",
    )
}

/// Rows, columns and the form of the elements.
fn measure(
    path: &Path,
    separator: Separator,
    options: ReadOptions,
) -> Result<(u64, u64, ElementType), ApiError> {
    let mut fields = Fields::open(path, separator)?;
    let (mut rows, mut cols, mut in_row) = (0u64, 0u64, 0u64);
    let mut width = Width::default();
    let mut digits = Digits::new(options.dtype.is_none() && options.keep_digits);
    let mut blank = None;
    while fields.advance()? {
        if fields.blank_line() {
            blank.get_or_insert(fields.line);
            continue;
        }
        if let Some(line) = blank {
            if rows > 0 {
                return Err(ragged(line, cols, 0, fields.separator));
            }
            blank = None;
        }
        if options.dtype == Some(Dtype::Int) {
            width.see(&fields.value(Dtype::Int)?);
        }
        digits.see(&fields.text);
        in_row += 1;
        if fields.ends_row {
            if rows == 0 {
                cols = in_row;
            } else if in_row != cols {
                return Err(ragged(fields.line, cols, in_row, fields.separator));
            }
            rows += 1;
            in_row = 0;
        }
    }
    let limbs = width.limbs().expect("each number is bounded");
    let element = match options.dtype {
        Some(dtype) => ElementType { dtype, limbs },
        None => digits.element(),
    };
    Ok((rows, cols, element))
}

fn ragged(line: u64, expected: u64, found: u64, separator: Separator) -> ApiError {
    unprocessable(
        "ragged_csv",
        format!(
            "line {line} has {found} field{}, the first has {expected}",
            if found == 1 { "" } else { "s" }
        ),
        format!(
            "every line needs the same number of fields, separated by {}",
            separator.name()
        ),
    )
}

/// What stands between fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Separator {
    /// This byte.
    Byte(u8),
    /// Any number of blanks and tabs.
    Blanks,
}

impl Separator {
    fn name(self) -> &'static str {
        match self {
            Separator::Byte(b';') => "semicolons",
            Separator::Byte(b'\t') => "tabs",
            Separator::Byte(_) => "commas",
            Separator::Blanks => "blanks",
        }
    }
}

/// The first of `;`, `,` and tab that stands outside quotes in the first line with numbers (of
/// which the first 64 KiB are looked at).
fn find_separator(path: &Path) -> Result<Separator, ApiError> {
    let reading = |error| io_error("reading the .csv file", &error);
    let mut start = Vec::new();
    File::open(path)
        .map_err(reading)?
        .take(64 << 10)
        .read_to_end(&mut start)
        .map_err(reading)?;
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") || start.contains(&0) {
        return Err(unprocessable(
            "bad_encoding",
            "the file is not plain text in UTF-8",
            "save it as UTF-8 (it may be UTF-16, or not a .csv file at all)",
        ));
    }
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
    let first = start
        .split(|&byte| byte == b'\n' || byte == b'\r')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b"#"))
        .unwrap_or(b"");
    let mut quoted = false;
    let bare: Vec<u8> = first
        .iter()
        .copied()
        .filter(|&byte| {
            quoted ^= byte == b'"';
            !quoted
        })
        .collect();
    let found = [b';', b',', b'\t']
        .into_iter()
        .find(|byte| bare.contains(byte));
    Ok(found.map_or(Separator::Blanks, Separator::Byte))
}

/// The fields of a file, one after the other.
struct Fields {
    file: File,
    separator: Separator,
    chunk: Vec<u8>,
    /// How much of `chunk` is read.
    at: usize,
    /// The line of the current field, from 1.
    line: u64,
    /// The current field's place in its line, from 1.
    column: u64,
    text: Vec<u8>,
    quoted: bool,
    /// The current field is the last of its line.
    ends_row: bool,
    next_line: u64,
}

impl Fields {
    fn open(path: &Path, separator: Separator) -> Result<Self, ApiError> {
        let file = File::open(path).map_err(|error| io_error("reading the .csv file", &error))?;
        let mut fields = Self {
            file,
            separator,
            chunk: Vec::new(),
            at: 0,
            line: 0,
            column: 0,
            text: Vec::new(),
            quoted: false,
            ends_row: true,
            next_line: 1,
        };
        fields.fill()?;
        if fields.chunk.starts_with(b"\xef\xbb\xbf") {
            fields.at = 3;
        }
        Ok(fields)
    }

    /// Goes to the next field; false at the end of the file. A line without any text is one blank
    /// field.
    fn advance(&mut self) -> Result<bool, ApiError> {
        if self.ends_row {
            loop {
                self.skip_blanks()?;
                if self.peek()? != Some(b'#') {
                    break;
                }
                while !matches!(self.take()?, None | Some(b'\n')) {}
                self.next_line += 1;
            }
            if self.peek()?.is_none() {
                return Ok(false);
            }
            self.line = self.next_line;
            self.column = 0;
        }
        self.column += 1;
        self.text.clear();
        self.quoted = false;
        self.ends_row = false;
        self.skip_blanks()?;
        if self.peek()? == Some(b'"') {
            self.quotes()?;
        }
        loop {
            match self.take()? {
                None => self.ends_row = true,
                Some(b'\n') => {
                    self.ends_row = true;
                    self.next_line += 1;
                }
                Some(byte) if self.separator == Separator::Byte(byte) => {}
                Some(b' ' | b'\t') if self.separator == Separator::Blanks => {
                    self.skip_blanks()?;
                    match self.peek()? {
                        None => self.ends_row = true,
                        Some(b'\n') => {
                            self.take()?;
                            self.ends_row = true;
                            self.next_line += 1;
                        }
                        Some(_) => {}
                    }
                }
                Some(byte) => {
                    self.add(byte)?;
                    continue;
                }
            }
            return Ok(true);
        }
    }

    /// The current line has no text.
    fn blank_line(&self) -> bool {
        self.ends_row && self.column == 1 && !self.quoted && self.text.trim_ascii().is_empty()
    }

    fn value(&self, dtype: Dtype) -> Result<Value, ApiError> {
        number::parse(&self.text, dtype).map_err(|error| {
            let place = format!("line {}, column {}", self.line, self.column);
            number_error(error, &place, &self.text)
        })
    }

    /// Takes what is within quotes; two quotes are one.
    fn quotes(&mut self) -> Result<(), ApiError> {
        self.quoted = true;
        self.take()?;
        while let Some(byte) = self.take()? {
            self.next_line += u64::from(byte == b'\n');
            if byte != b'"' {
                self.add(byte)?;
            } else if self.peek()? == Some(b'"') {
                self.take()?;
                self.add(b'"')?;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    fn add(&mut self, byte: u8) -> Result<(), ApiError> {
        if self.text.len() == NUMBER_BYTES_MAX {
            return Err(unprocessable(
                "number_too_long",
                format!(
                    "line {}, column {}: {} goes on for more than {NUMBER_BYTES_MAX} characters",
                    self.line,
                    self.column,
                    show(&self.text)
                ),
                "check that the file is made of lines of numbers",
            ));
        }
        self.text.push(byte);
        Ok(())
    }

    /// Skips blanks, and tabs where these do not separate.
    fn skip_blanks(&mut self) -> Result<(), ApiError> {
        loop {
            match self.peek()? {
                Some(b' ') => {}
                Some(b'\t') if self.separator != Separator::Byte(b'\t') => {}
                _ => return Ok(()),
            }
            self.take()?;
        }
    }

    /// The next byte, without taking it; all ends of lines are `\n`.
    fn peek(&mut self) -> Result<Option<u8>, ApiError> {
        if self.at == self.chunk.len() {
            self.fill()?;
        }
        Ok(self
            .chunk
            .get(self.at)
            .map(|&byte| if byte == b'\r' { b'\n' } else { byte }))
    }

    fn take(&mut self) -> Result<Option<u8>, ApiError> {
        let byte = self.peek()?;
        if byte.is_some() {
            let carriage = self.chunk[self.at] == b'\r';
            self.at += 1;
            if carriage {
                if self.at == self.chunk.len() {
                    self.fill()?;
                }
                self.at += usize::from(self.chunk.get(self.at) == Some(&b'\n'));
            }
        }
        Ok(byte)
    }

    /// Replaces the chunk, which was read to its end, by the next; an empty one at the end.
    fn fill(&mut self) -> Result<(), ApiError> {
        self.chunk.clear();
        self.at = 0;
        (&self.file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut self.chunk)
            .map_err(|error| io_error("reading the .csv file", &error))?;
        Ok(())
    }
}
