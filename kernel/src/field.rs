//! Products modulo one prime, on the floating-point kernels: residues are integers in `f64`, small
//! enough that every sum is exact, so the class of the multiply-add does not matter.
//!
//! Source of the idea: Dumas, Giorgi, Pernet, *Dense Linear Algebra over Word-Size Prime Fields: the
//! FFLAS and FFPACK Packages*, ACM TOMS 35(3), 2008 (delayed reduction).

use crate::arch::widest;
use crate::gemm::{Class, Workspace, matmul};
use crate::integer::power_mod;
use crate::matrix::{KernelError, MatMut, MatRef};

/// Primes are below this, so that [`TERMS`] products of balanced residues stay below 2^53.
pub const PRIME_LIMIT: u32 = (1 << 23) - (1 << 15);

/// Terms that are summed before a reduction, for the largest primes; see [`Modulus::terms`].
pub const TERMS: usize = 512;

/// Where [`Modulus::reduce`] ends.
const REDUCIBLE: u64 = (1 << 53) - (1 << 23);

const _: () = {
    let residue = PRIME_LIMIT as u64 / 2 + 2;
    assert!(TERMS as u64 * residue * residue + residue <= REDUCIBLE);
};

/// A prime modulus and what reduction needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Modulus {
    prime: u32,
    p: f64,
    inverse: f64,
}

impl Modulus {
    /// The field of `prime` elements.
    ///
    /// # Errors
    /// `Range` unless `prime` is a prime from 5 to [`PRIME_LIMIT`].
    pub fn new(prime: u32) -> Result<Self, KernelError> {
        if !(5..PRIME_LIMIT).contains(&prime) || !is_prime(prime) {
            return Err(KernelError::Range {
                what: "modulus (a prime from 5 to 2^23 - 2^15)",
            });
        }
        Ok(Self {
            prime,
            p: f64::from(prime),
            inverse: 1.0 / f64::from(prime),
        })
    }

    /// The prime.
    pub fn prime(&self) -> u32 {
        self.prime
    }

    /// The balanced residue of the integer `x`, |x| <= 2^53 - 2^23: at most p/2 + 2 in magnitude.
    ///
    /// Two roundings put the quotient off by at most 2^-52·|x|/p < 2/p before it is rounded to an
    /// integer, so the residue is at most p/2 + 2. `quotient·p` is exact while it is below 2^53,
    /// which |x| <= 2^53 - 2^23 ensures: the sums of [`matmul_mod`] are below that.
    #[inline(always)]
    pub fn reduce(&self, x: f64) -> f64 {
        // Adding and subtracting 1.5·2^52 rounds to the nearest integer without a libm call.
        const ROUND: f64 = 6_755_399_441_055_744.0;
        let quotient = (x * self.inverse + ROUND) - ROUND;
        x - quotient * self.p
    }

    /// [`Self::reduce`] for every element.
    fn reduce_all(&self, c: &mut MatMut<'_, f64>) {
        c.for_each_row(|row| reduce_row(self, row), |x| *x = self.reduce(*x));
    }

    /// How many products of two residues, and a residue, [`Self::reduce`] can take in one sum: at least
    /// [`TERMS`], and more for smaller primes (32,767 at 20 bits).
    pub fn terms(&self) -> usize {
        let residue = u64::from(self.prime) / 2 + 2;
        let terms = (REDUCIBLE - residue) / (residue * residue);
        usize::try_from(terms).unwrap_or(usize::MAX)
    }

    /// `x^-1` for a residue x that is not 0.
    pub fn invert(&self, x: u32) -> u32 {
        power_mod(
            u64::from(x),
            u64::from(self.prime) - 2,
            u64::from(self.prime),
        ) as u32
    }

    /// The balanced residue of an unsigned integer.
    pub fn balanced(&self, x: u64) -> f64 {
        self.reduce((x % u64::from(self.prime)) as f64)
    }
}

widest! {
    /// [`Modulus::reduce`] for every element.
    fn reduce_row(modulus: &Modulus, row: &mut [f64]) {
        for x in row {
            *x = modulus.reduce(*x);
        }
    }
}

/// Trial division: at most 1,450 divisions for 23 bits.
fn is_prime(n: u32) -> bool {
    n == 2
        || n > 2
            && n % 2 == 1
            && (3..)
                .step_by(2)
                .take_while(|d| d * d <= n)
                .all(|d| !n.is_multiple_of(d))
}

/// The primes below [`PRIME_LIMIT`] from the largest down.
pub fn primes() -> impl Iterator<Item = Modulus> {
    (5..PRIME_LIMIT).rev().filter_map(|n| Modulus::new(n).ok())
}

/// `C = A·B mod p`, or `C += A·B mod p` if `accumulate`, on balanced residues.
///
/// A is rows × inner, B is inner × cols, C is rows × cols; every element an integer of magnitude at
/// most p/2 + 2, as [`Modulus::reduce`] gives. The result is such residues again. Sums are reduced
/// once per [`Modulus::terms`]. Cost: the product in `f64` plus one pass over C for each reduction.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_mod(
    modulus: &Modulus,
    accumulate: bool,
    a: MatRef<'_, f64>,
    b: MatRef<'_, f64>,
    mut c: MatMut<'_, f64>,
    workspace: &mut Workspace,
) -> Result<(), KernelError> {
    let inner = a.cols();
    let terms = modulus.terms();
    if inner <= terms {
        matmul(Class::Any, accumulate, a, b, c.reborrow(), workspace)?;
        modulus.reduce_all(&mut c);
        return Ok(());
    }
    let (rows, cols) = (a.rows(), b.cols());
    // The sizes are checked before C is touched.
    crate::matrix::same("rows of B (expected: columns of A)", inner, b.rows())?;
    // Nearly equal parts: a short last one would cost a pass over C all the same.
    let part = inner.div_ceil(inner.div_ceil(terms));
    for start in (0..inner).step_by(part) {
        let depth = part.min(inner - start);
        matmul(
            Class::Any,
            accumulate || start > 0,
            a.part(0, start, rows, depth)?,
            b.part(start, 0, depth, cols)?,
            c.reborrow(),
            workspace,
        )?;
        modulus.reduce_all(&mut c);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::ChaCha;
    use alloc::vec;

    #[test]
    fn the_largest_primes_are_known() {
        let found: vec::Vec<u32> = primes().take(4).map(|modulus| modulus.prime()).collect();
        assert_eq!(found, [8_355_827, 8_355_817, 8_355_779, 8_355_749]);
        for bad in [0, 1, 2, 3, 4, 9, 8_355_828, 8_388_593, u32::MAX] {
            assert!(Modulus::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reduction_is_balanced_and_congruent_over_the_whole_range() {
        let mut random = ChaCha::new([7; 32]);
        let extremes = [
            0,
            1,
            -1,
            (1 << 53) - (1 << 23),
            (1 << 23) - (1 << 53),
            1 << 52,
            1 << 44,
        ];
        for modulus in [
            Modulus::new(5).unwrap(),
            Modulus::new(65_537).unwrap(),
            primes().next().unwrap(),
        ] {
            let p = i64::from(modulus.prime());
            let drawn = (0..20_000).map(|_| random.next() as i64 >> (11 + random.next() % 53));
            for x in extremes.into_iter().chain(drawn) {
                let r = modulus.reduce(x as f64);
                assert_eq!((x - r as i64) % p, 0, "{x} mod {p} gave {r}");
                assert!(r.abs() <= p as f64 / 2.0 + 1.0, "{x} mod {p} gave {r}");
            }
        }
    }

    #[test]
    fn products_agree_with_integer_arithmetic() {
        let mut random = ChaCha::new([8; 32]);
        let mut workspace = Workspace::new();
        let modulus = primes().next().unwrap();
        let p = i64::from(modulus.prime());
        for (rows, inner, cols) in [
            (1, 1, 1),
            (3, 511, 5),
            (4, 512, 4),
            (7, 513, 9),
            (5, 2000, 6),
        ] {
            // The extremes of the range, so that a bound that is too weak shows.
            let mut draw = |_| match random.next() % 3 {
                0 => p / 2,
                1 => -(p / 2),
                _ => (random.next() % p as u64) as i64 - p / 2,
            };
            let a: vec::Vec<i64> = (0..rows * inner).map(&mut draw).collect();
            let b: vec::Vec<i64> = (0..inner * cols).map(&mut draw).collect();
            let float = |x: &[i64]| x.iter().map(|&x| x as f64).collect::<vec::Vec<f64>>();
            let (fa, fb) = (float(&a), float(&b));
            let mut c = vec![f64::NAN; rows * cols];
            for accumulate in [false, true] {
                matmul_mod(
                    &modulus,
                    accumulate,
                    MatRef::row_major(&fa, rows, inner).unwrap(),
                    MatRef::row_major(&fb, inner, cols).unwrap(),
                    MatMut::row_major(&mut c, rows, cols).unwrap(),
                    &mut workspace,
                )
                .unwrap();
                let times = if accumulate { 2 } else { 1 };
                for i in 0..rows {
                    for j in 0..cols {
                        let sum: i128 = (0..inner)
                            .map(|k| i128::from(a[i * inner + k]) * i128::from(b[k * cols + j]))
                            .sum();
                        let found = c[i * cols + j] as i128;
                        assert_eq!((times * sum - found) % i128::from(p), 0);
                        assert!(found.abs() <= i128::from(p / 2 + 1));
                    }
                }
            }
        }
    }
}
