//! SQLite: the schema, and the one thread that has the connection.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::tiles::{self, TileWrite};

/// Commands that may wait: enough for every slot and link of a busy node to have one, and few
/// enough that nothing waits for long. Who comes later waits for a place.
const QUEUE: usize = 256;
/// Bytes of tiles committed at once.
const GROUP_BYTES: usize = 128 << 20;
/// The oldest SQLite without the fault that could corrupt a database when its write-ahead log
/// was reset.
const SQLITE_MIN: i32 = 3_051_003;

/// Each entry takes the schema from its index to the next; none is ever changed.
const MIGRATIONS: &[&str] = &["
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
"];

/// Opens the database, brings its schema up to date and checks it. An empty one is a new one only
/// if there are no blocks (`has_blocks`): else it was cut short, and to go on would remove them.
pub(crate) fn open(path: &Path, has_blocks: bool) -> Result<Connection, StoreError> {
    assert!(
        rusqlite::version_number() >= SQLITE_MIN,
        "SQLite {} is too old",
        rusqlite::version()
    );
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Database(verdict));
    }
    migrate(&mut connection, has_blocks)?;
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
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

enum Command {
    Tile(Box<TileWrite>),
    Run(Job),
}

/// The thread that owns the connection. It ends, after all that waits, when this is dropped.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Command>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(mut connection: Connection) -> std::io::Result<Self> {
        let (queue, mut commands) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                let mut next = commands.blocking_recv();
                while let Some(command) = next.take() {
                    match command {
                        Command::Run(job) => job(&mut connection),
                        Command::Tile(tile) => {
                            // Everything that waits is committed together: the slower the disk,
                            // the larger the group.
                            let mut bytes = tile.bytes();
                            let mut group = vec![*tile];
                            while bytes < GROUP_BYTES {
                                match commands.try_recv() {
                                    Ok(Command::Tile(tile)) => {
                                        bytes += tile.bytes();
                                        group.push(*tile);
                                    }
                                    Ok(command) => {
                                        next = Some(command);
                                        break;
                                    }
                                    Err(_) => break,
                                }
                            }
                            tiles::commit(&mut connection, group);
                        }
                    }
                    next = next.or_else(|| commands.blocking_recv());
                }
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    fn queue(&self) -> &mpsc::Sender<Command> {
        self.queue.as_ref().expect("open until dropped")
    }

    /// Commands that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        QUEUE - self.queue().capacity()
    }

    /// Queues a tile; it answers for itself.
    pub(crate) async fn tile(&self, tile: TileWrite) -> Result<(), StoreError> {
        let command = Command::Tile(Box::new(tile));
        self.queue()
            .send(command)
            .await
            .map_err(|_| StoreError::Closed)
    }

    /// Runs `job` on the connection. It runs to its end even when nobody waits any more.
    pub(crate) async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Whoever asked may have gone.
            let _ = answer.send(job(connection));
        });
        let command = Command::Run(job);
        self.queue()
            .send(command)
            .await
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
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

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was reported when it happened; its callers got `Closed`.
            let _ = thread.join();
        }
    }
}
