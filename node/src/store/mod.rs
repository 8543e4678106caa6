//! What a node keeps: matrices, jobs, the tiles of their results. A `kill -9` at any moment leaves
//! a store that opens and has everything that was acknowledged.
//!
//! ```text
//! DIR/store.lock      held while a node uses DIR
//! DIR/store.db        SQLite (WAL, synchronous=FULL): manifests, jobs, records of tiles, tombstones
//! DIR/blocks/…        one file for each matrix: its blocks in the order of the manifest;
//!                     `matrix-…` was imported or converted, `result-…` is or was a job's product
//! ```
//! The directories are readable by their owner alone.
//!
//! Order of writes: a block file gets a name that was never used, its bytes are synced, then its
//! name (the directory), then its row is committed; a file without a row is removed at the next
//! start, so there is no moment at which a row promises what is not there. The product of a job
//! takes its tiles in the file that it keeps when it becomes a matrix: nothing is copied, and
//! block hashes are recorded with each tile, so nothing is read again.
//!
//! SQLite belongs to one writer thread. What waits for it is committed as a group: all bytes of
//! tiles, one sync for each file, and one transaction for tiles, new jobs, results and ends. Block files are read on tokio's blocking
//! threads, and each block's hash is checked whenever it is read.
//!
//! # Codes of errors
//! Besides those of [`crate::files`]: `not_found` (404), `expired` (410), `corrupt` (503),
//! `disk_budget` and `disk_full` (413), `too_many_matrices` (429), `bad_blocks` (422: a transfer
//! between nodes that is not what its manifest says), `data_dir_in_use` (409), `io_error`,
//! `database`, `stopping` (503).

mod budget;
mod catalog;
mod changes;
mod damage;
mod db;
mod draft;
mod error;
mod expiry;
mod group;
mod jobs;
mod keys;
mod layout;
mod mosaic;
mod reader;
mod restore;
mod source;
mod stacks;
#[cfg(test)]
mod tests;
mod tiles;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use gemmesh_protocol::id::MatrixId;
use gemmesh_protocol::matrix::{Dtype, ElementType, Manifest};
use gemmesh_protocol::tile::Rect;
use rusqlite::params;
use serde::Serialize;
use tokio::sync::Semaphore;

pub use error::{Missing, StoreError};
pub use mosaic::{Mosaic, Piece as MosaicPiece};
pub use reader::BlockReader;
pub use stacks::{Piece, Stacked};

use crate::error::ApiError;
use crate::files::export::{self, Export};
use crate::files::number::{self, Width};
use crate::files::picture::{self, Picture};
use crate::files::pieces::Pieces;
use crate::files::{self, Format, PIECE_BYTES, ReadOptions, Sink as _, Source as _, bands};
use crate::memory::{Part, Share, Shares};
use crate::os::wall;
use catalog::Catalog;
pub(crate) use draft::Draft;
use draft::Finished;
pub(crate) use source::MatrixFile;

/// Imports and conversions at a time.
const IMPORTS_MAX: u64 = 4;
/// What one holds: a piece as it is in the file, and as it is stored.
const IMPORT_BYTES: u64 = 2 * PIECE_BYTES;

/// The store of one node. Clones share it; it closes when the last is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    writer: db::Writer,
}

/// What blocking threads and the writer need; it does not keep the writer alive.
struct Shared {
    catalog: Mutex<Catalog>,
    blocks: Arc<layout::Directory>,
    database: PathBuf,
    budget: Arc<budget::Budget>,
    writes: Share,
    /// For what is sorted or parsed in memory.
    sorting: Share,
    sorting_bytes: u64,
    imports: Semaphore,
    pieces: Pieces,
    counters: Arc<tiles::Counters>,
    _lock: layout::DirectoryLock,
}

/// What the store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Time that the writer spent with files of results: their bytes and their syncs.
    pub files: Duration,
    /// Time that it spent with all else: the database.
    pub database: Duration,
    /// Bytes of tiles written.
    pub tile_bytes: u64,
    /// Tiles made durable.
    pub tiles: u64,
    /// Transactions that recorded them.
    pub groups: u64,
    /// Syncs of result files.
    pub syncs: u64,
}

/// What a mutex guards, also after a panic elsewhere: nothing here is left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Imports and conversions at a time: half of what files may take.
fn imports(shares: &Shares) -> usize {
    (shares.files / 2 / IMPORT_BYTES).clamp(1, IMPORTS_MAX) as usize
}

/// MessagePack with field names, so that versions can differ.
fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("records serialise to memory")
}

/// Runs `work` where it may block.
async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends: nobody polls this again.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Tells work that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Store {
    /// Opens the store in `dir`, which is made when it is not there, checks the database and
    /// removes files that nothing refers to. Blocks; at most one store of a directory is open.
    ///
    /// `disk_budget` bounds the bytes of all matrices and results under way;
    /// Of `shares` it takes those of tiles on their way to the disk, of files, and of what an import
    /// sorts in memory.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Database`], or the system's.
    pub fn open(dir: &Path, disk_budget: u64, shares: &Shares) -> Result<Self, StoreError> {
        layout::Directory::create(dir.to_owned())?;
        let lock = layout::DirectoryLock::take(dir)?;
        let blocks = Arc::new(layout::Directory::create(dir.join("blocks"))?);
        let database = dir.join("store.db");
        let connection = db::open(&database, !blocks.is_empty()?)?;
        let budget = budget::Budget::new(disk_budget);
        let counters = Arc::new(tiles::Counters::default());
        let catalog = catalog::load(&connection, &blocks, &budget, &counters)?;
        blocks.sweep(|name| catalog.has_file(name))?;
        let writer = db::Writer::start(connection, counters.clone())
            .map_err(|error| StoreError::io("starting the store's writer", error))?;
        let shared = Arc::new(Shared {
            catalog: Mutex::new(catalog),
            blocks,
            database,
            budget,
            writes: Share::new(shares.writes),
            sorting: Share::new(shares.import),
            sorting_bytes: shares.import,
            imports: Semaphore::new(imports(shares)),
            pieces: Pieces::new(shares.files / 2),
            counters,
            _lock: lock,
        });
        Ok(Self {
            inner: Arc::new(Inner { shared, writer }),
        })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Reads a file into blocks. Durable on return; the same content has the same id and is stored
    /// once. Memory: a few pieces of 4 MiB, for coordinate `.mtx` and JSON up to the share of
    /// imports, one at a time.
    ///
    /// # Errors
    /// With the codes of [`crate::files`], or of this module.
    pub async fn import(
        &self,
        body: &Path,
        format: Format,
        options: ReadOptions,
    ) -> Result<Manifest, ApiError> {
        let (body, memory) = (body.to_owned(), self.shared().sorting_bytes);
        let _room = match format {
            Format::Mtx | Format::Json => Some(self.shared().sorting.take(memory).await),
            Format::Npy | Format::Csv => None,
        };
        self.draft(move |draft| files::read(&body, format, options, memory, draft))
            .await
    }

    /// Waits until JSON of this text may be parsed; until the part is dropped nothing else is parsed or
    /// sorted in memory.
    ///
    /// # Errors
    /// `too_large` when it would take more than there is for such things.
    pub async fn room_to_parse(&self, text: &[u8]) -> Result<Part, ApiError> {
        let most = self.shared().sorting_bytes;
        files::json::check_memory(text, most)?;
        Ok(self.shared().sorting.take(most).await)
    }

    /// Reads small nested arrays of JSON; see [`files::json`].
    ///
    /// # Errors
    /// With the codes of [`crate::files`], or of this module.
    pub async fn import_values(
        &self,
        value: serde_json::Value,
        dtype: Option<Dtype>,
    ) -> Result<Manifest, ApiError> {
        let options = ReadOptions {
            dtype,
            keep_digits: false,
        };
        self.draft(move |draft| files::json::read(&value, options, draft))
            .await
    }

    /// The matrix `id`, and a use of it: its time starts again.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn manifest(&self, id: MatrixId) -> Result<Arc<Manifest>, Missing> {
        lock(&self.shared().catalog)
            .touch(id, wall())
            .map(|entry| entry.manifest.clone())
    }

    /// Whether the matrix `id` is here, as far as is known.
    pub fn has_matrix(&self, id: MatrixId) -> bool {
        let catalog = lock(&self.shared().catalog);
        let entry = catalog.matrices.get(&id);
        entry.is_some_and(|entry| entry.damaged.is_none())
    }

    /// The matrix `id` with elements of type `to`: integers become the nearest float (ties to
    /// even), f64 the nearest f32, floats become integers when all are integral and finite.
    /// Cost: two passes over the matrix; none when it has that type already.
    ///
    /// # Errors
    /// `not_integral` and `not_finite` name the first such element; the codes of this module.
    pub async fn convert(&self, id: MatrixId, to: Dtype) -> Result<Manifest, ApiError> {
        let source = self.file(id).await?;
        if source.manifest.element.dtype == to {
            return Ok(Manifest::clone(&source.manifest));
        }
        let shared = self.shared().clone();
        self.draft(move |draft| {
            convert(source, to, draft).map_err(|error| match error {
                ConvertError::Store(error) => shared.noticed(id, error).into(),
                ConvertError::Api(error) => error,
            })
        })
        .await
    }

    /// Block `index` of the matrix `id`, its hash checked.
    ///
    /// # Errors
    /// [`StoreError::Missing`], also when the hash is wrong, or the system's.
    ///
    /// # Panics
    /// When the matrix has no such block.
    pub async fn read_block(&self, id: MatrixId, index: u32) -> Result<Bytes, StoreError> {
        let blocks = self.read_blocks(id, vec![index]).await?;
        Ok(blocks.into_iter().next().expect("one for each index"))
    }

    /// The blocks `indices` of the matrix `id`, in that order, as [`Store::read_block`].
    ///
    /// # Errors
    /// As for one; none is returned then.
    ///
    /// # Panics
    /// When the matrix has no such block.
    pub async fn read_blocks(
        &self,
        id: MatrixId,
        indices: Vec<u32>,
    ) -> Result<Vec<Bytes>, StoreError> {
        let source = self.file(id).await?;
        let shared = self.shared().clone();
        blocking(move || {
            let read = |index: u32| {
                let mut bytes = Vec::new();
                source
                    .read_block(u64::from(index), &mut bytes)
                    .map_err(|error| shared.noticed(id, error))?;
                Ok(bytes.into())
            };
            indices.into_iter().map(read).collect()
        })
        .await
    }

    /// The matrix `id` as a file, in pieces; the next is read when it is asked for. Memory: a
    /// piece, which is the smaller the more files are being sent. Once begun it goes on although the matrix expires.
    /// Ask [`Store::check_export`] first.
    pub fn export(
        &self,
        id: MatrixId,
        format: Format,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let store = self.clone();
        let shared = self.shared().clone();
        let piece = shared.pieces.take(export::pieces_held(format));
        pieces(
            async move {
                let mut source = store.file(id).await?;
                blocking(move || match export::check(&mut source, format)? {
                    Ok(()) => Export::new(source, format, piece),
                    Err(refused) => Err(StoreError::Refused(refused)),
                })
                .await
            },
            |export: &mut Export<MatrixFile>| Ok(export.next_bytes()?.map(Bytes::from)),
            move |error| shared.noticed(id, error),
        )
    }

    /// Whether the matrix `id` can be written in this form.
    ///
    /// # Errors
    /// `overflows_npy`: integers beyond 64 bits have no `.npy`; the codes of this module.
    pub async fn check_export(&self, id: MatrixId, format: Format) -> Result<(), ApiError> {
        let mut source = self.file(id).await?;
        let shared = self.shared().clone();
        blocking(move || {
            export::check(&mut source, format).map_err(|error| shared.noticed(id, error))?
        })
        .await
    }

    /// A window of the matrix `id` as a picture; see [`picture::draw`].
    ///
    /// # Errors
    /// As [`Store::read_block`].
    ///
    /// # Panics
    /// When the window is empty or not inside the matrix, or has no cell.
    pub async fn picture(
        &self,
        id: MatrixId,
        window: Rect,
        height: usize,
        width: usize,
    ) -> Result<Picture, StoreError> {
        let mut source = self.file(id).await?;
        let shared = self.shared().clone();
        blocking(move || {
            picture::draw(&mut source, window, height, width)
                .map_err(|error| shared.noticed(id, error))
        })
        .await
    }

    /// Bytes that count against the disk budget.
    pub fn disk_used(&self) -> u64 {
        self.shared().budget.used()
    }

    /// What the store has done since it was opened.
    pub fn stats(&self) -> StoreStats {
        let counters = &self.shared().counters;
        StoreStats {
            tiles: counters.tiles.load(Ordering::Relaxed),
            groups: counters.groups.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            tile_bytes: counters.tile_bytes.load(Ordering::Relaxed),
            files: Duration::from_nanos(counters.files.load(Ordering::Relaxed)),
            database: Duration::from_nanos(counters.database.load(Ordering::Relaxed)),
        }
    }

    /// The open file of a matrix.
    async fn file(&self, id: MatrixId) -> Result<MatrixFile, StoreError> {
        let (manifest, name, open) = {
            let mut catalog = lock(&self.shared().catalog);
            let missing = |missing| StoreError::Missing {
                what: format!("the matrix {id}"),
                missing,
            };
            let entry = catalog.touch(id, wall()).map_err(missing)?;
            let (manifest, name) = (entry.manifest.clone(), entry.file.clone());
            let open = catalog.open_file(&name);
            (manifest, name, open)
        };
        if let Some(file) = open {
            return Ok(MatrixFile::new(id, manifest, file));
        }
        let shared = self.shared().clone();
        let path = shared.blocks.file(&name);
        blocking(move || {
            let file = std::fs::File::open(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => shared.noticed(
                    id,
                    StoreError::Missing {
                        what: format!("the matrix {id}"),
                        missing: Missing::Corrupt("its file is gone".to_owned()),
                    },
                ),
                _ => StoreError::io("opening a matrix", error),
            })?;
            let file = Arc::new(file);
            lock(&shared.catalog).keep_open(name, file.clone());
            Ok(MatrixFile::new(id, manifest, file))
        })
        .await
    }

    /// Lets `fill` write a matrix, then keeps it.
    async fn draft<F>(&self, fill: F) -> Result<Manifest, ApiError>
    where
        F: FnOnce(&mut Draft) -> Result<(), ApiError> + Send + 'static,
    {
        let shared = self.shared().clone();
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(cancelled.clone());
        let permit = self.shared().imports.acquire().await;
        let _permit = permit.map_err(|_| StoreError::Closed)?;
        lock(&shared.catalog).check_room()?;
        let finished = blocking(move || -> Result<Finished, ApiError> {
            let mut draft = Draft::new(shared.blocks.clone(), shared.budget.clone(), cancelled);
            fill(&mut draft)?;
            Ok(draft.finish()?)
        })
        .await?;
        Ok(self.keep(finished).await?)
    }

    /// Writes several matrices side by side: all of them durable on return, or none here. `fill` has a draft for each.
    ///
    /// # Errors
    /// With the codes of this module, and those of `fill`.
    pub(crate) async fn write_matrices<F>(
        &self,
        count: usize,
        fill: F,
    ) -> Result<Vec<Manifest>, ApiError>
    where
        F: FnOnce(&mut [Draft]) -> Result<(), ApiError> + Send + 'static,
    {
        let shared = self.shared().clone();
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(cancelled.clone());
        lock(&shared.catalog).check_room()?;
        let finished = blocking(move || -> Result<Vec<Finished>, ApiError> {
            let draft = || {
                Draft::new(
                    shared.blocks.clone(),
                    shared.budget.clone(),
                    cancelled.clone(),
                )
            };
            let mut drafts: Vec<Draft> = (0..count).map(|_| draft()).collect();
            fill(&mut drafts)?;
            let finished = drafts.into_iter().map(Draft::finish);
            Ok(finished.collect::<Result<_, StoreError>>()?)
        })
        .await?;
        let mut manifests = Vec::new();
        for one in finished {
            manifests.push(self.keep(one).await?);
        }
        Ok(manifests)
    }

    /// A matrix, to be read by rectangles.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or the system's.
    pub(crate) async fn source(&self, id: MatrixId) -> Result<MatrixFile, StoreError> {
        self.file(id).await
    }

    /// Removes matrices that no job uses, before their time.
    pub(crate) async fn discard(&self, ids: Vec<MatrixId>) {
        let shared = self.shared().clone();
        let removed = self.inner.writer.run(move |connection| {
            let results = jobs::results(&shared, &[]);
            let ids: Vec<MatrixId> = {
                let catalog = lock(&shared.catalog);
                let unused =
                    |id: &MatrixId| !catalog.pins.contains_key(id) && !results.contains(id);
                ids.into_iter().filter(unused).collect()
            };
            let transaction = connection.transaction()?;
            for id in &ids {
                transaction.execute("DELETE FROM matrices WHERE id = ?1", [&id.0[..]])?;
            }
            transaction.commit()?;
            let mut catalog = lock(&shared.catalog);
            let now = wall();
            let files = ids.iter().filter_map(|id| catalog.remove(*id, now));
            let files: Vec<String> = files.collect();
            drop(catalog);
            files.iter().for_each(|file| shared.blocks.remove(file));
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "matrices that are not needed any more stay until their time is over");
        }
    }

    /// Makes a matrix of a finished file: its row, then its place in the catalog. When the same
    /// content is there already, the file goes.
    async fn keep(&self, finished: Finished) -> Result<Manifest, StoreError> {
        let manifest = finished.manifest.clone();
        let shared = self.shared().clone();
        self.inner
            .writer
            .step(
                {
                    let shared = shared.clone();
                    move |connection| {
                        let id = finished.manifest.id();
                        // Only this thread adds and removes matrices, so the answer stays true; what
                        // comes twice in one transaction is replaced by the second.
                        if lock(&shared.catalog).touch(id, wall()).is_ok() {
                            return Ok(None);
                        }
                        let mut insert = connection.prepare_cached(
                            "INSERT OR REPLACE INTO matrices (id, manifest, file, bytes, used_ms)
                             VALUES (?1, ?2, ?3, ?4, ?5)",
                        )?;
                        insert.execute(params![
                            &id.0[..],
                            pack(&finished.manifest),
                            finished.name(),
                            finished.manifest.bytes() as i64,
                            wall().0 as i64
                        ])?;
                        Ok(Some((id, finished)))
                    }
                },
                move |kept: Option<(MatrixId, Finished)>| {
                    let Some((id, finished)) = kept else {
                        return Ok(());
                    };
                    let (manifest, name, reservation) = finished.keep();
                    let replaced = lock(&shared.catalog).insert(
                        id,
                        Arc::new(manifest),
                        name,
                        reservation,
                        wall(),
                    );
                    if let Some(damaged) = replaced {
                        shared.blocks.remove(&damaged);
                    }
                    Ok(())
                },
            )
            .await?;
        Ok(manifest)
    }
}

impl Shared {
    /// Remembers that a matrix is damaged, so that the next upload of it replaces it.
    fn noticed(&self, id: MatrixId, error: StoreError) -> StoreError {
        if let StoreError::Missing {
            missing: Missing::Corrupt(why),
            ..
        } = &error
        {
            tracing::error!(matrix = %id, why, "a stored matrix is damaged");
            lock(&self.catalog).damaged(id, why);
        }
        error
    }
}

/// A stream whose pieces are made by blocking work, each when it is asked for.
fn pieces<T, B, N, E>(
    begin: B,
    next: N,
    error: E,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send
where
    T: Send + 'static,
    B: Future<Output = Result<T, StoreError>> + Send + 'static,
    N: Fn(&mut T) -> Result<Option<Bytes>, StoreError> + Send + Copy + 'static,
    E: Fn(StoreError) -> StoreError + Send + 'static,
{
    enum State<T, B> {
        Begin(std::pin::Pin<Box<B>>),
        Going(T),
        Ended,
    }
    futures_util::stream::unfold(
        (State::Begin(Box::pin(begin)), error),
        move |(state, error)| async move {
            let begun = match state {
                State::Begin(begin) => begin.await,
                State::Going(going) => Ok(going),
                State::Ended => return None,
            };
            let result = match begun {
                Err(error) => Err(error),
                Ok(mut going) => {
                    blocking(move || Ok(next(&mut going)?.map(|bytes| (bytes, going)))).await
                }
            };
            match result {
                Ok(Some((bytes, going))) => Some((Ok(bytes), (State::Going(going), error))),
                Ok(None) => None,
                Err(failure) => Some((Err(error(failure)), (State::Ended, error))),
            }
        },
    )
}

enum ConvertError {
    Store(StoreError),
    Api(ApiError),
}

/// Writes `source` with elements of type `to`.
fn convert(mut source: MatrixFile, to: Dtype, draft: &mut Draft) -> Result<(), ConvertError> {
    let manifest = source.manifest.clone();
    let (rows, cols, from) = (manifest.rows, manifest.cols, manifest.element);
    let mut bytes = Vec::new();
    let mut limbs = 1;
    if to == Dtype::Int {
        let mut width = Width::default();
        for rect in bands::rectangles(rows, cols, from, PIECE_BYTES, false) {
            source.read(rect, &mut bytes).map_err(ConvertError::Store)?;
            for (i, element) in (0..).zip(bytes.chunks_exact(from.bytes() as usize)) {
                let value = number::decode(element, from);
                let integer = number::convert(value.clone(), to).map_err(|error| {
                    let (row, col) = (rect.row + i / rect.cols, rect.col + i % rect.cols);
                    let mut text = Vec::new();
                    number::print(&value, &mut text);
                    let place = format!("element [{row}, {col}]");
                    ConvertError::Api(files::number_error(error, &place, &text))
                })?;
                width.see(&integer);
            }
        }
        limbs = width.limbs().expect("the largest f64 has 1,024 bits");
    }
    let element = ElementType { dtype: to, limbs };
    draft
        .begin(rows, cols, element)
        .map_err(ConvertError::Api)?;
    let mut converted = Vec::new();
    for rect in bands::rectangles(rows, cols, element, PIECE_BYTES, false) {
        source.read(rect, &mut bytes).map_err(ConvertError::Store)?;
        converted.clear();
        for bytes in bytes.chunks_exact(from.bytes() as usize) {
            let value = number::convert(number::decode(bytes, from), to).expect("checked above");
            number::encode(&value, element, &mut converted);
        }
        draft.write(rect, &converted).map_err(ConvertError::Api)?;
    }
    Ok(())
}
