//! What a node may hold in memory (`--memory`, its peak resident size), cut into shares.
//!
//! Whatever can grow with the size of a matrix or with the number of tiles under way belongs to one share and
//! waits when that is used up, so the sum is what the node takes at most. Everything scales with the largest
//! tile that the node computes: the less memory, the smaller the tiles. A thing that is larger than its share
//! (another node's tiles may be) waits until it is alone.
//!
//! ```text
//! total = program + threads·slot + cache + results + writes + checks + files + import + links + slack
//! ```

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use gemmesh_protocol::plan::TILE_BYTES_MAX;

const MIB: u64 = 1 << 20;
/// The program, its runtime, the database's cache, and what is remembered of jobs and devices.
const PROGRAM: u64 = 24 * MIB;
/// The smallest tile: one block.
const TILE_MIN: u64 = MIB / 2;
/// Of the total, what the allocator may hold besides what is asked of it.
const SLACK: u64 = 10;
/// A tile that is computed takes at most so many times its bytes, with the slabs that it needs: see
/// `gemmesh_kernel::tile::TileSpec::memory_bytes`.
const SLOT_TILES: u64 = 4;
/// The cache is at least as large as so many tiles for each slot: the slab that is computed, the next one,
/// and the first of the next tile.
const CACHE_TILES: u64 = 3;
/// What a slot may take where there is so much.
const SLOT_FREE: u64 = 64 * MIB;
const CACHE_MIN: u64 = 6 * MIB;
const CHECKS_MIN: u64 = 2 * MIB;
const FILES_MIN: u64 = 12 * MIB;
/// More than these does not make anything faster.
const RESULTS_MAX: u64 = 256 * MIB;
const WRITES_MAX: u64 = 128 * MIB;
const CHECKS_MAX: u64 = 256 * MIB;
const FILES_MAX: u64 = 256 * MIB;
const LINKS_MAX: u64 = 96 * MIB;

/// The shares of one node, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// All of it.
    pub total: u64,
    /// The largest tile that is computed here, and that jobs of this node are cut into.
    pub tile: u64,
    /// What one slot may take to compute a tile: C, its copy, slabs of A and B, packed blocks.
    pub slot: u64,
    /// Panels of A and B that a slot takes at a time.
    pub slab: u64,
    /// Blocks that the worker keeps, those on their way included.
    pub cache: u64,
    /// Blocks that one slab may need.
    pub resident: u64,
    /// Tiles from when they are computed or received until they are cut for the disk, or judged.
    pub results: u64,
    /// Tiles that are cut for the disk and not durable yet.
    pub writes: u64,
    /// The vectors of checks, for all jobs.
    pub checks: u64,
    /// Pieces of files that are read and written.
    pub files: u64,
    /// What has to be sorted or parsed in memory, one at a time.
    pub import: u64,
}

impl Shares {
    /// The shares of `total` bytes with `threads` slots; `None` when they do not go round.
    pub fn of(total: u64, threads: u32) -> Option<Self> {
        let halves = std::iter::successors(Some(TILE_BYTES_MAX), |tile| Some(tile / 2));
        halves
            .take_while(|tile| *tile >= TILE_MIN)
            .find_map(|tile| Self::with_tile(total, u64::from(threads), tile))
    }

    /// The least memory with which a node of so many threads starts.
    pub fn least(threads: u32) -> u64 {
        Self::enough(threads, |_| true).expect("there is always enough")
    }

    /// The least memory, to 8 MiB, whose shares are good enough; `None` when none up to 1 PiB is.
    pub fn enough(threads: u32, good: impl Fn(&Shares) -> bool) -> Option<u64> {
        const STEP: u64 = 8 * MIB;
        let is_good = |steps: u64| Self::of(steps * STEP, threads).is_some_and(|s| good(&s));
        let mut high = (0..27).map(|n| 1u64 << n).find(|&steps| is_good(steps))?;
        let mut low = high / 2;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if is_good(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high * STEP)
    }

    fn with_tile(total: u64, threads: u64, tile: u64) -> Option<Self> {
        // Wide integers take more than their tile says.
        let slot = (SLOT_TILES * tile).max((total / 12 / threads).min(SLOT_FREE));
        let results = ((threads + 3) * tile)
            .max(total / 16)
            .min(RESULTS_MAX.max((threads + 3) * tile));
        let writes = (2 * tile).max(total / 32).min(WRITES_MAX);
        let checks = CHECKS_MIN.max(total / 32).min(CHECKS_MAX);
        let files = FILES_MIN.max(total / 16).min(FILES_MAX);
        let import = total / 8;
        // A tile is written three times on its way into a socket and out of it; and a tile whose check does
        // not tell is computed again, one at a time.
        let links = 4 * tile + (total / 32).min(LINKS_MAX);
        let again = (SLOT_TILES + 1) * tile;
        let fixed = PROGRAM + threads * slot + results + writes + checks + files + import;
        let rest = total.checked_sub(fixed + links + again + total / SLACK)?;
        let cache = rest.min(total / 4);
        (cache >= CACHE_MIN.max(CACHE_TILES * threads * tile)).then_some(Self {
            total,
            tile,
            slot,
            slab: tile / 2,
            cache,
            resident: cache - cache / 3,
            results,
            writes,
            checks,
            files,
            import,
        })
    }
}

/// A share whose users wait for each other.
#[derive(Debug, Clone)]
pub struct Share {
    kib: Arc<Semaphore>,
    kib_max: u32,
}

/// A part of a [`Share`]; given back when dropped.
#[derive(Debug)]
pub struct Part(#[allow(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Share {
    /// A share of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let kib_max = u32::try_from(bytes >> 10).unwrap_or(u32::MAX >> 4).max(1);
        let kib = Arc::new(Semaphore::new(kib_max as usize));
        Self { kib, kib_max }
    }

    /// A part of `bytes`, as soon as it is free. More than the share is all of it.
    pub async fn take(&self, bytes: u64) -> Part {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let part = self.kib.clone().acquire_many_owned(kib.min(self.kib_max));
        Part(part.await.expect("a share is never closed"))
    }

    /// `bytes`, which hold `part` until their last user drops them.
    pub fn counted(bytes: Bytes, part: Part) -> Bytes {
        struct Counted(Bytes, #[allow(dead_code, reason = "held")] Part);

        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        Bytes::from_owner(Counted(bytes, part))
    }
}

/// The most that this process had resident at once, in bytes, where the system tells.
pub fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_less_than_the_total() {
        for threads in [1, 2, 3, 8, 64] {
            for mib in [64, 80, 96, 100, 128, 200, 256, 512, 1_000, 4_096, 100_000] {
                let Some(shares) = Shares::of(mib * MIB, threads) else {
                    assert!(
                        mib * MIB < Shares::least(threads),
                        "{mib} MiB, {threads} threads"
                    );
                    continue;
                };
                let sum = PROGRAM
                    + u64::from(threads) * shares.slot
                    + shares.cache
                    + shares.results
                    + shares.writes
                    + shares.checks
                    + shares.files
                    + shares.import;
                assert!(sum < shares.total - shares.total / SLACK, "{shares:?}");
                assert!(2 * shares.slab <= shares.resident && shares.tile <= TILE_BYTES_MAX);
                assert!(4 * shares.tile <= shares.results, "{shares:?}");
            }
        }
    }

    #[test]
    fn more_memory_means_no_smaller_tiles_and_the_least_is_small() {
        assert!(Shares::least(1) <= 96 * MIB, "{}", Shares::least(1));
        assert!(Shares::least(8) <= 256 * MIB, "{}", Shares::least(8));
        let tile = |mib: u64| Shares::of(mib * MIB, 2).map_or(0, |shares| shares.tile);
        assert!((64..1_024).all(|mib| tile(mib) <= tile(mib + 1)));
        assert_eq!(tile(1_024), TILE_BYTES_MAX);
    }

    #[tokio::test]
    async fn what_is_larger_than_its_share_waits_until_it_is_alone() {
        let share = Share::new(8 << 10);
        let small = share.take(1).await;
        let large = tokio::spawn({
            let share = share.clone();
            async move { share.take(1 << 40).await }
        });
        tokio::task::yield_now().await;
        assert!(!large.is_finished());
        let counted = Share::counted(Bytes::from_static(b"tile"), small);
        let again = counted.clone();
        drop(counted);
        tokio::task::yield_now().await;
        assert!(!large.is_finished());
        drop(again);
        large.await.expect("it gets all");
    }
}
