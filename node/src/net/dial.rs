//! Opening a WebSocket to another node's `/mesh`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use gemmesh_protocol::io::Door;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::accept::Limits;
use super::link::{Frames, MESSAGE_BYTES_MAX, WRITE_BYTES_MAX};
use super::reach;
use super::socket::{Allowance, Socket};
use crate::app::App;

/// The longest that name, connection and upgrade may take together.
const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// Dials `HOST:PORT` and runs the link until it ends, or reports that it could not be dialled.
pub async fn dial(app: App, address: String) {
    let outcome = match tokio::time::timeout(DIAL_LIMIT, connect(&address)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "nothing answered in time",
        )),
    };
    match outcome {
        Ok((peer, socket, allowance)) => {
            let (sink, stream) = Frames::<_, Message>::new(socket, allowance).split();
            app.run_link(Door::Mesh, Some(address), peer, sink, stream)
                .await;
        }
        Err(error) => {
            tracing::debug!(address, %error, "dial");
            app.dial_failed(address, error.to_string()).await;
        }
    }
}

type MeshSocket = WebSocketStream<Socket<TcpStream, ()>>;

async fn connect(address: &str) -> io::Result<(SocketAddr, MeshSocket, Allowance)> {
    let mut failure = None;
    for peer in reach::resolve(address).await? {
        match upgrade(peer).await {
            Ok((socket, allowance)) => return Ok((peer, socket, allowance)),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("the name has no address")))
}

async fn upgrade(peer: SocketAddr) -> io::Result<(MeshSocket, Allowance)> {
    let stream = TcpStream::connect(peer).await?;
    stream.set_nodelay(true)?;
    let allowance = Allowance::unlimited();
    let socket = Socket::new(stream, allowance.clone(), Limits::default().stall, ());
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .max_write_buffer_size(WRITE_BYTES_MAX);
    // The address rather than the name: a node accepts every address of its own as Host. There is
    // no Origin; a node refuses it here.
    let url = format!("ws://{peer}/mesh");
    let (socket, _) = client_async_with_config(url, socket, Some(config))
        .await
        .map_err(|error| io::Error::other(format!("it is no gemmesh node: {error}")))?;
    Ok((socket, allowance))
}
