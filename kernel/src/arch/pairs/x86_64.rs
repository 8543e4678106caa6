//! x86-64: `vpdpwssd` of AVX-512 VNNI and of AVX-VNNI, or `vpmaddwd` and `vpaddd` of AVX-512BW and AVX2.

use core::arch::x86_64::*;

use super::instance;

/// Whether this CPU has all of these features.
macro_rules! has {
    ($($feature:tt),*) => {{
        #[cfg(feature = "std")]
        let found = $(std::is_x86_feature_detected!($feature))&&*;
        #[cfg(not(feature = "std"))]
        let found = $(cfg!(target_feature = $feature))&&*;
        found
    }};
}

/// Implements [`Lanes`](super::Lanes) for one register type, with functions of this file for what takes
/// more than one instruction.
macro_rules! lanes {
    ($name:ident, $register:ty, $lanes:expr, $float:ident, $splat:ident, $load:ident, $store:ident,
     $add:ident, $sub:ident, $mul:ident, $to_float:ident, $to_int:ident, $mul_float:ident, $left:ident, $right:ident,
     $blend:ident, $dot:ident) => {
        #[derive(Clone, Copy)]
        struct $name($register);

        // SAFETY of every block: the intrinsics need the instance's features, which the caller of a
        // method guarantees, and unaligned memory that it guarantees too.
        #[allow(
            unused_unsafe,
            reason = "which intrinsics are safe depends on the features of the caller"
        )]
        impl super::Lanes for $name {
            type Sums = Self;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(x: u32) -> Self {
                // SAFETY: see above.
                Self(unsafe { $splat(x as i32) })
            }

            #[inline(always)]
            unsafe fn load(from: *const u32) -> Self {
                // SAFETY: see above.
                Self(unsafe { $load(from.cast()) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u32) {
                // SAFETY: see above.
                unsafe { $store(to.cast(), self.0) }
            }

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: see above.
                Self(unsafe { $splat(0) })
            }

            #[inline(always)]
            unsafe fn dot(sums: Self, a: Self, b: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { $dot(sums.0, a.0, b.0) })
            }

            #[inline(always)]
            unsafe fn sum(sums: Self) -> Self {
                sums
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { $add(self.0, other.0) })
            }

            #[inline(always)]
            unsafe fn reduce(self, p: Self, inverse: Self) -> Self {
                // SAFETY: see above.
                unsafe {
                    let quotient = $to_int($mul_float($to_float(self.0), $float(inverse.0)));
                    Self($sub(self.0, $mul(quotient, p.0)))
                }
            }

            #[inline(always)]
            unsafe fn pair(low: Self, high: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { $blend(low.0, $left::<16>(high.0)) })
            }

            #[inline(always)]
            unsafe fn low(self) -> Self {
                // SAFETY: see above.
                Self(unsafe { $right::<16>($left::<16>(self.0)) })
            }

            #[inline(always)]
            unsafe fn high(self) -> Self {
                // SAFETY: see above.
                Self(unsafe { $right::<16>(self.0) })
            }
        }
    };
}

/// 512 bits, which differ in the pair product only.
macro_rules! wide {
    ($name:ident, $dot:ident) => {
        lanes!(
            $name,
            __m512i,
            16,
            _mm512_castsi512_ps,
            _mm512_set1_epi32,
            _mm512_loadu_si512,
            _mm512_storeu_si512,
            _mm512_add_epi32,
            _mm512_sub_epi32,
            _mm512_mullo_epi32,
            _mm512_cvtepi32_ps,
            _mm512_cvtps_epi32,
            _mm512_mul_ps,
            _mm512_slli_epi32,
            _mm512_srai_epi32,
            blend_512,
            $dot
        );
    };
}

/// 256 bits, which differ in the pair product only.
macro_rules! narrow {
    ($name:ident, $dot:ident) => {
        lanes!(
            $name,
            __m256i,
            8,
            _mm256_castsi256_ps,
            _mm256_set1_epi32,
            _mm256_loadu_si256,
            _mm256_storeu_si256,
            _mm256_add_epi32,
            _mm256_sub_epi32,
            _mm256_mullo_epi32,
            _mm256_cvtepi32_ps,
            _mm256_cvtps_epi32,
            _mm256_mul_ps,
            _mm256_slli_epi32,
            _mm256_srai_epi32,
            blend_256,
            $dot
        );
    };
}

/// The low halves of the lanes of one, the high halves of the other.
///
/// # Safety
/// The CPU has AVX-512BW.
#[inline(always)]
unsafe fn blend_512(low: __m512i, high: __m512i) -> __m512i {
    // SAFETY: the caller's guarantee.
    unsafe { _mm512_mask_blend_epi16(0xaaaa_aaaa, low, high) }
}

/// As [`blend_512`].
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn blend_256(low: __m256i, high: __m256i) -> __m256i {
    // SAFETY: the caller's guarantee.
    unsafe { _mm256_blend_epi16::<0xaa>(low, high) }
}

/// `vpmaddwd` and `vpaddd`.
///
/// # Safety
/// The CPU has AVX-512BW.
#[inline(always)]
unsafe fn two_512(sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the caller's guarantee.
    unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(a, b)) }
}

/// As [`two_512`].
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn two_256(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller's guarantee.
    unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
}

/// `vpdpwssd`. Not the intrinsic, because the compiler turns a chain of those into `vpmaddwd` and `vpaddd`:
/// sooner done, but twice the work.
///
/// # Safety
/// The CPU has AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
unsafe fn one_512(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the instruction changes the register of the sums and nothing else.
    unsafe {
        core::arch::asm!(
            "vpdpwssd {sums}, {a}, {b}",
            sums = inout(zmm_reg) sums,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// As [`one_512`].
///
/// # Safety
/// The CPU has AVX-VNNI.
#[target_feature(enable = "avx2,avxvnni")]
#[inline]
unsafe fn one_256(mut sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: as there.
    unsafe {
        core::arch::asm!(
            "{{vex}} vpdpwssd {sums}, {a}, {b}",
            sums = inout(ymm_reg) sums,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

wide!(Vnni512, one_512);
wide!(Two512, two_512);
narrow!(Vnni256, one_256);
narrow!(Two256, two_256);

// 32 registers: 24 sums, 2 of B, 1 of A, and a product. 16: 12, 2, 1, 1.
instance!(avx512_vnni, "avx512-vnni", Vnni512, mr = 14, nv = 2, speed = 4.0, #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]);
instance!(avx512, "avx512", Two512, mr = 12, nv = 2, speed = 1.9, #[target_feature(enable = "avx512f,avx512bw")]);
instance!(avx_vnni, "avx-vnni", Vnni256, mr = 6, nv = 2, speed = 4.0, #[target_feature(enable = "avx2,avxvnni")]);
instance!(avx2, "avx2", Two256, mr = 6, nv = 2, speed = 2.6, #[target_feature(enable = "avx2")]);

pub(super) fn push(push: &mut impl FnMut(super::PairKernel)) {
    if has!("avx512f", "avx512bw", "avx512vnni") {
        push(avx512_vnni::KERNEL);
    }
    if has!("avx512f", "avx512bw") {
        push(avx512::KERNEL);
    }
    if has!("avx2", "avxvnni") {
        push(avx_vnni::KERNEL);
    }
    if has!("avx2") {
        push(avx2::KERNEL);
    }
}
