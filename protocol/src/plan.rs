//! How a product is cut into tiles, and how long it should take.

use crate::job::JobHeader;
use crate::matrix::{Dtype, ElementType, Grid, Manifest};
use crate::tile::Tiling;

/// The most bytes of a tile: a result travels as one frame.
pub const TILE_BYTES_MAX: u64 = 8 << 20;
/// The longest edge of a tile, unless C is so thin that a tile of this many elements is longer.
const TILE_EDGE_MAX: u64 = 1_024;
/// Tiles for each slot of the mesh, so that unequal devices can finish together.
const TILES_PER_SLOT: u64 = 8;
/// Below this many multiply-adds a tile's overhead outweighs what it spares.
const TILE_WORK_MIN: u128 = 1 << 21;
/// The most tiles of a job.
pub const TILES_MAX: u64 = 1 << 22;

/// How C = A·B is cut for a mesh of `slots_total` slots: whole blocks of C, at most
/// [`TILE_BYTES_MAX`] bytes and 1,024 elements an edge (longer when C is thin), at least eight
/// tiles for each slot where that does not make tiles tiny.
///
/// # Panics
/// When `a` has not as many columns as `b` has rows.
pub fn tiling(a: &Manifest, b: &Manifest, c: ElementType, slots_total: u32) -> Tiling {
    tiling_within(a, b, c, slots_total, TILE_BYTES_MAX)
}

/// [`tiling`] with tiles of at most `tile_bytes_max`, but at least one block.
///
/// # Panics
/// When `a` has not as many columns as `b` has rows.
pub fn tiling_within(
    a: &Manifest,
    b: &Manifest,
    c: ElementType,
    slots_total: u32,
    tile_bytes_max: u64,
) -> Tiling {
    assert_eq!(a.cols, b.rows, "the factors do not fit");
    let (rows, cols) = (a.rows, b.cols);
    let grid = Grid::new(rows, cols, c);
    let (unit_rows, unit_cols) = (grid.block_rows(), grid.block_cols());
    // Start from one block and grow the shorter edge while the tile stays within bounds: near
    // square tiles need the fewest bytes of A and B for each element of C.
    let (mut tile_rows, mut tile_cols) = (unit_rows, unit_cols);
    let wanted = TILES_PER_SLOT * u64::from(slots_total.max(1));
    let count = |r: u64, q: u64| rows.div_ceil(r) * cols.div_ceil(q);
    let elements_max = TILE_EDGE_MAX * TILE_EDGE_MAX;
    let fits = |r: u64, q: u64| {
        let (r, q) = (r.min(rows), q.min(cols));
        let bytes = r * q * c.bytes();
        let edges = r.max(q)
            <= TILE_EDGE_MAX
                .max(elements_max / r.min(q).max(1))
                .min(1 << 16);
        let square_enough = r.min(q) < TILE_EDGE_MAX / 4 || r.max(q) <= TILE_EDGE_MAX;
        bytes <= tile_bytes_max.min(TILE_BYTES_MAX) && edges && square_enough
    };
    let tiny = |r: u64, q: u64| {
        u128::from(r.min(rows)) * u128::from(q.min(cols)) * u128::from(a.cols) < TILE_WORK_MIN
    };
    loop {
        let grow_rows = tile_rows < rows && (tile_rows <= tile_cols || tile_cols >= cols);
        let (r, q) = if grow_rows {
            (tile_rows + unit_rows, tile_cols)
        } else if tile_cols < cols {
            (tile_rows, tile_cols + unit_cols)
        } else {
            break;
        };
        let needed = tiny(tile_rows, tile_cols) || count(tile_rows, tile_cols) > TILES_MAX;
        if !fits(r, q) || (count(r, q) < wanted && !needed) {
            break;
        }
        (tile_rows, tile_cols) = (r, q);
    }
    Tiling {
        rows,
        cols,
        tile_rows,
        tile_cols,
    }
}

/// How many floating products of the same shape a product costs, roughly: one for floats. Exact
/// integers are computed modulo primes of about 20 bits, as many as the largest possible element
/// of C needs: bits(A) + bits(B) + log₂(inner) + 1.
pub fn passes(header: &JobHeader) -> f64 {
    match header.element.dtype {
        Dtype::F64 | Dtype::F32 => return 1.0,
        // Pairs of 16-bit numbers: about as fast as f64.
        Dtype::Residues => return f64::from(header.element.limbs),
        Dtype::Int => {}
    }
    let bits = header.a.bits + header.b.bits + header.a.cols.ilog2() + 2;
    f64::from(bits.div_ceil(20))
}

/// Seconds that a product takes when devices of `mflops` in total share it perfectly and data is
/// there; `None` when no device is.
pub fn predict(header: &JobHeader, mflops: f64) -> Option<f64> {
    let operations = header.operations() as f64 * passes(header);
    (mflops > 0.0).then(|| operations / (mflops * 1e6))
}

/// The least bytes that devices other than the coordinator must be sent and send back, when they
/// compute `shares` of C (each at most 1). A share x of an m × n result is a rectangle h × w of
/// area x·m·n; it needs h rows of A and w columns of B and returns itself:
/// V = Σ (h·k·a + w·k·b + h·w·c) bytes, least for h·a = w·b within m and n. For square matrices
/// of one element size that is b·n²·(2·Σ√x + Σx).
pub fn bytes_floor(header: &JobHeader, shares: &[f64]) -> u64 {
    let (m, k, n) = (header.a.rows, header.a.cols, header.b.cols);
    let (m, k, n) = (m as f64, k as f64, n as f64);
    let bytes = |element: ElementType| element.bytes() as f64;
    let (a, b, c) = (
        bytes(header.a.element),
        bytes(header.b.element),
        bytes(header.element),
    );
    let floor = |&share: &f64| {
        let share = share.clamp(0.0, 1.0);
        if header.stack > 1 {
            // Whole products: each needs its own A and B.
            let all = header.a.bytes() + header.b.bytes();
            return share * (all as f64 + m * n * c);
        }
        let area = share * m * n;
        if area <= 0.0 {
            return 0.0;
        }
        let h = (area * b / a).sqrt().clamp(area / n, m);
        let w = area / h;
        h * k * a + w * k * b + area * c
    };
    shares.iter().map(floor).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{BlockId, JobId};
    use crate::job::KernelClass;

    const F64: ElementType = ElementType {
        dtype: Dtype::F64,
        limbs: 1,
    };

    #[test]
    fn every_slot_of_the_mesh_gets_about_eight_tiles() {
        check(2_000, 2_000, 2_000, 6, 48);
        check(8_000, 8_000, 8_000, 16, 128);
    }

    #[test]
    fn small_and_thin_products_are_cut_too() {
        check(1, 1, 1, 100, 1);
        check(1_000_000, 10, 1, 4, 16);
        check(1, 10, 1_000_000, 4, 16);
    }

    #[test]
    fn the_floor_of_equal_squares_is_the_known_formula() {
        let header = header(1_000, 1_000, 1_000, 4);
        let shares = [0.25, 0.25];
        let known = 8.0 * 1e6 * (2.0 * (0.5 + 0.5) + 0.5);
        assert_eq!(bytes_floor(&header, &shares), known as u64);
        assert_eq!(bytes_floor(&header, &[]), 0);
    }

    proptest! {
        #[test]
        fn tiles_are_whole_blocks_within_bounds(
            m in 1u64..20_000, k in 1u64..3_000, n in 1u64..20_000, slots in 0u32..64,
        ) {
            let tiling = header(m, k, n, slots).tiling;
            let grid = Grid::new(m, n, F64);
            prop_assert_eq!(tiling.tile_rows % grid.block_rows(), 0);
            prop_assert_eq!(tiling.tile_cols % grid.block_cols(), 0);
            let first = tiling.rect(0);
            prop_assert!(first.rows * first.cols * 8 <= TILE_BYTES_MAX);
        }
    }

    fn header(m: u64, k: u64, n: u64, slots: u32) -> JobHeader {
        let manifest = |rows, cols| Manifest {
            element: F64,
            bits: 0,
            rows,
            cols,
            blocks: vec![BlockId([0; 32]); Grid::new(rows, cols, F64).len() as usize],
        };
        let (a, b) = (manifest(m, k), manifest(k, n));
        JobHeader {
            job: JobId([0; 16]),
            name: String::new(),
            class: KernelClass::Any,
            tiling: tiling(&a, &b, F64, slots),
            a,
            b,
            element: F64,
            stack: 1,
            batch: None,
            guard: None,
            share: None,
        }
    }

    fn check(m: u64, k: u64, n: u64, slots: u32, tiles_min: u64) {
        let header = header(m, k, n, slots);
        assert_eq!(header.check(), Ok(()));
        let tiles = header.tiling.len();
        assert!(tiles >= tiles_min, "{m} × {k} × {n}: {tiles} tiles");
        assert!(tiles <= 8 * tiles_min, "{m} × {k} × {n}: {tiles} tiles");
    }
}
