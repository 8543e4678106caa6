//! Real nodes under real faults (see `gemmesh_tests::chaos`).
//!
//! ```text
//! chaos [--seed N] [--faults N] [--json]
//! ```
//!
//! Ends with 1 when a result is wrong, a job is lost, a safe tile was computed again, or a node did what nobody
//! asked for; with 2 when it is used in another way.

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("this makes network namespaces, which only Linux has");
    ExitCode::from(2)
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::Cell;
    use std::io::{IsTerminal as _, Write as _};
    use std::process::ExitCode;
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use gemmesh_tests::chaos::{self, Settings};
    use gemmesh_tests::netns;

    /// Faults when no number is given.
    const FAULTS: usize = 100;
    /// How often a line is written where it can not replace the one before.
    const LINES: Duration = Duration::from_secs(10);

    pub fn main() -> ExitCode {
        let mut settings = Settings {
            seed: chaos::room::now() % 1_000_000,
            faults: FAULTS,
        };
        let mut as_json = false;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|value| value.parse::<u64>().ok());
            match arg.as_str() {
                "--json" => as_json = true,
                "--seed" => match number() {
                    Some(seed) => settings.seed = seed,
                    None => return usage("--seed needs a number"),
                },
                "--faults" => match number() {
                    Some(faults) => settings.faults = faults as usize,
                    None => return usage("--faults needs a number"),
                },
                other => return usage(&format!("{other} is not an option")),
            }
        }
        if !netns::available() {
            return ExitCode::from(2);
        }
        let again = format!(
            "make chaos SEED={} FAULTS={}",
            settings.seed, settings.faults
        );
        eprintln!("{again}");
        let logs = gemmesh_tests::root().join(format!("target/chaos/{}", settings.seed));
        let line = Mutex::new(Line::new());
        let report = chaos::run(settings, &logs, |text| {
            line.lock().expect("no holder panics").show(text);
        });
        line.into_inner().expect("no holder panics").end();
        if as_json {
            println!("{:#}", report.json());
        } else {
            print!("{}", report.text());
        }
        if report.is_good() {
            return ExitCode::SUCCESS;
        }
        eprintln!("logs of the nodes: {}\nagain: {again}", logs.display());
        ExitCode::FAILURE
    }

    fn usage(wrong: &str) -> ExitCode {
        eprintln!("{wrong}\nusage: chaos [--seed N] [--faults N] [--json]");
        ExitCode::from(2)
    }

    /// The line that says how far it is.
    struct Line {
        begin: Instant,
        shown: Cell<Option<Instant>>,
    }

    impl Line {
        fn new() -> Self {
            let (begin, shown) = (Instant::now(), Cell::new(None));
            Self { begin, shown }
        }

        fn show(&self, text: &str) {
            let seconds = self.begin.elapsed().as_secs();
            let mut stderr = std::io::stderr();
            if stderr.is_terminal() {
                let _ = write!(stderr, "\r\x1b[K{seconds} s: {text}");
                let _ = stderr.flush();
                return;
            }
            if self
                .shown
                .get()
                .is_none_or(|shown| shown.elapsed() >= LINES)
            {
                self.shown.set(Some(Instant::now()));
                eprintln!("{seconds} s: {text}");
            }
        }

        fn end(self) {
            if std::io::stderr().is_terminal() {
                eprintln!();
            }
        }
    }
}
