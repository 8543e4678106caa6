//! Tiles of stacks: many products of one shape in one tile.
//!
//! A is the rows of all the products one below the other, B and C too. Row i of C then belongs to the
//! product `i / each`, whose A has that very row, and whose B is the part of B of the same number. A tile
//! may begin and end in the middle of a product.

use alloc::vec::Vec;
use core::ops::Range;

use super::{Element, Method, TileProduct, TileSpec};
use crate::exact::ResidueProduct;
use crate::gemm::Class;
use crate::matrix::{KernelError, resize};

/// Which products the rows of a tile belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// Rows of each product, at least 1.
    pub each: usize,
    /// Rows of the tile's first product that lie above the tile: fewer than `each`.
    pub skip: usize,
}

impl Stack {
    /// Products that `rows` rows belong to. 0 for what [`TileProduct::reset_stack`] refuses.
    pub fn products(&self, rows: usize) -> usize {
        match self.each {
            0 => 0,
            each => rows.saturating_add(self.skip).div_ceil(each),
        }
    }

    /// The tile's rows of each of its products, in order.
    pub fn segments(self, rows: usize) -> impl Iterator<Item = Range<usize>> {
        (0..self.products(rows)).map(move |product| {
            let start = (product * self.each).saturating_sub(self.skip);
            let end = ((product + 1) * self.each - self.skip).min(rows);
            start..end
        })
    }
}

impl TileProduct {
    /// Starts a tile of a stack: `spec.rows` counts the rows of all its products. There is one slab, of
    /// the whole inner dimension, and `put_b` takes the parts of B of all its products, one below the
    /// other.
    ///
    /// # Errors
    /// As [`Self::reset`]; `Shape` for products without rows, or when the first product ends above the
    /// tile.
    pub fn reset_stack(&mut self, spec: TileSpec, stack: Stack) -> Result<(), KernelError> {
        if stack.skip >= stack.each {
            return Err(KernelError::Shape {
                what: "rows above the tile (limit: those of a product)",
                expected: stack.each,
                found: stack.skip,
            });
        }
        spec.check()?;
        if matches!(spec.element, Element::Residues { .. }) {
            return Err(KernelError::Range {
                what: "element of a stack (no residues)",
            });
        }
        // The way of computing is chosen for one product, not for all of them.
        self.restart(spec, Method::of(&one(&spec, stack)))?;
        self.stack = Some(stack);
        Ok(())
    }

    /// The bytes that this tile holds at most with slabs of depth `k`; saturating. For a tile of a stack
    /// that is one product at work, and all of A, B and C.
    pub fn memory_bytes(&self, k: usize) -> usize {
        let Some(stack) = self.stack else {
            return self.spec.memory_bytes(k);
        };
        let TileSpec { rows, cols, .. } = self.spec;
        let [a, b, c] = self.spec.element.bytes();
        let slabs = [
            [rows, k, a.max(8)],
            [self.products().saturating_mul(k), cols, b.max(8)],
            [rows, cols, c.saturating_mul(2)],
        ];
        let slabs = slabs.map(|sizes| sizes.into_iter().fold(1, usize::saturating_mul));
        let one = one(&self.spec, stack).memory_bytes(k);
        slabs.into_iter().fold(one, usize::saturating_add)
    }

    /// Products that the tile belongs to.
    pub(super) fn products(&self) -> usize {
        self.stack.map_or(1, |stack| stack.products(self.spec.rows))
    }

    /// One product after the other.
    pub(super) fn accumulate_stack(&mut self, stack: Stack) -> Result<(), KernelError> {
        let TileSpec {
            rows, cols, class, ..
        } = self.spec;
        let k = self.depth;
        if matches!(self.method, Method::Residues(_)) {
            resize(&mut self.stacked, self.spec.result_bytes(), 0)?;
        }
        for (product, segment) in stack.segments(rows).enumerate() {
            let a = segment.start * k..segment.end * k;
            let b = product * k * cols..(product + 1) * k * cols;
            let c = segment.start * cols..segment.end * cols;
            let shape = (segment.len(), k, cols);
            let space = &mut self.workspace;
            match self.method {
                Method::F64 => self.doubles.part(class, (a, b, c), shape, space)?,
                Method::F32 => self.singles.part(class, (a, b, c), shape, space)?,
                Method::Direct(_) => self.doubles.part(Class::Any, (a, b, c), shape, space)?,
                Method::Planes(_) => unreachable!("refused at the start"),
                Method::Residues(sizes) => {
                    let sizes = crate::exact::Sizes {
                        rows: segment.len(),
                        ..sizes
                    };
                    let residues = match &mut self.residues {
                        Some(residues) => {
                            residues.reset(sizes)?;
                            residues
                        }
                        none => none.insert(ResidueProduct::new(sizes)?),
                    };
                    let limbs = |range: Range<usize>, n: usize| range.start * n..range.end * n;
                    let left = &self.limbs_a[limbs(a, sizes.a_limbs)];
                    let right = &self.limbs_b[limbs(b, sizes.b_limbs)];
                    residues.accumulate(left, right, k, space)?;
                    let bytes = limbs(c, 8 * sizes.c_limbs);
                    residues.finish(&mut self.stacked[bytes], space)?;
                }
            }
        }
        Ok(())
    }

    /// The bytes of C that a stack of integers has made.
    pub(super) fn take_stacked(&mut self) -> Option<Vec<u8>> {
        let residues = matches!(self.method, Method::Residues(_));
        (residues && self.stack.is_some()).then(|| core::mem::take(&mut self.stacked))
    }
}

/// One product of the stack.
fn one(spec: &TileSpec, stack: Stack) -> TileSpec {
    TileSpec {
        rows: stack.each.min(spec.rows),
        ..*spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_belong_to_their_products() {
        check(3, 0, 9, &[0..3, 3..6, 6..9]);
        check(3, 2, 5, &[0..1, 1..4, 4..5]);
        check(100, 7, 20, std::slice::from_ref(&(0..20)));
        check(1, 0, 2, &[0..1, 1..2]);
    }

    fn check(each: usize, skip: usize, rows: usize, expected: &[Range<usize>]) {
        let stack = Stack { each, skip };
        let segments: Vec<_> = stack.segments(rows).collect();
        assert_eq!(segments, expected);
        assert_eq!(stack.products(rows), expected.len());
    }
}
