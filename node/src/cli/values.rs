//! Values of options: sizes, durations, names, addresses.

use std::net::IpAddr;
use std::time::Duration;

/// The port of a node when none is said.
pub const PORT: u16 = 8080;
/// The most characters of a name.
const LABEL_CHARS_MAX: usize = 64;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// `HOST:PORT` of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(pub String);

/// `http://HOST:PORT` of a node, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUrl(pub String);

/// Reads a size: bytes, or a number with K, M, G or T (powers of 1024; `B` and `iB` may follow).
///
/// # Errors
/// Says what a size looks like.
pub fn size(text: &str) -> Result<Size, String> {
    let wrong =
        || format!("`{text}` is not a size; write bytes or a number with K, M, G or T: 512M, 2G");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower[digits.len()..]
        .trim_end_matches('b')
        .trim_end_matches('i')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let digits = digits.trim();
    if digits.is_empty()
        || !digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(wrong());
    }
    let bytes = match digits.parse::<u64>() {
        Ok(whole) => whole.checked_mul(1 << shift).ok_or_else(wrong)?,
        Err(_) => {
            let bytes = digits.parse::<f64>().map_err(|_| wrong())? * (1_u64 << shift) as f64;
            if bytes >= 9e18 {
                return Err(wrong());
            }
            bytes as u64
        }
    };
    if bytes == 0 {
        return Err("a size of 0 leaves nothing to work with".to_owned());
    }
    Ok(Size(bytes))
}

/// Reads a duration such as `2h`, `90s`, `1h 30m`; a bare number is seconds.
///
/// # Errors
/// Says what a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.trim().parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => humantime::parse_duration(text.trim()),
    };
    match parsed {
        Ok(duration) if duration.is_zero() => Err("a duration of 0 is over at once".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("`{text}` is not a duration; write 90s, 30m or 2h")),
    }
}

/// Reads a name for people: 1 to 64 characters, none of them a control character.
///
/// # Errors
/// Says what is wrong with it.
pub fn label(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a name needs at least one character".to_owned());
    }
    if text.chars().count() > LABEL_CHARS_MAX {
        return Err(format!("a name has at most {LABEL_CHARS_MAX} characters"));
    }
    if super::text::clean(text) != text {
        return Err("a name can not have control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads `HOST:PORT`; without a port it is 8080. IPv6 is `[ADDR]:PORT` or the bare address.
///
/// # Errors
/// Says what an address looks like.
pub fn address(text: &str) -> Result<Address, String> {
    let wrong = || format!("`{text}` is not HOST:PORT, such as 192.168.1.7:8080");
    let text = text.trim();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Address(std::net::SocketAddr::new(ip, PORT).to_string()));
    }
    let split = match text.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .map(|(host, port)| (host, port.strip_prefix(':'))),
        None => Some(match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }),
    };
    let (host, port) = split.ok_or_else(wrong)?;
    let port = match port {
        Some(port) => port
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(wrong)?,
        None => PORT,
    };
    if text.starts_with('[') {
        let ip: std::net::Ipv6Addr = host.parse().map_err(|_| wrong())?;
        return Ok(Address(format!("[{ip}]:{port}")));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(wrong());
    }
    Ok(Address(format!("{host}:{port}")))
}

/// Reads the address of a node as a URL; `http://` and the port may be left out.
///
/// # Errors
/// Says what such a URL looks like.
pub fn node_url(text: &str) -> Result<NodeUrl, String> {
    let trimmed = text.trim().trim_end_matches('/');
    let rest = match trimmed.split_once("://") {
        None => trimmed,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) => {
            return Err(format!("`{scheme}` is not offered; write http://HOST:PORT"));
        }
    };
    match address(rest) {
        Ok(Address(address)) => Ok(NodeUrl(format!("http://{address}"))),
        Err(_) => Err(format!(
            "`{text}` is not a node's URL, such as http://192.168.1.7:8080"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        for (text, bytes) in [
            ("1", 1),
            ("4096", 4096),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("2g", 2 << 30),
            ("2 GB", 2 << 30),
            ("1.5G", 3 << 29),
            ("1T", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "G",
            "-1",
            "1X",
            "1e9",
            "0",
            "0.0",
            "99999999999T",
            "nan",
            "1.2.3M",
            "M5",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units_or_are_seconds() {
        for (text, seconds) in [("2h", 7_200), ("90s", 90), ("1h 30m", 5_400), ("15", 15)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0", "0s", "h", "-3s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_get_the_usual_port() {
        for (text, expected) in [
            ("192.168.1.7", "192.168.1.7:8080"),
            ("192.168.1.7:9", "192.168.1.7:9"),
            ("kitchen.local", "kitchen.local:8080"),
            ("fe80::1", "[fe80::1]:8080"),
            ("[::1]:81", "[::1]:81"),
            ("[::1]", "[::1]:8080"),
        ] {
            assert_eq!(address(text), Ok(Address(expected.to_owned())), "{text}");
        }
        for text in [
            "", ":80", "a:0", "a:65536", "a b:1", "a:1:2", "[::1", "[::g]:1", "a/b", "x@y",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_of_nodes_may_leave_out_scheme_and_port() {
        for (text, expected) in [
            ("http://10.0.0.1:81/", "http://10.0.0.1:81"),
            ("10.0.0.1", "http://10.0.0.1:8080"),
            ("HTTP://kitchen.local", "http://kitchen.local:8080"),
        ] {
            assert_eq!(node_url(text), Ok(NodeUrl(expected.to_owned())), "{text}");
        }
        for text in [
            "https://a:1",
            "ftp://a",
            "http://",
            "http://a:1/path",
            "a b",
        ] {
            assert!(node_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_short_and_printable() {
        assert_eq!(label(" kitchen "), Ok("kitchen".to_owned()));
        for text in ["", "  ", "a\u{1b}[31m", "a\nb", &"x".repeat(65)] {
            assert!(label(text).is_err(), "{text:?}");
        }
    }
}
