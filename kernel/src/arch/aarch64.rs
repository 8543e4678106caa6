//! AArch64: NEON, which every such CPU has.

use core::arch::aarch64::*;

use super::{List, instance};
use crate::gemm::Class;
use crate::microkernel::{Blocking, Kernel, Vector};

/// Implements [`Vector`] for one register type in both classes.
macro_rules! vector {
    ($name:ident, $scalar:ty, $register:ty, $lanes:expr, $splat:ident, $load:ident, $store:ident, $fma:ident, $mul:ident, $add:ident) => {
        #[derive(Clone, Copy)]
        struct $name<const FUSED: bool>($register);

        // SAFETY of every block: NEON is part of the baseline of this target; memory is guaranteed
        // by the caller.
        #[allow(
            unused_unsafe,
            reason = "which intrinsics are safe depends on the compiler's version"
        )]
        impl<const FUSED: bool> Vector<$scalar> for $name<FUSED> {
            const LANES: usize = $lanes;

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
            unsafe fn multiply_add(a: Self, b: Self, c: Self) -> Self {
                // SAFETY: see above.
                unsafe {
                    if FUSED {
                        Self($fma(c.0, a.0, b.0))
                    } else {
                        Self($add($mul(a.0, b.0), c.0))
                    }
                }
            }
        }
    };
}

vector!(
    F64x2,
    f64,
    float64x2_t,
    2,
    vdupq_n_f64,
    vld1q_f64,
    vst1q_f64,
    vfmaq_f64,
    vmulq_f64,
    vaddq_f64
);
vector!(
    F32x4,
    f32,
    float32x4_t,
    4,
    vdupq_n_f32,
    vld1q_f32,
    vst1q_f32,
    vfmaq_f32,
    vmulq_f32,
    vaddq_f32
);

// 32 registers: 24 accumulators, 4 (3) of B, and A by element.
instance!(
    fused_f64,
    f64,
    F64x2<true>,
    mr = 6,
    nv = 4,
    rows = [6, 4, 2, 1],
    chains = 16,
);
instance!(
    separate_f64,
    f64,
    F64x2<false>,
    mr = 6,
    nv = 4,
    rows = [6, 4, 2, 1],
    chains = 16,
);
instance!(
    fused_f32,
    f32,
    F32x4<true>,
    mr = 8,
    nv = 3,
    rows = [8, 6, 4, 2, 1],
    chains = 16,
);
instance!(
    separate_f32,
    f32,
    F32x4<false>,
    mr = 8,
    nv = 3,
    rows = [8, 6, 4, 2, 1],
    chains = 16,
);

/// The packed A is 192 KiB, the packed B at most 4 MiB: for the small caches of phones.
const F64: Blocking = Blocking {
    mc: 96,
    kc: 256,
    nc: 2048,
};
const F32: Blocking = Blocking {
    mc: 96,
    kc: 512,
    nc: 2040,
};

macro_rules! kernel {
    ($module:ident, $class:expr, $blocking:expr) => {
        const {
            // SAFETY: NEON is part of the baseline; `run` is the generic micro-kernel.
            &unsafe {
                Kernel::new::<{ $module::MR }, { $module::NR }>(
                    "neon",
                    $class,
                    $blocking,
                    $module::FUNCTIONS,
                )
            }
        }
    };
}

pub(super) fn push_f64(list: &mut List<f64>) {
    list.push(kernel!(fused_f64, Class::Fused, F64));
    list.push(kernel!(separate_f64, Class::Separate, F64));
}

pub(super) fn push_f32(list: &mut List<f32>) {
    list.push(kernel!(fused_f32, Class::Fused, F32));
    list.push(kernel!(separate_f32, Class::Separate, F32));
}
