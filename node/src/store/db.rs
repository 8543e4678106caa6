//! SQLite: the schema, and the one thread that has the connection.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gemmesh_protocol::id::BlockId;
use gemmesh_protocol::job::JobHeader;
use rusqlite::{Connection, Transaction, params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::catalog::unpack;
use super::group::{self, Steps, Write};
use super::tiles::Counters;
use super::{StoreError, damage};

/// Commands that may wait: enough for every slot and link of a busy node to have one, and few
/// enough that nothing waits for long. Who comes later waits for a place.
const QUEUE: usize = 256;
/// Bytes of tiles committed at once; [`crate::memory::Shares::writes`] may allow fewer.
const GROUP_BYTES: usize = 128 << 20;
/// How long a write that nobody waits for may wait for others, and how many may.
const LAZY: Duration = Duration::from_millis(10);
/// See [`LAZY`].
const LAZY_MAX: usize = 64;
/// How long a connection waits for another.
pub(crate) const BUSY: Duration = Duration::from_secs(5);
/// The oldest SQLite without the fault that could corrupt a database when its write-ahead log
/// was reset.
const SQLITE_MIN: i32 = 3_051_003;

/// Each entry takes the schema from its index to the next; none is ever changed.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE matrices (
        id BLOB PRIMARY KEY, manifest BLOB NOT NULL, file TEXT NOT NULL UNIQUE,
        bytes INTEGER NOT NULL, used_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE jobs (
        job BLOB PRIMARY KEY, header BLOB NOT NULL, submitted_ms INTEGER NOT NULL,
        token BLOB NOT NULL, a BLOB NOT NULL, b BLOB NOT NULL, file TEXT NOT NULL,
        result BLOB, status BLOB, ended_ms INTEGER
    ) STRICT;
    CREATE TABLE tiles (
        number INTEGER PRIMARY KEY, job BLOB NOT NULL, tile INTEGER NOT NULL,
        device BLOB NOT NULL, work BLOB NOT NULL, hashes BLOB, bits INTEGER NOT NULL,
        UNIQUE (job, tile)
    ) STRICT;
    CREATE TABLE contributors (
        number INTEGER PRIMARY KEY, job BLOB NOT NULL, device BLOB NOT NULL,
        record BLOB NOT NULL, UNIQUE (job, device)
    ) STRICT;
    CREATE TABLE tombstones (id BLOB PRIMARY KEY, since_ms INTEGER NOT NULL) STRICT;
",
    "
    ALTER TABLE jobs ADD COLUMN counter INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE jobs ADD COLUMN coordinator BLOB;
    ALTER TABLE jobs ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN backups BLOB;
    ALTER TABLE jobs ADD COLUMN ending BLOB;
    ALTER TABLE jobs ADD COLUMN tiles INTEGER;
    ALTER TABLE tiles ADD COLUMN digest BLOB;
    CREATE TABLE recorded (
        number INTEGER PRIMARY KEY, job BLOB NOT NULL, tile INTEGER NOT NULL,
        device BLOB NOT NULL, work BLOB NOT NULL, digest BLOB NOT NULL, UNIQUE (job, tile)
    ) STRICT;
    CREATE TABLE holders (
        job BLOB NOT NULL, tile INTEGER NOT NULL, device BLOB NOT NULL,
        PRIMARY KEY (job, tile, device)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE moments (
        number INTEGER PRIMARY KEY, job BLOB NOT NULL, at REAL NOT NULL, moment BLOB NOT NULL,
        UNIQUE (job, moment)
    ) STRICT;
",
    "
    CREATE INDEX matrices_sum ON matrices (row_sum(id, manifest, file, bytes, used_ms));
    CREATE INDEX jobs_sum ON jobs (row_sum(
        job, header, submitted_ms, token, a, b, file, result, status, ended_ms, counter,
        coordinator, sequence, backups, ending, tiles
    ));
    CREATE INDEX tiles_sum ON tiles (row_sum(job, tile, device, work, hashes, bits, digest));
    CREATE INDEX contributors_sum ON contributors (row_sum(job, device, record));
    CREATE INDEX tombstones_sum ON tombstones (row_sum(id, since_ms));
    CREATE INDEX recorded_sum ON recorded (row_sum(job, tile, device, work, digest));
    CREATE INDEX holders_sum ON holders (row_sum(job, tile, device));
    CREATE INDEX moments_sum ON moments (row_sum(job, at, moment));
",
    // For people only, so it is not in the row's sum.
    "
    ALTER TABLE tiles ADD COLUMN at_ms INTEGER;
",
    "
    CREATE TABLE private (
        matrix BLOB NOT NULL, token BLOB NOT NULL, sealed INTEGER NOT NULL,
        PRIMARY KEY (matrix, token)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX private_sum ON private (row_sum(matrix, token, sealed));
",
];
/// The tables that have rows of jobs.
pub(crate) const TABLES_OF_JOBS: [&str; 6] = [
    "jobs",
    "tiles",
    "contributors",
    "recorded",
    "holders",
    "moments",
];

/// Opens the database, brings its schema up to date and checks it. An empty one is a new one only
/// if there are no blocks (`has_blocks`): else it was cut short, and to go on would remove them.
pub(crate) fn open(path: &Path, has_blocks: bool) -> Result<Connection, StoreError> {
    assert!(
        rusqlite::version_number() >= SQLITE_MIN,
        "SQLite {} is too old",
        rusqlite::version()
    );
    damage::check_log(&path.with_extension("db-wal"))?;
    let mut connection = Connection::open(path)?;
    damage::add_functions(&connection)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    damage::check_rows(&connection)?;
    migrate(&mut connection, has_blocks)?;
    check_schema(&connection)?;
    // The next log is a new one: what a crash left behind the end of this is not taken for damage
    // later. On a full disk it stays as it is.
    let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = emptied {
        tracing::debug!(%error, "the database's log stays");
    }
    Ok(connection)
}

fn migrate(connection: &mut Connection, has_blocks: bool) -> Result<(), StoreError> {
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let Some(missing) = MIGRATIONS.get(version as usize..) else {
        return Err(StoreError::Database(format!(
            "it is of a newer gemmesh (schema {version}, this one knows {})",
            MIGRATIONS.len()
        )));
    };
    if version == 0 && has_blocks {
        return Err(StoreError::Database(
            "it is empty although the directory `blocks` beside it is not; to start afresh, \
             remove that directory"
                .to_owned(),
        ));
    }
    for (migration, version) in missing.iter().zip(version + 1..) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        if version == 2 {
            fill_in(&transaction)?;
        }
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Checks that the schema is the one that the migrations make: a column with another name would only be missed
/// by some questions.
fn check_schema(connection: &Connection) -> Result<(), StoreError> {
    let right = Connection::open_in_memory()?;
    damage::add_functions(&right)?;
    for migration in MIGRATIONS {
        right.execute_batch(migration)?;
    }
    match schema(&right)? == schema(connection)? {
        true => Ok(()),
        false => Err(StoreError::Damaged(
            "its tables are not those of its version".to_owned(),
        )),
    }
}

/// Names and definitions of tables and indexes, without the spaces in which they may differ.
fn schema(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT type || name || tbl_name || sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let without = |text: String| text.split_whitespace().collect::<String>();
    rows.map(|row| row.map(without)).collect()
}

/// What was not kept before: the numbers of tiles of jobs, and the digests of tiles (those of
/// results that are matrices already come from the manifest).
fn fill_in(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let mut jobs = transaction.prepare("SELECT job, header FROM jobs")?;
    let mut rows = jobs.query([])?;
    while let Some(row) = rows.next()? {
        let header: JobHeader = unpack(&row.get::<_, Vec<u8>>(1)?)?;
        transaction.execute(
            "UPDATE jobs SET tiles = ?2 WHERE job = ?1",
            params![row.get::<_, Vec<u8>>(0)?, header.tiling.len() as i64],
        )?;
    }
    let mut tiles =
        transaction.prepare("SELECT number, hashes FROM tiles WHERE hashes IS NOT NULL")?;
    let mut rows = tiles.query([])?;
    while let Some(row) = rows.next()? {
        let digest = BlockId::of(&row.get::<_, Vec<u8>>(1)?);
        transaction.execute(
            "UPDATE tiles SET digest = ?2 WHERE number = ?1",
            params![row.get::<_, i64>(0)?, &digest.0[..]],
        )?;
    }
    Ok(())
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

enum Command {
    Write(Box<Write>),
    Run(Job),
}

/// A command, and its place in the queue; what is posted needs none.
type Queued = (Command, Option<OwnedSemaphorePermit>);

/// Writes that nobody waits for, until something else is committed or their time has come.
#[derive(Default)]
struct Lazy {
    writes: Vec<Write>,
    due: Option<Instant>,
}

impl Lazy {
    fn takes(&self, write: &Write) -> bool {
        write.is_lazy() && self.writes.len() < LAZY_MAX
    }

    fn push(&mut self, write: Write) {
        self.due.get_or_insert_with(|| Instant::now() + LAZY);
        self.writes.push(write);
    }

    fn take(&mut self) -> Vec<Write> {
        self.due = None;
        std::mem::take(&mut self.writes)
    }

    fn commit(&mut self, connection: &mut Connection) {
        let writes = self.take();
        if !writes.is_empty() {
            group::commit(connection, writes);
        }
    }
}

/// The thread that owns the connection. It ends, after all that waits, when this is dropped.
pub(crate) struct Writer {
    queue: Option<mpsc::UnboundedSender<Queued>>,
    places: Arc<Semaphore>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(
        mut connection: Connection,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        let (queue, mut commands) = mpsc::unbounded_channel::<Queued>();
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                // A command gives its place back when its turn has come.
                let taken = |queued: Queued| queued.0;
                let mut next = None;
                let mut lazy = Lazy::default();
                loop {
                    let command = match (next.take(), lazy.due) {
                        (Some(command), _) => Some(command),
                        (None, None) => commands.blocking_recv().map(taken),
                        (None, Some(due)) => {
                            let due = tokio::time::Instant::from_std(due);
                            let waiting =
                                async { tokio::time::timeout_at(due, commands.recv()).await };
                            match clock.block_on(waiting) {
                                Ok(command) => command.map(taken),
                                Err(_) => {
                                    counters.as_writer(|| lazy.commit(&mut connection));
                                    continue;
                                }
                            }
                        }
                    };
                    match command {
                        None => {
                            counters.as_writer(|| lazy.commit(&mut connection));
                            return;
                        }
                        Some(Command::Run(job)) => counters.as_writer(|| {
                            lazy.commit(&mut connection);
                            job(&mut connection);
                        }),
                        Some(Command::Write(write)) if lazy.takes(&write) => lazy.push(*write),
                        Some(Command::Write(write)) => {
                            // Everything that waits is committed together: the slower the disk,
                            // the larger the group.
                            let mut bytes = write.bytes();
                            let mut group = lazy.take();
                            group.push(*write);
                            while bytes < GROUP_BYTES {
                                match commands.try_recv().map(taken) {
                                    Ok(Command::Write(write)) => {
                                        bytes += write.bytes();
                                        group.push(*write);
                                    }
                                    Ok(command) => {
                                        next = Some(command);
                                        break;
                                    }
                                    Err(_) => break,
                                }
                            }
                            counters.as_writer(|| group::commit(&mut connection, group));
                        }
                    }
                }
            })?;
        Ok(Self {
            queue: Some(queue),
            places: Arc::new(Semaphore::new(QUEUE)),
            thread: Some(thread),
        })
    }

    fn send(
        &self,
        command: Command,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().expect("open until dropped");
        queue.send((command, place)).map_err(|_| StoreError::Closed)
    }

    /// Commands that wait for their turn, without those that were posted.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        QUEUE - self.places.available_permits()
    }

    async fn place(&self) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
        let place = self.places.clone().acquire_owned().await;
        place.map(Some).map_err(|_| StoreError::Closed)
    }

    /// Queues a write as soon as there is a place; it answers for itself.
    pub(crate) async fn write(&self, write: Write) -> Result<(), StoreError> {
        let place = self.place().await?;
        self.send(Command::Write(Box::new(write)), place)
    }

    /// Queues a small write at once, so that those of one caller are done in its order; it answers
    /// for itself.
    pub(crate) fn post(&self, write: Write) -> Result<(), StoreError> {
        self.send(Command::Write(Box::new(write)), None)
    }

    /// Makes a change that shares its transaction with what else waits; `keep` follows once it is
    /// durable, on the same thread. Queued before this returns; it may wait for others for 10 ms.
    pub(crate) fn post_step<T, R, A, K>(
        &self,
        apply: A,
        keep: K,
    ) -> impl Future<Output = Result<R, StoreError>> + Send + use<T, R, A, K>
    where
        T: Send + 'static,
        R: Send + 'static,
        A: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        K: FnOnce(T) -> Result<R, StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let sent = self.post(Write::LazyStep(Box::new(Steps::new(apply, keep, answer))));
        async move {
            sent?;
            result.await.map_err(|_| StoreError::Closed)?
        }
    }

    /// [`Writer::post_step`], as soon as there is a place.
    pub(crate) async fn step<T, R, A, K>(&self, apply: A, keep: K) -> Result<R, StoreError>
    where
        T: Send + 'static,
        R: Send + 'static,
        A: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        K: FnOnce(T) -> Result<R, StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.write(Write::Step(Box::new(Steps::new(apply, keep, answer))))
            .await?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `job` on the connection. It runs to its end even when nobody waits any more.
    pub(crate) async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let place = self.place().await?;
        let (command, result) = run(job);
        self.send(command, place)?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// [`Writer::run`], queued before this returns.
    pub(crate) fn post_run<T, F>(
        &self,
        job: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (command, result) = run(job);
        let sent = self.send(command, None);
        async move {
            sent?;
            result.await.map_err(|_| StoreError::Closed)?
        }
    }

    /// Runs `job` in a transaction.
    pub(crate) async fn transaction<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let result = job(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
    }
}

type Answer<T> = oneshot::Receiver<Result<T, StoreError>>;

fn run<T, F>(job: F) -> (Command, Answer<T>)
where
    T: Send + 'static,
    F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
{
    let (answer, result) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        // Whoever asked may have gone.
        let _ = answer.send(job(connection));
    });
    (Command::Run(job), result)
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was reported when it happened; its callers got `Closed`.
            let _ = thread.join();
        }
    }
}
