//! Which addresses a node may open connections to. Addresses come from mDNS, gossip and
//! registrations, that is from anybody: a node must not become somebody's way to other places.
//! So only addresses that the internet does not route are dialled, and no cloud metadata service.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Metadata services of clouds; they answer on link-local or unique-local addresses.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether `ip` is a private, loopback, link-local or otherwise not publicly routed unicast
/// address. Carrier-grade NAT (100.64/10, also used by overlay networks), documentation and
/// benchmark ranges count, since no host of the internet has them.
pub fn is_local(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    if METADATA.contains(&ip) {
        return false;
    }
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || (a == 100 && b & 0xc0 == 64)
                || (a == 198 && b & 0xfe == 18)
        }
        IpAddr::V6(ip) => {
            let documentation = ip.segments()[..2] == [0x2001, 0xdb8];
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || documentation
        }
    }
}

/// The socket addresses behind `HOST:PORT` that may be dialled, in the resolver's order.
///
/// # Errors
/// The name does not resolve, or resolves to public addresses only.
pub async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = match address.parse::<SocketAddr>() {
        Ok(address) => vec![address],
        Err(_) => tokio::net::lookup_host(address).await?.collect(),
    };
    let local: Vec<SocketAddr> = found
        .into_iter()
        .filter(|a| is_local(a.ip()) && a.port() != 0)
        .collect();
    if local.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{address} is no address of a local network"),
        ));
    }
    Ok(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_the_internet_does_not_route_are_local() {
        for ip in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.2.2",
            "198.18.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:192.168.0.1",
            "2001:db8::1",
        ] {
            check(ip, true);
        }
        for ip in [
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.251",
            "169.254.169.254",
            "169.254.170.2",
            "fd00:ec2::254",
            "2606:4700::1111",
            "::",
            "ff02::fb",
            "::ffff:8.8.8.8",
            "::ffff:169.254.169.254",
            "fec0::1",
        ] {
            check(ip, false);
        }
    }

    #[tokio::test]
    async fn names_resolve_to_local_addresses_only() {
        assert!(resolve("127.0.0.1:80").await.is_ok());
        assert!(resolve("localhost:80").await.is_ok());
        for address in [
            "8.8.8.8:80",
            "169.254.169.254:80",
            "0.0.0.0:80",
            "127.0.0.1:0",
            "nonsense",
            "127.0.0.1",
            "[::]:80",
        ] {
            assert!(resolve(address).await.is_err(), "{address}");
        }
    }

    fn check(ip: &str, expected: bool) {
        assert_eq!(is_local(ip.parse().expect("an address")), expected, "{ip}");
    }
}
