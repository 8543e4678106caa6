//! The simulator itself: the same seed is the same run, and seeds that once found something.

use gemmesh_tests::sim::chaos;

/// Seeds that found something once. What a seed does changes with the engines and the simulator:
/// they are more seeds, not the same cases for ever.
const KNOWN: &str = include_str!("seeds.txt");

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..16 {
        let traces = [0, 1].map(|_| chaos::run(seed, false).trace());
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
    assert_ne!(chaos::run(0, false).trace(), chaos::run(1, false).trace());
}

#[test]
fn seeds_that_found_something_pass() {
    let seeds = KNOWN.lines().filter(|line| !line.starts_with('#'));
    for seed in seeds.filter_map(|line| line.split_whitespace().next()) {
        println!("make sim SEED={seed}");
        chaos::run(seed.parse().expect("a seed"), false);
    }
}

#[test]
fn a_few_hundred_seeds_pass() {
    for seed in 0..300 {
        println!("make sim SEED={seed}");
        chaos::run(seed, false);
    }
}
