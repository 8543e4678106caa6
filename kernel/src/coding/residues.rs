//! Integers of any size as residues modulo several primes, and back.
//!
//! Back by digits of a mixed radix (Garner, *The Residue Number System*, IRE Trans. EC-8, 1959): with primes
//! p_0, p_1, ..
//!
//! ```text
//! x = v_0 + v_1·p_0 + v_2·p_0·p_1 + ..            |v_q| <= (p_q - 1)/2
//! v_q = (x - Σ_{r<q} v_r·p_0···p_(r-1)) · (p_0···p_(q-1))^-1  mod p_q
//! ```
//!
//! which is unique for |x| < p_0·p_1···/2, and where each v_q is one linear combination modulo p_q.

use alloc::vec::Vec;

use super::combine::{Field, combine};
use super::linear::multiply;
use crate::arch::widest;
use crate::integer::{bit_length, multiply_small};
use crate::matrix::{KernelError, push, resize, same};

/// Elements that are put together at a time.
const CHUNK: usize = 512;

/// Primes of at most `prime_bits` bits, from the largest down, whose product is more than 2^(bits + 1): enough
/// for integers below 2^bits in magnitude.
///
/// # Errors
/// `Range` if `prime_bits` is not from 4 to 15; `Overflow` if there are not enough such primes of
/// that many bits.
pub fn primes(bits: u32, prime_bits: u32) -> Result<Vec<Field>, KernelError> {
    if !(4..=15).contains(&prime_bits) {
        return Err(KernelError::Range {
            what: "bits of the primes (4 to 15)",
        });
    }
    chosen(bits, candidates(prime_bits, prime_bits))
}

/// The least bits of the primes of [`fields`].
const FIELD_BITS_MIN: u32 = 11;

/// The most of [`fields`] that there are.
pub const FIELDS_MAX: usize = 392;

/// The first `count` primes below 2^12, from the largest down: modulo these shares are multiplied fastest.
///
/// # Errors
/// `Range` unless `count` is from 1 to [`FIELDS_MAX`].
pub fn fields(count: usize) -> Result<Vec<Field>, KernelError> {
    let mut fields = Vec::new();
    if count > 0 && count <= FIELDS_MAX {
        for field in candidates(FIELD_BITS_MIN, 12).take(count) {
            push(&mut fields, field)?;
        }
    }
    if fields.len() != count || count == 0 {
        return Err(KernelError::Range {
            what: "number of primes",
        });
    }
    Ok(fields)
}

/// How many of [`fields`] are enough for integers below 2^bits in magnitude.
///
/// # Errors
/// `Overflow` if all are not enough, from about 4,400 bits on.
pub fn fields_for(bits: u32) -> Result<usize, KernelError> {
    Ok(chosen(bits, candidates(FIELD_BITS_MIN, 12))?.len())
}

/// Primes of `least` to `most` bits, from the largest down.
fn candidates(least: u32, most: u32) -> impl Iterator<Item = Field> {
    let numbers = (1u32 << (least - 1)..1 << most).rev();
    numbers.filter_map(|n| Field::new(n).ok())
}

/// So many that their product is more than 2^(bits + 1).
fn chosen(
    bits: u32,
    mut candidates: impl Iterator<Item = Field>,
) -> Result<Vec<Field>, KernelError> {
    let (mut chosen, mut all) = (Vec::new(), Vec::new());
    push(&mut all, 1u64)?;
    while bit_length(&all) < bits.saturating_add(2) {
        let next = candidates.next().ok_or(KernelError::Overflow {
            what: "product of all primes of this size",
        })?;
        multiply_small(&mut all, next.prime())?;
        push(&mut chosen, next)?;
    }
    Ok(chosen)
}

/// The canonical residues of integers in two's complement, of `limbs` 64-bit limbs each: one plane for each
/// field. The integers are read once for all of them.
///
/// # Errors
/// `Shape` unless there are as many planes as fields, and in each as many residues as integers.
pub fn from_integers(
    fields: &[Field],
    integers: &[u64],
    limbs: usize,
    planes: &mut [&mut [i16]],
) -> Result<(), KernelError> {
    same("planes of residues", fields.len(), planes.len())?;
    let len = planes.first().map_or(0, |plane| plane.len());
    for plane in &*planes {
        same("residues", len, plane.len())?;
        let all = plane.len().saturating_mul(limbs);
        same("limbs of the integers", all, integers.len())?;
    }
    for start in (0..len).step_by(CHUNK) {
        let end = len.min(start + CHUNK);
        let part = &integers[start * limbs..end * limbs];
        for (field, plane) in fields.iter().zip(&mut *planes) {
            let shift = field.modulus().balanced(1 << 32);
            let to = &mut plane[start..end];
            match limbs {
                0 => to.fill(0),
                1 => words(field, shift, part, to),
                _ => long(field, shift, part, limbs, to),
            }
        }
    }
    Ok(())
}

widest! {
    /// Of one limb. The residue of the upper half times 2^32 and the lower half are below 2^45 together.
    fn words(field: &Field, shift: f64, integers: &[u64], to: &mut [i16]) {
        for (to, &x) in to.iter_mut().zip(integers) {
            let (high, low) = ((x >> 32) as i32, x as u32);
            *to = field.reduce_wide(field.modulus().reduce(f64::from(high)) * shift + f64::from(low));
        }
    }
}

widest! {
    fn long(field: &Field, shift: f64, integers: &[u64], limbs: usize, to: &mut [i16]) {
        for (to, x) in to.iter_mut().zip(integers.chunks_exact(limbs)) {
            let mut rest = 0.0;
            for (limb, &word) in x.iter().enumerate().rev() {
                let high = (word >> 32) as u32;
                // Only the uppermost half has a sign.
                let high = if limb + 1 == limbs { f64::from(high as i32) } else { f64::from(high) };
                rest = field.modulus().reduce(rest * shift + high);
                rest = field.modulus().reduce(rest * shift + f64::from(word as u32));
            }
            *to = field.reduce_wide(rest);
        }
    }
}

/// Residues as integers of one limb.
///
/// # Errors
/// `Shape` unless there are as many integers as residues.
pub fn to_words(residues: &[i16], to: &mut [u64]) -> Result<(), KernelError> {
    same("words", residues.len(), to.len())?;
    as_words(residues, to);
    Ok(())
}

widest! {
    fn as_words(residues: &[i16], to: &mut [u64]) {
        for (to, &x) in to.iter_mut().zip(residues) {
            *to = i64::from(x) as u64;
        }
    }
}

/// What putting residues together needs.
#[derive(Debug)]
pub struct Crt {
    primes: Vec<Field>,
    /// For each q the weights of x and of v_0 .. v_(q-1) in v_q.
    weights: Vec<Vec<i16>>,
    digits: Vec<i16>,
}

impl Crt {
    /// For residues modulo these primes, all different.
    ///
    /// # Errors
    /// `Range` if a prime comes twice, or without any; `OutOfMemory`.
    pub fn new(primes: &[Field]) -> Result<Self, KernelError> {
        if primes.is_empty() {
            return Err(KernelError::Range {
                what: "list of primes (at least one)",
            });
        }
        let mut weights = Vec::new();
        for (q, field) in primes.iter().enumerate() {
            let before = &primes[..q];
            if before.contains(field) {
                return Err(KernelError::Range {
                    what: "list of primes (each once)",
                });
            }
            let product = |count: usize| {
                before[..count].iter().fold(1, |product, other| {
                    multiply(field, product, other.prime() % field.prime())
                })
            };
            let inverse = field.invert(product(q));
            let mut row = Vec::new();
            push(&mut row, field.canonical(inverse))?;
            for r in 0..q {
                let weight = multiply(field, product(r), inverse);
                push(&mut row, field.canonical(field.prime() - weight))?;
            }
            push(&mut weights, row)?;
        }
        let mut digits = Vec::new();
        resize(&mut digits, CHUNK * primes.len(), 0)?;
        Ok(Self {
            primes: primes.to_vec(),
            weights,
            digits,
        })
    }

    /// Writes the integers nearest to 0 that have these residues (for each prime a slice, canonical), in
    /// two's complement of `limbs` 64-bit limbs each, of which higher ones are cut off. Cost: q²/2
    /// multiply-adds for q primes, and q·limbs/4 for the limbs, for each integer.
    ///
    /// # Errors
    /// `Shape` if a number or a length is not right.
    pub fn integers(
        &mut self,
        residues: &[&[i16]],
        limbs: usize,
        to: &mut [u64],
    ) -> Result<(), KernelError> {
        same("residues of an integer", self.primes.len(), residues.len())?;
        let len = residues[0].len();
        for plane in residues {
            same("integers", len, plane.len())?;
        }
        same("limbs of the integers", len.saturating_mul(limbs), to.len())?;
        for start in (0..len).step_by(CHUNK) {
            let count = CHUNK.min(len - start);
            for (q, (field, weights)) in self.primes.iter().zip(&self.weights).enumerate() {
                let (known, next) = self.digits.split_at_mut(q * CHUNK);
                let mut inputs: Vec<&[i16]> = Vec::new();
                push(&mut inputs, &residues[q][start..start + count])?;
                for digit in known.chunks_exact(CHUNK) {
                    push(&mut inputs, &digit[..count])?;
                }
                combine(field, weights, &inputs, &mut [&mut next[..count]])?;
            }
            let to = &mut to[start * limbs..(start + count) * limbs];
            to.fill(0);
            if limbs == 0 {
                continue;
            }
            let groups = self.primes.chunks(GROUP);
            for (primes, digits) in groups.zip(self.digits.chunks(GROUP * CHUNK)).rev() {
                let mut words = [0; CHUNK];
                group(primes, digits, &mut words[..count]);
                push_group(step(primes), &words[..count], limbs, to);
            }
        }
        Ok(())
    }
}

/// Digits that are put together in one word: below 2^59 in magnitude.
const GROUP: usize = 4;

widest! {
    /// Up to [`GROUP`] digits of consecutive primes as one number.
    fn group(primes: &[Field], digits: &[i16], to: &mut [i64]) {
        to.fill(0);
        for (field, digits) in primes.iter().zip(digits.chunks_exact(CHUNK)).rev() {
            let p = i64::from(field.prime());
            for (to, &digit) in to.iter_mut().zip(digits) {
                *to = *to * p + i64::from(digit);
            }
        }
    }
}

/// The product of the primes of a group.
fn step(primes: &[Field]) -> u64 {
    primes
        .iter()
        .map(|field| u64::from(field.prime()))
        .product()
}

/// Adds a group to the integers, of which those above it have been: `x = x·step + group`, from the last
/// group down.
fn push_group(step: u64, group: &[i64], limbs: usize, to: &mut [u64]) {
    match limbs {
        1 => one_limb(step, group, to),
        2 => two_limbs(step, group, to),
        _ => many_limbs(step, group, limbs, to),
    }
}

widest! {
    fn one_limb(step: u64, group: &[i64], to: &mut [u64]) {
        for (to, &word) in to.iter_mut().zip(group) {
            *to = to.wrapping_mul(step).wrapping_add(word as u64);
        }
    }
}

fn two_limbs(step: u64, group: &[i64], to: &mut [u64]) {
    for (to, &word) in to.chunks_exact_mut(2).zip(group) {
        let x = u128::from(to[1]) << 64 | u128::from(to[0]);
        let x = x
            .wrapping_mul(step.into())
            .wrapping_add(i128::from(word) as u128);
        to.copy_from_slice(&[x as u64, (x >> 64) as u64]);
    }
}

fn many_limbs(step: u64, group: &[i64], limbs: usize, to: &mut [u64]) {
    for (to, &word) in to.chunks_exact_mut(limbs).zip(group) {
        // Above the first limb a negative number is all ones.
        let (mut word, above) = (word as u64, (word >> 63) as u64);
        let mut carry = 0;
        for limb in to {
            let sum = u128::from(*limb) * u128::from(step) + u128::from(word) + carry;
            *limb = sum as u64;
            carry = sum >> 64;
            word = above;
        }
    }
}
