//! Floating-point numbers as integers, so that their product can be shared over a field.
//!
//! Each row of A and each column of B has a scale: with |a_ik| < 2^e for all of row i, the integer of a_ik is
//! `round(a_ik·2^(f - e))`, where f is the number of *bits kept*. Nobody but the coordinator sees a scale.
//!
//! With |δ| <= 1/2 what rounding to an integer is off by, for e of the row and g of the column,
//!
//! ```text
//! |Σ a·b - 2^(e+g-2f)·Σ A·B| <= k·2^(e+g)·(2^-f + 2^(-2f-2))
//! ```
//!
//! and the result is rounded once more to a float.

use crate::matrix::{KernelError, same};

/// The most bits kept: as many as an `f64` has.
pub const BITS_MAX: u32 = 53;

/// The longest inner dimension: results then are below 2^127 with all bits kept.
pub const INNER_MAX: usize = 1 << 20;

/// The smallest e with |x| < 2^e for all elements; `i32::MIN` if all are 0.
///
/// # Errors
/// `Range` for an infinity or a NaN.
pub fn exponent(elements: impl Iterator<Item = f64>) -> Result<i32, KernelError> {
    let mut exponent = i32::MIN;
    for x in elements {
        if !x.is_finite() {
            return Err(KernelError::Range {
                what: "element of a matrix (finite numbers only)",
            });
        }
        if x != 0.0 {
            exponent = exponent.max(libm::frexp(x).1);
        }
    }
    Ok(exponent)
}

/// `round(x·2^(bits - exponent))` for each element, as integers of one limb in two's complement; at most 2^bits
/// in magnitude. `exponent` is that of [`exponent`] or more.
///
/// # Errors
/// `Range` if more than [`BITS_MAX`] bits are to be kept, or an element is 2^exponent or more or is not
/// finite; `Shape` unless there are as many integers as elements.
pub fn to_integers(
    elements: &[f64],
    exponent: i32,
    bits: u32,
    to: &mut [u64],
) -> Result<(), KernelError> {
    same("integers", elements.len(), to.len())?;
    if bits > BITS_MAX {
        return Err(KernelError::Range {
            what: "bits kept (at most 53)",
        });
    }
    let most = libm::ldexp(1.0, bits as i32);
    for (to, &x) in to.iter_mut().zip(elements) {
        let scaled = if x == 0.0 {
            0.0
        } else {
            libm::ldexp(x, (bits as i32).saturating_sub(exponent))
        };
        if scaled.is_nan() || scaled.abs() > most {
            return Err(KernelError::Range {
                what: "element of a matrix (below its scale)",
            });
        }
        *to = libm::rint(scaled) as i64 as u64;
    }
    Ok(())
}

/// Bits of the magnitude of an element of the product of integers of `bits` bits kept.
///
/// # Errors
/// `Overflow` beyond [`INNER_MAX`].
pub fn product_bits(bits: u32, inner: usize) -> Result<u32, KernelError> {
    if inner > INNER_MAX {
        return Err(KernelError::Overflow {
            what: "sum of products of fixed-point numbers",
        });
    }
    // Sums reach inner·2^(2·bits), which has a bit more.
    Ok(2 * bits + crate::integer::ceil_log2(inner) + 1)
}

/// `c·2^(left + right - 2·bits)` to the nearest, for the exponents of the row and the column (twice rounded
/// below the smallest normal number); 0 if one of them is that of zeros.
pub fn from_integer(c: i128, left: i32, right: i32, bits: u32) -> f64 {
    if left == i32::MIN || right == i32::MIN {
        return 0.0;
    }
    libm::ldexp(
        c as f64,
        left.saturating_add(right).saturating_sub(2 * bits as i32),
    )
}

/// How far an element can be from the true one: `inner·2^(left + right)·(2^-f + 2^(-2f - 2) + 2^-52)`, and
/// 2^-1074 where numbers are below normal. The last term is for the rounding to `f64`, twice.
pub fn error_bound(inner: usize, left: i32, right: i32, bits: u32) -> f64 {
    if left == i32::MIN || right == i32::MIN {
        return 0.0;
    }
    let bits = bits as i32;
    let relative = libm::ldexp(1.0, -bits) + libm::ldexp(1.0, -2 * bits - 2) + f64::EPSILON;
    libm::ldexp(inner as f64 * relative, left.saturating_add(right)) + f64::from_bits(1)
}
