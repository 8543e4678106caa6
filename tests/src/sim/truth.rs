//! What is true of a job, whatever anybody says.

use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::status::JobStatus;

/// A job as the people who submitted it see it.
#[derive(Debug)]
pub struct Truth {
    /// How the story calls it.
    pub name: String,
    /// The job.
    pub header: JobHeader,
    /// Where it was submitted.
    pub host: usize,
    /// When it was submitted.
    pub submitted: u64,
    /// When that was acknowledged.
    pub acknowledged: Option<u64>,
    /// Only computing its tiles again can tell whether they are right.
    pub odd: bool,
    /// Somebody cancelled it.
    pub cancelled: bool,
    /// Its time was over somewhere.
    pub expired: bool,
    /// A disk had trouble with it: it may fail.
    pub may_fail: bool,
    /// How it first ended.
    pub ended: Option<JobStatus>,
    /// Seconds from submission to that.
    pub seconds: f64,
}

impl Truth {
    pub(super) fn new(name: String, header: JobHeader, host: usize, now: u64) -> Self {
        Self {
            name,
            header,
            host,
            submitted: now,
            acknowledged: None,
            odd: false,
            cancelled: false,
            expired: false,
            may_fail: false,
            ended: None,
            seconds: 0.0,
        }
    }
}
