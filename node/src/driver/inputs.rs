//! From events to inputs of the engine.

use super::*;

impl Driver {
    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::LinkUp {
                link,
                door,
                dialled,
                queue,
            } => {
                self.links.insert(link, queue);
                self.handle(Input::LinkUp {
                    link,
                    door,
                    dialled,
                });
            }
            Event::LinkDown { link } => {
                self.links.remove(&link);
                self.handle(Input::LinkDown { link });
            }
            Event::Frame {
                link,
                header,
                payload,
            } => {
                let payload_bytes = payload.len() as u64;
                if let Message::Result { job, .. } = header.body
                    && self.jobs.contains_key(&job)
                {
                    self.handle(Input::Traffic {
                        job,
                        bytes: payload_bytes,
                    });
                }
                self.handle(Input::Frame {
                    link,
                    header: *header,
                    payload,
                    payload_bytes,
                });
            }
            Event::Traffic { job, bytes } => self.handle(Input::Traffic { job, bytes }),
            Event::Hint {
                address,
                device,
                keep,
            } => {
                self.handle(Input::Hint {
                    address,
                    device,
                    keep,
                });
            }
            Event::DialFailed { address, reason } => {
                tracing::debug!(address, reason, "dialling failed");
                for reply in self.registrations.remove(&address).unwrap_or_default() {
                    let _ = reply.send(Err(reason.clone()));
                }
                self.handle(Input::DialFailed { address });
            }
            Event::Register { address, reply } => self.on_register(address, reply),
            Event::Submit { taken, reply } => {
                let id = taken.header.job;
                let job = Job::new(Arc::new(taken.header.clone()));
                self.jobs.insert(id, job);
                self.handle(Input::Submit { taken });
                self.changed.insert(id);
                self.publish_jobs();
                let _ = reply.send(());
            }
            Event::Explain { header, reply } => {
                let _ = reply.send(self.engine.outlook(&header));
            }
            Event::ExplainGuarded { header, reply } => {
                let _ = reply.send(self.engine.guarded_outlook(&header));
            }
            Event::Encoded { job, encoded } => {
                for share in &encoded.shares {
                    let entry = Job::new(Arc::new(share.header.clone()));
                    self.jobs.insert(share.header.job, entry);
                }
                if let Some(entry) = self.jobs.get_mut(&job) {
                    entry.shared = Some(encoded.shared);
                }
                self.handle(Input::Encoded {
                    job,
                    shares: encoded.shares,
                    seconds: encoded.seconds,
                });
            }
            Event::Decoded {
                job,
                tile,
                tiles,
                seconds,
            } => {
                let sized = |(tile, bytes): (u32, Bytes)| {
                    let len = bytes.len() as u64;
                    (tile, bytes, len)
                };
                self.handle(Input::Decoded {
                    job,
                    tile,
                    tiles: tiles.into_iter().map(sized).collect(),
                    seconds,
                });
            }
            Event::Cancel { job, reply } => {
                self.cancellations.entry(job).or_default().push(reply);
                self.handle(Input::Cancel { job });
                self.answer_cancellations(job);
            }
            Event::Forget { jobs } => {
                for job in jobs {
                    self.handle(Input::Forget { job });
                    self.jobs.remove(&job);
                    self.copies.forget(job);
                    self.changed.insert(job);
                }
            }
            Event::Verified {
                job,
                tile,
                lease,
                checked,
                payload,
            } => {
                match checked {
                    Checked::Right => {}
                    Checked::Wrong => self.app.counters().tile_refused(),
                    Checked::Replaced(_) => self.app.counters().tile_replaced(),
                }
                self.handle(Input::Verified {
                    job,
                    tile,
                    lease,
                    checked,
                    payload,
                });
            }
            Event::Persisted { job, tile, digest } => {
                if self.jobs.contains_key(&job) {
                    self.app.counters().tile_accepted();
                }
                if let Some(digest) = digest {
                    self.trail.durable(job, tile, digest);
                }
                self.handle(Input::Persisted { job, tile, digest });
            }
            Event::Logged {
                job,
                epoch,
                sequence,
            } => {
                self.trail.recorded(job, epoch.counter, sequence);
                self.handle(Input::Recorded {
                    job,
                    epoch,
                    sequence,
                });
            }
            Event::Claimed { job, epoch } => {
                self.app.counters().took_over();
                self.handle(Input::Claimed { job, epoch });
            }
            Event::MatrixCopied { job, matrix, there } => {
                self.handle(Input::MatrixCopied { job, matrix, there });
                self.matrix_copied(matrix, there);
            }
            Event::TileFetched {
                job,
                tile,
                from,
                payload,
            } => {
                let payload = payload.map(|bytes| {
                    let len = bytes.len() as u64;
                    (bytes, len)
                });
                let there = payload.is_some();
                self.handle(Input::TileFetched {
                    job,
                    tile,
                    from,
                    payload,
                });
                self.tile_copied(there);
            }
            Event::Finished { job, result } => self.handle(Input::Finished { job, result }),
            Event::Recorded { job } => {
                self.recording.remove(&job);
                self.answer_cancellations(job);
            }
            Event::StoreFailed { job, reason } => {
                // Of what a job had asked for before it ended, nobody needs to hear.
                if !self.recording.contains(&job) && !self.app.store().has_ended(job) {
                    tracing::warn!(%job, reason, "this node's store can not go on with a job");
                }
                self.handle(Input::Fail { job, reason });
            }
            Event::Block {
                job,
                operand,
                block,
                id,
                bytes,
            } => {
                let input = match bytes {
                    Some(bytes) => {
                        self.app.present().insert(id, bytes);
                        Input::BlockReady {
                            job,
                            operand,
                            block,
                        }
                    }
                    None => Input::BlockBad {
                        job,
                        operand,
                        block,
                    },
                };
                self.handle(input);
            }
            Event::Moved { addresses } => self.handle(Input::Moved { addresses }),
            Event::Leave { .. } => unreachable!("the loop ends with it"),
        }
    }

    fn on_register(&mut self, address: String, reply: oneshot::Sender<Result<DeviceId, String>>) {
        let known = self.engine.devices().into_iter().find(|entry| {
            entry.address == address && entry.state != gemmesh_protocol::status::DeviceState::Lost
        });
        if let Some(entry) = known {
            let _ = reply.send(Ok(entry.device));
            return;
        }
        self.registrations
            .entry(address.clone())
            .or_default()
            .push(reply);
        self.handle(Input::Hint {
            address,
            device: None,
            keep: false,
        });
    }

    pub(super) fn on_slab(&mut self, outcome: SlabOutcome) {
        let SlabOutcome {
            slot,
            generation,
            outcome,
        } = outcome;
        if self.generations[slot as usize] != generation {
            return;
        }
        self.handle(match outcome {
            Ok((kernel, result)) => {
                let result = result.map(|bytes| {
                    let len = bytes.len() as u64;
                    (bytes, len)
                });
                Input::SlabDone {
                    slot,
                    kernel,
                    result,
                }
            }
            Err(reason) => {
                tracing::warn!(slot, reason, "a slot could not compute");
                Input::SlotFailed { slot }
            }
        });
    }
}
