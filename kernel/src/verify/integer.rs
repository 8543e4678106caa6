//! The integer side of [`crate::verify`]: everything modulo a secret prime.

use alloc::vec::Vec;

use super::Verdict;
use crate::matrix::{KernelError, product, resize};
use crate::random::ChaCha;
use crate::tile::Placement;

#[derive(Debug)]
pub(super) struct Probe {
    /// The secret prime, between 2^60 and 2^61.
    prime: u64,
    /// The secret vector.
    x: Vec<u64>,
    /// y = B·x.
    y: Vec<u64>,
}

impl Probe {
    pub(super) fn new(inner: usize, cols: usize, mut random: ChaCha) -> Result<Self, KernelError> {
        let prime = loop {
            // A fresh draw for each try: all primes of the range are equally likely.
            let candidate = random.below(1 << 60) | (1 << 60) | 1;
            if is_prime(candidate) {
                break candidate;
            }
        };
        let mut probe = Self {
            prime,
            x: Vec::new(),
            y: Vec::new(),
        };
        resize(&mut probe.x, cols, 0)?;
        resize(&mut probe.y, inner, 0)?;
        probe.x.iter_mut().for_each(|x| *x = random.below(prime));
        Ok(probe)
    }

    pub(super) fn project_b(
        &mut self,
        block: &[u8],
        placement: &Placement,
        extent: (usize, usize),
        element_bytes: usize,
    ) -> Result<(), KernelError> {
        let used = part(&self.x, placement.dst_col, placement.cols);
        let weights = weights(used, element_bytes / 8, self.prime)?;
        let (prime, y) = (self.prime, &mut self.y);
        placement.for_each_row(block, element_bytes, extent, |row, _, bytes| {
            y[row] = add(y[row], dot(bytes, element_bytes, &weights, prime), prime);
            Ok(())
        })
    }
}

#[derive(Debug)]
pub(super) struct Rows {
    /// v = A·y.
    v: Vec<u64>,
}

impl Rows {
    pub(super) fn new(rows: usize) -> Result<Self, KernelError> {
        let mut v = Vec::new();
        resize(&mut v, rows, 0)?;
        Ok(Self { v })
    }

    pub(super) fn project_a(
        &mut self,
        probe: &Probe,
        block: &[u8],
        placement: &Placement,
        extent: (usize, usize),
        element_bytes: usize,
    ) -> Result<(), KernelError> {
        let used = part(&probe.y, placement.dst_col, placement.cols);
        let weights = weights(used, element_bytes / 8, probe.prime)?;
        placement.for_each_row(block, element_bytes, extent, |row, _, bytes| {
            let sum = dot(bytes, element_bytes, &weights, probe.prime);
            self.v[row] = add(self.v[row], sum, probe.prime);
            Ok(())
        })
    }

    pub(super) fn verdict(
        &self,
        probe: &Probe,
        c_bytes: &[u8],
        row_bytes: usize,
        element_bytes: usize,
    ) -> Result<Verdict, KernelError> {
        let weights = weights(&probe.x, element_bytes / 8, probe.prime)?;
        let right = c_bytes
            .chunks_exact(row_bytes.max(1))
            .zip(&self.v)
            .all(|(bytes, &v)| dot(bytes, element_bytes, &weights, probe.prime) == v);
        Ok(if right {
            Verdict::Accepted
        } else {
            Verdict::Rejected
        })
    }
}

/// The part of a vector that a placement covers; what lies outside is refused by the placement's own
/// check, which follows.
fn part(vector: &[u64], start: usize, len: usize) -> &[u64] {
    vector.get(start..start.saturating_add(len)).unwrap_or(&[])
}

/// For each x the weight of every limb, x·2^(64·l), and that of the sign, −x·2^(64·limbs).
fn weights(x: &[u64], limbs: usize, prime: u64) -> Result<Vec<u64>, KernelError> {
    let mut weights = Vec::new();
    resize(
        &mut weights,
        product("weights of limbs", &[x.len(), limbs + 1])?,
        0,
    )?;
    let base = ((1u128 << 64) % u128::from(prime)) as u64;
    for (row, &x) in weights.chunks_exact_mut(limbs + 1).zip(x) {
        let mut weight = x;
        for limb in &mut row[..limbs] {
            *limb = weight;
            weight = multiply(weight, base, prime);
        }
        row[limbs] = if weight == 0 { 0 } else { prime - weight };
    }
    Ok(weights)
}

/// Σ element·x mod prime over a part of a row.
fn dot(bytes: &[u8], element_bytes: usize, weights: &[u64], prime: u64) -> u64 {
    let limbs = bytes.as_chunks().0;
    match element_bytes {
        8 => dot_limbs::<1>(limbs, weights, prime),
        16 => dot_limbs::<2>(limbs, weights, prime),
        24 => dot_limbs::<3>(limbs, weights, prime),
        _ => {
            // The halves of each 128-bit product are summed apart: neither sum can overflow.
            let (mut low, mut high) = (0u128, 0u128);
            let count = element_bytes / 8;
            let elements = limbs.chunks_exact(count);
            for (element, weights) in elements.zip(weights.chunks_exact(count + 1)) {
                let mut top = 0;
                for (limb, &weight) in element.iter().zip(weights) {
                    top = u64::from_le_bytes(*limb);
                    let wide = u128::from(top) * u128::from(weight);
                    low += wide & u128::from(u64::MAX);
                    high += wide >> 64;
                }
                low += u128::from(weights[count] & sign_mask(top));
            }
            fold(low, high, prime)
        }
    }
}

/// [`dot`] for elements of a known number of limbs. No branch: signs are as good as random.
#[inline(always)]
fn dot_limbs<const LIMBS: usize>(limbs: &[[u8; 8]], weights: &[u64], prime: u64) -> u64 {
    let (mut low, mut high) = (0u128, 0u128);
    let elements = limbs.as_chunks::<LIMBS>().0;
    for (element, weights) in elements.iter().zip(weights.chunks_exact(LIMBS + 1)) {
        // Below (LIMBS + 1)·2^61 <= 2^63: they fit one addition.
        let mut upper = 0;
        for (limb, &weight) in element.iter().zip(weights) {
            let wide = u128::from(u64::from_le_bytes(*limb)) * u128::from(weight);
            low += u128::from(wide as u64);
            upper += (wide >> 64) as u64;
        }
        low += u128::from(weights[LIMBS] & sign_mask(u64::from_le_bytes(element[LIMBS - 1])));
        high += u128::from(upper);
    }
    fold(low, high, prime)
}

/// All ones if the limb is negative as the top of a two's complement number.
#[inline(always)]
fn sign_mask(limb: u64) -> u64 {
    ((limb as i64) >> 63) as u64
}

/// high·2^64 + low mod prime.
fn fold(low: u128, high: u128, prime: u64) -> u64 {
    let p = u128::from(prime);
    let base = (1u128 << 64) % p;
    ((high % p * base + low % p) % p) as u64
}

fn add(x: u64, y: u64, prime: u64) -> u64 {
    let sum = x + y;
    if sum >= prime { sum - prime } else { sum }
}

fn multiply(x: u64, y: u64, prime: u64) -> u64 {
    (u128::from(x) * u128::from(y) % u128::from(prime)) as u64
}

/// Miller and Rabin with the first twelve primes as bases, which is exact below 2^64 (Sorenson,
/// Webster, *Strong pseudoprimes to twelve prime bases*, Math. Comp. 86, 2017). `n` is odd and > 37.
fn is_prime(n: u64) -> bool {
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]
        .iter()
        .all(|&base| {
            let mut x = power(base, odd, n);
            if x == 1 || x == n - 1 {
                return true;
            }
            (1..twos).any(|_| {
                x = multiply(x, x, n);
                x == n - 1
            })
        })
}

fn power(mut base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, base, modulus);
        }
        base = multiply(base, base, modulus);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_strong_pseudoprimes() {
        for prime in [
            41,
            43,
            1_000_000_007,
            (1 << 61) - 1,
            18_446_744_073_709_551_557,
        ] {
            assert!(is_prime(prime), "{prime}");
        }
        // Strong pseudoprimes to the first 1, 3 and 9 primes, a Carmichael number, a square.
        for composite in [
            2047,
            25_326_001,
            3_825_123_056_546_413_051,
            561,
            1_000_007 * 1_000_003,
            1681,
        ] {
            assert!(!is_prime(composite), "{composite}");
        }
    }
}
