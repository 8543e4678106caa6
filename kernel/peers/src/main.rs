//! The kernel's speed next to its peers, in one run: a table of ratios.
//!
//! `make bench-kernel [ARGS="--seconds 0.5 floats threads exact modular verify"]`
//!
//! Every figure is the best of many turns by the thread's CPU clock, and all who are compared take
//! turns, so that other work on the machine slows all of them. A peer that is more than 10 % below the
//! figure that it is known to reach makes the run void, and the last lines say so.

mod clock;
mod coding;
mod exact;
mod floats;
mod memory;
mod python;
mod table;
mod verify;

use std::time::Duration;

use python::Python;
use table::Voids;

const PARTS: [&str; 6] = ["floats", "threads", "exact", "modular", "verify", "coding"];

fn main() {
    let mut budget = 0.4;
    let mut interpreter = String::from("target/python/bin/python");
    let mut only = String::new();
    let mut parts = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => {
                budget = arguments
                    .next()
                    .and_then(|x| x.parse().ok())
                    .unwrap_or(budget)
            }
            "--only" => only = arguments.next().unwrap_or_default(),
            "--python" => interpreter = arguments.next().unwrap_or(interpreter),
            part if PARTS.contains(&part) => parts.push(argument),
            _ => {
                eprintln!(
                    "usage: bench-kernel [--seconds S] [--python PATH] [--only 1024x] [{}]...",
                    PARTS.join("|")
                );
                std::process::exit(2);
            }
        }
    }
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let budget = Duration::from_secs_f64(budget);
    let mut python = Python::start(&interpreter)
        .map_err(|error| eprintln!("without NumPy and FLINT: {error}"))
        .ok();
    println!("gemmesh: instance {}", gemmesh_kernel::instance());
    let peers = python.as_mut().map(|python| python.ask("about"));
    match peers {
        Some(Ok(about)) => println!("peers: gemm 0.19 · matrixmultiply 0.3.11 · {about}"),
        Some(Err(error)) => {
            eprintln!("without NumPy and FLINT: {error}");
            python = None;
        }
        None => {}
    }
    let mut voids = Voids::default();
    if wants("floats") {
        floats::table::<f64>(budget, &only, &mut python, &mut voids);
        floats::table::<f32>(budget, &only, &mut python, &mut voids);
    }
    if wants("threads") {
        floats::threads::<f64>(budget, &mut voids);
        floats::threads::<f32>(budget, &mut voids);
    }
    if wants("exact") {
        exact::integers(budget, &mut python, &mut voids);
    }
    if wants("modular") {
        exact::modular(budget, &mut python, &mut voids);
    }
    if wants("verify") {
        verify::costs(budget);
    }
    if wants("coding") {
        coding::costs(budget);
    }
    voids.print();
}
