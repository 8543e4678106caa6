//! The instances of the micro-kernels. This file, and that of [`pairs`], are the only ones that ask for the
//! architecture.

#[cfg(any(test, all(target_arch = "wasm32", target_feature = "relaxed-simd")))]
mod fuses;
pub(crate) mod pairs;
mod portable;
mod widest;

pub(crate) use portable::NAME as PORTABLE;
#[cfg(target_arch = "x86_64")]
pub(crate) use widest::{Level, level};
pub(crate) use widest::{prefetch, widest};

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
pub(crate) type Kernels<T> = [Option<&'static Kernel<T>>; MAX_KERNELS];

/// Collects kernels in order.
struct List<T: 'static> {
    kernels: Kernels<T>,
    len: usize,
}

impl<T: 'static> List<T> {
    const fn new() -> Self {
        Self {
            kernels: [const { None }; MAX_KERNELS],
            len: 0,
        }
    }

    fn push(&mut self, kernel: &'static Kernel<T>) {
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
/// features that the instance needs. `rows` are the heights of [`Kernel::direct`]; the
/// first may be above MR.
macro_rules! instance {
    ($module:ident, $scalar:ty, $vector:ty, mr = $mr:expr, nv = $nv:expr, rows = [$($rows:expr),*], chains = $chains:expr, $(#[$attribute:meta])*) => {
        mod $module {
            use super::*;
            use crate::microkernel::{self, Strided, Vector};
            use crate::thin;

            pub(super) const MR: usize = $mr;
            pub(super) const NR: usize = $nv * LANES;
            const LANES: usize = <$vector as Vector<$scalar>>::LANES;

            /// The first `V` vectors of a panel.
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
                let a = Strided { start: a, lane: 1, step: MR };
                let b = Strided { start: b, lane: 1, step: NR };
                // SAFETY: the caller keeps the contract of the micro-kernel, and this function is
                // only reachable through a `Kernel`, made after the CPU was asked.
                unsafe { microkernel::run::<$scalar, $vector, MR, V>(depth, a, b, c, row_stride, load, a.start) }
            }

            /// `R` rows and `V` vectors, wherever they lie.
            ///
            /// # Safety
            /// As [`microkernel::run`].
            $(#[$attribute])*
            unsafe fn direct<const R: usize, const V: usize>(
                depth: usize,
                a: Strided<$scalar>,
                b: Strided<$scalar>,
                c: *mut $scalar,
                row_stride: usize,
                load: bool,
                ahead: *const $scalar,
            ) {
                // SAFETY: as for `run`. A row-major A is told apart because constant steps cost nothing;
                // under WebAssembly they cost the same, and what a page loads counts.
                unsafe {
                    if a.step == 1 && !cfg!(target_arch = "wasm32") {
                        let a = Strided { step: 1, ..a };
                        microkernel::run::<$scalar, $vector, R, V>(depth, a, b, c, row_stride, load, ahead);
                    } else {
                        microkernel::run::<$scalar, $vector, R, V>(depth, a, b, c, row_stride, load, ahead);
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
                unsafe { crate::pack::pack::<$scalar, $vector, R>(src, lane_stride, depth_stride, lanes, depth, dst) }
            }

            /// # Safety
            /// As [`thin::column`].
            $(#[$attribute])*
            unsafe fn column(
                sizes: (usize, usize),
                a: (*const $scalar, usize),
                b: (*const $scalar, usize),
                c: (*mut $scalar, usize),
                load: bool,
            ) {
                // SAFETY: the caller keeps the contract.
                unsafe { thin::column::<$scalar, $vector>(sizes, a, b, c, load) }
            }

            /// # Safety
            /// As [`thin::outer`].
            $(#[$attribute])*
            unsafe fn outer(
                sizes: (usize, usize),
                a: (*const $scalar, usize),
                b: *const $scalar,
                c: (*mut $scalar, usize),
                load: bool,
            ) {
                // SAFETY: the caller keeps the contract.
                unsafe { thin::outer::<$scalar, $vector>(sizes, a, b, c, load) }
            }

            const fn least(v: usize) -> usize {
                if v < $nv { v } else { $nv }
            }

            /// More rows than MR are for one vector across only.
            const fn across(rows: usize, v: usize) -> usize {
                if rows > MR { 1 } else { least(v) }
            }

            pub(super) const FUNCTIONS: microkernel::Functions<$scalar> = microkernel::Functions {
                lanes: LANES,
                run: [run::<{ least(1) }>, run::<{ least(2) }>, run::<{ least(3) }>, run::<{ least(4) }>],
                direct: &[$((
                    $rows,
                    [
                        direct::<$rows, { across($rows, 1) }>,
                        direct::<$rows, { across($rows, 2) }>,
                        direct::<$rows, { across($rows, 3) }>,
                        direct::<$rows, { across($rows, 4) }>,
                    ],
                )),*],
                pack: [pack::<MR>, pack::<NR>, pack::<LANES>],
                column: if <$vector as Vector<$scalar>>::SQUARES { Some(column) } else { None },
                outer,
                peak,
            };

            fn peak(iterations: u64) -> u64 {
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
