//! Where log lines go: standard error, as text or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::args::{LogArgs, LogFormat};
use super::error::CliError;

/// The crates whose level `--log-level` sets; others only warn.
const OWN: [&str; 4] = [
    "gemmesh",
    "gemmesh_node",
    "gemmesh_protocol",
    "gemmesh_kernel",
];

/// Starts logging; `default` is the level when none was asked for.
///
/// # Errors
/// The level is not one.
pub fn start(args: &LogArgs, default: &str) -> Result<(), CliError> {
    let filter = filter(args.log_level.as_deref().unwrap_or(default))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    match args.log_format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// A level for the own crates, or full directives such as `gemmesh_node=debug,mdns_sd=trace`.
fn filter(level: &str) -> Result<EnvFilter, CliError> {
    let wrong = || {
        CliError::usage(
            format!("--log-level {level} is not a level"),
            "use error, warn, info, debug or trace",
        )
    };
    if level.contains('=') {
        return EnvFilter::try_new(level).map_err(|_| wrong());
    }
    let level = level.to_ascii_lowercase();
    if !["off", "error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        return Err(wrong());
    }
    let others = if matches!(level.as_str(), "off" | "error") {
        "off"
    } else {
        "warn"
    };
    // mdns-sd reports every packet that it can not send as an error; discovery tells what matters.
    let own = OWN.map(|name| format!("{name}={level}")).join(",");
    EnvFilter::try_new(format!("{others},mdns_sd=off,{own}")).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken() {
        for level in [
            "error",
            "INFO",
            "trace",
            "off",
            "gemmesh_node=debug,mdns_sd=trace",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["", "loud", "gemmesh=loud", "a=b=c"] {
            assert!(filter(level).is_err(), "{level}");
        }
    }
}
