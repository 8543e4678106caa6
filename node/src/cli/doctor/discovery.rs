//! Which nodes announce themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mdns_sd::{IfKind, ServiceDaemon, ServiceEvent};

/// The service that nodes announce.
const SERVICE: &str = "_gemmesh._tcp.local.";
/// Nodes answer within a second; packets may be lost once.
const LISTEN: Duration = Duration::from_millis(2_500);
/// Nodes that are looked at closer.
const HEARD_MAX: usize = 32;

/// A node that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// What it calls itself.
    pub(super) name: String,
    /// Its mesh.
    pub(super) mesh: String,
    /// Where it says it listens.
    pub(super) addresses: Vec<SocketAddr>,
}

/// Listens on the interfaces with these addresses.
///
/// # Errors
/// The system gives no multicast socket.
pub(super) async fn listen(ips: Vec<Ipv4Addr>) -> Result<Vec<Heard>, mdns_sd::Error> {
    if ips.is_empty() {
        return Ok(Vec::new());
    }
    let daemon = ServiceDaemon::new()?;
    daemon.disable_interface(IfKind::All)?;
    let chosen: Vec<IfKind> = ips
        .into_iter()
        .map(|ip| IfKind::Addr(IpAddr::V4(ip)))
        .collect();
    daemon.enable_interface(chosen)?;
    let events = daemon.browse(SERVICE)?;
    let mut heard = BTreeMap::new();
    let listening = async {
        while let Ok(event) = events.recv_async().await {
            let ServiceEvent::ServiceResolved(service) = event else {
                continue;
            };
            if heard.len() == HEARD_MAX && !heard.contains_key(service.get_fullname()) {
                continue;
            }
            let port = service.get_port();
            let mut addresses: Vec<SocketAddr> = service
                .get_addresses_v4()
                .into_iter()
                .map(|ip| SocketAddr::new(IpAddr::V4(ip), port))
                .collect();
            addresses.sort();
            let text = |key: &str| {
                service
                    .get_property_val_str(key)
                    .unwrap_or_default()
                    .to_owned()
            };
            let name = service
                .get_fullname()
                .trim_end_matches(SERVICE)
                .trim_end_matches('.')
                .to_owned();
            heard.insert(
                service.get_fullname().to_owned(),
                Heard {
                    name,
                    mesh: text("mesh"),
                    addresses,
                },
            );
        }
    };
    // Hearing all of them is not an event: the time is the measure.
    let _ = tokio::time::timeout(LISTEN, listening).await;
    let _ = daemon.shutdown();
    Ok(heard.into_values().collect())
}
