//! Stacks of matrices: many written as one, and single ones read out of it.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use gemmesh_protocol::id::{Epoch, JobId, MatrixId};
use gemmesh_protocol::matrix::{ElementType, Manifest};
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::tile::Rect;

use rusqlite::Connection;

use super::changes::Created;
use super::source::MatrixFile;
use super::{Missing, Shared, Store, StoreError, blocking, lock};
use crate::error::ApiError;
use crate::files::memory::Memory;
use crate::files::{PIECE_BYTES, Sink as _, Source as _};
use crate::os::wall;

/// A matrix that is to be part of a stack.
#[derive(Debug, Clone)]
pub enum Piece {
    /// These rows of a stored one.
    Stored(MatrixId, Range<u64>),
    /// One in memory.
    Values(Arc<Memory>),
}

/// A stack, and the pieces that could not be read: in their places are zeros.
#[derive(Debug)]
pub struct Stacked {
    /// The stack.
    pub manifest: Manifest,
    /// Which pieces, and why.
    pub failed: Vec<(usize, StoreError)>,
}

/// Where a piece is read from.
enum From {
    File(Arc<Manifest>, std::path::PathBuf, Range<u64>),
    Values(Arc<Memory>),
    Nowhere(StoreError),
}

impl Store {
    /// Writes matrices of `rows` × `cols` one below the other. Durable on return. Cost: one pass.
    /// Memory: a few pieces of 4 MiB.
    ///
    /// # Errors
    /// With the codes of this module. A piece that can not be read is no error.
    ///
    /// # Panics
    /// When a piece is not of that shape and element type.
    pub async fn stack(
        &self,
        pieces: Vec<Piece>,
        (rows, cols): (u64, u64),
        element: ElementType,
    ) -> Result<Stacked, ApiError> {
        let sources: Vec<(Option<MatrixId>, From)> = pieces
            .into_iter()
            .map(|piece| match piece {
                Piece::Stored(id, range) => (Some(id), self.place(id, range)),
                Piece::Values(values) => (None, From::Values(values)),
            })
            .collect();
        let shared = self.shared().clone();
        let (answer, failed) = std::sync::mpsc::channel();
        let manifest = self.draft(move |draft| {
            let count = sources.len() as u64;
            draft.begin(count * rows, cols, element)?;
            let mut opened: Option<(MatrixId, MatrixFile)> = None;
            let (mut band, mut first, mut next) = (Vec::new(), 0, 0);
            let mut some = Vec::new();
            let row_bytes = cols * element.bytes();
            let at_once = (PIECE_BYTES / row_bytes).max(1);
            for (n, (id, mut source)) in sources.into_iter().enumerate() {
                for row in (0..rows).step_by(at_once as usize) {
                    let count_here = at_once.min(rows - row);
                    let read = match (&source, id) {
                        (From::Values(values), _) => {
                            assert_eq!(values.bytes().len() as u64, rows * row_bytes);
                            let from = (row * row_bytes) as usize;
                            some.clear();
                            some.extend_from_slice(
                                &values.bytes()[from..from + (count_here * row_bytes) as usize],
                            );
                            Ok(())
                        }
                        (From::File(manifest, path, range), Some(id)) => {
                            assert_eq!((range.end - range.start, manifest.cols), (rows, cols));
                            assert_eq!(manifest.element, element, "converted before");
                            let rect = Rect {
                                row: range.start + row,
                                col: 0,
                                rows: count_here,
                                cols,
                            };
                            let same = opened.take().filter(|(open, _)| *open == id);
                            let file = match same {
                                Some((_, file)) => Ok(file),
                                None => File::open(path)
                                    .map(|file| {
                                        MatrixFile::new(id, manifest.clone(), Arc::new(file))
                                    })
                                    .map_err(|error| StoreError::io("opening a matrix", error)),
                            };
                            file.and_then(|mut file| {
                                let read = file.read(rect, &mut some);
                                opened = Some((id, file));
                                read.map_err(|error| shared.noticed(id, error))
                            })
                        }
                        (From::Nowhere(_), _) | (From::File(..), None) => Ok(()),
                    };
                    if let Err(error) = read {
                        source = From::Nowhere(error);
                    }
                    if let From::Nowhere(_) = source {
                        some.clear();
                        some.resize((count_here * row_bytes) as usize, 0);
                    }
                    band.extend_from_slice(&some);
                    next += count_here;
                    if band.len() as u64 >= PIECE_BYTES || next == count * rows {
                        let rect = Rect {
                            row: first,
                            col: 0,
                            rows: next - first,
                            cols,
                        };
                        draft.write(rect, &band)?;
                        band.clear();
                        first = next;
                    }
                }
                if let From::Nowhere(error) = source {
                    // The other end waits below.
                    let _ = answer.send((n, error));
                }
            }
            Ok(())
        });
        let manifest = manifest.await?;
        let failed = failed.into_iter().collect();
        Ok(Stacked { manifest, failed })
    }

    fn place(&self, id: MatrixId, range: Range<u64>) -> From {
        let mut catalog = lock(&self.shared().catalog);
        match catalog.touch(id, wall()) {
            Ok(entry) => {
                let path = self.shared().blocks.file(&entry.file);
                From::File(entry.manifest.clone(), path, range)
            }
            Err(missing) => From::Nowhere(StoreError::Missing {
                what: format!("the matrix {id}"),
                missing,
            }),
        }
    }

    /// These rows of a matrix, all columns.
    ///
    /// # Errors
    /// [`StoreError::Missing`], also when a block is damaged, or the system's.
    pub async fn read_rows(&self, id: MatrixId, rows: Range<u64>) -> Result<Memory, StoreError> {
        let mut source = self.file(id).await?;
        let shared = self.shared().clone();
        blocking(move || {
            let (cols, element) = (source.manifest.cols, source.manifest.element);
            let rect = Rect {
                row: rows.start,
                col: 0,
                rows: rows.end - rows.start,
                cols,
            };
            let mut bytes = Vec::new();
            source
                .read(rect, &mut bytes)
                .map_err(|error| shared.noticed(id, error))?;
            Ok(Memory::of(rect.rows, cols, element, bytes))
        })
        .await
    }

    /// These rows of the result of a job that runs, if all tiles that have a part of them are durable
    /// here.
    ///
    /// # Errors
    /// The system's, or a tile that is damaged.
    pub async fn read_result_rows(
        &self,
        job: JobId,
        rows: Range<u64>,
    ) -> Result<Option<Memory>, StoreError> {
        let (tiling, element) = {
            let catalog = lock(&self.shared().catalog);
            match catalog.jobs.get(&job) {
                Some(entry) => (entry.tiling, entry.element),
                None => return Ok(None),
            }
        };
        let (cols, width) = (tiling.cols, element.bytes());
        let mut bytes = vec![0; ((rows.end - rows.start) * cols * width) as usize];
        let last = (rows.end - 1) / tiling.tile_rows;
        let tiles =
            rows.start / tiling.tile_rows * tiling.grid_cols()..(last + 1) * tiling.grid_cols();
        for tile in tiles {
            let there = match self.read_tile(job, tile as u32).await {
                Ok(there) => there,
                Err(StoreError::Missing {
                    missing: Missing::Unknown,
                    ..
                }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let rect = tiling.rect(tile);
            let line = (rect.cols * width) as usize;
            for (row, from) in (rect.row..).zip(there.chunks_exact(line)) {
                if rows.contains(&row) {
                    let at = (((row - rows.start) * cols + rect.col) * width) as usize;
                    bytes[at..at + line].copy_from_slice(from);
                }
            }
        }
        Ok(Some(Memory::of(
            rows.end - rows.start,
            cols,
            element,
            bytes,
        )))
    }

    /// Takes several jobs, all or none, as [`Store::insert_job`].
    ///
    /// # Errors
    /// As for one.
    pub async fn insert_jobs(&self, jobs: Vec<Taken>, epoch: Epoch) -> Result<(), StoreError> {
        let shared = self.shared().clone();
        self.inner
            .writer
            .step(
                {
                    let shared = shared.clone();
                    move |connection| {
                        let create = |taken| create(&shared, connection, taken, epoch);
                        jobs.iter().map(create).collect::<Result<Vec<_>, _>>()
                    }
                },
                move |created| {
                    created
                        .into_iter()
                        .for_each(|created| created.keep(&shared));
                    Ok(())
                },
            )
            .await
    }
}

/// Writes the row of a job whose operands are here.
pub(super) fn create(
    shared: &Arc<Shared>,
    connection: &Connection,
    taken: &Taken,
    epoch: Epoch,
) -> Result<Created, StoreError> {
    for operand in [taken.header.a.id(), taken.header.b.id()] {
        lock(&shared.catalog)
            .touch(operand, wall())
            .map_err(|missing| StoreError::Missing {
                what: format!("the matrix {operand}"),
                missing,
            })?;
    }
    Created::new(shared, connection, taken, epoch)
}
