//! Fields of at most 15 bits, and linear combinations of long vectors over them, at the speed of memory.
//!
//! Residues are 16-bit numbers, products of two are summed in 32 bits, and a sum is reduced when another
//! product might not fit: for the largest primes after 8 of them.

use crate::arch::widest;
use crate::field::Modulus;
use crate::matrix::{KernelError, same};

/// Elements that are taken through all combinations before the next ones: the inputs stay in a near cache.
const CHUNK: usize = 1024;

/// Residues of any field here are at most this in magnitude.
const RESIDUE_MAX: i32 = 1 << 14;

/// A field of an odd prime number of elements, below 2^15. Its residues are `i16`; the *canonical* one is from
/// -(p - 1)/2 to (p - 1)/2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field {
    modulus: Modulus,
    p: i32,
    inverse: f32,
}

impl Field {
    /// The field of `prime` elements.
    ///
    /// # Errors
    /// `Range` unless `prime` is a prime from 5 to 32,749.
    pub fn new(prime: u32) -> Result<Self, KernelError> {
        let modulus = Modulus::new(prime)?;
        if prime >= 1 << 15 {
            return Err(KernelError::Range {
                what: "size of the field (a prime of at most 15 bits)",
            });
        }
        Ok(Self {
            modulus,
            p: prime as i32,
            inverse: 1.0 / prime as f32,
        })
    }

    /// The number of elements.
    pub fn prime(&self) -> u32 {
        self.modulus.prime()
    }

    /// Reductions in `f64`, for larger numbers.
    pub(super) fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// `x^-1` for a residue x from 1 to p - 1.
    pub(super) fn invert(&self, x: u32) -> u32 {
        self.modulus.invert(x)
    }

    /// `x + sum` modulo p, canonical.
    pub(crate) fn plus(&self, x: i16, sum: i64) -> i16 {
        let p = i64::from(self.p);
        self.canonical((i64::from(x) + sum).rem_euclid(p) as u32)
    }

    /// The canonical residue of an integer of magnitude at most min(2^31, p·2^20).
    ///
    /// The quotient is off by at most three roundings of 2^-24, of at most 2^20, before it is rounded to an
    /// integer: 3/16. So what is left is below 0.7·p, or p/2 + 384 (2^31/p·3·2^-24 times p), and one step
    /// from its place.
    #[inline(always)]
    pub(super) fn reduce(&self, x: i32) -> i32 {
        // The low bits of 1.5·2^23 + x are x, rounded.
        const ROUND: f32 = 12_582_912.0;
        let quotient = (x as f32 * self.inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        // The product may reach over 2^31 a little; the difference does not.
        self.step(x.wrapping_sub(quotient.wrapping_mul(self.p)))
    }

    /// The canonical residue of an integer of magnitude below 3p/2.
    #[inline(always)]
    fn step(&self, x: i32) -> i32 {
        let half = self.p / 2;
        let x = if x > half { x - self.p } else { x };
        if x < -half { x + self.p } else { x }
    }

    /// The canonical residue of an integer as [`Modulus::reduce`] takes it.
    #[inline(always)]
    pub(super) fn reduce_wide(&self, x: f64) -> i16 {
        // At most p/2 + 2 in magnitude. The low bits of 1.5·2^52 + x are x.
        const ROUND: f64 = 6_755_399_441_055_744.0;
        self.step((self.modulus.reduce(x) + ROUND).to_bits() as i32) as i16
    }

    /// The canonical residue of an integer from 0 to p - 1.
    pub(super) fn canonical(&self, x: u32) -> i16 {
        self.step(x as i32) as i16
    }

    /// Products of a canonical residue and a number of magnitude at most 2^14, and a residue, that
    /// [`Self::reduce`] takes in one sum.
    fn terms(&self) -> usize {
        let most = i64::from(i32::MAX).min(i64::from(self.p) << 20) - i64::from(RESIDUE_MAX);
        (most / (i64::from(self.p / 2) * i64::from(RESIDUE_MAX))) as usize
    }
}

/// `outputs[j][e] = Σ_i weights[j·inputs + i]·inputs[i][e] mod p`, canonical.
///
/// Weights are canonical, inputs of magnitude at most 2^14.
pub(super) fn combine(
    field: &Field,
    weights: &[i16],
    inputs: &[&[i16]],
    outputs: &mut [&mut [i16]],
) -> Result<(), KernelError> {
    same(
        "weights",
        inputs.len().saturating_mul(outputs.len()),
        weights.len(),
    )?;
    let Some(len) = outputs.first().map(|output| output.len()) else {
        return Ok(());
    };
    for input in inputs {
        same("length of a vector", len, input.len())?;
    }
    for output in &*outputs {
        same("length of a vector", len, output.len())?;
    }
    for start in (0..len).step_by(CHUNK) {
        let end = len.min(start + CHUNK);
        let rows = weights.chunks_exact(inputs.len().max(1));
        for (row, output) in rows.zip(&mut *outputs) {
            row_of(field, row, inputs, start, &mut output[start..end]);
        }
    }
    Ok(())
}

widest! {
    /// One combination of the elements from `start` on, at most [`CHUNK`].
    fn row_of(field: &Field, weights: &[i16], inputs: &[&[i16]], start: usize, to: &mut [i16]) {
        let mut sums = [0; CHUNK];
        let sums = &mut sums[..to.len()];
        let (most, mut terms) = (field.terms(), 0);
        for (weights, inputs) in weights.chunks(4).zip(inputs.chunks(4)) {
            if terms + weights.len() > most {
                for x in &mut *sums {
                    *x = field.reduce(*x);
                }
                terms = 0;
            }
            terms += weights.len();
            match (weights, inputs) {
                (&[a, b, c, d], &[v, x, y, z]) => add([a, b, c, d], [v, x, y, z], start, sums),
                (&[a, b, c], &[v, x, y]) => add([a, b, c], [v, x, y], start, sums),
                (&[a, b], &[v, x]) => add([a, b], [v, x], start, sums),
                (&[a], &[v]) => add([a], [v], start, sums),
                _ => {}
            }
        }
        for (to, &mut x) in to.iter_mut().zip(sums) {
            *to = field.reduce(x) as i16;
        }
    }
}

/// `to += Σ weights·inputs`.
#[inline(always)]
fn add<const N: usize>(weights: [i16; N], inputs: [&[i16]; N], start: usize, to: &mut [i32]) {
    let inputs = inputs.map(|input| &input[start..start + to.len()]);
    for (e, to) in to.iter_mut().enumerate() {
        let mut sum = *to;
        for n in 0..N {
            sum += i32::from(weights[n]) * i32::from(inputs[n][e]);
        }
        *to = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::ChaCha;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn reduction_is_canonical_and_congruent_over_the_whole_range() {
        let mut random = ChaCha::new([2; 32]);
        for p in [5, 7, 251, 4_093, 16_411, 32_749] {
            let field = Field::new(p).unwrap();
            let p = i64::from(p);
            let most = i64::from(i32::MAX).min(p << 20);
            let near = (0..3 * p).flat_map(|x| [x, -x, most - x, x - most]);
            let drawn = (0..50_000).map(|_| random.below(2 * most as u64) as i64 - most);
            for x in near.chain(drawn).filter(|x| x.abs() <= most) {
                let found = i64::from(field.reduce(x as i32));
                assert_eq!((x - found) % p, 0, "{x} mod {p} gave {found}");
                assert!(found.abs() <= (p - 1) / 2, "{x} mod {p} gave {found}");
            }
            assert!(field.terms() >= 4, "a group of products fits");
        }
        for bad in [0, 2, 3, 9, 32_771, 65_537] {
            assert!(Field::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn combinations_agree_with_integer_arithmetic() {
        let mut random = ChaCha::new([3; 32]);
        for p in [5, 7, 4_093, 32_749] {
            let field = Field::new(p).unwrap();
            let p = i64::from(p);
            let cases = [
                (1, 1, 1),
                (2, 3, 7),
                (5, 2, 1023),
                (9, 4, 1030),
                (300, 1, 3),
            ];
            for (inputs, outputs, len) in cases {
                // The extremes, so that a bound that is too weak shows.
                let mut draw = |most: i64| match random.next() % 3 {
                    0 => most,
                    1 => -most,
                    _ => random.below(2 * most as u64) as i64 - most,
                };
                let weights: Vec<i16> = (0..inputs * outputs).map(|_| draw(p / 2) as i16).collect();
                let vectors: Vec<Vec<i16>> = (0..inputs)
                    .map(|_| (0..len).map(|_| draw(1 << 14) as i16).collect())
                    .collect();
                let views: Vec<&[i16]> = vectors.iter().map(Vec::as_slice).collect();
                let mut to = vec![vec![i16::MAX; len]; outputs];
                let mut slices: Vec<&mut [i16]> = to.iter_mut().map(Vec::as_mut_slice).collect();
                combine(&field, &weights, &views, &mut slices).unwrap();
                for (j, to) in to.iter().enumerate() {
                    for (e, &found) in to.iter().enumerate() {
                        let product = |i: usize| {
                            i64::from(weights[j * inputs + i]) * i64::from(vectors[i][e])
                        };
                        let sum: i64 = (0..inputs).map(product).sum();
                        assert_eq!((sum - i64::from(found)) % p, 0);
                        assert!(i64::from(found).abs() <= (p - 1) / 2);
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_that_differ_are_refused() {
        let field = Field::new(7).unwrap();
        let (short, long) = ([1], [1, 2]);
        let mut to = [0; 2];
        assert!(combine(&field, &[1, 1], &[&long, &short], &mut [&mut to]).is_err());
        assert!(combine(&field, &[1], &[&long, &long], &mut [&mut to]).is_err());
    }
}
