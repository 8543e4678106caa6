//! Copies of tiles and matrices from other nodes: a few at a time, tiles first, and of large
//! matrices one, which leaves the line to the jobs half of the time.

use std::collections::{BTreeSet, VecDeque};

use gemmesh_protocol::replication::Taken;

use super::*;
use crate::memory::Share;
use crate::net::peers::{self, Pace};

/// Copies at a time.
const COPIES_MAX: usize = 4;
/// A matrix with more bytes is copied slowly.
const LARGE_BYTES: u64 = 8 << 20;

/// What waits to be copied, and what is on its way.
#[derive(Default)]
pub(super) struct Copies {
    tiles: VecDeque<TileCopy>,
    matrices: VecDeque<MatrixCopy>,
    running: usize,
    /// Matrices on their way; another job that needs one of them waits.
    coming: BTreeSet<MatrixId>,
    /// The large one among these.
    large: Option<MatrixId>,
    /// Bytes of the larger operand of jobs that were heard of since the start: their rows may wait
    /// for the disk.
    operand_bytes: BTreeMap<JobId, u64>,
}

struct TileCopy {
    job: JobId,
    tile: u32,
    from: DeviceId,
}

struct MatrixCopy {
    job: JobId,
    matrix: MatrixId,
    from: Vec<DeviceId>,
}

impl Copies {
    /// A job of another node.
    pub(super) fn know(&mut self, taken: &Taken) {
        let header = &taken.header;
        let bytes = header.a.bytes().max(header.b.bytes());
        self.operand_bytes.insert(header.job, bytes);
    }

    /// The job needs nothing any more.
    pub(super) fn forget(&mut self, job: JobId) {
        self.tiles.retain(|copy| copy.job != job);
        self.matrices.retain(|copy| copy.job != job);
        self.operand_bytes.remove(&job);
    }
}

impl Driver {
    pub(super) fn fetch_tile(&mut self, job: JobId, tile: u32, from: DeviceId) {
        let copy = TileCopy { job, tile, from };
        self.copies.tiles.push_back(copy);
        self.start_copies();
    }

    pub(super) fn copy_matrix(&mut self, job: JobId, matrix: MatrixId, from: Vec<DeviceId>) {
        if self.app.store().has_matrix(matrix) {
            let (app, there) = (self.app.clone(), true);
            tokio::spawn(async move {
                app.tell(Event::MatrixCopied { job, matrix, there }).await;
            });
            return;
        }
        let copy = MatrixCopy { job, matrix, from };
        self.copies.matrices.push_back(copy);
        self.start_copies();
    }

    /// A tile came, or it did not.
    pub(super) fn tile_copied(&mut self, there: bool) {
        self.app.counters().copied("tile", there);
        self.copies.running -= 1;
        self.start_copies();
    }

    /// A matrix came, or it did not, or it was here.
    pub(super) fn matrix_copied(&mut self, matrix: MatrixId, there: bool) {
        if self.copies.coming.remove(&matrix) {
            self.app.counters().copied("matrix", there);
            self.copies.running -= 1;
            self.copies.large = self.copies.large.filter(|large| *large != matrix);
        }
        self.start_copies();
    }

    fn start_copies(&mut self) {
        while self.copies.running < COPIES_MAX {
            if let Some(copy) = self.copies.tiles.pop_front() {
                self.copies.running += 1;
                tokio::spawn(copy.run(self.app.clone()));
            } else if let Some((copy, pace)) = self.next_matrix() {
                self.copies.running += 1;
                tokio::spawn(copy.run(self.app.clone(), pace));
            } else {
                break;
            }
        }
        self.app.counters().copying(self.copies.running);
    }

    /// The first matrix whose turn it is.
    fn next_matrix(&mut self) -> Option<(MatrixCopy, Pace)> {
        let (store, copies) = (self.app.store(), &mut self.copies);
        let bytes = &copies.operand_bytes;
        let pace = |copy: &MatrixCopy| {
            let known = bytes.get(&copy.job).copied();
            match known.or_else(|| store.operand_bytes(copy.job)) {
                Some(bytes) if bytes <= LARGE_BYTES => Pace::Full,
                _ => Pace::Half,
            }
        };
        let at = copies.matrices.iter().position(|copy| {
            let may = copies.large.is_none() || pace(copy) == Pace::Full;
            may && !copies.coming.contains(&copy.matrix)
        })?;
        let copy = copies.matrices.remove(at)?;
        let pace = pace(&copy);
        copies.coming.insert(copy.matrix);
        if pace == Pace::Half {
            copies.large = Some(copy.matrix);
        }
        Some((copy, pace))
    }
}

impl TileCopy {
    async fn run(self, app: App) {
        let Self { job, tile, from } = self;
        let bytes = app.store().tile_bytes(job, tile).await;
        let fetched = match (app.address_of(from), bytes) {
            (Some(address), Some(bytes)) => {
                let room = app.results().take(bytes).await;
                let fetched = peers::fetch_tile(&app, &address, job, tile, bytes).await;
                fetched.map(|bytes| Share::counted(bytes, room))
            }
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        let payload = fetched
            .inspect_err(|error| {
                tracing::debug!(%job, tile, %from, %error, "a tile could not be fetched");
            })
            .ok();
        app.tell(Event::TileFetched {
            job,
            tile,
            from,
            payload,
        })
        .await;
    }
}

impl MatrixCopy {
    async fn run(self, app: App, pace: Pace) {
        let Self { job, matrix, from } = self;
        let mut there = app.store().manifest(matrix).await.is_ok();
        for device in from {
            if there {
                break;
            }
            let Some(address) = app.address_of(device) else {
                continue;
            };
            match peers::copy_matrix(&app, &address, matrix, pace).await {
                Ok(_) => there = true,
                Err(error) => {
                    let why = error.message;
                    tracing::debug!(%job, %matrix, %device, why, "a matrix could not be copied");
                }
            }
        }
        app.tell(Event::MatrixCopied { job, matrix, there }).await;
    }
}
