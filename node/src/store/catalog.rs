//! What is there, in memory: loaded at start, changed by the writer's thread (and, for the times
//! of use, by readers).

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use gemmesh_protocol::id::{BlockId, JobId, MatrixId};
use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::matrix::{ElementType, Manifest};
use gemmesh_protocol::tile::Tiling;
use gemmesh_protocol::time::WallTime;
use rusqlite::{Connection, params};

use super::budget::{Budget, Reservation};
use super::layout::Directory;
use super::tiles::{Counters, ResultFile};
use super::{Missing, StoreError, lock};

/// The most matrices: an entry of a small one takes about 500 bytes of memory.
const MATRICES_MAX: usize = 100_000;
/// The most jobs, ended ones included: one takes about a kilobyte of memory.
const JOBS_MAX: usize = 100_000;
/// Files of matrices that are kept open.
const OPEN_MAX: usize = 64;

/// A matrix.
pub(crate) struct Entry {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) file: String,
    pub(crate) used: WallTime,
    /// `used` is later than in the database.
    pub(crate) touched: bool,
    pub(crate) damaged: Option<String>,
    _reservation: Reservation,
}

/// A job.
pub(crate) struct JobEntry {
    pub(crate) tiling: Tiling,
    pub(crate) element: ElementType,
    pub(crate) a: MatrixId,
    pub(crate) b: MatrixId,
    /// It is guarded, or a share.
    pub(crate) bound: bool,
    /// Bytes of the larger operand.
    pub(crate) operand_bytes: u64,
    pub(crate) ended: Option<WallTime>,
    pub(crate) result: Option<MatrixId>,
    /// Takes tiles until the job has a result or has ended.
    pub(crate) file: Option<(Arc<ResultFile>, Reservation)>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Catalog {
    pub(crate) matrices: BTreeMap<MatrixId, Entry>,
    pub(crate) jobs: BTreeMap<JobId, JobEntry>,
    /// Jobs under way by operand.
    pub(crate) pins: BTreeMap<MatrixId, u32>,
    /// What opens matrices that are not everybody's: hashes of tokens, and whether they seal it.
    pub(crate) private: BTreeMap<MatrixId, BTreeMap<[u8; 32], bool>>,
    /// Ids of matrices and jobs whose time is over, and since when.
    pub(crate) tombstones: BTreeMap<Vec<u8>, WallTime>,
    open: VecDeque<(String, Arc<File>)>,
}

impl Catalog {
    /// The matrix `id`, used at `now`.
    pub(crate) fn touch(&mut self, id: MatrixId, now: WallTime) -> Result<&Entry, Missing> {
        let missing = self.missing(&id.0);
        let entry = self.matrices.get_mut(&id).ok_or(missing)?;
        if let Some(why) = &entry.damaged {
            return Err(Missing::Corrupt(why.clone()));
        }
        entry.used = entry.used.max(now);
        entry.touched = true;
        Ok(entry)
    }

    /// Why something with this id is not there.
    pub(crate) fn missing(&self, id: &[u8]) -> Missing {
        match self.tombstones.contains_key(id) {
            true => Missing::Expired,
            false => Missing::Unknown,
        }
    }

    pub(crate) fn check_room(&self) -> Result<(), StoreError> {
        match self.matrices.len() < MATRICES_MAX {
            true => Ok(()),
            false => Err(StoreError::TooMany(self.matrices.len())),
        }
    }

    pub(crate) fn check_room_for_job(&self) -> Result<(), StoreError> {
        match self.jobs.len() < JOBS_MAX {
            true => Ok(()),
            false => Err(StoreError::TooManyJobs(self.jobs.len())),
        }
    }

    /// Adds a matrix; returns the file of the damaged one that it replaces.
    pub(crate) fn insert(
        &mut self,
        id: MatrixId,
        manifest: Arc<Manifest>,
        file: String,
        reservation: Reservation,
        now: WallTime,
    ) -> Option<String> {
        self.tombstones.remove(&id.0[..]);
        let entry = Entry {
            manifest,
            file,
            used: now,
            touched: false,
            damaged: None,
            _reservation: reservation,
        };
        let replaced = self.matrices.insert(id, entry)?;
        self.open.retain(|(name, _)| *name != replaced.file);
        Some(replaced.file)
    }

    /// Removes a matrix; returns the name of its file.
    pub(crate) fn remove(&mut self, id: MatrixId, now: WallTime) -> Option<String> {
        let entry = self.matrices.remove(&id)?;
        self.private.remove(&id);
        self.open.retain(|(name, _)| *name != entry.file);
        self.tombstones.insert(id.0.to_vec(), now);
        Some(entry.file)
    }

    pub(crate) fn damaged(&mut self, id: MatrixId, why: &str) {
        if let Some(entry) = self.matrices.get_mut(&id) {
            entry.damaged.get_or_insert_with(|| why.to_owned());
        }
    }

    /// Counts one more job under way that needs this matrix, also when it is not here yet.
    pub(crate) fn pin(&mut self, id: MatrixId) {
        *self.pins.entry(id).or_default() += 1;
    }

    /// A job under way lets go of a matrix, whose time starts then.
    pub(crate) fn unpin(&mut self, id: MatrixId, now: WallTime) {
        if let Some(pins) = self.pins.get_mut(&id) {
            *pins -= 1;
            if *pins == 0 {
                self.pins.remove(&id);
            }
        }
        let _ = self.touch(id, now);
    }

    /// An open file, moved to the front.
    pub(crate) fn open_file(&mut self, name: &str) -> Option<Arc<File>> {
        let at = self.open.iter().position(|(open, _)| open == name)?;
        let found = self.open.remove(at)?;
        let file = found.1.clone();
        self.open.push_front(found);
        Some(file)
    }

    pub(crate) fn keep_open(&mut self, name: String, file: Arc<File>) {
        self.open.retain(|(open, _)| *open != name);
        self.open.push_front((name, file));
        self.open.truncate(OPEN_MAX);
    }

    /// Whether a file belongs to a matrix or to a job under way.
    pub(crate) fn has_file(&self, name: &str) -> bool {
        self.matrices.values().any(|entry| entry.file == name)
            || self
                .jobs
                .values()
                .any(|job| job.file.as_ref().is_some_and(|(file, _)| file.name == name))
    }
}

/// Reads the catalog from the database, opens the files of jobs under way.
pub(crate) fn load(
    connection: &Connection,
    blocks: &Arc<Directory>,
    budget: &Arc<Budget>,
    counters: &Arc<Counters>,
) -> Result<Catalog, StoreError> {
    let mut catalog = Catalog::default();
    let mut statement =
        connection.prepare("SELECT id, manifest, file, bytes, used_ms FROM matrices")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let manifest: Manifest = unpack(&row.get::<_, Vec<u8>>(1)?)?;
        let used = WallTime(row.get::<_, i64>(4)? as u64);
        let reservation = budget.charge(row.get::<_, i64>(3)? as u64);
        let id = MatrixId(row.get(0)?);
        catalog.insert(id, Arc::new(manifest), row.get(2)?, reservation, used);
    }
    let mut statement = connection.prepare("SELECT id, since_ms FROM tombstones")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let since = WallTime(row.get::<_, i64>(1)? as u64);
        catalog.tombstones.insert(row.get(0)?, since);
    }
    let mut statement =
        connection.prepare("SELECT job, header, a, b, file, result, ended_ms FROM jobs")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let job = JobId(row.get(0)?);
        let header: JobHeader = unpack(&row.get::<_, Vec<u8>>(1)?)?;
        let (a, b) = (MatrixId(row.get(2)?), MatrixId(row.get(3)?));
        let result = row.get::<_, Option<[u8; 32]>>(5)?.map(MatrixId);
        let ended = row.get::<_, Option<i64>>(6)?.map(|ms| WallTime(ms as u64));
        let mut file = None;
        if ended.is_none() {
            catalog.pin(a);
            catalog.pin(b);
        }
        if ended.is_none() && result.is_none() {
            let opened = open_result(connection, &header, row.get(4)?, blocks, counters)?;
            let reservation = budget.charge(opened.bytes());
            file = Some((Arc::new(opened), reservation));
        }
        let entry = JobEntry {
            tiling: header.tiling,
            element: header.element,
            a,
            b,
            bound: header.is_bound(),
            operand_bytes: header.a.bytes().max(header.b.bytes()),
            ended,
            result,
            file,
        };
        catalog.jobs.insert(job, entry);
    }
    let mut statement = connection.prepare("SELECT matrix, token, sealed FROM private")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let tokens = catalog.private.entry(MatrixId(row.get(0)?)).or_default();
        tokens.insert(row.get(1)?, row.get(2)?);
    }
    Ok(catalog)
}

/// The file of a job under way. It may not be there: it is made before the job's row is committed,
/// but its name becomes durable with the first tile. Tiles that are not in it any more as they were
/// are forgotten. Cost: all tiles are read.
fn open_result(
    connection: &Connection,
    header: &JobHeader,
    name: String,
    blocks: &Arc<Directory>,
    counters: &Arc<Counters>,
) -> Result<ResultFile, StoreError> {
    let doing = |error| StoreError::io("opening the result of a job", error);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(blocks.file(&name))
        .map_err(doing)?;
    let result = ResultFile {
        job: header.job,
        tiling: header.tiling,
        element: header.element,
        file,
        name,
        directory: blocks.clone(),
        done: Mutex::default(),
        named: AtomicBool::new(false),
        counters: counters.clone(),
    };
    result.file.set_len(result.bytes()).map_err(doing)?;
    let mut tiles = connection.prepare_cached("SELECT tile, hashes FROM tiles WHERE job = ?1")?;
    let mut rows = tiles.query([&header.job.0[..]])?;
    let (mut done, mut lost) = (BTreeMap::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let tile: u32 = row.get(0)?;
        let hashes: Vec<u8> = row.get::<_, Option<Vec<u8>>>(1)?.unwrap_or_default();
        match result.read_tile(tile, &hashes).is_err() {
            true => lost.push(tile),
            false => {
                done.insert(tile, BlockId::of(&hashes));
            }
        }
    }
    if !lost.is_empty() {
        let (job, tiles) = (header.job, lost.len());
        tracing::error!(%job, tiles, "tiles of a job's result are damaged on the disk; they are lost");
    }
    for tile in lost {
        connection.execute(
            "DELETE FROM tiles WHERE job = ?1 AND tile = ?2",
            params![&header.job.0[..], tile],
        )?;
    }
    *lock(&result.done) = done;
    Ok(result)
}

/// What [`super::pack`] packed.
pub(crate) fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| StoreError::Damaged(format!("a record does not decode: {error}")))
}
