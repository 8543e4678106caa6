//! Which tiles make up a share: a tile needs a row panel of A and a column panel of B, so what one
//! device gets should lie together.

/// Beyond this many tiles regions are runs of tile indices: sorting would take too long.
const SORT_MAX: usize = 1 << 16;

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
}
