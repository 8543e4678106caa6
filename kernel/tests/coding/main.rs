//! Shares of matrices: they give the product, they tell nothing, and known attacks gain nothing.

mod attacks;
mod decoding;
mod privacy;
mod values;
mod whole;

use gemmesh_kernel::KernelError;
use gemmesh_kernel::coding::uniform::Entropy;
use gemmesh_kernel::coding::{Code, Field, Parameters, Scheme, Side};

/// Numbers that are enough for tests, and the same each time.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Residues, often the extremes.
    pub(crate) fn residues(&mut self, p: u32, len: usize) -> Vec<i16> {
        let half = i64::from(p / 2);
        (0..len)
            .map(|_| match self.below(6) {
                0 => half as i16,
                1 => -half as i16,
                _ => (self.below(u64::from(p)) as i64 - half) as i16,
            })
            .collect()
    }
}

impl Entropy for Draw {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), KernelError> {
        for bytes in bytes.chunks_mut(8) {
            bytes.copy_from_slice(&self.next().to_le_bytes()[..bytes.len()]);
        }
        Ok(())
    }
}

pub(crate) fn field(p: u32) -> Field {
    Field::new(p).expect("a prime")
}

pub(crate) fn parameters(scheme: Scheme, colluders: usize, spares: usize) -> Parameters {
    Parameters {
        scheme,
        colluders,
        spares,
    }
}

pub(crate) fn views(vectors: &[Vec<i16>]) -> Vec<&[i16]> {
    vectors.iter().map(Vec::as_slice).collect()
}

/// All shares of a factor.
pub(crate) fn encode(
    code: &Code,
    side: Side,
    blocks: &[Vec<i16>],
    masks: &[Vec<i16>],
) -> Vec<Vec<i16>> {
    let mut shares = vec![vec![i16::MAX; masks[0].len()]; code.shares()];
    let mut slices: Vec<&mut [i16]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
    code.encode(side, &views(blocks), &views(masks), &mut slices)
        .expect("shares");
    shares
}

/// `a·b mod p` by the definition, canonical. a is rows × inner.
pub(crate) fn product(p: u32, a: &[i16], b: &[i16], [rows, inner, cols]: [usize; 3]) -> Vec<i16> {
    let p = i64::from(p);
    (0..rows * cols)
        .map(|at| {
            let (i, j) = (at / cols, at % cols);
            let sum = (0..inner).fold(0i64, |sum, k| {
                (sum + i64::from(a[i * inner + k]) * i64::from(b[k * cols + j])) % p
            });
            let rest = sum.rem_euclid(p);
            (if rest > p / 2 { rest - p } else { rest }) as i16
        })
        .collect()
}

/// Every scheme with at most `most` shares for at most `colluders`.
pub(crate) fn every(most: usize, colluders: usize) -> Vec<Parameters> {
    let mut all = Vec::new();
    for t in 1..=colluders {
        for parts in 1..=most {
            all.push(parameters(Scheme::InnerProduct { parts }, t, 0));
            for spares in 0..most {
                all.push(parameters(Scheme::InnerProductAny { parts }, t, spares));
            }
        }
        for rows in 1..=most / 2 {
            for cols in 1..=most / 2 {
                for chain in 1..=rows.max(cols).min(t) {
                    for spares in 0..most {
                        all.push(parameters(Scheme::Gasp { rows, cols, chain }, t, spares));
                    }
                }
            }
        }
    }
    all.retain(|parameters| parameters.shares().is_ok_and(|shares| shares <= most));
    all
}
