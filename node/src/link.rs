//! One WebSocket as the driver sees it: frames in, frames out, blocks served at the link's pace.
//!
//! A link holds at most [`QUEUE_BYTES_MAX`] of frames waiting to be sent and the few blocks that are
//! read ahead of it. A peer that lets more pile up, or takes longer than [`SEND_LIMIT`] for one
//! frame, is dropped: its leases go back and nobody else notices.

mod serving;

use std::collections::VecDeque;
use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use gemmesh_protocol::codec;
use gemmesh_protocol::id::{DeviceId, JobId, MatrixId};
use gemmesh_protocol::io::{Door, LinkId};
use gemmesh_protocol::job::Operand;
use gemmesh_protocol::message::{Header, Message};
use tokio::sync::mpsc;

use crate::app::App;
use crate::driver::Event;
use crate::memory::Share;

use serving::{Served, Serving};

/// Frames waiting to be sent on one link: a few results or relayed blocks, and news.
const QUEUE_BYTES_MAX: usize = 96 << 20;
/// Blocks asked for and not yet served on one link: both operands of a large job, once over.
const SERVE_BLOCKS_MAX: usize = 1 << 17;
/// The longest that one frame may take to leave.
const SEND_LIMIT: Duration = Duration::from_secs(15);

/// How long a result may wait for its turn; links that say nothing for longer count as dead.
const RESULT_WAIT: Duration = Duration::from_secs(2);

/// Blocks to read and send.
pub struct ServeRequest {
    /// The matrix to read from.
    pub matrix: MatrixId,
    /// Who asked.
    pub to: DeviceId,
    /// For which job.
    pub job: JobId,
    /// Which factor.
    pub operand: Operand,
    /// Which blocks.
    pub blocks: VecDeque<u32>,
}

enum Outgoing {
    Frame(Box<Header>, Option<Bytes>),
    Serve(ServeRequest),
    Block(Served),
    Close,
}

/// The driver's end of a link.
pub struct LinkQueue {
    sender: mpsc::UnboundedSender<Outgoing>,
    bytes: Arc<AtomicUsize>,
    blocks: Arc<AtomicUsize>,
}

impl LinkQueue {
    /// Queues a frame. `false` when the link is gone or can not keep up.
    pub fn send(&self, header: Header, payload: Option<Bytes>) -> bool {
        let bytes = weight(&header, payload.as_ref());
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            return false;
        }
        self.sender
            .send(Outgoing::Frame(Box::new(header), payload))
            .is_ok()
    }

    /// Queues blocks. `false` when the link is gone or too many are asked for at once.
    pub fn serve(&self, request: ServeRequest) -> bool {
        let blocks = request.blocks.len();
        if self.blocks.fetch_add(blocks, Ordering::Relaxed) + blocks > SERVE_BLOCKS_MAX {
            return false;
        }
        self.sender.send(Outgoing::Serve(request)).is_ok()
    }

    /// Whether the other end has gone.
    pub fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// Closes the link after what was queued before.
    pub fn close(&self) {
        // A link that is gone already needs no closing.
        let _ = self.sender.send(Outgoing::Close);
    }
}

/// About how many bytes a frame holds while it waits. The lists count that another device can make
/// this one send again and again.
fn weight(header: &Header, payload: Option<&Bytes>) -> usize {
    const ID: usize = 32;
    const RECORD: usize = 512;
    let lists = match &header.body {
        Message::Job(job) => ID * (job.a.blocks.len() + job.b.blocks.len()),
        Message::Gossip { devices } => RECORD * devices.len(),
        Message::Jobs { jobs } => {
            let parts = jobs.iter().map(|job| 1 + job.contributions.len());
            RECORD * parts.sum::<usize>()
        }
        Message::Grants { grants, .. } => ID * grants.len(),
        _ => 0,
    };
    256 + lists + payload.map_or(0, Bytes::len)
}

/// Pumps one WebSocket of binary messages until either side ends it.
pub async fn run<S, R, E>(
    app: App,
    door: Door,
    dialled: Option<String>,
    peer: SocketAddr,
    sink: S,
    stream: R,
) where
    S: Sink<Bytes, Error = E>,
    R: Stream<Item = Result<Bytes, E>>,
    E: Display,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    let (bytes, blocks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let queue = LinkQueue {
        sender,
        bytes: bytes.clone(),
        blocks: blocks.clone(),
    };
    let link = app.next_link();
    if !app
        .tell(Event::LinkUp {
            link,
            door,
            dialled,
            queue,
        })
        .await
    {
        return;
    }
    let ended = tokio::select! {
        ended = read(&app, link, stream) => ended,
        ended = write(&app, sink, receiver, &bytes, blocks) => ended,
    };
    match ended {
        Ok(()) => tracing::debug!(link = link.0, %peer, "link closed"),
        Err(reason) => tracing::info!(link = link.0, %peer, reason, "link dropped"),
    }
    app.tell(Event::LinkDown { link }).await;
}

async fn read<R, E>(app: &App, link: LinkId, stream: R) -> Result<(), String>
where
    R: Stream<Item = Result<Bytes, E>>,
    E: Display,
{
    let mut stream = pin!(stream);
    let mut greeted = false;
    while let Some(frame) = stream.next().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if !greeted && frame.len() > codec::HELLO_BYTES_MAX {
            return Err("the first frame is too long".to_owned());
        }
        greeted = true;
        let (mut header, start) = codec::decode(&frame).map_err(|error| error.to_string())?;
        let mut payload = frame.slice(start..);
        if let Message::Result { job, lease, .. } = header.body
            && header.to == app.device()
        {
            payload = match counted(app, payload, frame.len()).await {
                Some(payload) => payload,
                None => {
                    header.body = Message::Return {
                        job,
                        leases: vec![lease],
                        failed: false,
                    };
                    Bytes::new()
                }
            };
        }
        let header = Box::new(header);
        if !app
            .tell(Event::Frame {
                link,
                header,
                payload,
            })
            .await
        {
            return Ok(());
        }
    }
    Ok(())
}

/// The bytes of a result, counted until the last user drops them, with the `held` bytes of the
/// frame that they keep; `None` when there is no room for long.
async fn counted(app: &App, bytes: Bytes, held: usize) -> Option<Bytes> {
    let room = app.results().take(held as u64);
    let room = tokio::time::timeout(RESULT_WAIT, room).await.ok()?;
    Some(Share::counted(bytes, room))
}

async fn write<S, E>(
    app: &App,
    sink: S,
    mut receiver: mpsc::UnboundedReceiver<Outgoing>,
    bytes: &AtomicUsize,
    blocks: Arc<AtomicUsize>,
) -> Result<(), String>
where
    S: Sink<Bytes, Error = E>,
    E: Display,
{
    let mut sink = pin!(sink);
    let mut serving = Serving::new(app, blocks);
    loop {
        // Control frames go before the next block, so that a grant never waits for a panel.
        let next = tokio::select! {
            biased;
            next = receiver.recv() => match next {
                Some(next) => next,
                None => return Ok(()),
            },
            block = serving.next(), if !serving.is_empty() => match block {
                Some(block) => Outgoing::Block(block),
                None => continue,
            },
        };
        let frame = match next {
            Outgoing::Frame(header, payload) => {
                bytes.fetch_sub(weight(&header, payload.as_ref()), Ordering::Relaxed);
                let payload = payload.unwrap_or_default();
                Bytes::from(codec::encode(&header, &payload))
            }
            Outgoing::Serve(request) => {
                serving.push(request);
                continue;
            }
            Outgoing::Block(Served { job, bytes, frame }) => {
                app.tell(Event::Traffic { job, bytes }).await;
                frame
            }
            Outgoing::Close => {
                let _ = tokio::time::timeout(SEND_LIMIT, sink.close()).await;
                return Ok(());
            }
        };
        // Whatever is there already goes out in one piece with this.
        let last = receiver.is_empty() && !serving.is_ready();
        let sent = async {
            sink.feed(frame).await?;
            if last { sink.flush().await } else { Ok(()) }
        };
        match tokio::time::timeout(SEND_LIMIT, sent).await {
            Ok(sent) => sent.map_err(|error| error.to_string())?,
            Err(_) => return Err("the peer does not read".to_owned()),
        }
    }
}
