//! x86-64: AVX-512 and AVX2 + FMA, each in both classes. Chosen once at run time when feature `std`
//! is there to ask the CPU, else at compile time.

use core::arch::asm;
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
    ($name:ident, $scalar:ty, $register:ty, $lanes:expr, $splat:ident, $load:ident, $store:ident, $fma:ident, $mul:ident, $add:ident $(, $turned:ident)?) => {
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

            $(
                const SQUARES: bool = true;

                #[inline(always)]
                unsafe fn square(mut self, a: *const $scalar, stride: usize, b: *const $scalar, step: usize) -> Self {
                    // SAFETY: see above.
                    unsafe {
                        for (p, column) in $turned(a, stride).into_iter().enumerate() {
                            self = Self::multiply_add(Self(column), Self::splat(*b.add(p * step)), self);
                        }
                        self
                    }
                }
            )?

            #[inline(always)]
            fn prefetch(at: *const $scalar) {
                // SAFETY: a prefetch is a hint that never faults. The intrinsic counts as an access to memory that
                // loads are kept in order with, and registers spill.
                unsafe { asm!("prefetcht1 [{}]", in(reg) at.addr(), options(nomem, nostack, preserves_flags)) }
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
    _mm512_add_pd,
    turned_f64
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
    _mm512_add_ps,
    turned_f32
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

/// The columns of 8 × 8 elements whose rows are `stride` apart. Halves are put together as they are
/// loaded, which takes no shuffle; quarters and pairs then change places.
///
/// # Safety
/// The elements are readable, and the CPU has AVX-512F.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn turned_f64(from: *const f64, stride: usize) -> [__m512d; 8] {
    // SAFETY: the caller's guarantee.
    let half = |row: usize, at: usize| unsafe { _mm256_loadu_pd(from.add(row * stride + at)) };
    let mut columns = [_mm512_setzero_pd(); 8];
    for at in [0, 4] {
        // Rows 0 and 4, 1 and 5, 2 and 6, 3 and 7; four columns each.
        let rows: [__m512d; 4] = core::array::from_fn(|row| {
            _mm512_insertf64x4::<1>(_mm512_castpd256_pd512(half(row, at)), half(row + 4, at))
        });
        // Columns 0 and 1, then 2 and 3, of rows 0, 2, 4, 6 and of 1, 3, 5, 7.
        let low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
        let high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
        for (pair, places) in [low, high].into_iter().enumerate() {
            let even = _mm512_permutex2var_pd(rows[0], places, rows[2]);
            let odd = _mm512_permutex2var_pd(rows[1], places, rows[3]);
            columns[at + 2 * pair] = _mm512_unpacklo_pd(even, odd);
            columns[at + 2 * pair + 1] = _mm512_unpackhi_pd(even, odd);
        }
    }
    columns
}

/// [`turned_f64`] for 16 × 16.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn turned_f32(from: *const f32, stride: usize) -> [__m512; 16] {
    // SAFETY: the caller's guarantee.
    let half = |row: usize, at: usize| unsafe {
        _mm256_castps_pd(_mm256_loadu_ps(from.add(row * stride + at)))
    };
    let mut columns = [_mm512_setzero_ps(); 16];
    for at in [0, 8] {
        // Rows r and r + 8; eight columns each.
        let rows: [__m512d; 8] = core::array::from_fn(|row| {
            _mm512_insertf64x4::<1>(_mm512_castpd256_pd512(half(row, at)), half(row + 8, at))
        });
        let low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
        let high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
        for (four, places) in [low, high].into_iter().enumerate() {
            // Four columns of rows r, r + 4, r + 8, r + 12.
            let quarters: [__m512; 4] = core::array::from_fn(|row| {
                _mm512_castpd_ps(_mm512_permutex2var_pd(rows[row], places, rows[row + 4]))
            });
            // Columns 0 and 1, then 2 and 3, of even and of odd rows.
            let pairs = [
                _mm512_unpacklo_ps(quarters[0], quarters[2]),
                _mm512_unpackhi_ps(quarters[0], quarters[2]),
                _mm512_unpacklo_ps(quarters[1], quarters[3]),
                _mm512_unpackhi_ps(quarters[1], quarters[3]),
            ];
            for pair in 0..2 {
                let (even, odd) = (pairs[pair], pairs[pair + 2]);
                columns[at + 4 * four + 2 * pair] = _mm512_unpacklo_ps(even, odd);
                columns[at + 4 * four + 2 * pair + 1] = _mm512_unpackhi_ps(even, odd);
            }
        }
    }
    columns
}

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

/// Fused: MR rows of A, read where they are, take 24 KiB of the first-level cache, and the packed B
/// (kc × nc) 768 KiB of a second level of 1 MiB or more. A deep kc matters most: C is read and written once
/// per kc. If A has to be packed, mc × kc of it takes at most 576 KiB.
const AVX512_F64: Blocking = Blocking {
    mc: 144,
    kc: 512,
    nc: 192,
};
const AVX512_F32: Blocking = Blocking {
    mc: 144,
    kc: 1024,
    nc: 192,
};
/// Separate, with its tall tiles: a panel of B (kc × NR) stays in the first-level cache, the packed A in the
/// second, and the packed B, at most 4 MiB, beyond.
const AVX512_SEPARATE_F64: Blocking = Blocking {
    mc: 144,
    kc: 512,
    nc: 1024,
};
const AVX512_SEPARATE_F32: Blocking = Blocking {
    mc: 144,
    kc: 384,
    nc: 1024,
};
/// The packed B is 384 KiB: CPUs without AVX-512 may have 256 to 512 KiB of second level.
const AVX2_F64: Blocking = Blocking {
    mc: 96,
    kc: 512,
    nc: 96,
};
const AVX2_F32: Blocking = Blocking {
    mc: 96,
    kc: 512,
    nc: 192,
};

macro_rules! kernel {
    ($module:ident, $name:expr, $class:expr, $blocking:expr) => {
        const {
            // SAFETY: `push_*` asked the CPU before; `run` is the generic micro-kernel.
            &unsafe {
                Kernel::new::<{ $module::MR }, { $module::NR }>(
                    $name,
                    $class,
                    $blocking,
                    $module::FUNCTIONS,
                )
            }
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
            AVX512_SEPARATE_F64
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
            AVX512_SEPARATE_F32
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
