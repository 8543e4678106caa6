//! The portable instance: plain arrays that the compiler may vectorise. It is the reference for the
//! others, and what a device without a better instance uses. `Fused` in software is slow, never
//! wrong.

use super::{List, instance};
use crate::gemm::{Class, Scalar};
use crate::microkernel::{Blocking, Kernel, Vector};

/// `N` lanes in an array.
#[derive(Clone, Copy)]
struct Lanes<T, const N: usize, const FUSED: bool>([T; N]);

impl<T: Scalar, const N: usize, const FUSED: bool> Vector<T> for Lanes<T, N, FUSED> {
    const LANES: usize = N;

    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Self([value; N])
    }

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: readable for N elements, says the caller.
        Self(unsafe { from.cast::<[T; N]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: writable for N elements, says the caller.
        unsafe { to.cast::<[T; N]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: Self, b: Self, c: Self) -> Self {
        let mut out = c;
        for lane in 0..N {
            out.0[lane] = if FUSED {
                T::fused(a.0[lane], b.0[lane], c.0[lane])
            } else {
                T::separate(a.0[lane], b.0[lane], c.0[lane])
            };
        }
        out
    }
}

/// 4 × 4 doubles are eight 128-bit registers, which every 64-bit target has to spare.
const BLOCKING: Blocking = Blocking {
    mc: 128,
    kc: 256,
    nc: 1024,
};

/// Under WebAssembly with SIMD there are better instances for all but `Fused` where the engine does not
/// fuse. That is done in software, so its shape makes no difference, and a phone loads as little of it
/// as can be.
macro_rules! unless_simd {
    ($($item:item)*) => {$(
        #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
        $item
    )*};
}

unless_simd! {
    instance!(separate_f64, f64, Lanes<f64, 4, false>, mr = 4, nv = 1, rows = [4, 2, 1], chains = 4,);
    instance!(separate_f32, f32, Lanes<f32, 8, false>, mr = 4, nv = 1, rows = [4, 2, 1], chains = 4,);
    instance!(fused_f64, f64, Lanes<f64, 4, true>, mr = 4, nv = 1, rows = [4, 2, 1], chains = 4,);
    instance!(fused_f32, f32, Lanes<f32, 8, true>, mr = 4, nv = 1, rows = [4, 2, 1], chains = 4,);
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
instance!(fused_f64, f64, Lanes<f64, 1, true>, mr = 1, nv = 1, rows = [1], chains = 1,);
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
instance!(fused_f32, f32, Lanes<f32, 1, true>, mr = 1, nv = 1, rows = [1], chains = 1,);

/// The name of this instance.
pub(crate) const NAME: &str = "portable";

macro_rules! kernel {
    ($module:ident, $class:expr) => {
        const {
            // SAFETY: no instruction beyond the target's baseline; `run` is the generic micro-kernel.
            &unsafe {
                Kernel::new::<{ $module::MR }, { $module::NR }>(
                    NAME,
                    $class,
                    BLOCKING,
                    $module::FUNCTIONS,
                )
            }
        }
    };
}

pub(super) fn push_f64(list: &mut List<f64>) {
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    list.push(kernel!(separate_f64, Class::Separate));
    list.push(kernel!(fused_f64, Class::Fused));
}

pub(super) fn push_f32(list: &mut List<f32>) {
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    list.push(kernel!(separate_f32, Class::Separate));
    list.push(kernel!(fused_f32, Class::Fused));
}
