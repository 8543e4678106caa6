//! Products over a field of less than 2^12 elements, of residues that are 16-bit numbers already: one product
//! of pairs, whose sums are reduced once for each block of k.

use alloc::vec::Vec;

use super::{CHAIN, Layout, Panels, SPARE, aligned, blocks, kernel, multiply};
use crate::arch::pairs::{Out, Reduction};
use crate::arch::widest;
use crate::matrix::{KernelError, resize};

/// Primes are below this.
pub(crate) const PRIME_LIMIT: u32 = 1 << 12;

// Products of canonical residues, and what is left of the block before: at most 0.6·p.
const _: () = {
    let half = PRIME_LIMIT as u64 / 2 - 1;
    assert!(CHAIN as u64 * half * half + 2 * half < 1 << 31);
};

/// Buffers for such products.
#[derive(Debug, Default)]
pub(crate) struct FieldProduct {
    a: Vec<u32>,
    b: Vec<u32>,
    c: Vec<u32>,
}

impl FieldProduct {
    /// `c = a·b mod p`, canonical, for row-major canonical residues of rows × inner and inner × cols; the
    /// slices are as long as that says.
    pub(crate) fn multiply(
        &mut self,
        p: u32,
        a: &[i16],
        b: &[i16],
        [rows, inner, cols]: [usize; 3],
        c: &mut [i16],
    ) -> Result<(), KernelError> {
        if rows == 0 || inner == 0 || cols == 0 {
            c.fill(0);
            return Ok(());
        }
        let kernel = kernel();
        let layout = Layout::new(&kernel, rows, cols);
        resize(&mut self.c, layout.len(), 0)?;
        let out = Out::Low(Reduction {
            p: p as i32,
            inverse: 1.0 / p as f32,
        });
        for (start, depth) in blocks(inner) {
            let pairs = depth.div_ceil(2);
            let left = Panels::new(rows, kernel.mr, pairs);
            let right = Panels::new(cols, kernel.nr, pairs);
            resize(&mut self.a, left.stride.saturating_add(SPARE), 0)?;
            resize(&mut self.b, right.stride.saturating_add(SPARE), 0)?;
            let (to_a, to_b) = (aligned(&mut self.a), aligned(&mut self.b));
            pack_rows(a, (inner, start, depth), left, to_a);
            pack_columns(&b[start * cols..(start + depth) * cols], cols, right, to_b);
            let load = start > 0;
            multiply(
                &kernel,
                (to_a, left),
                (to_b, right),
                (&mut self.c, layout),
                load,
                out,
            );
        }
        for (row, col, part) in layout.parts(0, layout.len(), rows) {
            let from = &self.c[row_start(&layout, row, col)..][..part.len()];
            canonical(p, from, &mut c[row * cols + col..][..part.len()]);
        }
        Ok(())
    }
}

/// Where the elements of a row from a panel's first column on lie in a plane of C.
fn row_start(layout: &Layout, row: usize, col: usize) -> usize {
    (col / layout.width * layout.rows + row) * layout.width
}

/// Two numbers in one element.
#[inline(always)]
fn pair(low: i16, high: i16) -> u32 {
    u32::from(low as u16) | u32::from(high as u16) << 16
}

/// The panels of A: of each row the pairs of `depth` elements from `start` on.
fn pack_rows(
    a: &[i16],
    (inner, start, depth): (usize, usize, usize),
    panels: Panels,
    to: &mut [u32],
) {
    let Panels { width, pairs, .. } = panels;
    let rows = a.len() / inner;
    for (panel, to) in to
        .chunks_exact_mut(width * pairs)
        .take(panels.count)
        .enumerate()
    {
        for lane in 0..width {
            let row = panel * width + lane;
            if row >= rows {
                to.iter_mut()
                    .skip(lane)
                    .step_by(width)
                    .for_each(|to| *to = 0);
                continue;
            }
            let row = &a[row * inner + start..][..depth];
            let (both, last) = row.as_chunks::<2>();
            let mut places = to.iter_mut().skip(lane).step_by(width);
            for (&[low, high], to) in both.iter().zip(&mut places) {
                *to = pair(low, high);
            }
            if let (Some(to), &[low]) = (places.next(), last) {
                *to = pair(low, 0);
            }
        }
    }
}

/// The panels of B: of each two rows that follow each other the pairs of each column.
fn pack_columns(b: &[i16], cols: usize, panels: Panels, to: &mut [u32]) {
    let Panels { width, pairs, .. } = panels;
    for (panel, to) in to
        .chunks_exact_mut(width * pairs)
        .take(panels.count)
        .enumerate()
    {
        let first = panel * width;
        let used = width.min(cols - first);
        for (rows, to) in b.chunks(2 * cols).zip(to.chunks_exact_mut(width)) {
            let (low, high) = rows.split_at(cols);
            let (to, spare) = to.split_at_mut(used);
            spare.fill(0);
            let low = &low[first..first + used];
            match high.get(first..first + used) {
                Some(high) => interleave(low, high, to),
                None => to
                    .iter_mut()
                    .zip(low)
                    .for_each(|(to, &low)| *to = pair(low, 0)),
            }
        }
    }
}

widest! {
    fn interleave(low: &[i16], high: &[i16], to: &mut [u32]) {
        for (to, (&low, &high)) in to.iter_mut().zip(low.iter().zip(high)) {
            *to = pair(low, high);
        }
    }
}

widest! {
    /// Residues of at most 0.6·p in the low halves, one step from their place.
    fn canonical(p: u32, from: &[u32], to: &mut [i16]) {
        let (p, half) = (p as i16, (p / 2) as i16);
        for (to, &x) in to.iter_mut().zip(from) {
            let x = x as i16;
            let x = if x > half { x - p } else { x };
            *to = if x < -half { x + p } else { x };
        }
    }
}
