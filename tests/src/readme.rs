//! Runs the code blocks of a Markdown file. What is done with a block is said by its info string:
//!
//! | info string | what the test does |
//! |---|---|
//! | `sh` | runs it with bash in an empty directory that the blocks of the file share, in their order |
//! | `sh,checkout` | the same in the root of the checkout |
//! | `sh,serves`, `sh,checkout,serves` | runs it until it shows a URL, then interrupts it: it must end well |
//! | `python` | runs it with a Python that has NumPy, in the shared directory |
//! | `sh,tests` | nothing: it runs these tests (each line begins with `make test`, `check` or `verify`) |
//! | `sh,device=NAME` | nothing: it is for a machine that is not here (`powershell,device=windows` too) |
//! | `text`, `json` | nothing: it is not a program |
//!
//! `gemmesh` is on the path; a node runs on this machine, and `127.0.0.1:8080` and `localhost:8080` in
//! a block mean it. Any other info string is an error, so that no block is left out by mistake.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::node::{Node, Options, fresh_mesh};
use crate::wait::until;

/// A block has ended, or shows its URL, within this. `make demo` is one of them.
const LIMIT: Duration = Duration::from_secs(300);

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of its opening fence, from 1.
    pub line: usize,
    /// The info string.
    pub info: String,
    /// Its lines.
    pub code: String,
}

/// What is done with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shell { checkout: bool, serves: bool },
    Python,
    Tests,
    Elsewhere,
    Illustration,
}

/// The fenced blocks of a Markdown file.
///
/// # Panics
/// When a fence is not closed.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, Block)> = None;
    for (number, line) in (1..).zip(markdown.lines()) {
        let text = line.trim_start();
        match &mut open {
            Some((fence, _)) if text.trim_end() == fence.as_str() => {
                blocks.extend(open.take().map(|(_, block)| block));
            }
            Some((_, block)) => {
                block.code += line;
                block.code.push('\n');
            }
            None if text.starts_with("```") => {
                let info = text.trim_start_matches('`');
                let fence = text[..text.len() - info.len()].to_owned();
                let (info, code) = (info.trim().to_owned(), String::new());
                open = Some((
                    fence,
                    Block {
                        line: number,
                        info,
                        code,
                    },
                ));
            }
            None => {}
        }
    }
    if let Some((_, block)) = open {
        panic!("the block of line {} is not closed", block.line);
    }
    blocks
}

fn kind(block: &Block) -> Kind {
    let words: Vec<&str> = block.info.split(',').map(str::trim).collect();
    match words[..] {
        ["text" | "json"] => Kind::Illustration,
        ["python"] => Kind::Python,
        ["sh" | "powershell", device] if device.starts_with("device=") => Kind::Elsewhere,
        ["sh", "tests"] => Kind::Tests,
        ["sh", ref rest @ ..]
            if rest
                .iter()
                .all(|word| ["checkout", "serves"].contains(word)) =>
        {
            Kind::Shell {
                checkout: rest.contains(&"checkout"),
                serves: rest.contains(&"serves"),
            }
        }
        _ => panic!(
            "line {}: what is to be done with a block of {:?}? See tests/src/readme.rs",
            block.line, block.info
        ),
    }
}

/// Runs all blocks of a file; the number of blocks that ran.
///
/// # Panics
/// When one of them fails.
pub fn run(path: &Path) -> usize {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mesh = fresh_mesh();
    let node = Options::loopback("readme", &mesh).start();
    let dir = TempDir::with_prefix("gemmesh-readme-").expect("a temporary directory");
    let mut ran = 0;
    for block in blocks(&text) {
        let place = format!("{}, line {}", path.display(), block.line);
        match kind(&block) {
            Kind::Shell { checkout, serves } => {
                let dir = if checkout { crate::root() } else { dir.path() };
                let code = format!("set -euo pipefail\n{}", here(&block.code, &node));
                let mut command = Command::new("bash");
                command.args(["-c", &code]).current_dir(dir);
                execute(command, &place, &node, &mesh, serves);
                ran += 1;
            }
            Kind::Python => {
                let python = crate::root().join("target/python/bin/python");
                let mut command = Command::new(python);
                command
                    .args(["-c", &here(&block.code, &node)])
                    .current_dir(dir.path());
                execute(command, &place, &node, &mesh, false);
                ran += 1;
            }
            Kind::Tests => {
                let own = ["make test", "make check", "make verify"];
                let all_own = block
                    .code
                    .lines()
                    .all(|line| own.iter().any(|name| line.starts_with(name)));
                assert!(all_own, "{place}: more than commands that run these tests");
            }
            Kind::Elsewhere | Kind::Illustration => {}
        }
    }
    ran
}

/// The code with the address of the test's node instead of the usual one.
fn here(code: &str, node: &Node) -> String {
    let address = &node.api.address;
    code.replace("127.0.0.1:8080", address)
        .replace("localhost:8080", address)
}

fn execute(mut command: Command, place: &str, node: &Node, mesh: &str, serves: bool) {
    let outputs = TempDir::with_prefix("gemmesh-readme-").expect("a temporary directory");
    let stdout = outputs.path().join("stdout");
    let own_data = outputs.path().join("data");
    let bin = crate::bin();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", bin.parent().expect("a file").display());
    command
        .env("PATH", path)
        .env("GEMMESH_BIND", "127.0.0.1")
        .env("GEMMESH_MESH", mesh)
        .env(
            "GEMMESH_DATA_DIR",
            if serves { &own_data } else { node.data_dir() },
        )
        .stdin(Stdio::null())
        .stdout(File::create(&stdout).expect("a file"))
        .stderr(File::create(outputs.path().join("stderr")).expect("a file"))
        .process_group(0);
    if serves {
        command.env("GEMMESH_PORT", "0");
    }
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{place}: {command:?}: {error}"));
    let shown = || {
        let files = ["stdout", "stderr"].map(|name| outputs.path().join(name));
        files
            .map(|file| fs::read_to_string(file).unwrap_or_default())
            .join("\n")
    };
    let group = Group(Pid::from_child(&child));
    if serves {
        until(&format!("{place} to show a URL"), LIMIT, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("{place}: ended by itself: {status}\n{}", shown());
            }
            shown().contains("http://").then_some(()).ok_or_else(&shown)
        });
        kill_process_group(group.0, Signal::INT).expect("it runs");
    }
    let status = until(&format!("{place} to end"), LIMIT, || {
        let status = child.try_wait().expect("a child of ours");
        status.ok_or_else(&shown)
    });
    // make, which Ctrl-C reaches too, ends by the signal after the program has ended in peace.
    let interrupted = serves && status.signal() == Some(Signal::INT.as_raw());
    assert!(
        status.success() || interrupted && shown().contains("goodbye"),
        "{place}: {status}\n{}",
        shown()
    );
}

/// What a block has started ends with it.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_lines() {
        let text = "a\n```sh\nls\n\nls\n```\nb\n  ````text,x\n```\n  ````\n";
        let block = |line, info: &str, code: &str| Block {
            line,
            info: info.to_owned(),
            code: code.to_owned(),
        };
        assert_eq!(
            blocks(text),
            [block(2, "sh", "ls\n\nls\n"), block(8, "text,x", "```\n")]
        );
    }

    #[test]
    fn every_block_is_accounted_for() {
        let of = |info: &str| {
            kind(&Block {
                line: 1,
                info: info.to_owned(),
                code: String::new(),
            })
        };
        assert_eq!(
            of("sh"),
            Kind::Shell {
                checkout: false,
                serves: false
            }
        );
        assert_eq!(
            of("sh,checkout,serves"),
            Kind::Shell {
                checkout: true,
                serves: true
            }
        );
        assert_eq!(of("sh,device=termux"), Kind::Elsewhere);
        for unknown in ["", "bash", "sh,no-run", "rust"] {
            assert!(
                std::panic::catch_unwind(|| of(unknown)).is_err(),
                "{unknown:?}"
            );
        }
    }
}
