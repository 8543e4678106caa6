//! What a job needs, before it starts: how its product is cut so that a node with these shares can compute it,
//! and how much disk that takes. Functions of shapes and shares alone.

use gemmesh_protocol::io::TileShape;
use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::plan::{self, TILE_BYTES_MAX};
use gemmesh_protocol::slab;
use gemmesh_protocol::status::{DeviceEntry, DeviceState, Outlook};
use serde::{Deserialize, Serialize};

use crate::cli::text;
use crate::compute;
use crate::error::ApiError;
use crate::memory::Shares;

/// Bytes of a vector of a check for each unit of the inner dimension and each column of a tile.
const PROBE_BYTES: u64 = 16;

/// What a job needs at the node that takes it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// For the product, and for factors that have to be converted.
    pub disk_bytes: u64,
    /// To compute a tile: with its slabs, and the blocks that these are made of.
    pub memory_bytes: u64,
}

/// What would become of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// The plan that it would start with.
    #[serde(flatten)]
    pub outlook: Outlook,
    /// What it needs at this node.
    pub needs: Needs,
}

impl Explained {
    /// Reads its JSON. A derived reader of what is flattened does not read numbers that keep their digits.
    ///
    /// # Errors
    /// It is something else.
    pub fn read(text: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Needing {
            needs: Needs,
        }
        let outlook = serde_json::from_slice(text)?;
        let Needing { needs } = serde_json::from_slice(text)?;
        Ok(Self { outlook, needs })
    }
}

/// Tiles are not made smaller than this for the sake of others: so many more leases, checks and writes would
/// cost more than those with so little memory bring.
const OTHERS_TILE_MIN: u64 = TILE_BYTES_MAX / 4;

/// The largest tile that all who are there, or all but the smallest, have room for.
pub fn room_of_all(devices: &[DeviceEntry]) -> u64 {
    let there = devices.iter().filter(|d| d.state != DeviceState::Lost);
    let least = there.map(|d| d.tile_bytes).min();
    least.unwrap_or(u64::MAX).max(OTHERS_TILE_MIN)
}

/// Cuts the product of `header` into tiles that a node with `shares` can compute, and others that have room
/// for tiles of `others` bytes; what a tile takes.
///
/// # Errors
/// `memory_budget` when there is no such way, with the memory that there would have to be.
pub fn cut(
    header: &mut JobHeader,
    slots_total: u32,
    threads: u32,
    shares: &Shares,
    others: u64,
) -> Result<u64, ApiError> {
    if let Some(bytes) = fit(header, slots_total, shares, others) {
        return Ok(bytes);
    }
    let enough = Shares::enough(threads, |shares| {
        fit(&mut header.clone(), slots_total, shares, others).is_some()
    });
    let (a, b) = (&header.a, &header.b);
    let has = text::bytes(shares.total);
    let (needed, hint) = match enough {
        Some(bytes) => (
            format!("with {}", text::bytes(bytes)),
            format!(
                "start the node with --memory {}M, or with fewer --threads; or submit at a node with more memory",
                bytes >> 20
            ),
        ),
        None => (
            "with more than any has".to_owned(),
            "cut the matrices".to_owned(),
        ),
    };
    Err(ApiError::new(
        413,
        "memory_budget",
        format!(
            "one tile of the product of {} × {} and {} × {} elements takes a node {needed} of memory, and this one \
             may take {has}",
            a.rows, a.cols, b.rows, b.cols
        ),
        hint,
    ))
}

/// The largest tiles that fit, put into `header`; what one takes.
fn fit(header: &mut JobHeader, slots_total: u32, shares: &Shares, others: u64) -> Option<u64> {
    let limits = std::iter::successors(Some(shares.tile.min(others)), |limit| Some(limit / 2));
    for limit in limits.take_while(|limit| *limit >= TILE_BYTES_MAX >> 5) {
        header.tiling =
            plan::tiling_within(&header.a, &header.b, header.element, slots_total, limit);
        let rect = header.tiling.rect(0);
        let depth = slab::depth(header, rect, shares.slab);
        let blocks = slab::resident_bytes(header, rect, depth);
        let shape = TileShape::of(header, rect);
        let tile = compute::spec(&shape, header.class).memory_bytes(depth as usize) as u64;
        let probe = PROBE_BYTES * header.a.cols.saturating_add(rect.cols);
        let fits = header.tile_bytes(0) <= shares.tile
            && blocks <= shares.resident
            && tile <= shares.slot
            && probe <= shares.checks;
        if fits {
            return Some(tile.saturating_add(blocks));
        }
    }
    None
}

/// Refuses a job that does not fit on the disk. `free` is what is left of the `budget` for bodies and
/// matrices, `on_disk` what the disk itself has, if it says so.
///
/// # Errors
/// `disk_budget` or `disk_full`, with what is needed and what there is.
pub fn check_disk(
    needed: u64,
    free: u64,
    budget: u64,
    on_disk: Option<u64>,
) -> Result<(), ApiError> {
    let says = |left: u64| {
        let (needed, left) = (text::bytes(needed), text::bytes(left));
        format!("the job needs {needed} of disk for its product, {left}")
    };
    if needed > free {
        let budget = text::bytes(budget);
        return Err(ApiError::new(
            413,
            "disk_budget",
            format!(
                "{} of the {budget} that this node may use are left",
                says(free)
            ),
            "start the node with a larger --disk, wait until older results expire, or submit smaller pieces",
        ));
    }
    if let Some(on_disk) = on_disk.filter(|on_disk| needed > *on_disk) {
        return Err(ApiError::new(
            413,
            "disk_full",
            format!("{} are free on this node's disk", says(on_disk)),
            "free some space, start the node with another --data-dir, or submit smaller pieces",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gemmesh_protocol::forecast::Limit;
    use gemmesh_protocol::id::{BlockId, DeviceId, JobId};
    use gemmesh_protocol::job::KernelClass;
    use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
    use gemmesh_protocol::status::{DeviceKind, Planned};
    use gemmesh_protocol::time::WallTime;
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ordinary_products_fit_into_the_least_memory() {
        for threads in [1, 2, 8] {
            let shares = Shares::of(Shares::least(threads), threads).expect("the least is enough");
            for (dtype, bits) in [
                (Dtype::F64, 0),
                (Dtype::F32, 0),
                (Dtype::Int, 60),
                (Dtype::Int, 15),
            ] {
                for shape in [
                    [20_000; 3],
                    [2_000; 3],
                    [1_000_000, 64, 16],
                    [16, 64, 1_000_000],
                    [1, 1, 1],
                ] {
                    let mut header = header(shape, dtype, bits);
                    let taken = cut(&mut header, threads, threads, &shares, u64::MAX);
                    assert!(
                        taken.is_ok(),
                        "{threads} {shape:?} {dtype:?} {taken:?} {shares:?}"
                    );
                    assert_eq!(header.check(), Ok(()));
                }
            }
        }
    }

    #[test]
    fn plenty_of_memory_changes_nothing() {
        let shares = Shares::of(8 << 30, 4).expect("plenty");
        let mut header = header([4_096; 3], Dtype::F64, 0);
        let usual = header.tiling;
        cut(&mut header, 4, 4, &shares, u64::MAX).expect("it fits");
        assert_eq!(header.tiling, usual);
    }

    #[test]
    fn what_is_explained_is_read_back() {
        let planned = Planned::left_out(DeviceId([1; 32]), "phone".to_owned(), Limit::Start);
        let explained = Explained {
            outlook: Outlook {
                rows: 2,
                inner: 3,
                cols: 2,
                dtype: Dtype::F64,
                tiles: 1,
                tile_rows: 2,
                tile_cols: 2,
                predicted_seconds: Some(0.004),
                alone_seconds: None,
                bytes: 7,
                sharing: None,
                plan: vec![planned],
            },
            needs: Needs {
                disk_bytes: 8,
                memory_bytes: 9,
            },
        };
        let text = serde_json::to_vec(&explained).expect("JSON");
        assert_eq!(Explained::read(&text).expect("the same"), explained);
    }

    #[test]
    fn tiles_are_as_large_as_all_have_room_for_within_reason() {
        let device = |tile_bytes, state| DeviceEntry {
            device: DeviceId([0; 32]),
            name: String::new(),
            kind: DeviceKind::Native,
            address: String::new(),
            slots: 1,
            mflops: 1.0,
            state,
            since: WallTime(0),
            tile_bytes,
        };
        let (ready, lost) = (DeviceState::Ready, DeviceState::Lost);
        assert_eq!(room_of_all(&[]), u64::MAX);
        let mut devices = vec![device(u64::MAX, ready), device(4 * MIB, ready)];
        devices.push(device(2 * MIB, lost));
        assert_eq!(room_of_all(&devices), 4 * MIB);
        devices.push(device(1, ready));
        assert_eq!(room_of_all(&devices), OTHERS_TILE_MIN);
        let shares = Shares::of(8 << 30, 4).expect("plenty");
        let mut header = header([20_000; 3], Dtype::F64, 0);
        cut(&mut header, 4, 4, &shares, 4 * MIB).expect("it fits");
        assert!(header.tile_bytes(0) <= 4 * MIB);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would_be_enough() {
        let shares = Shares::of(128 * MIB, 1).expect("enough to start");
        let mut long = header([1, 60_000, 65_536], Dtype::F64, 0);
        let error = cut(&mut long, 1, 1, &shares, u64::MAX).expect_err("its slabs are large");
        assert_eq!((error.status, error.code), (413, "memory_budget"));
        let megas = error.hint.split("--memory ").nth(1).expect("a figure");
        let megas: u64 = megas
            .split('M')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a number");
        assert!(error.message.contains("128.0 MiB"), "{}", error.message);
        let shares = Shares::of(megas * MIB, 1).expect("more than before");
        cut(&mut long, 1, 1, &shares, u64::MAX).expect("what it says is enough");
    }

    #[test]
    fn disk_is_refused_with_both_figures() {
        assert!(check_disk(10, 10, 20, Some(10)).is_ok() && check_disk(10, 10, 20, None).is_ok());
        let error = check_disk(3 << 30, 1 << 30, 2 << 30, None).expect_err("too much");
        assert_eq!((error.status, error.code), (413, "disk_budget"));
        assert!(error.message.contains("3.0 GiB") && error.message.contains("1.0 GiB"));
        let error = check_disk(3 << 30, 8 << 30, 8 << 30, Some(1 << 30)).expect_err("too much");
        assert_eq!((error.status, error.code), (413, "disk_full"));
        assert!(error.message.contains("3.0 GiB") && error.message.contains("1.0 GiB"));
    }

    proptest! {
        #[test]
        fn what_is_cut_fits(
            m in 1u64..5_000, k in 1u64..5_000, n in 1u64..5_000,
            mib in 96u64..600, threads in 1u32..4,
        ) {
            let Some(shares) = Shares::of(mib * MIB, threads) else { return Ok(()) };
            let mut header = header([m, k, n], Dtype::F64, 0);
            if cut(&mut header, threads, threads, &shares, u64::MAX).is_ok() {
                for tile in [0, header.tiling.len() - 1] {
                    let rect = header.tiling.rect(tile);
                    let depth = slab::depth(&header, rect, shares.slab);
                    prop_assert!(slab::resident_bytes(&header, rect, depth) <= shares.resident);
                }
            }
        }
    }

    fn header([m, k, n]: [u64; 3], dtype: Dtype, bits: u32) -> JobHeader {
        let limbs = if dtype == Dtype::Int {
            1 + (2 * bits + 20) as u16 / 64
        } else {
            1
        };
        let (element, wide) = (
            ElementType { dtype, limbs: 1 },
            ElementType { dtype, limbs },
        );
        let manifest = |rows, cols| Manifest {
            element,
            bits,
            rows,
            cols,
            blocks: vec![BlockId([0; 32]); Grid::new(rows, cols, element).len() as usize],
        };
        let (a, b) = (manifest(m, k), manifest(k, n));
        JobHeader {
            job: JobId([0; 16]),
            name: String::new(),
            class: if dtype == Dtype::Int {
                KernelClass::Exact
            } else {
                KernelClass::Any
            },
            tiling: plan::tiling(&a, &b, wide, 4),
            a,
            b,
            element: wide,
            stack: 1,
            batch: None,
            guard: None,
            share: None,
        }
    }
}
