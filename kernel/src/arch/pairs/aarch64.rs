//! AArch64: `smlal` and `smlal2` of NEON, which every such CPU has.

use core::arch::aarch64::*;

use super::instance;

#[derive(Clone, Copy)]
struct Four(int32x4_t);

// SAFETY of every block: NEON is part of the baseline of this target; memory is guaranteed by the caller.
#[allow(
    unused_unsafe,
    reason = "which intrinsics are safe depends on the compiler's version"
)]
impl super::Lanes for Four {
    /// The products of a lane's low and high numbers apart: of lanes 0 and 1, then of 2 and 3.
    type Sums = [int32x4_t; 2];
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: u32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdupq_n_s32(x as i32) })
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vld1q_s32(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: see above.
        unsafe { vst1q_s32(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: see above.
        [unsafe { vdupq_n_s32(0) }; 2]
    }

    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, a: Self, b: Self) -> Self::Sums {
        // SAFETY: see above.
        unsafe {
            let (a, b) = (vreinterpretq_s16_s32(a.0), vreinterpretq_s16_s32(b.0));
            [
                vmlal_s16(sums[0], vget_low_s16(a), vget_low_s16(b)),
                vmlal_high_s16(sums[1], a, b),
            ]
        }
    }

    #[inline(always)]
    unsafe fn sum(sums: Self::Sums) -> Self {
        // SAFETY: see above.
        Self(unsafe { vpaddq_s32(sums[0], sums[1]) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vaddq_s32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn reduce(self, p: Self, inverse: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let quotient = vmulq_f32(vcvtq_f32_s32(self.0), vreinterpretq_f32_s32(inverse.0));
            Self(vmlsq_s32(self.0, vcvtnq_s32_f32(quotient), p.0))
        }
    }

    #[inline(always)]
    unsafe fn pair(low: Self, high: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vsliq_n_s32::<16>(low.0, high.0) })
    }

    #[inline(always)]
    unsafe fn low(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vshrq_n_s32::<16>(vshlq_n_s32::<16>(self.0)) })
    }

    #[inline(always)]
    unsafe fn high(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vshrq_n_s32::<16>(self.0) })
    }
}

// 32 registers: 24 sums, 3 of B, 1 of A.
instance!(four, "neon", Four, mr = 4, nv = 3, speed = 2.0,);

pub(super) const KERNEL: super::PairKernel = four::KERNEL;
