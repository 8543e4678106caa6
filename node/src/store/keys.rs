//! Private matrices: which tokens open them. A matrix without any is everybody's.
//!
//! One that was sent as private, or is the result of a guarded job, is *sealed*: without a token it can not be
//! a factor either. One that was sent for everybody and is a factor of a guarded job can still be one, by
//! whoever knows its id, but is not handed out.

use gemmesh_protocol::id::{JobId, MatrixId};
use gemmesh_protocol::matrix::Dtype;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Store, StoreError, lock};

/// What is kept of a token.
type Hash = [u8; 32];

fn hash(token: &str) -> Hash {
    *blake3::hash(token.as_bytes()).as_bytes()
}

fn add(
    connection: &Connection,
    matrix: MatrixId,
    token: &Hash,
    sealed: bool,
) -> rusqlite::Result<usize> {
    connection.execute(
        "INSERT INTO private (matrix, token, sealed) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET sealed = max(sealed, excluded.sealed)",
        params![&matrix.0[..], &token[..], sealed],
    )
}

impl Store {
    /// From now on these matrices are given only to who has this token, or another one with which they were
    /// closed; with `sealed` they are factors only for these, too. Durable on return.
    ///
    /// # Errors
    /// The system's.
    pub async fn close(
        &self,
        matrices: Vec<MatrixId>,
        token: &str,
        sealed: bool,
    ) -> Result<(), StoreError> {
        let (token, shared) = (hash(token), self.shared().clone());
        self.inner
            .writer
            .run(move |connection| {
                let transaction = connection.transaction()?;
                for matrix in &matrices {
                    add(&transaction, *matrix, &token, sealed)?;
                }
                transaction.commit()?;
                let mut catalog = lock(&shared.catalog);
                for matrix in matrices {
                    let tokens = catalog.private.entry(matrix).or_default();
                    *tokens.entry(token).or_default() |= sealed;
                }
                Ok(())
            })
            .await
    }

    /// Closes the result of a job with the token of the job. Durable on return.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`], or the system's.
    pub(crate) async fn close_result(
        &self,
        job: JobId,
        result: MatrixId,
    ) -> Result<(), StoreError> {
        let shared = self.shared().clone();
        self.inner
            .writer
            .run(move |connection| {
                let token: Option<Hash> = connection
                    .query_row(
                        "SELECT token FROM jobs WHERE job = ?1",
                        [&job.0[..]],
                        |row| row.get(0),
                    )
                    .optional()?;
                let token = token.ok_or(StoreError::NoSuchJob(job))?;
                add(connection, result, &token, true)?;
                let mut catalog = lock(&shared.catalog);
                let tokens = catalog.private.entry(result).or_default();
                tokens.insert(token, true);
                Ok(())
            })
            .await
    }

    /// Makes a matrix everybody's: somebody sent the same one for everybody. Durable on return.
    ///
    /// # Errors
    /// The system's.
    pub async fn open_to_all(&self, matrix: MatrixId) -> Result<(), StoreError> {
        if !lock(&self.shared().catalog).private.contains_key(&matrix) {
            return Ok(());
        }
        let shared = self.shared().clone();
        self.inner
            .writer
            .run(move |connection| {
                connection.execute("DELETE FROM private WHERE matrix = ?1", [&matrix.0[..]])?;
                lock(&shared.catalog).private.remove(&matrix);
                Ok(())
            })
            .await
    }

    /// Whether a matrix is given to who has `token`. One that is not here is nobody's secret.
    pub fn opens(&self, matrix: MatrixId, token: Option<&str>) -> bool {
        let catalog = lock(&self.shared().catalog);
        let entry = catalog.matrices.get(&matrix);
        if entry.is_some_and(|entry| entry.manifest.element.dtype == Dtype::Residues) {
            // A share, which goes to its device alone.
            return false;
        }
        match (catalog.private.get(&matrix), token) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(tokens), Some(token)) => {
                let given = blake3::hash(token.as_bytes());
                // In constant time.
                tokens
                    .keys()
                    .any(|known| blake3::Hash::from_bytes(*known) == given)
            }
        }
    }

    /// Whether a matrix can be a factor for who has `token`.
    pub fn is_usable(&self, matrix: MatrixId, token: Option<&str>) -> bool {
        let sealed = {
            let catalog = lock(&self.shared().catalog);
            let share = catalog
                .matrices
                .get(&matrix)
                .is_some_and(|entry| entry.manifest.element.dtype == Dtype::Residues);
            let tokens = catalog.private.get(&matrix);
            share || tokens.is_some_and(|tokens| tokens.values().any(|sealed| *sealed))
        };
        !sealed || self.opens(matrix, token)
    }

    /// Whether only its coordinator and the devices of its shares may have anything of a job.
    pub fn is_bound(&self, job: JobId) -> bool {
        let catalog = lock(&self.shared().catalog);
        catalog.jobs.get(&job).is_some_and(|entry| entry.bound)
    }
}
