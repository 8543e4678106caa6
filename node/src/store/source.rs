//! Reads a stored matrix by rectangles; each block's hash is checked before its bytes are used.

use std::fs::File;
use std::sync::Arc;

use gemmesh_protocol::id::{BlockId, MatrixId};
use gemmesh_protocol::matrix::{Grid, Manifest};
use gemmesh_protocol::tile::Rect;

use super::{Missing, StoreError};
use crate::files::{Source, pio};

/// A matrix and its open file, which outlives the matrix's removal.
pub(crate) struct MatrixFile {
    pub(crate) id: MatrixId,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) file: Arc<File>,
    grid: Grid,
    /// Blocks whose hash was checked.
    checked: Vec<bool>,
}

impl MatrixFile {
    pub(crate) fn new(id: MatrixId, manifest: Arc<Manifest>, file: Arc<File>) -> Self {
        Self {
            id,
            grid: manifest.grid(),
            checked: vec![false; manifest.blocks.len()],
            manifest,
            file,
        }
    }

    pub(crate) fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Replaces `bytes` by block `index`, its hash checked.
    pub(crate) fn read_block(&self, index: u64, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        bytes.clear();
        self.append_block(index, bytes)
    }

    /// Adds block `index`, its hash checked, to `bytes`.
    pub(crate) fn append_block(&self, index: u64, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        let (start, len) = (bytes.len(), self.grid.block_bytes(index) as usize);
        let corrupt = |why: String| StoreError::Missing {
            what: format!("the matrix {}", self.id),
            missing: Missing::Corrupt(why),
        };
        let read = pio::append_at(&self.file, bytes, len, self.grid.offset(index));
        read.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                corrupt(format!("block {index} is not in its file"))
            }
            _ => StoreError::io("reading a matrix", error),
        })?;
        match BlockId::of(&bytes[start..]) == self.manifest.blocks[index as usize] {
            true => Ok(()),
            false => Err(corrupt(format!("block {index} does not have its hash"))),
        }
    }
}

impl Source for MatrixFile {
    type Error = StoreError;

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn read(&mut self, rect: Rect, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let element = self.manifest.element.bytes() as usize;
        let stride = rect.cols as usize * element;
        out.clear();
        out.resize(rect.rows as usize * stride, 0);
        // Not kept: whoever takes a file slowly holds no more than its piece.
        let mut block = Vec::new();
        for part in self.grid.parts(rect) {
            let index = u64::from(part.index);
            let width = part.cols as usize * element;
            let block_width = part.block_cols as usize * element;
            let in_block = |row: usize| {
                (part.src_row as usize + row) * block_width + part.src_col as usize * element
            };
            let whole =
                u64::from(part.rows) == self.grid.rect(index).rows && part.cols == part.block_cols;
            let from_block = whole || !self.checked[part.index as usize];
            if from_block {
                self.read_block(index, &mut block)?;
                self.checked[part.index as usize] = true;
            }
            for row in 0..part.rows as usize {
                let at = (part.dst_row as usize + row) * stride + part.dst_col as usize * element;
                let line = &mut out[at..at + width];
                if from_block {
                    line.copy_from_slice(&block[in_block(row)..in_block(row) + width]);
                } else {
                    let offset = self.grid.offset(index) + in_block(row) as u64;
                    pio::read_at(&self.file, line, offset)
                        .map_err(|error| StoreError::io("reading a matrix", error))?;
                }
            }
        }
        Ok(())
    }
}
