//! One WebSocket as a stream and a sink of binary messages, whichever side opened it.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use gemmesh_protocol::codec::{HEADER_BYTES_MAX, HELLO_BYTES_MAX, PAYLOAD_BYTES_MAX};

use super::socket::Allowance;

/// The most bytes of a message: a frame's array and `bin` markers, its header, its payload.
pub const MESSAGE_BYTES_MAX: usize = HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX + 16;
/// What may be read before the first message is through: a Hello, and what the other side may
/// have sent behind it by then.
pub const STRANGER_BYTES_MAX: u64 = (HELLO_BYTES_MAX + (192 << 10)) as u64;
/// What a WebSocket may hold back for a slow reader: one message besides the usual buffer.
pub const WRITE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (1 << 20);

/// Why a WebSocket ended.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The connection or the WebSocket protocol failed.
    #[error("{0}")]
    Broken(String),
    /// Only binary messages are spoken.
    #[error("a text message")]
    Text,
    /// The first message was longer than a Hello may be.
    #[error("the first message is longer than a Hello may be")]
    HelloTooLong,
}

/// What a message of a WebSocket library is to us.
pub trait Message {
    /// Sorts a message.
    fn sort(self) -> Sorted;
    /// A binary message.
    fn binary(bytes: Bytes) -> Self;
}

/// The kinds of messages of a WebSocket.
#[derive(Debug)]
pub enum Sorted {
    /// A frame of ours.
    Binary(Bytes),
    /// The library answers these by itself.
    Control,
    /// Not spoken here.
    Text,
    /// The other side closes.
    Close,
}

impl Message for warp::ws::Message {
    fn sort(self) -> Sorted {
        if self.is_binary() {
            Sorted::Binary(self.into_bytes())
        } else if self.is_text() {
            Sorted::Text
        } else if self.is_close() {
            Sorted::Close
        } else {
            Sorted::Control
        }
    }

    fn binary(bytes: Bytes) -> Self {
        warp::ws::Message::binary(bytes)
    }
}

impl Message for tokio_tungstenite::tungstenite::Message {
    fn sort(self) -> Sorted {
        use tokio_tungstenite::tungstenite::Message as M;
        match self {
            M::Binary(bytes) => Sorted::Binary(bytes),
            M::Text(_) => Sorted::Text,
            M::Close(_) => Sorted::Close,
            M::Ping(_) | M::Pong(_) | M::Frame(_) => Sorted::Control,
        }
    }

    fn binary(bytes: Bytes) -> Self {
        tokio_tungstenite::tungstenite::Message::Binary(bytes)
    }
}

/// The binary messages of a WebSocket. Until the first one is through, its connection may only
/// bring [`STRANGER_BYTES_MAX`] bytes.
#[derive(Debug)]
pub struct Frames<W, M> {
    socket: W,
    allowance: Allowance,
    introduced: bool,
    message: PhantomData<fn() -> M>,
}

impl<W, M> Frames<W, M> {
    /// Takes over a WebSocket whose connection obeys `allowance`.
    pub fn new(socket: W, allowance: Allowance) -> Self {
        allowance.limit(STRANGER_BYTES_MAX);
        Self {
            socket,
            allowance,
            introduced: false,
            message: PhantomData,
        }
    }
}

impl<W, M, E> Stream for Frames<W, M>
where
    W: Stream<Item = Result<M, E>> + Unpin,
    M: Message,
    E: std::fmt::Display,
{
    type Item = Result<Bytes, SocketError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let message = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(SocketError::Broken(error.to_string()))));
                }
                Some(Ok(message)) => message,
            };
            let frame = match message.sort() {
                Sorted::Control => continue,
                Sorted::Close => return Poll::Ready(None),
                Sorted::Text => Err(SocketError::Text),
                Sorted::Binary(bytes) if !self.introduced && bytes.len() > HELLO_BYTES_MAX => {
                    Err(SocketError::HelloTooLong)
                }
                Sorted::Binary(bytes) => Ok(bytes),
            };
            if frame.is_ok() && !self.introduced {
                self.introduced = true;
                self.allowance.lift();
            }
            return Poll::Ready(Some(frame));
        }
    }
}

impl<W, M> Sink<Bytes> for Frames<W, M>
where
    W: Sink<M> + Unpin,
    W::Error: std::fmt::Display,
    M: Message,
{
    type Error = SocketError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        Pin::new(&mut self.socket).poll_ready(cx).map_err(broken)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Bytes) -> Result<(), SocketError> {
        Pin::new(&mut self.socket)
            .start_send(M::binary(frame))
            .map_err(broken)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(broken)
    }
}

fn broken(error: impl std::fmt::Display) -> SocketError {
    SocketError::Broken(error.to_string())
}
