//! Which node a command talks to: the one asked for, this device's, or one of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::serve::{self, RunningNode};
use clap::Parser as _;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::args::{Cli, QueryArgs, ServeArgs};
use super::client::Client;
use super::config;
use super::error::CliError;
use super::lock;
use super::values::NodeUrl;

/// How long this device's own node may take to answer.
const LOCAL_LIMIT: Duration = Duration::from_secs(2);

/// A node that lives as long as one command.
pub struct Embedded {
    running: RunningNode,
    shutdown: CancellationToken,
    // Removed with everything in it once the node has stopped.
    _dir: TempDir,
}

impl Embedded {
    /// Starts a node on a free port with a temporary directory. It looks for others and nobody
    /// waits for them: who is found helps. `GEMMESH_*` apply, such as `GEMMESH_BIND`.
    ///
    /// # Errors
    /// No node can be started here.
    pub async fn start() -> Result<(Self, Client), CliError> {
        let dir = tempfile::Builder::new()
            .prefix("gemmesh-")
            .tempdir()
            .map_err(|error| {
                CliError::failed(
                    format!("there is no place for temporary files: {error}"),
                    "set TMPDIR to a directory that can be written",
                )
            })?;
        let mut args = from_environment()?;
        args.port = 0;
        args.data_dir = Some(dir.path().to_owned());
        // Nobody would ask for its job after it has ended.
        args.backups = 0;
        // And nobody opens its page.
        args.tls = false;
        let config = config::resolve(&args)?;
        let bind = config.bind;
        let shutdown = CancellationToken::new();
        let running = serve::run(config, shutdown.clone()).await?;
        let client = Client::new(&local_url(bind, running.app.port()));
        Ok((
            Self {
                running,
                shutdown,
                _dir: dir,
            },
            client,
        ))
    }

    /// Says goodbye and removes everything.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.running.stopped().await;
    }
}

/// The node that was asked for, or this device's.
///
/// # Errors
/// None runs there.
pub async fn reach(query: &QueryArgs) -> Result<Client, CliError> {
    match &query.node {
        Some(url) => Ok(Client::new(url)),
        None => local().await?.ok_or_else(|| {
            CliError::unreachable(
                "no node runs on this device",
                "start one with `gemmesh serve`, or say which with --node URL",
            )
        }),
    }
}

/// This device's node, if one runs: by the lock of the data directory, then by the port.
///
/// # Errors
/// The environment has a setting that is not one.
pub async fn local() -> Result<Option<Client>, CliError> {
    let args = from_environment()?;
    if let Ok(dir) = config::data_dir(args.data_dir.as_deref())
        && let Some(running) = lock::find(&dir)
        && let Ok(url) = super::values::node_url(&running.address)
    {
        let client = Client::new(&url);
        if client.answers(LOCAL_LIMIT).await {
            return Ok(Some(client));
        }
    }
    let client = Client::new(&local_url(args.bind, args.port));
    let found = args.port != 0 && client.answers(LOCAL_LIMIT).await;
    Ok(found.then_some(client))
}

/// How this device reaches a node of its own.
pub fn local_url(bind: Option<IpAddr>, port: u16) -> NodeUrl {
    let ip = match bind {
        Some(ip) if !ip.is_unspecified() => ip,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    NodeUrl(format!("http://{}", SocketAddr::new(ip, port)))
}

/// The options of a node as `GEMMESH_*` set them.
fn from_environment() -> Result<ServeArgs, CliError> {
    match Cli::try_parse_from(["gemmesh"]) {
        Ok(cli) => Ok(cli.serve),
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let message = line.strip_prefix("error: ").unwrap_or(line);
            Err(CliError::usage(
                format!("a GEMMESH_ variable of the environment: {message}"),
                "correct or unset it; `gemmesh serve --help` lists them",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_reached_where_it_listens() {
        for (bind, url) in [
            (None, "http://127.0.0.1:81"),
            (Some("0.0.0.0"), "http://127.0.0.1:81"),
            (Some("10.0.0.1"), "http://10.0.0.1:81"),
            (Some("::1"), "http://[::1]:81"),
        ] {
            let bind = bind.map(|ip| ip.parse().unwrap());
            assert_eq!(local_url(bind, 81).0, url);
        }
    }
}
