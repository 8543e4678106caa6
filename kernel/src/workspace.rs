//! Memory for the packed blocks of the products in floats.

use alloc::vec::Vec;

use crate::matrix::{KernelError, product, resize};
use crate::microkernel::{Blocking, MAX_TILE};
use crate::scalar::{Class, Scalar, kernel};

/// Memory for the packed blocks, used again by later products. Grows to what the largest product
/// needed, at most about (NC + MC)·KC elements of the kernel in use.
#[derive(Debug, Default)]
pub struct Workspace {
    lines: Vec<Line>,
}

/// One cache line, for the alignment.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Workspace {
    /// An empty workspace; the first product allocates.
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// The bytes it holds now.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// Three disjoint regions of at least the given elements, each at the start of a cache line.
    pub(crate) fn regions<T: Scalar>(
        &mut self,
        lens: [usize; 3],
    ) -> Result<[*mut T; 3], KernelError> {
        let mut starts = [0; 3];
        let mut total = 0usize;
        for (start, len) in starts.iter_mut().zip(lens) {
            let lines =
                product("packed block", &[len, size_of::<T>()])?.div_ceil(size_of::<Line>());
            *start = total;
            total = total.checked_add(lines).ok_or(KernelError::Overflow {
                what: "packed blocks",
            })?;
        }
        if total > self.lines.len() {
            resize(&mut self.lines, total, Line([0; 64]))?;
        }
        let base = self.lines.as_mut_ptr();
        // SAFETY: every start is at most `total`, the length of the allocation.
        Ok(starts.map(|start| unsafe { base.add(start) }.cast::<T>()))
    }
}

/// The bytes that a [`Workspace`] holds at most for products in this type and class up to these sizes.
pub fn workspace_bytes<T: Scalar>(class: Class, rows: usize, inner: usize, cols: usize) -> usize {
    let Ok(kernel) = kernel::<T>(class) else {
        return 0;
    };
    // A product into a column-major C runs transposed, so take the larger of both ways.
    [(rows, cols), (cols, rows)]
        .into_iter()
        .map(|(m, n)| {
            let Blocking { mc, kc, nc } = kernel.blocking;
            let rows = m.min(mc).next_multiple_of(kernel.mr);
            let deep = inner.min(kc);
            let whole = n.div_ceil(kernel.nr).saturating_mul(kernel.nr);
            let b = (nc.next_multiple_of(kernel.nr) * kc).min(whole.saturating_mul(deep));
            let elements = rows * deep + b + MAX_TILE;
            elements * size_of::<T>() + 3 * size_of::<Line>()
        })
        .max()
        .unwrap_or(0)
}
