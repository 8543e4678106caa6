//! Primes below 2^12, and the constants of the Chinese remainder theorem for products modulo them.
//!
//! Residues are at most p/2 + 94 in magnitude, so that 512 products and a residue stay within 31 bits.
//! Where the 94 comes from: [`PairKernel::residues`](crate::arch::pairs::PairKernel::residues) reduces sums
//! below 2^29 + 2^12, and its quotient is off by at most three roundings of 2^-24, before it is rounded to
//! an integer. Sums of products are below 2^31, and what becomes of them at most p/2 + 384.
//!
//! With M the product of the primes, s_p ≡ C·(M/p)^-1 (mod p) of any size, and C an integer with
//! |C| < 0.485·M:
//!
//! ```text
//! C = Σ_p s_p·(M/p) - q·M,     q = round(Σ_p s_p/p)
//! ```
//!
//! Source: Bernstein, *Multidigit modular multiplication with the explicit Chinese remainder theorem*, 1995;
//! Kawamura, Koike, Sano, Shimbo, *Cox-Rower Architecture for Fast Parallel Montgomery Multiplication*,
//! EUROCRYPT 2000. Here the factor (M/p)^-1 is part of the weights that make residues of A, so that the
//! products are s_p, and s_p/p is a number of 26 bits after the point, off by 2^-15 at most.

use alloc::vec::Vec;

use crate::arch::pairs::{Reduction, TERMS};
use crate::integer::{bit_length, digit16, multiply_small, power_mod};
use crate::matrix::{KernelError, push, resize};
use crate::pairs::{CHAIN, flip};

/// The largest of [`PRIMES`].
const LARGEST: u16 = 3907;

/// Primes are above this, so that 2^26/p fits 16 bits.
const LEAST: u16 = 2048;

/// The most that a residue is above p/2, and a residue of a sum of products.
const ABOVE: [u64; 2] = [94, 384];

const _: () = {
    let half = LARGEST as u64 / 2;
    let residue = half + ABOVE[0];
    assert!(CHAIN as u64 * residue * residue + half + ABOVE[1] < 1 << 31);
    // |quotient·p| is off by p times three roundings of the largest sum over p, from above.
    let sum = 2 * TERMS as u64 * (half << 15) + 4096;
    assert!(sum < 1 << 29 && (sum * 3).div_ceil(1 << 24) <= ABOVE[0]);
    assert!((3u64 << 31) >> 24 <= ABOVE[1]);
    // Sums of a group in `crt` are within 31 bits, the part for q too.
    assert!(GROUP as u64 * ((half + ABOVE[1]) << 15) + (1 << 27) < 1 << 31);
};

/// Primes whose residues are held at once, and whose part of the sum for C is taken in 32 bits. Even.
pub(crate) const GROUP: usize = 24;

const COUNT: usize = 231;

/// All primes from [`LARGEST`] down to [`LEAST`].
const PRIMES: [u16; COUNT] = {
    let mut primes = [0; COUNT];
    let (mut n, mut found) = (LARGEST, 0);
    while n > LEAST {
        let mut divisor = 3;
        while divisor * divisor <= n && n % divisor != 0 {
            divisor += 2;
        }
        if divisor * divisor > n {
            primes[found] = n;
            found += 1;
        }
        n -= 2;
    }
    assert!(found == COUNT && primes[0] == LARGEST, "the table is full");
    primes
};

/// How many primes results below 2^bits in magnitude need: M is above 33/16 of 2^bits.
pub(crate) fn needed(bits: u32) -> Option<usize> {
    let mut missing = f64::from(bits) + 1.0445;
    PRIMES
        .iter()
        .position(|&p| {
            missing -= libm::log2(f64::from(p));
            missing < 0.0
        })
        .map(|last| last + 1)
}

/// One prime.
#[derive(Clone, Copy, Debug)]
struct Prime {
    p: u32,
    /// (M/p)^-1 mod p.
    inverse: u32,
}

impl Prime {
    /// The residue nearest to 0.
    fn balanced(&self, x: u64) -> i32 {
        let rest = (x % u64::from(self.p)) as i32;
        if rest > self.p as i32 / 2 {
            rest - self.p as i32
        } else {
            rest
        }
    }
}

/// The primes of one product and what the conversions need.
#[derive(Debug, Default)]
pub(crate) struct Basis {
    primes: Vec<Prime>,
    /// 16-bit digits of a result (or of a weight modulo the modulus).
    width: usize,
    /// For each group of primes: for each digit d the digits of M/p, two primes to an element; then
    /// round(2^26/p).
    weights: Vec<u32>,
    /// The digits of -M, each below a zero.
    multiple: Vec<u32>,
}

/// How the operands become residues: see [`PairKernel::residues`](crate::arch::pairs::PairKernel::residues).
#[derive(Debug, Default)]
pub(crate) struct Weights {
    pub(crate) terms: usize,
    pub(crate) digits: Vec<u32>,
    pub(crate) starts: Vec<i32>,
}

impl Basis {
    /// For results below 2^bits in magnitude; with a modulus, for results modulo that.
    pub(crate) fn new(bits: u32, modulus: Option<u64>) -> Result<Self, KernelError> {
        let count = needed(bits).ok_or(KernelError::Overflow {
            what: "exact result",
        })?;
        let mut product = Vec::new();
        push(&mut product, 1u64)?;
        for &p in &PRIMES[..count] {
            multiply_small(&mut product, p.into())?;
        }
        // w signed digits reach nearly 2^(16w - 1); residues are below half of the modulus.
        let most = modulus.map_or(bit_length(&product) + 1, |m| 64 - m.leading_zeros());
        let width = (most + 1).div_ceil(16) as usize;
        let columns = width + 1;
        let mut made = Self {
            primes: Vec::new(),
            width,
            weights: Vec::new(),
            multiple: Vec::new(),
        };
        resize(&mut made.weights, count.div_ceil(2) * columns, 0)?;
        resize(&mut made.multiple, width, 0)?;
        let mut rest = Vec::new();
        resize(&mut rest, product.len(), 0u64)?;
        for (index, &p) in PRIMES[..count].iter().enumerate() {
            let wide = u64::from(p);
            divide(&product, wide, &mut rest);
            let inverse = power_mod(remainder(&rest, wide), wide - 2, wide) as u32;
            push(
                &mut made.primes,
                Prime {
                    p: p.into(),
                    inverse,
                },
            )?;
            let group = index / GROUP;
            let pairs = GROUP.min(count - group * GROUP).div_ceil(2);
            let column = &mut made.weights[group * (GROUP / 2) * columns..];
            let (pair, shift) = (index % GROUP / 2, 16 * (index % 2));
            each_digit(&rest, modulus, false, width, |d, digit| {
                column[d * pairs + pair] |= u32::from(digit as u16) << shift;
            });
            let fraction = ((1 << FRACTION) + u32::from(p) / 2) / u32::from(p);
            column[width * pairs + pair] |= fraction << shift;
        }
        let multiple = &mut made.multiple;
        each_digit(&product, modulus, true, width, |d, digit| {
            multiple[d] = u32::from(digit as u16);
        });
        Ok(made)
    }

    pub(crate) fn count(&self) -> usize {
        self.primes.len()
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The digits of -M, as weights of one pair.
    pub(crate) fn multiple(&self) -> &[u32] {
        &self.multiple
    }

    /// The weights of group `index`, and how many pairs of primes it has.
    pub(crate) fn group(&self, index: usize) -> (&[u32], usize) {
        let columns = self.width + 1;
        let pairs = (self.count() - index * GROUP).min(GROUP).div_ceil(2);
        let start = index * (GROUP / 2) * columns;
        (&self.weights[start..][..pairs * columns], pairs)
    }

    /// The reduction modulo prime `index`.
    pub(crate) fn reduction(&self, index: usize) -> Reduction {
        let p = self.primes[index].p;
        Reduction {
            p: p as i32,
            inverse: 1.0 / p as f32,
        }
    }

    /// How operands of `terms` times 32 bits become residues, `scaled` by (M/p)^-1 or not.
    pub(crate) fn operand(&self, terms: usize, scaled: bool) -> Result<Weights, KernelError> {
        let mut made = Weights {
            terms,
            ..Weights::default()
        };
        resize(&mut made.digits, terms * self.count(), 0)?;
        resize(&mut made.starts, self.count(), 0)?;
        for (prime, (digits, start)) in self
            .primes
            .iter()
            .zip(made.digits.chunks_exact_mut(terms).zip(&mut made.starts))
        {
            let mut weight = u64::from(if scaled { prime.inverse } else { 1 });
            let mut shifted = 0;
            for (t, digits) in digits.iter_mut().enumerate() {
                for half in [0, 16] {
                    let digit = prime.balanced(weight);
                    *digits |= u32::from(digit as i16 as u16) << half;
                    if flip(t, terms) >> half & 0xffff != 0 {
                        shifted += weight << 15;
                    }
                    weight = (weight << 16) % u64::from(prime.p);
                }
            }
            *start = prime.balanced(shifted);
        }
        Ok(made)
    }
}

/// Bits after the point of s_p/p.
pub(crate) const FRACTION: u32 = 26;

/// `quotient = number / divisor` for a divisor below 2^32.
fn divide(number: &[u64], divisor: u64, quotient: &mut [u64]) {
    let mut rest = 0;
    for (to, &limb) in quotient.iter_mut().zip(number).rev() {
        let high = (rest << 32) | (limb >> 32);
        let low = ((high % divisor) << 32) | (limb & 0xffff_ffff);
        *to = ((high / divisor) << 32) | (low / divisor);
        rest = low % divisor;
    }
}

fn remainder(number: &[u64], divisor: u64) -> u64 {
    number.iter().rev().fold(0, |rest, &limb| {
        ((u128::from(rest) << 64 | u128::from(limb)) % u128::from(divisor)) as u64
    })
}

/// The signed 16-bit digits of `number`, or of the residue nearest to 0, or of minus that.
fn each_digit(
    number: &[u64],
    modulus: Option<u64>,
    minus: bool,
    width: usize,
    mut digit: impl FnMut(usize, i16),
) {
    let mut small = [0];
    let (magnitude, negative) = match modulus {
        None => (number, minus),
        Some(m) => {
            let rest = remainder(number, m);
            let upper = rest > m / 2;
            small[0] = if upper { m - rest } else { rest };
            (&small[..], upper != minus)
        }
    };
    // From -2^15 to 2^15 - 1 after the sign.
    let least = if negative { 32_769 } else { 32_768 };
    let mut carry = 0;
    for d in 0..width {
        let value = i32::from(digit16(magnitude, d)) + carry;
        carry = i32::from(value >= least);
        let value = value - (carry << 16);
        digit(d, if negative { -value } else { value } as i16);
    }
    debug_assert_eq!(carry, 0, "the digits hold the number");
}
