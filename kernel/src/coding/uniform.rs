//! Masks: field elements that are uniform and independent, from entropy.

use super::Field;
use crate::matrix::KernelError;

/// Where random bytes come from: the operating system, for masks. Whoever can predict them can remove
/// the masks, so nothing in this crate is such a source.
pub trait Entropy {
    /// Fills `bytes` with uniform, independent bytes.
    ///
    /// # Errors
    /// `Entropy` if there are none; `bytes` then must not be used.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), KernelError>;
}

/// Random bytes that are asked for at a time.
const POOL: usize = 4096;

/// Fills `to` with uniform elements of the field, canonical. By rejection, so that none is more likely: 2 bytes for
/// each try, of which p/2^⌈log2 p⌉ succeed.
///
/// # Errors
/// `Entropy`; `to` is then incomplete.
pub fn fill(field: &Field, entropy: &mut dyn Entropy, to: &mut [i16]) -> Result<(), KernelError> {
    let p = field.prime();
    let mask = u32::MAX >> (p - 1).leading_zeros();
    let mut pool = [0; POOL];
    let mut filled = 0;
    while filled < to.len() {
        let bytes = POOL.min((to.len() - filled) * 2);
        entropy.fill(&mut pool[..bytes])?;
        for number in pool[..bytes].chunks_exact(2) {
            let number = u32::from(u16::from_le_bytes([number[0], number[1]])) & mask;
            // Written anyway, kept if it is in the field.
            to[filled.min(to.len() - 1)] = field.canonical(number.min(p - 1));
            filled += usize::from(number < p);
            if filled == to.len() {
                break;
            }
        }
    }
    pool.fill(0);
    Ok(())
}
