//! Readers and writers against a matrix in memory.

mod others;
mod random;
mod refused;
mod written;

use std::path::PathBuf;

use gemmesh_protocol::matrix::{Dtype, ElementType, Manifest};
use gemmesh_protocol::tile::Rect;

use super::export::{self, Export};
use super::number::{self, Value, Width};
use super::pieces::Pieces;
use super::{Format, ReadOptions, Sink, Source, check_shape, json, read};
use crate::error::ApiError;

const MEMORY: u64 = 64 << 20;

/// A matrix in memory, row-major.
#[derive(Debug, Clone)]
struct Memory {
    manifest: Manifest,
    bytes: Vec<u8>,
}

/// Equal but for the payload of NaN.
impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        let canonical = |value: Value| match value {
            Value::F64(value) if value.is_nan() => Value::Int(i64::MIN),
            Value::F32(value) if value.is_nan() => Value::Int(i64::MIN),
            Value::F64(value) => Value::Int(value.to_bits() as i64),
            Value::F32(value) => Value::Int(i64::from(value.to_bits())),
            value => value,
        };
        self.manifest == other.manifest
            && self
                .values()
                .into_iter()
                .map(canonical)
                .eq(other.values().into_iter().map(canonical))
    }
}

impl Memory {
    fn empty() -> Self {
        let element = ElementType {
            dtype: Dtype::F64,
            limbs: 1,
        };
        let manifest = Manifest {
            element,
            bits: 0,
            rows: 0,
            cols: 0,
            blocks: vec![],
        };
        Self {
            manifest,
            bytes: vec![],
        }
    }

    fn of(rows: u64, cols: u64, dtype: Dtype, values: Vec<Value>) -> Self {
        let mut width = Width::default();
        if dtype == Dtype::Int {
            values.iter().for_each(|value| width.see(value));
        }
        let limbs = width.limbs().unwrap();
        let mut matrix = Self::empty();
        matrix
            .begin(rows, cols, ElementType { dtype, limbs })
            .unwrap();
        matrix.bytes.clear();
        values
            .iter()
            .for_each(|value| number::encode(value, matrix.manifest.element, &mut matrix.bytes));
        matrix.measure();
        matrix
    }

    fn measure(&mut self) {
        if self.manifest.element.dtype == Dtype::Int {
            self.manifest.bits = number::magnitude_bits(&self.bytes, self.manifest.element.limbs);
        }
    }

    fn values(&self) -> Vec<Value> {
        let element = self.manifest.element;
        self.bytes
            .chunks_exact(element.bytes() as usize)
            .map(|bytes| number::decode(bytes, element))
            .collect()
    }

    /// The place of a line of `rect`.
    fn line(&self, rect: Rect, row: u64) -> std::ops::Range<usize> {
        let element = self.manifest.element.bytes();
        let start = ((rect.row + row) * self.manifest.cols + rect.col) * element;
        start as usize..(start + rect.cols * element) as usize
    }
}

impl Sink for Memory {
    fn begin(&mut self, rows: u64, cols: u64, element: ElementType) -> Result<(), ApiError> {
        check_shape(rows, cols, element)?;
        assert!(self.bytes.is_empty(), "announced once");
        let bytes = rows * cols * element.bytes();
        if bytes > 64 << 20 {
            return Err(ApiError::new(
                413,
                "too_large",
                "the budget of a test",
                "ask for less",
            ));
        }
        self.manifest = Manifest {
            element,
            bits: 0,
            rows,
            cols,
            blocks: vec![],
        };
        self.bytes = vec![0; bytes as usize];
        Ok(())
    }

    fn write(&mut self, rect: Rect, bytes: &[u8]) -> Result<(), ApiError> {
        let width = (rect.cols * self.manifest.element.bytes()) as usize;
        assert_eq!(bytes.len(), rect.rows as usize * width);
        for (row, line) in (0..).zip(bytes.chunks_exact(width)) {
            let range = self.line(rect, row);
            self.bytes[range].copy_from_slice(line);
        }
        Ok(())
    }
}

impl Source for Memory {
    type Error = std::convert::Infallible;

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn read(&mut self, rect: Rect, out: &mut Vec<u8>) -> Result<(), Self::Error> {
        out.clear();
        for row in 0..rect.rows {
            out.extend_from_slice(&self.bytes[self.line(rect, row)]);
        }
        Ok(())
    }
}

fn floats<const N: usize>(rows: &[[f64; N]]) -> Memory {
    let values = rows
        .iter()
        .flatten()
        .map(|&value| Value::F64(value))
        .collect();
    Memory::of(rows.len() as u64, N as u64, Dtype::F64, values)
}

fn integers<const N: usize>(rows: &[[&str; N]]) -> Memory {
    let parse = |text: &&str| number::parse(text.as_bytes(), Dtype::Int).unwrap();
    Memory::of(
        rows.len() as u64,
        N as u64,
        Dtype::Int,
        rows.iter().flatten().map(parse).collect(),
    )
}

fn npy_file(version: u8, header: &str) -> Vec<u8> {
    let mut bytes = vec![0x93, b'N', b'U', b'M', b'P', b'Y', version, 0];
    match version {
        1 => bytes.extend_from_slice(&(header.len() as u16).to_le_bytes()),
        _ => bytes.extend_from_slice(&(header.len() as u32).to_le_bytes()),
    }
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

/// A file in C order with `count` zero bytes of elements.
fn npy_array(descr: &str, shape: &str, count: usize) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [npy_file(1, &header), vec![0; count]].concat()
}

fn temporary(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("matrix");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn read_bytes(
    format: Format,
    bytes: &[u8],
    dtype: Option<Dtype>,
    memory: u64,
) -> Result<Memory, ApiError> {
    read_with(
        format,
        bytes,
        ReadOptions {
            dtype,
            keep_digits: false,
        },
        memory,
    )
}

fn read_with(
    format: Format,
    bytes: &[u8],
    options: ReadOptions,
    memory: u64,
) -> Result<Memory, ApiError> {
    let (_dir, path) = temporary(bytes);
    let mut sink = Memory::empty();
    read(&path, format, options, memory, &mut sink)?;
    sink.measure();
    Ok(sink)
}

fn check(format: Format, bytes: &[u8], dtype: Option<Dtype>, expected: Memory) {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    let found = read_bytes(format, bytes, dtype, MEMORY);
    assert_eq!(found.as_ref(), Ok(&expected), "{shown:?}");
}

fn write(matrix: Memory, format: Format) -> Vec<u8> {
    let piece = Pieces::new(64 << 20).take(export::pieces_held(format));
    let mut export = Export::new(matrix, format, piece).unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = export.next_bytes().unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

fn text(matrix: &Memory, format: Format) -> String {
    let text = String::from_utf8(write(matrix.clone(), format)).unwrap();
    if format == Format::Json {
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let mut read = Memory::empty();
        json::read(&value, ReadOptions::default(), &mut read).unwrap();
        read.measure();
        assert_eq!(&read, matrix, "read back with its own dtype");
    }
    text
}
