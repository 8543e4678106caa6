//! Two shares with opposite masks, and the product of the masks computed ahead:
//!
//! ```text
//! plus = (A + R)·(B + S)      minus = (A - R)·(B - S)      A·B = (plus + minus)/2 - R·S   (mod p)
//! ```
//!
//! This is the popular ± scheme made sound: entries are elements of a field, R and S are uniform in it, and a mask
//! is used for one product and then gone ([`Masks`] can not be copied, and [`Masks::share`] consumes it). Either
//! share alone is uniform, so it tells nothing about A and B. **Two devices that put their shares together know
//! everything**, A and B themselves: (plus + minus)/2. So the two shares of a product must never meet on one
//! device, and this scheme is no protection against colluders.
//!
//! Cost: two products of the size of A·B elsewhere, and here R·S of the same size, which may be taken while
//! nothing else is to do ([`Bank`]).

use alloc::vec::Vec;

use super::combine::{Field, combine};
use super::share::{self, Scratch};
use super::uniform::{self, Entropy};
use super::{Code, Decoding, Parameters, Scheme};
use crate::matrix::{KernelError, product, resize, same};

/// The scheme as a code of three shares: plus, minus, and the masks themselves. The third one and its answer stay at
/// home. All three answers are needed; there is one block and one mask for each factor.
///
/// # Errors
/// `OutOfMemory`.
pub fn code(field: Field) -> Result<Code, KernelError> {
    let half = field.canonical(field.prime().div_ceil(2));
    let mut coefficients = Vec::new();
    crate::matrix::reserve(&mut coefficients, 6)?;
    coefficients.extend([1, 1, 1, -1, 0, 1]);
    let mut weights = Vec::new();
    crate::matrix::reserve(&mut weights, 3)?;
    weights.extend([half, half, -1]);
    Ok(Code {
        field,
        // As many parts and answers as that one has.
        parameters: Parameters {
            scheme: Scheme::InnerProduct { parts: 1 },
            colluders: 1,
            spares: 0,
        },
        answers: 3,
        shares: 3,
        left: coefficients.clone(),
        right: coefficients,
        decoding: Decoding::All(weights),
        every_set: true,
    })
}

/// The masks of one product of rows × inner by inner × cols, and their product. Used once.
#[derive(Debug)]
pub struct Masks {
    field: Field,
    shape: [usize; 3],
    r: Vec<i16>,
    s: Vec<i16>,
    offset: Vec<i16>,
}

impl Masks {
    /// Draws masks and multiplies them. Cost: one product modulo p.
    ///
    /// # Errors
    /// `Entropy`; `OutOfMemory` or `Overflow`.
    pub fn draw(
        field: Field,
        shape: [usize; 3],
        entropy: &mut dyn Entropy,
        scratch: &mut Scratch,
    ) -> Result<Self, KernelError> {
        let [rows, inner, cols] = shape;
        let mut drawn = |len| {
            let mut mask = Vec::new();
            resize(&mut mask, len, 0)?;
            uniform::fill(&field, entropy, &mut mask)?;
            Ok::<_, KernelError>(mask)
        };
        let r = drawn(product("elements of A", &[rows, inner])?)?;
        let s = drawn(product("elements of B", &[inner, cols])?)?;
        let mut offset = Vec::new();
        resize(&mut offset, product("elements of C", &[rows, cols])?, 0)?;
        share::multiply(&field, &r, &s, shape, &mut offset, scratch)?;
        Ok(Self {
            field,
            shape,
            r,
            s,
            offset,
        })
    }

    /// Rows of A, the inner dimension, columns of B.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Writes both shares of A and of B, row-major and canonical, and gives back what the result needs. The
    /// masks are gone, also after an error.
    ///
    /// # Errors
    /// `Shape` if a length is not right.
    pub fn share(
        self,
        a: &[i16],
        b: &[i16],
        a_shares: [&mut [i16]; 2],
        b_shares: [&mut [i16]; 2],
    ) -> Result<Offset, KernelError> {
        let both = [1, 1, 1, -1];
        for (x, mask, mut shares) in [(a, &self.r, a_shares), (b, &self.s, b_shares)] {
            same("elements of a factor", mask.len(), x.len())?;
            combine(&self.field, &both, &[x, mask], &mut shares)?;
        }
        Ok(Offset {
            field: self.field,
            offset: self.offset,
        })
    }
}

/// The product of the masks of two shares.
#[derive(Debug)]
pub struct Offset {
    field: Field,
    offset: Vec<i16>,
}

impl Offset {
    /// `to = (plus + minus)/2 - R·S`, canonical. Answers are row-major residues of magnitude at most 2^14.
    ///
    /// # Errors
    /// `Shape` if a length is not that of C.
    pub fn result(&self, plus: &[i16], minus: &[i16], to: &mut [i16]) -> Result<(), KernelError> {
        let half = self.field.canonical(self.field.prime().div_ceil(2));
        combine(
            &self.field,
            &[half, half, -1],
            &[plus, minus, &self.offset],
            &mut [to],
        )
    }
}

/// Masks that were drawn ahead, all of one shape and field.
#[derive(Debug)]
pub struct Bank {
    field: Field,
    shape: [usize; 3],
    size: usize,
    entries: Vec<Masks>,
    drawn_late: u64,
}

impl Bank {
    /// An empty bank for at most `size` entries.
    pub fn new(field: Field, shape: [usize; 3], size: usize) -> Self {
        Self {
            field,
            shape,
            size,
            entries: Vec::new(),
            drawn_late: 0,
        }
    }

    /// Entries that are there.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the next entry has to be drawn first.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How often [`Self::take`] had to draw, because the bank was empty.
    pub fn drawn_late(&self) -> u64 {
        self.drawn_late
    }

    /// Draws one entry ahead, unless the bank is full; says whether it did.
    ///
    /// # Errors
    /// As [`Masks::draw`].
    pub fn refill(
        &mut self,
        entropy: &mut dyn Entropy,
        scratch: &mut Scratch,
    ) -> Result<bool, KernelError> {
        if self.entries.len() >= self.size {
            return Ok(false);
        }
        let entry = Masks::draw(self.field, self.shape, entropy, scratch)?;
        crate::matrix::push(&mut self.entries, entry)?;
        Ok(true)
    }

    /// An entry, which is then no longer in the bank; drawn now if there is none.
    ///
    /// # Errors
    /// As [`Masks::draw`].
    pub fn take(
        &mut self,
        entropy: &mut dyn Entropy,
        scratch: &mut Scratch,
    ) -> Result<Masks, KernelError> {
        if let Some(entry) = self.entries.pop() {
            return Ok(entry);
        }
        self.drawn_late += 1;
        Masks::draw(self.field, self.shape, entropy, scratch)
    }
}
