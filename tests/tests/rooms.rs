//! Rooms of unequal devices in virtual time: nobody holds the others up, and more devices are not slower.

use gemmesh_tests::sim::room::Room;

const GFLOPS: f64 = 1e9;
/// Bytes a second: 1 Gbit/s.
const LINK: f64 = 117e6;

/// Seconds of a product of this edge, and the least possible.
fn run(speeds: &[f64], edge: u64) -> (f64, f64) {
    let room = Room {
        speeds: speeds.iter().map(|speed| speed * GFLOPS).collect(),
        link: LINK,
        edge,
        cache: 4 << 30,
    };
    (room.run(1).seconds, room.bound())
}

#[test]
fn a_slow_coordinator_does_not_hold_up_a_fast_helper() {
    let (seconds, bound) = run(&[1.0, 50.0], 8_192);
    assert!(seconds < 1.3 * bound, "{seconds} s, {bound} s is possible");
}

#[test]
fn slow_helpers_do_not_hold_up_a_fast_coordinator() {
    for edge in [2_048, 4_096, 8_192] {
        let alone = 2.0 * (edge as f64).powi(3) / (50.0 * GFLOPS);
        let (seconds, _) = run(&[50.0, 1.0, 1.0, 2.0], edge);
        assert!(
            seconds < 1.05 * alone,
            "{edge}: {seconds} s, alone {alone} s"
        );
    }
}

#[test]
fn equal_devices_share_a_large_product_fairly() {
    let (seconds, bound) = run(&[20.0, 20.0], 8_192);
    assert!(seconds < 1.15 * bound, "{seconds} s, {bound} s is possible");
}
