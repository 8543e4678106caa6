//! What other nodes say: can they be reached, and do the clocks agree?

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::discovery::Heard;
use super::{Check, firewall_fix};
use crate::cli::client::Client;
use crate::cli::text;
use crate::cli::values::PORT;

/// A node on the same network accepts a connection far sooner.
const REACH_LIMIT: Duration = Duration::from_secs(2);
/// Clocks further apart than this make times of jobs and expiry puzzling.
const CLOCK_LIMIT: Duration = Duration::from_secs(60);
/// No clock that works says less: the program is younger (2026-01-01).
const CLOCK_FLOOR_SECONDS: u64 = 1_767_225_600;

/// The nodes that were heard, and the clock.
pub(super) async fn checks(
    heard: Result<Vec<Heard>, mdns_sd::Error>,
    node: Option<&Client>,
) -> Vec<Check> {
    let heard = match heard {
        Ok(heard) => heard,
        Err(error) => {
            return vec![
                Check::fail(
                    "others",
                    format!("mDNS can not be used: {error}"),
                    "name nodes with --peer HOST:PORT",
                ),
                clock(&[]),
            ];
        }
    };
    let own = node.map(|node| node.url().trim_start_matches("http://").to_owned());
    let others: Vec<Heard> = heard
        .into_iter()
        .filter(|heard| !is_own(heard, own.as_deref()))
        .collect();
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(REACH_LIMIT)
        .build();
    let http = http.expect("a client without TLS needs nothing from the system");
    let dates = others.iter().map(|heard| ask(&http, &heard.addresses));
    let dates = futures_util::future::join_all(dates).await;
    let mut checks = Vec::new();
    for (heard, date) in others.iter().zip(&dates) {
        let name = text::clean(&heard.name);
        let place = heard
            .addresses
            .first()
            .map_or_else(|| "no address".to_owned(), ToString::to_string);
        checks.push(match date {
            Some(_) => Check::ok(
                "others",
                format!("{name} at {place}, mesh {}", text::clean(&heard.mesh)),
            ),
            None => Check::warn(
                "others",
                format!("{name} was heard, but {place} can not be reached"),
                format!(
                    "on that device, {}",
                    firewall_fix(heard.addresses.first().map_or(PORT, SocketAddr::port))
                ),
            ),
        });
    }
    if checks.is_empty() {
        checks.push(Check::ok(
            "others",
            "no other node was heard; start one on another device with `gemmesh serve`",
        ));
    }
    let known: Vec<_> = others
        .iter()
        .zip(dates)
        .filter_map(|(heard, date)| Some((heard.name.clone(), date??)))
        .collect();
    checks.push(clock(&known));
    checks
}

/// A node of this device is no other node; it may announce several addresses.
fn is_own(heard: &Heard, own: Option<&str>) -> bool {
    let Some(own) = own.and_then(|own| own.parse::<SocketAddr>().ok()) else {
        return false;
    };
    heard.addresses.iter().any(|address| {
        let here = || {
            crate::net::urls::interfaces()
                .iter()
                .any(|interface| interface.ip == address.ip())
        };
        *address == own || (address.port() == own.port() && here())
    })
}

/// The time at the node, if it answers at any of its addresses; the inner `None` when it does not
/// say.
async fn ask(http: &reqwest::Client, addresses: &[SocketAddr]) -> Option<Option<SystemTime>> {
    for address in addresses {
        if let Ok(answer) = http.get(format!("http://{address}/healthz")).send().await {
            let date = answer.headers().get(reqwest::header::DATE);
            return Some(date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok()));
        }
    }
    None
}

fn clock(others: &[(String, SystemTime)]) -> Check {
    judge_clock(SystemTime::now(), others)
}

fn judge_clock(now: SystemTime, others: &[(String, SystemTime)]) -> Check {
    let name = "clock";
    let fix = "set the clock, best by the network's time";
    if now < SystemTime::UNIX_EPOCH + Duration::from_secs(CLOCK_FLOOR_SECONDS) {
        return Check::fail(name, "this device's clock is years behind", fix);
    }
    let apart = |theirs: &SystemTime| {
        now.duration_since(*theirs)
            .unwrap_or_else(|error| error.duration())
    };
    let far: Vec<&str> = others
        .iter()
        .filter(|(_, t)| apart(t) > CLOCK_LIMIT)
        .map(|(n, _)| n.as_str())
        .collect();
    match (far.first(), others.len()) {
        (Some(first), _) => {
            let most = others
                .iter()
                .map(|(_, theirs)| apart(theirs))
                .max()
                .unwrap_or_default();
            let most = text::seconds(most.as_secs_f64());
            Check::warn(
                name,
                format!(
                    "this device and {} disagree by up to {most}",
                    text::clean(first)
                ),
                fix,
            )
        }
        (None, 0) => Check::ok(name, "looks right; no other node to compare with"),
        (None, count) => Check::ok(
            name,
            format!("agrees with {}", text::count(count as u64, "other node")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn clocks_are_compared() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(CLOCK_FLOOR_SECONDS + 1_000_000);
        let at = |seconds: i64| {
            let span = Duration::from_secs(seconds.unsigned_abs());
            (
                "kitchen".to_owned(),
                if seconds < 0 { now - span } else { now + span },
            )
        };
        assert_eq!(judge_clock(now, &[]).state, State::Ok);
        assert_eq!(judge_clock(now, &[at(30), at(-30)]).state, State::Ok);
        for seconds in [600, -600] {
            let check = judge_clock(now, &[at(0), at(seconds)]);
            assert!(
                check.state == State::Warn && check.found.contains("10 min"),
                "{check:?}"
            );
        }
        assert_eq!(judge_clock(SystemTime::UNIX_EPOCH, &[]).state, State::Fail);
    }

    #[test]
    fn this_devices_node_is_no_other_node() {
        let heard = |address: &str| Heard {
            name: "x".to_owned(),
            mesh: "m".to_owned(),
            addresses: vec![address.parse().unwrap()],
        };
        assert!(is_own(&heard("127.0.0.1:81"), Some("127.0.0.1:81")));
        assert!(!is_own(&heard("127.0.0.1:82"), Some("127.0.0.1:81")));
        assert!(!is_own(&heard("192.0.2.1:81"), Some("127.0.0.1:81")));
        assert!(!is_own(&heard("127.0.0.1:81"), None));
    }
}
