//! Carries out what the engine asks for. What takes time becomes a task that answers with an event.

use std::collections::VecDeque;

use gemmesh_protocol::io::SlabTask;
use gemmesh_protocol::replication::Entry;
use gemmesh_protocol::status::Happening;

use super::*;
use crate::compute::SlabWork;
use crate::link::ServeRequest;
use crate::net::peers::heal;
use crate::store::StoreError;
use crate::verify::VerifyError;

impl Driver {
    pub(super) fn carry_out(&mut self, output: Output<Bytes>) {
        match output {
            Output::Send {
                link,
                header,
                payload,
            } => {
                if let Some(queue) = self.links.get(&link)
                    && !queue.send(header, payload)
                {
                    if !queue.is_gone() {
                        tracing::info!(link = link.0, "dropping a link that can not keep up");
                    }
                    queue.close();
                    // It is said once; the engine hears when the link is down.
                    self.links.remove(&link);
                }
            }
            Output::Close { link, reason } => {
                if let Some(reason) = reason {
                    tracing::info!(link = link.0, why = refusal_text(reason), "closing a link");
                }
                if let Some(queue) = self.links.get(&link) {
                    queue.close();
                }
            }
            Output::Dial { address } => {
                tokio::spawn(crate::net::dial::dial(self.app.clone(), address));
            }
            Output::Serve {
                link,
                to,
                job,
                operand,
                blocks,
            } => {
                let Some(source) = self.jobs.get(&job) else {
                    return;
                };
                let matrix = match operand {
                    Operand::A => source.a,
                    Operand::B => source.b,
                };
                let blocks = VecDeque::from(blocks);
                if let Some(queue) = self.links.get(&link)
                    && !queue.serve(ServeRequest {
                        matrix,
                        to,
                        job,
                        operand,
                        blocks,
                    })
                {
                    queue.close();
                }
            }
            Output::Load {
                job,
                operand,
                blocks,
            } => self.load(job, operand, blocks),
            Output::Keep {
                job,
                operand,
                block,
                id,
                payload,
            } => {
                let app = self.app.clone();
                tokio::spawn(async move {
                    let good = BlockId::of(&payload) == id;
                    let bytes = good.then_some(payload);
                    app.tell(Event::Block {
                        job,
                        operand,
                        block,
                        id,
                        bytes,
                    })
                    .await;
                });
            }
            Output::Evict { id } => {
                self.app.present().remove(&id);
            }
            Output::Compute(task) => self.compute(task),
            Output::Abort { slot } => self.generations[slot as usize] += 1,
            Output::Verify {
                job,
                tile,
                lease,
                payload,
            } => self.verify(job, tile, lease, payload),
            Output::Persist {
                job,
                done,
                contributor,
                expected,
                payload,
            } => {
                let (app, tile) = (self.app.clone(), done.tile);
                tokio::spawn(async move {
                    let contributor = contributor.map(|record| *record);
                    let store = app.store();
                    let written = store.write_tile(job, done, contributor, expected, payload);
                    app.tell(match written.await {
                        Ok(digest) => Event::Persisted { job, tile, digest },
                        Err(error) => Event::StoreFailed {
                            job,
                            reason: error.to_string(),
                        },
                    })
                    .await;
                });
            }
            Output::Record {
                job,
                epoch,
                sequence,
                entries,
            } => {
                if self.jobs.remove(&job).is_some() {
                    let by = self.name_of(epoch.device);
                    let epoch = epoch.counter;
                    tracing::warn!(%job, epoch, by, "stepping down: another node coordinates the job");
                    self.changed.insert(job);
                }
                if let Some(Entry::Taken(taken)) = entries.first() {
                    self.copies.know(taken);
                }
                let recorded = self.app.store().record(job, epoch, sequence, entries);
                self.answer(
                    job,
                    recorded,
                    Event::Logged {
                        job,
                        epoch,
                        sequence,
                    },
                );
            }
            Output::Claim { header, epoch } => {
                let job = header.job;
                tracing::info!(%job, epoch = epoch.counter, "this node coordinates the job");
                let entry = Job::new(Arc::new(*header));
                self.jobs.entry(job).or_insert(entry);
                let claimed = self.app.store().claim(job, epoch);
                self.answer(job, claimed, Event::Claimed { job, epoch });
            }
            Output::Backups { job, backups } => self.backups(job, backups),
            Output::Moment { job, moment } => {
                self.log_moment(job, &moment);
                if moment.event == Happening::TookOver && moment.device == self.app.device() {
                    self.resuming.insert(job);
                }
                let added = self.app.store().add_moment(job, moment);
                tokio::spawn(async move {
                    if let Err(error) = added.await {
                        tracing::debug!(%job, %error, "a moment of a job was not kept");
                    }
                });
            }
            Output::CopyMatrix { job, matrix, from } => self.copy_matrix(job, matrix, from),
            Output::FetchTile { job, tile, from } => self.fetch_tile(job, tile, from),
            Output::Encode { job, sharing } => {
                let Some(source) = self.jobs.get(&job) else {
                    return;
                };
                let (app, header) = (self.app.clone(), source.header.clone());
                tokio::spawn(async move {
                    app.tell(match guarded::encode(&app, header, &sharing).await {
                        Ok(encoded) => Event::Encoded { job, encoded },
                        Err(error) => Event::StoreFailed {
                            job,
                            reason: error.message,
                        },
                    })
                    .await;
                });
            }
            Output::Decode { job, tile, answers } => {
                let shared = self.jobs.get(&job).and_then(|job| job.shared.clone());
                let Some(shared) = shared else {
                    return;
                };
                let app = self.app.clone();
                tokio::spawn(async move {
                    app.tell(match shared.decode(&app, tile, answers).await {
                        Ok((tiles, seconds)) => Event::Decoded {
                            job,
                            tile,
                            tiles,
                            seconds,
                        },
                        Err(error) => Event::StoreFailed {
                            job,
                            reason: error.message,
                        },
                    })
                    .await;
                });
            }
            Output::Drop { job, for_good } => {
                let removed = self.jobs.remove(&job);
                let share = removed.filter(|job| job.header.share.is_some());
                let factors = share.map(|job| guarded::factors(&job.header));
                self.copies.forget(job);
                self.changed.insert(job);
                let store = self.app.store().clone();
                let dropped = store.drop_job(job, for_good);
                tokio::spawn(async move {
                    if let Err(error) = dropped.await {
                        tracing::warn!(%job, %error, "what is here of a job could not be removed");
                    }
                    if let Some(factors) = factors {
                        store.discard(factors).await;
                    }
                });
            }
            Output::Finish { job } => {
                let app = self.app.clone();
                let source = self.jobs.get(&job);
                let guarded = source.is_some_and(|job| job.header.guard.is_some());
                tokio::spawn(async move {
                    let store = app.store();
                    let finished = async {
                        let result = store.finish_job(job).await?.id();
                        if guarded {
                            store.close_result(job, result).await?;
                        }
                        Ok::<_, StoreError>(result)
                    };
                    app.tell(match finished.await {
                        Ok(result) => Event::Finished { job, result },
                        Err(error) => Event::StoreFailed {
                            job,
                            reason: error.to_string(),
                        },
                    })
                    .await;
                });
            }
            Output::Ended { status } => self.ended(*status),
            Output::Quarantined { device, job, tile } => {
                tracing::warn!(%device, %job, tile, "a wrong tile; this device gets no more work");
            }
            Output::JobChanged { job } => {
                self.changed.insert(job);
            }
            Output::DevicesChanged => self.publish_devices(),
            Output::Joined { address, outcome } => {
                self.publish_devices();
                let replies = self.registrations.remove(&address).unwrap_or_default();
                if outcome.is_ok() && !replies.is_empty() {
                    // Only a registered address where a member was is dialled for ever.
                    let (app, device, keep) = (self.app.clone(), None, true);
                    tokio::spawn(async move {
                        app.tell(Event::Hint {
                            address,
                            device,
                            keep,
                        })
                        .await;
                    });
                }
                for reply in replies {
                    let outcome = outcome.map_err(|refusal| refusal_text(refusal).to_owned());
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    /// Tells the loop `event` once `work` is done; a failure is the job's.
    fn answer(
        &self,
        job: JobId,
        work: impl Future<Output = Result<(), StoreError>> + Send + 'static,
        event: Event,
    ) {
        let app = self.app.clone();
        tokio::spawn(async move {
            app.tell(match work.await {
                Ok(()) => event,
                Err(error) => Event::StoreFailed {
                    job,
                    reason: error.to_string(),
                },
            })
            .await;
        });
    }

    /// Reads own blocks for the own worker.
    fn load(&mut self, job: JobId, operand: Operand, blocks: Vec<u32>) {
        let Some(source) = self.jobs.get(&job) else {
            return;
        };
        let matrix = match operand {
            Operand::A => source.a,
            Operand::B => source.b,
        };
        let (app, header) = (self.app.clone(), source.header.clone());
        // Not even the id of what is kept from others is for them.
        let may_heal = header.guard.is_none();
        tokio::spawn(async move {
            for block in blocks {
                let id = header.manifest(operand).blocks[block as usize];
                let mut read = app.store().read_block(matrix, block).await;
                if let Err(StoreError::Missing { .. }) = &read
                    && may_heal
                    && heal(&app, matrix).await
                {
                    read = app.store().read_block(matrix, block).await;
                }
                if let Err(error) = &read {
                    let reason = error.to_string();
                    app.tell(Event::StoreFailed { job, reason }).await;
                }
                let event = Event::Block {
                    job,
                    operand,
                    block,
                    id,
                    bytes: read.ok(),
                };
                if !app.tell(event).await {
                    return;
                }
            }
        });
    }

    fn compute(&mut self, task: SlabTask) {
        let gather = |parts: &[(BlockId, _)]| {
            let blocks = parts.iter().map(|(id, _)| {
                let block = self.app.present().get(id);
                block.expect("the engine computes with blocks that are ready")
            });
            blocks.collect()
        };
        let (a, b) = (gather(&task.a), gather(&task.b));
        let generation = self.generations[task.slot as usize];
        self.slots.compute(SlabWork {
            task,
            generation,
            a,
            b,
        });
    }

    fn verify(&mut self, job: JobId, tile: u32, lease: LeaseId, payload: Bytes) {
        let Some(source) = self.jobs.get_mut(&job) else {
            return;
        };
        let (header, a, b) = (source.header.clone(), source.a, source.b);
        let (store, present) = (self.app.store().clone(), self.app.present().clone());
        let checks = &self.checks;
        let verifier = source
            .verifier
            .get_or_insert_with(|| Arc::new(Verifier::new(store, present, header, checks)))
            .clone();
        let app = self.app.clone();
        tokio::spawn(async move {
            let mut checked = verifier.check(tile, payload.clone()).await;
            if let Err(VerifyError::Store(StoreError::Missing { .. })) = &checked
                && heal(&app, a).await
                && heal(&app, b).await
            {
                checked = verifier.check(tile, payload).await;
            }
            app.tell(match checked {
                Ok((checked, payload)) => Event::Verified {
                    job,
                    tile,
                    lease,
                    checked,
                    payload,
                },
                Err(error) => Event::StoreFailed {
                    job,
                    reason: error.to_string(),
                },
            })
            .await;
        });
    }
}
