//! Ctrl-C and its relatives.

use std::future::Future;
use std::io;

/// Resolves with the first request to stop. A second one ends the program at once, so that a
/// person never has to look for another way out.
///
/// The signals are caught from this call on, not from the first poll.
///
/// # Errors
/// The system does not let signals be caught.
pub fn stop_requested() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut requests = Requests::new()?;
    let (first, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        requests.next().await;
        // Nobody waits when the command has ended by itself.
        let _ = first.send(());
        requests.next().await;
        std::process::exit(1);
    });
    Ok(async {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

#[cfg(unix)]
struct Requests {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Requests {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Requests {
    interrupt: tokio::signal::windows::CtrlC,
    close: tokio::signal::windows::CtrlClose,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Requests {
    fn new() -> io::Result<Self> {
        use tokio::signal::windows;
        Ok(Self {
            interrupt: windows::ctrl_c()?,
            close: windows::ctrl_close()?,
            shutdown: windows::ctrl_shutdown()?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}
