//! Jobs: their headers, the tiles of their results, how they ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use gemmesh_protocol::id::{BlockId, Epoch, JobId, MatrixId};
use gemmesh_protocol::io::DoneTile;
use gemmesh_protocol::matrix::Manifest;
use gemmesh_protocol::message::DeviceRecord;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::status::JobStatus;
use gemmesh_protocol::time::WallTime;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;

use super::db::TABLES_OF_JOBS;
use super::group::Write;
use super::tiles::{ResultFile, TileWrite};
use super::{Missing, Shared, Store, StoreError, blocking, lock, pack, restore};
use crate::os::wall;

impl Store {
    /// Takes a job: its row is durable on return, its operands stay until it ends, the room for its
    /// result is reserved.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for an operand, [`StoreError::Full`], [`StoreError::Database`] when
    /// there is a job with this id already, or the system's.
    pub async fn insert_job(&self, taken: &Taken, epoch: Epoch) -> Result<(), StoreError> {
        self.insert_jobs(vec![taken.clone()], epoch).await
    }

    /// Makes a tile of a job durable, with the record of who computed it. `bytes` is the tile,
    /// row-major and little-endian. Tiles that are written at the same time share one sync and one
    /// transaction. Answers the digest of the bytes that are durable then: BLAKE3 of the hashes of
    /// the tile's blocks.
    ///
    /// With `expected`, bytes with another digest are refused (`None`), and other bytes that are
    /// durable already are replaced. Without, bytes that are durable already stay.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`] when the job has ended or is not known, [`StoreError::BadTile`],
    /// [`StoreError::DiskFull`], or the system's.
    pub async fn write_tile(
        &self,
        job: JobId,
        done: DoneTile,
        contributor: Option<DeviceRecord>,
        expected: Option<BlockId>,
        bytes: Bytes,
    ) -> Result<Option<BlockId>, StoreError> {
        let file = match self.takes_tiles(job) {
            Some(file) => file,
            None => {
                // Perhaps its row waits in the queue.
                self.inner.writer.run(|_| Ok(())).await?;
                match self.takes_tiles(job) {
                    Some(file) => file,
                    None => return self.written_before(job, done.tile, expected),
                }
            }
        };
        let room = self.shared().writes.take(bytes.len() as u64).await;
        let (answer, result) = oneshot::channel();
        let replaces = expected.is_some();
        let tile = blocking(move || {
            let who = (done, contributor);
            TileWrite::new(file, who, replaces, &bytes, room, answer)
        })
        .await?;
        if expected.is_some_and(|expected| expected != tile.digest) {
            return Ok(None);
        }
        self.inner.writer.write(Write::Tile(tile)).await?;
        result.await.map_err(|_| StoreError::Closed)?.map(Some)
    }

    fn takes_tiles(&self, job: JobId) -> Option<Arc<ResultFile>> {
        let catalog = lock(&self.shared().catalog);
        Some(catalog.jobs.get(&job)?.file.as_ref()?.0.clone())
    }

    /// The answer for a tile of a result that is a matrix already.
    fn written_before(
        &self,
        job: JobId,
        tile: u32,
        expected: Option<BlockId>,
    ) -> Result<Option<BlockId>, StoreError> {
        let catalog = lock(&self.shared().catalog);
        let entry = catalog.jobs.get(&job).filter(|job| job.ended.is_none());
        let there = entry
            .filter(|entry| u64::from(tile) < entry.tiling.len())
            .and_then(|entry| {
                let result = catalog.matrices.get(&entry.result?)?;
                Some(restore::digest(&result.manifest, &entry.tiling, tile))
            })
            .ok_or(StoreError::NoSuchJob(job))?;
        Ok(Some(there).filter(|there| expected.is_none_or(|expected| expected == *there)))
    }

    /// Makes the result of a job a matrix. Reads no bytes: block hashes were recorded with the
    /// tiles. Asked again, it answers the same.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`], [`StoreError::NoSuchJob`], or the system's.
    pub async fn finish_job(&self, job: JobId) -> Result<Manifest, StoreError> {
        let shared = self.shared().clone();
        self.inner
            .writer
            .step(
                {
                    let shared = shared.clone();
                    move |connection| assembled(&shared, connection, job)
                },
                move |made| finish(&shared, job, made),
            )
            .await
    }

    /// Records how a job ended: its operands are let go, and its scratch space unless it became a
    /// matrix. Its status stays until its time is over. Queued before the call returns, as
    /// [`Store::record`].
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`], or the system's.
    pub fn end_job(
        &self,
        status: &JobStatus,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let shared = self.shared().clone();
        let (job, result, status) = (status.job, status.result, pack(status));
        let apply = {
            let shared = shared.clone();
            move |transaction: &Connection| {
                let ended = wall();
                // It may have been copied as a whole.
                let result = result.filter(|id| lock(&shared.catalog).touch(*id, ended).is_ok());
                let changed = transaction.execute(
                    "UPDATE jobs SET status = ?2, ended_ms = coalesce(ended_ms, ?3),
                         result = coalesce(result, ?4)
                     WHERE job = ?1",
                    params![
                        &job.0[..],
                        status,
                        ended.0 as i64,
                        result.as_ref().map(|id| &id.0[..])
                    ],
                )?;
                for table in ["recorded", "holders"] {
                    transaction
                        .execute(&format!("DELETE FROM {table} WHERE job = ?1"), [&job.0[..]])?;
                }
                Ok((ended, result, changed))
            }
        };
        let keep = move |(ended, result, changed)| {
            let mut catalog = lock(&shared.catalog);
            let entry = catalog.jobs.get_mut(&job).filter(|_| changed == 1);
            let entry = entry.ok_or(StoreError::NoSuchJob(job))?;
            if entry.ended.is_some() {
                return Ok(());
            }
            entry.ended = Some(ended);
            entry.result = entry.result.or(result);
            let (file, a, b) = (entry.file.take(), entry.a, entry.b);
            catalog.unpin(a, ended);
            catalog.unpin(b, ended);
            if let Some((file, _)) = file {
                shared.blocks.remove(&file.name);
            }
            Ok(())
        };
        self.inner.writer.post_step(apply, keep)
    }

    /// Lets go of the scratch space of a job that will have no result. Tiles that still come are
    /// refused. Nothing happens when there is none.
    pub async fn cancel_job_files(&self, job: JobId) {
        let shared = self.shared().clone();
        let removed = self
            .inner
            .writer
            .run(move |_| {
                let file = lock(&shared.catalog)
                    .jobs
                    .get_mut(&job)
                    .and_then(|e| e.file.take());
                if let Some((file, _)) = file {
                    shared.blocks.remove(&file.name);
                }
                Ok(())
            })
            .await;
        if let Err(error) = removed {
            tracing::warn!(%job, %error, "the scratch space of a job stays until the next start");
        }
    }

    /// Removes all that is here of a job, without a trace, or for good with one: then it is called
    /// expired for a day, also in [`Store::expired_jobs`]. Its result stays as long as any matrix,
    /// when it is one. Queued before the call returns, as [`Store::record`].
    ///
    /// # Errors
    /// The system's. A job that is not here is no error.
    pub fn drop_job(
        &self,
        job: JobId,
        for_good: bool,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let shared = self.shared().clone();
        self.inner.writer.post_run(move |connection| {
            let now = wall();
            let transaction = connection.transaction()?;
            if for_good {
                super::expiry::bury(&transaction, &job.0, now)?;
            }
            for table in TABLES_OF_JOBS {
                transaction
                    .execute(&format!("DELETE FROM {table} WHERE job = ?1"), [&job.0[..]])?;
            }
            transaction.commit()?;
            let mut catalog = lock(&shared.catalog);
            if for_good {
                catalog.tombstones.insert(job.0.to_vec(), now);
            }
            let Some(entry) = catalog.jobs.remove(&job) else {
                return Ok(());
            };
            if entry.ended.is_none() {
                catalog.unpin(entry.a, now);
                catalog.unpin(entry.b, now);
            }
            if let Some((file, _)) = entry.file {
                shared.blocks.remove(&file.name);
            }
            Ok(())
        })
    }

    /// Why a job that nobody knows is not there: its time is over, or it never was.
    pub fn job_missing(&self, job: JobId) -> Missing {
        lock(&self.shared().catalog).missing(&job.0)
    }

    /// Whether `token` is the one with which `job` was taken; compared in constant time.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`], or the system's.
    pub async fn check_token(&self, job: JobId, token: &str) -> Result<bool, StoreError> {
        let token = blake3::hash(token.as_bytes());
        self.inner
            .writer
            .run(move |connection| {
                let stored: Option<[u8; 32]> = connection
                    .query_row(
                        "SELECT token FROM jobs WHERE job = ?1",
                        [&job.0[..]],
                        |row| row.get(0),
                    )
                    .optional()?;
                let stored = stored.ok_or(StoreError::NoSuchJob(job))?;
                Ok(blake3::Hash::from_bytes(stored) == token)
            })
            .await
    }
}

/// A result on its way to be a matrix.
enum Made {
    /// It is one already.
    Before(Manifest),
    /// Its row is written and perhaps not committed; whether the same matrix was there.
    Now(Box<Manifest>, Arc<ResultFile>, WallTime, bool),
}

/// Writes the row of a result.
fn assembled(shared: &Shared, transaction: &Connection, job: JobId) -> Result<Made, StoreError> {
    let (file, result) = {
        let catalog = lock(&shared.catalog);
        let entry = catalog.jobs.get(&job).ok_or(StoreError::NoSuchJob(job))?;
        let result = entry.result.and_then(|id| catalog.matrices.get(&id));
        (
            entry.file.as_ref().map(|file| file.0.clone()),
            result.map(|entry| entry.manifest.clone()),
        )
    };
    if let Some(manifest) = result {
        return Ok(Made::Before(Manifest::clone(&manifest)));
    }
    let file = file.ok_or(StoreError::NoSuchJob(job))?;
    let manifest = assemble(&file, transaction)?;
    let id = manifest.id();
    let used = wall();
    let there = lock(&shared.catalog).touch(id, used).is_ok();
    if !there {
        let mut insert = transaction.prepare_cached(
            "INSERT OR REPLACE INTO matrices (id, manifest, file, bytes, used_ms)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        insert.execute(params![
            &id.0[..],
            pack(&manifest),
            file.name,
            manifest.bytes() as i64,
            used.0 as i64
        ])?;
    }
    transaction
        .prepare_cached("UPDATE jobs SET result = ?2 WHERE job = ?1")?
        .execute(params![&job.0[..], &id.0[..]])?;
    transaction
        .prepare_cached("UPDATE tiles SET hashes = NULL WHERE job = ?1")?
        .execute([&job.0[..]])?;
    Ok(Made::Now(Box::new(manifest), file, used, there))
}

/// The row of a result is durable: its file is a matrix's from now on.
fn finish(shared: &Shared, job: JobId, made: Made) -> Result<Manifest, StoreError> {
    let (manifest, file, used, there) = match made {
        Made::Before(manifest) => return Ok(manifest),
        Made::Now(manifest, file, used, there) => (*manifest, file, used, there),
    };
    let id = manifest.id();
    let mut catalog = lock(&shared.catalog);
    // It may have been asked for twice in one transaction.
    let entry = catalog.jobs.get_mut(&job);
    let entry = entry.ok_or(StoreError::NoSuchJob(job))?;
    entry.result = Some(id);
    let Some((_, reservation)) = entry.file.take() else {
        return Ok(manifest);
    };
    let unused = if there {
        Some(file.name.clone())
    } else {
        catalog.insert(
            id,
            Arc::new(manifest.clone()),
            file.name.clone(),
            reservation,
            used,
        )
    };
    if let Some(unused) = unused {
        shared.blocks.remove(&unused);
    }
    Ok(manifest)
}

/// The manifest of a result whose tiles are all durable.
fn assemble(file: &ResultFile, transaction: &Connection) -> Result<Manifest, StoreError> {
    let grid = file.grid();
    let mut blocks: Vec<Option<BlockId>> = vec![None; grid.len() as usize];
    let (mut bits, mut done) = (0, 0);
    let mut statement =
        transaction.prepare_cached("SELECT tile, hashes, bits FROM tiles WHERE job = ?1")?;
    let mut rows = statement.query([&file.job.0[..]])?;
    while let Some(row) = rows.next()? {
        let hashes: Vec<u8> = row.get(1)?;
        let parts = grid.parts(file.tiling.rect(u64::from(row.get::<_, u32>(0)?)));
        let (hashes, rest) = hashes.as_chunks::<32>();
        if hashes.len() != parts.len() || !rest.is_empty() {
            return Err(StoreError::Database(
                "a tile has not its blocks' hashes".to_owned(),
            ));
        }
        for (part, hash) in parts.iter().zip(hashes) {
            blocks[part.index as usize] = Some(BlockId(*hash));
        }
        bits = bits.max(row.get(2)?);
        done += 1;
    }
    let blocks: Option<Vec<BlockId>> = blocks.into_iter().collect();
    Ok(Manifest {
        element: file.element,
        bits,
        rows: file.tiling.rows,
        cols: file.tiling.cols,
        blocks: blocks.ok_or(StoreError::Incomplete {
            job: file.job,
            done,
            total: file.tiling.len(),
        })?,
    })
}

/// The results of all jobs but `except`: they live as long as their job.
pub(crate) fn results(shared: &Shared, except: &[JobId]) -> BTreeSet<MatrixId> {
    let catalog = lock(&shared.catalog);
    let kept = catalog.jobs.iter().filter(|(id, _)| !except.contains(id));
    kept.filter_map(|(_, job)| job.result).collect()
}
