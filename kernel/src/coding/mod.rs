//! Products by devices that must not learn the factors: secret sharing of matrices over a prime field.
//!
//! A is cut into `rows × inner` blocks and B into `inner × cols`. Share j of A is a fixed combination of
//! A's blocks and of T blocks of uniform random numbers, the masks; so is share j of B. A device multiplies
//! its two shares. The product of A and B is a combination of such answers, since multiplying evaluations
//! of two polynomials gives evaluations of their product.
//!
//! | scheme | cut | answers R | which |
//! |---|---|---|---|
//! | [`Scheme::InnerProduct`] | p parts of the inner dimension | p + 2T | all |
//! | [`Scheme::InnerProductAny`] | the same | 2p + 2T - 1 | any |
//! | [`Scheme::Gasp`] | K parts of A's rows, L of B's columns | size of the degree table ([`gasp`]) | any |
//! | [`masked`] | none | 2, and a product of masks | both |
//!
//! # Privacy
//!
//! The masks are uniform, independent and used for one product only, and every T × T part of the
//! coefficients of the masks is invertible. So the T shares of A that any T devices hold are uniform and
//! independent of A, whatever A is, and the same goes for B: what they see is independent of A and B
//! ([`Code::new`] proves the condition for its points, or fails). That holds as long as **no device ever
//! holds two different shares** of one product; a device that holds v of them counts as v colluders. A device that
//! computes a share again that another one did not return sees nothing that a share does not tell.
//! Shares are given in canonical form, so that the form of a residue tells nothing either.
//!
//! What is not hidden: the sizes, the prime, when and how often.
//!
//! Wrong answers are found by [`share::Check`]. They are left out, and the product is decoded from others.
//!
//! | module | holds |
//! |---|---|
//! | [`gasp`] | degree tables and evaluation points of GASP codes |
//! | [`residues`] | integers of any size to residues modulo several primes and back |
//! | [`fixed`] | floating-point numbers as integers, with an error bound |
//! | [`uniform`] | masks from entropy |
//! | [`share`] | the product of two shares, and its check |
//! | [`whole`] | a product of integers from end to end |
//! | [`cost`] | what a code costs |
//!
//! Sources: Makkonen, *Flexible Field Sizes in Secure Distributed Matrix Multiplication via Efficient
//! Interference Cancellation*, arXiv 2404.15080 (p + 2T answers from generalised Reed-Solomon codes of any
//! points); D'Oliveira, El Rouayheb, Karpuk, *GASP Codes for Secure Distributed Matrix Multiplication*, IEEE
//! Trans. Inf. Theory 66(7), 2020, arXiv 1812.09962; D'Oliveira, El Rouayheb, Heinlein, Karpuk, *Degree Tables for
//! Secure Distributed Matrix Multiplication*, arXiv 2106.09816; Yu et al., *Lagrange Coded Computing*, AISTATS
//! 2019, arXiv 1806.00939 (interpolation from any answers); Shamir, *How to Share a Secret*, CACM 22(11), 1979.

mod combine;
pub mod cost;
pub mod fixed;
pub mod gasp;
mod inner;
mod linear;
pub mod masked;
pub mod residues;
pub mod share;
pub mod uniform;
pub mod whole;

use alloc::vec::Vec;

use crate::matrix::{KernelError, same};

pub use combine::Field;

/// The most shares of one product.
pub const SHARES_MAX: usize = 256;

/// How a product is cut and shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// The inner dimension in `parts`: `C = Σ A_i·B_i`, from all of parts + 2T answers.
    InnerProduct {
        /// p.
        parts: usize,
    },
    /// The inner dimension in `parts`, from any 2·parts + 2T - 1 answers.
    InnerProductAny {
        /// p.
        parts: usize,
    },
    /// The rows of A in `rows` parts and the columns of B in `cols`: each block of C is a product of two
    /// parts.
    Gasp {
        /// K.
        rows: usize,
        /// L.
        cols: usize,
        /// Length of the chains of consecutive degrees, from 1 to min(max(K, L), T).
        chain: usize,
    },
}

/// A scheme with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// How the product is cut.
    pub scheme: Scheme,
    /// T: how many devices may put together what they see. At least 1.
    pub colluders: usize,
    /// S: shares beyond those that are needed. 0 for [`Scheme::InnerProduct`], where another device can only
    /// compute a missing share again.
    pub spares: usize,
}

impl Parameters {
    /// R: answers that give the product.
    ///
    /// # Errors
    /// `Range` for an empty cut, no colluders, spares that can not be, or more than [`SHARES_MAX`] shares.
    pub fn answers(&self) -> Result<usize, KernelError> {
        let range = |what| Err(KernelError::Range { what });
        let t = self.colluders;
        if t == 0 || t > SHARES_MAX {
            return range("number of colluders (from 1)");
        }
        let small = |n: usize| n > 0 && n <= SHARES_MAX;
        let answers = match self.scheme {
            Scheme::InnerProduct { parts } if small(parts) && self.spares == 0 => parts + 2 * t,
            Scheme::InnerProductAny { parts } if small(parts) => 2 * parts + 2 * t - 1,
            Scheme::Gasp { rows, cols, chain } if small(rows) && small(cols) => {
                if chain == 0 || chain > rows.max(cols).min(t) {
                    return range("length of the chains");
                }
                gasp::answers(rows, cols, t, chain)?
            }
            _ => return range("parts of a shared product"),
        };
        if answers > SHARES_MAX || self.spares > SHARES_MAX - answers {
            return range("number of shares");
        }
        Ok(answers)
    }

    /// N = R + S: shares, each for a device of its own.
    ///
    /// # Errors
    /// As [`Self::answers`].
    pub fn shares(&self) -> Result<usize, KernelError> {
        Ok(self.answers()? + self.spares)
    }

    /// Parts of A's rows, of the inner dimension, and of B's columns.
    pub fn cut(&self) -> [usize; 3] {
        match self.scheme {
            Scheme::InnerProduct { parts } | Scheme::InnerProductAny { parts } => [1, parts, 1],
            Scheme::Gasp { rows, cols, .. } => [rows, 1, cols],
        }
    }
}

/// Which factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A.
    Left,
    /// B.
    Right,
}

/// A scheme over one field, with its evaluation points.
#[derive(Clone, Debug)]
pub struct Code {
    field: Field,
    parameters: Parameters,
    answers: usize,
    shares: usize,
    /// For each share the coefficients of the blocks, then of the masks. Canonical.
    left: Vec<i16>,
    right: Vec<i16>,
    decoding: Decoding,
    every_set: bool,
}

/// How answers become blocks of C.
#[derive(Clone, Debug)]
enum Decoding {
    /// The weights of all answers.
    All(Vec<i16>),
    /// The sum of the values at `data` of the polynomial that goes through the answers at `points`.
    Sum { points: Vec<u32>, data: Vec<u32> },
    /// Coefficients of a polynomial of these degrees. Those of the blocks of C come first.
    Degrees {
        points: Vec<u32>,
        degrees: Vec<u32>,
        blocks: usize,
    },
}

impl Code {
    /// A code of these parameters over a field. The evaluation points are the same on every device and at
    /// every time. Cost: about C(N, T)·T³ + C(N, R)·R³ operations at most, the first only for GASP codes with
    /// chains shorter than min(max(K, L), T), the second only with spares and up to 2,000 sets.
    ///
    /// # Errors
    /// As [`Parameters::answers`]; `Range` if the field is too small for that many points, or if it is not
    /// found that any T shares are independent of the data; `OutOfMemory`.
    pub fn new(parameters: Parameters, field: Field) -> Result<Self, KernelError> {
        let answers = parameters.answers()?;
        match parameters.scheme {
            Scheme::InnerProduct { parts } => inner::all(parameters, parts, answers, field),
            Scheme::InnerProductAny { parts } => inner::any(parameters, parts, answers, field),
            Scheme::Gasp { rows, cols, chain } => {
                gasp::code(parameters, (rows, cols, chain), answers, field)
            }
        }
    }

    /// The field.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// What it was made of.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// R.
    pub fn answers(&self) -> usize {
        self.answers
    }

    /// N.
    pub fn shares(&self) -> usize {
        self.shares
    }

    /// Blocks of a factor.
    pub fn blocks(&self, side: Side) -> usize {
        let [rows, inner, cols] = self.parameters.cut();
        match side {
            Side::Left => rows * inner,
            Side::Right => inner * cols,
        }
    }

    /// Whether every set of R answers is known to decode. Otherwise nearly all do (200 were tried, and a
    /// random one fails with probability of about 1/p), and [`Self::decoder`] says when one does not: with
    /// one answer more there is another set.
    pub fn every_set_decodes(&self) -> bool {
        self.every_set
    }

    /// The coefficients of share `share` of a factor: of its blocks, then of its masks. Canonical.
    ///
    /// # Errors
    /// `Shape` if there is no such share.
    pub fn coefficients(&self, side: Side, share: usize) -> Result<&[i16], KernelError> {
        crate::matrix::within("number of the share", self.shares, share.saturating_add(1))?;
        let width = self.blocks(side) + self.parameters.colluders;
        let all = match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        };
        Ok(&all[share * width..][..width])
    }

    /// Writes all shares of a factor, or of the same part of each of its blocks:
    /// `shares[j][e] = Σ_i c_ji·blocks[i][e] + Σ_t d_jt·masks[t][e]`, canonical.
    ///
    /// Blocks are in the order of their rows, then columns; elements are residues of magnitude at
    /// most 2^14, canonical ones for example. There are T masks of [`uniform::fill`], for this factor of
    /// this product alone. All slices are of one length. Cost: N·(blocks + T) multiply-adds and N reductions
    /// for each element of a block, at the speed of memory.
    ///
    /// # Errors
    /// `Shape` if a number or a length is not right.
    pub fn encode(
        &self,
        side: Side,
        blocks: &[&[i16]],
        masks: &[&[i16]],
        shares: &mut [&mut [i16]],
    ) -> Result<(), KernelError> {
        same("blocks of the factor", self.blocks(side), blocks.len())?;
        same("masks", self.parameters.colluders, masks.len())?;
        same("shares", self.shares, shares.len())?;
        let mut inputs = Vec::new();
        crate::matrix::reserve(&mut inputs, blocks.len() + masks.len())?;
        inputs.extend(blocks.iter().chain(masks));
        let weights = match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        };
        combine::combine(&self.field, weights, &inputs, shares)
    }

    /// How the product comes from these answers, numbered as their shares.
    ///
    /// # Errors
    /// `Shape` unless there are R of them, all different shares; `Range` if they do not decode, which can only
    /// be where [`Self::every_set_decodes`] is false; `OutOfMemory`.
    pub fn decoder(&self, answers: &[usize]) -> Result<Decoder, KernelError> {
        same("answers", self.answers, answers.len())?;
        let mut seen = [false; SHARES_MAX];
        for &answer in answers {
            crate::matrix::within("number of an answer", self.shares, answer.saturating_add(1))?;
            same(
                "answers of one share",
                1,
                1 + usize::from(core::mem::replace(&mut seen[answer], true)),
            )?;
        }
        let points = |all: &[u32]| {
            answers
                .iter()
                .map(|&answer| all[answer])
                .collect::<Vec<u32>>()
        };
        let weights = match &self.decoding {
            Decoding::All(weights) => answers.iter().map(|&answer| weights[answer]).collect(),
            Decoding::Sum { points: all, data } => {
                inner::sum_of_values(&self.field, &points(all), data)
            }
            Decoding::Degrees {
                points: all,
                degrees,
                blocks,
            } => gasp::weights(&self.field, &points(all), degrees, *blocks)?,
        };
        Ok(Decoder {
            field: self.field,
            answers: self.answers,
            weights,
        })
    }
}

/// The weights of one set of answers.
#[derive(Clone, Debug)]
pub struct Decoder {
    field: Field,
    answers: usize,
    /// For each block of C one weight for each answer.
    weights: Vec<i16>,
}

impl Decoder {
    /// Blocks of C.
    pub fn blocks(&self) -> usize {
        self.weights.len() / self.answers
    }

    /// Writes all blocks of C, or the same part of each: `blocks[b][e] = Σ_j w_bj·answers[j][e]`, canonical.
    ///
    /// Answers are in the order that the decoder was made for, residues of magnitude at most 2^14; blocks in the
    /// order of their rows, then columns. All slices are of one length. Cost: R multiply-adds and one
    /// reduction for each element of C.
    ///
    /// # Errors
    /// `Shape` if a number or a length is not right.
    pub fn decode(&self, answers: &[&[i16]], blocks: &mut [&mut [i16]]) -> Result<(), KernelError> {
        same("answers", self.answers, answers.len())?;
        same("blocks of C", self.blocks(), blocks.len())?;
        combine::combine(&self.field, &self.weights, answers, blocks)
    }
}
