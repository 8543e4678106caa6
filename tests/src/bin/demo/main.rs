//! `make demo`: three real nodes on this machine find each other and share two products.
//!
//! Usage: `demo [PATH OF gemmesh]`. Everything is bound to 127.0.0.1 and lives in a temporary
//! directory. It ends with a line that starts with `OK`, or with what went wrong and the fix.

mod graph;
mod large;
mod mesh;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use mesh::Mesh;

/// What went wrong, for the person who watches.
type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let begun = Instant::now();
    let program = program()?;
    let dir = tempfile::Builder::new()
        .prefix("gemmesh-demo-")
        .tempdir()
        .map_err(|error| format!("there is no place for temporary files: {error}; set TMPDIR"))?;

    show::heading("Three nodes, each with a data directory of its own, on this machine alone");
    let mesh = Mesh::start(&program, dir.path())?;
    mesh.wait_complete()?;

    show::heading("A real graph: which crates does this workspace build on?");
    graph::run(&mesh, dir.path())?;

    show::heading("A large product: 2,000 × 2,000 times 2,000 × 2,000, f64");
    let devices = large::run(&mesh, dir.path())?;

    show::heading("Goodbye");
    mesh.leave()?;
    show::success(&format!(
        "OK: both products are right, {devices} nodes shared the large one; {:.1} s in all",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// The program to show: the argument, else the one built beside this one.
fn program() -> Outcome<PathBuf> {
    let path = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => {
            let own = std::env::current_exe().map_err(|error| error.to_string())?;
            own.with_file_name(format!("gemmesh{}", std::env::consts::EXE_SUFFIX))
        }
    };
    if path.is_file() {
        // A relative path would mean something else in another directory.
        return std::path::absolute(&path).map_err(|error| error.to_string());
    }
    Err(format!(
        "there is no program at {}; build it first with `make`",
        path.display()
    ))
}
