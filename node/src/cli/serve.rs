//! `gemmesh serve`: a node until Ctrl-C.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use crate::config::NodeConfig;
use crate::serve;
use tokio_util::sync::CancellationToken;

use super::args::{LogFormat, ServeArgs, When};
use super::error::CliError;
use super::lock::DataDirLock;
use super::{config, locate, logging, qr, signals, text};

/// Goodbye takes no longer than this, whatever happens.
const GOODBYE_LIMIT: Duration = Duration::from_millis(900);

/// Runs a node until it is asked to stop.
///
/// # Errors
/// What keeps it from starting, and the fix.
pub async fn run(args: ServeArgs) -> Result<(), CliError> {
    logging::start(&args.log, "info")?;
    let config = config::resolve(&args)?;
    let stop = signals::stop_requested()
        .map_err(|error| CliError::failed(format!("Ctrl-C can not be caught: {error}"), ""))?;
    let lock = DataDirLock::acquire(&config.data_dir)?;
    let shutdown = CancellationToken::new();
    let running = serve::run(config.clone(), shutdown.clone()).await?;
    let port = running.app.port();
    let local = locate::local_url(config.bind, port).0;
    let address = local.trim_start_matches("http://");
    if let Err(error) = lock.publish(address) {
        tracing::warn!(%error, "other commands can not find this node by its data directory");
    }
    let addresses = running.app.addresses();
    if args.log.log_format == LogFormat::Json {
        tracing::info!(name = %config.name, device = %running.app.device(), ?addresses, "ready");
    } else {
        let banner = Banner {
            device: running.app.device().short(),
            addresses: &addresses,
            local: &local,
            config: &config,
            fingerprint: running.app.tls().map(|tls| tls.authority().fingerprint()),
        };
        show(&banner.render(picture(args.qr, &addresses)));
    }

    tokio::select! {
        () = stop => {}
        () = shutdown.cancelled() => {}
    }
    if args.log.log_format == LogFormat::Text {
        show("\nStopping: handing work back and saying goodbye.\n");
    }
    shutdown.cancel();
    if tokio::time::timeout(GOODBYE_LIMIT, running.stopped())
        .await
        .is_err()
    {
        tracing::warn!("stopped before every goodbye was said");
    }
    Ok(())
}

/// Prints; a reader that has gone does not stop the node.
fn show(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

fn picture(when: When, addresses: &[String]) -> Option<String> {
    let terminal = std::io::stdout().is_terminal();
    let wanted = match when {
        When::Auto => terminal,
        When::Always => true,
        When::Never => false,
    };
    // A phone can not open an address of this device's own loopback.
    let best = addresses.iter().find(|address| !is_loopback(address));
    let asked = if when == When::Always {
        addresses.first()
    } else {
        None
    };
    let address = best.or(asked).filter(|_| wanted)?;
    // Colours make the code black on white on any terminal; `NO_COLOR` is obeyed all the same.
    qr::render(&format!("http://{address}"), console::colors_enabled())
}

fn is_loopback(address: &str) -> bool {
    let ip = address
        .parse::<std::net::SocketAddr>()
        .map(|address| address.ip());
    ip.is_ok_and(|ip| ip.is_loopback()) || address.starts_with("localhost")
}

struct Banner<'a> {
    device: String,
    addresses: &'a [String],
    local: &'a str,
    config: &'a NodeConfig,
    /// Of the certificate that devices install to use https.
    fingerprint: Option<String>,
}

impl Banner<'_> {
    fn render(&self, picture: Option<String>) -> String {
        let config = self.config;
        let mut lines = vec![
            String::new(),
            format!(
                "  gemmesh {} · {} ({}) · mesh {}",
                env!("CARGO_PKG_VERSION"),
                config.name,
                self.device,
                config.mesh
            ),
            format!(
                "  {} · up to {} of memory",
                text::count(config.threads.into(), "thread"),
                text::bytes(config.memory)
            ),
            format!("  data in {}", config.data_dir.display()),
            String::new(),
            "  Another computer:  gemmesh serve".to_owned(),
            format!(
                "  To multiply:       gemmesh multiply a.npy b.npy -o c.npy{}",
                self.node_option()
            ),
            "  Nobody shows up?   gemmesh doctor".to_owned(),
            "  To stop:           Ctrl-C".to_owned(),
            String::new(),
        ];
        let mut urls: Vec<String> = self
            .addresses
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        if !urls.iter().any(|url| url == self.local) {
            urls.push(self.local.to_owned());
        }
        let reachable = self.addresses.iter().any(|address| !is_loopback(address));
        // The address and the code come last, where they stay on a low terminal.
        lines.push(match (reachable, &picture) {
            (false, _) => "  Only this device can reach this node:".to_owned(),
            (true, None) => {
                "  Open one of these on any device of this network; it joins:".to_owned()
            }
            (true, Some(_)) => "  Open one of these on any device of this network, or point\n  \
                 a phone's camera at the code; the page joins by itself:"
                .to_owned(),
        });
        lines.extend(urls.iter().map(|url| {
            let here = reachable && is_loopback(url.trim_start_matches("http://"));
            format!(
                "    {url}{}",
                if here { "   (this device only)" } else { "" }
            )
        }));
        if let (Some(fingerprint), Some(url)) = (&self.fingerprint, urls.first()) {
            lines.extend([
                String::new(),
                format!("  For https and the page as an app, once on each device: {url}/ca"),
                "  The SHA-256 fingerprint of its certificate, for comparison:".to_owned(),
            ]);
            // Two lines fit into any terminal.
            let (first, second) = fingerprint.split_at(fingerprint.len() / 2 + 1);
            lines.extend([format!("    {first}"), format!("    {second}")]);
        }
        lines.push(String::new());
        if let Some(picture) = picture {
            lines.extend(picture.lines().map(str::to_owned));
            lines.push(String::new());
        }
        lines.join("\n") + "\n"
    }

    /// What other commands need to find this node: nothing where they look by themselves.
    fn node_option(&self) -> String {
        let usual_place = config::data_dir(None).is_ok_and(|dir| dir == self.config.data_dir);
        if usual_place || self.local.ends_with(":8080") {
            return String::new();
        }
        format!(" --node {}", self.local.trim_start_matches("http://"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_https_says_where_its_certificate_is() {
        let config = config();
        let addresses = ["192.168.1.7:8080".to_owned()];
        let banner = |fingerprint: Option<String>| {
            let banner = Banner {
                device: "0123abcd".to_owned(),
                addresses: &addresses,
                local: "http://127.0.0.1:8080",
                config: &config,
                fingerprint,
            };
            banner.render(None)
        };
        let text = banner(Some(vec!["AB"; 32].join(":")));
        assert!(text.contains("http://192.168.1.7:8080/ca\n"), "{text}");
        let half = vec!["AB"; 16].join(":");
        let lines = format!("    {half}:\n    {half}\n");
        assert!(text.contains(&lines), "{text}");
        assert!(!banner(None).contains("https"));
    }

    #[test]
    fn the_banner_says_who_where_and_what_next() {
        let text = banner(
            &["192.168.1.7:8080", "10.0.0.1:8080"],
            "http://127.0.0.1:8080",
        );
        for part in [
            "kitchen",
            "0123abcd",
            "http://192.168.1.7:8080",
            "http://127.0.0.1:8080",
            "Ctrl-C",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("any device of this network"), "{text}");
        assert!(
            !text.contains("--node"),
            "the usual port is found without: {text}"
        );
    }

    #[test]
    fn a_node_for_this_device_alone_says_so() {
        let text = banner(&["127.0.0.1:9"], "http://127.0.0.1:9");
        assert!(text.contains("Only this device"), "{text}");
        assert_eq!(
            text.matches("    http://127.0.0.1:9\n").count(),
            1,
            "{text}"
        );
        assert!(text.contains("--node 127.0.0.1:9"), "{text}");
    }

    #[test]
    fn a_phone_gets_no_code_for_the_loopback() {
        let addresses = ["127.0.0.1:1".to_owned(), "[::1]:1".to_owned()];
        assert!(addresses.iter().all(|address| is_loopback(address)));
        assert!(picture(When::Never, &["192.168.1.7:8080".to_owned()]).is_none());
        assert!(picture(When::Always, &["192.168.1.7:8080".to_owned()]).is_some());
    }

    fn config() -> NodeConfig {
        NodeConfig {
            port: 8080,
            bind: None,
            name: "kitchen".to_owned(),
            data_dir: "/tmp/x".into(),
            mesh: "gemmesh".to_owned(),
            peers: Vec::new(),
            mdns: true,
            threads: 2,
            memory: 1 << 30,
            disk: 1 << 30,
            backups: 3,
            result_ttl: Duration::from_secs(1),
            tls: false,
            allow_hosts: Vec::new(),
        }
    }

    fn banner(addresses: &[&str], local: &str) -> String {
        let config = config();
        let addresses: Vec<String> = addresses
            .iter()
            .map(|address| (*address).to_owned())
            .collect();
        let banner = Banner {
            device: "0123abcd".to_owned(),
            addresses: &addresses,
            local,
            config: &config,
            fingerprint: None,
        };
        banner.render(None)
    }
}
