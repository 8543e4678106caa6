//! Why the store can not do what it was asked.

use std::io;

use gemmesh_protocol::id::JobId;

use crate::error::ApiError;

/// Why a matrix or a job is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// It never was, or its time was over more than a day ago.
    #[error("it is not known here")]
    Unknown,
    /// Its time is over.
    #[error("its time is over")]
    Expired,
    /// Its bytes on the disk are not what they were.
    #[error("its bytes on the disk are damaged: {0}")]
    Corrupt(String),
}

impl Missing {
    /// What is told when nobody has it: what is known here, else what others know.
    #[must_use]
    pub fn or(self, elsewhere: Missing) -> Missing {
        match self {
            Missing::Unknown => elsewhere,
            known => known,
        }
    }

    /// What users are told; `what` is like `the matrix 1234…`.
    pub fn to_api(&self, what: &str) -> ApiError {
        match self {
            Missing::Unknown => ApiError::new(
                404,
                "not_found",
                format!("{what} is not known here"),
                "check the id; a matrix must be uploaded before it is used",
            ),
            Missing::Expired => ApiError::new(
                410,
                "expired",
                format!("the time of {what} is over"),
                "upload or compute it again; --result-ttl sets how long things are kept",
            ),
            Missing::Corrupt(why) => ApiError::new(
                503,
                "corrupt",
                format!("{what} is damaged on the disk: {why}"),
                "upload or compute it again, and check the disk",
            ),
        }
    }
}

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The budget (`--disk`) does not allow it.
    #[error("{needed} more bytes do not fit: {free} of the budget of {budget} bytes are free")]
    Full {
        /// Bytes asked for.
        needed: u64,
        /// Bytes left.
        free: u64,
        /// All bytes.
        budget: u64,
    },
    /// The device has no room, whatever the budget says.
    #[error("the disk is full")]
    DiskFull,
    /// More matrices than the store keeps.
    #[error("there are {0} matrices already")]
    TooMany(usize),
    /// More jobs than the store keeps.
    #[error("there are {0} jobs already")]
    TooManyJobs(usize),
    /// A matrix or a job is not there.
    #[error("{what}: {missing}")]
    Missing {
        /// Which.
        what: String,
        /// Why.
        missing: Missing,
    },
    /// A form of file that can not hold the matrix.
    #[error("{0}")]
    Refused(ApiError),
    /// Not a job that takes tiles.
    #[error("job {0} takes no tiles here")]
    NoSuchJob(JobId),
    /// A job that can not be kept.
    #[error("job {job} can not be kept here: {what}")]
    BadJob {
        /// The job.
        job: JobId,
        /// What is wrong.
        what: String,
    },
    /// A tile that can not be of its job.
    #[error("tile {tile} of job {job}: {what}")]
    BadTile {
        /// The job.
        job: JobId,
        /// The tile.
        tile: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// A job whose tiles are not all there.
    #[error("job {job} has {done} of {total} tiles")]
    Incomplete {
        /// The job.
        job: JobId,
        /// Tiles that are durable.
        done: u64,
        /// Tiles of the job.
        total: u64,
    },
    /// Another process has this directory.
    #[error("another node uses the data directory {0}")]
    InUse(String),
    /// The database is not what was written, or does not decode.
    #[error("the database store.db is damaged: {0}")]
    Damaged(String),
    /// The database can not be used.
    #[error("the database is unusable: {0}")]
    Database(String),
    /// The system failed.
    #[error("{doing}: {error}")]
    Io {
        /// What was tried.
        doing: String,
        /// How it failed.
        error: io::Error,
    },
    /// The store's writer has ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// A failure of the system; a full disk is told apart.
    pub(crate) fn io(doing: impl Into<String>, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull,
            _ => StoreError::Io {
                doing: doing.into(),
                error,
            },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => StoreError::DiskFull,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                StoreError::Damaged(error.to_string())
            }
            _ => StoreError::Database(error.to_string()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Full { .. } => ApiError::new(
                413,
                "disk_budget",
                message,
                "give the node more with --disk, or wait until old results expire",
            ),
            StoreError::DiskFull => ApiError::new(
                413,
                "disk_full",
                message,
                "free some space, or use another --data-dir",
            ),
            StoreError::TooMany(_) => ApiError::new(
                429,
                "too_many_matrices",
                message,
                "wait until some expire, or use a shorter --result-ttl",
            ),
            StoreError::TooManyJobs(_) => ApiError::new(
                429,
                "too_many_jobs",
                message,
                "wait until some expire, or use a shorter --result-ttl",
            ),
            StoreError::Missing { what, missing } => missing.to_api(&what),
            StoreError::Refused(error) => error,
            StoreError::NoSuchJob(_) => {
                ApiError::new(404, "not_found", message, "check the id of the job")
            }
            StoreError::BadTile { .. } => {
                ApiError::new(422, "bad_tile", message, "this is a fault of a worker")
            }
            StoreError::BadJob { .. } => ApiError::new(
                422,
                "bad_job",
                message,
                "this is a fault of the node that coordinates it",
            ),
            StoreError::Incomplete { .. } => {
                ApiError::new(409, "not_done", message, "wait until the job is done")
            }
            StoreError::InUse(_) => ApiError::new(
                409,
                "data_dir_in_use",
                message,
                "stop the other node, or use another --data-dir",
            ),
            StoreError::Damaged(_) => ApiError::new(
                503,
                "database_damaged",
                message,
                "nothing was removed; check the disk. To start afresh, move store.db, store.db-wal, \
                 store.db-shm and blocks out of the data directory: what other nodes have copies of \
                 comes back from them",
            ),
            StoreError::Database(_) => ApiError::new(
                503,
                "database",
                message,
                "see the node's log; with a new --data-dir the node starts afresh",
            ),
            StoreError::Io { .. } => ApiError::new(
                503,
                "io_error",
                message,
                "see the node's log, then try again",
            ),
            StoreError::Closed => {
                ApiError::new(503, "stopping", message, "the node stops; ask another one")
            }
        }
    }
}
