//! What waits for the disk, made durable together: all bytes, one sync for each file, one
//! transaction for all records.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, Transaction, params};
use tokio::sync::oneshot;

use super::StoreError;
use super::changes::Change;
use super::lock;
use super::tiles::{ResultFile, TileWrite};

/// One thing to make durable.
pub(crate) enum Write {
    /// A tile.
    Tile(TileWrite),
    /// Something of a job.
    Change(Change),
    /// Something else in the database.
    Step(Box<dyn Step>),
    /// A step that nobody waits for: it may wait a little for others.
    LazyStep(Box<dyn Step>),
}

/// A change of the database that shares its transaction with others.
pub(crate) trait Step: Send {
    /// Makes it in the caller's transaction.
    fn apply(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// It is durable: what is in memory follows, and who asked is answered.
    fn succeed(self: Box<Self>);
    /// It was not made.
    fn fail(self: Box<Self>, error: StoreError);
}

/// A step of two closures: what it does to the database, what follows once that is durable.
pub(crate) struct Steps<A, K, T, R> {
    apply: Option<A>,
    keep: K,
    made: Option<T>,
    answer: oneshot::Sender<Result<R, StoreError>>,
}

impl<A, K, T, R> Steps<A, K, T, R> {
    pub(crate) fn new(apply: A, keep: K, answer: oneshot::Sender<Result<R, StoreError>>) -> Self {
        Self {
            apply: Some(apply),
            keep,
            made: None,
            answer,
        }
    }
}

impl<A, K, T, R> Step for Steps<A, K, T, R>
where
    A: FnOnce(&Connection) -> Result<T, StoreError> + Send,
    K: FnOnce(T) -> Result<R, StoreError> + Send,
    T: Send,
    R: Send,
{
    fn apply(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let apply = self.apply.take().expect("a step is made once");
        self.made = Some(apply(connection)?);
        Ok(())
    }

    fn succeed(self: Box<Self>) {
        let kept = (self.keep)(self.made.expect("it was made"));
        // Whoever asked may have gone.
        let _ = self.answer.send(kept);
    }

    fn fail(self: Box<Self>, error: StoreError) {
        // What was made is dropped first: it takes back what it did outside the database.
        drop(self.made);
        let _ = self.answer.send(Err(error));
    }
}

/// A change or a step: they keep their order.
enum Small {
    Change(Box<Change>),
    Step(Box<dyn Step>),
}

impl Small {
    fn apply(&mut self, connection: &Connection) -> Result<(), StoreError> {
        match self {
            Small::Change(change) => change.apply(connection),
            Small::Step(step) => step.apply(connection),
        }
    }

    fn succeed(self) {
        match self {
            Small::Change(change) => change.succeed(),
            Small::Step(step) => step.succeed(),
        }
    }

    fn fail(self, error: StoreError) {
        match self {
            Small::Change(change) => change.fail(error),
            Small::Step(step) => step.fail(error),
        }
    }
}

impl Write {
    /// Bytes of bulk data.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Write::Tile(tile) => tile.bytes(),
            Write::Change(_) | Write::Step(_) | Write::LazyStep(_) => 0,
        }
    }

    /// Nobody waits for it: alone it is not worth a transaction at once.
    pub(crate) fn is_lazy(&self) -> bool {
        match self {
            Write::Tile(_) | Write::Step(_) => false,
            Write::Change(change) => change.is_lazy(),
            Write::LazyStep(_) => true,
        }
    }
}

/// Makes a group durable and answers each. Changes come before tiles, in their order. A tile that
/// is recorded already is left as it is, unless the new one replaces it.
pub(crate) fn commit(connection: &mut Connection, group: Vec<Write>) {
    let (mut tiles, mut changes) = (Vec::new(), Vec::new());
    let mut twins = Vec::new();
    for write in group {
        match write {
            Write::Change(change) => changes.push(Small::Change(Box::new(change))),
            Write::Step(step) | Write::LazyStep(step) => changes.push(Small::Step(step)),
            Write::Tile(tile) if tiles.iter().any(|other| tile.is_twin(other)) => {
                twins.push(Write::Tile(tile));
            }
            Write::Tile(tile) => tiles.push(tile),
        }
    }
    let tiles = written(forget_replaced(connection, tiles));
    if !tiles.is_empty() {
        let counters = &tiles[0].file.counters;
        counters.groups.fetch_add(1, Ordering::Relaxed);
    }
    if !tiles.is_empty() || !changes.is_empty() {
        record(connection, tiles, changes);
    }
    if !twins.is_empty() {
        // What came first is durable or has failed by now.
        commit(connection, twins);
    }
}

/// Leaves the tiles that are to be written; the records of bytes that they replace are gone then,
/// durably, so that a crash can not leave a record of bytes that are half overwritten.
fn forget_replaced(connection: &mut Connection, tiles: Vec<TileWrite>) -> Vec<TileWrite> {
    let (mut new, mut replacing) = (Vec::new(), Vec::new());
    for tile in tiles {
        match tile.durable() {
            None => new.push(tile),
            Some(there) if there == tile.digest || !tile.replaces => tile.answer(Ok(there)),
            Some(_) => replacing.push(tile),
        }
    }
    if replacing.is_empty() {
        return new;
    }
    let mut forget = || -> Result<(), StoreError> {
        let transaction = connection.transaction()?;
        for tile in &replacing {
            transaction.execute(
                "DELETE FROM tiles WHERE job = ?1 AND tile = ?2",
                params![&tile.file.job.0[..], tile.done.tile],
            )?;
        }
        Ok(transaction.commit()?)
    };
    match forget() {
        Ok(()) => {
            for tile in &replacing {
                lock(&tile.file.done).remove(&tile.done.tile);
            }
            new.append(&mut replacing);
        }
        Err(error) => {
            for tile in replacing {
                tile.answer(Err(again(&error)));
            }
        }
    }
    new
}

/// Writes the bytes of tiles and syncs their files; leaves those for which that went well.
fn written(tiles: Vec<TileWrite>) -> Vec<TileWrite> {
    let mut written: Vec<TileWrite> = Vec::new();
    for tile in tiles {
        match tile.file.counters.with_files(|| tile.write()) {
            Err(error) => tile.answer(Err(error)),
            Ok(()) => written.push(tile),
        }
    }
    let mut synced: Vec<(Arc<ResultFile>, Result<(), StoreError>)> = Vec::new();
    for tile in &written {
        if !synced.iter().any(|(file, _)| Arc::ptr_eq(file, &tile.file)) {
            let result = tile.file.counters.with_files(|| tile.sync());
            synced.push((tile.file.clone(), result));
        }
    }
    name(&mut synced);
    let mut durable = Vec::new();
    for tile in written {
        let of_file = |(file, _): &&(Arc<ResultFile>, _)| Arc::ptr_eq(file, &tile.file);
        match synced.iter().find(of_file).map(|(_, result)| result) {
            Some(Err(error)) => {
                let error = again(error);
                tile.answer(Err(error));
            }
            _ => durable.push(tile),
        }
    }
    durable
}

/// Makes the names of new files durable, all with one sync.
fn name(synced: &mut [(Arc<ResultFile>, Result<(), StoreError>)]) {
    let new = |file: &ResultFile| !file.named.load(Ordering::Relaxed);
    let mut unnamed = synced
        .iter_mut()
        .filter(|(file, result)| result.is_ok() && new(file));
    let Some((first, _)) = unnamed.next() else {
        return;
    };
    let first = first.clone();
    let named = first.counters.with_files(|| first.directory.sync());
    for (file, result) in synced.iter_mut() {
        if result.is_ok() && new(file) {
            match &named {
                Ok(()) => file.named.store(true, Ordering::Relaxed),
                Err(error) => {
                    let error = std::io::Error::new(error.kind(), error.to_string());
                    *result = Err(StoreError::io("making a tile durable", error));
                }
            }
        }
    }
}

/// Records all in one transaction. A change that fails leaves the others as they are.
fn record(connection: &mut Connection, tiles: Vec<TileWrite>, changes: Vec<Small>) {
    let mut applied = Vec::new();
    let recorded =
        connection
            .transaction()
            .map_err(StoreError::from)
            .and_then(|mut transaction| {
                for mut change in changes {
                    match apply(&mut transaction, &mut change) {
                        Ok(()) => applied.push(change),
                        Err(error) => change.fail(error),
                    }
                }
                for tile in &tiles {
                    tile.record(&transaction)?;
                }
                Ok(transaction.commit()?)
            });
    match recorded {
        Ok(()) => {
            applied.into_iter().for_each(Small::succeed);
            tiles.into_iter().for_each(TileWrite::succeed);
        }
        Err(error) => {
            for change in applied {
                change.fail(again(&error));
            }
            for tile in tiles {
                tile.answer(Err(again(&error)));
            }
        }
    }
}

fn apply(transaction: &mut Transaction<'_>, change: &mut Small) -> Result<(), StoreError> {
    // Dropped without commit, it takes back what was done.
    let savepoint = transaction.savepoint()?;
    change.apply(&savepoint)?;
    Ok(savepoint.commit()?)
}

/// The same failure for one more caller.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::DiskFull => StoreError::DiskFull,
        StoreError::Io { doing, error } => StoreError::Io {
            doing: doing.clone(),
            error: std::io::Error::new(error.kind(), error.to_string()),
        },
        StoreError::Database(why) => StoreError::Database(why.clone()),
        StoreError::Damaged(why) => StoreError::Damaged(why.clone()),
        error => StoreError::Database(error.to_string()),
    }
}
