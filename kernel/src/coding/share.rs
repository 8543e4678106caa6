//! What is done with one share: it is multiplied, and the answer is checked.

use alloc::vec::Vec;

use super::Field;
use super::uniform::{self, Entropy};
use crate::arch::widest;
use crate::matrix::{KernelError, MatMut, MatRef, product, resize, same};
use crate::modular;
use crate::pairs::field::{FieldProduct, PRIME_LIMIT};

/// A wrong answer passes a check with a probability of at most 2^-60.
const SURE_BITS: f64 = 60.0;

/// For an element that is not from -(p - 1)/2 to (p - 1)/2.
const NOT_CANONICAL: KernelError = KernelError::Range {
    what: "element of a share (a canonical residue)",
};

/// Memory that later products use again.
#[derive(Debug, Default)]
pub struct Scratch {
    pairs: FieldProduct,
    words: [Vec<u64>; 3],
    modular: modular::Scratch,
}

impl Scratch {
    /// Nothing yet; the first product allocates.
    pub fn new() -> Self {
        Self::default()
    }
}

/// `c = a·b mod p`, canonical, for a of rows × inner and b of inner × cols, row-major and canonical.
/// Cost: one product of 16-bit numbers for primes below 2^12, three beyond.
///
/// # Errors
/// `Shape` if a length is not right; `Range` for an element that is not canonical; `OutOfMemory`. c is
/// then unchanged.
pub fn multiply(
    field: &Field,
    a: &[i16],
    b: &[i16],
    shape: [usize; 3],
    c: &mut [i16],
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    let [rows, inner, cols] = shape;
    for (what, len, sizes) in [
        ("elements of A", a.len(), [rows, inner]),
        ("elements of B", b.len(), [inner, cols]),
        ("elements of C", c.len(), [rows, cols]),
    ] {
        same(what, product(what, &sizes)?, len)?;
    }
    let half = (field.prime() / 2) as i16;
    if !within(a, half) || !within(b, half) {
        return Err(NOT_CANONICAL);
    }
    if field.prime() < PRIME_LIMIT {
        return scratch.pairs.multiply(field.prime(), a, b, shape, c);
    }
    let [left, right, words] = &mut scratch.words;
    as_words(field, a, left)?;
    as_words(field, b, right)?;
    resize(words, c.len(), 0)?;
    modular::matmul(
        field.prime().into(),
        false,
        MatRef::row_major(left, rows, inner)?,
        MatRef::row_major(right, inner, cols)?,
        MatMut::row_major(words, rows, cols)?,
        &mut scratch.modular,
    )?;
    for (to, &word) in c.iter_mut().zip(&*words) {
        *to = field.canonical(word as u32);
    }
    Ok(())
}

/// Residues from 0 to p - 1.
fn as_words(field: &Field, residues: &[i16], words: &mut Vec<u64>) -> Result<(), KernelError> {
    resize(words, residues.len(), 0)?;
    positive(i32::from(field.prime() as i16), residues, words);
    Ok(())
}

widest! {
    fn positive(p: i32, residues: &[i16], words: &mut [u64]) {
        for (word, &x) in words.iter_mut().zip(residues) {
            let x = i32::from(x);
            *word = u64::from((if x < 0 { x + p } else { x }) as u32);
        }
    }
}

/// Secret vectors x_t, and B·x_t, for one share of B.
///
/// An answer C is accepted if C·x_t = A·(B·x_t) for all t. If C is not A·B, each equation holds by chance with
/// a probability of 1/p (Freivalds, *Probabilistic Machines Can Use Less Running Time*, IFIP 1977), for
/// whoever chose C without knowing the x_t; and there are so many that all hold with at most 2^-60.
#[derive(Debug)]
pub struct Check {
    field: Field,
    inner: usize,
    cols: usize,
    /// The vectors, one after the other.
    x: Vec<i16>,
    /// B·x_t.
    y: Vec<i16>,
}

impl Check {
    /// Draws vectors and multiplies the share of B, inner × cols and row-major. Cost: inner·cols
    /// multiply-adds for each of ⌈60/log2 p⌉ vectors.
    ///
    /// # Errors
    /// `Shape` if a length is not right; `Range` for an element that is not canonical; `Entropy`;
    /// `OutOfMemory`.
    pub fn new(
        field: Field,
        b: &[i16],
        [inner, cols]: [usize; 2],
        entropy: &mut dyn Entropy,
    ) -> Result<Self, KernelError> {
        same(
            "elements of B",
            product("elements of B", &[inner, cols])?,
            b.len(),
        )?;
        if !within(b, (field.prime() / 2) as i16) {
            return Err(NOT_CANONICAL);
        }
        let trials = libm::ceil(SURE_BITS / libm::log2(f64::from(field.prime()))) as usize;
        let (mut x, mut y) = (Vec::new(), Vec::new());
        resize(&mut x, product("secret vectors", &[trials, cols])?, 0)?;
        resize(&mut y, product("secret vectors", &[trials, inner])?, 0)?;
        uniform::fill(&field, entropy, &mut x)?;
        if inner > 0 && cols > 0 {
            for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(inner)) {
                for (y, row) in y.iter_mut().zip(b.chunks_exact(cols)) {
                    *y = residue(&field, dot(&field, row, x));
                }
            }
        }
        Ok(Self {
            field,
            inner,
            cols,
            x,
            y,
        })
    }

    /// Whether `c` is `a·b`, canonical: a is the share of A, rows × inner. Cost: rows·(inner + cols)
    /// multiply-adds for each vector. After a rejection whoever made `c` has learnt something of the
    /// vectors: draw others.
    pub fn accepts(&self, a: &[i16], c: &[i16], rows: usize) -> bool {
        let (Some(of_a), Some(of_c)) = (rows.checked_mul(self.inner), rows.checked_mul(self.cols))
        else {
            return false;
        };
        let half = (self.field.prime() / 2) as i16;
        if a.len() != of_a || c.len() != of_c || !within(a, half) || !within(c, half) {
            return false;
        }
        if self.inner == 0 || self.cols == 0 {
            return c.iter().all(|&c| c == 0);
        }
        let vectors = || {
            self.x
                .chunks_exact(self.cols)
                .zip(self.y.chunks_exact(self.inner))
        };
        let rows = a.chunks_exact(self.inner).zip(c.chunks_exact(self.cols));
        let p = i64::from(self.field.prime());
        rows.fold(true, |all, (a, c)| {
            all & vectors().all(|(x, y)| (dot(&self.field, c, x) - dot(&self.field, a, y)) % p == 0)
        })
    }
}

/// The canonical residue of a sum.
fn residue(field: &Field, sum: i64) -> i16 {
    field.canonical(sum.rem_euclid(i64::from(field.prime())) as u32)
}

/// Σ x·y of canonical residues.
fn dot(field: &Field, x: &[i16], y: &[i16]) -> i64 {
    if field.prime() < PRIME_LIMIT {
        short(x, y)
    } else {
        long(x, y)
    }
}

widest! {
    /// Of at most 11 bits and a sign: 512 products are below 2^31.
    fn short(x: &[i16], y: &[i16]) -> i64 {
        let parts = x.chunks(512).zip(y.chunks(512));
        let sum = |(x, y): (&[i16], &[i16])| {
            x.iter().zip(y).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum::<i32>()
        };
        parts.map(|part| i64::from(sum(part))).sum()
    }
}

widest! {
    fn long(x: &[i16], y: &[i16]) -> i64 {
        x.iter().zip(y).map(|(&x, &y)| i64::from(i32::from(x) * i32::from(y))).sum()
    }
}

widest! {
    fn within(x: &[i16], most: i16) -> bool {
        x.iter().fold(true, |all, &x| all & (-most <= x) & (x <= most))
    }
}
