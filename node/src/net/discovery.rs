//! Finding nodes on the LAN by mDNS and being found.
//!
//! What arrives is a hint and no more: anybody on the LAN can announce anything. The address is
//! dialled, and the handshake decides. So announcements are bounded in number, only local
//! addresses count, and a repeated one is passed on at most every few seconds.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gemmesh_protocol::id::DeviceId;
use gemmesh_protocol::time::WallTime;
use mdns_sd::{
    DaemonStatus, IfKind, IfPredicate, Receiver, ResolvedService, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{reach, urls};
use crate::app::App;

/// The service type.
const SERVICE: &str = "_gemmesh._tcp.local.";
/// Announced instances that are remembered; later ones wait until some are withdrawn.
const PEERS_MAX: usize = 256;
/// The soonest that an unchanged announcement is passed on again.
const REPEAT: Duration = Duration::from_secs(5);
/// How long to wait before browsing again when the channel broke.
const REBROWSE: Duration = Duration::from_millis(500);
/// How long the goodbye may take: withdrawing, then stopping the daemon.
const GOODBYE: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(100)];
/// The most bytes of an instance's name: one label of DNS.
const INSTANCE_BYTES_MAX: usize = 63;

/// What this node says of itself.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// This device.
    pub device: DeviceId,
    /// Its name for people.
    pub name: String,
    /// Its mesh.
    pub mesh: String,
    /// Its start.
    pub incarnation: WallTime,
    /// Where it listens.
    pub port: u16,
    /// The only address to announce on and to listen on.
    pub bind: Option<IpAddr>,
}

/// Announcing and browsing; ends with [`Discovery::goodbye`].
pub struct Discovery {
    daemon: ServiceDaemon,
    instance: String,
    stop: CancellationToken,
}

/// Announces `app` and passes what is found to `App::hint`.
///
/// # Errors
/// The system gives no multicast socket.
pub fn start(app: App) -> Result<Discovery, mdns_sd::Error> {
    let announcement = Announcement {
        device: app.device(),
        name: app.config().name.clone(),
        mesh: app.config().mesh.clone(),
        incarnation: crate::os::wall(),
        port: app.port(),
        bind: app.config().bind,
    };
    announce(&announcement, move |address, device| {
        app.hint(address, Some(device))
    })
}

/// Announces `announcement` and passes every node of the same mesh that is found to `found`, as
/// `HOST:PORT` and the device that is said to be there.
///
/// # Errors
/// The system gives no multicast socket.
pub fn announce(
    announcement: &Announcement,
    found: impl Fn(String, DeviceId) + Send + 'static,
) -> Result<Discovery, mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    // Commands are carried out in order: nothing has been sent before the interfaces are chosen.
    let bind = announcement.bind.filter(|ip| !ip.is_unspecified());
    let interfaces = IfKind::Predicate(IfPredicate::new(move |interface| match bind {
        // An address within 127/8 that the loopback interface does not list is still on it.
        Some(ip) => {
            interface.ip() == ip
                || (ip.is_loopback()
                    && interface.ip().is_loopback()
                    && ip.is_ipv4() == interface.ip().is_ipv4())
        }
        None => urls::lan(&urls::interfaces())
            .iter()
            .any(|lan| lan.ip == interface.ip()),
    }));
    daemon.disable_interface(IfKind::All)?;
    daemon.enable_interface(interfaces.clone())?;
    let service = describe(announcement, bind, interfaces)?;
    let instance = service.get_fullname().to_owned();
    daemon.register(service)?;
    let stop = CancellationToken::new();
    let filter = Filter {
        device: announcement.device,
        mesh: announcement.mesh.clone(),
        loopback: bind.is_some_and(|ip| ip.is_loopback()),
        seen: BTreeMap::new(),
    };
    let events = daemon.browse(SERVICE)?;
    let (browser, stopped) = (daemon.clone(), stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = listen(browser, events, filter, found) => {}
        }
    });
    Ok(Discovery {
        daemon,
        instance,
        stop,
    })
}

impl Discovery {
    /// Withdraws the announcement and stops. Takes less than half a second.
    pub async fn goodbye(self) {
        self.stop.cancel();
        let [withdraw, stop] = GOODBYE;
        if let Ok(withdrawn) = self.daemon.unregister(&self.instance) {
            let _ = tokio::time::timeout(withdraw, withdrawn.recv_async()).await;
        }
        if let Ok(stopped) = self.daemon.shutdown() {
            let stopped = async { stopped.recv_async().await != Ok(DaemonStatus::Shutdown) };
            let _ = tokio::time::timeout(stop, stopped).await;
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.stop.cancel();
        // After a goodbye the daemon is gone and says so.
        let _ = self.daemon.shutdown();
    }
}

fn describe(
    announcement: &Announcement,
    bind: Option<IpAddr>,
    interfaces: IfKind,
) -> Result<ServiceInfo, mdns_sd::Error> {
    let id = announcement.device.to_string();
    let short = announcement.device.short();
    let properties = [
        ("id", id),
        ("mesh", announcement.mesh.clone()),
        ("version", gemmesh_protocol::message::VERSION.to_string()),
        ("incarnation", announcement.incarnation.0.to_string()),
    ];
    let instance = instance(&announcement.name, &short);
    let host = format!("gemmesh-{short}.local.");
    let addresses: Vec<IpAddr> = bind.into_iter().collect();
    let mut service = ServiceInfo::new(
        SERVICE,
        &instance,
        &host,
        &addresses[..],
        announcement.port,
        &properties[..],
    )?;
    if bind.is_none() {
        service = service.enable_addr_auto();
    }
    service.set_interfaces(vec![interfaces]);
    // The name holds the device's id: there is nobody to ask whether it is free, and asking takes
    // three quarters of a second.
    service.set_requires_probe(false);
    Ok(service)
}

/// A name for people and the id, in one label.
fn instance(name: &str, short: &str) -> String {
    let mut label: String = name.chars().filter(|c| !c.is_control()).collect();
    let room = INSTANCE_BYTES_MAX - short.len() - 1;
    while label.len() > room {
        label.pop();
    }
    format!("{} {short}", label.trim()).trim_start().to_owned()
}

/// Passes on what the filter lets through, for ever.
async fn listen(
    daemon: ServiceDaemon,
    mut events: Receiver<ServiceEvent>,
    mut filter: Filter,
    found: impl Fn(String, DeviceId),
) {
    loop {
        while let Ok(event) = events.recv_async().await {
            filter.handle(event, &found);
        }
        // The daemon drops a subscription that could not keep up, without a word.
        events = loop {
            tokio::time::sleep(REBROWSE).await;
            let _ = daemon.stop_browse(SERVICE);
            match daemon.browse(SERVICE) {
                Ok(events) => break events,
                Err(mdns_sd::Error::DaemonShutdown) => return,
                Err(error) => tracing::debug!(%error, "browse"),
            }
        };
    }
}

/// Which announcements count.
struct Filter {
    device: DeviceId,
    mesh: String,
    /// Bound to loopback: the others are there too, and nowhere else.
    loopback: bool,
    /// By instance: what was passed on last, and when.
    seen: BTreeMap<String, (DeviceId, String, Instant)>,
}

impl Filter {
    fn handle(&mut self, event: ServiceEvent, found: &impl Fn(String, DeviceId)) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let Some((address, device)) = self.read(&service) else {
                    return;
                };
                let now = Instant::now();
                let instance = service.get_fullname();
                match self.seen.get(instance) {
                    Some((d, a, at)) if (*d, a) == (device, &address) && now - *at < REPEAT => {
                        return;
                    }
                    None if self.seen.len() >= PEERS_MAX => return,
                    _ => {}
                }
                self.seen
                    .insert(instance.to_owned(), (device, address.clone(), now));
                tracing::debug!(address, device = device.short(), "found by mDNS");
                found(address, device);
            }
            ServiceEvent::ServiceRemoved(_, instance) => {
                self.seen.remove(&instance);
            }
            _ => {}
        }
    }

    /// The best local address and the device of an announcement of the same mesh by another one.
    fn read(&self, service: &ResolvedService) -> Option<(String, DeviceId)> {
        let device: DeviceId = service.get_property_val_str("id")?.parse().ok()?;
        let mesh = service.get_property_val_str("mesh")?;
        if device == self.device || mesh != self.mesh || service.get_port() == 0 {
            return None;
        }
        let ips = service
            .get_addresses()
            .iter()
            .map(|address| address.to_ip_addr());
        let near = |ip: &IpAddr| reach::is_local(*ip) && ip.is_loopback() == self.loopback;
        let ip = urls::best(ips.filter(near))?;
        Some((SocketAddr::new(ip, service.get_port()).to_string(), device))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// Long against what discovery takes, so that only its failure runs into it.
    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn nodes_bound_to_loopback_find_each_other_and_see_each_other_go_and_come() {
        let mesh = format!("test {}", std::process::id());
        let (found_by_a, mut a_finds) = mpsc::unbounded_channel();
        let (found_by_b, mut b_finds) = mpsc::unbounded_channel();
        let a = start_one(1, &mesh, 4001, found_by_a);
        // Another mesh on the same wire is none of ours.
        let (found_by_other, mut other_finds) = mpsc::unbounded_channel();
        let other = start_one(9, "another mesh", 4009, found_by_other);
        let b = start_one(2, &mesh, 4002, found_by_b);
        assert_eq!(
            next(&mut a_finds).await,
            ("127.0.0.1:4002".to_owned(), DeviceId([2; 32]))
        );
        assert_eq!(
            next(&mut b_finds).await,
            ("127.0.0.1:4001".to_owned(), DeviceId([1; 32]))
        );
        b.goodbye().await;
        // It comes back elsewhere, under the same name.
        let (found_by_b, mut b_finds) = mpsc::unbounded_channel();
        let b = start_one(2, &mesh, 4003, found_by_b);
        loop {
            let (address, device) = next(&mut a_finds).await;
            assert_eq!(device, DeviceId([2; 32]));
            if address == "127.0.0.1:4003" {
                break;
            }
        }
        assert_eq!(
            next(&mut b_finds).await,
            ("127.0.0.1:4001".to_owned(), DeviceId([1; 32]))
        );
        assert!(other_finds.try_recv().is_err());
        a.goodbye().await;
        b.goodbye().await;
        other.goodbye().await;
    }

    #[test]
    fn an_instance_is_one_label_whatever_the_name() {
        assert_eq!(instance("Anna's PC", "01234567"), "Anna's PC 01234567");
        assert_eq!(instance("", "01234567"), "01234567");
        assert_eq!(instance("a\u{1b}[31m\nb", "01234567"), "a[31mb 01234567");
        let long = instance(&"ü".repeat(100), "01234567");
        assert!(
            long.len() <= INSTANCE_BYTES_MAX && long.ends_with(" 01234567"),
            "{long}"
        );
    }

    #[test]
    fn announcements_that_can_not_be_ours_are_ignored() {
        let good = [("id", id(2)), ("mesh", "home".to_owned())];
        check(&good, "192.168.1.7", 8080, Some("192.168.1.7:8080"));
        check(&good, "8.8.8.8", 8080, None);
        check(&good, "169.254.169.254", 80, None);
        check(&good, "127.0.0.1", 8080, None);
        check(&good, "fe80::1", 8080, None);
        check(
            &good,
            "192.168.1.7,8.8.8.8,127.0.0.1,10.0.0.1",
            8080,
            Some("192.168.1.7:8080"),
        );
        check(&good, "192.168.1.7", 0, None);
        check(
            &[("id", id(1)), ("mesh", "home".to_owned())],
            "192.168.1.7",
            8080,
            None,
        );
        check(
            &[("id", id(2)), ("mesh", "work".to_owned())],
            "192.168.1.7",
            8080,
            None,
        );
        check(
            &[("id", "02".to_owned()), ("mesh", "home".to_owned())],
            "192.168.1.7",
            8080,
            None,
        );
        check(&[("id", id(2))], "192.168.1.7", 8080, None);
        check(&[("mesh", "home".to_owned())], "192.168.1.7", 8080, None);
    }

    #[test]
    fn a_flood_of_announcements_is_bounded_and_repeats_are_rare() {
        let mut filter = filter();
        let passed = std::cell::Cell::new(0);
        let found = |_: String, _: DeviceId| passed.set(passed.get() + 1);
        for round in 0..2 {
            for peer in 0..10_000 {
                let name = format!("peer {peer}");
                let properties = [("id", id(2)), ("mesh", "home".to_owned())];
                filter.handle(resolved(&name, &properties, "192.168.1.7", 8080), &found);
            }
            assert_eq!(
                (passed.get(), filter.seen.len()),
                (PEERS_MAX, PEERS_MAX),
                "round {round}"
            );
        }
        let gone = format!("peer 0.{SERVICE}");
        filter.handle(
            ServiceEvent::ServiceRemoved(SERVICE.to_owned(), gone),
            &found,
        );
        let properties = [("id", id(3)), ("mesh", "home".to_owned())];
        filter.handle(resolved("late", &properties, "192.168.1.8", 8080), &found);
        assert_eq!(passed.get(), PEERS_MAX + 1);
    }

    fn start_one(
        id: u8,
        mesh: &str,
        port: u16,
        found: mpsc::UnboundedSender<(String, DeviceId)>,
    ) -> Discovery {
        let announcement = Announcement {
            device: DeviceId([id; 32]),
            name: format!("node {id}"),
            mesh: mesh.to_owned(),
            incarnation: WallTime(1),
            port,
            bind: Some(IpAddr::from([127, 0, 0, 1])),
        };
        let started = announce(&announcement, move |address, device| {
            let _ = found.send((address, device));
        });
        started.expect("a multicast socket")
    }

    async fn next(found: &mut mpsc::UnboundedReceiver<(String, DeviceId)>) -> (String, DeviceId) {
        let found = tokio::time::timeout(LIMIT, found.recv()).await;
        found
            .expect("nobody was found")
            .expect("the daemon is gone")
    }

    fn id(byte: u8) -> String {
        DeviceId([byte; 32]).to_string()
    }

    fn filter() -> Filter {
        Filter {
            device: DeviceId([1; 32]),
            mesh: "home".to_owned(),
            loopback: false,
            seen: BTreeMap::new(),
        }
    }

    fn resolved(name: &str, properties: &[(&str, String)], ips: &str, port: u16) -> ServiceEvent {
        let info = ServiceInfo::new(SERVICE, name, "host.local.", ips, port, properties);
        ServiceEvent::ServiceResolved(Box::new(info.expect("well formed").as_resolved_service()))
    }

    fn check(properties: &[(&str, String)], ips: &str, port: u16, expected: Option<&str>) {
        let ServiceEvent::ServiceResolved(service) = resolved("peer", properties, ips, port) else {
            unreachable!("made as resolved");
        };
        let read = filter().read(&service).map(|(address, _)| address);
        assert_eq!(read.as_deref(), expected, "{properties:?} {ips} {port}");
    }
}
