//! `gemmesh doctor`: what is wrong with this device's network, and the fix.

mod discovery;
mod local;
mod multicast;
mod peers;

use serde_json::{Value, json};

use crate::net::urls;

use super::args::DoctorArgs;
use super::error::{CliError, Exit};
use super::progress::Progress;
use super::{locate, output, text};

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing to do.
    Ok,
    /// Works, but not for everything.
    Warn,
    /// Broken.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    /// What to do; empty when there is nothing.
    fix: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            fix: String::new(),
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Warn,
            found: found.into(),
            fix: fix.into(),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Fail,
            found: found.into(),
            fix: fix.into(),
        }
    }
}

/// Looks at everything and prints it.
///
/// # Errors
/// Something is broken: the program ends with 1.
pub async fn run(args: &DoctorArgs) -> Result<(), CliError> {
    let progress = Progress::new();
    progress.step("looking at this device and listening for others");
    let node = locate::local().await?;
    let all = urls::interfaces();
    let ips = multicast::addresses(args.bind, &all);
    let (multicast, heard) = tokio::join!(multicast::check(ips.clone()), discovery::listen(ips));
    let mut checks = vec![
        local::port(args, node.as_ref()),
        local::addresses(args.bind, &all),
    ];
    checks.extend(multicast);
    checks.extend(peers::checks(heard, node.as_ref()).await);
    checks.extend(local::data_dir(args.data_dir.as_deref()));
    checks.push(local::https(args.data_dir.as_deref()));
    checks.push(match &node {
        Some(client) => Check::ok(
            "node",
            format!("a node runs on this device: {}", client.url()),
        ),
        None => Check::ok(
            "node",
            "none runs on this device yet; start one with `gemmesh serve`",
        ),
    });
    progress.clear();

    let broken = checks
        .iter()
        .filter(|check| check.state == State::Fail)
        .count();
    if args.json {
        output::json(&as_json(&checks))?;
    } else {
        output::print(&as_text(&checks, output::columns()))?;
    }
    if broken > 0 {
        let broken = text::count(broken as u64, "thing");
        return Err(CliError {
            exit: Exit::Failed,
            message: format!("{broken} to repair"),
            hint: String::new(),
        });
    }
    Ok(())
}

/// What lets mDNS and the mesh through on this system.
fn firewall_fix(port: u16) -> String {
    match std::env::consts::OS {
        "windows" => {
            "allow gemmesh in Windows Security > Firewall > Allow an app (private networks), \
                      and set this network to Private"
                .to_owned()
        }
        "macos" => "System Settings > Network > Firewall: allow incoming connections for gemmesh; \
                    and Privacy & Security > Local Network: allow the terminal"
            .to_owned(),
        "android" => {
            "Wi-Fi on phones often drops multicast: start with --peer HOST:PORT of another node"
                .to_owned()
        }
        _ => format!(
            "let UDP 5353 and TCP {port} in: `sudo ufw allow 5353/udp && sudo ufw allow {port}/tcp`, or \
             `sudo firewall-cmd --add-service=mdns --add-port={port}/tcp`"
        ),
    }
}

fn as_json(checks: &[Check]) -> Value {
    let lines: Vec<Value> = checks
        .iter()
        .map(|check| {
            json!({"check": check.name, "state": word(check.state), "found": check.found, "fix": check.fix})
        })
        .collect();
    json!({"usable": checks.iter().all(|check| check.state != State::Fail), "checks": lines})
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "fail",
    }
}

fn as_text(checks: &[Check], columns: Option<usize>) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    let mut lines = String::new();
    for check in checks {
        // State, name, and the gaps after them.
        let indent = 6 + width + 2;
        let found = text::wrapped(&text::clean(&check.found), indent, columns);
        lines.push_str(&format!(
            "{:<4}  {:<width$}  {found}\n",
            word(check.state),
            check.name
        ));
        if !check.fix.is_empty() {
            let fix = format!("fix: {}", text::clean(&check.fix));
            let fix = text::wrapped(&fix, indent, columns);
            lines.push_str(&format!("{:indent$}{fix}\n", ""));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_how_it_stands_and_the_fix() {
        let checks = [
            Check::ok("port", "8080 is free"),
            Check::fail("multicast", "blocked\u{1b}[2J", "open UDP 5353"),
        ];
        assert_eq!(
            as_text(&checks, None),
            "ok    port       8080 is free\n\
             fail  multicast  blocked[2J\n                 fix: open UDP 5353\n"
        );
        let json = as_json(&checks);
        assert_eq!(
            (&json["usable"], &json["checks"][1]["state"]),
            (&json!(false), &json!("fail"))
        );
        assert_eq!(as_json(&checks[..1])["usable"], json!(true));
    }
}
