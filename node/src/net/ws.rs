//! `/ws` and `/mesh`: WebSockets that other devices open to us.

use futures_util::StreamExt;
use gemmesh_protocol::io::Door;
use warp::Reply;
use warp::reply::Response;
use warp::ws::Ws;

use super::accept::Peer;
use super::link::{Frames, MESSAGE_BYTES_MAX, WRITE_BYTES_MAX};
use crate::app::App;

/// Answers the upgrade and hands the WebSocket to the node.
pub fn upgrade(app: App, door: Door, ws: Ws, peer: Peer) -> Response {
    ws.max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .max_write_buffer_size(WRITE_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            let frames = Frames::<_, warp::ws::Message>::new(socket, peer.allowance);
            let (sink, stream) = frames.split();
            app.run_link(door, None, peer.remote, sink, stream).await;
        })
        .into_response()
}
