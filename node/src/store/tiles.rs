//! Tiles on their way to the disk: cut into blocks and hashed by the caller's thread, then
//! written in groups (`group`) by the store's one writer; and back.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use gemmesh_protocol::id::{BlockId, JobId};
use gemmesh_protocol::io::DoneTile;
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid};
use gemmesh_protocol::message::DeviceRecord;
use gemmesh_protocol::tile::Tiling;
use rusqlite::{Connection, Transaction, params};
use tokio::sync::oneshot;

use super::layout::Directory;
use super::{Missing, StoreError, lock, pack};
use crate::files::{number, pio};
use crate::memory::Part;
use crate::os::wall;

/// The file that takes the tiles of a job: C, laid out by its grid.
#[derive(Debug)]
pub(crate) struct ResultFile {
    pub(crate) job: JobId,
    pub(crate) tiling: Tiling,
    pub(crate) element: ElementType,
    pub(crate) file: File,
    pub(crate) name: String,
    pub(crate) directory: Arc<Directory>,
    /// Tiles that are durable, with their digests.
    pub(crate) done: Mutex<BTreeMap<u32, BlockId>>,
    /// The file's name is durable.
    pub(crate) named: AtomicBool,
    pub(crate) counters: Arc<Counters>,
}

/// What the writer has done, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) tiles: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) tile_bytes: AtomicU64,
    /// Nanoseconds with files of results, and with all else.
    pub(crate) files: AtomicU64,
    pub(crate) database: AtomicU64,
}

impl Counters {
    /// Does `work` on files of results.
    pub(crate) fn with_files<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        let nanos = began.elapsed().as_nanos() as u64;
        self.files.fetch_add(nanos, Ordering::Relaxed);
        result
    }

    /// Does `work` as the writer; what it does in [`Counters::with_files`] is not the database's.
    pub(crate) fn as_writer<T>(&self, work: impl FnOnce() -> T) -> T {
        let (began, files) = (Instant::now(), self.files.load(Ordering::Relaxed));
        let result = work();
        let files = self.files.load(Ordering::Relaxed) - files;
        let nanos = (began.elapsed().as_nanos() as u64).saturating_sub(files);
        self.database.fetch_add(nanos, Ordering::Relaxed);
        result
    }
}

impl ResultFile {
    pub(crate) fn grid(&self) -> Grid {
        Grid::new(self.tiling.rows, self.tiling.cols, self.element)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.tiling.rows * self.tiling.cols * self.element.bytes()
    }

    /// A tile's bytes, row-major. `hashes` are those of its blocks, which are checked.
    pub(crate) fn read_tile(&self, tile: u32, hashes: &[u8]) -> Result<Vec<u8>, StoreError> {
        let corrupt = |why: String| StoreError::Missing {
            what: format!("tile {tile} of job {}", self.job),
            missing: Missing::Corrupt(why),
        };
        let rect = self.tiling.rect(u64::from(tile));
        let element = self.element.bytes() as usize;
        let stride = rect.cols as usize * element;
        let mut bytes = vec![0; rect.rows as usize * stride];
        let (grid, mut block) = (self.grid(), Vec::new());
        let parts = grid.parts(rect);
        let (hashes, rest) = hashes.as_chunks::<32>();
        if hashes.len() != parts.len() || !rest.is_empty() {
            return Err(corrupt("the hashes of its blocks are not known".to_owned()));
        }
        for (part, hash) in parts.iter().zip(hashes) {
            let index = u64::from(part.index);
            block.resize(grid.block_bytes(index) as usize, 0);
            pio::read_at(&self.file, &mut block, grid.offset(index)).map_err(
                |error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => {
                        corrupt(format!("block {index} is not in its file"))
                    }
                    _ => StoreError::io("reading a tile", error),
                },
            )?;
            if BlockId::of(&block).0 != *hash {
                return Err(corrupt(format!("block {index} does not have its hash")));
            }
            let left = part.dst_col as usize * element;
            let width = part.cols as usize * element;
            for (row, line) in (part.dst_row as usize..).zip(block.chunks_exact(width)) {
                let at = row * stride + left;
                bytes[at..at + width].copy_from_slice(line);
            }
        }
        Ok(bytes)
    }
}

/// A tile cut into blocks.
pub(crate) struct TileWrite {
    pub(crate) file: Arc<ResultFile>,
    pub(crate) done: DoneTile,
    pub(crate) contributor: Option<DeviceRecord>,
    /// Neighbouring blocks of a row of the grid follow each other in the file.
    runs: Vec<(u64, Vec<u8>)>,
    /// The hashes of the tile's blocks, in the order of `Grid::parts`.
    pub(crate) hashes: Vec<u8>,
    /// The hash of `hashes`.
    pub(crate) digest: BlockId,
    /// Replaces other bytes that are here.
    pub(crate) replaces: bool,
    pub(crate) bits: u32,
    /// What its bytes take of the memory.
    _room: Part,
    answer: oneshot::Sender<Result<BlockId, StoreError>>,
}

impl TileWrite {
    /// Cuts a row-major tile into blocks and hashes them. Cost: two passes over its bytes.
    pub(crate) fn new(
        file: Arc<ResultFile>,
        (done, contributor): (DoneTile, Option<DeviceRecord>),
        replaces: bool,
        bytes: &Bytes,
        room: Part,
        answer: oneshot::Sender<Result<BlockId, StoreError>>,
    ) -> Result<Self, StoreError> {
        let bad = |what| StoreError::BadTile {
            job: file.job,
            tile: done.tile,
            what,
        };
        if u64::from(done.tile) >= file.tiling.len() {
            return Err(bad("there is no such tile"));
        }
        let rect = file.tiling.rect(u64::from(done.tile));
        let element = file.element.bytes() as usize;
        if bytes.len() as u64 != rect.rows * rect.cols * element as u64 {
            return Err(bad("it has the wrong number of bytes"));
        }
        let grid = file.grid();
        let stride = rect.cols as usize * element;
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut hashes = Vec::new();
        for part in grid.parts(rect) {
            let index = u64::from(part.index);
            let block = grid.rect(index);
            assert!(
                (block.rows, block.cols) == (u64::from(part.rows), u64::from(part.cols)),
                "tiles are made of whole blocks"
            );
            let offset = grid.offset(index);
            match runs.last_mut() {
                Some((start, run)) if *start + run.len() as u64 == offset => {}
                _ => {
                    let band = part.rows as usize * stride;
                    runs.push((offset, Vec::with_capacity(band)));
                }
            }
            let run = &mut runs.last_mut().expect("just pushed").1;
            let start = run.len();
            let (left, width) = (
                part.dst_col as usize * element,
                part.cols as usize * element,
            );
            for row in part.dst_row..part.dst_row + part.rows {
                let at = row as usize * stride + left;
                run.extend_from_slice(&bytes[at..at + width]);
            }
            hashes.extend_from_slice(&BlockId::of(&run[start..]).0);
        }
        let bits = match file.element.dtype {
            Dtype::Int => number::magnitude_bits(bytes, file.element.limbs),
            Dtype::F64 | Dtype::F32 | Dtype::Residues => 0,
        };
        Ok(Self {
            file,
            done,
            contributor,
            runs,
            digest: BlockId::of(&hashes),
            hashes,
            replaces,
            bits,
            _room: room,
            answer,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.runs.iter().map(|(_, run)| run.len()).sum()
    }

    pub(crate) fn write(&self) -> Result<(), StoreError> {
        for (offset, run) in &self.runs {
            pio::write_at(&self.file.file, run, *offset)
                .map_err(|error| StoreError::io("writing a tile", error))?;
            let counters = &self.file.counters;
            counters
                .tile_bytes
                .fetch_add(run.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The digest of the bytes that are durable.
    pub(crate) fn durable(&self) -> Option<BlockId> {
        lock(&self.file.done).get(&self.done.tile).copied()
    }

    /// Whether both are the same tile of the same job.
    pub(crate) fn is_twin(&self, other: &TileWrite) -> bool {
        Arc::ptr_eq(&other.file, &self.file) && other.done.tile == self.done.tile
    }

    /// The tile and its record are durable.
    pub(crate) fn succeed(self) {
        lock(&self.file.done).insert(self.done.tile, self.digest);
        self.file.counters.tiles.fetch_add(1, Ordering::Relaxed);
        let digest = self.digest;
        self.answer(Ok(digest));
    }

    pub(crate) fn answer(self, result: Result<BlockId, StoreError>) {
        // Whoever asked may have gone; the tile is durable all the same.
        let _ = self.answer.send(result);
    }

    /// Makes the bytes durable; the file's name may not be yet.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        sync(&self.file)
    }

    /// Records the tile, of a job that is here.
    pub(crate) fn record(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO tiles (job, tile, device, work, hashes, bits, digest, at_ms)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM jobs WHERE job = ?1)",
        )?;
        let (job, done) = (&self.file.job.0[..], &self.done);
        insert.execute(params![
            job,
            done.tile,
            &done.device.0[..],
            pack(&done.work),
            self.hashes,
            self.bits,
            &self.digest.0[..],
            wall().0 as i64
        ])?;
        match &self.contributor {
            Some(record) => contributor(transaction, self.file.job, record),
            None => Ok(()),
        }
    }
}

/// Keeps with a job who computes for it.
pub(crate) fn contributor(
    connection: &Connection,
    job: JobId,
    record: &DeviceRecord,
) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO contributors (job, device, record)
         SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM jobs WHERE job = ?1)
         ON CONFLICT (job, device) DO UPDATE SET record = excluded.record",
    )?;
    insert.execute(params![&job.0[..], &record.device.0[..], pack(record)])?;
    Ok(())
}

fn sync(file: &ResultFile) -> Result<(), StoreError> {
    let doing = |error| StoreError::io("making a tile durable", error);
    file.counters.syncs.fetch_add(1, Ordering::Relaxed);
    file.file.sync_data().map_err(doing)
}
