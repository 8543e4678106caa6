//! What the rest of the program sees of the engine: the view of jobs and devices, how jobs ended.

use std::net::SocketAddr;

use gemmesh_protocol::status::{Happening, JobState, JobStatus, Moment};

use super::*;
use crate::app::JobView;
use crate::net;

impl Driver {
    /// Records how a job ended. It is told at once: what was done is durable, so a node that is killed
    /// before this is recorded ends the job again. Only who cancelled waits for the record, since a
    /// cancelled job would go on.
    pub(super) fn ended(&mut self, status: JobStatus) {
        let job = status.job;
        let own = self.jobs.remove(&job).is_some();
        self.copies.forget(job);
        match status.state {
            _ if !own => {
                tracing::info!(%job, "a job of another node ended; what is left of it is here")
            }
            JobState::Done => tracing::info!(%job, seconds = status.seconds, "job done"),
            JobState::Failed => tracing::warn!(%job, error = status.error, "job failed"),
            _ => tracing::info!(%job, "job cancelled"),
        }
        if own {
            self.app.counters().job_ended(status.state);
        }
        self.changed.insert(job);
        let (app, ended) = (self.app.clone(), self.app.store().end_job(&status));
        tokio::spawn(async move {
            if let Err(error) = ended.await {
                tracing::error!(%job, %error, "the end of a job could not be recorded");
            }
            app.tell(Event::Recorded { job }).await;
        });
        self.recording.insert(job);
        self.publish_jobs();
        self.publish_links(true);
    }

    /// Keeps the list of a job's backups, and tells who is none any more.
    pub(super) fn backups(&mut self, job: JobId, backups: Vec<DeviceId>) {
        if let Some(entry) = self.jobs.get_mut(&job) {
            let before = std::mem::replace(&mut entry.backups, backups.clone());
            for device in before.iter().filter(|device| !backups.contains(device)) {
                let name = self.name_of(*device);
                tracing::info!(%job, name, "the job lost a backup");
            }
        }
        let kept = self.app.store().set_backups(job, backups);
        tokio::spawn(async move {
            if let Err(error) = kept.await {
                tracing::debug!(%job, %error, "the backups of a job were not kept");
            }
        });
    }

    /// One line for what people want to know of a job.
    pub(super) fn log_moment(&self, job: JobId, moment: &Moment) {
        let (name, epoch) = (&moment.name, moment.epoch);
        match moment.event {
            Happening::TookOver => tracing::warn!(%job, name, epoch, "the job was taken over"),
            Happening::BackedUp => tracing::info!(%job, name, "the job has a new backup"),
            Happening::Reassigned => {
                let tile = moment.tile;
                tracing::info!(%job, name, tile, "a tile is given to another device");
            }
            Happening::Left => tracing::info!(%job, name, "a device left the job"),
            Happening::Joined => tracing::info!(%job, name, "a device joined the job"),
            // These have lines of their own.
            Happening::Taken | Happening::Quarantined | Happening::Ended => {}
        }
    }

    /// One line for each job that was taken over and goes on now.
    pub(super) fn log_resumed(&mut self) {
        let Self {
            engine, resuming, ..
        } = self;
        resuming.retain(|job| {
            let goes_on = engine.has_leases(*job);
            if goes_on {
                tracing::info!(%job, "the first tile is leased after the takeover");
            }
            !goes_on && engine.header(*job).is_some()
        });
    }

    /// How a device is called.
    pub(super) fn name_of(&self, device: DeviceId) -> String {
        let devices = self.engine.devices();
        let entry = devices.into_iter().find(|entry| entry.device == device);
        entry.map_or_else(|| device.short(), |entry| entry.name)
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
                    if let Some(part) = &status.part {
                        view.batches.entry(part.batch).or_default().insert(job);
                    }
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
                    let known = view.jobs.remove(&job);
                    let batch = known.and_then(|known| known.status.part).map(|p| p.batch);
                    if let Some(batch) = batch
                        && let Some(parts) = view.batches.get_mut(&batch)
                    {
                        parts.remove(&job);
                        if parts.is_empty() {
                            view.batches.remove(&batch);
                        }
                    }
                }
            }
        }
        drop(view);
        self.changes.send_modify(|version| *version += 1);
    }

    /// Publishes how fast links are when one was measured for the first time, and when `again`.
    pub(super) fn publish_links(&mut self, again: bool) {
        let measured = self.engine.links().count();
        if !again && measured == self.links_measured {
            return;
        }
        self.links_measured = measured;
        let mut view = self.view.write().expect("writers do not panic");
        view.links = self.engine.links().collect();
        drop(view);
        self.changes.send_modify(|version| *version += 1);
    }

    pub(super) fn publish_devices(&mut self) {
        let devices = self.engine.devices();
        self.trail
            .linked(self.engine.peers().map(|record| record.device));
        let addresses = self.engine.peers().flat_map(|record| &record.addresses);
        let members = addresses
            .filter_map(|address| Some(address.parse::<SocketAddr>().ok()?.ip()))
            .filter(|ip| net::reach::is_local(*ip))
            .collect();
        let mut view = self.view.write().expect("writers do not panic");
        view.devices = devices;
        // A page outlives its node: it may come here as long as the results of its jobs are kept.
        let kept = self.app.config().result_ttl;
        view.members
            .update(members, kept, std::time::Instant::now());
        drop(view);
        self.changes.send_modify(|version| *version += 1);
    }
}
