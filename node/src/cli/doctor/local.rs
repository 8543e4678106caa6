//! What can be seen without sending anything: port, addresses, directory, disk.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use crate::net::urls::{self, Interface};
use crate::tls::authority::{self, Authority};

use super::Check;
use crate::cli::args::DoctorArgs;
use crate::cli::client::Client;
use crate::cli::{config, locate, text};

/// Less free disk than this is soon full.
const DISK_LOW: u64 = 1 << 30;
/// Less free disk than this holds nothing.
const DISK_MIN: u64 = 64 << 20;

/// Whether a node could listen where it would.
pub(super) fn port(args: &DoctorArgs, node: Option<&Client>) -> Check {
    let ip = args.bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let place = args.bind.map_or_else(String::new, |ip| format!(" on {ip}"));
    if node.is_some_and(|node| node.url() == locate::local_url(args.bind, args.port).0) {
        return Check::ok(
            "port",
            format!("{}{place} is used by the node of this device", args.port),
        );
    }
    match TcpListener::bind(SocketAddr::new(ip, args.port)) {
        Ok(_) => Check::ok("port", format!("{}{place} is free", args.port)),
        Err(error) => match error.kind() {
            io::ErrorKind::AddrInUse => Check::fail(
                "port",
                format!("{}{place} is used by another program", args.port),
                format!(
                    "choose another: gemmesh serve --port {}",
                    args.port.checked_add(1).unwrap_or(8080)
                ),
            ),
            io::ErrorKind::PermissionDenied => Check::fail(
                "port",
                format!("{} needs special rights on this system", args.port),
                "choose one above 1023: gemmesh serve --port 8080",
            ),
            io::ErrorKind::AddrNotAvailable => Check::fail(
                "port",
                format!("{ip} is no address of this device"),
                "leave --bind out, or give one of the addresses below",
            ),
            _ => Check::fail(
                "port",
                format!("{}{place} can not be used: {error}", args.port),
                "try another --port",
            ),
        },
    }
}

/// Under which addresses others reach this device.
pub(super) fn addresses(bind: Option<IpAddr>, all: &[Interface]) -> Check {
    let name = "addresses";
    if let Some(ip) = bind.filter(|ip| !ip.is_unspecified()) {
        if ip.is_loopback() {
            return Check::warn(
                name,
                format!("{ip} is seen by this device alone"),
                "leave --bind out to be seen by others",
            );
        }
        return Check::ok(name, ip.to_string());
    }
    let shown = |list: Vec<&Interface>| {
        let mut parts: Vec<String> = list
            .iter()
            .map(|i| format!("{} ({})", i.ip, i.name))
            .collect();
        parts.dedup();
        parts.join(", ")
    };
    let lan = urls::lan(all);
    let global: Vec<&Interface> = lan.into_iter().filter(|i| !is_link_local(i.ip)).collect();
    if !global.is_empty() {
        return Check::ok(name, shown(global));
    }
    let others: Vec<&Interface> = all
        .iter()
        .filter(|i| !i.ip.is_loopback() && !is_link_local(i.ip))
        .collect();
    if others.is_empty() {
        return Check::warn(
            name,
            "this device is on no network; only programs on it can take part",
            "connect it to the Wi-Fi or cable that the other devices use",
        );
    }
    Check::warn(
        name,
        format!("only a tunnel or a virtual network: {}", shown(others)),
        "connect to the local network too, or name nodes with --peer HOST:PORT",
    )
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Whether jobs and matrices can be kept.
pub(super) fn data_dir(asked: Option<&Path>) -> Vec<Check> {
    let fix = "choose another with --data-dir, or mend its permissions";
    let dir = match config::data_dir(asked) {
        Ok(dir) => dir,
        Err(error) => return vec![Check::fail("data", error.message, error.hint)],
    };
    // The nearest that exists is where the rest would be made.
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(&dir);
    let mut checks = vec![match tempfile::Builder::new()
        .prefix(".gemmesh-doctor-")
        .tempfile_in(existing)
    {
        Ok(_) => Check::ok("data", format!("{} can be written", dir.display())),
        Err(error) => {
            let why = match error.kind() {
                io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                io::ErrorKind::NotADirectory => {
                    format!("{} is not a directory", existing.display())
                }
                _ => error.to_string(),
            };
            Check::fail(
                "data",
                format!("{} can not be written: {why}", dir.display()),
                fix,
            )
        }
    }];
    if let Some(free) = config::free_disk(&dir) {
        let found = format!("{} free", text::bytes(free));
        let fix = "free some space, or choose another disk with --data-dir";
        checks.push(match free {
            free if free < DISK_MIN => Check::fail("disk", found, fix),
            free if free < DISK_LOW => Check::warn("disk", found, fix),
            _ => Check::ok("disk", found),
        });
    }
    checks
}

/// Whether devices could use https with the nodes of this data directory.
pub(super) fn https(asked: Option<&Path>) -> Check {
    let name = "https";
    let Ok(dir) = config::data_dir(asked) else {
        return Check::ok(name, "not set up");
    };
    let file = dir.join(authority::FILE);
    match Authority::load(&dir) {
        Ok(None) => Check::ok(
            name,
            "not set up; with `gemmesh serve --tls` phones keep their screens on and install the page",
        ),
        Err(error) => Check::fail(
            name,
            format!("{} can not be used: {error}", file.display()),
            "mend its permissions, or remove it; then every device installs the new certificate of /ca",
        ),
        Ok(Some(_)) if is_open(&file) => Check::warn(
            name,
            format!(
                "others on this machine can read the key in {}",
                file.display()
            ),
            format!("chmod 600 {}", file.display()),
        ),
        Ok(Some(authority)) => Check::ok(
            name,
            format!(
                "the certificate of `gemmesh serve --tls` is “{}”, SHA-256 {}",
                authority.name(),
                authority.fingerprint()
            ),
        ),
    }
}

/// Whether anybody but its owner can read a file.
#[cfg(unix)]
fn is_open(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).map(|file| file.permissions().mode());
    mode.is_ok_and(|mode| mode & 0o077 != 0)
}

/// The user's data directory is the user's alone there.
#[cfg(not(unix))]
fn is_open(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_seen_and_another_offered() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut args = DoctorArgs {
            port: taken.local_addr().unwrap().port(),
            bind: Some("127.0.0.1".parse().unwrap()),
            data_dir: None,
            json: false,
        };
        let check = port(&args, None);
        assert_eq!(check.state, State::Fail);
        assert!(check.fix.contains("--port"), "{}", check.fix);
        let node = Client::new(&locate::local_url(args.bind, args.port));
        assert_eq!(
            port(&args, Some(&node)).state,
            State::Ok,
            "this device's own node may have it"
        );
        drop(taken);
        assert_eq!(port(&args, None).state, State::Ok);
        args.bind = Some("192.0.2.1".parse().unwrap());
        let check = port(&args, None);
        assert!(
            check.state == State::Fail && check.found.contains("192.0.2.1"),
            "{check:?}"
        );
    }

    #[test]
    fn networks_that_others_can_not_use_are_told_apart() {
        let interface = |name: &str, ip: &str, point_to_point| Interface {
            name: name.to_owned(),
            ip: ip.parse().unwrap(),
            point_to_point,
        };
        let lo = interface("lo", "127.0.0.1", false);
        let check = addresses(None, std::slice::from_ref(&lo));
        assert!(
            check.state == State::Warn && check.found.contains("no network"),
            "{check:?}"
        );
        let vpn = interface("wg0", "10.8.0.2", true);
        let check = addresses(None, &[lo.clone(), vpn.clone()]);
        assert!(
            check.state == State::Warn && check.found.contains("wg0"),
            "{check:?}"
        );
        let check = addresses(None, &[lo, vpn, interface("wlan0", "192.168.1.5", false)]);
        assert!(
            check.state == State::Ok && check.found == "192.168.1.5 (wlan0)",
            "{check:?}"
        );
        let bound = addresses(Some("127.0.0.1".parse().unwrap()), &[]);
        assert_eq!(bound.state, State::Warn);
    }

    #[test]
    fn https_is_set_up_or_not_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let check = https(Some(dir.path()));
        assert!(check.state == State::Ok && check.found.contains("--tls"));
        let authority = Authority::open(dir.path()).unwrap();
        let check = https(Some(dir.path()));
        assert_eq!(check.state, State::Ok);
        assert!(check.found.contains(&authority.fingerprint()), "{check:?}");
        let file = dir.path().join(authority::FILE);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let open = std::fs::Permissions::from_mode(0o640);
            std::fs::set_permissions(&file, open).unwrap();
            let check = https(Some(dir.path()));
            assert!(check.state == State::Warn && check.fix.contains("chmod 600"));
        }
        std::fs::write(&file, "nonsense").unwrap();
        let check = https(Some(dir.path()));
        assert!(
            check.state == State::Fail && !check.fix.is_empty(),
            "{check:?}"
        );
    }

    #[test]
    fn a_data_directory_that_can_not_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = data_dir(Some(&dir.path().join("a").join("b")));
        assert_eq!(good[0].state, State::Ok, "{good:?}");
        assert!(!dir.path().join("a").exists(), "looking makes nothing");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let bad = data_dir(Some(&file.join("b")));
        assert!(
            bad[0].state == State::Fail && bad[0].found.contains("file"),
            "{bad:?}"
        );
    }
}
