//! The check of a tile of a stack: each product by itself, with a vector of its own.

use gemmesh_kernel::KernelError;
use gemmesh_kernel::tile::Element;
use gemmesh_protocol::stack::Span;

use super::*;

/// Parts of blocks with their bytes.
type Parts = Vec<(Bytes, Part)>;

impl Verifier {
    /// Freivalds' test of all products that `rect` belongs to. Cost: 2·(rows·inner + rows·cols +
    /// products·inner·cols) operations.
    pub(super) async fn project_stack(
        &self,
        rect: Rect,
        span: Span,
        bytes: &Bytes,
    ) -> Result<Verdict, VerifyError> {
        let slab = Slab::new(&self.header, rect, 0, self.header.a.cols);
        let (mut a, mut b): (Parts, Parts) = (Vec::new(), Vec::new());
        for (_, part) in slab.a {
            a.push((self.store.read_block(self.a, part.index).await?, part));
        }
        for (_, part) in slab.b {
            b.push((self.store.read_block(self.b, part.index).await?, part));
        }
        let element = self.spec(rect).element;
        let (inner, cols) = (self.header.a.cols as usize, rect.cols as usize);
        let row_bytes = bytes.len() / rect.rows as usize;
        let stack = compute::stack(span);
        let bytes = bytes.clone();
        let seed: [u8; 32] = os::random();
        let work = tokio::task::spawn_blocking(move || {
            let mut all = Verdict::Accepted;
            for (product, rows) in stack.segments(rect.rows as usize).enumerate() {
                let mut seed = seed;
                // No two products have the same vector: half of the seed stays secret in all.
                for (byte, number) in seed.iter_mut().zip((product as u64).to_le_bytes()) {
                    *byte ^= number;
                }
                let panel = clipped(&b, product * inner..(product + 1) * inner);
                let band = clipped(&a, rows.clone());
                let tile = &bytes[rows.start * row_bytes..rows.end * row_bytes];
                let shape = (rows.len(), inner, cols);
                match check(element, shape, &band, &panel, tile, seed)? {
                    Verdict::Accepted => {}
                    Verdict::Undecided => all = Verdict::Undecided,
                    Verdict::Rejected => return Ok(Verdict::Rejected),
                }
            }
            Ok::<_, VerifyError>(all)
        });
        work.await.map_err(|_| StoreError::Closed)?
    }
}

/// The test of some rows of one product.
fn check(
    element: Element,
    (rows, inner, cols): (usize, usize, usize),
    a: &[(&Bytes, Part)],
    b: &[(&Bytes, Part)],
    tile: &[u8],
    seed: [u8; 32],
) -> Result<Verdict, KernelError> {
    let mut probe = Probe::new(element, inner, cols, seed)?;
    loop {
        for (block, part) in b {
            probe.project_b(block, compute::placement(part))?;
        }
        if !probe.second_pass() {
            break;
        }
    }
    let mut check = RowCheck::new(&probe, rows)?;
    for (block, part) in a {
        check.project_a(block, compute::placement(part))?;
    }
    check.verdict(tile)
}

/// What of `parts` is in these rows, counted from the first of them.
fn clipped(parts: &Parts, rows: std::ops::Range<usize>) -> Vec<(&Bytes, Part)> {
    let clip = |part: &Part| {
        let from = rows.start.max(part.dst_row as usize);
        let to = rows.end.min((part.dst_row + part.rows) as usize);
        (from < to).then(|| Part {
            src_row: part.src_row + (from as u32 - part.dst_row),
            rows: (to - from) as u32,
            dst_row: (from - rows.start) as u32,
            ..*part
        })
    };
    let clipped = parts.iter().map(|(block, part)| (block, clip(part)));
    clipped
        .filter_map(|(block, part)| Some((block, part?)))
        .collect()
}
