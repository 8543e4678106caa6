//! How a tile is computed in slabs over the inner dimension, and which blocks a slab needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::BlockId;
use crate::job::{JobHeader, Operand};
use crate::matrix::Part;
use crate::tile::Rect;

/// Where a block is found in its job.
pub type Place = (Operand, u32);

/// One slab: inner indices `from..to` of a tile.
#[derive(Debug)]
pub struct Slab {
    /// First inner index.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Parts of blocks of A, tile rows × depth.
    pub a: Vec<(BlockId, Part)>,
    /// Parts of blocks of B, depth × tile columns; in a stack as many rows for each product of the tile.
    pub b: Vec<(BlockId, Part)>,
}

impl Slab {
    /// The slab of `rect` that starts at `from`.
    pub fn new(header: &JobHeader, rect: Rect, from: u64, depth: u64) -> Self {
        let to = header.a.cols.min(from.saturating_add(depth));
        let parts = |operand, rect| {
            let manifest = header.manifest(operand);
            let with_id = |part: Part| (manifest.blocks[part.index as usize], part);
            manifest.grid().parts(rect).into_iter().map(with_id)
        };
        let a = Rect {
            col: from,
            cols: to - from,
            ..rect
        };
        let b = match header.span(rect) {
            None => Rect {
                row: from,
                rows: to - from,
                ..rect
            },
            // One slab for all of the inner dimension.
            Some(span) => Rect {
                row: span.first * header.a.cols,
                rows: span.products * header.a.cols,
                ..rect
            },
        };
        Self {
            from,
            to,
            a: parts(Operand::A, a).collect(),
            b: parts(Operand::B, b).collect(),
        }
    }

    /// The distinct blocks, each with one place where it is found.
    pub fn blocks(&self) -> BTreeMap<BlockId, Place> {
        let a = self
            .a
            .iter()
            .map(|(id, part)| (*id, (Operand::A, part.index)));
        let b = self
            .b
            .iter()
            .map(|(id, part)| (*id, (Operand::B, part.index)));
        a.chain(b).collect()
    }
}

/// What a device has room for, in bytes. Tiles of stacks have bounds of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileLimits {
    /// The largest tile.
    pub tile_bytes: u64,
    /// Panels of the smallest slab that it cuts.
    pub slab_bytes: u64,
    /// Blocks that one slab may need.
    pub resident_bytes: u64,
}

/// Of a device that says nothing.
impl Default for TileLimits {
    fn default() -> Self {
        Self {
            tile_bytes: u64::MAX,
            slab_bytes: u64::MAX,
            resident_bytes: u64::MAX,
        }
    }
}

impl TileLimits {
    /// Whether a tile of `header` fits. The first tile is the largest.
    pub fn fit(&self, header: &JobHeader, rect: Rect) -> bool {
        let bytes = rect.rows * rect.cols * header.element.bytes();
        let depth = || depth(header, rect, self.slab_bytes);
        header.stack > 1
            || (bytes <= self.tile_bytes
                && resident_bytes(header, rect, depth()) <= self.resident_bytes)
    }
}

/// How many inner indices a slab of `rect` covers so that its panels take at most `budget` bytes:
/// all of them if they fit or the job is a stack, else whole blocks if at least one fits, else the largest
/// power of two that fits. So no slab reaches into one more block than it must.
pub fn depth(header: &JobHeader, rect: Rect, budget: u64) -> u64 {
    let inner = header.a.cols;
    if header.stack > 1 {
        return inner;
    }
    let each = rect.rows * header.a.element.bytes() + rect.cols * header.b.element.bytes();
    let fit = (budget / each).max(1);
    if fit >= inner {
        return inner;
    }
    let (a, b) = (
        header.a.grid().block_cols(),
        header.b.grid().block_rows().min(inner.next_power_of_two()),
    );
    // Block edges are powers of two, so a multiple of the longer one is one of the shorter too.
    for unit in [a.max(b), a.min(b)] {
        if fit >= unit {
            return fit - fit % unit;
        }
    }
    1 << fit.ilog2()
}

/// The most bytes of blocks that any slab of `rect` keeps present at once. Cost: constant.
pub fn resident_bytes(header: &JobHeader, rect: Rect, depth: u64) -> u64 {
    // Elements of the blocks that a range touches, along one dimension of `whole` elements.
    let covered = |from: u64, length: u64, edge: u64, whole: u64| {
        let end = (from + length).min(whole).next_multiple_of(edge).min(whole);
        end - from / edge * edge
    };
    let deep = |edge: u64, whole: u64| {
        // Slabs begin at multiples of their depth.
        let straddles = !depth.is_multiple_of(edge) && !edge.is_multiple_of(depth);
        let blocks = depth.div_ceil(edge) + u64::from(straddles);
        blocks.saturating_mul(edge).min(whole)
    };
    let (a, b) = (&header.a, &header.b);
    let (grid_a, grid_b) = (a.grid(), b.grid());
    let a_bytes = covered(rect.row, rect.rows, grid_a.block_rows(), a.rows)
        .saturating_mul(deep(grid_a.block_cols(), a.cols))
        .saturating_mul(a.element.bytes());
    let b_rows = match header.span(rect) {
        None => deep(grid_b.block_rows(), b.rows),
        Some(span) => {
            let each = header.a.cols;
            covered(
                span.first * each,
                span.products * each,
                grid_b.block_rows(),
                b.rows,
            )
        }
    };
    let b_bytes = b_rows
        .saturating_mul(covered(rect.col, rect.cols, grid_b.block_cols(), b.cols))
        .saturating_mul(b.element.bytes());
    a_bytes.saturating_add(b_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::JobId;
    use crate::job::KernelClass;
    use crate::matrix::{Dtype, ElementType, Grid, Manifest};
    use crate::plan;

    proptest! {
        #[test]
        fn no_slab_needs_more_blocks_than_is_said(
            m in 1u64..3_000, k in 1u64..3_000, n in 1u64..3_000, budget in 12u32..23, limit in 19u32..23,
        ) {
            let element = ElementType { dtype: Dtype::F64, limbs: 1 };
            let manifest = |name: &str, rows, cols| Manifest {
                element,
                bits: 0,
                rows,
                cols,
                blocks: (0..Grid::new(rows, cols, element).len())
                    .map(|block| BlockId::of(format!("{name} {block}").as_bytes()))
                    .collect(),
            };
            let (a, b) = (manifest("a", m, k), manifest("b", k, n));
            let header = JobHeader {
                job: JobId([0; 16]),
                name: String::new(),
                class: KernelClass::Any,
                tiling: plan::tiling_within(&a, &b, element, 2, 1 << limit),
                a,
                b,
                element,
                stack: 1,
                batch: None,
                guard: None,
                share: None,
            };
            for tile in [0, header.tiling.len() / 2, header.tiling.len() - 1] {
                let rect = header.tiling.rect(tile);
                let depth = depth(&header, rect, 1 << budget);
                let said = resident_bytes(&header, rect, depth);
                let mut from = 0;
                while from < k {
                    let slab = Slab::new(&header, rect, from, depth);
                    let blocks = slab.blocks();
                    let bytes = blocks.values().map(|(operand, block)| {
                        header.manifest(*operand).grid().block_bytes(u64::from(*block))
                    });
                    prop_assert!(bytes.sum::<u64>() <= said);
                    from = slab.to;
                }
            }
        }
    }
}
