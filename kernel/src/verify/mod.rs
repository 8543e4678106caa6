//! Is C = A·B? Freivalds' check with a secret random vector, on the same parts of blocks that
//! [`crate::tile`] takes, so that nobody needs a whole matrix in memory.
//!
//! ```text
//! y = B·x   once for the columns of a panel     Probe::project_b
//! v = A·y   once for the rows of a tile         RowCheck::project_a
//! C·x = v ?                                     RowCheck::verdict
//! ```
//!
//! Cost: one pass over B per panel, one over A and one over C per tile: 2·(inner·cols + rows·inner +
//! rows·cols) multiply-adds, against rows·inner·cols for the product.
//!
//! # Integers
//!
//! Everything is taken modulo a prime p between 2^60 and 2^61 that is drawn together with x and as
//! secret: with a known modulus a liar could add it to an element unseen. A wrong tile with elements
//! of L limbs passes with probability at most (1.07·L + 1)·2^-54 + 2^-60: the first part is the chance
//! that p divides the difference, the second that x is orthogonal to it.
//!
//! # Residues
//!
//! Modulo each prime p there are ⌈60/log2 p⌉ secret vectors with uniform elements, so a wrong tile passes with a
//! probability of at most 2^-60; residues that are not canonical are wrong.
//!
//! # Floating point
//!
//! x has random signs and magnitudes in 0.5 to 1.5. With u the unit roundoff of the elements and
//! γ(n) = n·u/(1 − n·u), a chain of n multiply-adds is off by at most γ(n)·Σ|a||b|, fused or not
//! (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., §3.1). So an honest C satisfies
//! in each row, with all products and sums of the check in `f64` (unit roundoff v):
//!
//! ```text
//! |C·x - A·y| <= γ_v(cols)·|C||x| + (γ_u(inner) + γ_v(cols) + γ_v(inner))·|A||B||x| + underflow
//! ```
//!
//! The code takes each n 16 larger and the whole 2 % larger, for the rounding of the bound itself.
//! No honest product of any class, instance or slab depth is rejected. A lie is seen when its effect
//! on a row, |Δ·x|, is more than twice the bound; for a single wrong element |Δ·x| >= |Δ|/2. In `f64`
//! with inner = cols = 1,000 a single element is caught when it is off by about 10^-12 of its row's
//! |A||B||x|, in `f32` by about 3·10^-4. Smaller lies pass: an honest worker may be off by that much.
//! Two equal and opposite errors ±Δ in a row are seen unless the two elements of x are closer to each
//! other than 2·bound/|Δ|, which has at most that probability: x is drawn after the lie, its difference
//! of two elements has a density of at most 1/2.
//!
//! # NaN, infinities, overflow
//!
//! If a row of A or a column of B has a NaN or an infinity, the elements of C there can not be finite,
//! and with a NaN they are NaN: that is checked. Which kind of non-finite value an infinity gives is
//! not, and neither are other elements that only the product itself could tell (rows where finite
//! operands can overflow; all columns of a panel of B that has a non-finite column, until
//! [`Probe::second_pass`]). If nothing is wrong but something was not checked, the verdict is
//! [`Verdict::Undecided`]: whoever wants certainty computes that tile again.

mod float;
mod integer;
mod residues;

use core::ops::Deref;

use crate::matrix::KernelError;
use crate::random::ChaCha;
use crate::tile::{Element, Placement};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// C is the product (up to rounding, for floats).
    Accepted,
    /// C is not the product. An honest worker's C never gets this.
    Rejected,
    /// Nothing wrong was found, but not all of C could be checked; see [`crate::verify`].
    Undecided,
}

/// The secret vector x for one panel of columns, and y = B·x. Serves every tile of the panel.
#[derive(Debug)]
pub struct Probe {
    inner: usize,
    cols: usize,
    projected: usize,
    element: Element,
    kind: ProbeKind,
}

#[derive(Debug)]
enum ProbeKind {
    Float(float::Probe),
    Integer(integer::Probe),
    Residues(residues::Probe),
}

impl Probe {
    /// Draws x for `cols` columns. `seed` must be random and secret: who knows it can lie unseen.
    ///
    /// # Errors
    /// `OutOfMemory`. Memory: 16 bytes (integers: 8) per unit of `inner`, about as much per column.
    pub fn new(
        element: Element,
        inner: usize,
        cols: usize,
        seed: [u8; 32],
    ) -> Result<Self, KernelError> {
        let random = ChaCha::new(seed);
        let kind = match element {
            Element::F64 | Element::F32 => {
                ProbeKind::Float(float::Probe::new(inner, cols, random)?)
            }
            Element::Int { .. } => ProbeKind::Integer(integer::Probe::new(inner, cols, random)?),
            Element::Residues { primes } => {
                ProbeKind::Residues(residues::Probe::new(primes.into(), inner, cols, random)?)
            }
        };
        Ok(Self {
            inner,
            cols,
            projected: 0,
            element,
            kind,
        })
    }

    /// The columns of the panel.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The inner dimension.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Takes a part of a block of B; `placement` is relative to all of inner × cols. Each element
    /// must be given once, in any order.
    ///
    /// # Errors
    /// `Shape` or `Overflow` if the part reaches outside the block or the panel.
    pub fn project_b(&mut self, block: &[u8], placement: Placement) -> Result<(), KernelError> {
        let extent = (self.inner, self.cols);
        let [_, bytes, _] = self.element.bytes();
        match &mut self.kind {
            ProbeKind::Float(probe) => probe.project_b(block, &placement, extent, bytes)?,
            ProbeKind::Integer(probe) => probe.project_b(block, &placement, extent, bytes)?,
            ProbeKind::Residues(probe) => probe.project_b(block, &placement, extent)?,
        }
        self.projected = self
            .projected
            .saturating_add(placement.rows * placement.cols);
        Ok(())
    }

    /// Whether all of B was projected.
    pub fn is_complete(&self) -> bool {
        self.projected == self.inner * self.cols
    }

    /// Whether B has columns with a NaN or an infinity that spoil the sums of the others. If so,
    /// these columns are taken out of x and y starts again from zero: project all of B once more,
    /// and the other columns are checked in full.
    pub fn second_pass(&mut self) -> bool {
        let again = match &mut self.kind {
            ProbeKind::Float(probe) => probe.exclude_columns(),
            ProbeKind::Integer(_) | ProbeKind::Residues(_) => false,
        };
        if again {
            self.projected = 0;
        }
        again
    }
}

/// The check of one tile: v = A·y for its rows. It holds its probe by any kind of reference.
#[derive(Debug)]
pub struct RowCheck<P> {
    probe: P,
    rows: usize,
    projected: usize,
    kind: RowKind,
}

#[derive(Debug)]
enum RowKind {
    Float(float::Rows),
    Integer(integer::Rows),
    Residues(residues::Rows),
}

impl<P: Deref<Target = Probe>> RowCheck<P> {
    /// A check of a tile of `rows` rows and all columns of the probe.
    ///
    /// # Errors
    /// `OutOfMemory`; `Incomplete` if the probe has not seen all of B.
    pub fn new(probe: P, rows: usize) -> Result<Self, KernelError> {
        if !probe.is_complete() {
            return Err(KernelError::Incomplete {
                what: "projection of B",
            });
        }
        let kind = match &probe.kind {
            ProbeKind::Float(_) => RowKind::Float(float::Rows::new(rows)?),
            ProbeKind::Integer(_) => RowKind::Integer(integer::Rows::new(rows)?),
            ProbeKind::Residues(probe) => RowKind::Residues(residues::Rows::new(probe, rows)?),
        };
        Ok(Self {
            probe,
            rows,
            projected: 0,
            kind,
        })
    }

    /// The probe that it was made with.
    pub fn probe(&self) -> &P {
        &self.probe
    }

    /// Takes a part of a block of A; `placement` is relative to the tile's rows and all of inner.
    /// Each element must be given once, in any order.
    ///
    /// # Errors
    /// `Shape` or `Overflow` if the part reaches outside the block or the rows.
    pub fn project_a(&mut self, block: &[u8], placement: Placement) -> Result<(), KernelError> {
        let extent = (self.rows, self.probe.inner);
        let [bytes, _, _] = self.probe.element.bytes();
        match (&mut self.kind, &self.probe.kind) {
            (RowKind::Float(rows), ProbeKind::Float(probe)) => {
                rows.project_a(probe, block, &placement, extent, bytes)?;
            }
            (RowKind::Integer(rows), ProbeKind::Integer(probe)) => {
                rows.project_a(probe, block, &placement, extent, bytes)?;
            }
            (RowKind::Residues(rows), ProbeKind::Residues(probe)) => {
                rows.project_a(probe, block, &placement, extent)?;
            }
            _ => unreachable!("both were made from the probe's element"),
        }
        self.projected = self
            .projected
            .saturating_add(placement.rows * placement.cols);
        Ok(())
    }

    /// Compares the bytes of C (as from [`crate::tile::TileProduct::finish`]) with v.
    ///
    /// # Errors
    /// `Incomplete` if not all of A was projected, `OutOfMemory`. Wrong lengths are `Rejected`.
    pub fn verdict(&self, c_bytes: &[u8]) -> Result<Verdict, KernelError> {
        if self.projected != self.rows * self.probe.inner {
            return Err(KernelError::Incomplete {
                what: "projection of A",
            });
        }
        let [_, _, element_bytes] = self.probe.element.bytes();
        let row_bytes = self.probe.cols * element_bytes;
        if c_bytes.len() != self.rows * row_bytes {
            return Ok(Verdict::Rejected);
        }
        match (&self.kind, &self.probe.kind) {
            (RowKind::Float(rows), ProbeKind::Float(probe)) => {
                Ok(rows.verdict(probe, c_bytes, row_bytes, element_bytes, self.probe.inner))
            }
            (RowKind::Integer(rows), ProbeKind::Integer(probe)) => {
                rows.verdict(probe, c_bytes, row_bytes, element_bytes)
            }
            (RowKind::Residues(rows), ProbeKind::Residues(probe)) => {
                rows.verdict(probe, c_bytes, row_bytes)
            }
            _ => unreachable!("both were made from the probe's element"),
        }
    }
}
