//! Does a multicast packet that leaves this device by an interface come back in by it? It passes
//! the same firewall as those of other devices.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use crate::net::urls::{self, Interface};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Check, firewall_fix};
use crate::cli::values::PORT;

/// The group and port of mDNS (RFC 6762, section 3).
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);
/// A packet to oneself needs far less.
const LIMIT: Duration = Duration::from_millis(1_000);
/// The largest packet of mDNS (RFC 6762, section 17).
const PACKET_BYTES_MAX: usize = 9_000;

/// The addresses that a node would use for mDNS.
pub(super) fn addresses(bind: Option<IpAddr>, all: &[Interface]) -> Vec<Ipv4Addr> {
    let v4 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    let mut ips: Vec<Ipv4Addr> = match bind.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => v4(ip).into_iter().collect(),
        None => urls::lan(all)
            .into_iter()
            .filter_map(|interface| v4(interface.ip))
            .collect(),
    };
    ips.sort();
    ips.dedup();
    ips
}

/// One line for each address; broken when none works.
pub(super) async fn check(ips: Vec<Ipv4Addr>) -> Vec<Check> {
    let tried = tokio::task::spawn_blocking(move || {
        ips.into_iter().map(|ip| (ip, echo(ip))).collect::<Vec<_>>()
    });
    judge(tried.await.expect("sockets do not panic"))
}

fn judge(tried: Vec<(Ipv4Addr, io::Result<bool>)>) -> Vec<Check> {
    let name = "multicast";
    if tried.is_empty() {
        return vec![Check::warn(
            name,
            "there is no local network with IPv4 to try it on",
            "connect to one, or name nodes with --peer HOST:PORT",
        )];
    }
    let works = tried.iter().any(|(_, outcome)| matches!(outcome, Ok(true)));
    let bad = if works { Check::warn } else { Check::fail };
    let peer = "or name nodes with --peer HOST:PORT";
    let line = |(ip, outcome): (Ipv4Addr, io::Result<bool>)| match outcome {
        Ok(true) => Check::ok(name, format!("{ip} sends and receives")),
        Ok(false) => bad(
            name,
            format!("{ip} sends, but nothing comes back: UDP 5353 is blocked"),
            format!("{}; {peer}", firewall_fix(PORT)),
        ),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bad(
            name,
            format!("{ip}: another program keeps UDP 5353 for itself"),
            format!("let it share the port or stop it, {peer}"),
        ),
        Err(error) => bad(
            name,
            format!("{ip} can not send: {error}"),
            format!("turn multicast on for this interface (ip link set DEV multicast on), {peer}"),
        ),
    };
    tried.into_iter().map(line).collect()
}

/// Sends a query for gemmesh nodes by `ip` and waits for that very packet.
fn echo(ip: Ipv4Addr) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, GROUP.port()).into())?;
    socket.join_multicast_v4(GROUP.ip(), &ip)?;
    socket.set_multicast_if_v4(&ip)?;
    socket.set_multicast_loop_v4(true)?;
    let socket = UdpSocket::from(socket);
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let query = query(id);
    let start = Instant::now();
    socket.send_to(&query, GROUP)?;
    let mut packet = [0; PACKET_BYTES_MAX];
    while let Some(left) = LIMIT
        .checked_sub(start.elapsed())
        .filter(|left| !left.is_zero())
    {
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut packet) {
            Ok((bytes, from)) if packet[..bytes] == query && from.ip() == IpAddr::V4(ip) => {
                return Ok(true);
            }
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// The question who offers `_gemmesh._tcp.local` (RFC 1035, section 4.1): header, one question of
/// type PTR, class IN.
fn query(id: [u8; 2]) -> Vec<u8> {
    let mut packet = vec![id[0], id[1], 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["_gemmesh", "_tcp", "local"] {
        packet.push(u8::try_from(label.len()).expect("labels are short"));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 12, 0, 1]);
    packet
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn the_question_is_well_formed() {
        let packet = query([7, 9]);
        assert_eq!(&packet[..6], [7, 9, 0, 0, 0, 1]);
        assert_eq!(
            &packet[12..],
            b"\x08_gemmesh\x04_tcp\x05local\x00\x00\x0c\x00\x01"
        );
    }

    #[test]
    fn one_interface_that_works_is_enough_to_be_usable() {
        let ip = Ipv4Addr::new(10, 0, 0, 1);
        let states = |tried| {
            judge(tried)
                .into_iter()
                .map(|check| check.state)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            states(vec![(ip, Ok(true)), (ip, Ok(false))]),
            [State::Ok, State::Warn]
        );
        let unreachable = || Err(io::Error::from(io::ErrorKind::NetworkUnreachable));
        assert_eq!(
            states(vec![(ip, Ok(false)), (ip, unreachable())]),
            [State::Fail, State::Fail]
        );
        assert_eq!(states(vec![]), [State::Warn]);
    }
}
