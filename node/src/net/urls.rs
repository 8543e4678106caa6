//! Under which addresses other devices reach this node, the likeliest first.

use std::net::IpAddr;

use gemmesh_protocol::message::ADDRESSES_MAX;

use super::reach;

/// One address of one network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// What the system calls the interface.
    pub name: String,
    /// The address.
    pub ip: IpAddr,
    /// A tunnel: it has one peer and carries no multicast.
    pub point_to_point: bool,
}

/// Beginnings of the names of interfaces that lead to containers and virtual machines.
const VIRTUAL: [&str; 18] = [
    "docker",
    "br-",
    "veth",
    "virbr",
    "vmnet",
    "vboxnet",
    "podman",
    "cni",
    "flannel",
    "cali",
    "lxc",
    "lxdbr",
    "vnet",
    "bridge1",
    "vethernet",
    "ifb",
    "dummy",
    "kube",
];
/// Beginnings of the names of tunnels and of Apple's peer-to-peer links.
const TUNNELS: [&str; 12] = [
    "tun",
    "tap",
    "wg",
    "utun",
    "tailscale",
    "zt",
    "ppp",
    "ipsec",
    "awdl",
    "llw",
    "gpd",
    "nordlynx",
];

/// All addresses of this machine's interfaces that are up. Cost: one system call or two.
pub fn interfaces() -> Vec<Interface> {
    // A system that does not say which interfaces it has (some phones) still has those through
    // which connections come in; the guard knows these.
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    let up = found
        .into_iter()
        .filter(|found| found.is_oper_up() || found.is_loopback());
    up.map(|found| Interface {
        ip: found.ip().to_canonical(),
        point_to_point: found.is_p2p(),
        name: found.name,
    })
    .collect()
}

/// The interfaces of the LAN among `all`: neither loopback nor tunnels, and virtual ones only when
/// there is nothing else (inside a container or a network namespace they are the LAN).
pub fn lan(all: &[Interface]) -> Vec<&Interface> {
    let named = |interface: &Interface, names: &[&str]| {
        let name = interface.name.to_ascii_lowercase();
        names.iter().any(|prefix| name.starts_with(prefix))
    };
    let outside = |interface: &&Interface| {
        !interface.ip.is_loopback()
            && !interface.ip.is_unspecified()
            && !interface.point_to_point
            && !named(interface, &TUNNELS)
    };
    let outside: Vec<&Interface> = all.iter().filter(outside).collect();
    let real: Vec<&Interface> = outside
        .iter()
        .copied()
        .filter(|i| !named(i, &VIRTUAL))
        .collect();
    if real.is_empty() { outside } else { real }
}

/// The IP addresses to tell others, best first: `bind` alone when given, else those of the LAN;
/// loopback when there is no other.
pub fn ips(bind: Option<IpAddr>) -> Vec<IpAddr> {
    match bind {
        Some(ip) if !ip.is_unspecified() => vec![ip],
        _ => best_first(&interfaces()),
    }
}

/// `HOST:PORT` for each of [`ips`].
pub fn addresses(bind: Option<IpAddr>, port: u16) -> Vec<String> {
    let address = |ip| std::net::SocketAddr::new(ip, port).to_string();
    ips(bind).into_iter().map(address).collect()
}

/// The URLs to open on another device, best first.
pub fn urls(bind: Option<IpAddr>, port: u16) -> Vec<String> {
    let url = |address| format!("http://{address}/");
    addresses(bind, port).into_iter().map(url).collect()
}

/// The address that another device most likely means, out of those it announces.
pub fn best(ips: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    ips.filter(usable).min_by_key(|ip| (rank(*ip), *ip))
}

/// An IPv6 link-local address means nothing without the interface's number on the other device.
fn usable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

fn best_first(all: &[Interface]) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = lan(all).into_iter().map(|i| i.ip).filter(usable).collect();
    ips.sort_by_key(|ip| (rank(*ip), *ip));
    ips.dedup();
    // Members dial local addresses only; a public one is for people who know what they do.
    ips.sort_by_key(|ip| !reach::is_local(*ip));
    // More than a record may hold would keep this node out of every mesh.
    ips.truncate(ADDRESSES_MAX);
    if ips.is_empty() {
        ips.push(IpAddr::from([127, 0, 0, 1]));
    }
    ips
}

/// Homes use 192.168/16, offices 10/8; 172.16/12 is what container programs like to take.
fn rank(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [192, 168, ..] => 0,
            [10, ..] => 1,
            [172, 16..32, ..] => 2,
            [169, 254, ..] => 5,
            _ => 3,
        },
        IpAddr::V6(_) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_networks_come_first_and_virtual_ones_not_at_all() {
        check(
            &[
                ("lo", "127.0.0.1"),
                ("lo", "::1"),
                ("docker0", "172.17.0.1"),
                ("br-12ab", "172.18.0.1"),
                ("vethXYZ", "10.0.0.9"),
                ("tailscale0", "100.64.0.1"),
                ("wg0", "10.8.0.2"),
                ("eth1", "172.16.4.4"),
                ("eth0", "10.0.0.4"),
                ("wlan0", "192.168.1.5"),
                ("wlan0", "fe80::1"),
                ("wlan0", "fd00::5"),
                ("eth2", "169.254.3.4"),
                ("eth3", "203.0.113.7"),
                ("eth4", "8.8.8.8"),
            ],
            &[
                "192.168.1.5",
                "10.0.0.4",
                "172.16.4.4",
                "203.0.113.7",
                "fd00::5",
                "169.254.3.4",
                "8.8.8.8",
            ],
        );
    }

    #[test]
    fn a_namespace_with_nothing_but_a_virtual_interface_has_a_lan() {
        check(&[("lo", "127.0.0.1"), ("veth1", "10.1.0.2")], &["10.1.0.2"]);
    }

    #[test]
    fn without_any_network_there_is_loopback() {
        check(&[("lo", "127.0.0.1"), ("wg0", "10.8.0.2")], &["127.0.0.1"]);
    }

    #[test]
    fn a_bound_node_has_the_address_it_is_bound_to() {
        let bind = "127.0.0.1".parse().ok();
        assert_eq!(urls(bind, 8080), ["http://127.0.0.1:8080/"]);
        let bind = "fd00::5".parse().ok();
        assert_eq!(addresses(bind, 80), ["[fd00::5]:80"]);
    }

    fn check(interfaces: &[(&str, &str)], expected: &[&str]) {
        let all: Vec<Interface> = interfaces
            .iter()
            .map(|(name, ip)| Interface {
                name: (*name).to_owned(),
                ip: ip.parse().expect("an address"),
                point_to_point: false,
            })
            .collect();
        let expected: Vec<IpAddr> = expected
            .iter()
            .map(|ip| ip.parse().expect("an address"))
            .collect();
        assert_eq!(best_first(&all), expected);
    }
}
