//! The blocks that a peer asked for, in the order in which it did, read ahead of the link: a disk and
//! a hash for each block in turn would leave the link idle most of the time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gemmesh_protocol::codec;
use gemmesh_protocol::id::{JobId, MatrixId};
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
/// Frames whose memory is kept while blocks are asked for: as many as there are at a time. Afterwards only
/// those are kept that were still being sent.
const FRAMES_MAX: usize = BATCH_BLOCKS * (AHEAD_BATCHES + 1);

pub(super) struct Serving {
    app: App,
    /// Blocks asked for and not yet read, for all to see.
    waiting: Arc<AtomicUsize>,
    requests: VecDeque<ServeRequest>,
    reading: VecDeque<JoinHandle<Batch>>,
    /// Read and not sent.
    ready: VecDeque<Served>,
    frames: Frames,
}

/// A block on its way out.
pub(super) struct Served {
    pub job: JobId,
    pub bytes: u64,
    pub frame: Bytes,
}

struct Batch {
    job: JobId,
    served: Result<Vec<Served>, StoreError>,
}

/// Memory of frames that were sent, for the next ones. A block is read to where it belongs in its frame,
/// and memory that is used again is not cleared.
#[derive(Clone, Default)]
struct Frames(Arc<Mutex<Vec<Vec<u8>>>>);

impl Frames {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<u8> {
        self.lock().pop().unwrap_or_default()
    }

    /// Shared bytes whose memory comes back when the last user drops them.
    fn share(&self, frame: Vec<u8>) -> Bytes {
        Bytes::from_owner(Frame {
            bytes: frame,
            frames: self.clone(),
        })
    }

    fn clear(&self) {
        *self.lock() = Vec::new();
    }
}

struct Frame {
    bytes: Vec<u8>,
    frames: Frames,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut frames = self.frames.lock();
        if frames.len() < FRAMES_MAX {
            frames.push(bytes);
        }
    }
}

impl Serving {
    pub fn new(app: &App, waiting: Arc<AtomicUsize>) -> Self {
        Self {
            app: app.clone(),
            waiting,
            requests: VecDeque::new(),
            reading: VecDeque::new(),
            ready: VecDeque::new(),
            frames: Frames::default(),
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
            let Batch { job, served } = batch.expect("reading does not panic");
            match served {
                Ok(served) => self.ready.extend(served),
                Err(error) => self.tell_failed(job, &error),
            }
        }
        let served = self.ready.pop_front();
        if self.is_empty() {
            self.frames.clear();
        }
        served
    }

    fn read_ahead(&mut self) {
        while self.reading.len() < AHEAD_BATCHES {
            let Some(request) = self.requests.front_mut() else {
                return;
            };
            let count = request.blocks.len().min(BATCH_BLOCKS);
            let blocks: Vec<u32> = request.blocks.drain(..count).collect();
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            let matrix = request.matrix;
            let frames = self.frames.clone();
            let job = request.job;
            let header = Header {
                from: self.app.device(),
                to: request.to,
                body: Message::Block {
                    job,
                    operand: request.operand,
                    block: 0,
                },
            };
            if request.blocks.is_empty() {
                self.requests.pop_front();
            }
            if blocks.is_empty() {
                continue;
            }
            let app = self.app.clone();
            self.reading.push_back(tokio::spawn(async move {
                let mut served = read(&app, matrix, &header, &blocks, &frames).await;
                if let Err(StoreError::Missing { .. }) = &served
                    && heal(&app, matrix).await
                {
                    served = read(&app, matrix, &header, &blocks, &frames).await;
                }
                Batch { job, served }
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

/// Frames of `blocks`; `header` is that of any of them.
async fn read(
    app: &App,
    matrix: MatrixId,
    header: &Header,
    blocks: &[u32],
    frames: &Frames,
) -> Result<Vec<Served>, StoreError> {
    let reader = app.store().reader(matrix, app.present()).await?;
    let (mut header, blocks, frames) = (header.clone(), blocks.to_vec(), frames.clone());
    let work = tokio::task::spawn_blocking(move || {
        let frame = |index: u32| {
            let Message::Block { job, block, .. } = &mut header.body else {
                unreachable!("only blocks are served");
            };
            let job = *job;
            *block = index;
            let (mut frame, bytes) = (frames.take(), reader.block_bytes(index));
            frame.reserve_exact(codec::HEADER_ROOM + bytes);
            codec::begin(&mut frame, &header, bytes);
            reader.append(index, &mut frame)?;
            Ok(Served {
                job,
                bytes: bytes as u64,
                frame: frames.share(frame),
            })
        };
        blocks.into_iter().map(frame).collect()
    });
    work.await.map_err(|_| StoreError::Closed)?
}
