//! How long the shipped engines take in simulated rooms of unequal devices, next to the least possible.

use gemmesh_tests::sim::room::Room;

/// Operations a second of the slowest device; the fastest has so many times as much.
const SLOWEST: f64 = 1e9;
const SPREAD: f64 = 50.0;
/// Bytes a second of the link that all share: 1 Gbit/s less what Ethernet and TCP take.
const LINK: f64 = 117e6;
const DEVICES: [usize; 10] = [2, 3, 4, 6, 8, 12, 20, 50, 100, 200];
const EDGES: [u64; 4] = [2_048, 4_096, 8_192, 16_384];

/// Prints the table for rooms of at most so many devices.
pub fn measure(most: usize) {
    println!(
        "Simulated rooms, speeds spread {SPREAD} : 1 from {} GFLOP/s, one shared link of {} MB/s.",
        SLOWEST / 1e9,
        LINK / 1e6
    );
    println!("  bound: the least over sets of devices of max(2n\u{b3}/\u{3a3}s, V/W)");
    println!("  devices      n   seconds    bound   ratio  bytes/V  helpers  seconds/predicted");
    for devices in DEVICES.into_iter().filter(|devices| *devices <= most) {
        for edge in EDGES {
            let room = Room::random(devices, SLOWEST, SPREAD, LINK, edge, devices as u64);
            let (outcome, bound) = (room.run(1), room.bound());
            let status = &outcome.status;
            println!(
                "  {devices:>7} {edge:>6} {:>9.2} {bound:>8.2} {:>7.2} {:>8.2} {:>8} {:>10.2}",
                outcome.seconds,
                outcome.seconds / bound,
                outcome.bytes as f64 / status.bytes_floor.max(1) as f64,
                status.contributions.len() - 1,
                outcome.seconds / status.predicted_seconds.unwrap_or(f64::NAN),
            );
        }
    }
}
