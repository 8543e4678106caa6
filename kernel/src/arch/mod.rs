//! The instances of the micro-kernel. This file is the only one that asks for the architecture.

mod portable;
mod widest;

pub(crate) use portable::NAME as PORTABLE;
pub(crate) use widest::widest;
#[cfg(target_arch = "x86_64")]
pub(crate) use widest::{Level, level};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use crate::microkernel::Kernel;

/// Room for every kernel that one device can have.
pub(crate) const MAX_KERNELS: usize = 6;

/// Kernels of one device, the fastest first.
pub(crate) type Kernels<T> = [Option<Kernel<T>>; MAX_KERNELS];

/// Collects kernels in order.
struct List<T> {
    kernels: Kernels<T>,
    len: usize,
}

impl<T> List<T> {
    const fn new() -> Self {
        Self {
            kernels: [const { None }; MAX_KERNELS],
            len: 0,
        }
    }

    fn push(&mut self, kernel: Kernel<T>) {
        self.kernels[self.len] = Some(kernel);
        self.len += 1;
    }
}

/// The `f64` kernels that this device runs, the fastest first.
pub(crate) fn kernels_f64() -> Kernels<f64> {
    let mut list = List::new();
    #[cfg(target_arch = "x86_64")]
    x86_64::push_f64(&mut list);
    #[cfg(target_arch = "aarch64")]
    aarch64::push_f64(&mut list);
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    wasm32::push_f64(&mut list);
    portable::push_f64(&mut list);
    list.kernels
}

/// The `f32` kernels that this device runs, the fastest first.
pub(crate) fn kernels_f32() -> Kernels<f32> {
    let mut list = List::new();
    #[cfg(target_arch = "x86_64")]
    x86_64::push_f32(&mut list);
    #[cfg(target_arch = "aarch64")]
    aarch64::push_f32(&mut list);
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    wasm32::push_f32(&mut list);
    portable::push_f32(&mut list);
    list.kernels
}

/// Defines, for one vector type, the functions that a [`Kernel`] points to, compiled with the
/// features that the instance needs.
macro_rules! instance {
    ($module:ident, $scalar:ty, $vector:ty, mr = $mr:expr, nv = $nv:expr, chains = $chains:expr, $(#[$attribute:meta])*) => {
        mod $module {
            use super::*;
            use crate::microkernel::{self, Vector};

            pub(super) const MR: usize = $mr;
            pub(super) const NR: usize = $nv * LANES;

            /// The first `V` vectors of a panel (all of them if `V` is more).
            ///
            /// # Safety
            /// As [`microkernel::run`].
            $(#[$attribute])*
            unsafe fn run<const V: usize>(
                depth: usize,
                a: *const $scalar,
                b: *const $scalar,
                c: *mut $scalar,
                row_stride: usize,
                load: bool,
            ) {
                // SAFETY: the caller keeps the contract of the micro-kernel, and this function is
                // only reachable through a `Kernel`, made after the CPU was asked.
                unsafe {
                    match V {
                        1 if $nv > 1 => microkernel::run::<$scalar, $vector, MR, 1, { $nv }>(depth, a, b, c, row_stride, load, 0.0),
                        2 if $nv > 2 => microkernel::run::<$scalar, $vector, MR, 2, { $nv }>(depth, a, b, c, row_stride, load, 0.0),
                        3 if $nv > 3 => microkernel::run::<$scalar, $vector, MR, 3, { $nv }>(depth, a, b, c, row_stride, load, 0.0),
                        _ => microkernel::run::<$scalar, $vector, MR, { $nv }, { $nv }>(depth, a, b, c, row_stride, load, 0.0),
                    }
                }
            }

            /// # Safety
            /// As [`crate::pack::pack`].
            $(#[$attribute])*
            unsafe fn pack<const R: usize>(
                src: *const $scalar,
                lane_stride: usize,
                depth_stride: usize,
                lanes: usize,
                depth: usize,
                dst: *mut $scalar,
            ) {
                // SAFETY: the caller keeps the contract.
                unsafe { crate::pack::pack::<$scalar, R>(src, lane_stride, depth_stride, lanes, depth, dst) }
            }

            pub(super) const PACK: (microkernel::Pack<$scalar>, microkernel::Pack<$scalar>) = (pack::<MR>, pack::<NR>);
            pub(super) const LANES: usize = <$vector as Vector<$scalar>>::LANES;
            pub(super) const RUN: [microkernel::Run<$scalar>; microkernel::MAX_VECTORS] = [run::<1>, run::<2>, run::<3>, run::<4>];

            pub(super) fn peak(iterations: u64) -> u64 {
                /// # Safety
                /// The CPU has the instance's instructions.
                $(#[$attribute])*
                unsafe fn inner(iterations: u64) -> u64 {
                    // SAFETY: guaranteed by the caller.
                    unsafe {
                        microkernel::peak::<$scalar, $vector, { $chains }>(iterations, 0.999_999, 1e-6)
                    }
                }
                // SAFETY: only reachable through a `Kernel`, made after the CPU was asked.
                unsafe { inner(iterations) }
            }
        }
    };
}
use instance;
