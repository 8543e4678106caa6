//! The pair product in plain Rust, for devices whose instructions are not used here and for tests.

use super::instance;

/// Four lanes: one register of most devices.
#[derive(Clone, Copy)]
struct Four([u32; 4]);

impl Four {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        Self(core::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

/// 1.5·2^23: adding it to a small float leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;

// SAFETY of every block: memory is guaranteed by the caller.
impl super::Lanes for Four {
    type Sums = Self;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: u32) -> Self {
        Self([x; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: see above.
        Self(unsafe { from.cast::<[u32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: see above.
        unsafe { to.cast::<[u32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0; 4])
    }

    #[inline(always)]
    unsafe fn dot(sums: Self, a: Self, b: Self) -> Self {
        Self(core::array::from_fn(|lane| {
            let low = i32::from(a.0[lane] as i16) * i32::from(b.0[lane] as i16);
            let high = ((a.0[lane] as i32) >> 16) * ((b.0[lane] as i32) >> 16);
            sums.0[lane].wrapping_add((low as u32).wrapping_add(high as u32))
        }))
    }

    #[inline(always)]
    unsafe fn sum(sums: Self) -> Self {
        sums
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_add)
    }

    #[inline(always)]
    unsafe fn reduce(self, p: Self, inverse: Self) -> Self {
        Self(core::array::from_fn(|lane| {
            let quotient = self.0[lane] as i32 as f32 * f32::from_bits(inverse.0[lane]) + ROUND;
            let quotient = quotient.to_bits().wrapping_sub(ROUND.to_bits());
            self.0[lane].wrapping_sub(quotient.wrapping_mul(p.0[lane]))
        }))
    }

    #[inline(always)]
    unsafe fn pair(low: Self, high: Self) -> Self {
        low.zip(high, |low, high| low & 0xffff | high << 16)
    }

    #[inline(always)]
    unsafe fn low(self) -> Self {
        Self(self.0.map(|x| x as i16 as u32))
    }

    #[inline(always)]
    unsafe fn high(self) -> Self {
        Self(self.0.map(|x| (x as i32 >> 16) as u32))
    }
}

instance!(four, "portable", Four, mr = 4, nv = 2, speed = 1.0,);

pub(super) const KERNEL: super::PairKernel = four::KERNEL;
