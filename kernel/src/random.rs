//! Pseudo-random numbers for checks: ChaCha20 (RFC 8439), so that nobody who does not hold the seed
//! can tell the next one.

/// The key stream of ChaCha20 with a zero nonce, as 64-bit numbers.
pub(crate) struct ChaCha {
    state: [u32; 16],
    block: [u32; 16],
    used: usize,
}

impl ChaCha {
    /// The stream of a key.
    pub(crate) fn new(key: [u8; 32]) -> Self {
        let mut state = [0; 16];
        state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (word, bytes) in state[4..12].iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self {
            state,
            block: [0; 16],
            used: 16,
        }
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        if self.used == 16 {
            self.block = block(&self.state);
            // A 64-bit block counter (words 12 and 13), as in the original ChaCha.
            let counter =
                (u64::from(self.state[13]) << 32 | u64::from(self.state[12])).wrapping_add(1);
            self.state[12] = counter as u32;
            self.state[13] = (counter >> 32) as u32;
            self.used = 0;
        }
        let number = u64::from(self.block[self.used + 1]) << 32 | u64::from(self.block[self.used]);
        self.used += 2;
        number
    }

    /// Uniform in `0..bound` (`bound > 0`), by rejection.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let mask = u64::MAX >> (bound - 1).leading_zeros().min(63);
        loop {
            let number = self.next() & mask;
            if number < bound {
                return number;
            }
        }
    }
}

fn quarter(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}

/// The block function of RFC 8439, section 2.3.
fn block(state: &[u32; 16]) -> [u32; 16] {
    let mut x = *state;
    for _ in 0..10 {
        for i in 0..4 {
            quarter(&mut x, i, 4 + i, 8 + i, 12 + i);
        }
        for i in 0..4 {
            quarter(
                &mut x,
                i,
                4 + (i + 1) % 4,
                8 + (i + 2) % 4,
                12 + (i + 3) % 4,
            );
        }
    }
    for (word, &start) in x.iter_mut().zip(state) {
        *word = word.wrapping_add(start);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_function_gives_the_test_vector_of_rfc_8439_section_2_3_2() {
        let mut state = ChaCha::new(core::array::from_fn(|i| i as u8)).state;
        state[12..].copy_from_slice(&[1, 0x0900_0000, 0x4a00_0000, 0]);
        let expected = [
            0xe4e7_f110,
            0x1559_3bd1,
            0x1fdd_0f50,
            0xc471_20a3,
            0xc7f4_d1c7,
            0x0368_c033,
            0x9aaa_2204,
            0x4e6c_d4c3,
            0x4664_82d2,
            0x09aa_9f07,
            0x05d7_c214,
            0xa202_8bd9,
            0xd19c_12b5,
            0xb94e_16de,
            0xe883_d0cb,
            0x4e3c_50a2,
        ];
        assert_eq!(block(&state), expected);
    }

    #[test]
    fn bounded_numbers_reach_every_value_and_nothing_else() {
        let mut random = ChaCha::new([1; 32]);
        for bound in [1, 2, 3, 7, 8] {
            let mut seen = [false; 8];
            for _ in 0..400 {
                seen[random.below(bound) as usize] = true;
            }
            assert!(
                seen.iter()
                    .enumerate()
                    .all(|(i, &hit)| hit == ((i as u64) < bound))
            );
        }
    }
}
