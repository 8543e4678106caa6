//! The few operations on long integers that the exact product needs, on little-endian 64-bit limbs.

use alloc::vec::Vec;

use crate::arch::widest;
use crate::matrix::{KernelError, push};

/// `number *= factor` (unsigned; the number grows by a limb when it must).
pub(crate) fn multiply_small(number: &mut Vec<u64>, factor: u32) -> Result<(), KernelError> {
    let mut carry = 0u64;
    for limb in number.iter_mut() {
        let wide = u128::from(*limb) * u128::from(factor) + u128::from(carry);
        *limb = wide as u64;
        carry = (wide >> 64) as u64;
    }
    if carry > 0 {
        push(number, carry)?;
    }
    Ok(())
}

/// The position of the highest set bit plus one; 0 for 0.
pub(crate) fn bit_length(number: &[u64]) -> u32 {
    for (index, &limb) in number.iter().enumerate().rev() {
        if limb != 0 {
            return index as u32 * 64 + 64 - limb.leading_zeros();
        }
    }
    0
}

/// Digit `index` of 16 bits; 0 beyond the end.
pub(crate) fn digit16(number: &[u64], index: usize) -> u16 {
    number
        .get(index / 4)
        .map_or(0, |limb| (limb >> (16 * (index % 4))) as u16)
}

/// Whether |x| < 2^bits for every one of many numbers in two's complement, of `limbs` limbs each. Signs are
/// as good as random, so nothing here branches on them.
pub(crate) fn all_fit(numbers: &[u64], limbs: usize, bits: u32) -> bool {
    if limbs == 1 {
        return all_words_fit(
            numbers,
            u64::MAX.checked_shr(64 - bits.min(64)).unwrap_or(0),
        );
    }
    let (whole, rest) = ((bits / 64) as usize, bits % 64);
    let low = if bits < 64 { (1 << bits) - 1 } else { u64::MAX };
    numbers.chunks_exact(limbs).all(|x| {
        let sign = (x[limbs - 1] as i64 >> 63) as u64;
        let above = x
            .get(whole..)
            .and_then(<[u64]>::split_first)
            .map_or(0, |(first, above)| {
                above
                    .iter()
                    .fold((first ^ sign) >> rest, |all, limb| all | limb ^ sign)
            });
        // The magnitude of a negative number is one more than its complement.
        above == 0 && (x[0] ^ sign) & low != low || fits(x, bits)
    })
}

widest! {
    fn all_words_fit(words: &[u64], most: u64) -> bool {
        words.iter().fold(true, |all, &x| all & ((x as i64).unsigned_abs() <= most))
    }
}

/// Whether |x| < 2^bits for x in two's complement.
pub(crate) fn fits(x: &[u64], bits: u32) -> bool {
    let negative = x.last().is_some_and(|&top| top >> 63 == 1);
    if !negative {
        return bit_length(x) <= bits;
    }
    // |x| = !x + 1 has more than `bits` bits unless !x < 2^bits - 1.
    let complement_bits = (0..x.len())
        .rev()
        .find(|&i| x[i] != u64::MAX)
        .map_or(0, |i| i as u32 * 64 + 64 - (!x[i]).leading_zeros());
    if complement_bits > bits {
        return false;
    }
    complement_bits < bits || !all_ones_below(x, bits)
}

/// Whether the complement of x has all of its low `bits` bits set.
fn all_ones_below(x: &[u64], bits: u32) -> bool {
    let (whole, rest) = ((bits / 64) as usize, bits % 64);
    x[..whole].iter().all(|&limb| limb == 0)
        && (rest == 0 || x.get(whole).is_some_and(|&limb| limb << (64 - rest) == 0))
}

/// The smallest e with `2^e >= n` (0 for n <= 1).
pub(crate) fn ceil_log2(n: usize) -> u32 {
    if n <= 1 {
        0
    } else {
        usize::BITS - (n - 1).leading_zeros()
    }
}

/// `base^exponent mod modulus` for moduli below 2^32.
pub(crate) fn power_mod(base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let (mut base, mut result) = (base % modulus, 1 % modulus);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % modulus;
        }
        base = base * base % modulus;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_twos_complement_number_is_the_bit_length_of_its_magnitude() {
        assert!(fits(&[0], 0));
        assert!(fits(&[0, 0], 0));
        assert!(!fits(&[1], 0));
        assert!(fits(&[1], 1));
        assert!(fits(&[u64::MAX], 1), "-1");
        assert!(!fits(&[u64::MAX], 0), "-1 is not 0");
        assert!(fits(&[u64::MAX - 2], 2), "-3");
        assert!(!fits(&[u64::MAX - 3], 2), "-4");
        assert!(fits(&[u64::MAX - 3], 3), "-4");
        assert!(fits(&[1 << 63], 64), "i64::MIN");
        assert!(!fits(&[1 << 63], 63), "i64::MIN");
        assert!(fits(&[(1 << 63) + 1], 63));
        assert!(fits(&[0, u64::MAX], 65), "-2^64");
        assert!(!fits(&[0, u64::MAX], 64), "-2^64");
        assert!(fits(&[1, u64::MAX], 64), "1 - 2^64");
        assert!(fits(&[u64::MAX, 0], 64));
        assert!(!fits(&[u64::MAX, 0], 63));
        for x in -300i64..300 {
            let length = 64 - x.unsigned_abs().leading_zeros();
            for bits in 0..12 {
                assert_eq!(fits(&[x as u64], bits), length <= bits, "{x} in {bits}");
                let wide = [x as u64, (x >> 63) as u64];
                assert_eq!(
                    fits(&wide, bits),
                    length <= bits,
                    "{x} in {bits}, two limbs"
                );
                assert_eq!(all_fit(&[0, x as u64], 1, bits), length <= bits);
                assert_eq!(all_fit(&[0, 0, wide[0], wide[1]], 2, bits), length <= bits);
            }
        }
    }

    #[test]
    fn many_numbers_fit_if_each_of_them_does() {
        let limbs = [
            0,
            1,
            2,
            1 << 62,
            (1 << 63) - 1,
            1 << 63,
            u64::MAX - 1,
            u64::MAX,
        ];
        for bits in 0..=192 {
            for x in limbs {
                assert_eq!(all_fit(&[x], 1, bits), fits(&[x], bits), "{x} in {bits}");
                for y in limbs {
                    assert_eq!(all_fit(&[x, y], 2, bits), fits(&[x, y], bits));
                    for z in limbs {
                        assert_eq!(all_fit(&[x, y, z], 3, bits), fits(&[x, y, z], bits));
                    }
                }
            }
        }
    }

    #[test]
    fn logarithms_round_up() {
        let expected = [0, 0, 1, 2, 2, 3, 3, 3, 3, 4];
        for (n, &log) in expected.iter().enumerate() {
            assert_eq!(ceil_log2(n), log, "{n}");
        }
        assert_eq!(ceil_log2(usize::MAX), usize::BITS);
    }
}
