//! Scales of floats: the exponent of each row of A and of each column of B, and numbers as integers of that scale.

use gemmesh_protocol::matrix::Dtype;
use gemmesh_protocol::tile::Rect;

use crate::error::ApiError;
use crate::files::Source as _;
use crate::store::{MatrixFile, StoreError};

/// Elements that are read at a time, about.
const PIECE: u64 = 1 << 19;

/// What no float has: the exponent of zeros.
pub(super) const ZEROS: i32 = i32::MIN;

/// For each row the least e with |x| < 2^e for all elements.
pub(super) async fn of_rows(source: MatrixFile) -> Result<Vec<i32>, ApiError> {
    exponents(source, true).await
}

/// For each column the same.
pub(super) async fn of_columns(source: MatrixFile) -> Result<Vec<i32>, ApiError> {
    exponents(source, false).await
}

async fn exponents(mut source: MatrixFile, by_row: bool) -> Result<Vec<i32>, ApiError> {
    let work = tokio::task::spawn_blocking(move || {
        let (rows, cols) = (source.manifest.rows, source.manifest.cols);
        let dtype = source.manifest.element.dtype;
        let mut exponents = vec![ZEROS; if by_row { rows } else { cols } as usize];
        let step = (PIECE / cols).max(1);
        let mut bytes = Vec::new();
        for row in (0..rows).step_by(step as usize) {
            let band = Rect {
                row,
                col: 0,
                rows: step.min(rows - row),
                cols,
            };
            source.read(band, &mut bytes)?;
            for (at, x) in floats(dtype, &bytes).enumerate() {
                let (i, j) = (row + at as u64 / cols, at as u64 % cols);
                if !x.is_finite() {
                    return Err(not_finite(if by_row { "a" } else { "b" }, i, j));
                }
                if x != 0.0 {
                    let place = if by_row { i } else { j } as usize;
                    exponents[place] = exponents[place].max(exponent(x));
                }
            }
        }
        Ok(exponents)
    });
    work.await.map_err(|_| StoreError::Closed)?
}

fn not_finite(name: &str, row: u64, col: u64) -> ApiError {
    ApiError::new(
        422,
        "not_finite",
        format!(
            "{name}: the element in row {} and column {} is no finite number, and shares are made of integers",
            row + 1,
            col + 1
        ),
        "take it out, or submit in mode plain",
    )
}

/// The least e with |x| < 2^e, of a finite number that is not 0.
fn exponent(x: f64) -> i32 {
    let stored = (x.to_bits() >> 52 & 0x7ff) as i32;
    if stored > 0 {
        return stored - 1022;
    }
    // Below normal: the place of the first digit.
    let digits = x.to_bits() & ((1 << 52) - 1);
    -1074 + 64 - digits.leading_zeros() as i32
}

/// The elements as f64.
pub(super) fn floats(dtype: Dtype, bytes: &[u8]) -> Box<dyn Iterator<Item = f64> + '_> {
    match dtype {
        Dtype::F32 => Box::new(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|x| f64::from(f32::from_le_bytes(*x))),
        ),
        _ => Box::new(bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x))),
    }
}

/// `2^(bits - exponent)` as two factors, neither of which is beyond what a float has.
pub(super) fn factors(exponent: i32, bits: u16) -> [f64; 2] {
    if exponent == ZEROS {
        return [0.0; 2];
    }
    let power = i32::from(bits) - exponent;
    let half = power / 2;
    [half, power - half].map(|power| f64::from_bits(((power + 1023) as u64) << 52))
}

/// `round(x·2^(bits - exponent))` in two's complement.
pub(super) fn integer(x: f64, [first, second]: [f64; 2]) -> u64 {
    (x * first * second).round_ties_even() as i64 as u64
}

#[cfg(test)]
mod tests {
    use gemmesh_kernel::coding::fixed;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_are_those_of_the_kernel(bits: u64, kept in 2u16..=53, more in 0i32..60) {
            let x = f64::from_bits(bits);
            prop_assume!(x.is_finite() && x != 0.0);
            prop_assert_eq!(Ok(exponent(x)), fixed::exponent([x].into_iter()));
            let exponent = exponent(x) + more;
            let mut expected = [0];
            fixed::to_integers(&[x], exponent, kept.into(), &mut expected).expect("below its scale");
            prop_assert_eq!(integer(x, factors(exponent, kept)), expected[0]);
        }
    }
}
