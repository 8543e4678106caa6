//! What the rest of the program sees of the engine: the view of jobs and devices, how jobs ended.

use std::net::SocketAddr;

use gemmesh_protocol::status::{JobState, JobStatus};

use super::*;
use crate::app::JobView;
use crate::net;

impl Driver {
    /// Records how a job ended. It is told at once: what was done is durable, so a node that is killed
    /// before this is recorded ends the job again. Only who cancelled waits for the record, since a
    /// cancelled job would go on.
    pub(super) fn ended(&mut self, status: JobStatus) {
        let job = status.job;
        match status.state {
            JobState::Done => tracing::info!(%job, seconds = status.seconds, "job done"),
            JobState::Failed => tracing::warn!(%job, error = status.error, "job failed"),
            _ => tracing::info!(%job, "job cancelled"),
        }
        self.app.counters().job_ended(status.state);
        self.jobs.remove(&job);
        self.changed.insert(job);
        let app = self.app.clone();
        tokio::spawn(async move {
            if let Err(error) = app.store().end_job(&status).await {
                tracing::error!(%job, %error, "the end of a job could not be recorded");
            }
            app.tell(Event::Recorded { job }).await;
        });
        self.recording.insert(job);
        self.publish_jobs();
    }

    pub(super) fn answer_cancellations(&mut self, job: JobId) {
        let ended = self
            .engine
            .job_status(job, os::now())
            .is_none_or(|status| status.state.has_ended());
        if ended && !self.recording.contains(&job) {
            self.publish_jobs();
            for reply in self.cancellations.remove(&job).unwrap_or_default() {
                let _ = reply.send(());
            }
        }
    }

    pub(super) fn publish_jobs(&mut self) {
        if self.changed.is_empty() {
            return;
        }
        let now = os::now();
        let mut view = self.view.write().expect("writers do not panic");
        for job in std::mem::take(&mut self.changed) {
            match self.engine.job_status(job, now) {
                Some(status) => {
                    let own = self.engine.coordinates(job);
                    view.jobs.insert(
                        job,
                        JobView {
                            status,
                            at: now,
                            own,
                        },
                    );
                }
                None => {
                    view.jobs.remove(&job);
                }
            }
        }
        drop(view);
        self.changes.send_modify(|version| *version += 1);
    }

    pub(super) fn publish_devices(&mut self) {
        let devices = self.engine.devices();
        let addresses = self.engine.peers().flat_map(|record| &record.addresses);
        let members = addresses
            .filter_map(|address| Some(address.parse::<SocketAddr>().ok()?.ip()))
            .filter(|ip| net::reach::is_local(*ip))
            .collect();
        let mut view = self.view.write().expect("writers do not panic");
        (view.devices, view.members) = (devices, members);
        drop(view);
        self.changes.send_modify(|version| *version += 1);
    }
}
