//! How a tile is computed in slabs over the inner dimension, and which blocks a slab needs.

use std::collections::BTreeMap;

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

/// How many inner indices a slab of `rect` covers so that its panels take at most `budget` bytes:
/// all of them if they fit or the job is a stack, else whole blocks if at least one fits, else what
/// fits.
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
    fit
}

/// The most bytes of blocks that any slab of `rect` keeps present at once. Cost: constant.
pub fn resident_bytes(header: &JobHeader, rect: Rect, depth: u64) -> u64 {
    let covered = |length: u64, edge: u64, whole: u64| {
        // A range of `length` touches at most this many blocks of `edge`.
        let blocks = length.div_ceil(edge).saturating_add(1);
        blocks
            .saturating_mul(edge)
            .min(whole.next_multiple_of(edge))
            .min(whole)
    };
    let (a, b) = (&header.a, &header.b);
    let (grid_a, grid_b) = (a.grid(), b.grid());
    let a_bytes = covered(rect.rows, grid_a.block_rows(), a.rows)
        .saturating_mul(covered(depth, grid_a.block_cols(), a.cols))
        .saturating_mul(a.element.bytes());
    let b_rows = header
        .span(rect)
        .map_or(depth, |span| span.products.saturating_mul(depth));
    let b_bytes = covered(b_rows, grid_b.block_rows(), b.rows)
        .saturating_mul(covered(rect.cols, grid_b.block_cols(), b.cols))
        .saturating_mul(b.element.bytes());
    a_bytes.saturating_add(b_bytes)
}
