//! A small matrix in memory: what a reader finds, or what a writer is to write.

use std::convert::Infallible;

use gemmesh_protocol::matrix::{Dtype, ElementType, Manifest};
use gemmesh_protocol::tile::Rect;

use super::{Sink, Source, check_shape, number};
use crate::error::ApiError;

/// A matrix in memory, row-major and little-endian. It has no blocks.
#[derive(Debug, Clone)]
pub struct Memory {
    manifest: Manifest,
    bytes: Vec<u8>,
}

impl Default for Memory {
    /// Nothing yet: for a reader.
    fn default() -> Self {
        let element = ElementType {
            dtype: Dtype::F64,
            limbs: 1,
        };
        Self::of(0, 0, element, Vec::new())
    }
}

impl Memory {
    /// These elements.
    pub fn of(rows: u64, cols: u64, element: ElementType, bytes: Vec<u8>) -> Self {
        let bits = match element.dtype {
            Dtype::Int => number::magnitude_bits(&bytes, element.limbs),
            Dtype::F64 | Dtype::F32 | Dtype::Residues => 0,
        };
        Self {
            manifest: Manifest {
                element,
                bits,
                rows,
                cols,
                blocks: Vec::new(),
            },
            bytes,
        }
    }

    /// The elements.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The magnitude of the largest integer, known when all were written.
    pub fn measured(self) -> Self {
        let Manifest {
            rows,
            cols,
            element,
            ..
        } = self.manifest;
        Self::of(rows, cols, element, self.bytes)
    }
}

impl Sink for Memory {
    fn begin(&mut self, rows: u64, cols: u64, element: ElementType) -> Result<(), ApiError> {
        check_shape(rows, cols, element)?;
        let bytes = vec![0; (rows * cols * element.bytes()) as usize];
        self.manifest.rows = rows;
        self.manifest.cols = cols;
        self.manifest.element = element;
        self.bytes = bytes;
        Ok(())
    }

    fn write(&mut self, rect: Rect, bytes: &[u8]) -> Result<(), ApiError> {
        let element = self.manifest.element.bytes();
        let (stride, width) = (self.manifest.cols * element, rect.cols * element);
        for (row, line) in (rect.row..).zip(bytes.chunks_exact(width as usize)) {
            let at = (row * stride + rect.col * element) as usize;
            self.bytes[at..at + line.len()].copy_from_slice(line);
        }
        Ok(())
    }
}

impl Source for Memory {
    type Error = Infallible;

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn read(&mut self, rect: Rect, out: &mut Vec<u8>) -> Result<(), Infallible> {
        let element = self.manifest.element.bytes();
        let (stride, width) = (self.manifest.cols * element, rect.cols * element);
        out.clear();
        for row in rect.row..rect.row + rect.rows {
            let at = (row * stride + rect.col * element) as usize;
            out.extend_from_slice(&self.bytes[at..at + width as usize]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Format, ReadOptions, export, json};

    #[test]
    fn what_was_read_into_memory_is_written_from_there() {
        let value = serde_json::json!([[1, -5, 3], [4, 5, 6]]);
        let options = ReadOptions {
            dtype: Some(Dtype::Int),
            keep_digits: false,
        };
        let mut memory = Memory::default();
        json::read(&value, options, &mut memory).expect("it is right");
        let mut memory = memory.measured();
        assert_eq!(memory.manifest().bits, 3);
        let Ok(checked) = export::check(&mut memory, Format::Csv);
        checked.expect("it can be written");
        let Ok(mut export) =
            export::Export::new(memory, Format::Csv, super::super::pieces::Piece::alone());
        let mut text = Vec::new();
        while let Ok(Some(piece)) = export.next_bytes() {
            text.extend(piece);
        }
        assert_eq!(text, b"1,-5,3\n4,5,6\n");
    }
}
