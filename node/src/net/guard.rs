//! What keeps other web sites away from a node. A browser inside the LAN will carry any page's
//! requests to us; it can not forge `Host` and `Origin`, so these two decide before anything else.
//!
//! `Host` must name this node by something that an attacker's DNS can not point here: an IP
//! literal of ours, `localhost`, our `.local` name or a name that the operator allowed. `Origin`,
//! when there is one, must be the page that we ourselves served, or on `/ws` one that a member served
//! under its IP literal: a node that is linked, or was until lately ([`Members`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use warp::http::{HeaderMap, HeaderName, Method, Uri, header};

use crate::error::ApiError;

/// What a node is called, as far as `Host` is concerned.
#[derive(Debug, Clone)]
pub struct Names {
    /// IP addresses of this node.
    pub addresses: Vec<IpAddr>,
    /// The `.local` name, lower case.
    pub local: String,
    /// What the operator allowed, lower case.
    pub allowed: Vec<String>,
    /// The port we listen on.
    pub port: u16,
}

impl Names {
    /// The `.local` name of a node called `name`: letters, digits and single hyphens.
    pub fn local_name(name: &str) -> String {
        let mut label = String::new();
        for c in name.chars().flat_map(char::to_lowercase) {
            if c.is_ascii_alphanumeric() {
                label.push(c);
            } else if !label.is_empty() && !label.ends_with('-') {
                label.push('-');
            }
        }
        // A label of DNS has at most 63 bytes; all of these are ASCII.
        label.truncate(63);
        let label = label.trim_end_matches('-');
        let label = if label.is_empty() { "gemmesh" } else { label };
        format!("{label}.local")
    }
}

/// Addresses remembered of members that are not linked any more.
const GONE_MAX: usize = 1_024;

/// The IP addresses of members, whose pages may open `/ws`. A page whose node has died moves to
/// another one, so an address counts for a while after its node was last linked.
#[derive(Debug, Default)]
pub struct Members {
    linked: Vec<IpAddr>,
    /// Until when those count that are not linked any more.
    gone: BTreeMap<IpAddr, Instant>,
}

impl Members {
    /// These are linked now; those that were until now count for `kept` longer.
    pub fn update(&mut self, linked: Vec<IpAddr>, kept: Duration, now: Instant) {
        let before = std::mem::replace(&mut self.linked, linked);
        let until = now + kept;
        self.gone.extend(before.into_iter().map(|ip| (ip, until)));
        let linked = &self.linked;
        self.gone
            .retain(|ip, until| now < *until && !linked.contains(ip));
        while self.gone.len() > GONE_MAX {
            let first = self.gone.iter().min_by_key(|(_, until)| **until);
            let first = *first.expect("there are some").0;
            self.gone.remove(&first);
        }
    }

    /// Those that count.
    pub fn list(&self, now: Instant) -> Vec<IpAddr> {
        let gone = self.gone.iter().filter(|(_, until)| now < **until);
        let gone = gone.map(|(ip, _)| *ip);
        self.linked.iter().copied().chain(gone).collect()
    }
}

/// A host and a port as `Host` and `Origin` write them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    /// Lower case; an IPv6 literal without its brackets.
    host: String,
    port: Option<u16>,
}

impl Authority {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (literal, rest) = rest.split_once(']')?;
            literal.parse::<Ipv6Addr>().ok()?;
            (
                literal,
                rest.strip_prefix(':').or(rest.is_empty().then_some("")),
            )
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
                None => (text, Some("")),
            }
        };
        let port = match port? {
            "" => None,
            digits if digits.bytes().all(|c| c.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        let plain = |c: u8| c.is_ascii_alphanumeric() || b".-_:".contains(&c);
        if host.is_empty() || !host.bytes().all(plain) {
            return None;
        }
        Some(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// The IP address, when the host is a literal of one in its usual form.
    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether both name the same origin under a scheme that has this default port.
    fn same_origin(&self, other: &Self, port: u16) -> bool {
        let same_host = match (self.ip(), other.ip()) {
            (Some(a), Some(b)) => a == b,
            _ => self.host == other.host,
        };
        same_host && self.port.unwrap_or(port) == other.port.unwrap_or(port)
    }
}

/// Decides whether a request may be looked at at all.
///
/// `local` is the address that the connection came in on, one of ours by definition; `secure` says that
/// it came over TLS; `members` are the IP addresses of [`Members`], asked for only when needed.
///
/// # Errors
/// 400 for a `Host` that is missing, doubled or malformed, 403 for everything that is refused.
pub fn check(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    names: &Names,
    local: Option<IpAddr>,
    secure: bool,
    members: impl FnOnce() -> Vec<IpAddr>,
) -> Result<(), ApiError> {
    let host = only(headers, header::HOST).map_err(|count| {
        bad_host(format!(
            "a request needs one Host header, this one has {count}"
        ))
    })?;
    let authority = |text: &str| {
        Authority::parse(text).ok_or_else(|| bad_host(format!("Host {text:?} is malformed")))
    };
    let host = authority(host)?;
    known_host(&host, names, local)?;
    // A request line with a whole URL names a host as well; it must not be another one.
    if let Some(target) = uri.authority() {
        let target = authority(target.as_str())?;
        known_host(&target, names, local)?;
    }
    let path = uri.path();
    match only(headers, header::ORIGIN) {
        Err(0) => foreign_fetch(method, headers),
        Err(count) => Err(refused(format!("{count} Origin headers"))),
        Ok(_) if path == "/mesh" || path.starts_with("/mesh/") => {
            Err(refused("nodes send no Origin to /mesh".to_owned()))
        }
        Ok(origin) => {
            let text = origin;
            // The page came the way its calls come: a browser sends none from https over plain http, and a
            // page that somebody put before a plain one is not ours.
            let (scheme, port) = if secure {
                ("https://", 443)
            } else {
                ("http://", 80)
            };
            let origin = origin.strip_prefix(scheme).and_then(Authority::parse);
            let Some(origin) = origin else {
                return Err(foreign(text));
            };
            let member = || path == "/ws" && origin.ip().is_some_and(|ip| members().contains(&ip));
            if origin.same_origin(&host, port) || member() {
                Ok(())
            } else {
                Err(foreign(text))
            }
        }
    }
}

/// A request without `Origin` that the browser itself marks as caused by another site (it does so
/// towards loopback and https) may only be somebody following a link.
fn foreign_fetch(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let elsewhere = matches!(value("sec-fetch-site"), Some("cross-site" | "same-site"));
    let link = method == Method::GET
        && value("sec-fetch-mode") == Some("navigate")
        && value("sec-fetch-dest") == Some("document");
    if elsewhere && !link {
        return Err(foreign("unknown"));
    }
    Ok(())
}

fn known_host(host: &Authority, names: &Names, local: Option<IpAddr>) -> Result<(), ApiError> {
    let known = match host.ip() {
        Some(ip) => names.addresses.contains(&ip) || local == Some(ip),
        None => host.host == "localhost" || host.host == names.local,
    };
    let port = host.port.is_none_or(|port| port == names.port);
    if (known && port)
        || names
            .allowed
            .iter()
            .any(|name| allows(name, host, names.port))
    {
        return Ok(());
    }
    Err(ApiError::new(
        403,
        "host_refused",
        format!("Host {:?} does not name this node", host.host),
        "use the node's IP address, or start the node with --allow-host and this name",
    ))
}

/// An `--allow-host` is a name, or a name and the port that a proxy or a container publishes.
fn allows(allowed: &str, host: &Authority, port: u16) -> bool {
    Authority::parse(allowed).is_some_and(|allowed| {
        let same = match (allowed.ip(), host.ip()) {
            (Some(a), Some(b)) => a == b,
            _ => allowed.host == host.host,
        };
        same && host.port.is_none_or(|p| p == allowed.port.unwrap_or(port))
    })
}

/// The only value of a header, or how many there are. A value that is no text counts as two.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<&str, usize> {
    let values = headers.get_all(name);
    let mut values = values.iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| 2),
        (None, _) => Err(0),
        (Some(_), Some(_)) => Err(2 + values.count()),
    }
}

fn bad_host(message: String) -> ApiError {
    ApiError::new(
        400,
        "bad_host",
        message,
        "send one Host header that names this node",
    )
}

fn foreign(origin: &str) -> ApiError {
    // The text is the attacker's; JSON escapes it, its length is bounded here.
    let origin: String = origin.chars().take(100).collect();
    refused(format!("a page of {origin:?} may not talk to this node"))
}

fn refused(message: String) -> ApiError {
    ApiError::new(
        403,
        "origin_refused",
        message,
        "open the page that this node serves itself",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "192.168.1.5:8080";

    #[test]
    fn hosts_that_name_this_node_are_accepted() {
        for host in [
            "192.168.1.5:8080",
            "192.168.1.5",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[0:0:0:0:0:0:0:1]",
            "[fd00::5]:8080",
            "localhost:8080",
            "LOCALHOST",
            "anna-s-pc.local:8080",
            "Anna-s-PC.local",
            "mesh.lan:8080",
            "mesh.lan",
            "proxy.lan:443",
            "10.9.9.9:8080",
            // The connection itself came in on this one.
            "172.20.0.9:8080",
        ] {
            check_request(host, "GET", "/", &[], Ok(()));
        }
    }

    #[test]
    fn hosts_that_do_not_are_refused_on_every_route_and_method() {
        for host in [
            "evil.example",
            "evil.example:8080",
            "192.168.1.6:8080",
            "192.168.1.5:8081",
            "192.168.1.5.evil.example:8080",
            "localhost.evil.example",
            "localhost.",
            "mesh.lan.evil.example",
            "mesh.lan:81",
            "proxy.lan:8443",
            "0.0.0.0:8080",
            "0x7f.0.0.1:8080",
            "2130706433:8080",
            "127.1:8080",
            "[::ffff:1.2.3.4]:8080",
            "[::]:8080",
        ] {
            for path in ["/", "/api/jobs", "/healthz", "/ws", "/mesh", "/nothing"] {
                for method in [
                    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW",
                ] {
                    check_request(host, method, path, &[], Err(403));
                }
            }
        }
    }

    #[test]
    fn malformed_missing_and_doubled_hosts_are_refused() {
        for host in [
            "",
            ":8080",
            "user@192.168.1.5:8080",
            "192.168.1.5:",
            "192.168.1.5:80x",
            "192.168.1.5:99999",
            "[::1",
            "[localhost]:8080",
            "[fe80::1%25eth0]:8080",
            "a b",
            "a/b",
            "[::1]8080",
        ] {
            check_request(host, "GET", "/", &[], Err(400));
        }
        let names = names();
        let uri = Uri::from_static("/");
        let none = HeaderMap::new();
        let refusal = check(&Method::GET, &uri, &none, &names, None, false, Vec::new);
        assert_eq!(refusal.expect_err("no Host").status, 400);
        let mut two = HeaderMap::new();
        two.append("host", "localhost:8080".parse().expect("a value"));
        two.append("host", "localhost:8080".parse().expect("a value"));
        let refusal = check(&Method::GET, &uri, &two, &names, None, false, Vec::new);
        assert_eq!(refusal.expect_err("two Hosts").status, 400);
    }

    #[test]
    fn a_whole_url_in_the_request_line_must_name_this_node_too() {
        check_request(OURS, "GET", "http://192.168.1.5:8080/api/jobs", &[], Ok(()));
        check_request(OURS, "GET", "http://evil.example/api/jobs", &[], Err(403));
        check_request(
            "evil.example",
            "GET",
            "http://192.168.1.5:8080/",
            &[],
            Err(403),
        );
    }

    #[test]
    fn only_our_own_origin_may_call_the_api() {
        for (origin, expected) in [
            ("http://192.168.1.5:8080", Ok(())),
            ("http://192.168.1.5:8081", Err(403)),
            ("http://192.168.1.5", Err(403)),
            ("http://192.168.1.6:8080", Err(403)),
            ("http://localhost:8080", Err(403)),
            ("https://192.168.1.5:8080", Err(403)),
            ("http://evil.example", Err(403)),
            ("http://evil.example:8080", Err(403)),
            ("http://192.168.1.5:8080.evil.example", Err(403)),
            ("http://192.168.1.5:8080/", Err(403)),
            ("http://user@192.168.1.5:8080", Err(403)),
            ("null", Err(403)),
            ("", Err(403)),
            ("file://", Err(403)),
            ("chrome-extension://abc", Err(403)),
        ] {
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                let headers = [("origin", origin)];
                check_request(OURS, method, "/api/jobs", &headers, expected);
            }
        }
        let two = [
            ("origin", "http://192.168.1.5:8080"),
            ("origin", "http://evil.example"),
        ];
        check_request(OURS, "POST", "/api/jobs", &two, Err(403));
    }

    #[test]
    fn the_default_port_is_the_same_origin_with_and_without_its_number() {
        let mut names = names();
        names.port = 80;
        for (host, origin) in [
            ("192.168.1.5", "http://192.168.1.5:80"),
            ("192.168.1.5:80", "http://192.168.1.5"),
            ("[fd00::5]", "http://[fd00:0::5]"),
        ] {
            let headers = headers(host, &[("origin", origin)]);
            let uri = Uri::from_static("/api/jobs");
            let verdict = check(&Method::POST, &uri, &headers, &names, None, false, Vec::new);
            assert_eq!(verdict, Ok(()), "{host} {origin}");
        }
    }

    #[test]
    fn on_ws_a_page_of_a_connected_member_is_welcome_and_nobody_else() {
        for (origin, expected) in [
            ("http://192.168.1.5:8080", Ok(())),
            ("http://192.168.1.77:8080", Ok(())),
            ("http://192.168.1.77:9000", Ok(())),
            ("http://[fd00::77]:8080", Ok(())),
            ("https://192.168.1.77:8080", Err(403)),
            ("http://192.168.1.78:8080", Err(403)),
            ("http://member.local:8080", Err(403)),
            ("http://evil.example", Err(403)),
            ("null", Err(403)),
        ] {
            check_request(OURS, "GET", "/ws", &[("origin", origin)], expected);
        }
        let member = [("origin", "http://192.168.1.77:8080")];
        check_request(OURS, "POST", "/api/jobs", &member, Err(403));
        check_request(OURS, "GET", "/wsx", &member, Err(403));
        check_request(OURS, "GET", "/ws", &[], Ok(()));
    }

    #[test]
    fn over_tls_the_page_of_https_is_ours_and_that_of_http_is_not() {
        for (host, origin, expected) in [
            (OURS, "https://192.168.1.5:8080", Ok(())),
            (OURS, "http://192.168.1.5:8080", Err(403)),
            (OURS, "https://192.168.1.5:8081", Err(403)),
            (OURS, "https://192.168.1.5", Err(403)),
            (OURS, "https://evil.example", Err(403)),
            (OURS, "wss://192.168.1.5:8080", Err(403)),
            ("proxy.lan", "https://proxy.lan:443", Ok(())),
            ("proxy.lan:443", "https://proxy.lan", Ok(())),
        ] {
            for method in ["GET", "PUT", "POST", "DELETE"] {
                let headers = [("origin", origin)];
                check_over(true, host, method, "/api/jobs", &headers, expected);
            }
        }
        for (origin, expected) in [
            ("https://192.168.1.77:8080", Ok(())),
            ("http://192.168.1.77:8080", Err(403)),
            ("https://192.168.1.78:8080", Err(403)),
        ] {
            check_over(true, OURS, "GET", "/ws", &[("origin", origin)], expected);
        }
    }

    #[test]
    fn an_address_counts_for_a_while_after_its_member_was_last_linked() {
        let ip = |n: u8| IpAddr::from([192, 168, 1, n]);
        let kept = Duration::from_secs(100);
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut members = Members::default();
        members.update(vec![ip(1), ip(2)], kept, at(0));
        members.update(vec![ip(2), ip(3)], kept, at(500));
        assert_eq!(members.list(at(599)), [ip(2), ip(3), ip(1)]);
        assert_eq!(members.list(at(600)), [ip(2), ip(3)]);
        // Back in time, and gone again.
        members.update(vec![ip(1)], kept, at(550));
        assert_eq!(members.list(at(551)), [ip(1), ip(2), ip(3)]);
        members.update(Vec::new(), kept, at(1_000));
        assert_eq!(members.list(at(1_099)), [ip(1)]);
        assert!(members.list(at(1_100)).is_empty());
    }

    #[test]
    fn no_number_of_members_that_come_and_go_takes_much_memory() {
        let mut members = Members::default();
        let start = Instant::now();
        for n in 0..3 * GONE_MAX as u32 {
            let now = start + Duration::from_millis(n.into());
            let ip = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
            members.update(vec![ip], Duration::from_secs(7_200), now);
        }
        let list = members.list(start);
        assert_eq!(list.len(), GONE_MAX + 1);
        let last = 0x0a00_0000 + 3 * GONE_MAX as u32 - 1;
        assert!(list.contains(&IpAddr::from((last - GONE_MAX as u32).to_be_bytes())));
    }

    #[test]
    fn no_page_at_all_may_open_the_door_of_nodes() {
        for origin in [
            "http://192.168.1.5:8080",
            "http://192.168.1.77:8080",
            "null",
            "",
        ] {
            check_request(OURS, "GET", "/mesh", &[("origin", origin)], Err(403));
        }
        check_request(OURS, "GET", "/mesh", &[], Ok(()));
    }

    #[test]
    fn what_a_browser_marks_as_caused_by_another_site_is_refused_unless_it_is_a_link() {
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        check_request(OURS, "GET", "/", &link, Ok(()));
        check_request(OURS, "POST", "/api/jobs", &link, Err(403));
        let frame = [link[0], link[1], ("sec-fetch-dest", "iframe")];
        check_request(OURS, "GET", "/", &frame, Err(403));
        let image = [
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-mode", "no-cors"),
        ];
        check_request(OURS, "GET", "/api/jobs", &image, Err(403));
        let own = [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "cors"),
        ];
        check_request(OURS, "GET", "/api/jobs", &own, Ok(()));
    }

    #[test]
    fn local_names_are_one_dns_label() {
        for (name, expected) in [
            ("Anna's PC", "anna-s-pc.local"),
            ("box", "box.local"),
            ("--..--", "gemmesh.local"),
            ("", "gemmesh.local"),
            ("<img onerror=x>", "img-onerror-x.local"),
            ("Küche", "k-che.local"),
        ] {
            assert_eq!(Names::local_name(name), expected);
        }
        assert!(Names::local_name(&"long ".repeat(100)).len() <= 63 + ".local".len());
    }

    fn names() -> Names {
        let ip = |text: &str| text.parse().expect("an address");
        Names {
            addresses: vec![ip("192.168.1.5"), ip("127.0.0.1"), ip("::1"), ip("fd00::5")],
            local: "anna-s-pc.local".to_owned(),
            allowed: vec![
                "mesh.lan".to_owned(),
                "proxy.lan:443".to_owned(),
                "10.9.9.9".to_owned(),
            ],
            port: 8080,
        }
    }

    fn headers(host: &str, more: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append("host", host.parse().expect("a value"));
        for (name, value) in more {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    fn check_request(
        host: &str,
        method: &str,
        target: &str,
        more: &[(&str, &str)],
        expected: Result<(), u16>,
    ) {
        check_over(false, host, method, target, more, expected);
    }

    fn check_over(
        secure: bool,
        host: &str,
        method: &str,
        target: &str,
        more: &[(&str, &str)],
        expected: Result<(), u16>,
    ) {
        let ip = |text: &str| text.parse().expect("an address");
        let members = || vec![ip("192.168.1.77"), ip("fd00::77")];
        let verdict = check(
            &method.parse().expect("a method"),
            &target.parse().expect("a target"),
            &headers(host, more),
            &names(),
            Some(ip("172.20.0.9")),
            secure,
            members,
        );
        let status = verdict.map_err(|error| error.status);
        assert_eq!(status, expected, "{method} {target} Host {host:?} {more:?}");
    }
}
