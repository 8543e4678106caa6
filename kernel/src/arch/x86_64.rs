//! x86-64: AVX-512 and AVX2 + FMA, each in both classes. Chosen once at run time when feature `std`
//! is there to ask the CPU, else at compile time.

use core::arch::x86_64::*;

use super::{List, instance};
use crate::gemm::Class;
use crate::microkernel::{Blocking, Kernel, Vector};

/// Whether this CPU has a feature.
macro_rules! has {
    ($feature:tt) => {{
        #[cfg(feature = "std")]
        let found = std::is_x86_feature_detected!($feature);
        #[cfg(not(feature = "std"))]
        let found = cfg!(target_feature = $feature);
        found
    }};
}

/// Implements [`Vector`] for one register type in both classes.
macro_rules! vector {
    ($name:ident, $scalar:ty, $register:ty, $lanes:expr, $splat:ident, $load:ident, $store:ident, $fma:ident, $mul:ident, $add:ident) => {
        #[derive(Clone, Copy)]
        struct $name<const FUSED: bool>($register);

        // SAFETY of every block: the intrinsics need the instance's features, which the caller of a
        // `Vector` method guarantees, and unaligned memory that it guarantees too.
        impl<const FUSED: bool> Vector<$scalar> for $name<FUSED> {
            const LANES: usize = $lanes;
            const UNROLL: usize = 4;

            #[inline(always)]
            unsafe fn splat(value: $scalar) -> Self {
                // SAFETY: see above.
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            unsafe fn load(from: *const $scalar) -> Self {
                // SAFETY: see above.
                Self(unsafe { $load(from) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $scalar) {
                // SAFETY: see above.
                unsafe { $store(to, self.0) }
            }

            #[inline(always)]
            fn prefetch(at: *const $scalar) {
                // SAFETY: a prefetch is a hint that never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
            }

            #[inline(always)]
            unsafe fn multiply_add(a: Self, b: Self, c: Self) -> Self {
                // SAFETY: see above.
                unsafe {
                    if FUSED {
                        Self($fma(a.0, b.0, c.0))
                    } else {
                        Self($add($mul(a.0, b.0), c.0))
                    }
                }
            }
        }
    };
}

vector!(
    F64x8,
    f64,
    __m512d,
    8,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_fmadd_pd,
    _mm512_mul_pd,
    _mm512_add_pd
);
vector!(
    F32x16,
    f32,
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_mul_ps,
    _mm512_add_ps
);
vector!(
    F64x4,
    f64,
    __m256d,
    4,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_fmadd_pd,
    _mm256_mul_pd,
    _mm256_add_pd
);
vector!(
    F32x8,
    f32,
    __m256,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_mul_ps,
    _mm256_add_ps
);

// 32 registers. Fused: 24 accumulators, 4 of B, 1 of A; wide tiles take fewer loads. Separate: the
// product and the sum go to different pipes if nothing else is in the way, so A is broadcast by the
// multiplication itself, which takes a tile of one vector across.
instance!(avx512_fused_f64, f64, F64x8<true>, mr = 6, nv = 4, rows = [12, 6, 4, 2, 1], chains = 16, #[target_feature(enable = "avx512f")]);
instance!(avx512_separate_f64, f64, F64x8<false>, mr = 24, nv = 1, rows = [24, 12, 6, 4, 2, 1], chains = 16, #[target_feature(enable = "avx512f")]);
instance!(avx512_fused_f32, f32, F32x16<true>, mr = 6, nv = 4, rows = [12, 6, 4, 2, 1], chains = 16, #[target_feature(enable = "avx512f")]);
instance!(avx512_separate_f32, f32, F32x16<false>, mr = 24, nv = 1, rows = [24, 12, 6, 4, 2, 1], chains = 16, #[target_feature(enable = "avx512f")]);

// 16 registers: 12 accumulators, 2 of B, 1 of A, and 1 for the product of `Separate`.
instance!(avx2_fused_f64, f64, F64x4<true>, mr = 6, nv = 2, rows = [12, 6, 4, 2, 1], chains = 12, #[target_feature(enable = "avx2,fma")]);
instance!(avx2_separate_f64, f64, F64x4<false>, mr = 6, nv = 2, rows = [12, 6, 4, 2, 1], chains = 12, #[target_feature(enable = "avx2,fma")]);
instance!(avx2_fused_f32, f32, F32x8<true>, mr = 6, nv = 2, rows = [12, 6, 4, 2, 1], chains = 12, #[target_feature(enable = "avx2,fma")]);
instance!(avx2_separate_f32, f32, F32x8<false>, mr = 6, nv = 2, rows = [12, 6, 4, 2, 1], chains = 12, #[target_feature(enable = "avx2,fma")]);

/// The packed A (mc × kc) is at most 576 KiB, for second-level caches of 1 MiB and more; the packed B
/// (kc × nc) is 4 MiB, or 1.5 MiB for singles. A deep kc matters most: C is read and written once per kc.
const AVX512_F64: Blocking = Blocking {
    mc: 144,
    kc: 512,
    nc: 1024,
};
const AVX512_F32: Blocking = Blocking {
    mc: 144,
    kc: 384,
    nc: 1024,
};
/// The packed A is 192 to 384 KiB: CPUs without AVX-512 may have 256 to 512 KiB of second level.
const AVX2_F64: Blocking = Blocking {
    mc: 96,
    kc: 512,
    nc: 1024,
};
const AVX2_F32: Blocking = Blocking {
    mc: 96,
    kc: 512,
    nc: 2048,
};

macro_rules! kernel {
    ($module:ident, $name:expr, $class:expr, $blocking:expr) => {
        // SAFETY: `push_*` asked the CPU before; `run` is the generic micro-kernel.
        unsafe {
            Kernel::new::<{ $module::MR }, { $module::NR }>(
                $name,
                $class,
                $blocking,
                $module::FUNCTIONS,
            )
        }
    };
}

pub(super) fn push_f64(list: &mut List<f64>) {
    if has!("avx512f") {
        list.push(kernel!(
            avx512_fused_f64,
            "avx512",
            Class::Fused,
            AVX512_F64
        ));
        list.push(kernel!(
            avx512_separate_f64,
            "avx512",
            Class::Separate,
            AVX512_F64
        ));
    }
    let (avx2, fma) = (has!("avx2"), has!("fma"));
    if avx2 && fma {
        list.push(kernel!(avx2_fused_f64, "avx2+fma", Class::Fused, AVX2_F64));
        list.push(kernel!(
            avx2_separate_f64,
            "avx2+fma",
            Class::Separate,
            AVX2_F64
        ));
    }
}

pub(super) fn push_f32(list: &mut List<f32>) {
    if has!("avx512f") {
        list.push(kernel!(
            avx512_fused_f32,
            "avx512",
            Class::Fused,
            AVX512_F32
        ));
        list.push(kernel!(
            avx512_separate_f32,
            "avx512",
            Class::Separate,
            AVX512_F32
        ));
    }
    let (avx2, fma) = (has!("avx2"), has!("fma"));
    if avx2 && fma {
        list.push(kernel!(avx2_fused_f32, "avx2+fma", Class::Fused, AVX2_F32));
        list.push(kernel!(
            avx2_separate_f32,
            "avx2+fma",
            Class::Separate,
            AVX2_F32
        ));
    }
}
