//! The `gemmesh` program.
fn main() {}
