//! A client that trusts one certificate authority, as a browser in which a person has installed it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::node::Reply;

/// An answer comes within this.
const LIMIT: Duration = Duration::from_secs(20);

/// GET over https at `address`, which must prove that it is `host`, on a connection of its own.
///
/// # Errors
/// What rustls finds wrong with it, or why nothing answers.
///
/// # Panics
/// When `authority` is no certificate.
pub fn get(address: &str, host: &str, path: &str, authority: &[u8]) -> Result<Reply, String> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from(authority.to_vec());
    roots.add(authority).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let text = |error: std::io::Error| error.to_string();
    let socket = TcpStream::connect(address).map_err(text)?;
    socket.set_read_timeout(Some(LIMIT)).map_err(text)?;
    let mut stream = StreamOwned::new(client, socket);
    let authority = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(text)?;
    let head = answer.windows(4).position(|part| part == b"\r\n\r\n");
    let head = head.ok_or("no answer")?;
    let status = String::from_utf8_lossy(&answer[..head]);
    let status = status.split(' ').nth(1).and_then(|s| s.parse().ok());
    Ok(Reply {
        status: status.ok_or("no status")?,
        body: answer.split_off(head + 4),
    })
}
