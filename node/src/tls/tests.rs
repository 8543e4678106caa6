use std::ops::DerefMut;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConnection};
use tempfile::TempDir;

use super::*;
use crate::net::reach;

const NOW: WallTime = WallTime(1_800_000_000_000);
const DAY_MS: u64 = 86_400_000;

#[test]
fn a_browser_that_trusts_the_authority_gets_through_by_each_name_and_no_other() {
    let dir = TempDir::new().unwrap();
    let tls = Tls::open(dir.path()).unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let ips = [
        ip("192.168.1.7"),
        ip("fd00::7"),
        ip("127.0.0.1"),
        ip("8.8.8.8"),
    ];
    let names = names(
        ips,
        "kitchen.local",
        ["mesh.lan:443", "10.9.9.9", "mesh.example.com"],
    );
    for (host, expected) in [
        ("192.168.1.7", true),
        ("fd00::7", true),
        ("127.0.0.1", true),
        ("localhost", true),
        ("kitchen.local", true),
        ("mesh.lan", true),
        ("10.9.9.9", true),
        ("192.168.1.8", false),
        ("attic.local", false),
        // The authority may not vouch for these, and does not try to.
        ("8.8.8.8", false),
        ("mesh.example.com", false),
    ] {
        let found = shake(&tls, &names, host, NOW, NOW);
        assert_eq!(found.is_ok(), expected, "{host}: {found:?}");
    }
    let other = Tls::open(TempDir::new().unwrap().path()).unwrap();
    let (theirs, ours) = (
        other.authority().certificate(),
        tls.authority().certificate(),
    );
    assert_ne!(theirs, ours);
    let config = tls.config_at(names, NOW);
    let stranger = exchange(config, theirs, "localhost", NOW);
    assert!(stranger.unwrap_err().contains("UnknownIssuer"));
}

#[test]
fn a_certificate_is_made_anew_for_other_names_and_before_it_expires() {
    let dir = TempDir::new().unwrap();
    let tls = Tls::open(dir.path()).unwrap();
    let of = |ips: &[[u8; 4]]| names(ips.iter().map(|ip| IpAddr::from(*ip)), "a.local", []);
    let one = tls.config_at(of(&[[10, 0, 0, 1]]), NOW);
    let same = tls.config_at(of(&[[10, 0, 0, 1]]), WallTime(NOW.0 + RENEW_MS - 1));
    assert!(Arc::ptr_eq(&one, &same));
    let moved = of(&[[10, 0, 0, 2]]);
    assert!(!Arc::ptr_eq(&one, &tls.config_at(moved.clone(), NOW)));
    assert_eq!(shake(&tls, &moved, "10.0.0.2", NOW, NOW), Ok(()));
    // In use for years: always valid, also for one whose clock is a day off.
    for day in (0..900).step_by(7) {
        let now = WallTime(NOW.0 + day * DAY_MS);
        for clock in [now.0 - DAY_MS, now.0, now.0 + DAY_MS] {
            let found = shake(&tls, &moved, "10.0.0.2", now, WallTime(clock));
            assert_eq!(found, Ok(()), "day {day}");
        }
    }
    // A clock that was wrong and is put right.
    let early = WallTime(NOW.0 - 300 * DAY_MS);
    assert_eq!(shake(&tls, &moved, "10.0.0.2", early, early), Ok(()));
}

#[test]
fn the_authority_stays_and_its_key_is_its_owners_alone() {
    let dir = TempDir::new().unwrap();
    assert!(Authority::load(dir.path()).unwrap().is_none());
    let made = Authority::open(dir.path()).unwrap();
    let known = Authority::open(dir.path()).unwrap();
    assert_eq!(made.certificate(), known.certificate());
    assert_eq!(made.fingerprint(), known.fingerprint());
    assert!(made.name().starts_with("gemmesh CA "), "{}", made.name());
    let hex = made.fingerprint();
    assert_eq!((hex.len(), hex.matches(':').count()), (95, 31));
    let file = dir.path().join(authority::FILE);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let other = TempDir::new().unwrap();
    Authority::open(other.path()).unwrap();
    let read = |dir: &TempDir| std::fs::read_to_string(dir.path().join(authority::FILE)).unwrap();
    let (key, _) = read(&dir)
        .split_once("-----BEGIN CERT")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let (_, foreign) = read(&other)
        .split_once("-----BEGIN CERT")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    for damaged in [
        "",
        "nonsense",
        &key,
        &format!("{key}-----BEGIN CERT{foreign}"),
    ] {
        std::fs::write(&file, damaged).unwrap();
        let Err(error) = Authority::open(dir.path()) else {
            panic!("{damaged:?} was taken");
        };
        assert!(error.to_string().contains(authority::FILE), "{error}");
    }
}

#[test]
fn an_authority_may_vouch_for_what_is_local_and_for_nothing_else() {
    for text in [
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "127.8.8.8",
        "169.254.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "192.0.2.2",
        "198.51.100.9",
        "203.0.113.9",
        "198.18.0.1",
        "::1",
        "fd00::1",
        "fe80::1",
        "2001:db8::1",
    ] {
        let ip = text.parse().unwrap();
        assert!(reach::is_local(ip), "{text}");
        assert!(authority::may_vouch_for(&Name::Ip(ip)), "{text}");
    }
    for text in [
        "8.8.8.8",
        "172.15.0.1",
        "172.32.0.1",
        "192.169.0.1",
        "100.128.0.1",
        "0.0.0.0",
        "::",
        "2606:4700::1111",
        "fec0::1",
    ] {
        assert!(
            !authority::may_vouch_for(&Name::Ip(text.parse().unwrap())),
            "{text}"
        );
    }
    for (name, expected) in [
        ("localhost", true),
        ("kitchen.local", true),
        ("a.b.home.arpa", true),
        ("node.internal", true),
        ("mesh.lan", true),
        ("local", true),
        ("evil.example", false),
        ("notlocal", false),
        ("kitchen.local.evil.example", false),
        ("kitchen..local", false),
        (".local", false),
        ("-a.local", false),
        ("a b.local", false),
        ("*.local", false),
        ("", false),
    ] {
        assert_eq!(
            authority::may_vouch_for(&Name::Dns(name.to_owned())),
            expected,
            "{name}"
        );
    }
}

/// What becomes of a handshake for `host` with the certificate of `names` that is used at `now`, by a
/// client whose clock says `clock`.
fn shake(
    tls: &Tls,
    names: &BTreeSet<Name>,
    host: &str,
    now: WallTime,
    clock: WallTime,
) -> Result<(), String> {
    let config = tls.config_at(names.clone(), now);
    exchange(config, tls.authority().certificate(), host, clock)
}

#[derive(Debug)]
struct Clock(UnixTime);

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

fn exchange(
    server: Arc<ServerConfig>,
    trusted: &CertificateDer<'static>,
    host: &str,
    clock: WallTime,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("an authority");
    let time = Clock(UnixTime::since_unix_epoch(Duration::from_millis(clock.0)));
    let client = ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(time))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
    let mut server = ServerConnection::new(server).expect("a server");
    while client.is_handshaking() || server.is_handshaking() {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    Ok(())
}

/// Carries what one side has to say to the other.
fn pass<A, B>(
    from: &mut impl DerefMut<Target = ConnectionCommon<A>>,
    to: &mut impl DerefMut<Target = ConnectionCommon<B>>,
) -> Result<(), String> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("memory");
    }
    let mut bytes = bytes.as_slice();
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).expect("memory");
        to.process_new_packets()
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}
