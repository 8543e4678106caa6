//! From a factor to its shares, band by band: memory does not depend on the size of the factor.

use gemmesh_kernel::KernelError;
use gemmesh_kernel::coding::{Side, residues, uniform};
use gemmesh_protocol::matrix::{Dtype, Grid};
use gemmesh_protocol::tile::Rect;

use super::{Cut, Shared, System, kernel, scale};
use crate::error::ApiError;
use crate::files::{Sink as _, Source as _};
use crate::store::{Draft, MatrixFile};

/// What a band may take, about.
const BAND_BYTES: u64 = 24 << 20;

/// Writes all shares of a factor: each row by row, each element its residues modulo all primes.
pub(super) fn encode(
    shared: &Shared,
    side: Side,
    mut source: MatrixFile,
    drafts: &mut [Draft],
) -> Result<(), ApiError> {
    let cut = shared.cuts[usize::from(side == Side::Right)];
    let element = shared.element();
    for draft in &mut *drafts {
        draft.begin(cut.part_rows, cut.part_cols, element)?;
    }
    let planes =
        (cut.down * cut.across) + u64::from(shared.guard.colluders) + 2 * drafts.len() as u64;
    let row_bytes = cut.part_cols * element.bytes() * planes;
    // Whole blocks, if that many rows fit.
    let edge = Grid::new(cut.part_rows, cut.part_cols, element).block_rows();
    let fit = (BAND_BYTES / row_bytes).max(1);
    let step = if fit >= edge {
        fit - fit % edge
    } else {
        1 << fit.ilog2()
    };
    let mut band = Band::default();
    for row in (0..cut.part_rows).step_by(step as usize) {
        let rows = step.min(cut.part_rows - row);
        band.read(shared, side, cut, &mut source, row, rows)?;
        band.share(shared, side, cut, rows, drafts.len())
            .map_err(kernel)?;
        let rect = Rect {
            row,
            col: 0,
            rows,
            cols: cut.part_cols,
        };
        for (draft, bytes) in drafts.iter_mut().zip(&band.bytes) {
            draft.write(rect, bytes)?;
        }
    }
    Ok(())
}

/// The same rows of all parts of a factor.
#[derive(Default)]
struct Band {
    read: Vec<u8>,
    integers: Vec<u64>,
    /// For each prime and part the residues of these rows.
    parts: Vec<Vec<Vec<i16>>>,
    /// The bytes of these rows of each share.
    bytes: Vec<Vec<u8>>,
}

impl Band {
    fn read(
        &mut self,
        shared: &Shared,
        side: Side,
        cut: Cut,
        source: &mut MatrixFile,
        first: u64,
        rows: u64,
    ) -> Result<(), ApiError> {
        let primes = shared.fields.len();
        let len = (rows * cut.part_cols) as usize;
        let count = (cut.down * cut.across) as usize;
        self.parts = vec![vec![vec![0; len]; count]; primes];
        for part in 0..count as u64 {
            let (row, col) = (
                part / cut.across * cut.part_rows + first,
                part % cut.across * cut.part_cols,
            );
            if row >= cut.rows || col >= cut.cols {
                continue;
            }
            let rect = Rect {
                row,
                col,
                rows: rows.min(cut.rows - row),
                cols: cut.part_cols.min(cut.cols - col),
            };
            source.read(rect, &mut self.read)?;
            let limbs = self.integers(shared, side, source, rect);
            let elements = (rect.rows * rect.cols) as usize;
            let mut planes = vec![vec![0i16; elements]; primes];
            let mut slices: Vec<&mut [i16]> = planes.iter_mut().map(Vec::as_mut_slice).collect();
            residues::from_integers(&shared.fields, &self.integers, limbs, &mut slices)
                .map_err(kernel)?;
            for (plane, parts) in planes.into_iter().zip(&mut self.parts) {
                let to = &mut parts[part as usize];
                if elements == len {
                    *to = plane;
                    continue;
                }
                let width = rect.cols as usize;
                let lines = to.chunks_exact_mut(cut.part_cols as usize);
                for (to, from) in lines.zip(plane.chunks_exact(width)) {
                    to[..width].copy_from_slice(from);
                }
            }
        }
        Ok(())
    }

    /// What was read as integers; how many limbs each has.
    fn integers(&mut self, shared: &Shared, side: Side, source: &MatrixFile, rect: Rect) -> usize {
        let element = source.manifest.element;
        self.integers.clear();
        if element.dtype == Dtype::Int {
            let words = self.read.as_chunks().0.iter();
            self.integers
                .extend(words.map(|word| u64::from_le_bytes(*word)));
            return element.limbs.into();
        }
        let scales = &shared.scales[usize::from(side == Side::Right)];
        let (start, len) = match side {
            Side::Left => (rect.row, rect.rows),
            Side::Right => (rect.col, rect.cols),
        };
        let used = scales[start as usize..(start + len) as usize].iter();
        let used: Vec<[f64; 2]> = used
            .map(|&exponent| scale::factors(exponent, shared.guard.bits_kept))
            .collect();
        let width = rect.cols as usize;
        let floats = scale::floats(element.dtype, &self.read).enumerate();
        self.integers.extend(floats.map(|(at, x)| {
            let place = match side {
                Side::Left => at / width,
                Side::Right => at % width,
            };
            scale::integer(x, used[place])
        }));
        1
    }

    /// The shares of these rows.
    fn share(
        &mut self,
        shared: &Shared,
        side: Side,
        cut: Cut,
        rows: u64,
        count: usize,
    ) -> Result<(), KernelError> {
        let (primes, len) = (shared.fields.len(), (rows * cut.part_cols) as usize);
        let width = 2 * primes;
        self.bytes.resize_with(count, Vec::new);
        for bytes in &mut self.bytes {
            bytes.resize(len * width, 0);
        }
        let colluders = shared.codes[0].parameters().colluders;
        let mut masks = vec![vec![0i16; len]; colluders];
        let mut shares = vec![vec![0i16; len]; count];
        for (q, (code, parts)) in shared.codes.iter().zip(&self.parts).enumerate() {
            // For this factor, prime and part of the product alone.
            for mask in &mut masks {
                uniform::fill(code.field(), &mut System, mask)?;
            }
            let blocks: Vec<&[i16]> = parts.iter().map(Vec::as_slice).collect();
            let drawn: Vec<&[i16]> = masks.iter().map(Vec::as_slice).collect();
            let mut to: Vec<&mut [i16]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
            code.encode(side, &blocks, &drawn, &mut to)?;
            for (bytes, share) in self.bytes.iter_mut().zip(&shares) {
                let elements = bytes.chunks_exact_mut(width);
                for (to, x) in elements.zip(share) {
                    to[2 * q..][..2].copy_from_slice(&x.to_le_bytes());
                }
            }
        }
        Ok(())
    }
}
