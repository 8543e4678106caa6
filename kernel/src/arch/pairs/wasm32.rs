//! WebAssembly SIMD: `i32x4.dot_i16x8_s` and `i32x4.add`.

use core::arch::wasm32::*;

use super::instance;

#[derive(Clone, Copy)]
struct Four(v128);

/// 1.5·2^23: adding it to a small float leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;

// SAFETY of every block: memory is guaranteed by the caller.
impl super::Lanes for Four {
    type Sums = Self;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: u32) -> Self {
        Self(u32x4_splat(x))
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: see above.
        Self(unsafe { v128_load(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: see above.
        unsafe { v128_store(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(u32x4_splat(0))
    }

    #[inline(always)]
    unsafe fn dot(sums: Self, a: Self, b: Self) -> Self {
        Self(i32x4_add(sums.0, i32x4_dot_i16x8(a.0, b.0)))
    }

    #[inline(always)]
    unsafe fn sum(sums: Self) -> Self {
        sums
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(i32x4_add(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn reduce(self, p: Self, inverse: Self) -> Self {
        let round = f32x4_splat(ROUND);
        let quotient = f32x4_add(f32x4_mul(f32x4_convert_i32x4(self.0), inverse.0), round);
        Self(i32x4_sub(
            self.0,
            i32x4_mul(i32x4_sub(quotient, round), p.0),
        ))
    }

    #[inline(always)]
    unsafe fn pair(low: Self, high: Self) -> Self {
        Self(i16x8_shuffle::<0, 8, 2, 10, 4, 12, 6, 14>(low.0, high.0))
    }

    #[inline(always)]
    unsafe fn low(self) -> Self {
        Self(i32x4_shr(i32x4_shl(self.0, 16), 16))
    }

    #[inline(always)]
    unsafe fn high(self) -> Self {
        Self(i32x4_shr(self.0, 16))
    }
}

/// Chromium 156, 512 × 512 × 1,024: 62·10^9 operations a second, beside 26 in `f64` with relaxed multiply-adds
/// and 20 without.
const SPEED: f64 = if cfg!(target_feature = "relaxed-simd") {
    2.4
} else {
    3.1
};

// 8 sums: 3 × 3 and 6 × 2 are slower, since they do not all stay in registers in V8; 5 × 2 is no faster.
instance!(four, "simd128", Four, mr = 4, nv = 2, speed = SPEED,);

pub(super) const KERNEL: super::PairKernel = four::KERNEL;
