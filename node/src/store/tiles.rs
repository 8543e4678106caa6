//! Tiles on their way to the disk: cut into blocks and hashed by the caller's thread, then
//! written in groups by the store's one writer.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gemmesh_protocol::id::{BlockId, JobId};
use gemmesh_protocol::io::DoneTile;
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid};
use gemmesh_protocol::message::DeviceRecord;
use gemmesh_protocol::tile::Tiling;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::layout::Directory;
use super::{StoreError, lock, pack};
use crate::files::{number, pio};

/// The file that takes the tiles of a job: C, laid out by its grid.
#[derive(Debug)]
pub(crate) struct ResultFile {
    pub(crate) job: JobId,
    pub(crate) tiling: Tiling,
    pub(crate) element: ElementType,
    pub(crate) file: File,
    pub(crate) name: String,
    pub(crate) directory: Arc<Directory>,
    /// Tiles that are durable.
    pub(crate) done: Mutex<BTreeSet<u32>>,
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
}

impl ResultFile {
    pub(crate) fn grid(&self) -> Grid {
        Grid::new(self.tiling.rows, self.tiling.cols, self.element)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.tiling.rows * self.tiling.cols * self.element.bytes()
    }
}

/// A tile cut into blocks.
pub(crate) struct TileWrite {
    file: Arc<ResultFile>,
    done: DoneTile,
    contributor: Option<DeviceRecord>,
    /// Neighbouring blocks of a row of the grid follow each other in the file.
    runs: Vec<(u64, Vec<u8>)>,
    /// The hashes of the tile's blocks, in the order of `Grid::parts`.
    hashes: Vec<u8>,
    bits: u32,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

impl TileWrite {
    /// Cuts a row-major tile into blocks and hashes them. Cost: two passes over its bytes.
    pub(crate) fn new(
        file: Arc<ResultFile>,
        done: DoneTile,
        contributor: Option<DeviceRecord>,
        bytes: &Bytes,
        answer: oneshot::Sender<Result<(), StoreError>>,
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
                _ => runs.push((offset, Vec::new())),
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
            Dtype::F64 | Dtype::F32 => 0,
        };
        Ok(Self {
            file,
            done,
            contributor,
            runs,
            hashes,
            bits,
            answer,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.runs.iter().map(|(_, run)| run.len()).sum()
    }

    fn write(&self) -> Result<(), StoreError> {
        for (offset, run) in &self.runs {
            pio::write_at(&self.file.file, run, *offset)
                .map_err(|error| StoreError::io("writing a tile", error))?;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        lock(&self.file.done).contains(&self.done.tile)
    }

    fn answer(self, result: Result<(), StoreError>) {
        if result.is_ok() {
            lock(&self.file.done).insert(self.done.tile);
            self.file.counters.tiles.fetch_add(1, Ordering::Relaxed);
        }
        // Whoever asked may have gone; the tile is durable all the same.
        let _ = self.answer.send(result);
    }
}

/// Makes a group of tiles durable and answers each: all bytes, one sync for each file, then all
/// records in one transaction. A tile that is recorded already is left as it is: its hashes are
/// those of the first bytes.
pub(crate) fn commit(connection: &mut Connection, group: Vec<TileWrite>) {
    let mut written: Vec<TileWrite> = Vec::new();
    let mut synced: Vec<(Arc<ResultFile>, Result<(), StoreError>)> = Vec::new();
    for tile in group {
        let twice = written
            .iter()
            .any(|other| Arc::ptr_eq(&other.file, &tile.file) && other.done.tile == tile.done.tile);
        if tile.is_done() || twice {
            tile.answer(Ok(()));
            continue;
        }
        match tile.write() {
            Err(error) => tile.answer(Err(error)),
            Ok(()) => {
                if !synced.iter().any(|(file, _)| Arc::ptr_eq(file, &tile.file)) {
                    synced.push((tile.file.clone(), Ok(())));
                }
                written.push(tile);
            }
        }
    }
    for (file, result) in &mut synced {
        *result = sync(file);
    }
    let (durable, failed): (Vec<_>, Vec<_>) = written.into_iter().partition(|tile| {
        synced
            .iter()
            .any(|(file, result)| Arc::ptr_eq(file, &tile.file) && result.is_ok())
    });
    for tile in failed {
        let doing = "making a tile durable".to_owned();
        let error = synced.iter().find_map(|(file, result)| match result {
            Err(StoreError::DiskFull) if Arc::ptr_eq(file, &tile.file) => {
                Some(StoreError::DiskFull)
            }
            _ => None,
        });
        tile.answer(Err(error.unwrap_or_else(|| StoreError::Io {
            doing,
            error: std::io::Error::other("the file could not be synced"),
        })));
    }
    if durable.is_empty() {
        return;
    }
    let recorded = record(connection, &durable);
    durable[0]
        .file
        .counters
        .groups
        .fetch_add(1, Ordering::Relaxed);
    for tile in durable {
        let result = match &recorded {
            Ok(()) => Ok(()),
            Err(StoreError::DiskFull) => Err(StoreError::DiskFull),
            Err(error) => Err(StoreError::Database(error.to_string())),
        };
        tile.answer(result);
    }
}

fn sync(file: &ResultFile) -> Result<(), StoreError> {
    let doing = |error| StoreError::io("making a tile durable", error);
    file.counters.syncs.fetch_add(1, Ordering::Relaxed);
    file.file.sync_data().map_err(doing)?;
    if !file.named.load(Ordering::Relaxed) {
        file.directory.sync().map_err(doing)?;
        file.named.store(true, Ordering::Relaxed);
    }
    Ok(())
}

fn record(connection: &mut Connection, tiles: &[TileWrite]) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO tiles (job, tile, device, work, hashes, bits)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM jobs WHERE job = ?1)",
        )?;
        let mut contributor = transaction.prepare_cached(
            "INSERT OR REPLACE INTO contributors (job, device, record)
             SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM jobs WHERE job = ?1)",
        )?;
        for tile in tiles {
            let (job, done) = (&tile.file.job.0[..], &tile.done);
            insert.execute(params![
                job,
                done.tile,
                &done.device.0[..],
                pack(&done.work),
                tile.hashes,
                tile.bits
            ])?;
            if let Some(record) = &tile.contributor {
                contributor.execute(params![job, &record.device.0[..], pack(record)])?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
