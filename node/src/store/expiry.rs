//! The end of things: jobs some time after they ended, matrices some time after their last use.

use std::time::Duration;

use gemmesh_protocol::id::{JobId, MatrixId};
use gemmesh_protocol::time::WallTime;
use rusqlite::{Connection, params};

use super::db::TABLES_OF_JOBS;
use super::{Store, jobs, lock};

/// How long it is remembered that something expired.
const TOMBSTONE_MS: u64 = 24 * 60 * 60 * 1_000;
/// How many of these are remembered; the oldest are forgotten first.
const TOMBSTONES_MAX: usize = 200_000;

/// Remembers that the time of a job or matrix is over.
pub(super) fn bury(connection: &Connection, id: &[u8], now: WallTime) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO tombstones (id, since_ms) VALUES (?1, ?2)",
        params![id, now.0 as i64],
    )?;
    Ok(())
}

impl Store {
    /// Removes jobs that ended `ttl` ago or earlier (and returns them) and matrices that nothing
    /// used for `ttl`, and frees their room. Operands of jobs under way stay, and results as long
    /// as their job. What is removed answers [`super::Missing::Expired`] for a day. Downloads that
    /// have begun go on. Also makes the times of use durable, so call it every few minutes.
    ///
    /// When the database fails nothing is removed, the failure is logged and none is returned.
    pub async fn expire(&self, now: WallTime, ttl: Duration) -> Vec<JobId> {
        let shared = self.shared().clone();
        let expired = self
            .inner
            .writer
            .run(move |connection| {
                let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                let over = |since: WallTime| since.0.saturating_add(ttl_ms) <= now.0;
                let (gone_jobs, touched) = {
                    let mut catalog = lock(&shared.catalog);
                    let gone: Vec<JobId> = catalog
                        .jobs
                        .iter()
                        .filter(|(_, job)| job.ended.is_some_and(over))
                        .map(|(id, _)| *id)
                        .collect();
                    let touched: Vec<(MatrixId, WallTime)> = catalog
                        .matrices
                        .iter_mut()
                        .filter_map(|(id, entry)| {
                            std::mem::take(&mut entry.touched).then_some((*id, entry.used))
                        })
                        .collect();
                    (gone, touched)
                };
                let results = jobs::results(&shared, &gone_jobs);
                let gone_matrices: Vec<MatrixId> = {
                    let catalog = lock(&shared.catalog);
                    let gone = catalog.matrices.iter().filter(|(id, entry)| {
                        !catalog.pins.contains_key(*id)
                            && over(entry.used)
                            && !results.contains(*id)
                    });
                    gone.map(|(id, _)| *id).collect()
                };
                let forgotten = {
                    let catalog = lock(&shared.catalog);
                    let mut times: Vec<u64> = catalog.tombstones.values().map(|t| t.0).collect();
                    let surplus = times.len().saturating_sub(TOMBSTONES_MAX);
                    times.sort_unstable();
                    let oldest = surplus.checked_sub(1).map_or(0, |last| times[last]);
                    now.0.saturating_sub(TOMBSTONE_MS).max(oldest)
                };
                let transaction = connection.transaction()?;
                for (id, used) in touched {
                    transaction.execute(
                        "UPDATE matrices SET used_ms = ?2 WHERE id = ?1",
                        params![&id.0[..], used.0 as i64],
                    )?;
                }
                transaction.execute(
                    "DELETE FROM tombstones WHERE since_ms <= ?1",
                    [forgotten as i64],
                )?;
                for job in &gone_jobs {
                    for table in TABLES_OF_JOBS {
                        transaction.execute(
                            &format!("DELETE FROM {table} WHERE job = ?1"),
                            [&job.0[..]],
                        )?;
                    }
                }
                for id in &gone_matrices {
                    transaction.execute("DELETE FROM matrices WHERE id = ?1", [&id.0[..]])?;
                    transaction.execute("DELETE FROM private WHERE matrix = ?1", [&id.0[..]])?;
                }
                let ids = gone_jobs.iter().map(|job| &job.0[..]);
                for id in ids.chain(gone_matrices.iter().map(|id| &id.0[..])) {
                    bury(&transaction, id, now)?;
                }
                transaction.commit()?;
                let mut catalog = lock(&shared.catalog);
                catalog.tombstones.retain(|_, since| since.0 > forgotten);
                for job in &gone_jobs {
                    catalog.jobs.remove(job);
                    catalog.tombstones.insert(job.0.to_vec(), now);
                }
                let files: Vec<String> = gone_matrices
                    .iter()
                    .filter_map(|id| catalog.remove(*id, now))
                    .collect();
                drop(catalog);
                for file in files {
                    shared.blocks.remove(&file);
                }
                Ok(gone_jobs)
            })
            .await;
        expired.unwrap_or_else(|error| {
            tracing::error!(%error, "what is over its time could not be removed");
            Vec::new()
        })
    }
}
