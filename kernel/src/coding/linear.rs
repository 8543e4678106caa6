//! Small matrices modulo a prime, for finding points and weights.

use alloc::vec::Vec;

use super::Field;
use crate::integer::power_mod;
use crate::matrix::{KernelError, resize};

pub(super) fn multiply(field: &Field, x: u32, y: u32) -> u32 {
    (u64::from(x) * u64::from(y) % u64::from(field.prime())) as u32
}

pub(super) fn add(field: &Field, x: u32, y: u32) -> u32 {
    ((u64::from(x) + u64::from(y)) % u64::from(field.prime())) as u32
}

pub(super) fn subtract(field: &Field, x: u32, y: u32) -> u32 {
    add(field, x, field.prime() - y)
}

pub(super) fn power(field: &Field, x: u32, exponent: u32) -> u32 {
    power_mod(x.into(), exponent.into(), field.prime().into()) as u32
}

/// A square matrix of residues from 0 to p - 1.
#[derive(Debug)]
pub(super) struct Square {
    size: usize,
    elements: Vec<u32>,
}

impl Square {
    pub(super) fn new(
        size: usize,
        mut at: impl FnMut(usize, usize) -> u32,
    ) -> Result<Self, KernelError> {
        let mut elements = Vec::new();
        resize(&mut elements, size * size, 0)?;
        for (row, elements) in elements.chunks_exact_mut(size.max(1)).enumerate() {
            for (col, element) in elements.iter_mut().enumerate() {
                *element = at(row, col);
            }
        }
        Ok(Self { size, elements })
    }

    /// The inverse, or nothing if there is none. Gauss and Jordan: size³ operations.
    pub(super) fn inverse(mut self, field: &Field) -> Result<Option<Self>, KernelError> {
        let size = self.size;
        let mut other = Self::new(size, |row, col| u32::from(row == col))?;
        for col in 0..size {
            let Some(pivot) = (col..size).find(|&row| self.elements[row * size + col] != 0) else {
                return Ok(None);
            };
            for matrix in [&mut self, &mut other] {
                matrix.exchange(pivot, col);
            }
            let scale = field.invert(self.elements[col * size + col]);
            for matrix in [&mut self, &mut other] {
                for x in &mut matrix.elements[col * size..][..size] {
                    *x = multiply(field, *x, scale);
                }
            }
            for row in (0..size).filter(|&row| row != col) {
                let factor = self.elements[row * size + col];
                if factor != 0 {
                    self.eliminate(field, row, col, factor);
                    other.eliminate(field, row, col, factor);
                }
            }
        }
        Ok(Some(other))
    }

    /// Whether there is an inverse: size³/3 operations.
    pub(super) fn regular(mut self, field: &Field) -> bool {
        let size = self.size;
        for col in 0..size {
            let Some(pivot) = (col..size).find(|&row| self.elements[row * size + col] != 0) else {
                return false;
            };
            self.exchange(pivot, col);
            let inverse = field.invert(self.elements[col * size + col]);
            for row in col + 1..size {
                let factor = multiply(field, self.elements[row * size + col], inverse);
                if factor != 0 {
                    self.eliminate(field, row, col, factor);
                }
            }
        }
        true
    }

    pub(super) fn row(&self, row: usize) -> &[u32] {
        &self.elements[row * self.size..][..self.size]
    }

    fn exchange(&mut self, x: usize, y: usize) {
        if x != y {
            for col in 0..self.size {
                self.elements.swap(x * self.size + col, y * self.size + col);
            }
        }
    }

    /// `row -= factor·source`.
    fn eliminate(&mut self, field: &Field, row: usize, source: usize, factor: u32) {
        let minus = field.prime() - factor;
        for col in 0..self.size {
            let product = multiply(field, self.elements[source * self.size + col], minus);
            let x = &mut self.elements[row * self.size + col];
            *x = add(field, *x, product);
        }
    }
}

/// The number of subsets of `choose` out of `of`; saturating.
pub(super) fn subsets(of: usize, choose: usize) -> u64 {
    let choose = choose.min(of.saturating_sub(choose));
    (0..choose as u64).fold(1u64, |count, i| {
        // Exact: a product of i + 1 numbers that follow each other is divisible by (i + 1)!.
        count
            .checked_mul(of as u64 - i)
            .map_or(u64::MAX, |all| all / (i + 1))
    })
}

/// Calls `each` with every subset of `choose` out of `0..of`, ascending, until it says false; says whether
/// it never did.
pub(super) fn every_subset(
    of: usize,
    choose: usize,
    mut each: impl FnMut(&[usize]) -> Result<bool, KernelError>,
) -> Result<bool, KernelError> {
    if choose > of {
        return Ok(true);
    }
    let mut chosen: Vec<usize> = (0..choose).collect();
    loop {
        if !each(&chosen)? {
            return Ok(false);
        }
        // The last place that can still move up.
        let Some(at) = (0..choose).rev().find(|&i| chosen[i] < of - choose + i) else {
            return Ok(true);
        };
        let next = chosen[at] + 1;
        for (i, place) in chosen[at..].iter_mut().enumerate() {
            *place = next + i;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::ChaCha;

    #[test]
    fn inverses_are_inverses_and_singular_matrices_have_none() {
        let mut random = ChaCha::new([4; 32]);
        for p in [5, 11, 32_749] {
            let field = Field::new(p).unwrap();
            for size in 0..6 {
                for _ in 0..40 {
                    let elements: Vec<u32> = (0..size * size)
                        .map(|_| random.below(p.into()) as u32)
                        .collect();
                    let make = || Square::new(size, |i, j| elements[i * size + j]).unwrap();
                    let inverse = make().inverse(&field).unwrap();
                    assert_eq!(inverse.is_some(), make().regular(&field));
                    let Some(inverse) = inverse else { continue };
                    for i in 0..size {
                        for j in 0..size {
                            let sum = (0..size).fold(0, |sum, k| {
                                let product =
                                    multiply(&field, elements[i * size + k], inverse.row(k)[j]);
                                add(&field, sum, product)
                            });
                            assert_eq!(sum, u32::from(i == j));
                        }
                    }
                }
                let zero = Square::new(size, |_, _| 0).unwrap();
                assert_eq!(zero.inverse(&field).unwrap().is_some(), size == 0);
            }
        }
    }

    #[test]
    fn every_subset_comes_once() {
        for (of, choose) in [(0, 0), (1, 0), (4, 2), (5, 5), (6, 1), (7, 3), (2, 3)] {
            let mut seen = Vec::new();
            let all = every_subset(of, choose, |subset| {
                assert!(subset.is_sorted() && subset.iter().all(|&x| x < of));
                assert!(!seen.contains(&subset.to_vec()));
                seen.push(subset.to_vec());
                Ok(true)
            });
            assert!(all.unwrap());
            let expected = if choose > of { 0 } else { subsets(of, choose) };
            assert_eq!(seen.len() as u64, expected, "{choose} of {of}");
        }
        assert_eq!(subsets(20, 10), 184_756);
        assert_eq!(subsets(200, 100), u64::MAX);
    }
}
