//! The `gemmesh` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    gemmesh_node::cli::main()
}
