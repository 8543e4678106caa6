//! A matrix being written: blocks are hashed as they come; the manifest is made at the end.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gemmesh_protocol::id::BlockId;
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::tile::Rect;

use super::StoreError;
use super::budget::{Budget, Reservation};
use super::layout::Directory;
use crate::error::ApiError;
use crate::files::{Sink, check_shape, number, pio};

/// What is known of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was written: all zero.
    Untouched,
    /// A part was written, or all of it in parts.
    Partial,
    /// Written at once.
    Whole(BlockId),
}

/// A file on its way to become a matrix; removed when dropped before.
pub(crate) struct Draft {
    directory: Arc<Directory>,
    budget: Arc<Budget>,
    cancelled: Arc<AtomicBool>,
    open: Option<Open>,
}

struct Open {
    name: String,
    file: File,
    rows: u64,
    cols: u64,
    element: ElementType,
    grid: Grid,
    blocks: Vec<State>,
    bits: u32,
    reservation: Reservation,
}

/// A matrix whose bytes are durable, and whose row is not yet; its file is removed when it is
/// dropped before [`Finished::keep`].
pub(crate) struct Finished {
    pub(crate) manifest: Manifest,
    directory: Arc<Directory>,
    file: Option<(String, Reservation)>,
}

impl Finished {
    /// The name of its file.
    pub(crate) fn name(&self) -> &str {
        &self.file.as_ref().expect("not kept yet").0
    }

    /// Leaves the file where it is.
    pub(crate) fn keep(mut self) -> (Manifest, String, Reservation) {
        let (name, reservation) = self.file.take().expect("kept once");
        (self.manifest.clone(), name, reservation)
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if let Some((name, _)) = self.file.take() {
            self.directory.remove(&name);
        }
    }
}

impl Draft {
    pub(crate) fn new(
        directory: Arc<Directory>,
        budget: Arc<Budget>,
        cancelled: Arc<AtomicBool>,
    ) -> Self {
        Self {
            directory,
            budget,
            cancelled,
            open: None,
        }
    }

    /// Hashes what was not written in whole blocks, makes all bytes durable.
    ///
    /// # Panics
    /// When nothing was announced.
    pub(crate) fn finish(mut self) -> Result<Finished, StoreError> {
        let doing = |error| StoreError::io("writing a matrix", error);
        let open = self.open.as_mut().expect("a reader announces the matrix");
        let mut ids = Vec::with_capacity(open.blocks.len());
        let mut bytes = Vec::new();
        let mut zero: Option<(u64, BlockId)> = None;
        for (index, state) in (0..).zip(&open.blocks) {
            let len = open.grid.block_bytes(index);
            ids.push(match *state {
                State::Whole(id) => id,
                State::Untouched => match zero {
                    Some((zero_len, id)) if zero_len == len => id,
                    _ => {
                        let id = BlockId::of(&vec![0; len as usize]);
                        zero = Some((len, id));
                        id
                    }
                },
                State::Partial => {
                    bytes.resize(len as usize, 0);
                    pio::read_at(&open.file, &mut bytes, open.grid.offset(index)).map_err(doing)?;
                    BlockId::of(&bytes)
                }
            });
        }
        open.file.sync_all().map_err(doing)?;
        self.directory.sync().map_err(doing)?;
        let open = self.open.take().expect("it was there");
        Ok(Finished {
            manifest: Manifest {
                element: open.element,
                bits: open.bits,
                rows: open.rows,
                cols: open.cols,
                blocks: ids,
            },
            directory: self.directory.clone(),
            file: Some((open.name, open.reservation)),
        })
    }

    /// Writes block `index` whole.
    pub(crate) fn write_block(&mut self, index: u64, bytes: &[u8]) -> Result<BlockId, StoreError> {
        let open = self.open.as_mut().expect("a matrix was announced");
        let id = BlockId::of(bytes);
        pio::write_at(&open.file, bytes, open.grid.offset(index))
            .map_err(|error| StoreError::io("writing a matrix", error))?;
        open.blocks[index as usize] = State::Whole(id);
        open.see(bytes);
        Ok(id)
    }

    /// Begins the file of a matrix.
    pub(crate) fn announce(
        &mut self,
        rows: u64,
        cols: u64,
        element: ElementType,
    ) -> Result<(), ApiError> {
        check_shape(rows, cols, element)?;
        assert!(self.open.is_none(), "a matrix is announced once");
        let bytes = rows * cols * element.bytes();
        let grid = Grid::new(rows, cols, element);
        let reservation = self.budget.reserve(bytes)?;
        let (name, file) = self.directory.new_file("matrix")?;
        let open = self.open.insert(Open {
            name,
            file,
            rows,
            cols,
            element,
            grid,
            blocks: vec![State::Untouched; grid.len() as usize],
            bits: 0,
            reservation,
        });
        open.file
            .set_len(bytes)
            .map_err(|error| StoreError::io("writing a matrix", error))?;
        Ok(())
    }
}

impl Open {
    fn see(&mut self, bytes: &[u8]) {
        if self.element.dtype == Dtype::Int {
            self.bits = self
                .bits
                .max(number::magnitude_bits(bytes, self.element.limbs));
        }
    }
}

impl Sink for Draft {
    fn begin(&mut self, rows: u64, cols: u64, element: ElementType) -> Result<(), ApiError> {
        self.announce(rows, cols, element)
    }

    fn write(&mut self, rect: Rect, bytes: &[u8]) -> Result<(), ApiError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(StoreError::Closed.into());
        }
        let doing = |error| StoreError::io("writing a matrix", error);
        let open = self.open.as_mut().expect("a matrix is announced first");
        open.see(bytes);
        let element = open.element.bytes() as usize;
        let stride = rect.cols as usize * element;
        let mut block_bytes = Vec::new();
        for part in open.grid.parts(rect) {
            let index = u64::from(part.index);
            let block = open.grid.rect(index);
            let offset = open.grid.offset(index);
            let (left, width) = (
                part.dst_col as usize * element,
                part.cols as usize * element,
            );
            let line = |row: usize| {
                let at = (part.dst_row as usize + row) * stride + left;
                &bytes[at..at + width]
            };
            if u64::from(part.cols) == block.cols {
                // Whole rows of a block lie one after the other in the file.
                block_bytes.clear();
                for row in 0..part.rows as usize {
                    block_bytes.extend_from_slice(line(row));
                }
                let offset = offset + u64::from(part.src_row) * width as u64;
                pio::write_at(&open.file, &block_bytes, offset).map_err(doing)?;
                open.blocks[part.index as usize] = match u64::from(part.rows) == block.rows {
                    true => State::Whole(BlockId::of(&block_bytes)),
                    false => State::Partial,
                };
            } else {
                for row in 0..part.rows as usize {
                    let in_block = (u64::from(part.src_row) + row as u64) * block.cols
                        + u64::from(part.src_col);
                    let offset = offset + in_block * element as u64;
                    pio::write_at(&open.file, line(row), offset).map_err(doing)?;
                }
                open.blocks[part.index as usize] = State::Partial;
            }
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            drop(open.file);
            self.directory.remove(&open.name);
        }
    }
}
