//! The integer side of [`crate::verify`]: everything modulo a secret prime.

use alloc::vec::Vec;

use super::Verdict;
use crate::arch::widest;
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
        let weights = Weights::new(used, element_bytes / 8, self.prime)?;
        let (prime, y) = (self.prime, &mut self.y);
        placement.for_each_row(block, element_bytes, extent, |row, _, bytes| {
            y[row] = add(y[row], weights.dot(bytes), prime);
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
        let weights = Weights::new(used, element_bytes / 8, probe.prime)?;
        placement.for_each_row(block, element_bytes, extent, |row, _, bytes| {
            self.v[row] = add(self.v[row], weights.dot(bytes), probe.prime);
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
        let weights = Weights::new(&probe.x, element_bytes / 8, probe.prime)?;
        let right = c_bytes
            .chunks_exact(row_bytes.max(1))
            .zip(&self.v)
            .all(|(bytes, &v)| weights.dot(bytes) == v);
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

/// Limbs whose products are added up before they are reduced: a product of half a limb and a part of a
/// weight is below 2^53, so the sum of 2^11 is below 2^64.
const TURN: usize = 2048;

/// The bits of a part of a weight.
const PART: u32 = 21;

/// Half a limb.
const HALF: u64 = 0xffff_ffff;

/// What is needed for Σ element·x mod prime over a part of a row. All vectors have a place for each limb
/// of each element.
struct Weights {
    /// x·2^(64·place) mod prime in parts of 21, 21 and 19 bits.
    parts: [Vec<u64>; 3],
    /// The sign bit where a limb is the top of its element: flipped, two's complement counts from
    /// −2^63 upwards and is a number without a sign.
    flip: Vec<u64>,
    /// What flipping the sign bits adds to every sum.
    flipped: u64,
    prime: u64,
}

impl Weights {
    fn new(x: &[u64], limbs: usize, prime: u64) -> Result<Self, KernelError> {
        let mut weights = Self {
            parts: [const { Vec::new() }; 3],
            flip: Vec::new(),
            flipped: 0,
            prime,
        };
        let len = product("weights of limbs", &[x.len(), limbs])?;
        resize(&mut weights.flip, len, 0)?;
        for part in &mut weights.parts {
            resize(part, len, 0)?;
        }
        let base = power_of_two(64, prime);
        let (mut at, mut tops) = (0, 0);
        for &x in x {
            let mut weight = x;
            for limb in 0..limbs {
                if limb > 0 {
                    weight = multiply(weight, base, prime);
                }
                for (place, part) in (0..).zip(&mut weights.parts) {
                    part[at] = weight >> (place * PART) & ((1 << PART) - 1);
                }
                if limb + 1 == limbs {
                    weights.flip[at] = 1 << 63;
                    tops = add(tops, weight, prime);
                }
                at += 1;
            }
        }
        weights.flipped = multiply(tops, power_of_two(63, prime), prime);
        Ok(weights)
    }

    /// The sum over the elements whose limbs these are.
    fn dot(&self, bytes: &[u8]) -> u64 {
        let mut sum = 0;
        let [low, middle, high] = &self.parts;
        let turns = bytes.as_chunks().0.chunks(TURN).zip(self.flip.chunks(TURN));
        let parts = low.chunks(TURN).zip(middle.chunks(TURN));
        for (((limbs, flip), (low, middle)), high) in turns.zip(parts).zip(high.chunks(TURN)) {
            sum = add(
                sum,
                self.reduce(sums(limbs, flip, low, middle, high)),
                self.prime,
            );
        }
        add(sum, self.prime - self.flipped, self.prime)
    }

    /// The sum that [`sums`] is in pieces, modulo the prime.
    fn reduce(&self, halves: [[u64; 3]; 2]) -> u64 {
        let prime = u128::from(self.prime);
        // Below 2^107 each.
        let [lower, upper] = halves.map(|[low, middle, high]| {
            u128::from(low) + (u128::from(middle) << PART) + (u128::from(high) << (2 * PART))
        });
        ((((upper % prime) << 32) + lower) % prime) as u64
    }
}

widest! {
    /// Sums of products of the lower halves of the limbs, then of the upper, with each of the parts. Of
    /// slices of one length, at most TURN.
    fn sums(limbs: &[[u8; 8]], flip: &[u64], low: &[u64], middle: &[u64], high: &[u64]) -> [[u64; 3]; 2] {
        let mut sums = [[0; 3]; 2];
        let parts = low.iter().zip(middle).zip(high);
        for ((limb, flip), ((low, middle), high)) in limbs.iter().zip(flip).zip(parts) {
            let limb = u64::from_le_bytes(*limb) ^ flip;
            for (half, sums) in [limb & HALF, limb >> 32].into_iter().zip(&mut sums) {
                // That both factors are below 2^32 is said so that compilers see it.
                sums[0] += half * (low & HALF);
                sums[1] += half * (middle & HALF);
                sums[2] += half * (high & HALF);
            }
        }
        sums
    }
}

/// 2^exponent mod prime, up to 2^127.
fn power_of_two(exponent: u32, prime: u64) -> u64 {
    ((1u128 << exponent) % u128::from(prime)) as u64
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
    fn sums_are_those_of_one_product_after_the_other() {
        // The largest weights and halves of limbs too, over more than one turn: nothing overflows.
        let prime = (1 << 61) - 1;
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state ^ state >> 29
        };
        for limbs in 1..5 {
            for count in [0, 1, 7, 8, 9, 33, 5_000] {
                for (limb, weight) in [
                    (None, None),
                    (Some(u64::MAX), Some(prime - 1)),
                    (Some(u64::MAX >> 1), Some(prime - 1)),
                    (Some(1 << 63), None),
                    (Some(0), None),
                ] {
                    let x: Vec<_> = (0..count)
                        .map(|_| weight.unwrap_or(next() % prime))
                        .collect();
                    let elements: Vec<_> = (0..count * limbs)
                        .map(|_| limb.unwrap_or_else(&mut next))
                        .collect();
                    let bytes: Vec<_> = elements.iter().flat_map(|e| e.to_le_bytes()).collect();
                    let mut expected = 0;
                    for (element, &x) in elements.chunks_exact(limbs).zip(&x) {
                        let mut weight = x;
                        for &limb in element {
                            let term = multiply(limb % prime, weight, prime);
                            expected = add(expected, term, prime);
                            weight = multiply(weight, power_of_two(64, prime), prime);
                        }
                        if element[limbs - 1] >> 63 == 1 {
                            expected = add(expected, prime - weight, prime);
                        }
                    }
                    let weights = Weights::new(&x, limbs, prime).unwrap();
                    assert_eq!(
                        weights.dot(&bytes),
                        expected,
                        "{limbs} × {count} of {limb:?}"
                    );
                }
            }
        }
    }

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
