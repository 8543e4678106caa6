//! Who should compute which tiles: counts by speed, regions by neighbourhood.
//!
//! Intuition: the job ends when its last device ends, so each gets as many tiles as it can do by
//! the time the others are done. And a tile needs a row panel of A and a column panel of B, so
//! what one device gets should lie together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::id::DeviceId;

/// Beyond this many tiles regions are runs of tile indices: sorting would take too long.
const SORT_MAX: usize = 1 << 16;

/// What the planner needs to know of a device.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// The device.
    pub device: DeviceId,
    /// Tiles a second, all slots together; positive.
    pub rate: f64,
    /// Its slots.
    pub slots: u32,
    /// Tiles that it has to finish first.
    pub load: u64,
}

/// How many of `tiles` each device should compute so that the last one ends as early as possible:
/// each tile goes to the device that would finish it first. A device of `s` slots needs `s/rate`
/// seconds for one tile, however few it has. Cost: O(tiles · log devices) up to a bound, then
/// proportional.
pub fn counts(devices: &[Capacity], tiles: usize) -> Vec<usize> {
    let total: f64 = devices.iter().map(|device| device.rate).sum();
    let mut counts = vec![0; devices.len()];
    if devices.is_empty() {
        return counts;
    }
    let mut left = tiles;
    if tiles > SORT_MAX {
        for (count, device) in counts.iter_mut().zip(devices) {
            *count = ((tiles as f64 * device.rate / total) as usize).min(left);
            left -= *count;
        }
    }
    // Finishing times in microseconds: integers order the same everywhere.
    let finish = |index: usize, count: usize| {
        let Capacity {
            rate, slots, load, ..
        } = devices[index];
        let tiles = (load + count as u64 + 1) as f64;
        let seconds = tiles.max(f64::from(slots)) / rate;
        (seconds * 1e6).min(1e15) as u64
    };
    let mut queue: BinaryHeap<Reverse<(u64, u64, usize)>> = (0..devices.len())
        .map(|index| Reverse((finish(index, counts[index]), 0, index)))
        .collect();
    while left > 0 {
        let Reverse((_, _, index)) = queue.pop().expect("there is a device");
        counts[index] += 1;
        left -= 1;
        // Among equal times the one with fewer tiles comes first, so that slots fill evenly.
        let next = finish(index, counts[index]);
        queue.push(Reverse((next, counts[index] as u64, index)));
    }
    counts
}

/// Cuts `tiles` into regions of the given sizes: halves the set across its longer side again and
/// again. `aspect` is the height of a tile over its width in bytes of panel.
/// Cost: O(n · log n · log devices).
///
/// # Panics
/// When the counts do not add up to the number of tiles.
pub fn regions(tiles: &mut [u32], grid_cols: u64, aspect: f64, counts: &[usize]) -> Vec<Vec<u32>> {
    assert_eq!(counts.iter().sum::<usize>(), tiles.len(), "every tile");
    let mut regions = vec![Vec::new(); counts.len()];
    let order: Vec<usize> = (0..counts.len()).collect();
    bisect(tiles, grid_cols, aspect, counts, &order, &mut regions);
    regions
}

fn bisect(
    tiles: &mut [u32],
    grid_cols: u64,
    aspect: f64,
    counts: &[usize],
    order: &[usize],
    regions: &mut [Vec<u32>],
) {
    if let &[device] = order {
        regions[device] = tiles.to_vec();
        return;
    }
    let mut first = 1;
    let mut taken = counts[order[0]];
    while first + 1 < order.len() && 2 * taken < tiles.len() {
        taken += counts[order[first]];
        first += 1;
    }
    if tiles.len() <= SORT_MAX {
        let row = |tile: u32| u64::from(tile) / grid_cols;
        let col = |tile: u32| u64::from(tile) % grid_cols;
        let extent = |of: &dyn Fn(u32) -> u64| {
            let values = tiles.iter().map(|&tile| of(tile));
            values.clone().max().unwrap_or(0) - values.min().unwrap_or(0) + 1
        };
        if extent(&row) as f64 * aspect >= extent(&col) as f64 {
            tiles.sort_unstable_by_key(|&tile| (row(tile), col(tile)));
        } else {
            tiles.sort_unstable_by_key(|&tile| (col(tile), row(tile)));
        }
    }
    let (left, right) = tiles.split_at_mut(taken);
    bisect(left, grid_cols, aspect, counts, &order[..first], regions);
    bisect(right, grid_cols, aspect, counts, &order[first..], regions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_proportional_to_speed() {
        check(&[(10.0, 2), (10.0, 2), (5.0, 2)], 100, &[40, 40, 20]);
    }

    #[test]
    fn a_device_too_slow_to_finish_one_tile_in_time_gets_none() {
        check(&[(100.0, 1), (1.0, 1)], 50, &[50, 0]);
    }

    #[test]
    fn many_tiles_are_shared_out_quickly_and_completely() {
        let counts = counts(&devices(&[(3.0, 4), (1.0, 1)]), 4_000_000);
        assert_eq!(counts.iter().sum::<usize>(), 4_000_000);
        assert!(counts[0].abs_diff(3_000_000) < 10, "{counts:?}");
    }

    #[test]
    fn regions_are_compact() {
        let mut tiles: Vec<u32> = (0..64).collect();
        let regions = regions(&mut tiles, 8, 1.0, &[16, 16, 16, 16]);
        for region in &regions {
            let mut rows: Vec<u32> = region.iter().map(|tile| tile / 8).collect();
            let mut cols: Vec<u32> = region.iter().map(|tile| tile % 8).collect();
            for side in [&mut rows, &mut cols] {
                side.sort_unstable();
                side.dedup();
            }
            assert_eq!((rows.len(), cols.len()), (4, 4));
        }
    }

    fn devices(speeds: &[(f64, u32)]) -> Vec<Capacity> {
        let capacity = |(n, &(rate, slots)): (usize, &(f64, u32))| Capacity {
            device: DeviceId([n as u8; 32]),
            rate,
            slots,
            load: 0,
        };
        speeds.iter().enumerate().map(capacity).collect()
    }

    fn check(speeds: &[(f64, u32)], tiles: usize, expected: &[usize]) {
        assert_eq!(counts(&devices(speeds), tiles), expected);
    }
}
