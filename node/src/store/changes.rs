//! What the log of a job says, made durable: on its backups, and on who coordinates it next.
//!
//! Changes of one node are queued in the order in which they are asked for, and committed in it.
//! What entries say is only ever added, so entries may come twice; the position only grows.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use gemmesh_protocol::id::{DeviceId, Epoch, JobId};
use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::matrix::Grid;
use gemmesh_protocol::replication::{Entry, StoredTile, Taken};
use gemmesh_protocol::status::{Moment, TIMELINE_MAX};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;

use super::budget::Reservation;
use super::catalog::JobEntry;
use super::group::Write;
use super::tiles::{self, ResultFile};
use super::{Missing, Shared, Store, StoreError, lock, pack};

/// A change of a job's rows on its way to the disk.
pub(crate) struct Change {
    shared: Arc<Shared>,
    job: JobId,
    what: What,
    created: Option<Created>,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

enum What {
    Log {
        epoch: Epoch,
        sequence: u64,
        entries: Vec<Entry>,
    },
    Claim(Epoch),
    Backups(Vec<DeviceId>),
    Moment(Moment),
}

impl Store {
    /// Makes entries of a job's log durable, all or none: `sequence` entries of `epoch`'s log are
    /// there with them. Without entries only the epoch is. The first entry of a job that is not
    /// here is [`Entry::Taken`]: room for its result is reserved then, and its operands stay
    /// as soon as they are here. An entry may come again.
    ///
    /// This and the other changes are queued before the call returns, those of one caller in order.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`], [`StoreError::BadJob`], [`StoreError::Missing`] for a job whose
    /// time is over, [`StoreError::Full`], or the system's.
    pub fn record(
        &self,
        job: JobId,
        epoch: Epoch,
        sequence: u64,
        entries: Vec<Entry>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let what = What::Log {
            epoch,
            sequence,
            entries,
        };
        self.change(job, what)
    }

    /// This node coordinates the job from now on.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`], or the system's.
    pub fn claim(
        &self,
        job: JobId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.change(job, What::Claim(epoch))
    }

    /// Keeps the list of a job's backups.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`], or the system's.
    pub fn set_backups(
        &self,
        job: JobId,
        backups: Vec<DeviceId>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.change(job, What::Backups(backups))
    }

    /// Adds to what happened to a job; the last [`TIMELINE_MAX`] moments are kept.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`], or the system's.
    pub fn add_moment(
        &self,
        job: JobId,
        moment: Moment,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.change(job, What::Moment(moment))
    }

    fn change(
        &self,
        job: JobId,
        what: What,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let (answer, result) = oneshot::channel();
        let posted = self.inner.writer.post(Write::Change(Change {
            shared: self.shared().clone(),
            job,
            what,
            created: None,
            answer,
        }));
        async move {
            posted?;
            result.await.map_err(|_| StoreError::Closed)?
        }
    }
}

impl Change {
    /// Writes it in the caller's transaction.
    pub(crate) fn apply(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let job = self.job;
        if let What::Log { epoch, entries, .. } = &self.what
            && let Some(Entry::Taken(taken)) = entries.first()
            && tiles_of(connection, job)?.is_none()
        {
            if taken.header.job != job {
                return Err(bad_job(job, "its log is of another job"));
            }
            self.created = Some(Created::new(&self.shared, connection, taken, *epoch)?);
        }
        let tiles = tiles_of(connection, job)?.ok_or(StoreError::NoSuchJob(job))?;
        match &self.what {
            What::Log {
                epoch,
                sequence,
                entries,
            } => {
                let first = sequence.saturating_sub(entries.len() as u64);
                if first > position(connection, job, *epoch)? {
                    return Err(bad_job(job, "entries of its log before these are missing"));
                }
                for entry in entries {
                    apply(connection, job, tiles, *epoch, entry)?;
                }
                advance(connection, job, *epoch, *sequence)
            }
            What::Claim(epoch) => advance(connection, job, *epoch, 0),
            What::Backups(list) => backups(connection, job, list),
            What::Moment(what) => moment(connection, job, what),
        }
    }

    /// Nothing waits for it.
    pub(crate) fn is_lazy(&self) -> bool {
        matches!(self.what, What::Backups(_) | What::Moment(_))
    }

    /// It is durable.
    pub(crate) fn succeed(self) {
        if let Some(created) = self.created {
            created.keep(&self.shared);
        }
        // Whoever asked may have gone.
        let _ = self.answer.send(Ok(()));
    }

    pub(crate) fn fail(self, error: StoreError) {
        let _ = self.answer.send(Err(error));
    }
}

/// How many tiles the job has, if it is here.
fn tiles_of(connection: &Connection, job: JobId) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT tiles FROM jobs WHERE job = ?1")?;
    let tiles = statement.query_row([&job.0[..]], |row| row.get::<_, i64>(0));
    Ok(tiles.optional()?.map(|tiles| tiles as u64))
}

fn apply(
    connection: &Connection,
    job: JobId,
    tiles: u64,
    epoch: Epoch,
    entry: &Entry,
) -> Result<(), StoreError> {
    match entry {
        Entry::Taken(_) | Entry::Keep { .. } => Ok(()),
        Entry::Backups(list) => backups(connection, job, list),
        Entry::Contributor(record) => tiles::contributor(connection, job, record),
        Entry::Done { stored, .. } if u64::from(stored.done.tile) < tiles => {
            done(connection, job, stored)?;
            holder(connection, job, stored.done.tile, epoch.device)
        }
        Entry::Held { tile, holder: who } if u64::from(*tile) < tiles => {
            holder(connection, job, *tile, *who)
        }
        Entry::Done { .. } | Entry::Held { .. } => Ok(()),
        Entry::Moment(what) => moment(connection, job, what),
        Entry::Ended(status) => {
            connection.execute(
                "UPDATE jobs SET ending = ?2 WHERE job = ?1",
                params![&job.0[..], pack(status)],
            )?;
            Ok(())
        }
    }
}

/// Records a tile. When it has another digest than before, the present coordinator's counts, and
/// who held the other bytes does not hold these.
fn done(connection: &Connection, job: JobId, stored: &StoredTile) -> Result<(), StoreError> {
    let (job, tile, digest) = (&job.0[..], stored.done.tile, &stored.digest.0[..]);
    let mut others = connection.prepare_cached(
        "DELETE FROM holders WHERE job = ?1 AND tile = ?2 AND EXISTS
         (SELECT 1 FROM recorded WHERE job = ?1 AND tile = ?2 AND digest <> ?3)",
    )?;
    others.execute(params![job, tile, digest])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO recorded (job, tile, device, work, digest) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (job, tile) DO UPDATE SET
             device = excluded.device, work = excluded.work, digest = excluded.digest
         WHERE digest <> excluded.digest",
    )?;
    let device = &stored.done.device.0[..];
    insert.execute(params![job, tile, device, pack(&stored.done.work), digest])?;
    Ok(())
}

fn holder(
    connection: &Connection,
    job: JobId,
    tile: u32,
    device: DeviceId,
) -> Result<(), StoreError> {
    let mut insert = connection
        .prepare_cached("INSERT OR IGNORE INTO holders (job, tile, device) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![&job.0[..], tile, &device.0[..]])?;
    Ok(())
}

fn backups(connection: &Connection, job: JobId, list: &[DeviceId]) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE jobs SET backups = ?2 WHERE job = ?1",
        params![&job.0[..], pack(&list)],
    )?;
    Ok(())
}

fn moment(connection: &Connection, job: JobId, moment: &Moment) -> Result<(), StoreError> {
    let mut insert = connection
        .prepare_cached("INSERT OR IGNORE INTO moments (job, at, moment) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![&job.0[..], moment.at, pack(moment)])?;
    let mut trim = connection.prepare_cached(
        "DELETE FROM moments WHERE job = ?1 AND number NOT IN
         (SELECT number FROM moments WHERE job = ?1 ORDER BY at DESC, number DESC LIMIT ?2)",
    )?;
    trim.execute(params![&job.0[..], TIMELINE_MAX as i64])?;
    Ok(())
}

/// How many entries of this epoch's log are here; all, where a higher one has begun.
fn position(connection: &Connection, job: JobId, epoch: Epoch) -> Result<u64, StoreError> {
    let mut select = connection
        .prepare_cached("SELECT counter, coordinator, sequence FROM jobs WHERE job = ?1")?;
    let (counter, device, sequence) = select.query_row([&job.0[..]], |row| {
        let device: Option<Vec<u8>> = row.get(1)?;
        Ok((
            row.get::<_, i64>(0)?,
            device.unwrap_or_default(),
            row.get::<_, i64>(2)?,
        ))
    })?;
    let here = (counter as u64, &device[..]);
    Ok(match here.cmp(&(epoch.counter, &epoch.device.0[..])) {
        Ordering::Less => 0,
        Ordering::Equal => sequence as u64,
        Ordering::Greater => u64::MAX,
    })
}

/// Moves the position on; never back.
fn advance(
    connection: &Connection,
    job: JobId,
    epoch: Epoch,
    sequence: u64,
) -> Result<(), StoreError> {
    let mut update = connection.prepare_cached(
        "UPDATE jobs SET counter = ?2, coordinator = ?3, sequence = ?4 WHERE job = ?1
         AND (counter, coalesce(coordinator, x''), sequence) < (?2, ?3, ?4)",
    )?;
    let counter =
        i64::try_from(epoch.counter).map_err(|_| bad_job(job, "its epoch is out of bounds"))?;
    let sequence =
        i64::try_from(sequence).map_err(|_| bad_job(job, "its log is longer than any"))?;
    update.execute(params![&job.0[..], counter, &epoch.device.0[..], sequence])?;
    Ok(())
}

fn bad_job(job: JobId, what: impl Into<String>) -> StoreError {
    StoreError::BadJob {
        job,
        what: what.into(),
    }
}

/// A job whose row is written and perhaps not committed; its file is removed when it is dropped
/// before [`Created::keep`].
pub(crate) struct Created {
    job: JobId,
    entry: Option<JobEntry>,
}

impl Created {
    /// Writes the row of a job, makes the file of its result.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        connection: &Connection,
        taken: &Taken,
        epoch: Epoch,
    ) -> Result<Self, StoreError> {
        let header = &taken.header;
        let job = header.job;
        header
            .check()
            .map_err(|error| bad_job(job, error.to_string()))?;
        if !has_whole_blocks(header) {
            return Err(bad_job(job, "its tiles are not made of whole blocks"));
        }
        {
            let catalog = lock(&shared.catalog);
            catalog.check_room_for_job()?;
            if catalog.missing(&job.0) == Missing::Expired {
                return Err(StoreError::Missing {
                    what: format!("job {job}"),
                    missing: Missing::Expired,
                });
            }
        }
        let bytes = header.tiling.rows * header.tiling.cols * header.element.bytes();
        let reservation = shared.budget.reserve(bytes)?;
        let (name, file) = shared.blocks.new_file("result")?;
        let (a, b) = (header.a.id(), header.b.id());
        let file = ResultFile {
            job,
            tiling: header.tiling,
            element: header.element,
            file,
            name,
            directory: shared.blocks.clone(),
            done: Mutex::new(BTreeMap::new()),
            named: AtomicBool::new(false),
            counters: shared.counters.clone(),
        };
        let created = Self {
            job,
            entry: Some(entry(header, a, b, file, reservation)),
        };
        let file = &created.file().0;
        file.file
            .set_len(bytes)
            .map_err(|error| StoreError::io("making room for a result", error))?;
        connection.execute(
            "INSERT INTO jobs
             (job, header, submitted_ms, token, a, b, file, counter, coordinator, tiles)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                &job.0[..],
                pack(header),
                taken.submitted.0 as i64,
                &taken.token.0[..],
                &a.0[..],
                &b.0[..],
                file.name,
                epoch.counter as i64,
                &epoch.device.0[..],
                header.tiling.len() as i64,
            ],
        )?;
        Ok(created)
    }

    fn file(&self) -> &(Arc<ResultFile>, Reservation) {
        let entry = self.entry.as_ref().expect("not kept yet");
        entry.file.as_ref().expect("a new job has a file")
    }

    /// The row is committed: the job takes its place in the catalog.
    pub(crate) fn keep(mut self, shared: &Shared) {
        let entry = self.entry.take().expect("kept once");
        let mut catalog = lock(&shared.catalog);
        catalog.pin(entry.a);
        catalog.pin(entry.b);
        let before = catalog.jobs.insert(self.job, entry);
        assert!(before.is_none(), "a job is taken once");
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if let Some((file, _)) = self.entry.take().and_then(|entry| entry.file) {
            file.directory.remove(&file.name);
        }
    }
}

fn entry(
    header: &JobHeader,
    a: gemmesh_protocol::id::MatrixId,
    b: gemmesh_protocol::id::MatrixId,
    file: ResultFile,
    reservation: Reservation,
) -> JobEntry {
    JobEntry {
        bound: header.is_bound(),
        tiling: header.tiling,
        element: header.element,
        a,
        b,
        operand_bytes: header.a.bytes().max(header.b.bytes()),
        ended: None,
        result: None,
        file: Some((Arc::new(file), reservation)),
    }
}

/// Whether tiles are cut along the blocks of C, as the file of the result needs it.
fn has_whole_blocks(header: &JobHeader) -> bool {
    let tiling = &header.tiling;
    let grid = Grid::new(tiling.rows, tiling.cols, header.element);
    let fits = |tile: u64, block: u64, all: u64| tile.is_multiple_of(block) || tile >= all;
    fits(tiling.tile_rows, grid.block_rows(), tiling.rows)
        && fits(tiling.tile_cols, grid.block_cols(), tiling.cols)
}
