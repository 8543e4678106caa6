//! Jobs: their headers, the tiles of their results, how they ended.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gemmesh_protocol::id::{BlockId, DeviceId, JobId, MatrixId};
use gemmesh_protocol::io::DoneTile;
use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::matrix::Manifest;
use gemmesh_protocol::message::DeviceRecord;
use gemmesh_protocol::status::JobStatus;
use gemmesh_protocol::time::WallTime;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use tokio::sync::oneshot;

use super::catalog::{JobEntry, unpack};
use super::tiles::{ResultFile, TileWrite};
use super::{Missing, Shared, Store, StoreError, blocking, lock, pack};
use crate::os::wall;

/// A job as the disk has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    /// The job.
    pub header: JobHeader,
    /// When it was acknowledged.
    pub submitted: WallTime,
    /// Its durable tiles, in the order in which they became so.
    pub done: Vec<DoneTile>,
    /// Who computed them.
    pub contributors: Vec<DeviceRecord>,
    /// How it ended, if it has.
    pub ended: Option<JobStatus>,
}

impl Store {
    /// Takes a job: its row is durable on return, its operands stay until it ends, the room for its
    /// result is reserved. The token is kept as a hash.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for an operand, [`StoreError::Full`], [`StoreError::Database`] when
    /// there is a job with this id already, or the system's.
    pub async fn insert_job(
        &self,
        header: &JobHeader,
        submitted: WallTime,
        token: &str,
    ) -> Result<(), StoreError> {
        let shared = self.shared().clone();
        let header = header.clone();
        let token = blake3::hash(token.as_bytes());
        self.inner
            .writer
            .run(move |connection| {
                lock(&shared.catalog).check_room_for_job()?;
                let (a, b) = (header.a.id(), header.b.id());
                for operand in [a, b] {
                    lock(&shared.catalog)
                        .touch(operand, wall())
                        .map_err(|missing| StoreError::Missing {
                            what: format!("the matrix {operand}"),
                            missing,
                        })?;
                }
                let bytes = header.tiling.rows * header.tiling.cols * header.element.bytes();
                let reservation = shared.budget.reserve(bytes)?;
                let (name, file) = shared.blocks.new_file("result")?;
                let insert = || -> Result<(), StoreError> {
                    file.set_len(bytes)
                        .map_err(|error| StoreError::io("making room for a result", error))?;
                    connection.execute(
                        "INSERT INTO jobs (job, header, submitted_ms, token, a, b, file)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                        params![
                            &header.job.0[..],
                            pack(&header),
                            submitted.0 as i64,
                            &token.as_bytes()[..],
                            &a.0[..],
                            &b.0[..],
                            name
                        ],
                    )?;
                    Ok(())
                };
                if let Err(error) = insert() {
                    shared.blocks.remove(&name);
                    return Err(error);
                }
                let file = ResultFile {
                    job: header.job,
                    tiling: header.tiling,
                    element: header.element,
                    file,
                    name,
                    directory: shared.blocks.clone(),
                    done: Mutex::new(BTreeSet::new()),
                    named: AtomicBool::new(false),
                    counters: shared.counters.clone(),
                };
                let mut catalog = lock(&shared.catalog);
                catalog.pin(a, true);
                catalog.pin(b, true);
                let entry = JobEntry {
                    a,
                    b,
                    ended: None,
                    result: None,
                    file: Some((Arc::new(file), reservation)),
                };
                let before = catalog.jobs.insert(header.job, entry);
                assert!(before.is_none(), "a job is taken once");
                Ok(())
            })
            .await
    }

    /// Makes a tile of a job durable, with the record of who computed it. `bytes` is the tile,
    /// row-major and little-endian. Tiles that are written at the same time share one sync and one
    /// transaction. A tile that is durable already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`] when the job has ended or is not known, [`StoreError::BadTile`],
    /// [`StoreError::DiskFull`], or the system's.
    pub async fn write_tile(
        &self,
        job: JobId,
        done: DoneTile,
        contributor: Option<DeviceRecord>,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let file = lock(&self.shared().catalog)
            .jobs
            .get(&job)
            .and_then(|entry| Some(entry.file.as_ref()?.0.clone()))
            .ok_or(StoreError::NoSuchJob(job))?;
        let (answer, result) = oneshot::channel();
        let tile =
            blocking(move || TileWrite::new(file, done, contributor, &bytes, answer)).await?;
        self.inner.writer.tile(tile).await?;
        result.await.map_err(|_| StoreError::Closed)?
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
            .run(move |connection| finish(&shared, connection, job))
            .await
    }

    /// Records how a job ended: its operands are let go, and its scratch space unless it became a
    /// matrix. Its status stays until its time is over.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`], or the system's.
    pub async fn end_job(&self, status: &JobStatus) -> Result<(), StoreError> {
        let shared = self.shared().clone();
        let (job, status) = (status.job, pack(status));
        self.inner
            .writer
            .run(move |connection| {
                let ended = wall();
                let changed = connection.execute(
                    "UPDATE jobs SET status = ?2, ended_ms = coalesce(ended_ms, ?3)
                     WHERE job = ?1",
                    params![&job.0[..], status, ended.0 as i64],
                )?;
                let mut catalog = lock(&shared.catalog);
                let entry = catalog.jobs.get_mut(&job).filter(|_| changed == 1);
                let entry = entry.ok_or(StoreError::NoSuchJob(job))?;
                if entry.ended.is_some() {
                    return Ok(());
                }
                entry.ended = Some(ended);
                let (file, a, b) = (entry.file.take(), entry.a, entry.b);
                for operand in [a, b] {
                    catalog.pin(operand, false);
                    // Its time starts when the job lets go of it.
                    let _ = catalog.touch(operand, ended);
                }
                if let Some((file, _)) = file {
                    shared.blocks.remove(&file.name);
                }
                Ok(())
            })
            .await
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

    /// All jobs whose time is not over, oldest first. A job whose record does not decode is left
    /// out and logged.
    pub async fn load_jobs(&self) -> Vec<StoredJob> {
        let jobs = self.inner.writer.transaction(load).await;
        jobs.unwrap_or_else(|error| {
            tracing::error!(%error, "the jobs could not be read");
            Vec::new()
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

fn finish(
    shared: &Shared,
    connection: &mut Connection,
    job: JobId,
) -> Result<Manifest, StoreError> {
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
        return Ok(Manifest::clone(&manifest));
    }
    let file = file.ok_or(StoreError::NoSuchJob(job))?;
    let transaction = connection.transaction()?;
    let manifest = assemble(&file, &transaction)?;
    let id = manifest.id();
    let used = wall();
    let there = lock(&shared.catalog).touch(id, used).is_ok();
    if !there {
        transaction.execute(
            "INSERT OR REPLACE INTO matrices (id, manifest, file, bytes, used_ms)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                &id.0[..],
                pack(&manifest),
                file.name,
                manifest.bytes() as i64,
                used.0 as i64
            ],
        )?;
    }
    transaction.execute(
        "UPDATE jobs SET result = ?2 WHERE job = ?1",
        params![&job.0[..], &id.0[..]],
    )?;
    transaction.execute(
        "UPDATE tiles SET hashes = NULL WHERE job = ?1",
        [&job.0[..]],
    )?;
    transaction.commit()?;
    let mut catalog = lock(&shared.catalog);
    let entry = catalog
        .jobs
        .get_mut(&job)
        .expect("only this thread removes jobs");
    entry.result = Some(id);
    let (_, reservation) = entry.file.take().expect("only this thread takes files");
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
fn assemble(file: &ResultFile, transaction: &Transaction<'_>) -> Result<Manifest, StoreError> {
    let grid = file.grid();
    let mut blocks: Vec<Option<BlockId>> = vec![None; grid.len() as usize];
    let (mut bits, mut done) = (0, 0);
    let mut statement =
        transaction.prepare("SELECT tile, hashes, bits FROM tiles WHERE job = ?1")?;
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

fn load(transaction: &Transaction<'_>) -> Result<Vec<StoredJob>, StoreError> {
    let mut jobs = Vec::new();
    let mut statement = transaction
        .prepare("SELECT job, header, submitted_ms, status FROM jobs ORDER BY submitted_ms, job")?;
    let mut tiles = transaction
        .prepare("SELECT tile, device, work FROM tiles WHERE job = ?1 ORDER BY number")?;
    let mut contributors =
        transaction.prepare("SELECT record FROM contributors WHERE job = ?1 ORDER BY number")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let job: [u8; 16] = row.get(0)?;
        let mut read = || -> Result<StoredJob, StoreError> {
            let status: Option<Vec<u8>> = row.get(3)?;
            let mut stored = StoredJob {
                header: unpack(&row.get::<_, Vec<u8>>(1)?)?,
                submitted: WallTime(row.get::<_, i64>(2)? as u64),
                done: Vec::new(),
                contributors: Vec::new(),
                ended: status.map(|status| unpack(&status)).transpose()?,
            };
            let mut rows = tiles.query([&job[..]])?;
            while let Some(row) = rows.next()? {
                stored.done.push(DoneTile {
                    tile: row.get(0)?,
                    device: DeviceId(row.get(1)?),
                    work: unpack(&row.get::<_, Vec<u8>>(2)?)?,
                });
            }
            let mut rows = contributors.query([&job[..]])?;
            while let Some(row) = rows.next()? {
                stored
                    .contributors
                    .push(unpack(&row.get::<_, Vec<u8>>(0)?)?);
            }
            Ok(stored)
        };
        match read() {
            Ok(stored) => jobs.push(stored),
            Err(error) => tracing::error!(job = %JobId(job), %error, "a job could not be read"),
        }
    }
    Ok(jobs)
}

/// The results of all jobs but `except`: they live as long as their job.
pub(crate) fn results(shared: &Shared, except: &[JobId]) -> BTreeSet<MatrixId> {
    let catalog = lock(&shared.catalog);
    let kept = catalog.jobs.iter().filter(|(id, _)| !except.contains(id));
    kept.filter_map(|(_, job)| job.result).collect()
}
