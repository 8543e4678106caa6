//! What a node has of jobs: all of it after a restart, and single tiles for other nodes.

use bytes::Bytes;
use gemmesh_protocol::id::{BlockId, DeviceId, Epoch, JobId, MatrixId};
use gemmesh_protocol::io::DoneTile;
use gemmesh_protocol::matrix::Manifest;
use gemmesh_protocol::message::Work;
use gemmesh_protocol::replication::{Restored, StoredTile, Taken};
use gemmesh_protocol::tile::Tiling;
use gemmesh_protocol::time::{Span, WallTime};
use rusqlite::{OptionalExtension as _, Row, Transaction};

use super::catalog::unpack;
use super::{Missing, Shared, Store, StoreError, blocking, lock};
use crate::files::Source as _;
use crate::os::wall;

impl Store {
    /// All jobs whose time is not over, oldest first; `me` is this device, which coordinated those
    /// whose epoch was not recorded. A job whose record does not decode is left out and logged.
    pub async fn load_jobs(&self, me: DeviceId) -> Vec<Restored> {
        let shared = self.shared().clone();
        let load = move |transaction: &Transaction<'_>| load(&shared, transaction, me);
        let jobs = self.inner.writer.transaction(load).await;
        jobs.unwrap_or_else(|error| {
            tracing::error!(%error, "the jobs could not be read");
            Vec::new()
        })
    }

    /// Jobs that were here and whose time is over.
    pub fn expired_jobs(&self) -> Vec<JobId> {
        let catalog = lock(&self.shared().catalog);
        let ids = catalog.tombstones.keys();
        ids.filter_map(|id| Some(JobId(id.as_slice().try_into().ok()?)))
            .collect()
    }

    /// Whether a job has ended here and is kept: how it ended, and its result if it has one.
    pub fn has_ended(&self, job: JobId) -> bool {
        let catalog = lock(&self.shared().catalog);
        catalog
            .jobs
            .get(&job)
            .is_some_and(|job| job.ended.is_some())
    }

    /// The bytes of the larger operand of a job that is here.
    pub fn operand_bytes(&self, job: JobId) -> Option<u64> {
        let catalog = lock(&self.shared().catalog);
        Some(catalog.jobs.get(&job)?.operand_bytes)
    }

    /// The bytes that a tile has, of a job that is here; [`Store::record`]s that were asked for
    /// before count.
    pub async fn tile_bytes(&self, job: JobId, tile: u32) -> Option<u64> {
        if !lock(&self.shared().catalog).jobs.contains_key(&job) {
            // Perhaps its row waits in the queue; if that fails, there is no job.
            let _ = self.inner.writer.run(|_| Ok(())).await;
        }
        let catalog = lock(&self.shared().catalog);
        let entry = catalog.jobs.get(&job)?;
        if u64::from(tile) >= entry.tiling.len() {
            return None;
        }
        let rect = entry.tiling.rect(u64::from(tile));
        Some(rect.rows * rect.cols * entry.element.bytes())
    }

    /// A durable tile, row-major and little-endian, the hashes of its blocks checked: while its job
    /// runs, and after its result has become a matrix.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not here or damaged, or the system's.
    pub async fn read_tile(&self, job: JobId, tile: u32) -> Result<Bytes, StoreError> {
        let what = || format!("tile {tile} of job {job}");
        let unknown = || StoreError::Missing {
            what: what(),
            missing: Missing::Unknown,
        };
        let (tiling, result, file) = {
            let catalog = lock(&self.shared().catalog);
            let entry = catalog.jobs.get(&job).ok_or_else(unknown)?;
            let file = entry.file.as_ref().map(|(file, _)| file.clone());
            (entry.tiling, entry.result, file)
        };
        if u64::from(tile) >= tiling.len() {
            return Err(unknown());
        }
        if let Some(id) = result {
            let mut source = self.file(id).await?;
            let shared = self.shared().clone();
            return blocking(move || {
                let mut bytes = Vec::new();
                source
                    .read(tiling.rect(u64::from(tile)), &mut bytes)
                    .map_err(|error| shared.noticed(id, error))?;
                Ok(bytes.into())
            })
            .await;
        }
        let file = file.ok_or_else(unknown)?;
        let hashes: Option<Option<Vec<u8>>> = self
            .inner
            .writer
            .run(move |connection| {
                let mut hashes = connection
                    .prepare_cached("SELECT hashes FROM tiles WHERE job = ?1 AND tile = ?2")?;
                let hashes = hashes.query_row((&job.0[..], tile), |row| row.get(0));
                Ok(hashes.optional()?)
            })
            .await?;
        match hashes {
            Some(Some(hashes)) => blocking(move || Ok(file.read_tile(tile, &hashes)?.into())).await,
            // It may have become a part of a matrix meanwhile.
            _ if self.finished(job) => Box::pin(self.read_tile(job, tile)).await,
            _ => Err(unknown()),
        }
    }

    fn finished(&self, job: JobId) -> bool {
        let catalog = lock(&self.shared().catalog);
        catalog
            .jobs
            .get(&job)
            .is_some_and(|job| job.result.is_some())
    }
}

/// The digest of a tile of a result that is a matrix.
pub(crate) fn digest(manifest: &Manifest, tiling: &Tiling, tile: u32) -> BlockId {
    let mut hashes = Vec::new();
    for part in manifest.grid().parts(tiling.rect(u64::from(tile))) {
        hashes.extend_from_slice(&manifest.blocks[part.index as usize].0);
    }
    BlockId::of(&hashes)
}

fn load(
    shared: &Shared,
    transaction: &Transaction<'_>,
    me: DeviceId,
) -> Result<Vec<Restored>, StoreError> {
    let mut jobs = Vec::new();
    let mut statement = transaction.prepare(
        "SELECT job, header, submitted_ms, token, counter, coordinator, sequence, backups, ending,
             status, result
         FROM jobs ORDER BY submitted_ms, job",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let job = JobId(row.get(0)?);
        match restored(shared, transaction, me, job, row) {
            Ok(restored) => jobs.push(restored),
            Err(error) => tracing::error!(%job, %error, "a job could not be read"),
        }
    }
    Ok(jobs)
}

fn restored(
    shared: &Shared,
    transaction: &Transaction<'_>,
    me: DeviceId,
    job: JobId,
    row: &Row<'_>,
) -> Result<Restored, StoreError> {
    let submitted = WallTime(row.get::<_, i64>(2)? as u64);
    let unpacked = |blob: Option<Vec<u8>>| blob.map(|blob| unpack(&blob)).transpose();
    let backups: Option<Vec<u8>> = row.get(7)?;
    let mut restored = Restored {
        taken: Taken {
            header: unpack(&row.get::<_, Vec<u8>>(1)?)?,
            submitted,
            token: BlockId(row.get(3)?),
        },
        elapsed: Span::from_millis(wall().0.saturating_sub(submitted.0)),
        epoch: Epoch {
            counter: row.get::<_, i64>(4)? as u64,
            device: row.get::<_, Option<[u8; 32]>>(5)?.map_or(me, DeviceId),
        },
        sequence: row.get::<_, i64>(6)? as u64,
        backups: backups
            .map(|blob| unpack(&blob))
            .transpose()?
            .unwrap_or_default(),
        contributors: Vec::new(),
        recorded: Vec::new(),
        held: Vec::new(),
        timeline: Vec::new(),
        ending: unpacked(row.get(8)?)?,
        ended: unpacked(row.get(9)?)?,
    };
    let result = row.get::<_, Option<[u8; 32]>>(10)?.map(MatrixId);
    let manifest = result.and_then(|id| {
        let catalog = lock(&shared.catalog);
        Some(catalog.matrices.get(&id)?.manifest.clone())
    });
    let tiling = restored.taken.header.tiling;
    let mut held = transaction.prepare_cached(
        "SELECT tile, device, work, digest FROM tiles WHERE job = ?1 ORDER BY number",
    )?;
    let mut rows = held.query([&job.0[..]])?;
    while let Some(row) = rows.next()? {
        let done = done_tile(row)?;
        let digest = match row.get::<_, Option<[u8; 32]>>(3)? {
            Some(digest) => Some(BlockId(digest)),
            None => manifest
                .as_ref()
                .map(|manifest| digest(manifest, &tiling, done.tile)),
        };
        restored
            .held
            .extend(digest.map(|digest| StoredTile { done, digest }));
    }
    let mut recorded = transaction.prepare_cached(
        "SELECT tile, device, work, digest FROM recorded WHERE job = ?1 ORDER BY number",
    )?;
    let mut holders = transaction.prepare_cached(
        "SELECT device FROM holders WHERE job = ?1 AND tile = ?2 ORDER BY device",
    )?;
    let mut rows = recorded.query([&job.0[..]])?;
    while let Some(row) = rows.next()? {
        let done = done_tile(row)?;
        let digest = BlockId(row.get(3)?);
        let who = holders.query_map((&job.0[..], done.tile), |row| row.get(0).map(DeviceId))?;
        let who = who.collect::<Result<_, _>>()?;
        restored.recorded.push((StoredTile { done, digest }, who));
    }
    let mut contributors = transaction
        .prepare_cached("SELECT record FROM contributors WHERE job = ?1 ORDER BY number")?;
    let mut rows = contributors.query([&job.0[..]])?;
    while let Some(row) = rows.next()? {
        let record = unpack(&row.get::<_, Vec<u8>>(0)?)?;
        restored.contributors.push(record);
    }
    let mut moments = transaction
        .prepare_cached("SELECT moment FROM moments WHERE job = ?1 ORDER BY at, number")?;
    let mut rows = moments.query([&job.0[..]])?;
    while let Some(row) = rows.next()? {
        let moment = unpack(&row.get::<_, Vec<u8>>(0)?)?;
        restored.timeline.push(moment);
    }
    Ok(restored)
}

/// The first three columns of a tile's row.
fn done_tile(row: &Row<'_>) -> Result<DoneTile, StoreError> {
    Ok(DoneTile {
        tile: row.get(0)?,
        device: DeviceId(row.get(1)?),
        work: unpack::<Work>(&row.get::<_, Vec<u8>>(2)?)?,
    })
}
