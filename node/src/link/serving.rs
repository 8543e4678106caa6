//! The blocks that a peer asked for, in the order in which it did, read ahead of the link: a disk and
//! a hash for each block in turn would leave the link idle most of the time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gemmesh_protocol::codec;
use gemmesh_protocol::id::JobId;
use gemmesh_protocol::message::{Header, Message};
use tokio::task::JoinHandle;

use super::ServeRequest;
use crate::app::App;
use crate::driver::Event;
use crate::net::peers::heal;
use crate::store::StoreError;

/// Blocks read in one go.
const BATCH_BLOCKS: usize = 4;
/// Batches read before their turn: with the one that is sent 6 MiB, more than a link takes while the
/// next is read.
const AHEAD_BATCHES: usize = 2;

pub(super) struct Serving {
    app: App,
    /// Blocks asked for and not yet read, for all to see.
    waiting: Arc<AtomicUsize>,
    requests: VecDeque<ServeRequest>,
    reading: VecDeque<JoinHandle<Batch>>,
    /// Read and not sent.
    ready: VecDeque<(JobId, Header, Bytes)>,
}

/// A block on its way out.
pub(super) struct Served {
    pub job: JobId,
    pub bytes: u64,
    pub frame: Vec<u8>,
}

struct Batch {
    job: JobId,
    /// One for each block.
    headers: Vec<Header>,
    blocks: Result<Vec<Bytes>, StoreError>,
}

impl Serving {
    pub fn new(app: &App, waiting: Arc<AtomicUsize>) -> Self {
        Self {
            app: app.clone(),
            waiting,
            requests: VecDeque::new(),
            reading: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    pub fn push(&mut self, request: ServeRequest) {
        self.requests.push_back(request);
        self.read_ahead();
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        // What is asked for is read at once, or as soon as there is room.
        self.ready.is_empty() && self.reading.is_empty()
    }

    /// Whether a block can be sent without waiting.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next block; `None` when nothing is asked for, or when blocks could not be read, which fails
    /// their job here. Nothing is lost when it is dropped before it is done.
    pub async fn next(&mut self) -> Option<Served> {
        if self.ready.is_empty() {
            let batch = self.reading.front_mut()?.await;
            self.reading.pop_front();
            self.read_ahead();
            let Batch {
                job,
                headers,
                blocks,
            } = batch.expect("reading does not panic");
            match blocks {
                Ok(blocks) => self.ready.extend(
                    headers
                        .into_iter()
                        .zip(blocks)
                        .map(|(header, bytes)| (job, header, bytes)),
                ),
                Err(error) => self.tell_failed(job, &error),
            }
        }
        let (job, header, bytes) = self.ready.pop_front()?;
        Some(Served {
            job,
            bytes: bytes.len() as u64,
            frame: codec::encode(&header, &bytes),
        })
    }

    fn read_ahead(&mut self) {
        while self.reading.len() < AHEAD_BATCHES {
            let Some(request) = self.requests.front_mut() else {
                return;
            };
            let count = request.blocks.len().min(BATCH_BLOCKS);
            let blocks: Vec<u32> = request.blocks.drain(..count).collect();
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            let (matrix, to) = (request.matrix, request.to);
            let (job, operand) = (request.job, request.operand);
            if request.blocks.is_empty() {
                self.requests.pop_front();
            }
            if blocks.is_empty() {
                continue;
            }
            let from = self.app.device();
            let header = |&block: &u32| Header {
                from,
                to,
                body: Message::Block {
                    job,
                    operand,
                    block,
                },
            };
            let headers = blocks.iter().map(header).collect();
            let app = self.app.clone();
            self.reading.push_back(tokio::spawn(async move {
                let mut read = app.store().read_blocks(matrix, blocks.clone()).await;
                if let Err(StoreError::Missing { .. }) = &read
                    && heal(&app, matrix).await
                {
                    read = app.store().read_blocks(matrix, blocks).await;
                }
                let blocks = read;
                Batch {
                    job,
                    headers,
                    blocks,
                }
            }));
        }
    }

    fn tell_failed(&self, job: JobId, error: &StoreError) {
        let (app, reason) = (self.app.clone(), error.to_string());
        tokio::spawn(async move {
            app.tell(Event::StoreFailed { job, reason }).await;
        });
    }
}
