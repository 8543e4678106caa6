//! The terminal: options in, exit code out. Results go to standard output, messages and progress
//! to standard error.

mod args;
mod batch;
mod bench;
mod client;
pub(crate) mod config;
mod doctor;
mod error;
mod explain;
mod jobs;
mod locate;
mod lock;
mod logging;
mod multiply;
mod output;
mod progress;
mod qr;
mod serve;
mod signals;
mod table;
pub(crate) mod text;
mod timeline;
mod values;
mod version;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _};

use args::{Cli, Command};
use error::CliError;

/// How long threads that still read or write may take once the command is over.
const THREADS_LIMIT: Duration = Duration::from_millis(50);

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::stderr().write_all(error.render(output::note_columns()).as_bytes());
            ExitCode::from(error.exit as u8)
        }
    }
}

/// The command line with help that fits on a screen: the options of the node are listed where they
/// belong, and `-h` and `--help` print the same.
fn command() -> clap::Command {
    let short = |arg: clap::Arg| match arg.get_id().as_str() {
        "help" => arg.action(ArgAction::HelpShort).help("Print help"),
        _ => arg.hide_env_values(true),
    };
    let listed = |arg: clap::Arg| {
        let own = matches!(arg.get_id().as_str(), "help" | "version");
        arg.hide(!own)
    };
    let mut command = Cli::command();
    // Help is added when the command is built; its arguments can be changed only then.
    command.build();
    command
        .mut_args(short)
        .mut_args(listed)
        .mut_subcommands(|sub| sub.mut_args(short))
}

fn run(cli: Cli) -> Result<(), CliError> {
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Bench(args) => bench::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "gemmesh", &mut script);
            output::print(&String::from_utf8_lossy(&script))
        }
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|error| {
                    CliError::failed(format!("no threads: {error}"), "close other programs")
                })?;
            let outcome = runtime.block_on(dispatch(command));
            runtime.shutdown_timeout(THREADS_LIMIT);
            outcome
        }
    }
}

async fn dispatch(command: Command) -> Result<(), CliError> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Multiply(args) => multiply::run(args).await,
        Command::Jobs(args) => jobs::list(&args).await,
        Command::Job(args) => jobs::show(&args).await,
        Command::Result(args) => jobs::result(&args).await,
        Command::Cancel(args) => jobs::cancel(&args).await,
        Command::Nodes(args) => jobs::nodes(&args).await,
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Bench(_) | Command::Completions { .. } => unreachable!("they need no runtime"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        for line in [
            "multiply a.npy b.npy --mode hidden",
            "multiply a.npy b.npy --mode private --colluders 0",
            "multiply a.npy b.npy --masks 2",
            "multiply a.npy b.npy --batch list",
            "multiply a.npy --batch list",
            "multiply --batch list --explain",
            "multiply a.npy b.npy --explain -o c.npy",
            "multiply a.npy b.npy --detach -o c.npy",
            "multiply a.npy b.npy --dtype i8",
            "multiply a.npy",
            "serve --mesh-key file",
            "job 3f --receipts",
            "--port 65536",
            "--bind kitchen",
            "--threads 0",
            "--memory lots",
            "--result-ttl soon",
            "--peer a:b",
            "--name",
            "frobnicate",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("gemmesh").chain(line.split(' ')));
            let error = parsed.err().unwrap_or_else(|| panic!("{line} was taken"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_default_command_is_serve_and_takes_its_options() {
        let options = "--port 0 --bind 127.0.0.1 --name kitchen --mesh home --peer 10.0.0.1 \
                       --peer kitchen.local:81 --no-mdns --threads 2 --memory 1G --disk 2G \
                       --result-ttl 30m --allow-host mesh.example --log-level debug --log-format json";
        for command in [None, Some("serve")] {
            let line = std::iter::once("gemmesh")
                .chain(command)
                .chain(options.split_whitespace());
            let cli = Cli::try_parse_from(line).unwrap();
            let args = match cli.command {
                Some(Command::Serve(args)) => args,
                None => cli.serve,
                other => panic!("{other:?}"),
            };
            let config = config::resolve(&args).unwrap();
            assert_eq!((config.port, config.threads, config.mdns), (0, 2, false));
            assert_eq!(
                (config.name.as_str(), config.mesh.as_str()),
                ("kitchen", "home")
            );
            assert_eq!(config.peers, ["10.0.0.1:8080", "kitchen.local:81"]);
            assert_eq!((config.memory, config.disk), (1 << 30, 2 << 30));
            assert_eq!(config.result_ttl, Duration::from_secs(1_800));
            assert_eq!(config.allow_hosts, ["mesh.example"]);
        }
    }

    #[test]
    fn defaults_come_from_this_device() {
        let cli = Cli::try_parse_from(["gemmesh", "--data-dir", "d"]).unwrap();
        let config = config::resolve(&cli.serve).unwrap();
        assert!(config.threads >= 1 && config.memory >= 64 << 20 && config.disk > 0);
        assert!(config.data_dir.is_absolute() && config.mdns && !config.name.is_empty());
        assert_eq!(config.result_ttl, Duration::from_secs(7_200));
    }

    #[test]
    fn little_memory_or_disk_is_refused_with_the_fix() {
        for line in [["--memory", "1M"], ["--disk", "1K"]] {
            let cli =
                Cli::try_parse_from(["gemmesh", "--data-dir", "d", line[0], line[1]]).unwrap();
            let error = config::resolve(&cli.serve).unwrap_err();
            assert!(
                error.message.contains(line[0]) && error.hint.contains("at least"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
            assert!(
                Cli::try_parse_from(["gemmesh", "completions", shell]).is_ok(),
                "{shell}"
            );
        }
        let mut script = Vec::new();
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut command(),
            "gemmesh",
            &mut script,
        );
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("multiply") && script.contains("doctor"));
    }
}
