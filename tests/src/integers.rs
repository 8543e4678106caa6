//! Matrices of 62-bit integers, and the oracle of their products. Written without the program's own code.

use std::io::Cursor;

use npyz::WriterBuilder as _;
use num_bigint::BigInt;

use crate::matrices::Random;

/// The prime 2^61 − 1.
const PRIME: u64 = (1 << 61) - 1;
/// Rows that are computed again in full.
const ROWS_CHECKED: usize = 3;
/// Products of two entries whose sum has at most 127 bits.
const CHUNK: usize = 16;

/// A dense matrix of integers of at most 62 bits, sign included; row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integers {
    rows: usize,
    cols: usize,
    data: Vec<i64>,
}

impl Integers {
    /// Entries of 62 bits.
    pub fn random(rows: usize, cols: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let data = (0..rows * cols).map(|_| random.bits() as i64 >> 2);
        let data = data.collect();
        Self { rows, cols, data }
    }

    /// Zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        let data = vec![0; rows * cols];
        Self { rows, cols, data }
    }

    /// As an `.npy` file.
    pub fn npy(&self) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[self.rows as u64, self.cols as u64])
            .writer(&mut bytes)
            .begin_nd()
            .expect("memory takes any bytes");
        writer.extend(&self.data).expect("memory takes any bytes");
        writer.finish().expect("memory takes any bytes");
        bytes.into_inner()
    }

    /// Why `csv` is not this matrix times `b`, if it is not: some rows in full, and the whole by
    /// Freivalds' test, C·x = A·(B·x) modulo a prime of 61 bits for a random x. A row with a wrong
    /// element, unless wrong by a multiple of the prime, passes with a probability of 2^-61.
    ///
    /// # Panics
    /// When the factors do not fit.
    pub fn product_fault(&self, b: &Self, csv: &[u8]) -> Option<String> {
        assert_eq!(self.cols, b.rows, "the factors fit");
        let mut random = Random(0x5eed ^ csv.len() as u64);
        let x: Vec<u64> = (0..b.cols).map(|_| random.bits() % PRIME).collect();
        let wanted = self.times_vector(&b.times_vector(&x));
        let Ok(text) = str::from_utf8(csv) else {
            return Some("it is no text".to_owned());
        };
        let mut count = 0;
        for (i, line) in text.lines().enumerate() {
            count += 1;
            if i >= self.rows {
                continue;
            }
            let (mut sum, mut cells) = (0, 0);
            for (j, cell) in line.split(',').enumerate() {
                cells += 1;
                let Some(value) = residue(cell) else {
                    return Some(format!("element ({i}, {j}) is {cell:?}"));
                };
                sum = (sum + times(value, *x.get(j).unwrap_or(&0))) % PRIME;
            }
            if cells != b.cols {
                return Some(format!("row {i} has {cells} elements, not {}", b.cols));
            }
            if sum != wanted[i] {
                return Some(format!("row {i} of the product is wrong"));
            }
            let step = (self.rows / ROWS_CHECKED).max(1);
            if i % step == 0 {
                for (j, cell) in line.split(',').enumerate() {
                    let wanted = self.element_of_product(b, i, j).to_string();
                    if cell != wanted {
                        return Some(format!("element ({i}, {j}) is {cell}, not {wanted}"));
                    }
                }
            }
        }
        (count != self.rows).then(|| format!("it has {count} rows, not {}", self.rows))
    }

    fn times_vector(&self, x: &[u64]) -> Vec<u64> {
        let rows = self.data.chunks_exact(self.cols);
        let sum = |row: &[i64]| {
            let products = row.iter().zip(x).map(|(&a, &x)| times(of(a), x));
            products.fold(0, |sum, product| (sum + product) % PRIME)
        };
        rows.map(sum).collect()
    }

    fn element_of_product(&self, b: &Self, i: usize, j: usize) -> BigInt {
        let row = &self.data[i * self.cols..(i + 1) * self.cols];
        let mut total = BigInt::from(0);
        for (at, chunk) in row.chunks(CHUNK).enumerate() {
            let products = chunk
                .iter()
                .enumerate()
                .map(|(k, &a)| i128::from(a) * i128::from(b.data[(at * CHUNK + k) * b.cols + j]));
            total += products.sum::<i128>();
        }
        total
    }
}

fn of(value: i64) -> u64 {
    value.rem_euclid(PRIME as i64) as u64
}

fn times(a: u64, b: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64
}

/// A decimal number of any length modulo the prime.
fn residue(cell: &str) -> Option<u64> {
    let digits = cell.strip_prefix('-').unwrap_or(cell).as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.chunks(18).fold(0, |value, chunk| {
        let scale = 10_u64.pow(chunk.len() as u32);
        let part = chunk.iter().fold(0, |n, d| 10 * n + u64::from(d - b'0'));
        (times(value, scale) + part) % PRIME
    });
    let negative = cell.starts_with('-') && value != 0;
    Some(if negative { PRIME - value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrices::{integer_csv, integer_product};

    #[test]
    fn the_oracle_accepts_the_product_and_nothing_else() {
        let (a, b) = (Integers::random(20, 37, 1), Integers::random(37, 11, 2));
        let big = |m: &Integers| -> Vec<Vec<BigInt>> {
            let rows = m.data.chunks(m.cols);
            rows.map(|row| row.iter().map(|&n| BigInt::from(n)).collect())
                .collect()
        };
        let mut c = integer_product(&big(&a), &big(&b));
        let fault = |c: &[Vec<BigInt>]| a.product_fault(&b, integer_csv(c).as_bytes());
        assert_eq!(fault(&c), None);
        c[17][5] += 1;
        assert!(fault(&c).is_some(), "an element off by one");
        c[17][5] -= 1;
        assert!(fault(&c[..19]).is_some(), "a row too few");
        c.push(c[0].clone());
        assert!(fault(&c).is_some(), "a row too many");
    }
}
