//! Carries out what the engine asks for. What takes time becomes a task that answers with an event.

use std::collections::VecDeque;

use gemmesh_protocol::io::SlabTask;

use super::*;
use crate::compute::SlabWork;
use crate::link::ServeRequest;

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
                    tracing::info!(link = link.0, "dropping a link that can not keep up");
                    queue.close();
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
                self.cache.remove(&id);
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
                payload,
            } => {
                let (app, tile) = (self.app.clone(), done.tile);
                tokio::spawn(async move {
                    let contributor = contributor.map(|record| *record);
                    let written = app
                        .store()
                        .write_tile(job, done, contributor, payload)
                        .await;
                    app.tell(match written {
                        Ok(()) => Event::Persisted { job, tile },
                        Err(error) => Event::StoreFailed {
                            job,
                            reason: error.to_string(),
                        },
                    })
                    .await;
                });
            }
            Output::Finish { job } => {
                let app = self.app.clone();
                tokio::spawn(async move {
                    app.tell(match app.store().finish_job(job).await {
                        Ok(manifest) => Event::Finished {
                            job,
                            result: manifest.id(),
                        },
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
        tokio::spawn(async move {
            for block in blocks {
                let id = header.manifest(operand).blocks[block as usize];
                let read = app.store().read_block(matrix, block).await;
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
                self.cache
                    .get(id)
                    .expect("the engine computes with blocks that are ready")
                    .clone()
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
        let store = self.app.store().clone();
        let verifier = source
            .verifier
            .get_or_insert_with(|| Arc::new(Verifier::new(store, header, a, b)))
            .clone();
        let app = self.app.clone();
        tokio::spawn(async move {
            app.tell(match verifier.check(tile, payload).await {
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
