//! A TCP connection with three bounds: how long a write may stand still, how much a stranger may
//! send before it has introduced itself, and a ticket that is given back when it is gone.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How many more bytes may be read from a connection. Shared between the socket and whoever
/// decides that the other side may send more.
#[derive(Debug, Clone)]
pub struct Allowance(Arc<AtomicU64>);

impl Allowance {
    /// No bound.
    pub fn unlimited() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// From now on at most `bytes` more.
    pub fn limit(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// From now on as much as comes.
    pub fn lift(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    /// Takes `bytes` from what is left; false when less is left.
    fn take(&self, bytes: u64) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| match left {
                u64::MAX => Some(u64::MAX),
                left => left.checked_sub(bytes),
            })
            .is_ok()
    }
}

/// A connection `S` that holds a ticket `T` until it is dropped, also after an upgrade.
#[derive(Debug)]
pub struct Socket<S, T> {
    inner: S,
    allowance: Allowance,
    stall: Duration,
    /// Runs while a write waits for the other side to read.
    stalled: Option<Pin<Box<Sleep>>>,
    _ticket: T,
}

impl<S, T> Socket<S, T> {
    /// `stall` is how long a write may make no progress before the connection is given up.
    pub fn new(inner: S, allowance: Allowance, stall: Duration, ticket: T) -> Self {
        Self {
            inner,
            allowance,
            stall,
            stalled: None,
            _ticket: ticket,
        }
    }

    /// Passes progress on; turns a wait that lasts too long into an error.
    fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let deadline = Instant::now() + self.stall;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the other side does not read",
        )))
    }
}

impl<S: AsyncRead + Unpin, T: Unpin> AsyncRead for Socket<S, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        if !self.allowance.take(read as u64) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more than a stranger may send",
            )));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, T: Unpin> AsyncWrite for Socket<S, T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_write_that_nobody_reads_ends() {
        let (near, _far) = duplex(16);
        let stall = Duration::from_millis(20);
        let mut socket = Socket::new(near, Allowance::unlimited(), stall, ());
        let error = socket.write_all(&[0; 17]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_stranger_may_send_so_much_and_no_more() {
        let (near, mut far) = duplex(1 << 10);
        let allowance = Allowance::unlimited();
        let mut socket = Socket::new(near, allowance.clone(), Duration::from_secs(30), ());
        allowance.limit(100);
        let mut buffer = [0; 100];
        far.write_all(&[1; 100]).await.expect("room");
        socket.read_exact(&mut buffer).await.expect("allowed");
        far.write_all(&[1]).await.expect("room");
        let error = socket.read(&mut buffer).await.expect_err("too much");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        allowance.lift();
        far.write_all(&[1; 200]).await.expect("room");
        socket.read_exact(&mut buffer).await.expect("lifted");
    }
}
