//! Meshes under faults, one for each seed (see `gemmesh_tests::sim`).
//!
//! ```text
//! sim seed N                one seed, with everything that is said
//! sim FROM COUNT            that many seeds on all cores; goes on where the same program stopped
//! sim first FROM COUNT      the same from the beginning, until one fails
//! ```

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gemmesh_tests::sim::chaos;
use gemmesh_tests::sim::faults::Class;

/// Seeds that a thread takes at a time.
const BATCH: u64 = 32;
/// How often the progress is shown and kept.
const SHOWN: Duration = Duration::from_millis(500);

type Counts = [(u64, u64); Class::COUNT];

thread_local! {
    /// What the last panic of this thread said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    match args[..] {
        ["seed", seed] if number(seed).is_some() => {
            let sim = chaos::run(number(seed).unwrap_or_default(), true);
            println!("seed {seed}: trace {:016x}", sim.trace());
            ExitCode::SUCCESS
        }
        [from, count] => match (number(from), number(count)) {
            (Some(from), Some(count)) => many(from, count, false),
            _ => usage(),
        },
        ["first", from, count] => match (number(from), number(count)) {
            (Some(from), Some(count)) => many(from, count, true),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: sim FROM COUNT | sim first FROM COUNT | sim seed N");
    ExitCode::from(2)
}

/// What is known so far.
struct Progress {
    from: u64,
    to: u64,
    /// The next seed that nobody has taken.
    next: u64,
    /// Seeds that were done when this began.
    before: u64,
    done: u64,
    failed: Vec<u64>,
    counts: Counts,
    begin: Instant,
    shown: Instant,
}

fn many(from: u64, count: u64, first: bool) -> ExitCode {
    panic::set_hook(Box::new(|info| {
        SAID.with_borrow_mut(|said| *said = info.to_string());
    }));
    let file = progress_file(from).filter(|_| !first);
    let mut progress = Progress {
        from,
        to: from.saturating_add(count),
        next: from,
        before: 0,
        done: 0,
        failed: Vec::new(),
        counts: [(0, 0); Class::COUNT],
        begin: Instant::now(),
        shown: Instant::now(),
    };
    if let Some(file) = &file {
        progress.load(file);
    }
    if progress.before > 0 {
        eprintln!("goes on after {} seeds", progress.before);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let progress = Mutex::new(progress);
    let lock = || progress.lock().expect("no thread panics with the lock");
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let batch = lock().take();
                    let Some((begin, end)) = batch else {
                        break;
                    };
                    let mut counts = [(0, 0); Class::COUNT];
                    let mut failed = Vec::new();
                    for seed in begin..end {
                        match panic::catch_unwind(AssertUnwindSafe(|| chaos::run(seed, false))) {
                            Ok(sim) => add(&mut counts, &sim.faults),
                            Err(_) => {
                                let said = SAID.with_borrow(String::clone);
                                eprintln!("\rseed {seed}: {said}\n  replay: make sim SEED={seed}");
                                failed.push(seed);
                            }
                        }
                    }
                    let mut progress = lock();
                    progress.book(end - begin, &counts, failed, file.as_deref());
                    if first && !progress.failed.is_empty() {
                        progress.next = progress.to;
                    }
                }
            });
        }
    });
    let progress = progress
        .into_inner()
        .expect("no thread panics with the lock");
    if let Some(file) = &file {
        let _ = std::fs::remove_file(file);
    }
    progress.report();
    match progress.failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

impl Progress {
    /// Seeds for one thread.
    fn take(&mut self) -> Option<(u64, u64)> {
        let first = self.next;
        self.next = self.to.min(first + BATCH);
        (first < self.next).then_some((first, self.next))
    }

    fn book(&mut self, done: u64, counts: &Counts, failed: Vec<u64>, file: Option<&Path>) {
        self.done += done;
        self.failed.extend(failed);
        add(&mut self.counts, counts);
        if self.shown.elapsed() < SHOWN {
            return;
        }
        self.shown = Instant::now();
        if let Some(file) = file {
            self.keep(file);
        }
        if std::io::stderr().is_terminal() {
            let (all, rate) = (self.before + self.done, self.rate());
            let total = self.to - self.from;
            let left = (total - all) as f64 / rate.max(0.001);
            eprint!(
                "\r{all} of {total} seeds, {rate:.0} a second, {} failed, {:.0} min {:02.0} s left   ",
                self.failed.len(),
                (left / 60.0).floor(),
                left % 60.0,
            );
            let _ = std::io::stderr().flush();
        }
    }

    fn rate(&self) -> f64 {
        self.done as f64 / self.begin.elapsed().as_secs_f64().max(1e-9)
    }

    /// Keeps what is done. Threads are at most some batches apart: those are done again.
    fn keep(&self, file: &Path) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let sure = self.next.saturating_sub(BATCH * threads).max(self.from) - self.from;
        let sure = sure.max(self.before);
        let mut text = format!("{sure}\n");
        for seed in &self.failed {
            text += &format!("failed {seed}\n");
        }
        for (class, (injected, mattered)) in Class::ALL.iter().zip(&self.counts) {
            text += &format!("fault {injected} {mattered} {}\n", class.name());
        }
        // A progress that can not be kept is only a progress that begins again.
        let _ = std::fs::write(file, text);
    }

    fn load(&mut self, file: &Path) {
        let Ok(text) = std::fs::read_to_string(file) else {
            return;
        };
        let mut lines = text.lines();
        let before = lines.next().and_then(|line| line.parse::<u64>().ok());
        let Some(before) = before.filter(|before| *before < self.to - self.from) else {
            return;
        };
        self.before = before;
        self.next = self.from + before;
        for line in lines {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["failed", seed] => self.failed.extend(seed.parse::<u64>()),
                ["fault", injected, mattered, name] => {
                    let at = Class::ALL.iter().position(|class| class.name() == name);
                    if let (Some(at), Ok(a), Ok(b)) = (at, injected.parse(), mattered.parse()) {
                        self.counts[at] = (a, b);
                    }
                }
                _ => {}
            }
        }
    }

    fn report(&self) {
        let all = self.before + self.done;
        println!("\n{:<28} {:>12} {:>12}", "fault", "injected", "mattered");
        for (class, (injected, mattered)) in Class::ALL.iter().zip(&self.counts) {
            let hole = match (injected, mattered) {
                (1.., 0) => "  never mattered",
                (0, _) => "  never injected",
                _ => "",
            };
            println!("{:<28} {injected:>12} {mattered:>12}{hole}", class.name());
        }
        println!(
            "{all} seeds from {}, {:.0} a second, {} failed",
            self.from,
            self.rate(),
            self.failed.len()
        );
        for seed in self.failed.iter().take(20) {
            println!("make sim SEED={seed}");
        }
        // In the words of the test runner, for whoever counts.
        let failed = self.failed.len() as u64;
        let result = if failed == 0 { "ok" } else { "FAILED" };
        println!(
            "test result: {result}. {} passed; {failed} failed;",
            u64::from(failed == 0)
        );
    }
}

fn add(counts: &mut Counts, more: &Counts) {
    for (count, more) in counts.iter_mut().zip(more) {
        count.0 += more.0;
        count.1 += more.1;
    }
}

/// Where the progress of this very program is kept.
fn progress_file(from: u64) -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let built = std::fs::metadata(&exe).ok()?.modified().ok()?;
    let built = built
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?
        .as_millis();
    let dir = exe.parent()?.join("sim-progress");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join(format!("{built}-{from}")))
}
