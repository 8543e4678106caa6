//! HTTP and WebSockets by hand, for requests that no decent client makes.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

/// The longest a node may take to answer, or to hang up.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A connection to `address`.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream.set_read_timeout(Some(LIMIT)).expect("a socket");
    stream.set_write_timeout(Some(LIMIT)).expect("a socket");
    stream
}

/// Sends `request` as it is and returns the status of the answer; 0 when the node hung up without one.
#[track_caller]
pub fn exchange(address: &str, request: &[u8]) -> (u16, String) {
    let mut stream = connect(address);
    // A node that has seen enough need not read the rest.
    let _ = stream.write_all(request);
    let answer = read_answer(&mut stream);
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or(0), answer)
}

/// One request with this method, path and these headers, nothing added but `Connection: close`.
#[track_caller]
pub fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    exchange(address, (text + "\r\n").as_bytes())
}

fn read_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while bytes.len() < 1 << 20 {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
        }
        // An upgraded connection stays open: its headers are all there is to see.
        if bytes.starts_with(b"HTTP/1.1 101") && bytes.windows(4).any(|w| w == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the node hangs up on this connection within [`LIMIT`], whatever it says before.
pub fn hangs_up(stream: &mut TcpStream) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                return !kinds.contains(&error.kind());
            }
        }
    }
}

/// Opens a WebSocket with these extra headers; the error is the HTTP status that refused it.
///
/// # Errors
/// The status of the answer when it is not 101.
///
/// # Panics
/// When there is no answer in HTTP.
#[track_caller]
pub fn websocket(
    address: &str,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocket<TcpStream>, u16> {
    let url = format!("ws://{address}{path}");
    let mut request = url.into_client_request().expect("a URL");
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("a header");
        request.headers_mut().insert(*name, value);
    }
    match tungstenite::client(request, connect(address)) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("no answer in HTTP: {error}"),
    }
}

/// Sends one binary message and reports whether the node then ends the connection.
pub fn ends_after(socket: &mut WebSocket<TcpStream>, message: Vec<u8>) -> bool {
    if socket.send(Message::binary(message)).is_err() {
        return true;
    }
    loop {
        match socket.read() {
            Ok(Message::Close(_)) => return true,
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) => {
                let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                return !kinds.contains(&error.kind());
            }
            Err(_) => return true,
        }
    }
}
