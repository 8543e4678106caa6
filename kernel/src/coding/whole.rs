//! A whole product of integers by shares: primes, parts, masks, shares; answers, parts, integers.

use alloc::vec::Vec;

use super::residues::{self, Crt};
use super::uniform::{self, Entropy};
use super::{Code, Field, Parameters, Side};
use crate::matrix::{KernelError, product, push, resize, same};

/// A matrix in equal parts, the last of each direction filled up with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    rows: usize,
    cols: usize,
    down: usize,
    across: usize,
}

impl Cut {
    fn part_rows(&self) -> usize {
        self.rows.div_ceil(self.down)
    }

    fn part_cols(&self) -> usize {
        self.cols.div_ceil(self.across)
    }

    fn part_len(&self) -> Result<usize, KernelError> {
        product("elements of a part", &[self.part_rows(), self.part_cols()])
    }

    /// For each row of each part (parts row by row): the range of the whole matrix that it has.
    fn rows_of_part(&self, part: usize) -> impl Iterator<Item = core::ops::Range<usize>> {
        let (height, width) = (self.part_rows(), self.part_cols());
        let (top, left) = (part / self.across * height, part % self.across * width);
        let (rows, cols) = (self.rows, self.cols);
        (top..top + height).map(move |row| {
            let start = left.min(cols);
            let end = if row < rows {
                (left + width).min(cols)
            } else {
                start
            };
            let row = row.min(rows.saturating_sub(1));
            row * cols + start..row * cols + end
        })
    }

    /// The parts of a matrix.
    fn split(&self, whole: &[i16]) -> Result<Vec<Vec<i16>>, KernelError> {
        let (len, width) = (self.part_len()?, self.part_cols());
        let mut parts = Vec::new();
        for number in 0..self.down * self.across {
            let mut part = Vec::new();
            resize(&mut part, len, 0)?;
            let rows = part.chunks_exact_mut(width.max(1));
            for (to, range) in rows.zip(self.rows_of_part(number)) {
                let from = &whole[range];
                to[..from.len()].copy_from_slice(from);
            }
            push(&mut parts, part)?;
        }
        Ok(parts)
    }

    /// The matrix of these parts.
    fn join(&self, parts: &[Vec<i16>], whole: &mut [i16]) {
        let width = self.part_cols().max(1);
        for (number, part) in parts.iter().enumerate() {
            for (from, range) in part.chunks_exact(width).zip(self.rows_of_part(number)) {
                let to = &mut whole[range];
                to.copy_from_slice(&from[..to.len()]);
            }
        }
    }
}

/// So many vectors of zeros.
fn buffers(count: usize, len: usize) -> Result<Vec<Vec<i16>>, KernelError> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut one = Vec::new();
        resize(&mut one, len, 0)?;
        push(&mut all, one)?;
    }
    Ok(all)
}

/// A product of integers, rows × inner by inner × cols, that is shared modulo several primes.
///
/// [`Self::residues`] of both factors; for each prime [`Self::encode`] both, give share j of both to device j,
/// [`super::share::multiply`] there, check what comes back, [`Self::decode`] any R right answers; then
/// [`Self::integers`].
#[derive(Debug)]
pub struct Whole {
    shape: [usize; 3],
    codes: Vec<Code>,
    crt: Crt,
}

impl Whole {
    /// For results below 2^bits in magnitude, with primes of `prime_bits` bits (4 to 15): 12 is the least
    /// work, 15 the least to be sent.
    ///
    /// # Errors
    /// As [`Code::new`] and [`residues::primes`].
    pub fn new(
        parameters: Parameters,
        shape: [usize; 3],
        bits: u32,
        prime_bits: u32,
    ) -> Result<Self, KernelError> {
        let fields = residues::primes(bits, prime_bits)?;
        let mut codes = Vec::new();
        for &field in &fields {
            push(&mut codes, Code::new(parameters, field)?)?;
        }
        Ok(Self {
            shape,
            codes,
            crt: Crt::new(&fields)?,
        })
    }

    /// One code for each prime.
    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// Rows, inner dimension and columns of a product of shares: those of the whole over the number of
    /// parts, rounded up.
    pub fn share_shape(&self) -> [usize; 3] {
        let parts = self.codes[0].parameters().cut();
        [0, 1, 2].map(|i| self.shape[i].div_ceil(parts[i]))
    }

    /// How a factor is cut.
    fn cut(&self, side: Side) -> Cut {
        let ([m, k, n], [rows, inner, cols]) = (self.shape, self.codes[0].parameters().cut());
        let (rows, cols, down, across) = match side {
            Side::Left => (m, k, rows, inner),
            Side::Right => (k, n, inner, cols),
        };
        Cut {
            rows,
            cols,
            down,
            across,
        }
    }

    fn field(&self, prime: usize) -> Result<&Field, KernelError> {
        crate::matrix::within("number of the prime", self.codes.len(), prime + 1)?;
        Ok(self.codes[prime].field())
    }

    /// A factor modulo each prime, row-major. The factor is row-major, in two's complement of `limbs` 64-bit
    /// limbs each. Memory: 2 bytes for each element and prime.
    ///
    /// # Errors
    /// `Shape` if a length is not right; `OutOfMemory`.
    pub fn residues(
        &self,
        side: Side,
        integers: &[u64],
        limbs: usize,
    ) -> Result<Vec<Vec<i16>>, KernelError> {
        let cut = self.cut(side);
        let len = product("elements of a factor", &[cut.rows, cut.cols])?;
        let mut planes = buffers(self.codes.len(), len)?;
        let fields: Vec<Field> = self.codes.iter().map(|code| *code.field()).collect();
        let mut slices: Vec<&mut [i16]> = planes.iter_mut().map(Vec::as_mut_slice).collect();
        residues::from_integers(&fields, integers, limbs, &mut slices)?;
        Ok(planes)
    }

    /// All shares of a factor modulo prime number `prime`, row-major, with fresh masks, from its residues. Once
    /// for each prime and factor: a second call is another sharing, and no device may get shares of two.
    ///
    /// # Errors
    /// `Shape` if a length or a number is not right; `Entropy`; `OutOfMemory`.
    pub fn encode(
        &self,
        side: Side,
        prime: usize,
        whole: &[i16],
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<Vec<i16>>, KernelError> {
        let (field, cut) = (self.field(prime)?, self.cut(side));
        let code = &self.codes[prime];
        let elements = product("elements of a factor", &[cut.rows, cut.cols])?;
        same("elements of a factor", elements, whole.len())?;
        let parts = cut.split(whole)?;
        let len = cut.part_len()?;
        let mut masks = buffers(code.parameters().colluders, len)?;
        for mask in &mut masks {
            uniform::fill(field, entropy, mask)?;
        }
        let mut shares = buffers(code.shares(), len)?;
        let parts: Vec<&[i16]> = parts.iter().map(Vec::as_slice).collect();
        let masks: Vec<&[i16]> = masks.iter().map(Vec::as_slice).collect();
        let mut slices: Vec<&mut [i16]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
        code.encode(side, &parts, &masks, &mut slices)?;
        Ok(shares)
    }

    /// C modulo prime number `prime`, row-major and canonical, from R answers with the numbers of their shares.
    ///
    /// # Errors
    /// As [`Code::decoder`]; `Shape` if a length is not right; `OutOfMemory`.
    pub fn decode(
        &self,
        prime: usize,
        answers: &[(usize, &[i16])],
    ) -> Result<Vec<i16>, KernelError> {
        self.field(prime)?;
        let [rows, _, cols] = self.codes[prime].parameters().cut();
        let cut = Cut {
            rows: self.shape[0],
            cols: self.shape[2],
            down: rows,
            across: cols,
        };
        let len = cut.part_len()?;
        let numbers: Vec<usize> = answers.iter().map(|&(number, _)| number).collect();
        let answers: Vec<&[i16]> = answers.iter().map(|&(_, answer)| answer).collect();
        for answer in &answers {
            same("elements of an answer", len, answer.len())?;
        }
        let decoder = self.codes[prime].decoder(&numbers)?;
        let mut blocks = buffers(decoder.blocks(), len)?;
        let mut slices: Vec<&mut [i16]> = blocks.iter_mut().map(Vec::as_mut_slice).collect();
        decoder.decode(&answers, &mut slices)?;
        let mut whole = Vec::new();
        resize(
            &mut whole,
            product("elements of C", &[cut.rows, cut.cols])?,
            0,
        )?;
        cut.join(&blocks, &mut whole);
        Ok(whole)
    }

    /// C in two's complement of `limbs` 64-bit limbs each, row-major, from its residues modulo all primes.
    ///
    /// # Errors
    /// As [`Crt::integers`].
    pub fn integers(
        &mut self,
        residues: &[&[i16]],
        limbs: usize,
        to: &mut [u64],
    ) -> Result<(), KernelError> {
        self.crt.integers(residues, limbs, to)
    }
}
